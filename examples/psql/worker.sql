-- One turn of worker.sh: takes an order, writes its invoice.
--
-- The order is leased to us.  The invoice and the ack are one transaction, so both are there or neither.  If we die, or are
-- too slow, the lease ends and another worker gets the order; our late ack then fails and takes the invoice with it.

\set SHOW_CONTEXT never
\set receive 'SELECT * FROM mq.receive(''orders'', wait => ''1 s'')'

-- one row, also when there is no message: \gset wants exactly one
SELECT receipt IS NOT NULL AS found, id, receipt, payload->>'order' AS order, least(2 ^ failures, 3600) AS delay
FROM (VALUES (1)) AS one LEFT JOIN (:receive) AS message ON true
\gset

\if :found
	BEGIN;
	INSERT INTO invoices SELECT id, amount FROM orders WHERE id = :'order';
	\if :ERROR
		\set reason :LAST_ERROR_MESSAGE
		ROLLBACK;
		\warn message :id: :reason; again in :delay s
		-- not strict: should the lease be over by now, then others have the message, and that is that
		SELECT mq.nack(ARRAY[:'receipt'::uuid], :delay * interval '1 s', strict => false) \g /dev/null
	\else
		SELECT mq.ack(:'receipt') \g /dev/null
		\set ack :SQLSTATE
		COMMIT;   -- rolls back if the ack has failed
		SELECT :'ack' = 'MQ001' AS lease_lost \gset
		\if :lease_lost
			\warn message :id: lease lost, rolled back
		\endif
	\endif
\endif
