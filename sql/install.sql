--
-- install: CREATE and DROP EXTENSION, and what stands in the way of it
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS mq;
RESET client_min_messages;
\set VERBOSITY sqlstate

CREATE EXTENSION mq;
SELECT e.extversion, e.extrelocatable, n.nspname AS schema
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'mq';
CREATE EXTENSION mq;                    -- 42710
ALTER EXTENSION mq SET SCHEMA public;   -- 0A000: every name is written with its schema

-- a new database has no queue
SELECT count(*) AS queues FROM mq.queues;
SELECT count(*) AS groups FROM mq.groups;
SELECT count(*) AS segments FROM mq.segments;
SELECT count(*) AS in_flight FROM mq.in_flight;

-- installing and using it inside one transaction that rolls back leaves nothing
DROP EXTENSION mq;
BEGIN;
CREATE EXTENSION mq;
SELECT mq.create_queue('fleeting');
SELECT mq.send('fleeting', '{"n": 1}') IS NOT NULL AS sent;
SELECT payload FROM mq.pop('fleeting');
ROLLBACK;
SELECT count(*) AS extensions FROM pg_extension WHERE extname = 'mq';
SELECT mq.send('fleeting', '{}');       -- 3F000: no such schema
CREATE EXTENSION mq;
SELECT mq.send('fleeting', '{}');       -- 42704: no such queue

-- the tables of a queue are the user's own: not members (pg_dump keeps their rows), yet they need the extension
SELECT mq.create_queue('kept');
SELECT mq.send('kept', '{"n": 1}') IS NOT NULL AS sent;
SELECT count(*) AS member_tables
  FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
 WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
   AND (c.oid = 'mq.q_kept'::regclass OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'mq.q_kept'::regclass));
-- ... but is in a schema that is one
SELECT nspname AS schema FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
  JOIN pg_namespace n ON n.oid = d.objid AND d.classid = 'pg_namespace'::regclass
 WHERE e.extname = 'mq' AND d.deptype = 'e' ORDER BY 1;
DROP EXTENSION mq;                      -- 2BP01: it would take the messages with it
SELECT payload FROM mq.pop('kept');
SELECT mq.send('kept', '{"n": 2}') IS NOT NULL AS sent;

-- CASCADE takes the queues; rolled back, nothing happened
SET client_min_messages = warning;
BEGIN;
DROP EXTENSION mq CASCADE;
SELECT count(*) AS tables_left FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('mq', 'mq_internal');
ROLLBACK;
SELECT payload FROM mq.receive('kept');
DROP EXTENSION mq CASCADE;
SELECT count(*) AS tables_left FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('mq', 'mq_internal');

-- and in the same session everything works again, with nothing left of the old queue of that name
CREATE EXTENSION mq;
SELECT mq.create_queue('kept');
SELECT payload FROM mq.receive('kept');
SELECT mq.send('kept', '{"n": 3}') IS NOT NULL AS sent;
SELECT payload FROM mq.pop('kept');
SELECT mq.drop_queue('kept');
