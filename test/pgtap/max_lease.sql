-- contract: the group option max_lease: from the hand-out on, with all extensions
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
SELECT * FROM no_plan();
CREATE FUNCTION pg_temp.state(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
SELECT mq.create_queue('ml', groups => '{g,h}') IS NULL;
SELECT is(pg_temp.state(format('SELECT mq.alter_group(%L, %L, %L)', 'ml', 'g', o)), s, o || ': ' || s) FROM (VALUES
	('{"max_lease": "0"}', '22023'), ('{"max_lease": "-1 s"}', '22023'), ('{"max_lease": "366 days"}', '22023'), ('{"max_lease": 5}', '22023'), ('{"max_lease": "long"}', '22023'),
	('{"visibility_timeout": "2 hours", "max_lease": "1 hour"}', '22023'), ('{"max_lease": "1 hour"}', 'ok'), ('{"visibility_timeout": "61 min"}', '22023'), ('{"visibility_timeout": "1 hour"}', 'ok'),
	('{"max_lease": "59 min"}', '22023'), ('{"reset": ["max_lease"]}', 'ok'), ('{"visibility_timeout": null, "max_lease": "1 hour"}', 'ok')) v (o, s);
SELECT is(pg_temp.state($$SELECT mq.create_group('ml', 'x', options => '{"visibility_timeout": "2 s", "max_lease": "1 s"}')$$), '22023', 'in create_group too');
SELECT is((SELECT max_lease FROM mq.groups WHERE queue = 'ml' AND consumer_group = 'g'), '1 hour', 'shown');
SELECT mq.send_batch('ml', '{1,2,3,4,5,6,7,8}') IS NULL;

-- receive
SELECT is(pg_temp.state($$SELECT mq.receive('ml', 'g', visibility_timeout => '1 hour 0.000001 s')$$), '22023', 'a longer lease is refused');
SELECT is((SELECT count(*)::int FROM mq.groups WHERE queue = 'ml' AND leased > 0), 0, 'before anything is handed out');
CREATE TEMP TABLE l AS SELECT id, receipt, lease_until FROM mq.receive('ml', 'g', max_messages => 3, visibility_timeout => '1 hour');
SELECT is((SELECT count(*)::int FROM l), 3, 'as long as that: handed out');
SET mq.visibility_timeout = '2 h';
CREATE TEMP TABLE d AS SELECT id, receipt, lease_until FROM mq.receive('ml', 'g');
SELECT ok(lease_until BETWEEN now() + '59 min' AND clock_timestamp() + '1 hour', 'the default is cut to it') FROM d;
CREATE TEMP TABLE o AS SELECT receipt, lease_until FROM mq.receive('ml', 'h', visibility_timeout => '3 hours');
SELECT ok(lease_until > now() + '2 hours', 'a group without it') FROM o;
RESET mq.visibility_timeout;
SELECT is((SELECT count(*)::int FROM mq.pop('ml', 'g')), 1, 'pop knows no lease');

-- extend: what was handed out a moment ago cannot be held for the whole time from now on
SELECT is(pg_temp.state(format('SELECT mq.extend(%L, %L)', (SELECT min(receipt::text) FROM l), i)), s, 'extend ' || i || ': ' || s) FROM (VALUES ('1 hour', '22023'), ('59 min', 'ok'), ('2 hours', '22023'), ('1 hour', '22023'), ('1 min', 'ok')) v (i, s);
SELECT is(pg_temp.state(format('SELECT mq.extend(%L, %L)', receipt, '364 days')), 'ok', 'a group without it') FROM o;
-- several: none is extended if one may not
CREATE TEMP TABLE was AS SELECT id, consumer_group, lease_until FROM mq.in_flight WHERE queue = 'ml';
SELECT is(pg_temp.state(format('SELECT mq.extend_batch(%L, %L, %s)', (SELECT array_agg(receipt) FROM (SELECT receipt FROM o UNION ALL SELECT receipt FROM l) x), '2 hours', strict)), '22023', 'of two groups, strict ' || strict) FROM (VALUES ('true'), ('false')) v (strict);
SELECT results_eq($$SELECT id, consumer_group, lease_until FROM mq.in_flight WHERE queue = 'ml' ORDER BY 1, 2$$, $$SELECT * FROM was ORDER BY 1, 2$$, 'none is extended');
-- what is lost is lost
SELECT mq.ack(receipt) IS NULL FROM d;
SELECT is(pg_temp.state(format('SELECT mq.extend(%L, %L)', receipt, '2 hours')), 'MQ001', 'a lost lease: MQ001') FROM d;
SELECT is((SELECT mq.extend_batch(array_agg(receipt), '2 hours', false)), (SELECT array_agg(receipt) FROM d), 'a lost lease, not strict: returned') FROM d;
SELECT is(pg_temp.state(format('SELECT mq.extend_batch(%L, %L)', (SELECT array_agg(receipt) FROM (SELECT receipt FROM d UNION ALL SELECT receipt FROM l) x), '30 min')), 'MQ001', 'one lost, the others could be extended: MQ001');
SELECT is((SELECT mq.extend_batch(array_agg(receipt), '30 min', false) FROM (SELECT receipt FROM d UNION ALL SELECT receipt FROM l) x), (SELECT array_agg(receipt) FROM d), 'not strict: the others are extended');
-- changed while leases are out: they keep their end; extensions are judged by what holds now
SELECT mq.alter_group('ml', 'g', '{"max_lease": "10 min"}') IS NULL;
SELECT is((SELECT count(*)::int FROM mq.in_flight WHERE consumer_group = 'g' AND lease_until > now() + '20 min'), 3, 'leases keep their end');
SELECT is(pg_temp.state(format('SELECT mq.extend(%L, %L)', (SELECT min(receipt::text) FROM l), '11 min')), '22023', 'extensions do not');
SELECT mq.alter_group('ml', 'g', '{"max_lease": null}') IS NULL;
SELECT is(pg_temp.state(format('SELECT mq.extend(%L, %L)', (SELECT min(receipt::text) FROM l), '10 days')), 'ok', 'turned off');
SELECT mq.drop_queue('ml', force => true) IS NULL;
SELECT * FROM finish();
