-- contract: mq.message (frozen: clients decode it by position), the views and their columns
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
SELECT plan(17);

SELECT has_type('mq', 'message', 'type mq.message');
SELECT is((SELECT typtype::text FROM pg_type WHERE oid = 'mq.message'::regtype), 'c', 'mq.message is composite');
SELECT is((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = (SELECT typrelid FROM pg_type WHERE oid = 'mq.message'::regtype) AND attnum > 0 AND NOT attisdropped),
          'id bigint, receipt uuid, payload jsonb, headers jsonb, key text, priority integer, routing_key text, body bytea, '
          'enqueued_at timestamp with time zone, due_at timestamp with time zone, expires_at timestamp with time zone, lease_until timestamp with time zone, '
          'attempt integer, failures integer, last_reason text, dedup_id text, queue text, consumer_group text',
          'mq.message: columns, types and order');
SELECT isnt(coalesce(obj_description('mq.message'::regtype, 'pg_type'), ''), '', 'mq.message has a comment');

SELECT has_view('mq', v, 'view mq.' || v) FROM unnest(array['queues', 'groups', 'segments', 'in_flight']) AS v;
SELECT columns_are('mq', 'queues', array['queue', 'owner', 'queue_table', 'segment_size', 'next_id', 'segments', 'bytes', 'paused', 'retention', 'retention_bytes', 'drop_unread', 'notify_interval'], 'columns of mq.queues');
SELECT columns_are('mq', 'groups', array['queue', 'consumer_group', 'epoch', 'low_watermark', 'next_id', 'ready', 'leased', 'settling', 'pending', 'unread', 'held_back', 'waiting', 'paused', 'max_in_flight', 'max_in_flight_per_consumer', 'visibility_timeout', 'held_bytes', 'dropped', 'rights'], 'columns of mq.groups');
SELECT columns_are('mq', 'segments', array['queue', 'level', 'segment', 'segment_table', 'first_id', 'last_id', 'sealed', 'sealed_at', 'bytes'], 'columns of mq.segments');
SELECT columns_are('mq', 'in_flight', array['queue', 'consumer_group', 'id', 'state', 'attempt', 'failures', 'lease_until', 'consumer', 'leased_at', 'pid'], 'columns of mq.in_flight');
SELECT isnt(coalesce(obj_description(('mq.' || v)::regclass, 'pg_class'), ''), '', 'mq.' || v || ' has a comment')
  FROM unnest(array['queues', 'groups', 'segments', 'in_flight']) AS v;
SELECT is((SELECT string_agg(c.relname, ', ') FROM pg_class c
            WHERE c.relnamespace = 'mq'::regnamespace AND c.relkind IN ('v', 'm') AND c.relname NOT IN ('queues', 'groups', 'segments', 'in_flight')), NULL,
          'no other views');
SELECT * FROM finish();
ROLLBACK;
