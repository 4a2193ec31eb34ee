-- Places orders: the row and its message are one transaction.        psql -v orders=100 -f producer.sql

\o /dev/null
\if :{?orders} \else \set orders 10 \endif

-- each row is three commands, which \gexec carries out one after the other
SELECT 'BEGIN',
       format($$WITH o AS (INSERT INTO orders (amount) VALUES (%s) RETURNING id)
                SELECT mq.send('orders', jsonb_build_object('order', id)) FROM o$$, 100 * n),
       CASE WHEN n % 5 = 0 THEN 'ROLLBACK' ELSE 'COMMIT' END    -- then neither the order nor the message was ever there
FROM generate_series(1, :orders) AS n
\gexec
