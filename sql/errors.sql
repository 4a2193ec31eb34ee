--
-- errors: the words. One of each kind, with its SQLSTATE, detail and hint, as users will read them.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT mq.create_queue('e');
SELECT mq.send('e', '1') > 0 AS sent;

SELECT mq.create_queue('e');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.create_queue('');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.create_queue(repeat('x', 49));
\echo :LAST_ERROR_SQLSTATE
SELECT mq.create_queue(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.create_queue('x', options => '{"segment_size": 1}');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.drop_queue('nothing');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.drop_queue('e');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.send('nothing', '1');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.send(NULL, '1');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.send('e', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.send('e', '{"a": }');
\echo :LAST_ERROR_SQLSTATE
SET mq.max_message_size = '1kB';
SELECT mq.send('e', to_jsonb(repeat('x', 2000)));
\echo :LAST_ERROR_SQLSTATE
RESET mq.max_message_size;
SELECT mq.send_batch('e', array['1', NULL]::jsonb[]);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.send_batch('e', array['1', '2', '3']::jsonb[], array['{}', '{}']::jsonb[]);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.send_batch('e', array[['1'], ['2']]::jsonb[]);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.send_batch('e', NULL::jsonb[]);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM mq.receive('e', max_messages => 0);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM mq.receive('e', max_messages => 1000001);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM mq.receive('e', max_messages => NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM mq.receive('e', max_messages => 1, visibility_timeout => '0');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM mq.receive('e', max_messages => 1, visibility_timeout => '400 days');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM mq.receive('e', consumer_group => 'strangers');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM mq.receive('nothing');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.ack(NULL::uuid);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.ack('00000000-0000-0000-0000-000000000000'::uuid);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.ack_batch(array['00000000-0000-0000-0000-000000000000']::uuid[]);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.ack_batch(array['00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000']::uuid[]);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.nack('00000000-0000-0000-0000-000000000000'::uuid, '-1 second');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.nack('00000000-0000-0000-0000-000000000000'::uuid);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.release('00000000-0000-0000-0000-000000000000'::uuid);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.extend('00000000-0000-0000-0000-000000000000'::uuid, '1 hour');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.extend('00000000-0000-0000-0000-000000000000'::uuid, '0');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.discard('e', 'default', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.discard('e', 'default', array[1, 1]);
\echo :LAST_ERROR_SQLSTATE
DELETE FROM mq.q_e;
\echo :LAST_ERROR_SQLSTATE
TRUNCATE mq.q_e;
\echo :LAST_ERROR_SQLSTATE
BEGIN READ ONLY;
SELECT mq.send('e', '1');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT * FROM mq.receive('e');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
CREATE ROLE regress_mq_nobody;
SET ROLE regress_mq_nobody;
SELECT mq.create_queue('mine');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.send('e', '1');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM mq.receive('e');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.discard('e', 'default', array[1]);
\echo :LAST_ERROR_SQLSTATE
SELECT mq.drop_queue('e');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP ROLE regress_mq_nobody;
-- a receipt that a driver sends without a type
SELECT mq.ack('00000000-0000-0000-0000-000000000000');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.ack('not a receipt');
\echo :LAST_ERROR_SQLSTATE
SELECT mq.drop_queue('e', force => true);
