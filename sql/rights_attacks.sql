--
-- rights_attacks: what each right is not for.  Everything here is tried by somebody who should not succeed.
-- Each part ends with a list of what went wrong; the lists are empty.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate

CREATE ROLE regress_mqa_owner;
CREATE ROLE regress_mqa_send;
CREATE ROLE regress_mqa_browse;
CREATE ROLE regress_mqa_consume;        -- of group a only
CREATE ROLE regress_mqa_manage;
CREATE ROLE regress_mqa_none;
DO $$
DECLARE f regprocedure;
BEGIN
	FOR f IN SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND proname = 'create_queue' LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO regress_mqa_owner', f);
	END LOOP;
END $$;
SET ROLE regress_mqa_owner;
SELECT mq.create_queue('victim', groups => '{a,b}');
SELECT mq.grant('victim', 'send', 'regress_mqa_send');
SELECT mq.grant('victim', 'browse', 'regress_mqa_browse');
SELECT mq.grant('victim', 'consume', 'regress_mqa_consume', consumer_group => 'a');
SELECT mq.grant('victim', 'manage', 'regress_mqa_manage');
RESET ROLE;
SELECT cardinality(mq.send_batch('victim', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 1000) i)));
-- somebody else's queue, and one whose name is a secret
SELECT mq.create_queue('other', groups => '{secret_group}');
SELECT mq.send('other', '"secret"') > 0 AS sent;

-- what a role gets for a statement: 'ok' or the SQLSTATE; all of it is undone.  %a and %b are fresh receipts of the groups.
CREATE FUNCTION pg_temp.attempt(who name, what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE a uuid; b uuid; said text;
BEGIN
	IF what LIKE '%\%a%' THEN SELECT receipt INTO STRICT a FROM mq.receive('victim', consumer_group => 'a', visibility_timeout => '1 h'); END IF;
	IF what LIKE '%\%b%' THEN SELECT receipt INTO STRICT b FROM mq.receive('victim', consumer_group => 'b', visibility_timeout => '1 h'); END IF;
	what := replace(replace(what, '%a', coalesce(a::text, '')), '%b', coalesce(b::text, ''));
	BEGIN
		EXECUTE format('SET LOCAL ROLE %I', who);
		EXECUTE what;
		RAISE EXCEPTION SQLSTATE 'ZZ000';
	EXCEPTION WHEN OTHERS THEN said := CASE SQLSTATE WHEN 'ZZ000' THEN 'ok' ELSE SQLSTATE END;
	END;
	RETURN said;
END $$;

-- ---------------------------------------------------------------------------------------------------------------------
-- Every call by every role: allowed where it says so, else 42501.  (CALL mq.wait warns in here; so does GRANT.)
SET client_min_messages = error;
CREATE TEMP TABLE call (what text, allowed text);       -- s send, b browse, c consume of a, m manage; the owner: always
INSERT INTO call VALUES
	($$SELECT mq.send('victim', '1')$$, 's'),
	($$SELECT mq.send('victim', '1'::jsonb)$$, 's'),
	($$SELECT mq.send_batch('victim', array['1']::jsonb[])$$, 's'),
	($$SELECT mq.send_batch('victim', array[]::jsonb[])$$, 's'),
	($$SELECT * FROM mq.receive('victim', consumer_group => 'a')$$, 'c'),
	($$SELECT * FROM mq.receive('victim', consumer_group => 'b')$$, ''),
	($$SELECT * FROM mq.receive('victim', consumer_group => 'b', wait => '1 s')$$, ''),
	($$SELECT * FROM mq.pop('victim', consumer_group => 'a')$$, 'c'),
	($$SELECT * FROM mq.pop('victim', consumer_group => 'b')$$, ''),
	($$CALL mq.wait('victim', 'a', '1 ms')$$, 'c'),
	($$CALL mq.wait('victim', 'b', '1 ms')$$, ''),
	($$SELECT mq.ack('%a'::uuid)$$, 'c'),
	($$SELECT mq.ack('%a')$$, 'c'),
	($$SELECT mq.ack_batch(array['%a']::uuid[])$$, 'c'),
	($$SELECT mq.ack_batch(array['%a']::uuid[], strict => false)$$, 'c'),
	($$SELECT mq.ack('%b'::uuid)$$, ''),
	($$SELECT mq.ack_batch(array['%a', '%b']::uuid[])$$, ''),
	($$SELECT mq.ack_batch(array['%a', '%b']::uuid[], strict => false)$$, ''),
	($$SELECT mq.nack('%a'::uuid)$$, 'c'),
	($$SELECT mq.nack('%b'::uuid)$$, ''),
	($$SELECT mq.nack_batch(array['%b']::uuid[], strict => false)$$, ''),
	($$SELECT mq.release('%a'::uuid)$$, 'c'),
	($$SELECT mq.release('%b'::uuid)$$, ''),
	($$SELECT mq.release_batch(array['%b']::uuid[], strict => false)$$, ''),
	($$SELECT mq.extend('%a'::uuid, '1 h')$$, 'c'),
	($$SELECT mq.extend('%b'::uuid, '1 h')$$, ''),
	($$SELECT mq.extend_batch(array['%b']::uuid[], '1 h', strict => false)$$, ''),
	($$SELECT mq.seek('victim', 'a', start => 'latest')$$, 'cm'),
	($$SELECT mq.seek('victim', 'a', start_id => 1)$$, 'cm'),
	($$SELECT mq.seek('victim', 'b', start => 'earliest')$$, 'm'),
	($$SELECT mq.discard('victim', 'a', array[1])$$, 'm'),
	($$SELECT mq.purge('victim')$$, 'm'),
	($$SELECT mq.pause('victim')$$, 'm'),
	($$SELECT mq.pause('victim', 'a')$$, 'm'),
	($$SELECT mq.resume('victim')$$, 'm'),
	($$SELECT mq.resume('victim', 'a')$$, 'm'),
	($$SELECT mq.create_group('victim', 'mine')$$, 'm'),
	($$SELECT mq.create_group('victim', 'a', if_not_exists => true)$$, 'm'),
	($$SELECT mq.alter_group('victim', 'a', '{"max_in_flight": 1}')$$, 'm'),
	($$SELECT mq.drop_group('victim', 'a', force => true)$$, 'm'),
	($$SELECT mq.alter_queue('victim', '{"retention": "1 h"}')$$, 'm'),
	($$SELECT * FROM mq.browse('victim', 'a', states => '{ready}')$$, 'b'),
	($$SELECT * FROM mq.browse('victim', 'b', states => '{finished}')$$, 'b'),
	($$SELECT * FROM mq.q_victim$$, 'b'),
	($$TABLE mq.q_victim$$, 'b'),
	($$SELECT mq.drop_queue('victim')$$, ''),
	($$SELECT mq.drop_queue('victim', force => true)$$, ''),
	($$SELECT mq.create_queue('victim', if_not_exists => true)$$, ''),
	($$SELECT mq.create_queue('mine')$$, ''),
	($$ALTER TABLE mq.q_victim OWNER TO regress_mqa_none$$, ''),
	($$DROP TABLE mq.q_victim$$, ''),
	($$CREATE INDEX ON mq.q_victim (id)$$, ''),
	($$ALTER TABLE mq.q_victim DISABLE TRIGGER ALL$$, ''),
	($$LOCK TABLE mq.q_victim IN EXCLUSIVE MODE$$, 'm');            -- (PostgreSQL gives that to TRUNCATE)
-- what a call says without the right: about a receipt, what it says about one that is not there
CREATE FUNCTION pg_temp.denied(what text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN what LIKE '%strict => false%' THEN 'ok' WHEN what ~ 'mq\.(ack|nack|release|extend)(_batch)?\(' THEN 'MQ001' ELSE '42501' END $$;
SELECT who, what, said, CASE WHEN ok THEN 'ok' ELSE pg_temp.denied(what) END AS expected
FROM (SELECT 'regress_mqa_' || r AS who, what, allowed LIKE '%' || short || '%' AND short <> '-' AS ok,
			 pg_temp.attempt('regress_mqa_' || r, what) AS said
	  FROM call, (VALUES ('send', 's'), ('browse', 'b'), ('consume', 'c'), ('manage', 'm'), ('none', '-')) r (r, short)) x
WHERE said <> CASE WHEN ok THEN 'ok' ELSE pg_temp.denied(what) END
ORDER BY 1, 2;
-- the owner may do all that is his (drop_queue without force: 55000), and no DDL on the table: that is not his
SELECT what, said
FROM (SELECT what, pg_temp.attempt('regress_mqa_owner', what) AS said FROM call) x
WHERE said <> 'ok' AND what NOT LIKE '%drop_queue(''victim'')' AND what !~ '^(ALTER|CREATE|DROP) |create_queue' ORDER BY 1;
SELECT what, said FROM (SELECT what, pg_temp.attempt('regress_mqa_owner', what) AS said FROM call WHERE what ~ '^(ALTER|CREATE|DROP) ') x WHERE said <> '42501';

-- all rights that can be given do not make an owner
SET ROLE regress_mqa_owner;
SELECT mq.grant('victim', p, 'regress_mqa_none') FROM unnest(array['send', 'browse', 'consume', 'manage']) p;
RESET ROLE;
SELECT what, said FROM (SELECT what, allowed, pg_temp.attempt('regress_mqa_none', what) AS said FROM call) x
WHERE said <> CASE WHEN allowed <> '' OR what ~ '(receive|pop|wait|ack|nack|release|extend|seek)(_batch)?\(' THEN 'ok' ELSE '42501' END ORDER BY 1;
-- nobody gives what is not his to give, whether that raises 42501 or warns as GRANT does
CREATE FUNCTION pg_temp.has(who name) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', (SELECT string_agg(p, ' ') FROM unnest(array['INSERT', 'SELECT', 'UPDATE', 'TRUNCATE']) p WHERE has_table_privilege(who, 'mq.q_victim', p)),
		(SELECT count(*) FROM mq_internal.consumer_group g JOIN mq_internal.queue q USING (queue_no) WHERE q.name = 'victim' AND has_sequence_privilege(who, format('mq_internal.g_%s', group_no), 'USAGE'))) $$;
CREATE ROLE regress_mqa_friend;
CREATE FUNCTION pg_temp.give(who name) RETURNS text LANGUAGE plpgsql AS $$
DECLARE p text; g text; said text;
BEGIN
	FOR p, g IN VALUES ('send', NULL), ('browse', NULL), ('manage', NULL), ('consume', NULL), ('consume', 'a'), ('consume', 'b') LOOP
		BEGIN
			EXECUTE format('SET LOCAL ROLE %I', who);
			PERFORM mq.grant('victim', p, 'regress_mqa_friend', g);
			RESET ROLE;
		EXCEPTION WHEN insufficient_privilege THEN END;
		RESET ROLE;
	END LOOP;
	said := pg_temp.has('regress_mqa_friend');
	RETURN said;
END $$;
SELECT r AS role, pg_temp.give('regress_mqa_' || r) AS friend_has FROM unnest(array['send', 'browse', 'consume', 'manage', 'none', 'owner']) r;
DROP OWNED BY regress_mqa_friend;
DROP ROLE regress_mqa_friend;
SET ROLE regress_mqa_owner;
SELECT mq.revoke('victim', p, 'regress_mqa_none') FROM unnest(array['send', 'browse', 'consume', 'manage']) p;
RESET ROLE;
SELECT what, said FROM (SELECT what, pg_temp.attempt('regress_mqa_none', what) AS said FROM call) x WHERE said <> pg_temp.denied(what) ORDER BY 1;

-- UPDATE, DELETE, REFERENCES, TRIGGER on the table mean nothing for mq
GRANT UPDATE, DELETE, REFERENCES, TRIGGER ON mq.q_victim TO regress_mqa_none;
SELECT what, said FROM (SELECT what, pg_temp.attempt('regress_mqa_none', what) AS said FROM call) x WHERE said <> pg_temp.denied(what) AND what NOT LIKE 'LOCK%' ORDER BY 1;
SELECT pg_temp.attempt('regress_mqa_none', 'DELETE FROM mq.q_victim') AS delete, pg_temp.attempt('regress_mqa_none', 'UPDATE mq.q_victim SET payload = null') AS update;
-- nor do rights of another kind on the group's sequence
DO $$ BEGIN EXECUTE (SELECT format('GRANT SELECT, UPDATE ON SEQUENCE mq_internal.g_%s TO regress_mqa_none', group_no) FROM mq_internal.consumer_group JOIN mq_internal.queue q USING (queue_no) WHERE q.name = 'victim' AND consumer_group.name = 'a'); END $$;
SELECT what, said FROM (SELECT what, pg_temp.attempt('regress_mqa_none', what) AS said FROM call) x WHERE said <> pg_temp.denied(what) AND what NOT LIKE 'LOCK%' ORDER BY 1;
DROP OWNED BY regress_mqa_none;
SET client_min_messages = warning;

-- ---------------------------------------------------------------------------------------------------------------------
-- What there is to learn: names of queues and groups, ids, keys, consumers, depths.
SELECT r AS role, pg_temp.attempt('regress_mqa_' || r, 'SELECT 1/(NOT EXISTS (SELECT FROM mq.queues WHERE queue <> ''victim''))::int') AS queues,
	pg_temp.attempt('regress_mqa_' || r, 'SELECT 1/(NOT EXISTS (SELECT FROM mq.groups WHERE queue <> ''victim''))::int') AS groups,
	pg_temp.attempt('regress_mqa_' || r, 'SELECT 1/(NOT EXISTS (SELECT FROM mq.segments WHERE queue <> ''victim''))::int') AS segments,
	pg_temp.attempt('regress_mqa_' || r, 'SELECT 1/(NOT EXISTS (SELECT FROM mq.in_flight WHERE queue <> ''victim''))::int') AS in_flight,
	pg_temp.attempt('regress_mqa_' || r, 'SELECT 1/(NOT EXISTS (SELECT FROM mq.consumers WHERE queue <> ''victim''))::int') AS consumers
FROM unnest(array['owner', 'send', 'browse', 'consume', 'manage', 'none']) r;
SELECT mq.seek('victim', g, start => 'earliest') FROM unnest(array['a', 'b']) g;
SELECT count(*) AS leased FROM mq.receive('victim', consumer_group => 'a', max_messages => 2, consumer => 'a secret', visibility_timeout => '1 h');
SELECT count(*) AS leased FROM mq.receive('victim', consumer_group => 'b', max_messages => 3, consumer => 'b secret', visibility_timeout => '1 h');
SELECT count(*) AS leased FROM mq.receive('other', consumer_group => 'secret_group', max_messages => 1, consumer => 'other secret', visibility_timeout => '1 h');
CREATE FUNCTION pg_temp.sees(who name) RETURNS text LANGUAGE plpgsql AS $$
DECLARE said text;
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', who);
	SELECT format('queues [%s] groups [%s] segments [%s] in flight [%s]', (SELECT string_agg(queue, ' ' ORDER BY 1) FROM mq.queues),
		(SELECT string_agg(consumer_group, ' ' ORDER BY 1) FROM mq.groups), (SELECT string_agg(DISTINCT queue, ' ') FROM mq.segments),
		(SELECT string_agg(format('%s %s %s', consumer_group, consumer, n), ', ' ORDER BY 1) FROM (SELECT consumer_group, consumer, count(*) AS n FROM mq.in_flight GROUP BY 1, 2) x)) INTO said;
	EXECUTE 'RESET ROLE';
	RETURN said;
END $$;
SELECT r AS role, pg_temp.sees('regress_mqa_' || r) FROM unnest(array['owner', 'send', 'browse', 'consume', 'manage', 'none']) r;
-- a function that is cheap and talks, in front of the views' own filter
CREATE TABLE public.heard (what text, who name);
GRANT INSERT, SELECT ON public.heard TO PUBLIC;
CREATE FUNCTION public.tell(t text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN INSERT INTO public.heard VALUES (t, current_user); RETURN true; END $$;
SET ROLE regress_mqa_none;
SELECT count(*) FROM mq.queues WHERE public.tell(queue);
SELECT count(*) FROM mq.groups WHERE public.tell(consumer_group) AND public.tell(queue) AND public.tell(ready::text);
SELECT count(*) FROM mq.segments WHERE public.tell(queue);
SELECT count(*) FROM mq.in_flight WHERE public.tell(consumer) AND public.tell(id::text);
SET ROLE regress_mqa_send;
SELECT count(*) > 0 AS sees_queue FROM mq.queues WHERE public.tell(queue);
SELECT count(*) FROM mq.in_flight WHERE public.tell(consumer) AND public.tell(id::text);
SET ROLE regress_mqa_consume;
SELECT count(*) FROM mq.groups WHERE public.tell(consumer_group);
SELECT count(*) FROM mq.in_flight WHERE public.tell(consumer);
RESET ROLE;
SELECT DISTINCT what, who FROM public.heard WHERE NOT (who = 'regress_mqa_send' AND what = 'victim' OR who = 'regress_mqa_consume' AND what IN ('a', 'a secret')) ORDER BY 1, 2;
-- the functions below the views, and the tables below them
SELECT who, what, said FROM (SELECT 'regress_mqa_' || r AS who, what, pg_temp.attempt('regress_mqa_' || r, what) AS said
	FROM unnest(array['send', 'browse', 'consume', 'manage', 'none']) r, unnest(array[
		'SELECT * FROM mq_internal.queue', 'SELECT * FROM mq_internal.consumer_group', 'SELECT * FROM mq_internal.segment', 'SELECT * FROM mq_internal.consumer_offset_0', 'SELECT * FROM mq_internal.consumer_offset_3',
		'INSERT INTO mq_internal.queue DEFAULT VALUES', 'UPDATE mq_internal.queue SET name = name', 'DELETE FROM mq_internal.queue', 'TRUNCATE mq_internal.queue',
		'INSERT INTO mq_internal.consumer_group DEFAULT VALUES', 'UPDATE mq_internal.consumer_group SET epoch = 9', 'DELETE FROM mq_internal.consumer_group', 'UPDATE mq_internal.segment SET sealed = true', 'DELETE FROM mq_internal.segment',
		'INSERT INTO mq_internal.consumer_offset_0 DEFAULT VALUES', 'DELETE FROM mq_internal.consumer_offset_0', 'TRUNCATE mq_internal.consumer_offset_1', 'COPY mq_internal.consumer_offset_2 FROM PROGRAM ''true''',
		'SELECT nextval(''mq_internal.queue_no'')', 'SELECT nextval(''mq_internal.group_no'')', 'SELECT setval(''mq_internal.group_no'', 1)', 'SELECT last_value FROM mq_internal.queue_no']) what) x
WHERE said <> '42501' ORDER BY 1, 2;
-- sequences of queues and groups: moved by nobody but their owner; USAGE, which consumers have, cannot harm
SELECT who, seq, said FROM (SELECT 'regress_mqa_' || r AS who, c.relname AS seq, pg_temp.attempt('regress_mqa_' || r, format('SELECT setval(%L, 1)', c.oid::regclass)) AS said
	FROM pg_class c, unnest(array['send', 'browse', 'consume', 'manage', 'none']) r WHERE c.relnamespace = 'mq_internal'::regnamespace AND c.relkind = 'S') x WHERE said <> '42501' ORDER BY 1, 2;
SELECT who, seq, said FROM (SELECT 'regress_mqa_' || r AS who, c.relname AS seq, pg_temp.attempt('regress_mqa_' || r, format('SELECT nextval(%L)', c.oid::regclass)) AS said
	FROM pg_class c, unnest(array['send', 'browse', 'manage', 'none']) r WHERE c.relnamespace = 'mq_internal'::regnamespace AND c.relkind = 'S') x WHERE said <> '42501' ORDER BY 1, 2;
-- what is not there and what is not granted are told apart for queues (their tables are in pg_class anyway), not for groups
SELECT pg_temp.attempt('regress_mqa_none', $$SELECT * FROM mq.receive('victim', consumer_group => 'a')$$) AS there, pg_temp.attempt('regress_mqa_none', $$SELECT * FROM mq.receive('victim', consumer_group => 'no such')$$) AS not_there;
SELECT pg_temp.attempt('regress_mqa_send', $$SELECT mq.seek('victim', 'a', start => 'latest')$$) AS there, pg_temp.attempt('regress_mqa_send', $$SELECT mq.seek('victim', 'no such', start => 'latest')$$) AS not_there;
SELECT pg_temp.attempt('regress_mqa_none', $$SELECT mq.browse('victim', 'a', states => '{ready}')$$) AS there, pg_temp.attempt('regress_mqa_none', $$SELECT mq.browse('victim', 'no such', states => '{ready}')$$) AS not_there;
SELECT pg_temp.attempt('regress_mqa_none', $$SELECT mq.pause('victim', 'a')$$) AS there, pg_temp.attempt('regress_mqa_none', $$SELECT mq.pause('victim', 'no such')$$) AS not_there;
SELECT pg_temp.attempt('regress_mqa_none', $$SELECT mq.create_group('victim', 'a')$$) AS there, pg_temp.attempt('regress_mqa_none', $$SELECT mq.create_group('victim', 'no such')$$) AS not_there;

-- ---------------------------------------------------------------------------------------------------------------------
-- Receipts: forged, replayed, of others.
SELECT mq.seek(q, g, start => 'earliest') FROM (VALUES ('victim', 'a'), ('victim', 'b'), ('other', 'secret_group')) v (q, g);
SELECT receipt AS ra FROM mq.receive('victim', consumer_group => 'a', max_messages => 1, visibility_timeout => '1 h') \gset
SELECT receipt AS rb FROM mq.receive('victim', consumer_group => 'b', max_messages => 1, visibility_timeout => '1 h') \gset
SELECT receipt AS ro FROM mq.receive('other', consumer_group => 'secret_group', max_messages => 1, visibility_timeout => '1 h') \gset
CREATE TEMP TABLE forged AS         -- each hex digit changed in each way
	SELECT overlay(replace(:'ra', '-', '') placing to_hex(d) from p)::uuid AS r FROM generate_series(1, 32) p, generate_series(0, 15) d
	WHERE substr(replace(:'ra', '-', ''), p, 1) <> to_hex(d)
	UNION SELECT gen_random_uuid() FROM generate_series(1, 20)
	UNION SELECT unnest(array['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff']::uuid[]);
SELECT said, count(*) > 0 AS some FROM (SELECT pg_temp.attempt('regress_mqa_consume', format('SELECT mq.%s(%L::uuid%s)', f, r, CASE f WHEN 'extend' THEN ', ''1 h''' END)) AS said
	FROM forged, unnest(array['ack', 'nack', 'release', 'extend']) f) x WHERE said <> 'MQ001' GROUP BY 1;
SELECT f, said FROM (SELECT f, pg_temp.attempt('regress_mqa_owner', format('SELECT mq.%s(%L::uuid%s)', f, r, CASE f WHEN 'extend' THEN ', ''1 h''' END)) AS said
	FROM forged, unnest(array['ack', 'nack', 'release', 'extend']) f) x WHERE said <> 'MQ001' GROUP BY 1, 2;
SELECT cardinality(mq.ack_batch((SELECT array_agg(r) FROM forged), strict => false)) = count(*) AS all_refused FROM forged;
SELECT count(*) AS leased_still FROM mq.in_flight WHERE queue IN ('victim', 'other') AND state = 'leased';
SELECT pg_temp.attempt('regress_mqa_consume', format('SELECT mq.ack(%L::uuid)', :'ro')) AS of_another_queue, pg_temp.attempt('regress_mqa_consume', format('SELECT mq.ack(%L::uuid)', :'rb')) AS of_another_group,
	pg_temp.attempt('regress_mqa_owner', format('SELECT mq.ack(%L::uuid)', :'ro')) AS owner_of_another_queue;
SET ROLE regress_mqa_consume;
SELECT mq.ack(:'ra'::uuid);
SELECT mq.ack(:'ra'::uuid);                                     -- MQ001: replayed
SELECT mq.nack(:'ra'::uuid);                                    -- MQ001
SELECT mq.extend(:'ra'::uuid, '1 h');                           -- MQ001
SELECT receipt AS r1 FROM mq.receive('victim', consumer_group => 'a', max_messages => 1, visibility_timeout => '1 h') \gset
SELECT mq.release(:'r1'::uuid);
SELECT mq.ack(:'r1'::uuid);                                     -- MQ001: the message is out under another receipt
SELECT receipt AS r2 FROM mq.receive('victim', consumer_group => 'a', max_messages => 1, visibility_timeout => '1 h') \gset
SELECT mq.ack(:'r1'::uuid);                                     -- MQ001
SELECT mq.ack(:'r2'::uuid);
RESET ROLE;
-- a right that was taken away, receipt in hand
SET ROLE regress_mqa_consume;
SELECT receipt AS r3 FROM mq.receive('victim', consumer_group => 'a', max_messages => 1, visibility_timeout => '1 h') \gset
RESET ROLE;
SELECT mq.revoke('victim', 'consume', 'regress_mqa_consume', 'a');
SET ROLE regress_mqa_consume;
SELECT mq.ack(:'r3'::uuid);                                     -- MQ001
SELECT * FROM mq.receive('victim', consumer_group => 'a');      -- 42501
RESET ROLE;
SELECT mq.grant('victim', 'consume', 'regress_mqa_consume', 'a');
SELECT pg_temp.attempt('regress_mqa_consume', format('SELECT mq.ack(%L::uuid)', :'r3')) AS given_back;
-- a group made again under the same name is another group: rights do not come along
SELECT mq.drop_group('victim', 'a', force => true);
SELECT mq.create_group('victim', 'a', start => 'earliest');
SELECT pg_temp.attempt('regress_mqa_consume', $$SELECT * FROM mq.receive('victim', consumer_group => 'a')$$) AS another_group;
SELECT mq.grant('victim', 'consume', 'regress_mqa_consume', 'a');

-- ---------------------------------------------------------------------------------------------------------------------
-- Direct DML, also by the owner; objects in schema mq.
SELECT relname AS leaf FROM pg_class JOIN pg_inherits ON inhrelid = oid WHERE inhparent = 'mq.q_victim'::regclass ORDER BY relname LIMIT 1 \gset
SELECT r AS role, what, said FROM (SELECT r, what, pg_temp.attempt('regress_mqa_' || r, replace(what, '%t', t)) AS said
	FROM unnest(array['owner', 'send', 'browse', 'consume', 'manage', 'none']) r, unnest(array['mq.q_victim', format('mq_internal.%I', :'leaf')]) t, unnest(array[
		'INSERT INTO %t (id, payload) VALUES (1, ''1'')', 'INSERT INTO %t SELECT * FROM %t LIMIT 1', 'UPDATE %t SET payload = ''0''', 'DELETE FROM %t', 'TRUNCATE %t', 'DELETE FROM %t WHERE false',
		'MERGE INTO %t x USING (SELECT 1 AS id) y ON x.id = y.id WHEN MATCHED THEN DELETE', 'WITH d AS (DELETE FROM %t RETURNING *) SELECT count(*) FROM d',
		'INSERT INTO %t (id, payload) VALUES (1, ''1'') ON CONFLICT DO NOTHING']) what) x
WHERE said NOT IN ('42501', CASE WHEN r IN ('owner', 'send', 'manage') THEN '55000' ELSE '42501' END) ORDER BY 1, 2;
SELECT count(*) AS rows FROM mq.q_victim;
SELECT r AS role, what, said FROM (SELECT r, what, pg_temp.attempt('regress_mqa_' || r, what) AS said
	FROM unnest(array['owner', 'send', 'browse', 'consume', 'manage', 'none']) r, unnest(array['CREATE TABLE mq.q_mine (i int)', 'CREATE FUNCTION mq.send(text, int) RETURNS int LANGUAGE sql AS ''SELECT 1''',
		'CREATE VIEW mq.v AS SELECT 1 AS i', 'CREATE SEQUENCE mq_internal.g_99999', 'CREATE TYPE mq.mine AS (i int)', 'CREATE DOMAIN mq.text AS int', 'CREATE OPERATOR mq.= (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int)',
		'CREATE AGGREGATE mq.count (int) (SFUNC = int4pl, STYPE = int)', 'CREATE TABLE mq.segment2 PARTITION OF mq.q_victim DEFAULT', 'ALTER SCHEMA mq RENAME TO mine', 'DROP SCHEMA mq CASCADE', 'DROP EXTENSION mq CASCADE',
		'ALTER TABLE mq.q_victim RENAME TO q_other2', 'ALTER EXTENSION mq DROP FUNCTION mq_internal.queue_state()', 'CREATE OR REPLACE FUNCTION mq.may_see(oid) RETURNS boolean LANGUAGE sql AS ''SELECT true''',
		'ALTER FUNCTION mq.create_queue OWNER TO regress_mqa_none', 'COMMENT ON EXTENSION mq IS ''mine''']) what) x
WHERE said <> '42501' ORDER BY 1, 2;

-- ---------------------------------------------------------------------------------------------------------------------
-- search_path: operators, functions, casts, tables and types in front of pg_catalog and mq.  None may ever be called.
CREATE SCHEMA evil;
GRANT USAGE, CREATE ON SCHEMA evil TO PUBLIC;
TRUNCATE public.heard;
SET ROLE regress_mqa_none;
DO $do$
DECLARE t text; o text;
BEGIN
	FOREACH t IN ARRAY array['text', 'name', 'int', 'bigint', 'oid', 'boolean', 'uuid', 'interval', 'timestamptz', 'jsonb', 'smallint', '"char"', 'regclass', 'text[]', 'bigint[]', 'bytea'] LOOP
		EXECUTE format('CREATE FUNCTION evil.cmp(a %1$s, b %1$s) RETURNS boolean LANGUAGE plpgsql AS $f$BEGIN INSERT INTO public.heard VALUES (''operator of %2$s'', current_user); RETURN true; END$f$', t, replace(t, '"', ''));
		FOREACH o IN ARRAY array['=', '<>', '<', '<=', '>', '>=', '~', '~~', '!~~', '@>', '&&'] LOOP
			EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.cmp, LEFTARG = %s, RIGHTARG = %2$s)', o, t);
		END LOOP;
		EXECUTE format('CREATE FUNCTION evil.cat(a %1$s, b %1$s) RETURNS %1$s LANGUAGE plpgsql AS $f$BEGIN INSERT INTO public.heard VALUES (''|| + - * of %2$s'', current_user); RETURN a; END$f$', t, replace(t, '"', ''));
		FOREACH o IN ARRAY array['||', '+', '-', '*', '/'] LOOP
			EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.cat, LEFTARG = %s, RIGHTARG = %2$s)', o, t);
		END LOOP;
	END LOOP;
	CREATE FUNCTION evil.gone(what text) RETURNS void LANGUAGE plpgsql AS $f$BEGIN INSERT INTO public.heard VALUES (what, current_user); END$f$;
	EXECUTE $f$CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $x$SELECT evil.gone('now'); SELECT pg_catalog.now()$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $x$SELECT evil.gone('clock'); SELECT pg_catalog.now()$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS $x$SELECT evil.gone('format'); SELECT $1$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.concat(text, name) RETURNS text LANGUAGE sql AS $x$SELECT evil.gone('concat'); SELECT $1$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.quote_ident(text) RETURNS text LANGUAGE sql AS $x$SELECT evil.gone('quote_ident'); SELECT $1$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.has_table_privilege(oid, text) RETURNS boolean LANGUAGE sql AS $x$SELECT evil.gone('has_table_privilege'); SELECT true$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.has_sequence_privilege(oid, text) RETURNS boolean LANGUAGE sql AS $x$SELECT evil.gone('has_sequence_privilege'); SELECT true$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.pg_has_role(oid, text) RETURNS boolean LANGUAGE sql AS $x$SELECT evil.gone('pg_has_role'); SELECT true$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.nextval(regclass) RETURNS bigint LANGUAGE sql AS $x$SELECT evil.gone('nextval'); SELECT 1::bigint$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE sql AS $x$SELECT evil.gone('pg_notify')$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.pg_total_relation_size(regclass) RETURNS bigint LANGUAGE sql AS $x$SELECT evil.gone('size'); SELECT 1::bigint$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.generate_series(bigint, bigint) RETURNS bigint LANGUAGE sql AS $x$SELECT evil.gone('generate_series'); SELECT 1::bigint$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.queue_table(name) RETURNS oid LANGUAGE sql AS $x$SELECT evil.gone('queue_table'); SELECT 1::oid$x$$f$;
	EXECUTE $f$CREATE FUNCTION evil.may_see(oid) RETURNS boolean LANGUAGE sql AS $x$SELECT evil.gone('may_see'); SELECT true$x$$f$;
	CREATE TABLE evil.queue (queue_no int, name name, segment_size bigint);
	CREATE TABLE evil.consumer_group (group_no int, queue_no int, name name);
	CREATE TABLE evil.segment (queue_no int, level int, segment bigint);
	CREATE TABLE evil.pg_class (oid oid, relname name, relnamespace oid, relowner oid);
	CREATE TABLE evil.q_victim (id bigint);
	CREATE TYPE evil.message AS (id text);
	CREATE DOMAIN evil.uuid AS text;
END $do$;
RESET ROLE;
CREATE TEMP TABLE queue (queue_no int, name name);
CREATE TEMP TABLE consumer_group (group_no int);
CREATE FUNCTION pg_temp.everything(q pg_catalog.text, g pg_catalog.text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE r pg_catalog.uuid; n pg_catalog.int8; a pg_catalog.bool;
BEGIN
	PERFORM mq.create_queue(q, groups => ARRAY[g], options => '{"segment_size": 1024, "retention": "1 h", "notify_interval": "1 s"}');
	PERFORM mq.create_group(q, 'second', start => 'earliest', options => '{"max_in_flight": 100}');
	PERFORM mq.create_group(q, 'third', start_time => pg_catalog.now());
	PERFORM mq.alter_queue(q, '{"retention_bytes": 100000000, "reset": ["retention"]}');
	PERFORM mq.alter_group(q, g, '{"visibility_timeout": "1 min", "reset": ["max_in_flight"]}');
	PERFORM mq.send(q, '{"a": 1}');
	PERFORM mq.send_batch(q, array['1', '2', '3', '4']::jsonb[]);
	SELECT m.receipt INTO r FROM mq.receive(q, consumer_group => g, max_messages => 1, consumer => g, visibility_timeout => '1 min') m;
	PERFORM mq.extend(r, '2 min');
	PERFORM mq.nack(r, '1 ms');
	SELECT m.receipt INTO r FROM mq.receive(q, consumer_group => g, max_messages => 1, max_bytes => 10) m;
	PERFORM mq.release(r);
	SELECT m.receipt INTO r FROM mq.receive(q, consumer_group => g, max_messages => 1, wait => '1 ms') m;
	PERFORM mq.ack(r);
	PERFORM mq.pop(q, consumer_group => g, max_messages => 1);
	PERFORM mq.discard(q, g, ARRAY[4]);
	PERFORM mq.browse(q, g, states => ARRAY[s]) FROM pg_catalog.unnest('{scheduled,ready,retrying,blocked,leased,settling,dead,expired,filtered,finished}'::pg_catalog.text[]) s;
	PERFORM mq.seek(q, g, start => 'earliest');
	PERFORM mq.seek(q, g, start_time => pg_catalog.now());
	PERFORM mq.pause(q); PERFORM mq.resume(q); PERFORM mq.pause(q, g); PERFORM mq.resume(q, g);
	PERFORM mq.grant(q, 'consume', 'regress_mqa_none', g);
	PERFORM mq.grant(q, 'send', 'public');
	PERFORM mq.revoke(q, 'consume', 'regress_mqa_none');
	PERFORM * FROM mq.queues; PERFORM * FROM mq.groups; PERFORM * FROM mq.segments; PERFORM * FROM mq.in_flight;
	PERFORM mq.purge(q);
	PERFORM mq.drop_group(q, 'second', force => true);
	PERFORM mq.drop_queue(q, force => true);
END $$;
SELECT pg_temp.everything('plain', 'plain');
SET search_path = evil, pg_temp, public, mq, pg_catalog;
SELECT pg_temp.everything('plain', 'plain');
SET ROLE regress_mqa_owner;
SELECT pg_temp.everything('plain', 'plain');
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS sees FROM mq.queues;
RESET ROLE;
RESET search_path;
SELECT DISTINCT what, who FROM public.heard ORDER BY 1, 2;
-- (the traps are armed)
SET search_path = evil, pg_catalog;
SELECT format('%s', 1::text) IS NOT NULL AND 'a'::text = 'b'::text AS armed;
RESET search_path;
SELECT DISTINCT what FROM public.heard ORDER BY 1;
TRUNCATE public.heard;

-- ---------------------------------------------------------------------------------------------------------------------
-- Names: each of these is a queue and a group like any other, and no SQL comes of it.
CREATE TEMP TABLE names (n text);
INSERT INTO names VALUES ('x"; DROP TABLE public.heard; --'), ('x''; DROP TABLE public.heard; --'), ('-- comment'), ('/* comment'), ('*/ SELECT 1'), ('$$ x $$'), ('a\b'), (E'new\nline'), (E'tab\tbell\a'),
	('%s%I%L%1$s'), ('dot.ted'), ('UPPER lower'), (' '), ('"'), (''''), ('""'), ('x", mq_internal.queue; --'), ('select'), ('public'), ('null'), ('{a,b}'), ('e'''), ('ünï☃'), (repeat('x', 48)), (repeat('"', 48)), (repeat('☃', 16)), ('mq_'), ('pg_temp'), ('0'), (')'), ('q_victim');
SELECT n, said FROM (SELECT n, pg_temp.attempt(current_user, format('SELECT pg_temp.everything(%L, %L)', n, n)) AS said FROM names) x WHERE said <> 'ok' ORDER BY n COLLATE "C";
SELECT n, said FROM (SELECT n, pg_temp.attempt('regress_mqa_owner', format('SELECT pg_temp.everything(%L, %L)', n, n)) AS said FROM names) x WHERE said <> 'ok' ORDER BY n COLLATE "C";
SELECT count(*) AS heard_is_there FROM public.heard;
SELECT mq.create_group('victim', n, start => 'earliest') FROM names ORDER BY n COLLATE "C";
SELECT count(*) FROM mq.groups WHERE queue = 'victim';
SELECT n FROM names WHERE NOT EXISTS (SELECT FROM mq.groups WHERE queue = 'victim' AND consumer_group = n);
SELECT n FROM names WHERE NOT EXISTS (SELECT FROM mq.pop('victim', consumer_group => n) m WHERE m.consumer_group = n AND m.queue = 'victim' AND m.payload = '1');
SELECT mq.drop_group('victim', n, force => true) FROM names ORDER BY n COLLATE "C";
SELECT mq.create_group('victim', '');                           -- 22023
SELECT mq.create_group('victim', repeat('x', 49));              -- 22023
SELECT mq.create_group('victim', repeat('☃', 17));              -- 22023
SELECT * FROM mq.receive('victim', consumer_group => 'a', consumer => '');                   -- 22023
SELECT * FROM mq.receive('victim', consumer_group => 'a', consumer => repeat('x', 49));      -- 22023
SELECT count(*) FROM mq.receive('victim', consumer_group => 'a', consumer => 'x''"; --');
SELECT consumer FROM mq.in_flight WHERE queue = 'victim' AND consumer_group = 'a' AND consumer IS NOT NULL ORDER BY 1;
-- arguments that end up in statements
SELECT mq.grant('victim', 'send; DROP TABLE public.heard', 'public');                        -- 22023
SELECT mq.grant('victim', 'SEND', 'public');                                                 -- 22023
SELECT mq.grant('victim', 'insert', 'public');                                               -- 22023
SELECT mq.grant('victim', 'send', 'public; DROP TABLE public.heard');                        -- 42704
SELECT mq.grant('victim', 'send', 'regress_mqa_none WITH GRANT OPTION');                     -- 42704
SELECT mq.grant('victim', 'send', 'regress_mqa_none, regress_mqa_browse');                   -- 42704
SELECT mq.grant('victim', 'send', 'regress_mqa_none', 'a');                                  -- 22023
SELECT mq.grant('victim', 'consume', 'regress_mqa_none', 'no such');                         -- 42704
SELECT mq.grant('no such', 'send', 'regress_mqa_none');                                      -- 42704
SELECT mq.grant('victim', null, 'regress_mqa_none');                                         -- 22004
SELECT mq.alter_queue('victim', '{"reset": ["retention; DROP TABLE public.heard"]}');          -- 22023
SELECT mq.seek('victim', 'a', start => 'earliest; --');                                      -- 22023
SELECT * FROM mq.browse('victim', 'a', states => ARRAY['ready; --']);                                         -- 22023
CREATE ROLE "regress_mqa ""x""; --";
SELECT mq.grant('victim', 'send', 'regress_mqa "x"; --');
SELECT has_table_privilege('regress_mqa "x"; --', 'mq.q_victim', 'INSERT') AS has;
SELECT mq.revoke('victim', 'send', 'regress_mqa "x"; --');
SELECT has_table_privilege('regress_mqa "x"; --', 'mq.q_victim', 'INSERT') AS has;
DROP ROLE "regress_mqa ""x""; --";
SELECT count(*) AS heard_is_there FROM public.heard;

-- grant with the grant option is the caller's own, as with GRANT
GRANT INSERT ON mq.q_victim TO regress_mqa_browse WITH GRANT OPTION;
SELECT pg_temp.attempt('regress_mqa_browse', $$SELECT mq.grant('victim', 'send', 'regress_mqa_none')$$) AS with_grant_option, pg_temp.attempt('regress_mqa_browse', $$SELECT mq.grant('victim', 'manage', 'regress_mqa_none')$$) AS without;
REVOKE INSERT ON mq.q_victim FROM regress_mqa_browse;

-- ---------------------------------------------------------------------------------------------------------------------
-- A made-up receipt tells nobody which groups there are: every number and level gets the same answer, in every form.
CREATE FUNCTION pg_temp.answer(call text, receipt uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE said text; message text; detail text; hint text; context text;
BEGIN
	BEGIN
		SET LOCAL ROLE regress_mqa_none;
		EXECUTE replace(call, '%r', receipt::text) INTO said;
		RAISE EXCEPTION SQLSTATE 'ZZ000' USING MESSAGE = 'done: ' || said;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		said := format('%s %s %s %s', SQLSTATE, message, detail, hint);
	END;
	RETURN replace(said, receipt::text, 'R');
END $$;
CREATE TEMP TABLE asked AS SELECT f, call, (lpad(to_hex(g), 6, '0') || lpad(to_hex(level), 1, '0') || '0000000000010' || 'badbadbadbad')::uuid AS r
	FROM (SELECT group_no FROM mq_internal.consumer_group UNION SELECT unnest(array[0, 9999999, 16777215])) x (g), generate_series(0, 1) level, (VALUES
	('ack', $$SELECT mq.ack('%r'::uuid)$$), ('ack array', $$SELECT mq.ack_batch(array['%r'::uuid])$$), ('ack not strict', $$SELECT mq.ack_batch(array['%r'::uuid], strict => false)$$),
	('nack', $$SELECT mq.nack('%r'::uuid)$$), ('nack array', $$SELECT mq.nack_batch(array['%r'::uuid], '1 h')$$), ('nack not strict', $$SELECT mq.nack_batch(array['%r'::uuid], strict => false)$$),
	('release', $$SELECT mq.release('%r'::uuid)$$), ('release array', $$SELECT mq.release_batch(array['%r'::uuid])$$), ('release not strict', $$SELECT mq.release_batch(array['%r'::uuid], strict => false)$$),
	('extend', $$SELECT mq.extend('%r'::uuid, '1 h')$$), ('extend array', $$SELECT mq.extend_batch(array['%r'::uuid], '1 h')$$), ('extend not strict', $$SELECT mq.extend_batch(array['%r'::uuid], '1 h', strict => false)$$)) v (f, call);
SELECT count(*) > 2 AS groups_are_there FROM mq_internal.consumer_group;
SELECT f, count(DISTINCT said) AS answers, count(*) FILTER (WHERE said !~ '^(MQ001|ZZ000)') AS wrong FROM (SELECT f, pg_temp.answer(call, r) AS said FROM asked) x GROUP BY f ORDER BY f COLLATE "C";

-- ---------------------------------------------------------------------------------------------------------------------
DROP FUNCTION public.tell;
DROP SCHEMA evil CASCADE;
SELECT mq.drop_queue('other', force => true);
SELECT mq.drop_queue('victim', force => true);
DROP TABLE public.heard;
DROP OWNED BY regress_mqa_owner, regress_mqa_send, regress_mqa_browse, regress_mqa_consume, regress_mqa_manage, regress_mqa_none;
DROP ROLE regress_mqa_owner, regress_mqa_send, regress_mqa_browse, regress_mqa_consume, regress_mqa_manage, regress_mqa_none;
