-- Another worker (pgbench), the same turn with less to write: pop is receive and ack together.
WITH job AS (
	SELECT (payload->>'order')::bigint AS order_id FROM mq.pop('orders', max_messages => 3)
), invoice AS (
	INSERT INTO invoices (order_id, amount)
	SELECT o.id, o.amount FROM job JOIN orders o ON o.id = job.order_id
	RETURNING 1
)
SELECT count(*) AS jobs FROM invoice
\gset
\if :jobs = 0
	\sleep 20 ms
\endif
