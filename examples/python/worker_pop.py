#!/usr/bin/env python3
"""The other way to consume: mq.pop receives and acks in the transaction that does the work.        worker_pop.py [--pgbouncer]

There is no lease to lose and no receipt to keep: the commit finishes the message together with the invoice, a rollback
gives it back, after a pause that grows with its failures.  So SIGTERM needs no handler: whenever we end, the server rolls
back what is open, and another worker has the message at once.  The transaction is open as long as the work lasts, so this
is for work that is short and in this database.
"""

import sys
import time

import psycopg
from psycopg.rows import namedtuple_row

POP = "SELECT id, payload FROM mq.pop('orders', wait => '20 s')"
# PgBouncer before 1.21 knows no prepared statements in transaction mode: None is for never
PREPARE_AFTER = None if "--pgbouncer" in sys.argv else 5


def log(text):
    print(text, file=sys.stderr, flush=True)


def first_line(error):
    return (str(error) or repr(error)).splitlines()[0]


def handle(db, message):
    try:
        db.execute("INSERT INTO invoices SELECT id, amount FROM orders WHERE id = %s", [message.payload["order"]])
        db.commit()
    except Exception as error:
        if db.closed:
            raise
        log(f"message {message.id}: {first_line(error)}; back in the queue")
        db.rollback()


def work(db):
    # psycopg's default mode: this begins a transaction
    message = db.execute(POP).fetchone()
    if message:
        handle(db, message)
    else:
        db.rollback()


def main():
    backoff = 0.25
    while True:
        try:
            with psycopg.connect(prepare_threshold=PREPARE_AFTER, row_factory=namedtuple_row) as db:
                while True:
                    work(db)
                    backoff = 0.25  # only now: a pooler lets us connect when the server is away
        except psycopg.Error as error:  # no connection, no right, no queue, a standby: it may be well later
            log(f"{first_line(error)}; once more in {backoff:g} s")
            time.sleep(backoff)
            backoff = min(2 * backoff, 5)


main()
