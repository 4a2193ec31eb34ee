--
-- vacuum: maintenance of the active segment between sends and receives, with aborted sends before it.
-- Nothing is lost, nothing stuck, whatever page and slot comes next.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('v');
CREATE TEMP TABLE expected (n int);
CREATE TEMP TABLE arrived (n int);
CREATE FUNCTION pg_temp.verdict() RETURNS TABLE (missing bigint, twice bigint, never_sent bigint) LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM expected WHERE n NOT IN (SELECT n FROM arrived)),
	       (SELECT count(*) - count(DISTINCT n) FROM arrived),
	       (SELECT count(*) FROM arrived WHERE n NOT IN (SELECT n FROM expected));
$$;
-- sends from..upto singly; those that are divisible by three are rolled back
CREATE PROCEDURE pg_temp.sends(first int, last int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN first..last LOOP
		PERFORM mq.send('v', to_jsonb(i), NULL, decode(repeat('ab', i % 400), 'hex'));
		IF i % 3 = 0 THEN
			ROLLBACK;
		ELSE
			INSERT INTO expected VALUES (i);
			COMMIT;
		END IF;
	END LOOP;
END $$;
CREATE PROCEDURE pg_temp.receives(many int) LANGUAGE sql AS $$
	INSERT INTO arrived SELECT payload::int FROM mq.pop('v', max_messages => many);
$$;

-- aborted sends alone: a page, then a whole segment's worth of nothing
BEGIN;
SELECT cardinality(mq.send_batch('v', array(SELECT to_jsonb(-i) FROM generate_series(1, 2000) AS i))) AS rolled_back;
ROLLBACK;
VACUUM mq.q_v;
CALL pg_temp.sends(1, 10);
CALL pg_temp.receives(3);
VACUUM mq.q_v;
CALL pg_temp.sends(11, 400);
CALL pg_temp.receives(100);
VACUUM (FREEZE) mq.q_v;
CALL pg_temp.sends(401, 500);

-- the file is written anew: rows lie elsewhere than remembered
VACUUM FULL mq.q_v;
CALL pg_temp.receives(50);
CALL pg_temp.sends(501, 700);
VACUUM FULL mq.q_v;
CALL pg_temp.sends(701, 720);
VACUUM FULL mq.q_v;
CALL pg_temp.receives(100);
VACUUM mq.q_v;
CALL pg_temp.sends(721, 900);
CALL pg_temp.receives(10000);
SELECT * FROM pg_temp.verdict();

-- a rewrite while messages are leased: the leases hold, acks are taken, what is given back is found
CALL pg_temp.sends(901, 1000);
CREATE TEMP TABLE held AS SELECT payload::int AS n, receipt FROM mq.receive('v', max_messages => 40);
VACUUM FULL mq.q_v;
SELECT count(mq.ack(receipt)) FROM held WHERE n % 2 = 0;
INSERT INTO arrived SELECT n FROM held WHERE n % 2 = 0;
SELECT count(mq.nack(receipt)) FROM held WHERE n % 2 = 1;
CALL pg_temp.receives(10000);
SELECT * FROM pg_temp.verdict();

-- a sender's open transaction cannot hold it up for ever; the others in between
BEGIN;
SELECT mq.send('v', '1001') > 0 AS sent;
INSERT INTO expected VALUES (1001);
SAVEPOINT s;
SELECT cardinality(mq.send_batch('v', array(SELECT to_jsonb(-i) FROM generate_series(1, 500) AS i))) AS rolled_back;
ROLLBACK TO s;
SELECT mq.send('v', '1002') > 0 AS sent;
INSERT INTO expected VALUES (1002);
COMMIT;
VACUUM mq.q_v;
CALL pg_temp.sends(1003, 1100);
CALL pg_temp.receives(10000);
SELECT * FROM pg_temp.verdict();

-- REINDEX (no index: nothing to do, and its TOAST table), CLUSTER (needs an index: refused), ANALYZE
SELECT (SELECT tableoid::regclass FROM mq.q_v LIMIT 1) AS segment \gset
CALL pg_temp.sends(1101, 1150);
REINDEX TABLE mq.q_v;
REINDEX TABLE :segment;
ANALYZE mq.q_v;
VACUUM (ANALYZE) :segment;
VACUUM (TRUNCATE true) :segment;
CALL pg_temp.sends(1151, 1200);
CLUSTER :segment;                                               -- 42704
CREATE INDEX by_time ON :segment (enqueued_at DESC);
CLUSTER :segment USING by_time;
DROP INDEX mq_internal.by_time;
CALL pg_temp.receives(20);
CALL pg_temp.sends(1201, 1300);
CALL pg_temp.receives(10000);
SELECT * FROM pg_temp.verdict();
TRUNCATE mq.q_v;                                                -- 55000
TRUNCATE :segment;                                              -- 55000

-- a table rewrite inside a transaction that rolls back
CALL pg_temp.sends(1301, 1330);
CREATE INDEX by_time ON :segment (enqueued_at DESC);
BEGIN;
CLUSTER :segment USING by_time;
ROLLBACK;
DROP INDEX mq_internal.by_time;
CALL pg_temp.receives(10);
CALL pg_temp.sends(1331, 1360);
CALL pg_temp.receives(10000);
SELECT * FROM pg_temp.verdict();

-- emptied by VACUUM: every send rolled back, in segments of their own
SELECT mq.create_queue('e', options => '{"segment_size": 1024}');
BEGIN;
SELECT cardinality(mq.send_batch('e', array(SELECT to_jsonb(i) FROM generate_series(1, 900) AS i))) AS rolled_back;
ROLLBACK;
VACUUM mq.q_e;
VACUUM FULL mq.q_e;
SELECT count(*) FROM mq.receive('e');
SELECT mq.send('e', '"alone"') > 0 AS sent;
SELECT payload FROM mq.pop('e', max_messages => 10);
SELECT mq.drop_queue('e');
SELECT mq.drop_queue('v');

-- the whole order out of step on one page: its first rows rolled back and vacuumed, the page full, their places taken by the greatest ids
SELECT mq.create_queue('p');
SELECT count(mq.send('p', '0')) FROM generate_series(1, 500);
SELECT segment_table AS segment FROM mq.segments WHERE queue = 'p' AND segment = 0 \gset
SELECT count(*) AS fit FROM :segment WHERE (ctid::text::point)[0] = 0 \gset
SELECT mq.drop_queue('p', force => true);
SELECT mq.create_queue('p');
SELECT segment_table AS segment FROM mq.segments WHERE queue = 'p' AND segment = 0 \gset
BEGIN;
SELECT count(mq.send('p', '0')) FROM generate_series(1, 20);
ROLLBACK;
SELECT count(mq.send('p', '0')) = :fit - 20 AS page_filled FROM generate_series(1, :fit - 20);
VACUUM :segment;
SELECT count(mq.send('p', '0')) FROM generate_series(1, 20);
SELECT count(mq.send('p', '0')) FROM generate_series(1, 300);
SELECT max(id) FILTER (WHERE (ctid::text::point)[1] <= 20) > max(id) FILTER (WHERE (ctid::text::point)[1] > 20) AS out_of_step
FROM :segment WHERE (ctid::text::point)[0] = 0;
-- look-ahead stops behind that page, and goes on
CREATE TEMP TABLE got AS SELECT id FROM mq.receive('p', max_messages => 10);
INSERT INTO got SELECT id FROM mq.receive('p', max_messages => 10);
SELECT count(*) FROM (SELECT mq.send('p', '0') FROM generate_series(1, 10)) AS more;
INSERT INTO got SELECT id FROM mq.receive('p', max_messages => 1000);
SELECT count(*) = :fit + 310 AS all_of_them, count(DISTINCT id) = :fit + 310 AS once FROM got;
SELECT count(*) AS ready_again FROM mq.receive('p', max_messages => 1000);
SELECT ready + retrying AS ready, leased = :fit + 310 AS leased, pending, unread_at_most FROM mq.groups WHERE queue = 'p';
SELECT mq.drop_queue('p', force => true);
