-- nack and release of what the transaction itself has popped: it leaves the pop, the rest commits
\set VERBOSITY sqlstate
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
RESET client_min_messages;
SELECT mq.create_queue('p');
CREATE TEMP TABLE popped AS SELECT * FROM mq.pop('p');

-- pops all that is there into the table, in the caller's transaction
CREATE FUNCTION pg_temp.pop_all() RETURNS bigint LANGUAGE sql AS $$
	TRUNCATE popped; INSERT INTO popped SELECT * FROM mq.pop('p', max_messages => 100); SELECT count(*) FROM popped $$;
CREATE FUNCTION pg_temp.r(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT receipt FROM popped WHERE payload = to_jsonb(n) $$;
CREATE FUNCTION pg_temp.fill() RETURNS void LANGUAGE sql AS $$
	SELECT mq.purge('p'); SELECT mq.send_batch('p', array_agg(to_jsonb(i) ORDER BY i)) FROM generate_series(1, 5) i $$;
CREATE VIEW pg_temp.back AS SELECT payload, attempt, failures FROM mq.pop('p', max_messages => 100) ORDER BY payload;

-- one of five
SELECT pg_temp.fill();
BEGIN;
SELECT pg_temp.pop_all();
SELECT mq.nack(pg_temp.r(3));
SELECT mq.nack(pg_temp.r(3));                                   -- MQ001: it has left
ROLLBACK;
SELECT * FROM back;
SELECT pg_temp.fill();
BEGIN;
SELECT pg_temp.pop_all();
SELECT mq.nack(pg_temp.r(3));
SELECT mq.release(pg_temp.r(5));
SELECT count(*) FROM mq.pop('p', max_messages => 100);                          -- not before the commit
COMMIT;
SELECT * FROM back;
SELECT count(*) FROM mq.receive('p', max_messages => 100);

-- with a delay; by array, not strict
SELECT pg_temp.fill();
BEGIN;
SELECT pg_temp.pop_all();
SELECT mq.nack_batch(array[pg_temp.r(1), pg_temp.r(2)], '1 hour');
SELECT cardinality(mq.nack_batch(array[pg_temp.r(2), pg_temp.r(3)], '0', strict => false)) AS refused;
SELECT cardinality(mq.release_batch(array[pg_temp.r(4), gen_random_uuid()], strict => false)) AS refused;
COMMIT;
SELECT * FROM back;
SELECT payload, failures FROM mq.browse('p', states => '{retrying}') ORDER BY id;

-- rolled back to a savepoint: it is in the pop again; nacked in a savepoint that is released: it has left
SELECT pg_temp.fill();
BEGIN;
SELECT pg_temp.pop_all();
SAVEPOINT a;
SELECT mq.nack(pg_temp.r(1)), mq.release(pg_temp.r(2));
ROLLBACK TO a;
SELECT mq.release(pg_temp.r(2));
SAVEPOINT b;
SELECT mq.nack(pg_temp.r(3), '0');
RELEASE b;
COMMIT;
SELECT * FROM back;

-- the pop rolls back too: it counts once
SELECT pg_temp.fill();
BEGIN;
SAVEPOINT a;
SELECT pg_temp.pop_all();
SELECT mq.nack(pg_temp.r(1), '0'), mq.release(pg_temp.r(2));
ROLLBACK TO a;
COMMIT;
SELECT * FROM back;
SELECT pg_temp.fill();
BEGIN;
SELECT pg_temp.pop_all();
SELECT mq.nack(pg_temp.r(1), '0'), mq.release(pg_temp.r(2));
ROLLBACK;
SELECT * FROM back;

-- not what was received and acked (the ack stays), nor popped by a transaction that has ended; ack and extend as before
SELECT pg_temp.fill();
BEGIN;
SELECT receipt AS r FROM mq.receive('p') \gset
SELECT mq.ack(:'r'::uuid);
SAVEPOINT a;
SELECT mq.nack(:'r'::uuid);                                     -- MQ001
ROLLBACK TO a;
SELECT receipt AS p FROM mq.pop('p') \gset
SAVEPOINT a;
SELECT mq.ack(:'p'::uuid);                                      -- MQ001
ROLLBACK TO a;
SELECT mq.extend(:'p'::uuid, '1 hour');                         -- MQ001
ROLLBACK TO a;
COMMIT;
SELECT mq.nack(:'p'::uuid);                                     -- MQ001
SELECT * FROM back;

-- a message of two groups leaves the pop of one; receipts of several groups in one call
SELECT mq.create_group('p', 'g');
SELECT pg_temp.fill();
BEGIN;
SELECT pg_temp.pop_all();
SELECT mq.nack_batch(array[pg_temp.r(1), (SELECT receipt FROM mq.pop('p', consumer_group => 'g', max_messages => 1))], '0');
COMMIT;
SELECT * FROM back;
SELECT payload, failures FROM mq.pop('p', consumer_group => 'g', max_messages => 10);

-- own sends
BEGIN;
SELECT mq.send('p', '6') > 0 AS sent;
SELECT pg_temp.pop_all();
SELECT mq.nack(pg_temp.r(6), '0');
COMMIT;
SELECT * FROM back;
BEGIN;
SELECT mq.send('p', '7') > 0 AS sent;
SELECT pg_temp.pop_all();
SELECT mq.nack(pg_temp.r(7), '1 hour');
COMMIT;
SELECT * FROM back;
SELECT payload, failures FROM mq.browse('p', states => '{retrying}') ORDER BY id;

-- one statement: pop, work, and nack of what is bad
SELECT mq.purge('p');
SELECT mq.send_batch('p', array_agg(to_jsonb(i) ORDER BY i)) IS NOT NULL AS sent FROM generate_series(1, 4) i;
WITH m AS MATERIALIZED (SELECT * FROM mq.pop('p', max_messages => 10))
SELECT payload, CASE WHEN payload::int % 2 = 0 THEN mq.nack(receipt, '0')::text END FROM m;
SELECT * FROM back;
DROP VIEW pg_temp.back;
SELECT mq.drop_queue('p', force => true);
