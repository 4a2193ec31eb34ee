#!/usr/bin/env python3
"""Places orders, asynchronously, in psycopg's default mode: a transaction begins with the first statement and lasts until
commit or rollback.        producer_async.py [orders] [--pgbouncer]"""

import asyncio
import sys

import psycopg
from psycopg.types.json import Jsonb

ORDERS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
# PgBouncer before 1.21 knows no prepared statements in transaction mode: None is for never
PREPARE_AFTER = None if "--pgbouncer" in sys.argv else 5


async def place_order(db, amount, changes_his_mind):
    cursor = await db.execute("INSERT INTO orders (amount) VALUES (%s) RETURNING id", [amount])
    (order,) = await cursor.fetchone()
    await db.execute("SELECT mq.send('orders', %s)", [Jsonb({"order": order})])
    if changes_his_mind:
        await db.rollback()  # neither the order nor the message was ever there
    else:
        await db.commit()


async def main():
    async with await psycopg.AsyncConnection.connect(prepare_threshold=PREPARE_AFTER) as db:
        for n in range(1, ORDERS + 1):
            await place_order(db, 100 * n, changes_his_mind=n % 5 == 0)


asyncio.run(main())
