-- contract: mq.browse in every state, the new columns of the views
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE FUNCTION pg_temp.state(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
-- what each state shows, as payloads
CREATE FUNCTION pg_temp.shows(q text, g text DEFAULT 'default') RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s [%s]', s, (SELECT string_agg(b.payload::text, ' ') FROM mq.browse(q, g, states => ARRAY[s]) b)), ' ' ORDER BY n)
	FROM unnest(array['ready', 'retrying', 'leased', 'settling', 'finished']) WITH ORDINALITY u (s, n) $$;
-- true as soon as it is (the worker seals segments beside us, which adds bytes between two reads)
CREATE FUNCTION pg_temp.soon(sql text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE good boolean; stop timestamptz := clock_timestamp() + interval '10 s';
BEGIN
	LOOP
		EXECUTE sql INTO good;
		IF good OR clock_timestamp() > stop THEN RETURN good; END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
END $$;
SELECT * FROM no_plan();
SELECT mq.create_queue('br', groups => '{default,x}');
SELECT mq.send('br', to_jsonb(i), headers => jsonb_build_object('h', i), body => '\x0102') > 0 FROM generate_series(1, 12) i;

SELECT is(pg_temp.state('SELECT mq.browse(' || a || ')'), s, 'browse(' || a || '): ' || s) FROM (VALUES
	($$'br', states => '{pending}'$$, '22023'), ($$'br', states => '{ready,READY}'$$, '22023'), ($$'br', states => '{""}'$$, '22023'), ($$'br', states => '{null}'$$, '22004'), ($$'br', states => '{{ready},{leased}}'$$, '22023'), ($$'br', states => null$$, 'ok'), ($$'br', states => '{}'$$, 'ok'),
	($$'br', states => '{scheduled,ready,retrying,blocked,leased,settling,dead,expired,filtered,finished}'$$, 'ok'), ($$'br', after_id => null$$, '22004'), ($$'br', after_id => -9223372036854775808$$, 'ok'), ($$'br', after_id => 9223372036854775807$$, 'ok'), ($$'br', filter => '$.payload'$$, '0A000'), ($$'br', key => 'k'$$, '0A000'), ($$'br', 'no'$$, '42704'), ($$'no'$$, '42704'), ($$null$$, '22004'), ($$'br', null$$, '22004'),
	($$'br', max_messages => 0$$, '22023'), ($$'br', max_messages => -1$$, '22023'), ($$'br', max_messages => null$$, '22004'), ($$'br', max_messages => 1000000$$, 'ok')) v (a, s);

SELECT is(pg_temp.shows('br'), 'ready [1 2 3 4 5 6 7 8 9 10 11 12] retrying [] leased [] settling [] finished []', 'nobody has received: all are ready, unread as they are');
SELECT results_eq($$SELECT state, attempt, failures, due_at, lease_until, consumer, key, priority, routing_key, headers, payload, body FROM mq.browse('br', states => '{ready}', max_messages => 1)$$,
	$$VALUES ('ready', 0, 0, null::timestamptz, null::timestamptz, null, null, 0, null, '{"h": 1}'::jsonb, '1'::jsonb, '\x0102'::bytea)$$, 'the row in full');
SELECT ok((SELECT bool_and(b.enqueued_at = m.enqueued_at AND b.payload = m.payload) AND count(*) = 12 FROM mq.browse('br', states => '{ready}') b JOIN mq.q_br m USING (id)), 'id and enqueued_at are the stored ones');
SELECT is((SELECT count(*)::int FROM mq.browse('br', states => '{ready}', max_messages => 5)), 5, 'max_messages');
CREATE TEMP TABLE r AS SELECT * FROM mq.receive('br', max_messages => 5, consumer => 'c1', visibility_timeout => '1 h');
SELECT mq.nack(receipt, '1 h') FROM r WHERE payload = '3';
SELECT mq.nack(receipt) FROM r WHERE payload = '2';
SELECT mq.ack(receipt) FROM r WHERE payload = '4';
SELECT mq.release(receipt) FROM r WHERE payload = '5';
SELECT is(pg_temp.shows('br'), 'ready [2 5 6 7 8 9 10 11 12] retrying [3] leased [1] settling [] finished [4]', 'each in its state');
SELECT is(pg_temp.shows('br', 'x'), 'ready [1 2 3 4 5 6 7 8 9 10 11 12] retrying [] leased [] settling [] finished []', 'the other group has its own');
SELECT is((SELECT format('%s %s %s %s', state, attempt, failures, due_at BETWEEN clock_timestamp() + '59 min' AND clock_timestamp() + '61 min') FROM mq.browse('br', states => '{retrying}')), 'retrying 1 1 t', 'retrying: when it is due, and what happened so far');
SELECT is((SELECT format('%s %s %s %s %s', state, attempt, failures, consumer, lease_until BETWEEN clock_timestamp() + '59 min' AND clock_timestamp() + '61 min') FROM mq.browse('br', states => '{leased}')), 'leased 1 0 c1 t', 'leased: by whom and until when');
SELECT is((SELECT string_agg(format('%s/%s/%s', payload, attempt, failures), ' ') FROM mq.browse('br', states => '{ready}', max_messages => 3)), '2/1/1 5/1/0 6/0/0', 'ready: attempts and failures');
BEGIN;
SELECT count(*) FROM mq.pop('br', max_messages => 2, consumer => 'c2');
SELECT mq.ack(receipt) FROM r WHERE payload = '1';
SELECT is(pg_temp.shows('br'), 'ready [6 7 8 9 10 11 12] retrying [3] leased [] settling [1 2 5] finished [4]', 'settling: acked by a transaction that is not over');
SELECT is((SELECT string_agg(coalesce(consumer, '-'), ' ') FROM mq.browse('br', states => '{settling}')), 'c1 c2 c2', 'by whom');
SELECT mq.send('br', '"own"') > 0;
SELECT is((SELECT count(*)::int FROM mq.browse('br', states => '{finished}') WHERE payload = '"own"'), 0, 'an own send is not finished');
ROLLBACK;
-- (what has failed twice comes back after a pause)
DO $$ BEGIN WHILE EXISTS (SELECT FROM mq.browse('br', states => '{retrying}') WHERE due_at < now() + interval '1 min') LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT is(pg_temp.shows('br'), 'ready [2 5 6 7 8 9 10 11 12] retrying [3] leased [1] settling [] finished [4]', 'rolled back: as before');
SELECT is((SELECT string_agg(failures::text, ' ') FROM mq.browse('br', states => '{ready}', max_messages => 2)), '2 1', 'but for the failures');
-- it takes and changes nothing
SELECT is((SELECT row(ready + retrying, leased, settling, pending)::text FROM mq.groups WHERE queue = 'br' AND consumer_group = 'default'),
          (SELECT row(ready + retrying, leased, settling, pending)::text FROM mq.groups, (SELECT count(*) FROM generate_series(1, 5), mq.browse('br', states => '{ready}')) c WHERE queue = 'br' AND consumer_group = 'default'), 'browsing moves nothing');
SELECT is((SELECT string_agg(attempt::text, ' ') FROM mq.receive('br', consumer_group => 'x', max_messages => 3, visibility_timeout => '1 h')), '1 1 1', 'nor counts as an attempt');
SELECT is((SELECT count(*)::int FROM mq.in_flight WHERE queue = 'br' AND consumer_group = 'default'), 1, 'nor leases anything');
-- aborted sends are in no state
BEGIN; SELECT mq.send('br', '"never"') > 0; ROLLBACK;
SELECT is(pg_temp.shows('br'), 'ready [2 5 6 7 8 9 10 11 12] retrying [3] leased [1] settling [] finished [4]', 'a rolled back send is nowhere');
SELECT mq.discard('br', 'default', (SELECT array_agg(id) FROM mq.browse('br', states => '{ready}') WHERE payload IN ('6', '7')));
SELECT is(pg_temp.shows('br'), 'ready [2 5 8 9 10 11 12] retrying [3] leased [1] settling [] finished [4 6 7]', 'discarded: finished');
SELECT mq.seek('br', 'default', start_id => (SELECT id FROM mq.q_br WHERE payload = '10'));
SELECT is(pg_temp.shows('br'), 'ready [10 11 12] retrying [] leased [] settling [] finished [1 2 3 4 5 6 7 8 9]', 'after a seek');
SELECT mq.purge('br');
SELECT is(pg_temp.shows('br'), 'ready [] retrying [] leased [] settling [] finished [1 2 3 4 5 6 7 8 9 10 11 12]', 'after a purge');
SELECT mq.seek('br', 'default', start => 'earliest');
SELECT is(pg_temp.shows('br'), 'ready [1 2 3 4 5 6 7 8 9 10 11 12] retrying [] leased [] settling [] finished []', 'sought back: attempts begin anew');
SELECT is((SELECT max(attempt) + max(failures) FROM mq.browse('br', states => '{ready}')), 0, 'with their counts');
-- a lease that is over is not leased, a due one is ready
CREATE TEMP TABLE r2 AS SELECT * FROM mq.receive('br', max_messages => 2, visibility_timeout => '1 ms');
SELECT mq.nack(receipt, '1 ms') FROM mq.receive('br', max_messages => 1, visibility_timeout => '1 h');
SELECT pg_sleep(0.01);
SELECT is((SELECT string_agg(payload::text, ' ') FROM mq.browse('br', states => '{ready}', max_messages => 3)), '1 2 3', 'leases that are over and delays that are over: ready');
SELECT is(pg_temp.shows('br'), 'ready [1 2 3 4 5 6 7 8 9 10 11 12] retrying [] leased [] settling [] finished []', 'and only that');
-- order and limit over several segments
SELECT mq.create_queue('br2', options => '{"segment_size": 1024}');
SELECT cardinality(mq.send_batch('br2', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 2500) i)));
SELECT ok((SELECT array_agg(payload::text::bigint) = array_agg(i) FROM (SELECT payload, row_number() OVER () AS i FROM mq.browse('br2', states => '{ready}', max_messages => 3000)) x), 'ascending, over segments');
SELECT is((SELECT count(*)::int FROM mq.browse('br2', states => '{ready}')), 100, 'a hundred by default');
SELECT is((SELECT count(*)::int FROM mq.pop('br2', max_messages => 2000)), 2000, '2000 are finished');
SELECT is((SELECT min(payload::text::int) || ' ' || count(*) FROM mq.browse('br2', states => '{ready}', max_messages => 1000)), '2001 500', 'what is left');

-- ---- views
SELECT is((SELECT string_agg(c, ' ') FROM unnest(array['queue', 'owner', 'queue_table', 'segment_size', 'next_id', 'segments', 'paused', 'retention', 'retention_bytes', 'drop_unread', 'notify_interval', 'bytes']) c
	WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'mq.queues'::regclass AND attname = c)), NULL, 'mq.queues has its columns');
SELECT is((SELECT string_agg(c, ' ') FROM unnest(array['queue', 'consumer_group', 'epoch', 'low_watermark', 'next_id', 'ready', 'leased', 'settling', 'pending', 'unread_at_most', 'held_back', 'paused', 'max_in_flight', 'max_in_flight_per_consumer', 'visibility_timeout', 'waiting', 'held_bytes', 'dropped']) c
	WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'mq.groups'::regclass AND attname = c)), NULL, 'mq.groups has its columns');
SELECT has_column('mq', 'in_flight', 'consumer', 'mq.in_flight has consumer');
SELECT is((SELECT string_agg(attrelid::regclass || '.' || attname, ' ') FROM pg_attribute WHERE attrelid IN ('mq.queues'::regclass, 'mq.groups'::regclass) AND attnum > 0
	AND attname IN ('paused', 'retention', 'retention_bytes', 'drop_unread', 'notify_interval', 'bytes', 'max_in_flight', 'max_in_flight_per_consumer', 'visibility_timeout', 'waiting', 'held_bytes', 'dropped') AND coalesce(col_description(attrelid, attnum), '') = ''), NULL, 'the new columns are documented');
SELECT results_eq($$SELECT paused, retention, retention_bytes, drop_unread, notify_interval FROM mq.queues WHERE queue = 'br'$$, $$VALUES (false, null::interval, null::bigint, false, null::interval)$$, 'defaults of a queue');
SELECT results_eq($$SELECT paused, max_in_flight, max_in_flight_per_consumer, visibility_timeout, waiting::int, dropped::int FROM mq.groups WHERE queue = 'br' AND consumer_group = 'x'$$, $$VALUES (false, null::int, null::int, null::interval, 0, 0)$$, 'defaults of a group');
SELECT mq.alter_queue('br', '{"retention": "2 days", "retention_bytes": 12345678, "drop_unread": true, "notify_interval": "3 s"}'), mq.pause('br'), mq.pause('br', 'x');
SELECT results_eq($$SELECT paused, retention, retention_bytes, drop_unread, notify_interval FROM mq.queues WHERE queue = 'br'$$, $$VALUES (true, '2 days'::interval, 12345678::bigint, true, '3 s'::interval)$$, 'what was set is shown');
SELECT mq.alter_queue('br', '{"retention": "1 day"}');
SELECT results_eq($$SELECT retention, retention_bytes, drop_unread, notify_interval FROM mq.queues WHERE queue = 'br'$$, $$VALUES ('1 day'::interval, 12345678::bigint, true, '3 s'::interval)$$, 'null leaves an option as it is');
SELECT mq.alter_queue('br', '{"reset": ["retention_bytes", "notify_interval"]}');
SELECT results_eq($$SELECT retention, retention_bytes, drop_unread, notify_interval FROM mq.queues WHERE queue = 'br'$$, $$VALUES ('1 day'::interval, null::bigint, true, null::interval)$$, 'reset gives the default back');
SELECT is((SELECT string_agg(consumer_group || ' ' || paused, ', ' ORDER BY consumer_group) FROM mq.groups WHERE queue = 'br'), 'default true, x true', 'a paused queue pauses all its groups');
SELECT mq.resume('br');
SELECT is((SELECT string_agg(consumer_group || ' ' || paused, ', ' ORDER BY consumer_group) FROM mq.groups WHERE queue = 'br'), 'default false, x true', 'resumed, one group is paused still');
SELECT ok(pg_temp.soon($$SELECT (SELECT bytes FROM mq.queues WHERE queue = 'br2') = (SELECT sum(bytes) FROM mq.segments WHERE queue = 'br2')$$), 'mq.queues.bytes: the segments together');
SELECT mq.create_group('br2', 'all', start => 'earliest');
SELECT ok(pg_temp.soon($$SELECT (SELECT held_bytes FROM mq.groups WHERE queue = 'br2' AND consumer_group = 'all') = (SELECT sum(bytes) FROM mq.segments WHERE queue = 'br2')$$), 'held_bytes: a group at the beginning keeps everything');
SELECT ok(pg_temp.soon($$SELECT held_bytes = (SELECT sum(s.bytes) FROM mq.segments s WHERE s.queue = 'br2' AND s.last_id >= g.low_watermark) AND held_bytes < (SELECT bytes FROM mq.queues WHERE queue = 'br2')
	FROM mq.groups g WHERE g.queue = 'br2' AND consumer_group = 'default'$$), 'one further on: the segments from its low watermark');

SELECT mq.drop_queue('br', force => true), mq.drop_queue('br2', force => true);
SELECT * FROM finish();
