--
-- isolation_levels: READ COMMITTED, REPEATABLE READ, SERIALIZABLE; read-only transactions are refused
-- (what sessions do to each other is in test/isolation)
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('i');
SELECT count(mq.send('i', to_jsonb(n))) FROM generate_series(1, 12) AS n;

BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT payload FROM mq.receive('i');
SELECT mq.send('i', '"rc"') > 0 AS sent;
SELECT mq.ack(receipt) FROM mq.receive('i');
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT payload FROM mq.receive('i');
SELECT mq.send('i', '"rr"') > 0 AS sent;
SELECT mq.ack(receipt) FROM mq.receive('i');
SELECT payload FROM mq.receive('i', max_messages => 100) WHERE payload::text LIKE '"%';   -- its own are visible to it
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT payload, attempt, failures FROM mq.receive('i', max_messages => 2);
SELECT mq.send('i', '"ser"') > 0 AS sent;
SELECT mq.ack_batch(array_agg(receipt)) FROM mq.receive('i', max_messages => 2);
COMMIT;
SELECT count(*) AS leased FROM mq.in_flight WHERE queue = 'i';
SELECT count(*) AS rest, count(*) FILTER (WHERE payload::text LIKE '"%') AS sent_meanwhile FROM mq.pop('i', max_messages => 100);

-- read-only: every function that changes something says so
SELECT mq.send('i', '"ro"') > 0 AS sent;
SELECT receipt AS r FROM mq.receive('i') \gset
SET default_transaction_read_only = on;
SELECT mq.create_queue('ro');                                   -- 25006, and so on
SELECT mq.drop_queue('i', force => true);
SELECT mq.send('i', '1');
SELECT mq.send('i', '1'::jsonb);
SELECT mq.send_batch('i', array['1']::jsonb[]);
SELECT mq.send_batch('i', array['1']::jsonb[]);
SELECT * FROM mq.receive('i');
SELECT * FROM mq.pop('i');
SELECT mq.ack(:'r'::uuid);
SELECT mq.ack_batch(array[:'r']::uuid[]);
SELECT mq.nack(:'r'::uuid);
SELECT mq.nack_batch(array[:'r']::uuid[]);
SELECT mq.release(:'r'::uuid);
SELECT mq.release_batch(array[:'r']::uuid[]);
SELECT mq.extend(:'r'::uuid, '1 hour');
SELECT mq.extend_batch(array[:'r']::uuid[], '1 hour');
SELECT mq.discard('i', 'default', array[1]);
-- looking is allowed
SELECT count(*) > 0 AS browsed FROM mq.q_i;
SELECT count(*) > 0 AS browsed FROM mq.browse('i', states => '{leased}');
SELECT queue, leased FROM mq.groups;
SELECT queue FROM mq.queues;
RESET default_transaction_read_only;
BEGIN READ ONLY;
SELECT mq.send('i', '1');                                       -- 25006
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT * FROM mq.receive('i');                                  -- 25006
ROLLBACK;
SELECT mq.ack(:'r'::uuid);

-- cancel and statement_timeout in the middle: nothing of the statement stays; a cancel is a hand-out, the timeout a failure
SELECT mq.send('i', '"slow"') > 0 AS sent;
SELECT payload, pg_cancel_backend(pg_backend_pid()), pg_sleep(60) FROM mq.receive('i');   -- 57014
SELECT payload, attempt, failures FROM mq.receive('i', max_messages => 1, visibility_timeout => '1 hour');
SELECT mq.send('i', '"slower"') > 0 AS sent;
SET statement_timeout = '100ms';
SELECT payload, pg_sleep(60) FROM mq.receive('i');              -- 57014
RESET statement_timeout;
SELECT payload, failures FROM mq.receive('i', max_messages => 10);
SELECT mq.drop_queue('i', force => true);
