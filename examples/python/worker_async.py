#!/usr/bin/env python3
"""worker.py with asyncio: four consumers in one process, each with a connection of its own.
worker_async.py [--pgbouncer]"""

import asyncio
import signal
import sys

import psycopg
from psycopg.rows import namedtuple_row

CONSUMERS = 4
RECEIVE = "SELECT id, receipt, payload, failures FROM mq.receive('orders', 5, wait => '1 s')"
# PgBouncer before 1.21 knows no prepared statements in transaction mode: None is for never
PREPARE_AFTER = None if "--pgbouncer" in sys.argv else 5


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
            await write_invoice(db, message.payload["order"])
            await db.execute("SELECT mq.ack(%s)", [message.receipt])
    except Exception as error:
        if db.closed:
            raise
        if getattr(error, "sqlstate", None) == "MQ001":
            log(f"message {message.id}: lease lost, rolled back")
            return
        delay = min(2**message.failures, 3600)
        log(f"message {message.id}: {first_line(error)}; again in {delay} s")
        # not strict: should the lease be over by now, then others have the message, and that is that
        await db.execute(
            "SELECT mq.nack(ARRAY[%s], make_interval(secs => %s), strict => false)", [message.receipt, delay]
        )


async def pause(stopping, seconds):
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except asyncio.TimeoutError:
        pass


async def work(db, stopping):
    messages = await (await db.execute(RECEIVE)).fetchall()
    for message in messages:
        await handle(db, message)


async def consumer(stopping):
    backoff = 0.1
    while not stopping.is_set():
        try:
            async with await psycopg.AsyncConnection.connect(
                autocommit=True, prepare_threshold=PREPARE_AFTER, row_factory=namedtuple_row
            ) as db:
                while not stopping.is_set():
                    await work(db, stopping)
                    backoff = 0.1  # only now: a pooler lets us connect when the server is away
        except psycopg.OperationalError as error:
            log(f"no connection: {first_line(error)}; again in {backoff:g} s")
            await pause(stopping, backoff)
            backoff = min(2 * backoff, 30)


async def main():
    stopping = asyncio.Event()
    for number in signal.SIGTERM, signal.SIGINT:
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await asyncio.gather(*(consumer(stopping) for _ in range(CONSUMERS)))
    print("stopped")


asyncio.run(main())
