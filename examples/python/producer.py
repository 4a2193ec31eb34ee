#!/usr/bin/env python3
"""Places orders: the row and its message are one transaction.        producer.py [orders] [--pgbouncer]"""

import sys

import psycopg
from psycopg.types.json import Jsonb

ORDERS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
# PgBouncer before 1.21 knows no prepared statements in transaction mode: None is for never
PREPARE_AFTER = None if "--pgbouncer" in sys.argv else 5


def place_order(db, amount, changes_his_mind):
    with db.transaction():
        order = db.execute("INSERT INTO orders (amount) VALUES (%s) RETURNING id", [amount]).fetchone()[0]
        db.execute("SELECT mq.send('orders', %s)", [Jsonb({"order": order})])
        if changes_his_mind:
            raise psycopg.Rollback  # neither the order nor the message was ever there


with psycopg.connect(autocommit=True, prepare_threshold=PREPARE_AFTER) as db:
    for n in range(1, ORDERS + 1):
        place_order(db, 100 * n, changes_his_mind=n % 5 == 0)
