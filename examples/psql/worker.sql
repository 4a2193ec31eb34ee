-- One turn of worker.sh: takes an order and writes its invoice, in one transaction.
--
-- mq.pop receives and acks: there is no lease to lose.  The commit finishes the message together with the invoice; a rollback
-- gives it back, after a pause that grows with its failures.  If we are stopped or killed in here, the server rolls back.

\set SHOW_CONTEXT never
\set ON_ERROR_STOP on
\set pop 'SELECT * FROM mq.pop(''orders'', wait => ''20 s'')'

BEGIN;
-- one row, also when there is no message: \gset wants exactly one
SELECT id IS NOT NULL AS found, id, payload->>'order' AS order FROM (VALUES (1)) AS one LEFT JOIN (:pop) AS message ON true
\gset

\if :found
	\set ON_ERROR_STOP off
	INSERT INTO invoices SELECT id, amount FROM orders WHERE id = :'order';
	\if :ERROR
		\warn message :id: :LAST_ERROR_MESSAGE; back in the queue
	\endif
\endif
COMMIT;   -- rolls back if the work has failed
