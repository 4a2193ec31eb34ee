#!/usr/bin/env node
// Takes orders and writes their invoices, until SIGTERM.        node worker.js
//
// Orders are leased to us, some at a time. For each: first the ack, then the work, then the commit of both. If the lease
// is over, because others took too long, the ack fails and the work is not begun: another worker has the order. If we die,
// the invoice and the ack were never there, and when the lease ends another worker gets the order.
'use strict'
const { setTimeout: sleep } = require('node:timers/promises')
const { Client } = require('pg')

// the lease lasts mq.visibility_timeout, 30 s unless set; visibility_timeout => '5 minutes' is for slower work
const RECEIVE = "SELECT id, receipt, payload, failures FROM mq.receive('orders', max_messages => 10)"
// this takes nothing, so nothing is lost when it is broken off
const WAIT = "CALL mq.wait('orders', timeout => '20 s')"

const stopping = new AbortController()
const pause = ms => sleep(ms, undefined, { signal: stopping.signal }).catch(() => {})

// The work. Whatever it throws, nothing of it stays.
async function writeInvoice(db, order) {
  await db.query('INSERT INTO invoices SELECT id, amount FROM orders WHERE id = $1', [order])
}

async function handle(db, { id, receipt, payload, failures }) {
  await db.query('BEGIN')
  try {
    await db.query('SELECT mq.ack($1)', [receipt])
    await writeInvoice(db, payload.order)
    await db.query('COMMIT')
  } catch (error) {
    await db.query('ROLLBACK') // throws if the connection is lost
    if (error.code === 'MQ001') {
      console.error(`message ${id}: lease lost, not begun`)
      return
    }
    const delay = Math.min(2 ** failures, 3600)
    console.error(`message ${id}: ${error.message}; again in ${delay} s`)
    // not strict: should the lease be over by now, then others have the message, and that is that
    await db.query('SELECT mq.nack_batch($1, delay => make_interval(secs => $2), strict => false)', [[receipt], delay])
  }
}

async function wait(db) {
  const hangUp = () => db.end().catch(() => {})
  stopping.signal.addEventListener('abort', hangUp)
  try {
    await db.query(WAIT)
  } finally {
    stopping.signal.removeEventListener('abort', hangUp)
  }
}

async function work(db) {
  const { rows: messages } = await db.query(RECEIVE)
  if (messages.length === 0 && !stopping.signal.aborted) await wait(db)
  while (messages.length > 0 && !stopping.signal.aborted) await handle(db, messages.shift())
  // what is left is for the others, now and not when the lease ends
  if (messages.length > 0) await db.query('SELECT mq.release_batch($1, strict => false)', [messages.map(m => m.receipt)])
}

async function main() {
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => stopping.abort())
  let backoff = 250
  while (!stopping.signal.aborted) {
    const db = new Client(process.env.DATABASE_URL)
    let lost = null
    db.on('error', error => { lost ??= error }) // without a listener, a connection lost while idle ends the process
    try {
      await db.connect()
      while (!stopping.signal.aborted) {
        await work(db)
        backoff = 250 // only now: a pooler lets us connect when the server is away
      }
    } catch (error) { // no connection, no right, no queue, a standby: it may be well later
      if (stopping.signal.aborted) break
      console.error(`${(lost ?? error).message}; once more in ${backoff} ms`)
      await pause(backoff)
      backoff = Math.min(2 * backoff, 5000)
    } finally {
      db.end().catch(() => {}) // not awaited: of a lost connection there is no end to hear of
    }
  }
  console.log('stopped')
}

main()
