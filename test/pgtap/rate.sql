-- contract: the group option max_per_second: values, and where it is shown
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
SELECT * FROM no_plan();
CREATE FUNCTION pg_temp.state(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
SELECT mq.create_queue('mps');
SELECT is(pg_temp.state(format('SELECT mq.alter_group(%L, %L, %L)', 'mps', 'default', o)), s, o || ': ' || s) FROM (VALUES
	('{"max_per_second": 0}', '22023'), ('{"max_per_second": 0.0009}', '22023'), ('{"max_per_second": -1}', '22023'), ('{"max_per_second": 1000001}', '22023'), ('{"max_per_second": 1e999}', '22023'),
	('{"max_per_second": "5"}', '22023'), ('{"max_per_second": true}', '22023'), ('{"max_per_second": 0.001}', 'ok'), ('{"max_per_second": 1e6}', 'ok'), ('{"max_per_second": 0.33333333333333333333333333}', 'ok'),
	('{"max_per_second": null}', 'ok'), ('{"max_per_second": 12.5}', 'ok')) v (o, s);
SELECT is((SELECT max_per_second FROM mq.groups WHERE queue = 'mps'), 12.5::float8, 'shown');
SELECT is(pg_temp.state($$SELECT mq.alter_group('mps', 'default', '{"reset": ["max_per_second"]}')$$), 'ok', 'reset');
SELECT is((SELECT max_per_second FROM mq.groups WHERE queue = 'mps'), NULL, 'none by default');
SELECT * FROM finish();
ROLLBACK;
