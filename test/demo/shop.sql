-- The shop: what it has before anybody orders.  Two ordinary tables and a queue.

CREATE EXTENSION mq;
SELECT mq.create_queue('orders');

CREATE TABLE orders (
	id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer  int NOT NULL,
	amount    int NOT NULL
);

-- No unique constraint on order_id: nothing here would hide a second invoice.
CREATE TABLE invoices (
	order_id  bigint NOT NULL,
	amount    int NOT NULL
);

-- An order and its message: one statement, hence one transaction.
CREATE FUNCTION place_order(customer int, amount int) RETURNS bigint LANGUAGE sql AS $$
	WITH o AS (INSERT INTO orders (customer, amount) VALUES (customer, amount) RETURNING id)
	SELECT mq.send('orders', jsonb_build_object('order', o.id)) FROM o
$$;

-- A worker's turn: take orders that wait, write their invoices, ack them.  Again one transaction: all or nothing.
CREATE FUNCTION write_invoices(max_orders int, OUT orders bigint, OUT attempt int) LANGUAGE sql AS $$
	WITH job AS MATERIALIZED (
		SELECT receipt, attempt, (payload->>'order')::bigint AS order_id FROM mq.receive('orders', max_messages => max_orders)
	), invoice AS (
		INSERT INTO invoices (order_id, amount)
		SELECT o.id, o.amount FROM job JOIN orders o ON o.id = job.order_id
	), done AS (
		SELECT mq.ack_batch(coalesce(array_agg(receipt), '{}')) FROM job
	)
	SELECT count(job.*), max(job.attempt) FROM done LEFT JOIN job ON true
$$;

-- What happens in a transaction that rolls back is gone; a sequence is not, so it can count.
CREATE SEQUENCE given_up;
CREATE SEQUENCE put_back;
