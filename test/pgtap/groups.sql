-- contract: arguments and errors of create_group, alter_group, drop_group, seek, purge, pause, resume, alter_queue
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
SELECT mq.create_queue('g', groups => '{a,b}');
SELECT mq.create_queue('two');
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.state(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
CREATE FUNCTION pg_temp.hint(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE h text;
BEGIN EXECUTE sql; RETURN 'no error'; EXCEPTION WHEN OTHERS THEN GET STACKED DIAGNOSTICS h = PG_EXCEPTION_HINT; RETURN h; END $$;

CREATE TEMP TABLE wrong (sql text, state text);
INSERT INTO wrong VALUES
	-- nulls where there is no default
	($$mq.create_group(null, 'x')$$, '22004'), ($$mq.create_group('g', null)$$, '22004'), ($$mq.create_group('g', 'x', if_not_exists => null)$$, '22004'),
	($$mq.alter_group(null, 'a', '{}')$$, '22004'), ($$mq.alter_group('g', null, '{}')$$, '22004'), ($$mq.drop_group('g', 'a', null)$$, '22004'),
	($$mq.drop_group(null, 'a', force => true)$$, '22004'), ($$mq.drop_group('g', null)$$, '22004'),
	($$mq.seek(null, 'default', start => 'latest')$$, '22004'), ($$mq.seek('g', null, start => 'latest')$$, '22004'),
	($$mq.purge(null)$$, '22004'), ($$mq.pause(null)$$, '22004'), ($$mq.resume(null)$$, '22004'),
	($$mq.alter_queue(null, '{}')$$, '22004'), ($$mq.alter_queue('g', null)$$, '22004'), ($$mq.alter_group('g', 'a', null)$$, '22004'), ($$mq.alter_queue('g', '{"reset": [null]}')$$, '22023'),
	($$mq.create_queue('x', groups => null)$$, '22004'), ($$mq.create_queue('x', groups => '{null}')$$, '22004'), ($$mq.create_queue('x', if_not_exists => null)$$, '22004'), ($$mq.create_queue('x0', options => '{"drop_unread": 0}')$$, '22023'),
	($$mq.grant(null, 'send', 'public')$$, '22004'), ($$mq.grant('g', null, 'public')$$, '22004'), ($$mq.grant('g', 'send', null)$$, '22004'), ($$mq.revoke('g', 'send', null)$$, '22004'),
	-- unknown
	($$mq.create_group('no', 'x')$$, '42704'), ($$mq.alter_group('no', 'x', '{}')$$, '42704'), ($$mq.alter_group('g', 'x', '{}')$$, '42704'), ($$mq.drop_group('no', 'x', force => true)$$, '42704'), ($$mq.drop_group('g', 'x', force => true)$$, '42704'),
	($$mq.seek('no', 'default', start => 'latest')$$, '42704'), ($$mq.seek('g', 'default', start => 'latest')$$, '42704'), ($$mq.seek('g', 'x', start => 'latest')$$, '42704'), ($$mq.purge('no')$$, '42704'),
	($$mq.pause('no')$$, '42704'), ($$mq.pause('g', 'x')$$, '42704'), ($$mq.resume('no')$$, '42704'), ($$mq.resume('g', 'x')$$, '42704'), ($$mq.alter_queue('no', '{}')$$, '42704'), ($$mq.alter_queue('no', '{"retention": "1 h"}')$$, '42704'),
	($$mq.grant('no', 'send', 'public')$$, '42704'), ($$mq.grant('g', 'send', 'no such role')$$, '42704'), ($$mq.grant('g', 'consume', 'public', 'x')$$, '42704'), ($$mq.discard('g', 'default', '{1}')$$, '42704'),
	-- there is one
	($$mq.create_group('g', 'a')$$, '42710'), ($$mq.create_group('two', 'default')$$, '42710'), ($$mq.create_queue('g')$$, '42710'),
	-- names
	($$mq.create_group('g', '')$$, '22023'), ($$mq.create_group('g', repeat('x', 49))$$, '22023'), ($$mq.create_queue('x', groups => array[''])$$, '22023'), ($$mq.create_queue('x', groups => array[repeat('x', 49)])$$, '22023'),
	($$mq.create_queue('x', groups => '{a,a}')$$, '22023'), ($$mq.create_queue('x', groups => '{{a,b},{c,d}}')$$, '22023'),
	-- where to begin
	($$mq.create_group('g', 'x', start => 'first')$$, '22023'), ($$mq.create_group('g', 'x', start => 'EARLIEST')$$, '22023'), ($$mq.create_group('g', 'x', start => '')$$, '22023'),
	($$mq.create_group('g', 'x', start => 'latest', start_id => 1)$$, '22023'), ($$mq.create_group('g', 'x', start => 'earliest', start_time => now())$$, '22023'), ($$mq.create_group('g', 'x', start_id => 1, start_time => now())$$, '22023'),
	($$mq.create_group('g', 'x', start_id => 0)$$, '22023'), ($$mq.create_group('g', 'x', start_id => -1)$$, '22023'), ($$mq.create_group('g', 'x', start_id => 2)$$, '22023'), ($$mq.create_group('g', 'x', start_id => 9223372036854775807)$$, '22023'),
	($$mq.create_group('g', 'x', start_time => 'infinity')$$, '22023'), ($$mq.create_group('g', 'x', start_time => '-infinity')$$, '22023'), ($$mq.create_group('g', 'x', start_time => clock_timestamp() + '1 min')$$, '22023'),
	($$mq.seek('g', 'a')$$, '22023'), ($$mq.seek('g', 'a', start => 'first')$$, '22023'), ($$mq.seek('g', 'a', start => 'latest', start_id => 1)$$, '22023'), ($$mq.seek('g', 'a', start => 'latest', start_id => 1, start_time => now())$$, '22023'),
	($$mq.seek('g', 'a', start_id => 0)$$, '22023'), ($$mq.seek('g', 'a', start_id => 2)$$, '22023'), ($$mq.seek('g', 'a', start_time => 'infinity')$$, '22023'), ($$mq.seek('g', 'a', start_time => '-infinity')$$, '22023'), ($$mq.seek('g', 'a', start_time => clock_timestamp() + '1 min')$$, '22023'),
	-- limits
	($$mq.create_group('g', 'x', options => '{"max_in_flight": 0}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"max_in_flight": -1}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"max_in_flight_per_consumer": 0}')$$, '22023'),
	($$mq.create_group('g', 'x', options => '{"visibility_timeout": "0"}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"visibility_timeout": "-1 s"}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"visibility_timeout": "366 days"}')$$, '22023'),
	($$mq.alter_group('g', 'a', '{"max_in_flight": 0}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"max_in_flight_per_consumer": -5}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"visibility_timeout": "0"}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"visibility_timeout": "13 months"}')$$, '22023'),
	($$mq.alter_group('g', 'a', '{"reset": ["nothing"]}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"reset": ["retention"]}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"max_in_flight": 3, "reset": ["max_in_flight"]}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"reset": ["Max_In_Flight"]}')$$, '22023'),
	($$mq.alter_group('g', 'a', '{"reset": [["max_in_flight"], ["visibility_timeout"]]}')$$, '22023'),
	-- options
	($$mq.create_queue('x', options => '[]')$$, '22023'), ($$mq.create_queue('x', options => '"retention"')$$, '22023'), ($$mq.create_queue('x', options => 'null')$$, '22023'), ($$mq.alter_queue('g', '7')$$, '22023'), ($$mq.alter_group('g', 'a', '[{"max_in_flight": 1}]')$$, '22023'),
	($$mq.create_queue('x', options => '{"retentoin": "1 h"}')$$, '22023'), ($$mq.create_queue('x', options => '{"": 1}')$$, '22023'), ($$mq.create_queue('x', options => '{"reset": ["retention"]}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"reset": []}')$$, '22023'), ($$mq.create_queue('x', options => '{"queue_no": 1}')$$, '22023'),
	($$mq.create_group('g', 'x', options => '{"max_in_flight": 1.5}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"max_in_flight": 1e99}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"max_in_flight": "1"}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"max_in_flight": 2147483648}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"max_in_flight": {"a": [1, {"b": 2}]}}')$$, '22023'),
	($$mq.create_group('g', 'x', options => '{"visibility_timeout": 30}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"visibility_timeout": "soon"}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"visibility_timeout": "99999999999 years"}')$$, '22023'), ($$mq.create_group('g', 'x', options => '{"visibility_timeout": true}')$$, '22023'),
	($$mq.alter_queue('g', '{"segment_size": 2048}')$$, '22023'), ($$mq.create_queue('x', options => '{"segment_size": null}')$$, '22023'), ($$mq.create_queue('x', options => '{"owner": null}')$$, '22023'), ($$mq.create_queue('x', options => '{"owner": "no such role"}')$$, '42704'), ($$mq.alter_queue('g', '{"reset": ["owner"]}')$$, '22023'), ($$mq.alter_queue('g', '{"reset": "retention"}')$$, '22023'), ($$mq.alter_queue('g', '{"reset": {"a": 1}}')$$, '22023'), ($$mq.alter_queue('g', '{"reset": ["retention", "retention"]}')$$, '22023'),
	($$mq.create_queue('x', options => '{"message_ttl": "1 h"}')$$, '0A000'), ($$mq.alter_queue('g', '{"priorities": 3}')$$, '0A000'), ($$mq.create_group('g', 'x', options => '{"ordered": true}')$$, '0A000'), ($$mq.alter_group('g', 'a', '{"retry_delays": null}')$$, 'ok'), ($$mq.alter_group('g', 'a', '{"reset": ["retry_delays", "max_failures", "dead_letter_queue"]}')$$, 'ok'),
	($$mq.alter_group('g', 'a', '{"retry_delays": "1 s"}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"retry_delays": []}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"retry_delays": [1]}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"retry_delays": ["1 month"]}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"retry_delays": ["-1 s"]}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"retry_delays": ["366 days"]}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"retry_delays": ["soon"]}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"retry_delays": [["1 s"]]}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"retry_delays": {"a": "1 s"}}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"retry_delays": [null]}')$$, '22023'),
	($$mq.alter_group('g', 'a', '{"retry_delays": ["0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s","0 s"]}')$$, '22023'),
	($$mq.alter_group('g', 'a', '{"max_failures": 0}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"max_failures": 65536}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"max_failures": "3"}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"dead_letter_queue": 1}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"dead_letter_queue": "g"}')$$, '22023'), ($$mq.alter_group('g', 'a', '{"dead_letter_queue": ""}')$$, '42704'), ($$mq.alter_group('g', 'a', '{"reset": ["filter"]}')$$, '0A000'),
	-- queues
	($$mq.create_queue('x', options => '{"retention": "0"}')$$, '22023'), ($$mq.create_queue('x', options => '{"retention": "-1 s"}')$$, '22023'), ($$mq.create_queue('x', options => '{"retention_bytes": -1}')$$, '22023'), ($$mq.create_queue('x', options => '{"drop_unread": true}')$$, '22023'),
	($$mq.create_queue('x', options => '{"notify_interval": "9 ms"}')$$, '22023'), ($$mq.create_queue('x', options => '{"notify_interval": "0"}')$$, '22023'), ($$mq.create_queue('x', options => '{"notify_interval": "25 h"}')$$, '22023'), ($$mq.create_queue('x', options => '{"notify_interval": "-1 s"}')$$, '22023'),
	($$mq.alter_queue('g', '{"retention": "0"}')$$, '22023'), ($$mq.alter_queue('g', '{"retention": "-1 day"}')$$, '22023'), ($$mq.alter_queue('g', '{"retention_bytes": -1}')$$, '22023'), ($$mq.alter_queue('g', '{"drop_unread": true}')$$, '22023'), ($$mq.alter_queue('g', '{"notify_interval": "1 ms"}')$$, '22023'),
	($$mq.alter_queue('g', '{"reset": ["segment_size"]}')$$, '22023'), ($$mq.alter_queue('g', '{"reset": ["nothing"]}')$$, '22023'), ($$mq.alter_queue('g', '{"reset": ["max_in_flight"]}')$$, '22023'), ($$mq.alter_queue('g', '{"retention": "1 h", "reset": ["retention"]}')$$, '22023'),
	-- privileges
	($$mq.grant('g', 'insert', 'public')$$, '22023'), ($$mq.grant('g', 'Send', 'public')$$, '22023'), ($$mq.grant('g', '', 'public')$$, '22023'), ($$mq.grant('g', 'send', 'public', 'a')$$, '22023'), ($$mq.grant('g', 'manage', 'public', 'a')$$, '22023'),
	($$mq.revoke('g', 'all', 'public')$$, '22023'), ($$mq.revoke('g', 'browse', 'public', 'a')$$, '22023');
SELECT is(pg_temp.state('SELECT ' || sql), state, sql || ': ' || state) FROM wrong;
SELECT is(pg_temp.hint($$SELECT mq.create_queue('x', options => '{"retentoin": "1 h"}')$$), 'Perhaps you mean "retention".', 'the nearest name');
SELECT is(pg_temp.state($$SELECT mq.create_queue('x whole', options => '{"segment_size": 2048.0, "retention_bytes": 1e6}')$$), 'ok', 'a whole number, however it is written');
SELECT matches(pg_temp.hint($$SELECT mq.alter_group('g', 'a', '{"quite different": 1}')$$), '^The options are max_in_flight, max_in_flight_per_consumer, visibility_timeout, [a-z_, ]+\.$', 'or all names');
SELECT isnt(coalesce(pg_temp.hint('SELECT ' || sql), ''), '', sql || ': has a hint') FROM wrong WHERE state <> '22004' AND sql !~ 'no such role';

-- the edges that are allowed
CREATE TEMP TABLE right_ (sql text);
INSERT INTO right_ VALUES ($$mq.create_group('g', 'e1', start_id => 1)$$), ($$mq.create_group('g', 'e2', start_time => '0001-01-01 BC')$$), ($$mq.create_group('g', 'e3', options => '{"max_in_flight": 1, "max_in_flight_per_consumer": 2147483647, "visibility_timeout": "365 days"}')$$),
	($$mq.create_group('g', 'e4', options => '{"visibility_timeout": "1 ms"}')$$), ($$mq.create_group('g', 'a', if_not_exists => true)$$), ($$mq.create_group('g', repeat('x', 48))$$), ($$mq.create_group('g', 'G')$$), ($$mq.create_group('two', 'a')$$),
	($$mq.alter_group('g', 'a', '{}')$$), ($$mq.alter_group('g', 'a', '{"reset": []}')$$), ($$mq.alter_group('g', 'a', '{"reset": ["max_in_flight", "max_in_flight_per_consumer", "visibility_timeout"]}')$$), ($$mq.alter_group('g', 'a', '{"max_in_flight": 5, "reset": ["visibility_timeout"]}')$$),
	($$mq.alter_queue('g', '{}')$$), ($$mq.alter_queue('g', '{"retention": "1 ms"}')$$), ($$mq.alter_queue('g', '{"retention_bytes": 0}')$$), ($$mq.alter_queue('g', '{"drop_unread": true}')$$), ($$mq.alter_queue('g', '{"drop_unread": false}')$$), ($$mq.alter_queue('g', '{"notify_interval": "10 ms"}')$$), ($$mq.alter_queue('g', '{"notify_interval": "1 day"}')$$),
	($$mq.alter_queue('g', '{"reset": ["retention", "retention_bytes", "drop_unread", "notify_interval"]}')$$), ($$mq.alter_queue('g', '{"retention": "100 years"}')$$), ($$mq.alter_queue('g', '{"retention_bytes": 9223372036854775807}')$$),
	($$mq.pause('g')$$), ($$mq.pause('g')$$), ($$mq.pause('g', 'a')$$), ($$mq.resume('g', 'a')$$), ($$mq.resume('g', 'a')$$), ($$mq.resume('g')$$), ($$mq.purge('g')$$), ($$mq.create_queue('none', groups => '{}')$$), ($$mq.purge('none')$$), ($$mq.pause('none')$$),
	($$mq.seek('g', 'a', start_id => 1)$$), ($$mq.seek('g', 'a', start_time => clock_timestamp())$$), ($$mq.grant('g', 'send', 'public')$$), ($$mq.grant('none', 'consume', 'public')$$), ($$mq.revoke('g', 'send', 'public')$$), ($$mq.revoke('g', 'consume', 'public', 'a')$$),
	($$mq.drop_group('g', 'b', force => true)$$), ($$mq.drop_group('two', 'default', force => true)$$), ($$mq.create_group('two', 'default')$$), ($$mq.create_queue('x', groups => '{a,A," ",default}', options => '{"segment_size": 1024, "retention": "1 day", "retention_bytes": 0, "drop_unread": true, "notify_interval": "1 s"}')$$);
SELECT is(pg_temp.state('SELECT ' || sql), 'ok', sql || ': works') FROM right_;

-- a limit that goes takes drop_unread's ground away
SELECT mq.create_queue('unread', options => '{"retention": "1 h", "drop_unread": true}');
SELECT is(pg_temp.state($$SELECT mq.alter_queue('unread', '{"reset": ["retention"]}')$$), '22023', 'drop_unread without a limit is refused, also when the limit is what goes');
SELECT is(pg_temp.state($$SELECT mq.alter_queue('unread', '{"retention_bytes": 1000, "reset": ["retention"]}')$$), 'ok', 'one limit for another is fine');
SELECT is(pg_temp.state($$SELECT mq.alter_queue('unread', '{"reset": ["retention_bytes", "drop_unread"]}')$$), 'ok', 'both together too');

-- read-only transactions
CREATE FUNCTION pg_temp.readonly(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN SET LOCAL transaction_read_only = on; EXECUTE sql; RAISE SQLSTATE 'ZZ000'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END;
END $$;
SELECT is(pg_temp.readonly('SELECT ' || f), '25006', f || ': 25006 in a read-only transaction') FROM unnest(array[
	$$mq.create_group('g', 'x')$$, $$mq.alter_group('g', 'a', '{"max_in_flight": 1}')$$, $$mq.drop_group('g', 'a', force => true)$$, $$mq.seek('g', 'a', start => 'latest')$$, $$mq.purge('g')$$, $$mq.pause('g')$$, $$mq.resume('g', 'a')$$,
	$$mq.alter_queue('g', '{"retention": "1 h"}')$$, $$mq.grant('g', 'send', 'public')$$, $$mq.revoke('g', 'send', 'public')$$]) f;

-- what a group's sequence is for
SELECT is((SELECT count(*)::int FROM mq_internal.consumer_group g WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'mq_internal'::regnamespace AND c.relname = 'g_' || g.group_no AND c.relkind = 'S')), 0, 'every group has a sequence to grant on');
SELECT mq.grant('g', 'consume', 'public', 'a');
SELECT ok(has_sequence_privilege('public', format('mq_internal.g_%s', (SELECT group_no FROM mq_internal.consumer_group g JOIN mq_internal.queue q USING (queue_no) WHERE q.name = 'g' AND g.name = 'a')), 'USAGE'), 'consume is USAGE on it');
SELECT is((SELECT count(*)::int FROM pg_class c WHERE c.relnamespace = 'mq_internal'::regnamespace AND c.relkind = 'S' AND c.relname ~ '^g_' AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege('public', c.oid, 'USAGE') END), 1, 'of that group only');
SELECT mq.grant('g', 'consume', 'public');
SELECT is((SELECT count(*)::int FROM mq_internal.consumer_group g JOIN mq_internal.queue q USING (queue_no) WHERE q.name = 'g' AND NOT has_sequence_privilege('public', format('mq_internal.g_%s', group_no), 'USAGE')), 0, 'without a group: all there are');
SELECT mq.create_group('g', 'newer');
SELECT ok(NOT has_sequence_privilege('public', format('mq_internal.g_%s', (SELECT group_no FROM mq_internal.consumer_group g WHERE g.name = 'newer')), 'USAGE'), 'and not those that come later');
SELECT mq.revoke('g', 'consume', 'public');
SELECT is((SELECT count(*)::int FROM pg_class c WHERE c.relnamespace = 'mq_internal'::regnamespace AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege('public', c.oid, 'USAGE') END), 0, 'revoke: of all');
SELECT mq.grant('g', p, 'public') FROM unnest(array['send', 'browse', 'manage']) p;
SELECT is((SELECT count(*)::int FROM unnest(array['INSERT', 'SELECT', 'TRUNCATE']) p WHERE has_table_privilege('public', 'mq.q_g', p)), 3, 'send, browse, manage are INSERT, SELECT, TRUNCATE');
SELECT is((SELECT count(*)::int FROM unnest(array['UPDATE', 'DELETE', 'REFERENCES', 'TRIGGER']) p WHERE has_table_privilege('public', 'mq.q_g', p)), 0, 'and nothing else');
SELECT throws_ok('TRUNCATE mq.q_g', '55000', NULL, 'TRUNCATE itself stays refused');
-- the sequence goes with its group, and with the queue
SELECT mq.drop_group('g', 'newer', force => true);
SELECT mq.drop_queue('g', force => true);
SELECT is((SELECT count(*)::int FROM pg_class c WHERE c.relnamespace = 'mq_internal'::regnamespace AND c.relkind = 'S' AND c.relname ~ '^g_' AND NOT EXISTS (SELECT FROM mq_internal.consumer_group g WHERE c.relname = 'g_' || g.group_no)), 0, 'no sequence is left of groups that are gone');
SELECT * FROM finish();
ROLLBACK;
