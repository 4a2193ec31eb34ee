--
-- rights: ordinary table privileges decide who may do what
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
CREATE ROLE regress_mq_owner;
CREATE ROLE regress_mq_plain;
CREATE ROLE regress_mq_sender;
CREATE ROLE regress_mq_consumer;
CREATE ROLE regress_mq_reader;

-- making a queue is granted, not given
SET ROLE regress_mq_plain;
SELECT mq.create_queue('mine');                                 -- 42501
SELECT mq.create_queue('mine', if_not_exists => true);          -- 42501
RESET ROLE;
GRANT EXECUTE ON FUNCTION mq.create_queue(text, text[], jsonb, boolean) TO regress_mq_owner;
SET ROLE regress_mq_owner;
SELECT mq.create_queue('rights');
SELECT queue, owner = 'regress_mq_owner' AS is_owner FROM mq.queues WHERE queue = 'rights';
SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'mq.q_rights'::regclass;
SELECT DISTINCT pg_get_userbyid(relowner) AS segments_belong_to
  FROM pg_class JOIN pg_inherits ON inhrelid = oid WHERE inhparent = 'mq.q_rights'::regclass;
SELECT has_schema_privilege('regress_mq_owner', 'mq', 'CREATE') AS may_create_in_schema;
SELECT count(mq.send('rights', to_jsonb(i))) FROM generate_series(1, 20) AS i;
SELECT receipt AS r FROM mq.receive('rights') \gset

-- a plain role may do nothing at all
SET ROLE regress_mq_plain;
SELECT mq.send('rights', '1');                                  -- 42501, all of them; receipts are refused as if they were none
SELECT mq.send('rights', '1'::jsonb);
SELECT mq.send_batch('rights', array['1']::jsonb[]);
SELECT mq.send_batch('rights', array['1']::jsonb[]);
SELECT mq.send_batch('rights', array[]::jsonb[]);
SELECT * FROM mq.receive('rights');
SELECT * FROM mq.pop('rights');
SELECT mq.ack(:'r'::uuid);
SELECT mq.ack_batch(array[:'r']::uuid[]);
SELECT mq.ack_batch(array[:'r']::uuid[], strict => false) = array[:'r']::uuid[] AS refused;
SELECT mq.nack(:'r'::uuid);
SELECT mq.nack_batch(array[:'r']::uuid[], strict => false) = array[:'r']::uuid[] AS refused;
SELECT mq.release(:'r'::uuid);
SELECT mq.release_batch(array[:'r']::uuid[], strict => false) = array[:'r']::uuid[] AS refused;
SELECT mq.extend(:'r'::uuid, '1 hour');
SELECT mq.extend_batch(array[:'r']::uuid[], '1 hour', strict => false) = array[:'r']::uuid[] AS refused;
SELECT mq.discard('rights', 'default', array[1]);
SELECT mq.drop_queue('rights');
SELECT mq.drop_queue('rights', force => true);
SELECT count(*) FROM mq.q_rights;
SELECT count(*) FROM mq_internal.consumer_offset_0;
-- nor see anything
SELECT count(*) FROM mq.queues;
SELECT count(*) FROM mq.groups;
SELECT count(*) FROM mq.segments;
SELECT count(*) FROM mq.in_flight;
-- not by way of the functions below the views either
SELECT count(*) FROM mq_internal.queue_state();
SELECT count(*) FROM mq_internal.group_state();
SELECT count(*) FROM mq_internal.in_flight_state();
-- a queue that is not there is told apart from one that is not mine
SELECT mq.send('nothing', '1');                                 -- 42704

-- INSERT: may send, and only that
RESET ROLE;
GRANT INSERT ON mq.q_rights TO regress_mq_sender;
SET ROLE regress_mq_sender;
SELECT mq.send('rights', '"from sender"') > 0 AS sent;
SELECT cardinality(mq.send_batch('rights', array['"from sender"']::jsonb[])) AS sent;
SELECT * FROM mq.receive('rights');                             -- 42501
SELECT * FROM mq.pop('rights');                                 -- 42501
SELECT mq.ack(:'r'::uuid);                                      -- MQ001
SELECT mq.nack(:'r'::uuid);                                     -- MQ001
SELECT mq.release(:'r'::uuid);                                  -- MQ001
SELECT mq.extend(:'r'::uuid, '1 hour');                         -- MQ001
SELECT mq.discard('rights', 'default', array[1]);                          -- 42501
SELECT mq.drop_queue('rights', true);                           -- 42501
SELECT count(*) FROM mq.q_rights;                               -- 42501
INSERT INTO mq.q_rights (payload) VALUES ('1');                 -- refused all the same: 55000

-- consume: in a group
RESET ROLE;
SELECT mq.grant('rights', 'consume', 'regress_mq_consumer', 'default');
SET ROLE regress_mq_consumer;
SELECT mq.send('rights', '1');                                  -- 42501
SELECT mq.send_batch('rights', array['1']::jsonb[]);                     -- 42501
SELECT mq.ack(:'r'::uuid);
SELECT receipt AS r FROM mq.receive('rights') \gset
SELECT mq.extend(:'r'::uuid, '1 hour');
SELECT mq.release(:'r'::uuid);
SELECT receipt AS r FROM mq.receive('rights') \gset
SELECT mq.nack(:'r'::uuid);
SELECT payload, failures FROM mq.pop('rights');
SELECT mq.discard('rights', 'default', array[1]);                          -- 42501
SELECT mq.drop_queue('rights', true);                           -- 42501
SELECT count(*) FROM mq.q_rights;                               -- 42501: browsing is SELECT
DELETE FROM mq.q_rights;                                        -- 42501

-- SELECT: may browse, by plain SQL
RESET ROLE;
GRANT SELECT ON mq.q_rights TO regress_mq_reader;
SET ROLE regress_mq_reader;
SELECT count(*) FROM mq.q_rights;
SELECT mq.send('rights', '1');                                  -- 42501
SELECT * FROM mq.receive('rights');                             -- 42501

-- the views show a queue to those who may do something with it
SET ROLE regress_mq_owner;
SELECT 'owner' AS who, (SELECT count(*) FROM mq.queues) AS queues, (SELECT count(*) FROM mq.groups) AS groups, (SELECT count(*) > 0 FROM mq.segments) AS segments;
SET ROLE regress_mq_sender;
SELECT 'sender' AS who, (SELECT count(*) FROM mq.queues) AS queues, (SELECT count(*) FROM mq.groups) AS groups, (SELECT count(*) > 0 FROM mq.segments) AS segments;
SET ROLE regress_mq_consumer;
SELECT 'consumer' AS who, (SELECT count(*) FROM mq.queues) AS queues, (SELECT count(*) FROM mq.groups) AS groups, (SELECT count(*) > 0 FROM mq.segments) AS segments;
SET ROLE regress_mq_reader;
SELECT 'reader' AS who, (SELECT count(*) FROM mq.queues) AS queues, (SELECT count(*) FROM mq.groups) AS groups, (SELECT count(*) > 0 FROM mq.segments) AS segments;
SET ROLE regress_mq_plain;
SELECT 'plain' AS who, (SELECT count(*) FROM mq.queues) AS queues, (SELECT count(*) FROM mq.groups) AS groups, (SELECT count(*) > 0 FROM mq.segments) AS segments;

-- rights of one queue say nothing about another: a batch of receipts must be mine throughout
RESET ROLE;
SELECT mq.create_queue('other');
SELECT mq.send('other', '1') > 0 AS sent;
SELECT receipt AS foreign_receipt FROM mq.receive('other') \gset
SET ROLE regress_mq_consumer;
SELECT receipt AS r FROM mq.receive('rights') \gset
SELECT mq.ack_batch(array[:'r', :'foreign_receipt']::uuid[]);         -- MQ001
SELECT mq.ack_batch(array[:'r', :'foreign_receipt']::uuid[], strict => false) = array[:'foreign_receipt']::uuid[] AS one_refused;
RESET ROLE;
SELECT mq.ack(:'foreign_receipt'::uuid);
SELECT mq.drop_queue('other');

-- REVOKE works at once, in the session that had the right
SET ROLE regress_mq_sender;
SELECT mq.send('rights', '1') > 0 AS sent;
RESET ROLE;
REVOKE INSERT ON mq.q_rights FROM regress_mq_sender;
SET ROLE regress_mq_sender;
SELECT mq.send('rights', '1');                                  -- 42501
RESET ROLE;

-- PUBLIC, members of the owner, a new owner
GRANT INSERT ON mq.q_rights TO PUBLIC;
SET ROLE regress_mq_plain;
SELECT mq.send('rights', '1') > 0 AS sent;
RESET ROLE;
REVOKE INSERT ON mq.q_rights FROM PUBLIC;
GRANT regress_mq_owner TO regress_mq_plain;
SET ROLE regress_mq_plain;
SELECT mq.send('rights', '1') > 0 AS sent;
SELECT mq.discard('rights', 'default', array[0]) AS discarded;
RESET ROLE;
REVOKE regress_mq_owner FROM regress_mq_plain;
SELECT mq.alter_queue('rights', '{"owner": "regress_mq_reader"}');
SET ROLE regress_mq_owner;
SELECT mq.discard('rights', 'default', array[0]);                          -- 42501
SET ROLE regress_mq_reader;
SELECT mq.discard('rights', 'default', array[0]) AS discarded;
SELECT mq.send('rights', '1') > 0 AS sent;
RESET ROLE;

-- SECURITY DEFINER functions lend the rights of their owner, as usual
CREATE FUNCTION public.lend() RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT mq.send('rights', '"lent"') > 0 $$;
SET ROLE regress_mq_plain;
SELECT public.lend() AS sent;
RESET ROLE;
DROP FUNCTION public.lend();

-- nobody may write the internal tables, or call what is internal
SET ROLE regress_mq_plain;
INSERT INTO mq_internal.consumer_offset_0 DEFAULT VALUES;                -- 42501
TRUNCATE mq_internal.consumer_offset_0;                                  -- 42501
CREATE TABLE mq.mine (i int);                                   -- 42501
RESET ROLE;
SET ROLE regress_mq_owner;
CREATE TABLE mq.mine (i int);                                   -- 42501
RESET ROLE;

-- DROP OWNED takes the rights and the queue with it
DROP OWNED BY regress_mq_sender, regress_mq_consumer;
SET ROLE regress_mq_consumer;
SELECT * FROM mq.receive('rights');                             -- 42501
SET ROLE regress_mq_reader;
SELECT mq.drop_queue('rights', true);
RESET ROLE;
SELECT count(*) FROM mq.queues;
-- a queue that was the role's own stays, without an owner but the extension's
SET ROLE regress_mq_owner;
SELECT mq.create_queue('owned');
SELECT mq.send('owned', '"old"') > 0 AS sent;
RESET ROLE;
DROP OWNED BY regress_mq_owner;
SELECT queue, owner = current_user AS is_mine FROM mq.queues;
SET ROLE regress_mq_owner;
SELECT mq.send('owned', '1');                                   -- 42501
SELECT mq.drop_queue('owned');                                  -- 42501
RESET ROLE;
SELECT mq.send('owned', '"new"') > 0 AS sent;
SELECT payload, attempt FROM mq.pop('owned', max_messages => 10);
-- it can be handed on: to a role that the caller can become
SELECT mq.alter_queue('owned', '{"owner": "regress_mq_owner"}');
SELECT queue, owner FROM mq.queues;
SELECT mq.grant('owned', 'send', 'regress_mq_sender');
SET ROLE regress_mq_owner;
SELECT mq.alter_queue('owned', '{"owner": "regress_mq_plain"}');    -- 42501
SELECT mq.revoke('owned', 'manage', 'regress_mq_owner');        -- 55000
SELECT mq.alter_queue('owned', '{"owner": "no such role"}');        -- 42704
SELECT mq.send('owned', '1') > 0 AS sent;
SELECT mq.create_group('owned', 'second');
RESET ROLE;
GRANT regress_mq_plain TO regress_mq_owner;
SET ROLE regress_mq_owner;
SELECT mq.alter_queue('owned', '{"owner": "regress_mq_plain"}');
RESET ROLE;
REVOKE regress_mq_plain FROM regress_mq_owner;
SET ROLE regress_mq_owner;
SELECT mq.send('owned', '1');                                   -- 42501
SELECT * FROM mq.pop('owned');                                  -- 42501
SET ROLE regress_mq_sender;
SELECT mq.send('owned', '2') > 0 AS sent;                       -- what was granted by mq.grant stays
SET ROLE regress_mq_plain;
SELECT queue, owner FROM mq.queues;
SELECT payload FROM mq.pop('owned', max_messages => 10);
SELECT payload FROM mq.pop('owned', 'second', 10);
SELECT mq.drop_queue('owned', force => true);
RESET ROLE;
DROP OWNED BY regress_mq_owner, regress_mq_plain, regress_mq_sender, regress_mq_consumer, regress_mq_reader;
DROP ROLE regress_mq_owner, regress_mq_plain, regress_mq_sender, regress_mq_consumer, regress_mq_reader;
