-- contract: mq.count_from: rights and errors
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
SELECT * FROM no_plan();
CREATE FUNCTION pg_temp.state(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
CREATE ROLE cf_consumer; CREATE ROLE cf_manager; CREATE ROLE cf_browser;
SELECT mq.create_queue('cf', groups => '{a,b}');
SELECT mq.grant('cf', 'consume', 'cf_consumer', 'a'), mq.grant('cf', 'manage', 'cf_manager'), mq.grant('cf', 'browse', 'cf_browser'), mq.grant('cf', 'send', 'cf_browser');
SELECT is(pg_temp.state('SELECT mq.count_from(' || args || ')'), state, args || ': ' || state) FROM (VALUES
	($$null, 'a', 'earliest'$$, '22004'), ($$'cf', null, 'earliest'$$, '22004'), ($$'no', 'a', 'earliest'$$, '42704'), ($$'cf', 'no', 'earliest'$$, '42704'), ($$'cf', 'a'$$, '22023'),
	($$'cf', 'a', 'first'$$, '22023'), ($$'cf', 'a', 'latest', 1$$, '22023'), ($$'cf', 'a', null, 0$$, '22023'), ($$'cf', 'a', null, 2$$, '22023'), ($$'cf', 'a', null, 1$$, 'ok'),
	($$'cf', 'a', null, 9223372036854775807$$, '22023'), ($$'cf', 'a', null, null, 'infinity'$$, '22023'), ($$'cf', 'a', null, null, '-infinity'$$, '22023'), ($$'cf', 'a', null, null, '4000-01-01 BC'$$, 'ok')) v (args, state);
SELECT is((SELECT string_agg(pg_temp.state(format('SET LOCAL ROLE %I', r)) || pg_temp.state(format($q$SELECT mq.count_from('cf', %L, 'earliest')$q$, g)), ' ') FROM (VALUES
	('cf_consumer', 'a'), ('cf_consumer', 'b'), ('cf_manager', 'a'), ('cf_manager', 'b'), ('cf_browser', 'a'), ('cf_browser', 'b')) v (r, g)), 'okok ok42501 okok okok ok42501 ok42501', 'for who consumes in that group, or manages');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
