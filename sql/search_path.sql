--
-- search_path: whatever the caller has there, ours is not led astray
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate

-- none at all
SET search_path = '';
SELECT mq.create_queue('p');
SELECT mq.send('p', '{"n": 1}') > 0 AS sent;
SELECT pg_catalog.cardinality(mq.send_batch('p', array['{"n": 2}', '{"n": 3}']::jsonb[])) AS sent;
SELECT receipt AS r, payload FROM mq.receive('p') \gset
\echo :payload
SELECT mq.extend(:'r'::uuid, '1 hour');
SELECT mq.nack(:'r'::uuid);
SELECT mq.ack_batch(array_agg(receipt)) FROM mq.receive('p', max_messages => 2);
SELECT payload FROM mq.pop('p', max_messages => 10);
SELECT ready + retrying AS ready, leased, settling, pending FROM mq.groups WHERE queue = 'p';
SELECT count(*) > 0 AS segments FROM mq.segments WHERE queue = 'p';
SELECT mq.discard('p', 'default', array[1]) >= 0 AS discarded;
SELECT mq.drop_queue('p');
RESET search_path;

-- hostile: the names and operators that code inside might use unqualified, before pg_catalog
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.trap() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'TRAP1', MESSAGE = 'caught'; END $$;
CREATE FUNCTION hostile.eq(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.eq(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.eq(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.eq(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.eq(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.eq);
CREATE OPERATOR hostile.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.eq);
CREATE OPERATOR hostile.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = hostile.eq);
CREATE OPERATOR hostile.= (LEFTARG = name, RIGHTARG = name, FUNCTION = hostile.eq);
CREATE OPERATOR hostile.= (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.eq);
CREATE OPERATOR hostile.< (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.eq);
CREATE OPERATOR hostile.>= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.eq);
CREATE OPERATOR hostile.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.eq);
CREATE FUNCTION hostile.nextval(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT hostile.trap()::int::bigint';
CREATE FUNCTION hostile.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS 'SELECT hostile.trap()::text';
CREATE FUNCTION hostile.quote_ident(text) RETURNS text LANGUAGE sql AS 'SELECT hostile.trap()::text';
CREATE FUNCTION hostile.has_table_privilege(oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE TABLE hostile.pg_class (oid oid);
CREATE TABLE hostile.pg_inherits (inhrelid oid);
SET search_path = hostile, pg_catalog;
SELECT mq.create_queue('p');
SELECT mq.send('p', '{"n": 1}') IS NOT NULL AS sent;
SELECT mq.send_batch('p', array['{"n": 2}', '{"n": 3}']::jsonb[]) IS NOT NULL AS sent;
SELECT payload FROM mq.receive('p');
SELECT mq.ack(receipt) FROM mq.receive('p');
SELECT payload FROM mq.pop('p', max_messages => 10);
SELECT count(*) FROM mq.queues;
SELECT count(*) FROM mq.groups;
SELECT count(*) FROM mq.in_flight;
SELECT mq.discard('p', 'default', array[1]) IS NOT NULL AS discarded;
SELECT mq.drop_queue('p', true);
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA hostile CASCADE;
SELECT count(*) FROM mq.queues;
