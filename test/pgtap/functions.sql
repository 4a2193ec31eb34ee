-- contract: every public function, with its exact signature and its properties
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
CREATE TEMP TABLE public_function (name text, args text, result text);
INSERT INTO public_function VALUES
	('create_queue', 'name text, groups text[] DEFAULT ''{default}''::text[], if_not_exists boolean DEFAULT false, segment_size bigint DEFAULT NULL::bigint, retention interval DEFAULT NULL::interval, retention_bytes bigint DEFAULT NULL::bigint, drop_unread boolean DEFAULT false, notify_interval interval DEFAULT NULL::interval', 'void'),
	('alter_queue',  'name text, retention interval DEFAULT NULL::interval, retention_bytes bigint DEFAULT NULL::bigint, drop_unread boolean DEFAULT NULL::boolean, notify_interval interval DEFAULT NULL::interval, reset text[] DEFAULT ''{}''::text[], owner text DEFAULT NULL::text', 'void'),
	('drop_queue',   'name text, force boolean DEFAULT false', 'void'),
	('purge',        'queue text', 'void'),
	('pause',        'queue text, consumer_group text DEFAULT NULL::text', 'void'),
	('resume',       'queue text, consumer_group text DEFAULT NULL::text', 'void'),
	('create_group', 'queue text, name text, start text DEFAULT NULL::text, start_id bigint DEFAULT NULL::bigint, start_time timestamp with time zone DEFAULT NULL::timestamp with time zone, max_in_flight integer DEFAULT NULL::integer, max_in_flight_per_consumer integer DEFAULT NULL::integer, visibility_timeout interval DEFAULT NULL::interval, if_not_exists boolean DEFAULT false', 'void'),
	('alter_group',  'queue text, name text, max_in_flight integer DEFAULT NULL::integer, max_in_flight_per_consumer integer DEFAULT NULL::integer, visibility_timeout interval DEFAULT NULL::interval, reset text[] DEFAULT ''{}''::text[]', 'void'),
	('drop_group',   'queue text, name text', 'void'),
	('seek',         'queue text, consumer_group text DEFAULT ''default''::text, start text DEFAULT NULL::text, start_id bigint DEFAULT NULL::bigint, start_time timestamp with time zone DEFAULT NULL::timestamp with time zone', 'void'),
	('grant',        'queue text, privilege text, role text, consumer_group text DEFAULT NULL::text', 'void'),
	('revoke',       'queue text, privilege text, role text, consumer_group text DEFAULT NULL::text', 'void'),
	('browse',       'queue text, consumer_group text DEFAULT ''default''::text, state text DEFAULT ''ready''::text, max_messages integer DEFAULT 100', 'TABLE(id bigint, state text, enqueued_at timestamp with time zone, attempt integer, failures integer, due_at timestamp with time zone, lease_until timestamp with time zone, consumer text, key text, priority integer, routing_key text, headers jsonb, payload jsonb, body bytea)'),
	('send',         'queue text, payload jsonb DEFAULT NULL::jsonb, headers jsonb DEFAULT NULL::jsonb, body bytea DEFAULT NULL::bytea', 'bigint'),
	('send',         'queue text, payload text, headers jsonb DEFAULT NULL::jsonb, body bytea DEFAULT NULL::bytea', 'bigint'),
	('send',         'queue text, payload json, headers jsonb DEFAULT NULL::jsonb, body bytea DEFAULT NULL::bytea', 'bigint'),
	('send_batch',   'queue text, payloads jsonb[] DEFAULT NULL::jsonb[], headers jsonb[] DEFAULT NULL::jsonb[], bodies bytea[] DEFAULT NULL::bytea[]', 'bigint[]'),
	('send_batch',   'queue text, payloads text[], headers jsonb[] DEFAULT NULL::jsonb[], bodies bytea[] DEFAULT NULL::bytea[]', 'bigint[]'),
	('receive',      'queue text, max_messages integer DEFAULT 1, visibility_timeout interval DEFAULT NULL::interval, wait interval DEFAULT NULL::interval, consumer_group text DEFAULT ''default''::text, consumer text DEFAULT NULL::text, max_bytes integer DEFAULT NULL::integer', 'SETOF mq.message'),
	('pop',          'queue text, max_messages integer DEFAULT 1, consumer_group text DEFAULT ''default''::text, wait interval DEFAULT NULL::interval, max_bytes integer DEFAULT NULL::integer, consumer text DEFAULT NULL::text', 'SETOF mq.message'),
	('wait',         'IN queue text, IN timeout interval DEFAULT ''00:01:00''::interval, IN consumer_group text DEFAULT ''default''::text', NULL),
	('ack',          'receipt uuid', 'void'),
	('ack',          'receipt text', 'void'),
	('ack',          'receipts uuid[], strict boolean DEFAULT true', 'uuid[]'),
	('nack',         'receipt uuid, delay interval DEFAULT NULL::interval', 'void'),
	('nack',         'receipt text, delay interval DEFAULT NULL::interval', 'void'),
	('nack',         'receipts uuid[], delay interval DEFAULT NULL::interval, strict boolean DEFAULT true', 'uuid[]'),
	('release',      'receipt uuid', 'void'),
	('release',      'receipt text', 'void'),
	('release',      'receipts uuid[], strict boolean DEFAULT true', 'uuid[]'),
	('extend',       'receipt uuid, visibility_timeout interval', 'void'),
	('extend',       'receipt text, visibility_timeout interval', 'void'),
	('extend',       'receipts uuid[], visibility_timeout interval, strict boolean DEFAULT true', 'uuid[]'),
	('discard',      'queue text, ids bigint[], consumer_group text DEFAULT ''default''::text', 'bigint');
CREATE TEMP TABLE actual AS
	SELECT oid, proname AS name, pg_get_function_arguments(oid) AS args, pg_get_function_result(oid) AS result,
	       provolatile, proparallel, proisstrict, prosecdef, proleakproof, prokind, proconfig
	  FROM pg_proc WHERE pronamespace = 'mq'::regnamespace;

SELECT plan(34 * 8 + 4);

SELECT is((SELECT string_agg(a.result, ' or ') FROM actual a WHERE a.name = f.name AND a.args = f.args), f.result,
          format('mq.%s(%s) returns %s', f.name, f.args, f.result)) FROM public_function f;
SELECT is((SELECT a.provolatile::text FROM actual a WHERE a.name = f.name AND a.args = f.args), 'v', f.name || ': volatile') FROM public_function f;
SELECT is((SELECT a.proparallel::text FROM actual a WHERE a.name = f.name AND a.args = f.args), 'u', f.name || ': parallel unsafe') FROM public_function f;
SELECT is((SELECT a.proisstrict FROM actual a WHERE a.name = f.name AND a.args = f.args), false, f.name || ': not strict') FROM public_function f;
SELECT is((SELECT a.proleakproof FROM actual a WHERE a.name = f.name AND a.args = f.args), false, f.name || ': not leakproof') FROM public_function f;
SELECT isnt(coalesce((SELECT obj_description(a.oid, 'pg_proc') FROM actual a WHERE a.name = f.name AND a.args = f.args), ''), '', f.name || ': has a comment') FROM public_function f;
SELECT is((SELECT a.prokind::text FROM actual a WHERE a.name = f.name AND a.args = f.args), CASE f.name WHEN 'wait' THEN 'p' ELSE 'f' END, f.name || CASE f.name WHEN 'wait' THEN ': a procedure' ELSE ': a plain function' END) FROM public_function f;
SELECT is((SELECT d.deptype::text FROM actual a JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = a.oid AND d.refclassid = 'pg_extension'::regclass
            WHERE a.name = f.name AND a.args = f.args), 'e', f.name || ': belongs to the extension') FROM public_function f;

-- what is not there yet must not pretend to be; what is internal must not be callable by everybody with more rights than theirs
SELECT is((SELECT count(*)::int FROM actual a
            WHERE a.name IN (SELECT name FROM public_function)
              AND NOT EXISTS (SELECT FROM public_function f WHERE f.name = a.name AND f.args = a.args)), 0, 'no overload beyond these');
SELECT is((SELECT count(*)::int FROM actual WHERE name IN ('redrive', 'subscribe', 'unsubscribe', 'cancel', 'schedule', 'move')), 0,
          'nothing of later issues');
SELECT is((SELECT count(*)::int FROM actual a WHERE a.prosecdef AND has_function_privilege('public', a.oid, 'EXECUTE') AND pg_get_function_result(a.oid) <> 'trigger'), 0,
          'PUBLIC executes nothing that acts with more rights than its caller');
SELECT is((SELECT count(*)::int FROM actual a WHERE a.prosecdef
              AND NOT coalesce(a.proconfig, '{}') && array['search_path=pg_catalog, pg_temp', 'search_path=pg_catalog, mq, pg_temp', 'search_path=""', 'search_path=mq, pg_temp']), 0,
          'every security definer function pins its search_path');
SELECT * FROM finish();
ROLLBACK;
