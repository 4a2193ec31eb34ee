-- contract: max_bytes, consumer, max_in_flight and visibility_timeout of the group, wait's bounds
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE FUNCTION pg_temp.state(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
SELECT * FROM no_plan();

SELECT is(pg_temp.state('SELECT ' || f), s, f || ': ' || s) FROM (SELECT mq.create_queue('opt', groups => '{default,b,lim}')) x, (VALUES
	($$mq.receive('opt', max_bytes => 0)$$, '22023'), ($$mq.receive('opt', max_bytes => -1)$$, '22023'), ($$mq.pop('opt', max_bytes => 0)$$, '22023'), ($$mq.receive('opt', max_bytes => 1)$$, 'ok'), ($$mq.receive('opt', max_bytes => null)$$, 'ok'), ($$mq.pop('opt', max_bytes => 2147483647)$$, 'ok'),
	($$mq.receive('opt', consumer => '')$$, '22023'), ($$mq.receive('opt', consumer => repeat('x', 49))$$, '22023'), ($$mq.pop('opt', consumer => repeat('é', 25))$$, '22023'), ($$mq.receive('opt', consumer => repeat('x', 48))$$, 'ok'), ($$mq.pop('opt', consumer => null)$$, 'ok'),
	($$mq.receive('opt', wait => '-1 us')$$, '22023'), ($$mq.receive('opt', wait => '60.001 s')$$, '22023'), ($$mq.pop('opt', wait => '61 s')$$, '22023'), ($$mq.pop('opt', wait => '1 month')$$, '22023'), ($$mq.receive('opt', wait => '0')$$, 'ok'), ($$mq.receive('opt', wait => null)$$, 'ok'), ($$mq.pop('opt', wait => '1 ms')$$, 'ok'),
	($$mq.receive('opt', 'b', 1, '1 ms', 'c', 1, '1 s')$$, 'ok'), ($$mq.pop('opt', 'b', 1, '1 ms', 'c', 1)$$, 'ok'), ($$mq.pop('opt', 'no', 1)$$, '42704'), ($$mq.receive('opt', consumer_group => null)$$, '22004')) v (f, s);

-- max_bytes: whichever limit comes first, at least one message
SELECT mq.send('opt', body => decode(repeat('00', 1000), 'hex')) IS NULL FROM generate_series(1, 12);
SELECT is((SELECT count(*)::int FROM mq.receive('opt', max_messages => 10, max_bytes => n)), want, format('bodies of 1000 bytes, max_bytes %s: %s', n, want)) FROM (VALUES (2999, 2), (3000, 3), (1, 1), (999, 1), (1001, 1)) v (n, want);
SELECT is((SELECT count(*)::int FROM mq.receive('opt', max_messages => 2, max_bytes => 1000000)), 2, 'max_messages comes first');
SELECT is((SELECT count(*)::int FROM mq.pop('opt', max_messages => 10, max_bytes => 1500)), 1, 'pop: the same');
SELECT is((SELECT count(*)::int FROM mq.pop('opt', max_messages => 10)), 1, 'and all the others were not touched');
SELECT is((SELECT array_agg(attempt) FROM mq.receive('opt', consumer_group => 'b', max_messages => 12)), array_fill(1, array[12]), 'each was handed out once');
-- compressible, toasted, payload and headers count as they are uncompressed
SELECT mq.send('opt', body => decode(repeat('00', 100000), 'hex')) IS NULL FROM generate_series(1, 3);
SELECT is((SELECT count(*)::int FROM mq.pop('opt', max_messages => 10, max_bytes => 199999)), 1, 'compressed bodies count in full: 199999 bytes are one of 100000');
SELECT is((SELECT count(*)::int FROM mq.pop('opt', max_messages => 10, max_bytes => 200000)), 2, '200000 are two');
SELECT mq.send('opt', jsonb_build_object('a', repeat('x', 10000)), headers => jsonb_build_object('b', repeat('y', 10000))) IS NULL FROM generate_series(1, 4);
SELECT is((SELECT count(*)::int FROM mq.pop('opt', max_messages => 10, max_bytes => 19999)), 1, 'payload and headers count together');
SELECT is((SELECT count(*)::int FROM mq.pop('opt', max_messages => 10, max_bytes => 41000)), 2, 'with little more than their text');
SELECT is((SELECT count(*)::int FROM mq.pop('opt', max_messages => 10)), 1, 'the last');
-- a first message that is larger than max_bytes is delivered alone
SELECT mq.send('opt', body => decode(repeat('00', n), 'hex')) IS NULL FROM (VALUES (5000), (10), (10), (5000), (10)) v (n);
SELECT is((SELECT array_agg(length(body)) FROM mq.pop('opt', max_messages => 10, max_bytes => 100)), '{5000}', 'the first is larger than max_bytes: it is delivered');
SELECT is((SELECT array_agg(length(body)) FROM mq.pop('opt', max_messages => 10, max_bytes => 100)), '{10,10}', 'then as many as fit, in order, up to the next that does not');
SELECT is((SELECT array_agg(length(body)) FROM mq.pop('opt', max_messages => 10, max_bytes => 5010)), '{5000,10}', 'to the byte');

-- consumer
SELECT mq.purge('opt');
SELECT mq.send('opt', '1') IS NULL FROM generate_series(1, 20);
SELECT is((SELECT count(*)::int FROM mq.receive('opt', max_messages => 2, consumer => 'worker 1', visibility_timeout => '1 h')), 2, 'worker 1 takes two');
SELECT is((SELECT count(*)::int FROM mq.receive('opt', max_messages => 3, consumer => 'worker 2', visibility_timeout => '1 h')), 3, 'worker 2 three');
SELECT is((SELECT count(*)::int FROM mq.receive('opt', max_messages => 1, visibility_timeout => '1 h')), 1, 'and one without a name');
SELECT results_eq($$SELECT consumer, count(*)::int FROM mq.in_flight WHERE queue = 'opt' AND consumer_group = 'default' GROUP BY 1 ORDER BY 1 NULLS LAST$$, $$VALUES ('worker 1', 2), ('worker 2', 3), (null, 1)$$, 'mq.in_flight shows who has what');
BEGIN;
SELECT is((SELECT count(*)::int FROM mq.pop('opt', max_messages => 2, consumer => 'popper')), 2, 'pop with a name');
SELECT is((SELECT array_agg(state || ' ' || consumer) FROM mq.in_flight WHERE queue = 'opt' AND consumer = 'popper'), '{settling popper,settling popper}', 'is shown while it settles');
COMMIT;
SELECT is((SELECT count(*)::int FROM mq.in_flight WHERE consumer = 'popper'), 0, 'and not afterwards');

-- limits of a group
SELECT mq.alter_group('opt', 'lim', '{"max_in_flight": 4, "max_in_flight_per_consumer": 3, "visibility_timeout": "3 h"}');
SELECT is((SELECT count(*)::int FROM mq.receive('opt', consumer_group => 'lim', max_messages => 10, consumer => 'a')), 3, 'both limits: three for one consumer');
SELECT is((SELECT count(*)::int FROM mq.receive('opt', consumer_group => 'lim', max_messages => 10, consumer => 'b')), 1, 'and four together');
SELECT is((SELECT count(*)::int FROM mq.receive('opt', consumer_group => 'lim', max_messages => 10)), 0, 'then none');
SELECT is((SELECT count(*)::int FROM mq.receive('opt', consumer_group => 'b', max_messages => 10, consumer => 'a')), 10, 'the other group has no limit');
SELECT ok(bool_and(lease_until BETWEEN now() + '179 min' AND now() + '181 min'), 'the visibility timeout is the group''s') FROM mq.in_flight WHERE queue = 'opt' AND consumer_group = 'lim';
SELECT mq.release(receipt) FROM (SELECT receipt FROM mq.receive('opt', consumer_group => 'lim', max_messages => 1, visibility_timeout => '1 h')) x;
SELECT is((SELECT array[max_in_flight, max_in_flight_per_consumer]::text || visibility_timeout FROM mq.groups WHERE queue = 'opt' AND consumer_group = 'lim'), '{4,3}03:00:00', 'mq.groups shows the limits');
SELECT mq.alter_group('opt', 'lim', '{"visibility_timeout": "1 min", "reset": ["max_in_flight_per_consumer"]}');
SELECT is((SELECT format('%s %s %s', max_in_flight, coalesce(max_in_flight_per_consumer::text, '-'), visibility_timeout) FROM mq.groups WHERE queue = 'opt' AND consumer_group = 'lim'), '4 - 00:01:00', 'reset takes one away and leaves the others');
SELECT mq.alter_group('opt', 'lim', '{"max_in_flight": 6}');
SELECT ok((SELECT count(*) = 2 AND bool_and(lease_until < clock_timestamp() + '62 s') FROM mq.receive('opt', consumer_group => 'lim', max_messages => 10)), 'more room, and the new timeout');
SELECT ok((SELECT bool_and(lease_until > clock_timestamp() + '9 min') FROM mq.receive('opt', consumer_group => 'default', max_messages => 1, visibility_timeout => '10 min')), 'a timeout of the call comes before the group''s');
-- limits count what a transaction itself holds, and give it back with a rollback
SELECT mq.seek('opt', 'lim', start => 'latest');
SELECT mq.send('opt', '2') IS NULL FROM generate_series(1, 20);
BEGIN;
SELECT is((SELECT count(*)::int FROM mq.pop('opt', consumer_group => 'lim', max_messages => 10)), 6, 'pop: six');
SELECT is((SELECT count(*)::int FROM mq.pop('opt', consumer_group => 'lim', max_messages => 10)), 0, 'no more in the same transaction: they are settling');
ROLLBACK;
SELECT is((SELECT count(*)::int FROM mq.pop('opt', consumer_group => 'lim', max_messages => 10)), 6, 'rolled back: six again');
SELECT is((SELECT count(*)::int FROM mq.pop('opt', consumer_group => 'lim', max_messages => 10)), 6, 'committed: the next six');
SELECT is((SELECT count(*)::int FROM mq.receive('opt', consumer_group => 'lim', max_messages => 10, max_bytes => 1)), 1, 'max_bytes and max_in_flight: the smaller counts');

SELECT mq.drop_queue('opt', force => true);
SELECT * FROM finish();
