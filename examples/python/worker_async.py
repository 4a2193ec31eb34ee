#!/usr/bin/env python3
"""worker.py with asyncio: four consumers in one process, each with a connection of its own.
worker_async.py [--pgbouncer]"""

import asyncio
import signal
import sys

import psycopg
from psycopg.rows import namedtuple_row

CONSUMERS = 4
RECEIVE = "SELECT id, receipt, payload, failures FROM mq.receive('orders', max_messages => 5)"
# this takes nothing, so nothing is lost when it is broken off
WAIT = "CALL mq.wait('orders', timeout => '20 s')"
# PgBouncer before 1.21 knows no prepared statements in transaction mode: None is for never
PREPARE_AFTER = None if "--pgbouncer" in sys.argv else 5

stopping = asyncio.Event()
waiting = set()


def stop():
    stopping.set()
    for db in waiting:
        db.cancel()


def log(text):
    print(text, file=sys.stderr, flush=True)


def first_line(error):
    return (str(error) or repr(error)).splitlines()[0]


async def write_invoice(db, order):
    """The work.  Whatever it raises, nothing of it stays."""
    await db.execute("INSERT INTO invoices SELECT id, amount FROM orders WHERE id = %s", [order])


async def handle(db, message):
    try:
        async with db.transaction():
            await db.execute("SELECT mq.ack(%s)", [message.receipt])
            await write_invoice(db, message.payload["order"])
    except Exception as error:
        if db.closed:
            raise
        if getattr(error, "sqlstate", None) == "MQ001":
            log(f"message {message.id}: lease lost, not begun")
            return
        delay = min(2**message.failures, 3600)
        log(f"message {message.id}: {first_line(error)}; again in {delay} s")
        # not strict: should the lease be over by now, then others have the message, and that is that
        await db.execute(
            "SELECT mq.nack_batch(%s, delay => make_interval(secs => %s), strict => false)", [[message.receipt], delay]
        )


async def wait(db):
    waiting.add(db)
    try:
        await db.execute(WAIT)
    finally:
        waiting.remove(db)


async def work(db):
    messages = await (await db.execute(RECEIVE)).fetchall()
    if not messages and not stopping.is_set():
        await wait(db)
    while messages and not stopping.is_set():
        await handle(db, messages.pop(0))
    if messages:  # for the others, now and not when the lease ends
        await db.execute("SELECT mq.release_batch(%s, strict => false)", [[message.receipt for message in messages]])


async def pause(seconds):
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except asyncio.TimeoutError:
        pass


async def consumer():
    backoff = 0.25
    while not stopping.is_set():
        try:
            async with await psycopg.AsyncConnection.connect(
                autocommit=True, prepare_threshold=PREPARE_AFTER, row_factory=namedtuple_row
            ) as db:
                while not stopping.is_set():
                    await work(db)
                    backoff = 0.25  # only now: a pooler lets us connect when the server is away
        except psycopg.Error as error:  # no connection, no right, no queue, a standby: it may be well later
            if not stopping.is_set():
                log(f"{first_line(error)}; once more in {backoff:g} s")
            await pause(backoff)
            backoff = min(2 * backoff, 5)


async def main():
    for number in signal.SIGTERM, signal.SIGINT:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await asyncio.gather(*(consumer() for _ in range(CONSUMERS)))
    print("stopped")


asyncio.run(main())
