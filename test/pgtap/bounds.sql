-- contract: bounds of queues: max_messages, max_bytes, overflow
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE FUNCTION pg_temp.state(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
SELECT * FROM no_plan();

-- options
SELECT mq.create_queue('bo', options => '{"max_messages": 3}') IS NULL;
SELECT results_eq($$SELECT max_messages, max_bytes, overflow, rejected FROM mq.queues WHERE queue = 'bo'$$, $$VALUES (3::bigint, null::bigint, 'reject', 0::bigint)$$, 'shown');
SELECT is(pg_temp.state(format('SELECT mq.alter_queue(%L, %L)', 'bo', o)), s, o || ': ' || s) FROM (VALUES
	('{"max_messages": 0}', '22023'), ('{"max_messages": -1}', '22023'), ('{"max_messages": 1.5}', '22023'), ('{"max_messages": "3"}', '22023'), ('{"max_messages": 1000000000001}', '22023'),
	('{"max_messages": 1e30}', '22023'), ('{"max_messages": true}', '22023'), ('{"max_messages": []}', '22023'), ('{"max_messages": 1000000000000}', 'ok'),
	('{"max_bytes": 0}', '22023'), ('{"max_bytes": -5}', '22023'), ('{"max_bytes": 1125899906842625}', '22023'), ('{"max_bytes": 9223372036854775808}', '22023'), ('{"max_bytes": "1 GB"}', '22023'),
	('{"max_bytes": 1125899906842624}', 'ok'), ('{"overflow": "drop_newest"}', '22023'), ('{"overflow": ""}', '22023'), ('{"overflow": 1}', '22023'), ('{"overflow": true}', '22023'), ('{"overflow": "Reject"}', '22023'),
	('{"overflow": "drop_oldest"}', 'ok'), ('{"max_messages": null}', 'ok'), ('{"max_bytes": null}', '22023'), ('{"overflow": null, "max_bytes": null}', 'ok'), ('{"overflow": "drop_oldest"}', '22023'),
	('{"overflow": "drop_oldest", "max_messages": 5}', 'ok'), ('{"reset": ["max_messages"]}', '22023'), ('{"reset": ["overflow", "max_messages"]}', 'ok'), ('{"max_message": 3}', '22023')) v (o, s);
SELECT results_eq($$SELECT max_messages, max_bytes, overflow FROM mq.queues WHERE queue = 'bo'$$, $$VALUES (null::bigint, null::bigint, 'reject')$$, 'off');
SELECT throws_ok($$SELECT mq.alter_queue('bo', '{"overflow": "drop_oldest"}')$$, '22023', 'overflow "drop_oldest" needs a bound', 'drop_oldest without a bound');
SELECT is(pg_temp.state($$SELECT mq.create_queue('bo2', options => '{"overflow": "drop_oldest"}')$$), '22023', 'nor at create');
SELECT is(pg_temp.state($$SELECT mq.create_queue('bo', options => '{"overflow": null, "max_messages": null}', if_not_exists => true)$$), 'ok', 'null is off, also to compare');

-- reject
SELECT mq.alter_queue('bo', '{"max_messages": 3}') IS NULL;
SELECT is(pg_temp.state('SELECT ' || f), s, f || ': ' || s) FROM (VALUES ($$mq.send('bo', '1')$$, 'ok'), ($$mq.send_batch('bo', '{1,2,3}')$$, '53400'), ($$mq.send_batch('bo', '{2,3}')$$, 'ok'), ($$mq.send('bo', '4')$$, '53400'),
	($$mq.send_list('bo', '[{"payload": 4}]')$$, '53400'), ($$mq.send('bo', '4', delay => '1 h')$$, '53400'), ($$mq.send_batch('bo', '{}')$$, 'ok'), ($$mq.send_list('bo', '[]')$$, 'ok'), ($$mq.send('bo')$$, '22004')) v (f, s);
SELECT is((SELECT rejected FROM mq.queues WHERE queue = 'bo'), 6::bigint, 'messages that were refused are counted');
SELECT throws_ok($$SELECT mq.send('bo', '4')$$, '53400', 'queue "bo" is full', 'the message');
SELECT is((SELECT count(*)::int FROM mq.pop('bo')), 1, 'what is finished');
SELECT is(pg_temp.state($$SELECT mq.send('bo', '4')$$), 'ok', 'makes room at once');
SELECT is(pg_temp.state($$SELECT mq.send('bo', '5')$$), '53400', 'no more than that');

-- leased, nacked and settling messages are unfinished
SELECT count(*) FROM mq.receive('bo', max_messages => 3) \gset leased
SELECT is(pg_temp.state($$SELECT mq.send('bo', '5')$$), '53400', 'leased ones count');
SELECT mq.discard('bo', 'default', array_agg(id)) = 3 FROM mq.in_flight WHERE queue = 'bo';
SELECT is(pg_temp.state($$SELECT mq.send_batch('bo', '{1,2,3}')$$), 'ok', 'a discard makes room');
SELECT mq.purge('bo') IS NULL;
SELECT is(pg_temp.state($$SELECT mq.send_batch('bo', '{1,2,3}')$$), 'ok', 'so does a purge');
SELECT mq.seek('bo', 'default', start => 'earliest') IS NULL;
SELECT mq.alter_queue('bo', '{"max_messages": 10}') IS NULL;
SELECT is(pg_temp.state($$SELECT mq.send('bo', '1')$$), '53400', 'a seek back counts');
SELECT mq.purge('bo') IS NULL;

-- gaps are no messages: what was rolled back, and what was scheduled
DO $$ BEGIN FOR i IN 1 .. 100 LOOP
	BEGIN PERFORM mq.send_batch('bo', '{1,2,3,4,5}'); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN END;
END LOOP; END $$;
SELECT is(pg_temp.state($$SELECT mq.send_batch('bo', array_fill('1'::jsonb, array[10]))$$), 'ok', 'what was rolled back takes no room');
SELECT is(pg_temp.state($$SELECT mq.send('bo', '1')$$), '53400', 'what was sent does');
SELECT mq.purge('bo') IS NULL;

-- scheduled messages count when they are accepted
SELECT mq.send_batch('bo', array_fill('1'::jsonb, array[6]), delays => '{1 h}') IS NULL;
SELECT is(pg_temp.state('SELECT ' || f), s, 'scheduled, ' || f || ': ' || s) FROM (VALUES ($$mq.send_batch('bo', '{1,2,3,4,5}')$$, '53400'), ($$mq.send_batch('bo', '{1,2,3,4}', delays => '{1 h}')$$, 'ok'), ($$mq.send('bo', '1', delay => '1 h')$$, '53400'),
	($$mq.send('bo', '1')$$, '53400')) v (f, s);
SELECT is((SELECT count(*)::int FROM mq.scheduled s, LATERAL (SELECT mq.reschedule('bo', s.id, now() + interval '2 h')) r WHERE s.queue = 'bo'), 10, 'a reschedule takes no room');
SELECT is((SELECT bool_and(mq.cancel('bo', id)) FROM mq.scheduled WHERE queue = 'bo'), true, 'what is cancelled');
SELECT is(pg_temp.state($$SELECT mq.send_batch('bo', array_fill('1'::jsonb, array[10]), delays => '{1 h}')$$), 'ok', 'makes room');

-- the slowest group counts; without groups nothing but the schedule does
SELECT mq.create_queue('bg', groups => '{a,b}', options => '{"max_messages": 2}') IS NULL;
SELECT mq.send_batch('bg', '{1,2}') IS NULL;
SELECT count(*) FROM mq.pop('bg', 'a', 10) \gset popped
SELECT is(pg_temp.state($$SELECT mq.send('bg', '1')$$), '53400', 'the slowest group counts');
SELECT mq.pause('bg', 'b') IS NULL;
SELECT is(pg_temp.state($$SELECT mq.send('bg', '1')$$), '53400', 'also when it is paused');
SELECT mq.drop_group('bg', 'b', force => true) IS NULL;
SELECT is(pg_temp.state($$SELECT mq.send('bg', '1')$$), 'ok', 'not when it is dropped');
SELECT mq.create_group('bg', 'c', 'earliest') IS NULL;
SELECT is(pg_temp.state($$SELECT mq.send('bg', '1')$$), '53400', 'a new one that begins at the start does');
SELECT mq.drop_group('bg', g, force => true) IS NULL FROM unnest('{a,c}'::text[]) g;
SELECT is(pg_temp.state($$SELECT mq.send_batch('bg', array_fill('1'::jsonb, array[100]))$$), '53400', 'a call that is larger than the bound');
SELECT is(pg_temp.state($$SELECT mq.send_batch('bg', '{1,2}') FROM generate_series(1, 10)$$), 'ok', 'no groups: no bound');
SELECT mq.drop_queue(q, force => true) IS NULL FROM unnest('{bo,bg}'::text[]) q;

-- max_send_per_second
SELECT mq.create_queue('bs', options => '{"max_send_per_second": 1000}') IS NULL;
SELECT is((SELECT max_send_per_second FROM mq.queues WHERE queue = 'bs'), 1000, 'max_send_per_second: shown');
SELECT is(pg_temp.state(format('SELECT mq.alter_queue(%L, %L)', 'bs', o)), s, o || ': ' || s) FROM (VALUES
	('{"max_send_per_second": 0}', '22023'), ('{"max_send_per_second": -1}', '22023'), ('{"max_send_per_second": 1000001}', '22023'), ('{"max_send_per_second": 0.5}', '22023'), ('{"max_send_per_second": "1"}', '22023'),
	('{"max_send_per_second": 1000000}', 'ok'), ('{"max_send_per_second": 1}', 'ok')) v (o, s);
SELECT is(pg_temp.state('SELECT ' || f), s, 'one in a second, ' || f || ': ' || s) FROM (VALUES ($$mq.send('bs', '1')$$, 'ok'), ($$mq.send('bs', '2')$$, '53400'), ($$mq.send_batch('bs', '{2}')$$, '53400'), ($$mq.send('bs', '2', delay => '1 h')$$, '53400'),
	($$mq.send_list('bs', '[{"payload": 1}]')$$, '53400'), ($$mq.receive('bs')$$, 'ok'), ($$mq.alter_queue('bs', '{"max_send_per_second": 100}')$$, 'ok')) v (f, s);
-- as many as come in a second may come at once, and then as many as the time has paid for
SELECT is(pg_temp.state($t$DO $$ DECLARE sent int := 0; since timestamptz := clock_timestamp();
BEGIN
	WHILE sent < 200 LOOP
		BEGIN PERFORM mq.send('bs', '1'); sent := sent + 1; EXCEPTION WHEN SQLSTATE '53400' THEN ASSERT sent >= 100; END;
	END LOOP;
	ASSERT clock_timestamp() - since >= interval '0.99 s', 'too fast: ' || (clock_timestamp() - since);
END $$$t$), 'ok', 'a second''s messages at once, and then as many as time has paid for');
SELECT mq.alter_queue('bs', '{"max_send_per_second": 10}') IS NULL;
SELECT is(pg_temp.state('SELECT ' || f), s, 'a large call, ' || f || ': ' || s) FROM (VALUES ($$mq.send_batch('bs', array_fill('1'::jsonb, array[1000]))$$, 'ok'), ($$mq.send('bs', '1')$$, '53400')) v (f, s);
SELECT throws_ok($$SELECT mq.send('bs', '1')$$, '53400', 'queue "bs" gets too many messages', 'it is paid for afterwards');
SELECT is(pg_temp.state('SELECT ' || f), s, 'off, ' || f || ': ' || s) FROM (VALUES ($$mq.alter_queue('bs', '{"max_send_per_second": null}')$$, 'ok'), ($$mq.send('bs', '1')$$, 'ok')) v (f, s);
SELECT is((SELECT rejected > 5 FROM mq.queues WHERE queue = 'bs'), true, 'what was refused is counted');
SELECT mq.drop_queue('bs', force => true) IS NULL;
SELECT * FROM finish();
