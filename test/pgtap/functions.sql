-- contract: every public function, with its exact signature and its properties
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
CREATE TEMP TABLE public_function (name text, args text, result text);
INSERT INTO public_function VALUES
	('create_queue', 'queue text, groups text[] DEFAULT ''{default}''::text[], options jsonb DEFAULT NULL::jsonb, if_not_exists boolean DEFAULT false', 'void'),
	('alter_queue', 'queue text, options jsonb', 'void'),
	('drop_queue', 'queue text, force boolean DEFAULT false', 'void'),
	('purge', 'queue text, consumer_group text DEFAULT NULL::text', 'void'),
	('pause', 'queue text, consumer_group text DEFAULT NULL::text', 'void'),
	('resume', 'queue text, consumer_group text DEFAULT NULL::text', 'void'),
	('create_group', 'queue text, consumer_group text, start text DEFAULT NULL::text, start_id bigint DEFAULT NULL::bigint, start_time timestamp with time zone DEFAULT NULL::timestamp with time zone, options jsonb DEFAULT NULL::jsonb, if_not_exists boolean DEFAULT false', 'void'),
	('alter_group', 'queue text, consumer_group text, options jsonb', 'void'),
	('drop_group', 'queue text, consumer_group text, force boolean DEFAULT false', 'void'),
	('seek', 'queue text, consumer_group text, start text DEFAULT NULL::text, start_id bigint DEFAULT NULL::bigint, start_time timestamp with time zone DEFAULT NULL::timestamp with time zone', 'void'),
	('grant', 'queue text, privilege text, role text, consumer_group text DEFAULT NULL::text', 'void'),
	('revoke', 'queue text, privilege text, role text, consumer_group text DEFAULT NULL::text', 'void'),
	('browse', 'queue text, consumer_group text DEFAULT ''default''::text, states text[] DEFAULT NULL::text[], max_messages integer DEFAULT 100, after_id bigint DEFAULT 0, filter text DEFAULT NULL::text, key text DEFAULT NULL::text', 'SETOF mq.browsed'),
	('send', 'queue text, payload jsonb DEFAULT NULL::jsonb, headers jsonb DEFAULT NULL::jsonb, body bytea DEFAULT NULL::bytea, key text DEFAULT NULL::text, routing_key text DEFAULT NULL::text, priority integer DEFAULT NULL::integer, dedup_id text DEFAULT NULL::text, delay interval DEFAULT NULL::interval, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, expires_in interval DEFAULT NULL::interval', 'bigint'),
	('send_batch', 'queue text, payloads jsonb[] DEFAULT NULL::jsonb[], headers jsonb[] DEFAULT NULL::jsonb[], bodies bytea[] DEFAULT NULL::bytea[], keys text[] DEFAULT NULL::text[], routing_keys text[] DEFAULT NULL::text[], priorities integer[] DEFAULT NULL::integer[], dedup_ids text[] DEFAULT NULL::text[], delays interval[] DEFAULT NULL::interval[], deliver_at timestamp with time zone[] DEFAULT NULL::timestamp with time zone[], expires_in interval[] DEFAULT NULL::interval[]', 'bigint[]'),
	('receive', 'queue text, consumer_group text DEFAULT ''default''::text, max_messages integer DEFAULT 1, wait interval DEFAULT NULL::interval, consumer text DEFAULT NULL::text, max_bytes integer DEFAULT NULL::integer, visibility_timeout interval DEFAULT NULL::interval, ack uuid[] DEFAULT NULL::uuid[], strict boolean DEFAULT true', 'SETOF mq.message'),
	('pop', 'queue text, consumer_group text DEFAULT ''default''::text, max_messages integer DEFAULT 1, wait interval DEFAULT NULL::interval, consumer text DEFAULT NULL::text, max_bytes integer DEFAULT NULL::integer', 'SETOF mq.message'),
	('wait', 'IN queue text, IN consumer_group text DEFAULT ''default''::text, IN timeout interval DEFAULT ''00:01:00''::interval', NULL),
	('ack', 'receipt uuid', 'void'),
	('ack_batch', 'receipts uuid[], strict boolean DEFAULT true', 'uuid[]'),
	('nack', 'receipt uuid, delay interval DEFAULT NULL::interval, reason text DEFAULT NULL::text', 'void'),
	('nack_batch', 'receipts uuid[], delay interval DEFAULT NULL::interval, reason text DEFAULT NULL::text, strict boolean DEFAULT true', 'uuid[]'),
	('release', 'receipt uuid, delay interval DEFAULT NULL::interval', 'void'),
	('release_batch', 'receipts uuid[], delay interval DEFAULT NULL::interval, strict boolean DEFAULT true', 'uuid[]'),
	('extend', 'receipt uuid, visibility_timeout interval', 'void'),
	('extend_batch', 'receipts uuid[], visibility_timeout interval, strict boolean DEFAULT true', 'uuid[]'),
	('send_list', 'queue text, messages jsonb', 'bigint[]'),
	('dedup_find', 'queue text, dedup_id text', 'bigint'),
	('dedup_forget', 'queue text, dedup_id text', 'boolean'),
	('make_due', 'queue text, within interval DEFAULT NULL::interval', 'bigint'),
	('cancel', 'queue text, id bigint', 'boolean'),
	('dead_letter', 'receipt uuid, reason text DEFAULT NULL::text', 'void'),
	('dead_letter_batch', 'receipts uuid[], reason text DEFAULT NULL::text, strict boolean DEFAULT true', 'uuid[]'),
	('retry', 'queue text, consumer_group text, ids bigint[]', 'bigint'),
	('history', 'queue text, id bigint', 'SETOF mq.event'),
	('redrive', 'queue text, ids bigint[] DEFAULT NULL::bigint[], max_messages bigint DEFAULT NULL::bigint, spread interval DEFAULT NULL::interval', 'bigint'),
	('reschedule', 'queue text, id bigint, deliver_at timestamp with time zone', 'boolean'),
	('count_from', 'queue text, consumer_group text, start text DEFAULT NULL::text, start_id bigint DEFAULT NULL::bigint, start_time timestamp with time zone DEFAULT NULL::timestamp with time zone', 'bigint'),
	('ddl', 'queue text', 'text'),
	('discard', 'queue text, consumer_group text, ids bigint[], reason text DEFAULT NULL::text', 'bigint');
CREATE TEMP TABLE actual AS
	SELECT oid, proname AS name, pg_get_function_arguments(oid) AS args, pg_get_function_result(oid) AS result,
	       provolatile, proparallel, proisstrict, prosecdef, proleakproof, prokind, proconfig
	  FROM pg_proc WHERE pronamespace = 'mq'::regnamespace;

SELECT plan(40 * 8 + 5);

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
SELECT is((SELECT count(*)::int FROM actual WHERE name IN ('subscribe', 'unsubscribe', 'schedule', 'bind', 'request')), 0,
          'nothing of later issues');
-- an untyped parameter has one meaning: drivers send them
SELECT is((SELECT count(*)::int FROM (SELECT FROM actual GROUP BY name HAVING count(*) > 1) x), 0, 'no name has two signatures');
SELECT is((SELECT count(*)::int FROM actual a WHERE a.prosecdef AND has_function_privilege('public', a.oid, 'EXECUTE') AND pg_get_function_result(a.oid) <> 'trigger'), 0,
          'PUBLIC executes nothing that acts with more rights than its caller');
SELECT is((SELECT count(*)::int FROM actual a WHERE a.prosecdef
              AND NOT coalesce(a.proconfig, '{}') && array['search_path=pg_catalog, pg_temp', 'search_path=pg_catalog, mq, pg_temp', 'search_path=""', 'search_path=mq, pg_temp']), 0,
          'every security definer function pins its search_path');
SELECT * FROM finish();
ROLLBACK;
