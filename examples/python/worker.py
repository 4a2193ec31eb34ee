#!/usr/bin/env python3
"""Takes orders and writes their invoices, until SIGTERM.        worker.py [--pgbouncer]

Orders are leased to us, some at a time.  For each: first the ack, then the work, then the commit of both.  If the lease
is over, because others took too long, the ack fails and the work is not begun: another worker has the order.  If we die,
the invoice and the ack were never there, and when the lease ends another worker gets the order.
"""

import contextlib
import signal
import sys
import time

import psycopg
from psycopg.rows import namedtuple_row

# the lease lasts mq.visibility_timeout, 30 s unless set; visibility_timeout => '5 minutes' is for slower work
RECEIVE = "SELECT id, receipt, payload, failures FROM mq.receive('orders', max_messages => 10)"
# this takes nothing, so nothing is lost when it is broken off
WAIT = "CALL mq.wait('orders', timeout => '20 s')"
# PgBouncer before 1.21 knows no prepared statements in transaction mode: None is for never
PREPARE_AFTER = None if "--pgbouncer" in sys.argv else 5

stopping = interruptible = False


def stop(*_):
    global stopping
    stopping = True
    if interruptible:
        raise KeyboardInterrupt  # psycopg then cancels the query


@contextlib.contextmanager
def idle():
    """In here SIGTERM ends us at once; elsewhere when the message in hand is done."""
    global interruptible
    try:
        interruptible = True
        if stopping:
            raise KeyboardInterrupt
        yield
    finally:
        interruptible = False


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
            db.execute("SELECT mq.ack(%s)", [message.receipt])
            write_invoice(db, message.payload["order"])
    except Exception as error:
        if db.closed:
            raise
        if getattr(error, "sqlstate", None) == "MQ001":
            log(f"message {message.id}: lease lost, not begun")
            return
        delay = min(2**message.failures, 3600)
        log(f"message {message.id}: {first_line(error)}; again in {delay} s")
        # not strict: should the lease be over by now, then others have the message, and that is that
        db.execute("SELECT mq.nack_batch(%s, delay => make_interval(secs => %s), strict => false)", [[message.receipt], delay])


def work(db):
    messages = db.execute(RECEIVE).fetchall()
    if not messages:
        with idle():
            db.execute(WAIT)
    while messages and not stopping:
        handle(db, messages.pop(0))
    if messages:  # for the others, now and not when the lease ends
        db.execute("SELECT mq.release_batch(%s, strict => false)", [[message.receipt for message in messages]])


def run():
    backoff = 0.25
    while not stopping:
        try:
            # autocommit: a receive is a transaction of its own, and so is each `with db.transaction()`
            with psycopg.connect(autocommit=True, prepare_threshold=PREPARE_AFTER, row_factory=namedtuple_row) as db:
                while not stopping:
                    work(db)
                    backoff = 0.25  # only now: a pooler lets us connect when the server is away
        except psycopg.Error as error:  # no connection, no right, no queue, a standby: it may be well later
            log(f"{first_line(error)}; once more in {backoff:g} s")
            with idle():
                time.sleep(backoff)
            backoff = min(2 * backoff, 5)


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
with contextlib.suppress(KeyboardInterrupt):
    run()
print("stopped")
