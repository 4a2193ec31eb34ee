-- contract: what PUBLIC may and may not do right after CREATE EXTENSION
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
CREATE ROLE regress_mq_tap_plain;
SELECT mq.create_queue('tap');
SELECT plan(50);

SELECT ok(has_schema_privilege('public', 'mq', 'USAGE'), 'PUBLIC: USAGE on schema mq');
SELECT ok(NOT has_schema_privilege('public', 'mq', 'CREATE'), 'PUBLIC: no CREATE on schema mq');
SELECT ok(NOT has_function_privilege('public', 'mq.create_queue(text, text[], jsonb, boolean)', 'EXECUTE'), 'PUBLIC: no EXECUTE on create_queue');
SELECT ok(has_function_privilege('public', f, 'EXECUTE'), 'PUBLIC: EXECUTE on ' || f || ' (the queue''s own rights decide)')
  FROM unnest(array['mq.send(text, jsonb, jsonb, bytea, text, text, integer, text, interval, timestamptz, interval)',
                    'mq.send_batch(text, jsonb[], jsonb[], bytea[], text[], text[], integer[], text[], interval[], timestamptz[], interval[])', 'mq.receive(text, text, integer, interval, text, integer, interval, uuid[], boolean)', 'mq.pop(text, text, integer, interval, text, integer)', 'mq.wait(text, text, interval)',
                    'mq.browse(text, text, text[], integer, bigint, text, text)', 'mq.seek(text, text, text, bigint, timestamptz)', 'mq.purge(text, text)', 'mq.pause(text, text)', 'mq.resume(text, text)', 'mq.drop_group(text, text, boolean)',
                    'mq.create_group(text, text, text, bigint, timestamptz, jsonb, boolean)', 'mq.alter_group(text, text, jsonb)',
                    'mq.alter_queue(text, jsonb)', 'mq.grant(text, text, text, text)', 'mq.revoke(text, text, text, text)',
                    'mq.ack(uuid)', 'mq.ack_batch(uuid[], boolean)', 'mq.nack(uuid, interval, text)', 'mq.nack_batch(uuid[], interval, text, boolean)', 'mq.release(uuid, interval)',
                    'mq.release_batch(uuid[], interval, boolean)', 'mq.extend(uuid, interval)', 'mq.extend_batch(uuid[], interval, boolean)',
                    'mq.discard(text, text, bigint[], text)', 'mq.drop_queue(text, boolean)']) AS f;
SELECT ok(has_table_privilege('public', 'mq.' || v, 'SELECT'), 'PUBLIC: SELECT on mq.' || v || ' (rows are filtered)')
  FROM unnest(array['queues', 'groups', 'segments', 'in_flight', 'consumers']) AS v;
SELECT ok(NOT has_table_privilege('public', 'mq.' || v, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'), 'PUBLIC: nothing else on mq.' || v)
  FROM unnest(array['queues', 'groups', 'segments', 'in_flight', 'consumers']) AS v;

-- tables of ours: neither readable nor writable by PUBLIC
SELECT is((SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
            WHERE relnamespace IN ('mq'::regnamespace, 'mq_internal'::regnamespace) AND relkind IN ('r', 'p') AND has_table_privilege('public', oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')), NULL,
          'PUBLIC writes no table');
SELECT is((SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
            WHERE relnamespace IN ('mq'::regnamespace, 'mq_internal'::regnamespace) AND relname ~ '^(q_|s_|consumer_offset)' AND relkind IN ('r', 'p') AND has_table_privilege('public', oid, 'SELECT')), NULL,
          'PUBLIC reads no queue and no offset log');
SELECT is((SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
            WHERE relnamespace = 'mq_internal'::regnamespace AND CASE WHEN relkind = 'S' THEN has_sequence_privilege('public', oid, 'USAGE, SELECT, UPDATE') END), NULL, 'PUBLIC touches no sequence');
SELECT is((SELECT string_agg(a.grantee::regrole::text || ' on ' || n.nspname, ', ') FROM pg_namespace n, aclexplode(n.nspacl) a
            WHERE n.nspname = 'mq' AND a.privilege_type = 'CREATE' AND a.grantee NOT IN (n.nspowner)), NULL, 'nobody but its owner creates in schema mq');

SET ROLE regress_mq_tap_plain;
SELECT throws_ok($$SELECT mq.create_queue('mine')$$, '42501', NULL, 'plain role: create_queue');
SELECT throws_ok($$SELECT mq.send('tap', '1')$$, '42501', NULL, 'plain role: send');
SELECT throws_ok($$SELECT * FROM mq.receive('tap')$$, '42501', NULL, 'plain role: receive');
SELECT throws_ok($$SELECT mq.drop_queue('tap')$$, '42501', NULL, 'plain role: drop_queue');
SELECT is_empty('SELECT * FROM mq.queues', 'plain role: sees no queue');
SELECT is_empty('SELECT * FROM mq.groups', 'plain role: sees no group');
SELECT is_empty('SELECT * FROM mq.segments', 'plain role: sees no segment');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
