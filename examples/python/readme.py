import contextlib, psycopg, time

while True:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(autocommit=True, prepare_threshold=None) as db:
        while jobs := db.execute("SELECT payload->'order', receipt FROM mq.receive('orders', 10, wait => '20 s')").fetchall():
            for order, receipt in jobs:
                try:
                    with db.transaction():
                        db.execute("INSERT INTO invoices SELECT id, amount FROM orders WHERE id = %s", [order])
                        db.execute("SELECT mq.ack(%s)", [receipt])
                except Exception:  # back in the queue; not strict, for the case that the lease is over
                    db.execute("SELECT mq.nack(ARRAY[%s], '1 s', strict => false)", [receipt])
    time.sleep(1)  # nothing there for long, or no connection
