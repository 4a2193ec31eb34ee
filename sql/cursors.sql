--
-- cursors: what is leased is what the call returned, however little of it was fetched
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('c');
SELECT count(mq.send('c', to_jsonb(i))) FROM generate_series(1, 20) AS i;

BEGIN;
DECLARE cur CURSOR FOR SELECT payload FROM mq.receive('c', max_messages => 5);
FETCH 2 FROM cur;
MOVE 1 FROM cur;
FETCH 1 FROM cur;
CLOSE cur;
COMMIT;
SELECT count(*) AS leased FROM mq.in_flight WHERE queue = 'c';

-- declared and never fetched: nothing was handed out
BEGIN;
DECLARE cur CURSOR FOR SELECT payload FROM mq.receive('c', max_messages => 5);
COMMIT;
SELECT count(*) AS leased FROM mq.in_flight WHERE queue = 'c';

-- rolled back: all of it comes back
BEGIN;
DECLARE cur CURSOR FOR SELECT payload, attempt FROM mq.receive('c', max_messages => 5);
FETCH 2 FROM cur;
ROLLBACK;
SELECT count(*) AS leased FROM mq.in_flight WHERE queue = 'c';

-- backwards and again: the same rows, no second hand-out
BEGIN;
DECLARE cur SCROLL CURSOR FOR SELECT payload, attempt FROM mq.receive('c', max_messages => 3);
FETCH ALL FROM cur;
FETCH BACKWARD ALL FROM cur;
FETCH ABSOLUTE 2 FROM cur;
COMMIT;
SELECT count(*) AS leased FROM mq.in_flight WHERE queue = 'c';

-- WITH HOLD outlives its transaction, the leases too
BEGIN;
DECLARE cur CURSOR WITH HOLD FOR SELECT receipt FROM mq.receive('c', max_messages => 2);
COMMIT;
FETCH 1 FROM cur \gset
SELECT mq.ack(:'receipt'::uuid);
FETCH 1 FROM cur \gset
SELECT mq.ack(:'receipt'::uuid);
CLOSE cur;
SELECT count(*) AS leased FROM mq.in_flight WHERE queue = 'c';

-- fetched inside a savepoint that rolls back: the rows may still be read, their receipts are refused
BEGIN;
DECLARE cur CURSOR FOR SELECT receipt FROM mq.receive('c', max_messages => 2);
SAVEPOINT s;
FETCH 1 FROM cur \gset
ROLLBACK TO s;
SELECT mq.ack(:'receipt'::uuid);                                -- MQ001
ROLLBACK;

-- a FOR loop over receive in PL/pgSQL, left early
DO $$
DECLARE m record;
BEGIN
	FOR m IN SELECT * FROM mq.receive('c', max_messages => 5) LOOP
		PERFORM mq.ack(m.receipt);
		EXIT;
	END LOOP;
END $$;
SELECT count(*) AS leased FROM mq.in_flight WHERE queue = 'c';

-- an update through a cursor over the log is refused like any other
BEGIN;
DECLARE cur CURSOR FOR SELECT * FROM mq.q_c FOR UPDATE;
FETCH 1 FROM cur \gset
DELETE FROM mq.q_c WHERE CURRENT OF cur;                        -- 55000
ROLLBACK;
SELECT mq.drop_queue('c', force => true);
