--
-- ack: receipts that hold and receipts that do not
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('a');
SELECT count(mq.send('a', to_jsonb(i))) FROM generate_series(1, 20) AS i;

-- once, and only once
SELECT receipt AS r FROM mq.receive('a') \gset
SELECT mq.ack(:'r'::uuid);
SELECT mq.ack(:'r'::uuid);                                      -- MQ001
SELECT mq.nack(:'r'::uuid);                                     -- MQ001
SELECT mq.release(:'r'::uuid);                                  -- MQ001
SELECT mq.extend(:'r'::uuid, '1 hour');                         -- MQ001
BEGIN;
SELECT receipt AS r FROM mq.receive('a') \gset
SELECT mq.ack(:'r'::uuid);
SELECT mq.ack(:'r'::uuid);                                      -- MQ001
ROLLBACK;

-- drivers that send text, or parameters without a type
SELECT receipt AS r FROM mq.receive('a') \gset
SELECT mq.extend(:'r', '1 hour');
SELECT mq.nack(:'r');
SELECT receipt AS r FROM mq.receive('a') \gset
PREPARE untyped AS SELECT mq.release($1);
EXECUTE untyped(:'r');
SELECT receipt AS r FROM mq.receive('a') \gset
SELECT mq.ack(:'r');
SELECT mq.ack(:'r');                                            -- MQ001
SELECT mq.ack('not a receipt');                                 -- 22P02
SELECT mq.ack('');                                              -- 22P02

-- nulls, and what was never a receipt
SELECT mq.ack(NULL::uuid);                                      -- 22004
SELECT mq.ack_batch(NULL::uuid[]);                                    -- 22004
SELECT mq.ack_batch(array[NULL]::uuid[]);                             -- 22004
SELECT mq.ack('00000000-0000-0000-0000-000000000000'::uuid);    -- MQ001
SELECT mq.ack('ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid);    -- MQ001
SELECT mq.ack(gen_random_uuid());                               -- MQ001
SELECT mq.ack('not a receipt'::uuid);                           -- 22P02
SELECT mq.ack_batch(array[]::uuid[]);
SELECT mq.ack_batch(array[]::uuid[], strict => false);

-- a real receipt with any one digit changed is forged
SELECT receipt AS r FROM mq.receive('a') \gset
SELECT count(*) AS digits, count(DISTINCT refused[1]) AS refused
  FROM (SELECT mq.ack_batch(array[overlay(hex placing translate(substr(hex, i, 1), '0123456789abcdef', '123456789abcdef0') from i)::uuid], strict => false) AS refused
          FROM (SELECT replace(:'r', '-', '') AS hex) AS receipt, generate_series(1, 32) AS i) AS tried;
SELECT mq.ack(:'r'::uuid);

-- the array form: strict does all or nothing
SELECT array_agg(receipt) AS rs FROM mq.receive('a', max_messages => 3) \gset
SELECT mq.ack_batch(:'rs'::uuid[] || gen_random_uuid());              -- MQ001
SELECT count(*) AS still_leased FROM mq.in_flight WHERE queue = 'a' AND state = 'leased';
SELECT mq.ack((:'rs'::uuid[])[1]);
SELECT mq.ack_batch(:'rs'::uuid[]);                                   -- MQ001: the first is gone
SELECT count(*) AS still_leased FROM mq.in_flight WHERE queue = 'a' AND state = 'leased';
SELECT mq.ack_batch(:'rs'::uuid[], strict => false) = array[(:'rs'::uuid[])[1]] AS refused_the_first;
SELECT count(*) AS still_leased FROM mq.in_flight WHERE queue = 'a';
SELECT mq.ack_batch(:'rs'::uuid[], strict => false) = :'rs'::uuid[] AS refused_all;

-- strict raised inside an exception block: nothing done, the rest goes on
SELECT array_agg(receipt) AS rs FROM mq.receive('a', max_messages => 2) \gset
CREATE TEMP TABLE holder AS SELECT :'rs'::uuid[] AS rs;
DO $$
DECLARE r uuid[] := (SELECT rs FROM holder);
BEGIN
	PERFORM mq.ack_batch(r || gen_random_uuid());
	RAISE EXCEPTION 'not refused';
EXCEPTION WHEN SQLSTATE 'MQ001' THEN
	PERFORM mq.ack_batch(r);
END $$;
SELECT count(*) AS still_leased FROM mq.in_flight WHERE queue = 'a';

-- duplicates in one call
SELECT receipt AS r FROM mq.receive('a') \gset
SELECT mq.ack_batch(array[:'r', :'r']::uuid[]);                       -- 22023
SELECT mq.ack_batch(array[:'r', :'r']::uuid[], strict => false);      -- 22023
SELECT mq.ack_batch(array[:'r']::uuid[], strict => NULL);             -- 22004
SELECT mq.ack_batch(array[array[:'r']]::uuid[]);                      -- 22023
SELECT mq.ack_batch(array[:'r']::uuid[]);

-- two queues in one call
SELECT mq.create_queue('a2');
SELECT mq.send('a2', '"other queue"') > 0 AS sent;
SELECT mq.ack_batch((SELECT receipt FROM mq.receive('a')) || array(SELECT receipt FROM mq.receive('a2')));
SELECT count(*) AS in_flight FROM mq.in_flight;
SELECT mq.drop_queue('a2');

-- ack is undone by rollback: leased again, not handed out, and the same receipt works
SELECT receipt AS r, payload AS p FROM mq.receive('a') \gset
BEGIN;
SELECT mq.ack(:'r'::uuid);
SELECT state FROM mq.in_flight WHERE queue = 'a';
ROLLBACK;
SELECT state FROM mq.in_flight WHERE queue = 'a';
SELECT count(*) AS handed_out_again FROM mq.receive('a', max_messages => 100) WHERE payload = :'p';
SELECT mq.ack(:'r'::uuid);

-- receipts of a queue that was dropped and made again
SELECT mq.drop_queue('a', force => true);
SELECT mq.create_queue('a');
SELECT count(mq.send('a', to_jsonb(i))) FROM generate_series(1, 3) AS i;
SELECT array_agg(receipt) AS old FROM mq.receive('a', max_messages => 3) \gset
SELECT mq.drop_queue('a', force => true);
SELECT mq.ack_batch(:'old'::uuid[]);                                  -- MQ001: no queue at all
SELECT mq.create_queue('a');
SELECT count(mq.send('a', to_jsonb(i))) FROM generate_series(1, 3) AS i;
SELECT count(*) FROM mq.receive('a', max_messages => 3);
SELECT mq.ack_batch(:'old'::uuid[]);                                  -- MQ001
SELECT mq.ack_batch(:'old'::uuid[], strict => false) = :'old'::uuid[] AS refused_all;
SELECT mq.nack_batch(:'old'::uuid[]);                                 -- MQ001
SELECT mq.release_batch(:'old'::uuid[]);                              -- MQ001
SELECT mq.extend_batch(:'old'::uuid[], '1 hour');                     -- MQ001
SELECT count(*) AS untouched FROM mq.in_flight WHERE queue = 'a' AND state = 'leased';

-- a drop that rolled back: the receipts still hold, also in the transaction after the rollback to a savepoint
SELECT mq.drop_queue('a', force => true);
SELECT mq.create_queue('a');
SELECT mq.send_batch('a', array['1', '2']::jsonb[]) IS NOT NULL AS sent;
SELECT array_agg(receipt) AS rs FROM mq.receive('a', max_messages => 2) \gset
BEGIN;
SELECT mq.drop_queue('a', force => true);
ROLLBACK;
SELECT mq.ack((:'rs'::uuid[])[1]);
BEGIN;
SAVEPOINT s;
SELECT mq.drop_queue('a', force => true);
SELECT mq.create_queue('a');
ROLLBACK TO s;
SELECT mq.ack((:'rs'::uuid[])[2]);
COMMIT;
SELECT mq.drop_queue('a');

-- many in one call
SELECT mq.create_queue('a');
SELECT cardinality(mq.send_batch('a', array(SELECT to_jsonb(i) FROM generate_series(1, 20000) AS i))) AS sent;
SELECT mq.ack_batch(array_agg(receipt ORDER BY md5(payload::text))) FROM mq.receive('a', max_messages => 20000);
SELECT mq.drop_queue('a');

-- every second one acked, the rest given back: nothing more, nothing less arrives
SELECT mq.create_queue('a');
SELECT cardinality(mq.send_batch('a', array(SELECT to_jsonb(i) FROM generate_series(1, 5000) AS i))) AS sent;
CREATE TEMP TABLE got AS SELECT receipt, payload::int AS n FROM mq.receive('a', max_messages => 5000);
SELECT mq.ack_batch(array_agg(receipt)) FROM got WHERE n % 2 = 0;
SELECT mq.release_batch(array_agg(receipt)) FROM got WHERE n % 2 = 1;
SELECT count(*), count(*) FILTER (WHERE payload::int % 2 = 1) AS odd, count(DISTINCT id) AS ids FROM mq.pop('a', max_messages => 5000);
SELECT mq.drop_queue('a');

-- a second ack that is refused, and rolled back with its savepoint, leaves the first one alone
SELECT mq.create_queue('outer');
SELECT mq.send('outer', '1') > 0 AS sent;
SELECT receipt AS r FROM mq.receive('outer', max_messages => 1, visibility_timeout => '1 hour') \gset
BEGIN;
SELECT mq.ack(:'r'::uuid);
SAVEPOINT s;
SELECT mq.ack(:'r'::uuid);                                      -- MQ001
ROLLBACK TO s;
SELECT cardinality(mq.ack_batch(array[:'r']::uuid[], strict => false)) AS refused;
SAVEPOINT s;
SELECT cardinality(mq.ack_batch(array[:'r']::uuid[], strict => false)) AS refused;
ROLLBACK TO s;
SELECT state, count(*) FROM mq.in_flight WHERE queue = 'outer' GROUP BY state;
COMMIT;
SELECT count(*) AS in_flight FROM mq.in_flight WHERE queue = 'outer';
SELECT mq.drop_queue('outer');
