-- contract: what a queue is on disk, and what the dump will see of it
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
SELECT mq.create_queue('tap', options => '{"segment_size": 4096}');
SELECT mq.send('tap', '1');
CREATE TEMP TABLE leaf AS
	SELECT c.*, (SELECT tableoid FROM mq.q_tap) = c.oid AS active
	  FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE i.inhparent = 'mq.q_tap'::regclass;
SELECT plan(29);

SELECT is((SELECT relkind::text FROM pg_class WHERE oid = 'mq.q_tap'::regclass), 'p', 'the queue is a partitioned table');
SELECT is(pg_get_partkeydef('mq.q_tap'::regclass), 'RANGE (id)', 'by ranges of id');
SELECT cmp_ok((SELECT count(*)::int FROM leaf), '>=', 2, 'segments are made ahead');
SELECT is((SELECT count(*)::int FROM leaf WHERE active), 1, 'one of them holds the message');
SELECT is((SELECT string_agg(relname, ', ') FROM leaf WHERE relname !~ '^s_\d+_0_\d+$'), NULL, 'segments are named s_<queue>_<level>_<segment>');
SELECT is((SELECT count(*)::int FROM leaf WHERE pg_get_expr(relpartbound, oid) = 'DEFAULT'), 0, 'there is no DEFAULT partition');
SELECT is((SELECT count(*)::int FROM leaf WHERE pg_get_expr(relpartbound, oid) !~ '^FOR VALUES FROM \(''\d+''\) TO \(''\d+''\)$'), 0, 'each has two bounds');
SELECT is((SELECT count(*)::int FROM leaf WHERE relkind <> 'r' OR relpersistence <> 'p'), 0, 'ordinary logged heap tables');
SELECT is((SELECT count(*)::int FROM leaf l JOIN pg_am a ON a.oid = l.relam WHERE amname <> 'heap'), 0, 'of the heap access method');
SELECT is((SELECT count(*)::int FROM pg_index i JOIN leaf l ON l.oid = i.indrelid), 0, 'no index on any of them before it is sealed');
SELECT is((SELECT count(*)::int FROM pg_index WHERE indrelid = 'mq.q_tap'::regclass), 0, 'no index on the queue');
SELECT is((SELECT count(*)::int FROM leaf WHERE NOT coalesce(reloptions, '{}') @> array['vacuum_truncate=off']
                                            AND NOT coalesce(reloptions, '{}') @> array['vacuum_truncate=false']), 0, 'vacuum_truncate is off');
SELECT is((SELECT count(*)::int FROM leaf WHERE active AND NOT coalesce(reloptions, '{}') && array['autovacuum_enabled=off', 'autovacuum_enabled=false']), 0,
          'autovacuum is off on the active one');
SELECT is((SELECT count(*)::int FROM leaf WHERE active AND (relhasrules OR relrowsecurity)), 0, 'no rules, no row security');
SELECT is((SELECT count(*)::int FROM leaf WHERE relowner <> (SELECT relowner FROM pg_class WHERE oid = 'mq.q_tap'::regclass)), 0, 'segments belong to whom the table belongs to');
SELECT is((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = 'mq.q_tap'::regclass AND attnum > 0 AND attname IN ('id', 'enqueued_at', 'payload', 'headers', 'body')),
          (SELECT string_agg(name || ' ' || type, ', ' ORDER BY at)
             FROM (VALUES ('id', 'bigint'), ('enqueued_at', 'timestamp with time zone'), ('payload', 'jsonb'), ('headers', 'jsonb'), ('body', 'bytea')) AS c (name, type),
                  LATERAL (SELECT attnum AS at FROM pg_attribute WHERE attrelid = 'mq.q_tap'::regclass AND attname = name) AS a),
          'types of the columns that carry what was sent');
SELECT is((SELECT count(*)::int FROM pg_attribute WHERE attrelid = 'mq.q_tap'::regclass AND attnum > 0
              AND attname = any (array['id', 'origin_id', 'enqueued_at', 'key', 'priority', 'routing_key', 'expires_at', 'headers', 'payload', 'body'])), 10,
          'the columns of later issues are there, so that nothing on disk changes');
SELECT is((SELECT count(*)::int FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
              AND (d.objid = 'mq.q_tap'::regclass OR d.objid IN (SELECT oid FROM leaf))), 0, 'queue tables are not members of the extension');
SELECT is((SELECT count(*)::int FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
            WHERE e.extname = 'mq' AND d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_namespace'::regclass AND d.objid IN ('mq'::regnamespace, 'mq_internal'::regnamespace) AND d.deptype = 'e'), 2,
          'but the schemas they are in are');
SELECT throws_ok('DROP EXTENSION mq', '2BP01', NULL, 'DROP EXTENSION is refused while a queue exists');
SELECT throws_ok(format('%s mq.q_tap %s', a, b), '55000', NULL, a || ' on the queue is refused')
  FROM (VALUES ('INSERT INTO', 'SELECT * FROM mq.q_tap'), ('UPDATE', 'SET payload = NULL'), ('DELETE FROM', ''), ('TRUNCATE', '')) AS s (a, b);
SELECT throws_ok(format('%s %s %s', a, (SELECT oid::regclass FROM leaf WHERE active), b), '55000', NULL, a || ' on the segment is refused')
  FROM (VALUES ('INSERT INTO', 'SELECT * FROM mq.q_tap'), ('UPDATE', 'SET payload = NULL'), ('DELETE FROM', ''), ('TRUNCATE', '')) AS s (a, b);

-- the offset log
SELECT cmp_ok((SELECT count(*)::int FROM pg_class WHERE relnamespace = 'mq_internal'::regnamespace AND relname ~ '^consumer_offset_\d+$' AND relkind = 'r'), '>=', 4,
              'the offset log is a ring of at least four tables');
SELECT * FROM finish();
ROLLBACK;
