-- contract: send_list, make_due, closed queues, max_message_bytes
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE FUNCTION pg_temp.state(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
SELECT * FROM no_plan();
SELECT mq.create_queue('sch') IS NULL;

-- send_list: the same as send, key by key
SELECT is(mq.send_list('sch', '[]'), '{}'::bigint[], 'an empty list');
SELECT is(array_length(mq.send_list('sch', '[{"payload": {"a": 1}, "headers": {"h": 2}}, {"body": "AQID"}, {"payload": null}, {"payload": "s", "headers": null, "delay": null}, {"payload": [1, [2]], "delay": "1 hour"}, {"payload": 7, "deliver_at": "2001-01-01 00:00 UTC"}]'), 1), 6, 'a list');
SELECT results_eq($$SELECT payload::text, headers::text, body FROM mq.pop('sch', max_messages => 10)$$,
	$$VALUES ('{"a": 1}', '{"h": 2}', null::bytea), (null, null, '\x010203'::bytea), ('null', null, null), ('"s"', null, null), ('7', null, null)$$, 'arrives as sent; what is delayed does not');
SELECT results_eq($$SELECT id, kind, size > 0 FROM mq.scheduled WHERE queue = 'sch'$$, $$VALUES (1::bigint, 'send', true)$$, 'but is scheduled');
SELECT is(pg_temp.state(format('SELECT mq.send_list(%L, %L)', 'sch', m)), s, m || ': ' || s) FROM (VALUES
	('{}', '22023'), ('"x"', '22023'), ('null', '22023'), ('[1]', '22023'), ('[[]]', '22023'), ('[null]', '22023'), ('[{}]', '22004'), ('[{"headers": {}}]', '22004'),
	('[{"payload": 1, "headers": []}]', '22023'), ('[{"payload": 1, "headers": "x"}]', '22023'), ('[{"payload": 1, "headers": {"mq.x": 1}}]', '22023'), ('[{"payload": 1, "paylod": 2}]', '22023'),
	('[{"payload": 1, "key": "k"}]', '0A000'), ('[{"payload": 1, "priority": 1}]', '0A000'), ('[{"payload": 1, "expires_in": "1 s"}]', '0A000'), ('[{"body": "?"}]', '22023'), ('[{"body": 1}]', '22023'),
	('[{"payload": 1, "delay": 5}]', '22023'), ('[{"payload": 1, "delay": "soon"}]', '22007'), ('[{"payload": 1, "delay": "1 s", "deliver_at": "now"}]', '22023'),
	('[{"payload": 1, "deliver_at": "infinity"}]', '22023'), ('[{"payload": 1, "delay": "-1 s"}]', 'ok')) v (m, s);
SELECT is(pg_temp.state('SELECT mq.send_list(''sch'', null)'), '22004', 'null: 22004');
SELECT is((SELECT count(*)::int FROM mq.pop('sch', max_messages => 100)), 1, 'nothing of a list that is wrong was sent');

-- browse: what is scheduled, by id among the others
SELECT mq.create_queue('br2') IS NULL;
SELECT mq.send('br2', '1'), mq.send('br2', '2', delay => '1 day'), mq.send('br2', '3'), mq.send('br2', '4', headers => '{"h": 1}', delay => '9 days'), mq.send('br2', '5', delay => '90 days');
SELECT results_eq($$SELECT id, payload::text, state, attempt, origin_id, due_at IS NOT NULL, enqueued_at IS NULL FROM mq.browse('br2')$$,
	$$VALUES (1::bigint, '1', 'ready', 0, 1::bigint, false, false), (2, '2', 'scheduled', 0, 2, true, true), (3, '3', 'ready', 0, 3, false, false), (4, '4', 'scheduled', 0, 4, true, true), (5, '5', 'scheduled', 0, 5, true, true)$$, 'browse shows what is scheduled, in its place');
SELECT results_eq($$SELECT id FROM mq.browse('br2', states => '{scheduled}', max_messages => 2)$$, $$VALUES (2::bigint), (4)$$, 'alone');
SELECT results_eq($$SELECT id FROM mq.browse('br2', after_id => 2, max_messages => 2)$$, $$VALUES (3::bigint), (4)$$, 'a page at a time');
SELECT results_eq($$SELECT id FROM mq.browse('br2', after_id => 4)$$, $$VALUES (5::bigint)$$, 'the last page');
SELECT results_eq($$SELECT headers::text FROM mq.browse('br2', states => '{scheduled}') WHERE id = 4$$, $$VALUES ('{"h": 1}')$$, 'with headers');
SELECT is((SELECT count(*)::int FROM mq.browse('br2', states => '{ready}')), 2, 'or not at all');
SELECT mq.send_batch('br2', array_fill('1'::jsonb, array[500]), delays => '{1 day}') IS NULL;
SELECT is((SELECT count(*)::int FROM mq.browse('br2', max_messages => 1000)), 505, 'many');
SELECT is((SELECT count(*)::int FROM mq.browse('br2', max_messages => 300)), 300, 'as many as are asked for');
SELECT mq.drop_queue('br2', force => true) IS NULL;

-- make_due
SELECT mq.send('sch', to_jsonb(i), delay => make_interval(hours => i)) IS NULL FROM generate_series(2, 6) i;
SELECT is(mq.make_due('sch', '210 min'), 3::bigint, 'make_due: what is due within that time');
SELECT is((SELECT count(*)::int FROM mq.scheduled WHERE queue = 'sch' AND due_at > clock_timestamp()), 3, 'the others are not due');
BEGIN;
SELECT is(mq.make_due('sch'), 3::bigint, 'make_due: all');
ROLLBACK;
SELECT is((SELECT count(*)::int FROM mq.scheduled WHERE queue = 'sch' AND due_at > clock_timestamp()), 3, 'undone by rollback');
SELECT is(pg_temp.state('SELECT ' || f), s, f || ': ' || s) FROM (VALUES ($$mq.make_due('sch', '-1 s')$$, '22023'), ($$mq.make_due('sch', '200 years')$$, '22023'), ($$mq.make_due(null)$$, '22004'), ($$mq.make_due('no')$$, '42704'), ($$mq.make_due('sch', '0')$$, 'ok')) v (f, s);

-- in the order in which it was due
SELECT mq.create_queue('br3') IS NULL;
SELECT mq.send('br3', to_jsonb(i), delay => make_interval(hours => 200 - i)) IS NULL FROM generate_series(1, 100) i;
BEGIN;
SELECT is(mq.make_due('br3'), 100::bigint, 'make_due of what was sent in another order');
SELECT results_eq($$SELECT id FROM mq.scheduled WHERE queue = 'br3' ORDER BY due_at, id$$, $$SELECT generate_series(100, 1, -1)::bigint$$, 'it keeps the order of due times');
ROLLBACK;
SELECT mq.drop_queue('br3', force => true) IS NULL;

-- closed
SELECT mq.alter_queue('sch', '{"closed": true}') IS NULL;
SELECT is((SELECT closed FROM mq.queues WHERE queue = 'sch'), true, 'closed: shown');
SELECT is(pg_temp.state('SELECT ' || f), s, 'closed, ' || f || ': ' || s) FROM (VALUES ($$mq.send('sch', '1')$$, '55000'), ($$mq.send_batch('sch', '{1}')$$, '55000'), ($$mq.send_list('sch', '[]')$$, '55000'), ($$mq.send('sch', '1', delay => '1 s')$$, '55000'),
	($$mq.receive('sch')$$, 'ok'), ($$mq.cancel('sch', 1)$$, 'ok'), ($$mq.make_due('sch', '1 s')$$, 'ok'), ($$mq.alter_queue('sch', '{"closed": null}')$$, 'ok'), ($$mq.send('sch', '1')$$, 'ok'), ($$mq.alter_queue('sch', '{"closed": "yes"}')$$, '22023')) v (f, s);

-- max_message_bytes
SELECT mq.alter_queue('sch', '{"max_message_bytes": 100}') IS NULL;
SELECT is(pg_temp.state('SELECT ' || f), s, 'max_message_bytes, ' || f || ': ' || s) FROM (VALUES ($$mq.send('sch', body => decode(repeat('00', 100), 'hex'))$$, 'ok'), ($$mq.send('sch', body => decode(repeat('00', 101), 'hex'))$$, '22001'),
	($$mq.send_batch('sch', bodies => array['', decode(repeat('00', 101), 'hex')])$$, '22001'), ($$mq.send('sch', body => decode(repeat('00', 101), 'hex'), delay => '1 h')$$, '22001'), ($$mq.alter_queue('sch', '{"max_message_bytes": 0}')$$, '22023'), ($$mq.alter_queue('sch', '{"max_message_bytes": 2147483648}')$$, '22023'),
	($$mq.alter_queue('sch', '{"reset": ["max_message_bytes"]}')$$, 'ok'), ($$mq.send('sch', body => decode(repeat('00', 101), 'hex'))$$, 'ok')) v (f, s);
SELECT mq.drop_queue('sch', force => true) IS NULL;
SELECT * FROM finish();
