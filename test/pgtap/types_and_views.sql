-- contract: mq.message (frozen: clients decode it by position), the views and their columns
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
SELECT plan(28);

SELECT has_type('mq', 'message', 'type mq.message');
SELECT is((SELECT typtype::text FROM pg_type WHERE oid = 'mq.message'::regtype), 'c', 'mq.message is composite');
SELECT is((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = (SELECT typrelid FROM pg_type WHERE oid = 'mq.message'::regtype) AND attnum > 0 AND NOT attisdropped),
          'queue text, consumer_group text, id bigint, receipt uuid, payload jsonb, headers jsonb, body bytea, key text, '
          'routing_key text, priority integer, attempt integer, failures integer, last_reason text, sent_at timestamp with time zone, enqueued_at timestamp with time zone, due_at timestamp with time zone, '
          'expires_at timestamp with time zone, lease_until timestamp with time zone, origin_queue text, origin_id bigint, dedup_id text, death jsonb, reply_wanted boolean',
          'mq.message: columns, types and order');
SELECT isnt(coalesce(obj_description('mq.message'::regtype, 'pg_type'), ''), '', 'mq.message has a comment');
SELECT is((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = (SELECT typrelid FROM pg_type WHERE oid = 'mq.browsed'::regtype) AND attnum > 0 AND NOT attisdropped),
          'queue text, consumer_group text, id bigint, payload jsonb, headers jsonb, body bytea, key text, routing_key text, '
          'priority integer, attempt integer, failures integer, last_reason text, sent_at timestamp with time zone, enqueued_at timestamp with time zone, due_at timestamp with time zone, expires_at timestamp with time zone, '
          'lease_until timestamp with time zone, origin_queue text, origin_id bigint, dedup_id text, death jsonb, reply_wanted boolean, state text, consumer text, '
          'leased_at timestamp with time zone, first_received_at timestamp with time zone',
          'mq.browsed: columns, types and order');
SELECT isnt(coalesce(obj_description('mq.browsed'::regtype, 'pg_type'), ''), '', 'mq.browsed has a comment');

SELECT has_view('mq', v, 'view mq.' || v) FROM unnest(array['queues', 'groups', 'segments', 'in_flight', 'consumers', 'scheduled', 'failures']) AS v;
SELECT columns_are('mq', 'queues', array['queue', 'owner', 'queue_table', 'dead_letter_of', 'next_id', 'segments', 'bytes', 'scheduled', 'dedup_ids', 'paused', 'closed', 'duplicates', 'rejected', 'segment_size', 'retention', 'retention_bytes', 'drop_unread', 'notify_interval', 'dedup_window', 'expires_after', 'max_messages', 'max_bytes', 'overflow', 'max_message_bytes', 'max_send_per_second'], 'columns of mq.queues');
SELECT columns_are('mq', 'groups', array['queue', 'consumer_group', 'paused', 'ready', 'retrying', 'leased', 'settling', 'dead', 'pending', 'unread_at_most', 'unfinished_at_most', 'oldest_ready_at', 'oldest_unfinished_at', 'oldest_dead_at', 'next_due_at', 'waiting', 'dropped', 'held_back', 'held_bytes', 'low_watermark', 'next_id', 'epoch', 'retry_span', 'rights', 'visibility_timeout', 'max_in_flight', 'max_in_flight_per_consumer', 'max_per_second', 'expires_after', 'max_lease', 'retry_delays', 'max_failures', 'dead_letter_queue'], 'columns of mq.groups');
SELECT columns_are('mq', 'segments', array['queue', 'level', 'segment', 'segment_table', 'first_id', 'last_id', 'sealed', 'sealed_at', 'bytes'], 'columns of mq.segments');
SELECT columns_are('mq', 'in_flight', array['queue', 'consumer_group', 'id', 'origin_id', 'state', 'attempt', 'failures', 'consumer', 'pid', 'leased_at', 'lease_until'], 'columns of mq.in_flight');
SELECT columns_are('mq', 'consumers', array['queue', 'consumer_group', 'consumer', 'leased', 'settling', 'oldest_lease_at', 'last_call_at', 'waiting', 'pid'], 'columns of mq.consumers');
SELECT columns_are('mq', 'scheduled', array['queue', 'id', 'due_at', 'sent_at', 'sender', 'consumer_group', 'kind', 'key', 'priority', 'size', 'dedup_id', 'held_reason'], 'columns of mq.scheduled');
SELECT columns_are('mq', 'failures', array['queue', 'consumer_group', 'id', 'origin_id', 'failed_at', 'kind', 'sqlstate', 'reason', 'consumer', 'attempt', 'next_due_at'], 'columns of mq.failures');
SELECT isnt(coalesce(obj_description(('mq.' || v)::regclass, 'pg_class'), ''), '', 'mq.' || v || ' has a comment')
  FROM unnest(array['queues', 'groups', 'segments', 'in_flight', 'consumers', 'scheduled', 'failures']) AS v;
SELECT is((SELECT string_agg(c.relname, ', ') FROM pg_class c
            WHERE c.relnamespace = 'mq'::regnamespace AND c.relkind IN ('v', 'm') AND c.relname NOT IN ('queues', 'groups', 'segments', 'in_flight', 'consumers', 'scheduled', 'failures')), NULL,
          'no other views');
SELECT * FROM finish();
ROLLBACK;
