--
-- bulk: a million messages in the transaction that makes the queue, and batches across many segments
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
BEGIN;
SELECT mq.create_queue('bulk', options => '{"segment_size": 131072}');
SELECT sum(cardinality(mq.send_batch('bulk', array(SELECT to_jsonb(b * 100000 + i) FROM generate_series(1, 100000) AS i)))) AS sent
  FROM generate_series(0, 9) AS b;
SELECT segments >= 8 AS its_own_segments FROM mq.queues WHERE queue = 'bulk';
SELECT payload FROM mq.receive('bulk', max_messages => 2);
COMMIT;
SELECT count(*), min(payload::int), max(payload::int), count(DISTINCT id) FROM mq.receive('bulk', max_messages => 1000000, visibility_timeout => '1 hour');
SELECT count(*) FROM mq.receive('bulk');
SELECT mq.drop_queue('bulk');                                   -- 55000
SELECT mq.drop_queue('bulk', force => true);

-- a burst over many small segments, outside the creating transaction: the worker makes what is missing
SELECT mq.create_queue('burst', options => '{"segment_size": 1024}');
SELECT cardinality(mq.send_batch('burst', array(SELECT to_jsonb(i) FROM generate_series(1, 50000) AS i))) AS sent;
SELECT count(*), count(DISTINCT payload) FROM mq.pop('burst', max_messages => 100000);
SELECT ready + retrying AS ready, leased, settling, pending FROM mq.groups WHERE queue = 'burst';
SELECT mq.drop_queue('burst');
