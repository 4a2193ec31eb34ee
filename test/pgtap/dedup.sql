-- contract: dedup_id, dedup_window, dedup_find, dedup_forget, dedup_ids and duplicates in mq.queues
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE FUNCTION pg_temp.state(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
CREATE FUNCTION pg_temp.duplicates() RETURNS bigint LANGUAGE sql AS $$SELECT duplicates FROM mq.queues WHERE queue = 'dd'$$;
SELECT * FROM no_plan();
SELECT mq.create_queue('dd') IS NULL, mq.create_queue('dd2') IS NULL;

-- one at a time
SELECT is(mq.send('dd', '1', dedup_id => 'a'), 1::bigint, 'the first');
SELECT is(mq.send('dd', '2', dedup_id => 'a'), 1::bigint, 'a repeat returns its id');
SELECT is(mq.send('dd2', '3', dedup_id => 'a'), 1::bigint, 'two queues do not share ids: sent');
SELECT results_eq($$SELECT payload::text, dedup_id FROM mq.pop('dd2')$$, $$VALUES ('3', 'a')$$, 'and there');
SELECT is(pg_temp.duplicates(), 1::bigint, 'a repeat is counted');
SELECT results_eq($$SELECT id, payload::text, dedup_id, key, routing_key, due_at, expires_at, death FROM mq.browse('dd')$$, $$VALUES (1::bigint, '1', 'a', null::text, null::text, null::timestamptz, null::timestamptz, null::jsonb)$$, 'browse shows it');
SELECT results_eq($$SELECT id, origin_id, payload::text, headers, body, dedup_id, sent_at = enqueued_at, due_at, death FROM mq.pop('dd', max_messages => 10)$$,
	$$VALUES (1::bigint, 1::bigint, '1', null::jsonb, null::bytea, 'a', true, null::timestamptz, null::jsonb)$$, 'one message');
SELECT is(mq.send('dd', '4', dedup_id => 'a'), 1::bigint, 'finished: the id is not free');
SELECT mq.purge('dd') IS NULL;
SELECT is(mq.send('dd', '4', dedup_id => 'a'), 1::bigint, 'purged: neither');
SELECT is(mq.send('dd', '5', dedup_id => 'A'), 2::bigint, 'another id');
SELECT is(mq.send('dd', '6', dedup_id => 'a '), 3::bigint, 'by every byte');
SELECT is(mq.send('dd', '7'), 4::bigint, 'without an id it is sent');
SELECT is(mq.send('dd', '7'), 5::bigint, 'always');
SELECT is(mq.dedup_find('dd', 'a'), 1::bigint, 'dedup_find');
SELECT is(mq.dedup_find('dd', 'none'), null, 'dedup_find: none');
SELECT is((SELECT count(*)::int FROM mq.pop('dd', max_messages => 10)), 4, 'what was sent');

-- lengths, nulls, errors
SELECT is(pg_temp.state('SELECT ' || f), s, left(f, 60) || ': ' || s) FROM (VALUES
	($$mq.send('dd', '1', dedup_id => '')$$, '22023'), ($$mq.send('dd', '1', dedup_id => repeat('x', 255))$$, 'ok'), ($$mq.send('dd', '1', dedup_id => repeat('x', 256))$$, '22001'),
	($$mq.send('dd', '1', dedup_id => repeat('ä', 128))$$, '22001'), ($$mq.send('dd', '1', dedup_id => repeat('x', 1000000))$$, '22001'),
	($$mq.send('dd', dedup_id => 'p')$$, '22004'), ($$mq.send_batch('dd', '{1,2}', dedup_ids => '{"",a}')$$, '22023'), ($$mq.send_batch('dd', '{1,2}', dedup_ids => '{a,b,c}')$$, '22023'),
	($$mq.send_list('dd', '[{"payload": 1, "dedup_id": 5}]')$$, '22023'), ($$mq.send_list('dd', '[{"payload": 1, "dedup_id": ""}]')$$, '22023'),
	($$mq.dedup_find('dd', null)$$, '22004'), ($$mq.dedup_find(null, 'a')$$, '22004'), ($$mq.dedup_find('no', 'a')$$, '42704'), ($$mq.dedup_forget('dd', null)$$, '22004'),
	($$mq.dedup_forget(null, 'a')$$, '22004'), ($$mq.dedup_forget('no', 'a')$$, '42704'),
	($$mq.alter_queue('dd', '{"dedup_window": "0"}')$$, '22023'), ($$mq.alter_queue('dd', '{"dedup_window": "-1 day"}')$$, '22023'), ($$mq.alter_queue('dd', '{"dedup_window": "99999999 years"}')$$, '22023'),
	($$mq.alter_queue('dd', '{"dedup_window": 5}')$$, '22023'), ($$mq.alter_queue('dd', '{"dedup_window": "soon"}')$$, '22023'), ($$mq.alter_queue('dd', '{"dedup_windows": "1 day"}')$$, '22023'),
	($$mq.create_queue('dd3', options => '{"dedup_window": "36500 days"}')$$, 'ok')) v (f, s);
SELECT results_eq($$SELECT queue COLLATE "default", dedup_window FROM mq.queues WHERE queue LIKE 'dd%' ORDER BY 1$$, $$VALUES ('dd', interval '1 day'), ('dd2', '1 day'), ('dd3', '36500 days')$$, 'dedup_window: shown, a day by default');
SELECT mq.alter_queue('dd3', '{"dedup_window": null}') IS NULL;
SELECT is((SELECT dedup_window FROM mq.queues WHERE queue = 'dd3'), null, 'null: for ever');
SELECT is(mq.send('dd3', '1', dedup_id => 'e'), mq.send('dd3', '1', dedup_id => 'e'), 'ids that are kept for ever');
SELECT mq.alter_queue('dd3', '{"reset": ["dedup_window"]}') IS NULL;
SELECT is((SELECT dedup_window FROM mq.queues WHERE queue = 'dd3'), '1 day'::interval, 'reset: a day');
SELECT mq.drop_queue('dd3', true) IS NULL;
SELECT mq.purge('dd') IS NULL;

-- batches: the first of each id is sent; ids in the order of the elements
SELECT results_eq($$SELECT unnest(mq.send_batch('dd', '{1,2,3,4,5,6}', dedup_ids => '{z,y,z,null,a,y}'))$$, $$VALUES (7::bigint), (8), (7), (9), (1), (8)$$, 'a batch with repeats');
SELECT results_eq($$SELECT payload::text, dedup_id FROM mq.pop('dd', max_messages => 10)$$, $$VALUES ('1', 'z'), ('2', 'y'), ('4', null)$$, 'each once, the first of each');
SELECT results_eq($$SELECT unnest(mq.send_batch('dd', '{1,2}', dedup_ids => '{y,z}'))$$, $$VALUES (8::bigint), (7)$$, 'all are repeats');
SELECT is((SELECT count(*)::int FROM mq.pop('dd', max_messages => 10)), 0, 'nothing is sent');
SELECT results_eq($$SELECT unnest(mq.send_batch('dd', '{1,2,3}', dedup_ids => '{one}'))$$, $$VALUES (10::bigint), (10), (10)$$, 'one id for all');
SELECT results_eq($$SELECT unnest(mq.send_list('dd', '[{"payload": 1, "dedup_id": "y"}, {"payload": 2, "dedup_id": null}, {"payload": 3, "dedup_id": "l"}, {"payload": 4, "dedup_id": "l"}]'))$$,
	$$VALUES (8::bigint), (11), (12), (12)$$, 'send_list');
SELECT is((SELECT array_agg(dedup_id ORDER BY id) FROM mq.pop('dd', max_messages => 10)), '{one,null,l}'::text[], 'as sent');
SELECT is((SELECT array_agg(DISTINCT c) FROM (SELECT count(*) c FROM unnest(mq.send_batch('dd', array_fill('1'::jsonb, array[20000]), dedup_ids => (SELECT array_agg('big' || i % 5000) FROM generate_series(1, 20000) i))) id GROUP BY id) x), '{4}'::bigint[], 'a large batch');
SELECT is((SELECT count(*)::int FROM mq.pop('dd', max_messages => 20000)), 5000, 'each once');

-- delays: a repeat does not move the due time; cancel frees the id
SELECT mq.send('dd', '1', dedup_id => 'later', delay => '1 hour') AS later \gset
SELECT is(mq.send('dd', '2', dedup_id => 'later'), :later::bigint, 'a repeat of what is scheduled');
SELECT is(mq.send('dd', '2', dedup_id => 'later', delay => '5 hours'), :later::bigint, 'with another delay');
SELECT results_eq($$SELECT id, dedup_id, due_at < clock_timestamp() + '2 hours' FROM mq.scheduled WHERE queue = 'dd'$$, format('VALUES (%s::bigint, %L, true)', :later, 'later'), 'its time is as it was');
SELECT is((SELECT dedup_id FROM mq.browse('dd', states => '{scheduled}')), 'later', 'browse shows it');
BEGIN;
SELECT is(mq.cancel('dd', :later), true, 'cancelled');
SELECT is(mq.dedup_find('dd', 'later'), null, 'the id is free in the same transaction');
SAVEPOINT s;
SELECT isnt(mq.send('dd', '3', dedup_id => 'later'), :later::bigint, 'and is used');
ROLLBACK TO s;
SELECT is(mq.dedup_find('dd', 'later'), null, 'and free again');
ROLLBACK;
SELECT is(mq.dedup_find('dd', 'later'), :later::bigint, 'the cancel was undone');
SELECT is(mq.cancel('dd', :later), true, 'cancelled');
SELECT mq.send('dd', '3', dedup_id => 'later', delay => '1 hour') AS again \gset
SELECT cmp_ok(:again::bigint, '>', :later::bigint, 'sent');
SELECT is(mq.cancel('dd', :later), false, 'cancelling the first does nothing to it');
SELECT is(mq.dedup_find('dd', 'later'), :again::bigint, 'it has the id');
SELECT is(mq.make_due('dd'), 1::bigint, 'due');
CALL mq.wait('dd', timeout => '30 s');
SELECT results_eq($$SELECT payload::text, dedup_id, origin_id FROM mq.pop('dd')$$, format('VALUES (%L, %L, %s::bigint)', '3', 'later', :again), 'it comes with its id');
SELECT is(mq.send('dd', '3', dedup_id => 'later'), :again::bigint, 'a repeat of what was scheduled returns the id that send returned');

-- the window: shorter at once, longer for what is kept
SELECT mq.send('dd', '1', dedup_id => 'w') AS w \gset
SELECT mq.alter_queue('dd', '{"dedup_window": "1 ms"}') IS NULL, pg_sleep(0.002) IS NULL;
SELECT is(mq.dedup_find('dd', 'w'), null, 'shorter: at once');
SELECT mq.alter_queue('dd', '{"dedup_window": "1 hour"}') IS NULL;
SELECT is(mq.dedup_find('dd', 'w'), :w::bigint, 'longer: what is kept is known again');
SELECT mq.alter_queue('dd', '{"dedup_window": "1 ms"}') IS NULL, pg_sleep(0.002) IS NULL;
SELECT cmp_ok(mq.send('dd', '1', dedup_id => 'w'), '>', :w::bigint, 'after the window it is sent');
SELECT mq.send('dd', '1', dedup_id => 'wd', delay => '1 hour') AS wd \gset
SELECT pg_sleep(0.002) IS NULL;
SELECT is(mq.send('dd', '1', dedup_id => 'wd'), :wd::bigint, 'the window counts from when it is due');
SELECT mq.alter_queue('dd', '{"dedup_window": null}') IS NULL;

-- rescheduled: from the new time, unless the id was freed
BEGIN;
SELECT is(mq.reschedule('dd', :wd, now() + '2 hours'), true, 'rescheduled');
SELECT is((SELECT max(counted_from) > clock_timestamp() + '90 min' FROM (SELECT * FROM mq_internal.dedup_hour_0 UNION ALL SELECT * FROM mq_internal.dedup_hour_1 UNION ALL SELECT * FROM mq_internal.dedup_hour_2
	UNION ALL SELECT * FROM mq_internal.dedup_day_0 UNION ALL SELECT * FROM mq_internal.dedup_day_1 UNION ALL SELECT * FROM mq_internal.dedup_day_2 UNION ALL SELECT * FROM mq_internal.dedup_later) d WHERE dedup_id = 'wd' AND id = :wd), true, 'the window counts from then');
SELECT is(mq.cancel('dd', :wd), true, 'and cancelled');
SELECT is(mq.dedup_find('dd', 'wd'), null, 'free');
ROLLBACK;
SELECT is(mq.dedup_forget('dd', 'wd'), true, 'freed');
SELECT is(mq.dedup_forget('dd', 'wd'), false, 'dedup_forget: it is free');
SELECT is(mq.reschedule('dd', :wd, now() + '40 days'), true, 'rescheduled');
SELECT is(mq.dedup_find('dd', 'wd'), null, 'it does not get the id back');
BEGIN;
SELECT is(mq.dedup_forget('dd', 'w'), true, 'dedup_forget');
SELECT is(mq.dedup_find('dd', 'w'), null, 'free');
SELECT isnt(mq.send('dd', '1', dedup_id => 'w'), null, 'used again');
SELECT is(mq.dedup_forget('dd', 'w'), true, 'and freed again');
ROLLBACK;
SELECT isnt(mq.dedup_find('dd', 'w'), null, 'undone by rollback');

-- savepoints and subtransactions
BEGIN;
SAVEPOINT a;
SELECT mq.send('dd', '"a"', dedup_id => 'sp') AS sp \gset
ROLLBACK TO a;
SELECT isnt(mq.send('dd', '"b"', dedup_id => 'sp'), :sp::bigint, 'the savepoint rolls back: the id is free again');
COMMIT;
SELECT is((SELECT array_agg(payload::text) FROM mq.pop('dd', max_messages => 100) WHERE dedup_id = 'sp'), '{"\"b\""}', 'the second was sent');

-- isolation levels
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT is(mq.send('dd', '1', dedup_id => 'z'), 7::bigint, 'serializable');
COMMIT;

-- rights
CREATE ROLE dd_sender; CREATE ROLE dd_nobody;
SELECT mq.grant('dd', 'send', 'dd_sender') IS NULL;
SET ROLE dd_sender;
SELECT is(pg_temp.state('SELECT ' || f), s, 'with the right to send: ' || f || ': ' || s) FROM (VALUES ($$mq.send('dd', '1', dedup_id => 'r')$$, 'ok'), ($$mq.dedup_find('dd', 'r')$$, 'ok'), ($$mq.dedup_forget('dd', 'r')$$, '42501')) v (f, s);
SELECT mq.send('dd', '1', dedup_id => 'rc', delay => '1 h') AS rc \gset
SELECT is(mq.cancel('dd', :rc), true, 'cancels its own');
SELECT is(mq.dedup_find('dd', 'rc'), null, 'the id is free');
SELECT is((SELECT dedup_id FROM mq.scheduled WHERE queue = 'dd' LIMIT 1), null, 'who may not browse does not see ids in mq.scheduled');
SET ROLE dd_nobody;
SELECT is(pg_temp.state('SELECT ' || f), s, 'without a right: ' || f || ': ' || s) FROM (VALUES ($$mq.send('dd', '1', dedup_id => 'r')$$, '42501'), ($$mq.dedup_find('dd', 'r')$$, '42501'), ($$mq.dedup_forget('dd', 'r')$$, '42501')) v (f, s);
RESET ROLE;
SELECT mq.alter_queue('dd', '{"closed": true}') IS NULL;
SELECT is(pg_temp.state($$SELECT mq.send('dd', '1', dedup_id => 'z')$$), '55000', 'closed: a repeat is refused too');
SELECT mq.alter_queue('dd', '{"closed": null}') IS NULL;

-- a queue of the same name is another one
SELECT mq.drop_queue('dd', true) IS NULL;
SELECT is((SELECT count(*)::int FROM mq_internal.dedup_later d WHERE NOT EXISTS (SELECT FROM mq_internal.queue q WHERE q.queue_no = d.queue_no)), 0, 'what would be kept for ever goes with the queue');
SELECT mq.create_queue('dd') IS NULL;
SELECT is(mq.dedup_find('dd', 'z'), null, 'it knows no ids');
SELECT is(mq.send('dd', '1', dedup_id => 'z'), 1::bigint, 'and sends');
SELECT mq.drop_queue('dd', true) IS NULL, mq.drop_queue('dd2', true) IS NULL;
REVOKE ALL ON SCHEMA public FROM dd_sender;
DROP ROLE dd_sender, dd_nobody;
SELECT * FROM finish();
