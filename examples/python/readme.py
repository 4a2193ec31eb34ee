import psycopg, time

while True:
    try:
        with psycopg.connect(prepare_threshold=None) as db:  # a transaction begins with the first statement
            while True:
                for (order,) in db.execute("SELECT payload->'order' FROM mq.pop('orders', wait => '20 s')"):
                    db.execute("INSERT INTO invoices SELECT id, amount FROM orders WHERE id = %s", [order])
                db.commit()  # the invoice is written and the message is finished
    except Exception as error:  # nothing of it has happened, the message is back in the queue
        print(error, flush=True)
        time.sleep(1)
