#!/usr/bin/env python3
"""Takes orders and writes their invoices, until SIGTERM.        worker.py [--pgbouncer]

An order is leased to us.  The invoice and the ack are one transaction, so both are there or neither.  If we die, or
are too slow, the lease ends and another worker gets the order; our late ack then fails and takes the invoice with it.
"""

import signal
import sys
import time

import psycopg
from psycopg.rows import namedtuple_row

# the lease lasts mq.visibility_timeout, 30 s unless set: mq.receive('orders', 10, '5 minutes') is for slower work
RECEIVE = "SELECT id, receipt, payload, failures FROM mq.receive('orders', 10, wait => '1 s')"
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


def write_invoice(db, order):
    """The work.  Whatever it raises, nothing of it stays."""
    db.execute("INSERT INTO invoices SELECT id, amount FROM orders WHERE id = %s", [order])


def handle(db, message):
    try:
        with db.transaction():
            write_invoice(db, message.payload["order"])
            db.execute("SELECT mq.ack(%s)", [message.receipt])
    except Exception as error:
        if db.closed:
            raise
        if getattr(error, "sqlstate", None) == "MQ001":
            log(f"message {message.id}: lease lost, rolled back")
            return
        delay = min(2**message.failures, 3600)
        log(f"message {message.id}: {first_line(error)}; again in {delay} s")
        # not strict: should the lease be over by now, then others have the message, and that is that
        db.execute("SELECT mq.nack(ARRAY[%s], make_interval(secs => %s), strict => false)", [message.receipt, delay])


def work(db):
    messages = db.execute(RECEIVE).fetchall()
    for message in messages:
        handle(db, message)


def main():
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    backoff = 0.1
    while not stopping:
        try:
            # autocommit: a receive is a transaction of its own, and so is each `with db.transaction()`
            with psycopg.connect(autocommit=True, prepare_threshold=PREPARE_AFTER, row_factory=namedtuple_row) as db:
                while not stopping:
                    work(db)
                    backoff = 0.1  # only now: a pooler lets us connect when the server is away
        except psycopg.OperationalError as error:
            log(f"no connection: {first_line(error)}; again in {backoff:g} s")
            time.sleep(backoff)
            backoff = min(2 * backoff, 5)
    print("stopped")


main()
