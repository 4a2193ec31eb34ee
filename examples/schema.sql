-- The shop of the examples: two ordinary tables and a queue.

CREATE EXTENSION IF NOT EXISTS mq;
SELECT mq.create_queue('orders');

CREATE TABLE orders (
	id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	amount    int NOT NULL
);

-- No unique constraint on order_id: nothing here would hide a second invoice.
CREATE TABLE invoices (
	order_id  bigint NOT NULL,
	amount    int NOT NULL
);
