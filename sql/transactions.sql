--
-- transactions: everything or nothing, also in savepoints, exception blocks and single statements
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate

-- what every migration and framework test does: all of it in one transaction that rolls back
BEGIN;
SELECT mq.create_queue('t');
SELECT mq.send('t', '"one"') > 0 AS sent;
SELECT mq.send_batch('t', array['"two"', '"three"']::jsonb[]) IS NOT NULL AS sent;
SELECT receipt AS r, payload FROM mq.receive('t') \gset
\echo :payload
SELECT mq.ack(:'r'::uuid);
SELECT mq.ack_batch(array_agg(receipt)) FROM mq.receive('t', max_messages => 10);
SELECT mq.drop_queue('t');
ROLLBACK;
SELECT count(*) FROM mq.queues;
SELECT to_regclass('mq.q_t');
-- and again, committed, without force: everything in it is finished
BEGIN;
SELECT mq.create_queue('t');
SELECT mq.send('t', '"one"') > 0 AS sent;
SELECT mq.ack(receipt) FROM mq.receive('t');
SELECT mq.drop_queue('t');
COMMIT;
SELECT count(*) FROM mq.queues;

-- sends: after commit only
SELECT mq.create_queue('t');
BEGIN;
SELECT mq.send('t', '"rolled back"') > 0 AS sent;
ROLLBACK;
SELECT count(*) FROM mq.receive('t', max_messages => 10);
BEGIN;
SELECT mq.send('t', '"a"') > 0 AS sent;
SAVEPOINT s1;
SELECT mq.send('t', '"b, rolled back"') > 0 AS sent;
ROLLBACK TO s1;
SELECT mq.send('t', '"c"') > 0 AS sent;
SAVEPOINT s2;
SELECT mq.send('t', '"d"') > 0 AS sent;
RELEASE s2;
SAVEPOINT s3;
SELECT mq.send('t', '"e, rolled back"') > 0 AS sent;
SAVEPOINT s4;
SELECT mq.send('t', '"f, rolled back with its parent"') > 0 AS sent;
RELEASE s4;
ROLLBACK TO s3;
COMMIT;
SELECT payload FROM mq.pop('t', max_messages => 10);

-- a transaction may receive its own earlier sends, whatever became of its savepoints
BEGIN;
SELECT mq.send('t', '"own 1"') > 0 AS sent;
SAVEPOINT s;
SELECT mq.send('t', '"own 2, rolled back"') > 0 AS sent;
SELECT payload FROM mq.receive('t', max_messages => 10);
ROLLBACK TO s;
SELECT mq.send('t', '"own 3"') > 0 AS sent;
SELECT payload, attempt, failures FROM mq.receive('t', max_messages => 10);     -- own 1 again: its hand-out was rolled back
SELECT payload FROM mq.receive('t', max_messages => 10);
COMMIT;
SELECT payload FROM mq.receive('t', max_messages => 10);                        -- leased
SELECT count(*) FROM mq.in_flight WHERE queue = 't';
SELECT mq.drop_queue('t', force => true);

-- received by its own sender, given back after the commit: anybody gets it, with nothing new behind it
SELECT mq.create_queue('t');
BEGIN;
SELECT mq.send_batch('t', array['"own a"', '"own b"', '"own c"']::jsonb[]) IS NOT NULL AS sent;
SELECT receipt AS ra FROM mq.receive('t', max_messages => 1, visibility_timeout => '1 hour') \gset
SELECT receipt AS rb FROM mq.receive('t', max_messages => 1, visibility_timeout => '1 hour') \gset
SELECT count(*) FROM mq.receive('t', max_messages => 1, visibility_timeout => '1 microsecond');
COMMIT;
SELECT mq.release(:'ra'::uuid);
SELECT payload, attempt, failures FROM mq.pop('t', max_messages => 10) WHERE payload = '"own a"';
SELECT mq.nack(:'rb'::uuid);
SELECT payload, attempt, failures FROM mq.pop('t', max_messages => 10) WHERE payload = '"own b"';
CREATE FUNCTION pg_temp.wait_for_pop() RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..6000 LOOP
		RETURN QUERY SELECT payload FROM mq.pop('t', max_messages => 10);
		EXIT WHEN FOUND OR (SELECT ready + retrying + leased + unread_at_most = 0 FROM mq.groups WHERE queue = 't');
		PERFORM pg_sleep(0.005);
	END LOOP;
END $$;
SELECT count(*) <= 1 AS at_most_own_c FROM pg_temp.wait_for_pop();
SELECT ready + retrying AS ready, leased, settling, pending FROM mq.groups WHERE queue = 't';
SELECT mq.drop_queue('t');

-- own sends acked and rolled back: nothing is left of them
SELECT mq.create_queue('t');
BEGIN;
SELECT mq.send('t', '"ghost"') > 0 AS sent;
SELECT mq.ack(receipt) FROM mq.receive('t');
ROLLBACK;
SELECT count(*) FROM mq.receive('t', max_messages => 10);
SELECT count(*) FROM mq.in_flight WHERE queue = 't';
SELECT mq.drop_queue('t');

-- receive, ack, then send, then receive again
SELECT mq.create_queue('t');
SELECT count(mq.send('t', to_jsonb(i))) FROM generate_series(1, 3) AS i;
BEGIN;
SELECT mq.ack(receipt) FROM mq.receive('t');
SELECT mq.send('t', '"from inside"') > 0 AS sent;
SELECT payload FROM mq.receive('t', max_messages => 10);
COMMIT;
SELECT count(*) AS leased FROM mq.in_flight WHERE queue = 't';
BEGIN;
SELECT mq.send('t', '4') > 0 AS sent;
SELECT mq.ack(receipt) FROM mq.receive('t');
SELECT mq.send('t', '5') > 0 AS sent;
SELECT payload FROM mq.pop('t', max_messages => 10);
ROLLBACK;
SELECT payload FROM mq.pop('t', max_messages => 10);
SELECT mq.drop_queue('t', force => true);

-- what a transaction received goes back at once when it rolls back, and the failure count stays raised
SELECT mq.create_queue('t');
SELECT mq.alter_group('t', 'default', '{"retry_delays": null}');
SELECT mq.send('t', '"poison"') > 0 AS sent;
BEGIN;
SELECT attempt, failures FROM mq.receive('t');
ROLLBACK;
BEGIN;
SELECT attempt, failures FROM mq.receive('t');
SELECT 1 / 0;                                                   -- 22012
ROLLBACK;
BEGIN;
SELECT mq.ack(receipt) FROM mq.receive('t', wait => '10 s');    -- after a pause
ROLLBACK;
SELECT receipt AS r, attempt, failures FROM mq.receive('t', wait => '10 s') \gset
\echo attempt :attempt failures :failures
-- a committed lease is nobody's to undo
BEGIN;
SELECT mq.ack(:'r'::uuid);
ROLLBACK;
SELECT count(*) FROM mq.receive('t');
SELECT state, attempt, failures FROM mq.in_flight WHERE queue = 't';
SELECT mq.ack(:'r'::uuid);
SELECT mq.drop_queue('t');

-- savepoints
SELECT mq.create_queue('t');
SELECT count(mq.send('t', to_jsonb(i))) FROM generate_series(1, 3) AS i;
BEGIN;
SELECT receipt AS r1 FROM mq.receive('t') \gset
SAVEPOINT a;
SELECT receipt AS r2 FROM mq.receive('t') \gset
SELECT mq.ack(:'r1'::uuid);
ROLLBACK TO a;
SELECT payload, f.state, f.attempt, f.failures FROM mq.in_flight f JOIN mq.q_t m USING (id) WHERE queue = 't' ORDER BY id;
SELECT mq.ack(:'r1'::uuid);                                     -- leased again, so it can be acked
SAVEPOINT b;
SELECT mq.ack(:'r2'::uuid);                                     -- MQ001: given back
ROLLBACK TO b;
SAVEPOINT c;
SELECT payload, attempt, failures FROM mq.receive('t');         -- 2, for the second time
RELEASE c;
COMMIT;
SELECT payload, f.state, f.attempt, f.failures FROM mq.in_flight f JOIN mq.q_t m USING (id) WHERE queue = 't' ORDER BY id;
SELECT payload FROM mq.pop('t', max_messages => 10);
SELECT mq.drop_queue('t', force => true);

-- a released savepoint goes with its parent
SELECT mq.create_queue('t');
SELECT count(mq.send('t', to_jsonb(i))) FROM generate_series(1, 2) AS i;
BEGIN;
SAVEPOINT outermost;
SAVEPOINT a;
SELECT payload FROM mq.receive('t');
SAVEPOINT b;
SELECT mq.ack(receipt) FROM mq.receive('t');
RELEASE b;
RELEASE a;
ROLLBACK TO outermost;
SELECT payload, attempt, failures FROM mq.receive('t', max_messages => 10);
ROLLBACK;
SELECT payload, attempt, failures FROM mq.pop('t', max_messages => 10, wait => '10 s');
SELECT mq.drop_queue('t');

-- PL/pgSQL exception blocks
SELECT mq.create_queue('t');
SELECT count(mq.send('t', to_jsonb(i))) FROM generate_series(1, 4) AS i;
CREATE TEMP TABLE worked (n int, failures int);
DO $$
DECLARE m mq.message;
BEGIN
	FOR i IN 1..8 LOOP
		BEGIN
			SELECT * INTO m FROM mq.receive('t');
			EXIT WHEN m.id IS NULL;
			INSERT INTO worked VALUES (m.payload::int, m.failures);
			PERFORM mq.ack(m.receipt);
			IF m.payload::int % 2 = 0 AND m.failures = 0 THEN
				RAISE EXCEPTION 'even numbers fail the first time';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT * FROM worked ORDER BY n;
SELECT count(*) FROM mq.receive('t', max_messages => 10);
SELECT mq.drop_queue('t');

-- one-statement consumers
SELECT mq.create_queue('t');
CREATE TEMP TABLE invoices (id bigint, doc jsonb);
SELECT count(mq.send('t', to_jsonb(i))) FROM generate_series(1, 5) AS i;
WITH m AS (SELECT * FROM mq.pop('t', max_messages => 2))
INSERT INTO invoices SELECT id, payload FROM m;
WITH m AS MATERIALIZED (SELECT * FROM mq.receive('t', max_messages => 2)),
     written AS (INSERT INTO invoices SELECT id, payload FROM m RETURNING 1),
     acked AS (SELECT mq.ack_batch(array_agg(receipt)) AS refused FROM m)
SELECT (SELECT count(*) FROM written) AS written, (SELECT refused FROM acked) AS refused;
-- one that fails: neither the row nor the ack
ALTER TABLE invoices ADD CHECK (doc <> '5');
WITH m AS (SELECT * FROM mq.pop('t', max_messages => 2))
INSERT INTO invoices SELECT id, payload FROM m;                 -- 23514
ALTER TABLE invoices DROP CONSTRAINT invoices_doc_check;
WITH m AS (SELECT * FROM mq.pop('t', max_messages => 2))
INSERT INTO invoices SELECT id, payload FROM m;
SELECT doc FROM invoices ORDER BY id;
SELECT count(*) FROM mq.in_flight WHERE queue = 't';

-- a message sent by the very statement that receives is not visible to it, as with any row
WITH sent AS MATERIALIZED (SELECT mq.send('t', '"same statement"') AS id)
SELECT sent.id > 0 AS sent, (SELECT count(*) FROM mq.pop('t', max_messages => 10) WHERE sent.id > 0) AS received FROM sent;
SELECT payload FROM mq.pop('t', max_messages => 10);

-- in a function every statement sees what the one before it did
CREATE FUNCTION pg_temp.round_trip(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE answer jsonb;
BEGIN
	PERFORM mq.send('t', doc);
	SELECT payload INTO answer FROM mq.pop('t');
	RETURN answer;
END $$;
SELECT pg_temp.round_trip('{"round": "trip"}');

-- the transactional outbox: row and message commit together
CREATE TEMP TABLE orders (id int PRIMARY KEY);
BEGIN;
INSERT INTO orders VALUES (1);
SELECT mq.send('t', '{"order": 1}') > 0 AS sent;
COMMIT;
BEGIN;
INSERT INTO orders VALUES (1);                                  -- 23505
SELECT mq.send('t', '{"order": 1}') > 0 AS sent;
COMMIT;
WITH o AS (INSERT INTO orders VALUES (2), (3) RETURNING id)
SELECT count(mq.send('t', jsonb_build_object('order', id))) AS sent FROM o;
SELECT payload FROM mq.pop('t', max_messages => 10);
SELECT mq.drop_queue('t');

-- procedures that commit on their way
SELECT mq.create_queue('t');
CREATE PROCEDURE pg_temp.produce_and_consume() LANGUAGE plpgsql AS $$
DECLARE m mq.message;
BEGIN
	FOR i IN 1..10 LOOP
		PERFORM mq.send('t', to_jsonb(i));
		IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
	END LOOP;
	FOR i IN 1..20 LOOP
		SELECT * INTO m FROM mq.receive('t');
		EXIT WHEN m.id IS NULL;
		COMMIT;
		INSERT INTO invoices VALUES (m.id, m.payload);
		PERFORM mq.ack(m.receipt);
		COMMIT;
	END LOOP;
END $$;
TRUNCATE invoices;
CALL pg_temp.produce_and_consume();
SELECT doc FROM invoices ORDER BY id;
SELECT mq.drop_queue('t');
