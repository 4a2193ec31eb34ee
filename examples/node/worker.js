#!/usr/bin/env node
// Takes orders and writes their invoices, until SIGTERM.        node worker.js
//
// An order is leased to us. The invoice and the ack are one transaction, so both are there or neither. If we die, or are
// too slow, the lease ends and another worker gets the order; our late ack then fails and takes the invoice with it.
'use strict'
const { setTimeout: sleep } = require('node:timers/promises')
const { Client } = require('pg')

// the lease lasts mq.visibility_timeout, 30 s unless set: mq.receive('orders', 10, '5 minutes') is for slower work
const RECEIVE = "SELECT id, receipt, payload, failures FROM mq.receive('orders', 10, wait => '1 s')"

const stopping = new AbortController()
const pause = ms => sleep(ms, undefined, { signal: stopping.signal }).catch(() => {})

// The work. Whatever it throws, nothing of it stays.
async function writeInvoice(db, order) {
  await db.query('INSERT INTO invoices SELECT id, amount FROM orders WHERE id = $1', [order])
}

async function handle(db, { id, receipt, payload, failures }) {
  await db.query('BEGIN')
  try {
    await writeInvoice(db, payload.order)
    await db.query('SELECT mq.ack($1)', [receipt])
    await db.query('COMMIT')
  } catch (error) {
    await db.query('ROLLBACK') // throws if the connection is lost
    if (error.code === 'MQ001') {
      console.error(`message ${id}: lease lost, rolled back`)
      return
    }
    const delay = Math.min(2 ** failures, 3600)
    console.error(`message ${id}: ${error.message}; again in ${delay} s`)
    // not strict: should the lease be over by now, then others have the message, and that is that
    await db.query('SELECT mq.nack(ARRAY[$1::uuid], make_interval(secs => $2), strict => false)', [receipt, delay])
  }
}

async function work(db) {
  const { rows: messages } = await db.query(RECEIVE)
  for (const message of messages) await handle(db, message)
}

async function main() {
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => stopping.abort())
  let backoff = 100
  while (!stopping.signal.aborted) {
    const db = new Client(process.env.DATABASE_URL)
    let lost = null
    db.on('error', error => { lost ??= error }) // without a listener, a connection lost while idle ends the process
    try {
      await db.connect()
      while (!stopping.signal.aborted) {
        await work(db)
        backoff = 100 // only now: a pooler lets us connect when the server is away
      }
    } catch (error) {
      if (!isConnectionError(error) && !lost) throw error
      console.error(`no connection: ${(lost ?? error).message}; again in ${backoff} ms`)
      await pause(backoff)
      backoff = Math.min(2 * backoff, 30_000)
    } finally {
      db.end().catch(() => {}) // not awaited: of a lost connection there is no end to hear of
    }
  }
  console.log('stopped')
}

// 08: connection; 57P: the server goes down, comes up, or an administrator ended the session; E...: the socket
const isConnectionError = ({ code, message }) => /^(08|57P|E[A-Z]+$)/.test(code) || /^Connection terminated/.test(message)

main()
