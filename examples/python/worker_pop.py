#!/usr/bin/env python3
"""The other way to consume: mq.pop receives and acks in the transaction that does the work.        worker_pop.py [--pgbouncer]

There is no lease to lose and no receipt to keep: the commit finishes the message together with the invoice, a rollback
gives it back at once, without a delay: a message that always fails comes first again and again.  The transaction is open
as long as the work lasts.  So this is for work that is short, in this database, and not expected to fail.
"""

import signal
import sys
import time

import psycopg
from psycopg.rows import namedtuple_row

POP = "SELECT id, payload FROM mq.pop('orders', wait => '1 s')"
# PgBouncer before 1.21 knows no prepared statements in transaction mode: None is for never
PREPARE_AFTER = None if "--pgbouncer" in sys.argv else 5

stopping = False


def stop(*_):
    global stopping
    stopping = True


def log(text):
    print(text, file=sys.stderr, flush=True)


def first_line(error):
    return (str(error) or repr(error)).splitlines()[0]


def work(db):
    # psycopg's default mode: this begins a transaction
    message = db.execute(POP).fetchone()
    if message is None:
        db.rollback()
        return
    try:
        db.execute("INSERT INTO invoices SELECT id, amount FROM orders WHERE id = %s", [message.payload["order"]])
        db.commit()
    except Exception as error:
        if db.closed:
            raise
        db.rollback()  # the message is back, with one failure more
        log(f"message {message.id}: {first_line(error)}; again in 1 s")
        time.sleep(1)


def main():
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    backoff = 0.1
    while not stopping:
        try:
            with psycopg.connect(prepare_threshold=PREPARE_AFTER, row_factory=namedtuple_row) as db:
                while not stopping:
                    work(db)
                    backoff = 0.1  # only now: a pooler lets us connect when the server is away
        except psycopg.OperationalError as error:
            log(f"no connection: {first_line(error)}; again in {backoff:g} s")
            time.sleep(backoff)
            backoff = min(2 * backoff, 5)
    print("stopped")


main()
