#!/usr/bin/env node
// Places orders: the row and its message are one transaction.        node producer.js [orders]
'use strict'
const { Client } = require('pg')

async function placeOrder(db, amount, changesHisMind) {
  await db.query('BEGIN')
  try {
    const { rows: [order] } = await db.query('INSERT INTO orders (amount) VALUES ($1) RETURNING id', [amount])
    // pg makes JSON of objects, and strings of bigints: an id may have more digits than a number holds
    await db.query("SELECT mq.send('orders', $1)", [{ order: Number(order.id) }])
    if (changesHisMind) throw new ChangedMind()
    await db.query('COMMIT')
  } catch (error) {
    await db.query('ROLLBACK') // neither the order nor the message was ever there
    if (!(error instanceof ChangedMind)) throw error
  }
}

class ChangedMind extends Error {}

async function main() {
  const orders = Number(process.argv[2] ?? 10)
  const db = new Client(process.env.DATABASE_URL)
  await db.connect()
  for (let n = 1; n <= orders; n++) await placeOrder(db, 100 * n, n % 5 === 0)
  await db.end()
}

main()
