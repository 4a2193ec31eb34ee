--
-- discard: the owner finishes messages by id, whoever holds them
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('d');
SELECT mq.send_batch('d', array(SELECT to_jsonb(i) FROM generate_series(1, 10) AS i)) AS ids \gset

-- never looked at, then seen, then leased
SELECT mq.discard('d', 'default', (:'ids'::bigint[])[1:2]);
SELECT receipt AS r, payload FROM mq.receive('d') \gset
\echo :payload
SELECT mq.discard('d', 'default', (:'ids'::bigint[])[3:4]);                -- the third is leased, the fourth waits
SELECT mq.ack(:'r'::uuid);                                      -- MQ001
SELECT payload FROM mq.receive('d');

-- finished ones, unknown ones and the future do not count
SELECT mq.discard('d', 'default', (:'ids'::bigint[])[1:4]);
SELECT mq.discard('d', 'default', array[0, -1, 9223372036854775807]);
SELECT mq.discard('d', 'default', array[]::bigint[]);
SELECT mq.discard('d', 'default', (:'ids'::bigint[])[1:6]);                -- the fifth and the sixth
SELECT count(*) FROM mq.in_flight WHERE queue = 'd';

-- transactional
BEGIN;
SELECT mq.discard('d', 'default', (:'ids'::bigint[])[7:10]);
SELECT count(*) FROM mq.receive('d', max_messages => 10);
ROLLBACK;
SELECT payload FROM mq.receive('d');
BEGIN;
SAVEPOINT s;
SELECT mq.discard('d', 'default', (:'ids'::bigint[])[7:10]);
ROLLBACK TO s;
SELECT mq.discard('d', 'default', (:'ids'::bigint[])[8:8]);
COMMIT;
SELECT payload FROM mq.receive('d', max_messages => 10);

-- rolled back, the holder of a lease still has it
SELECT mq.send('d', '11') > 0 AS sent;
SELECT receipt AS r FROM mq.receive('d', max_messages => 1, visibility_timeout => '1 hour') \gset
BEGIN;
SELECT mq.discard('d', 'default', array_agg(id)) FROM mq.in_flight WHERE queue = 'd' AND lease_until > clock_timestamp() + interval '30 minutes';
ROLLBACK;
SELECT mq.ack(:'r'::uuid);

-- bad input
SELECT mq.discard('d', 'default', NULL);                                   -- 22004
SELECT mq.discard('d', 'default', array[NULL]::bigint[]);                  -- 22004
SELECT mq.discard(NULL, 'default', array[1]);                              -- 22004
SELECT mq.discard('d', NULL, array[1]);                         -- 22004
SELECT mq.discard('d', 'default', array[1, 1]);                            -- 22023
SELECT mq.discard('d', 'default', array[[1, 2], [3, 4]]);                  -- 22023
SELECT mq.discard('nothing', 'default', array[1]);                         -- 42704
SELECT mq.discard('d', 'strangers', array[1]);                  -- 42704

SELECT mq.discard('d', 'default', :'ids'::bigint[]);
SELECT mq.drop_queue('d');

-- its own uncommitted messages
SELECT mq.create_queue('d');
BEGIN;
SELECT mq.send_batch('d', array['1', '2']::jsonb[]) AS ids \gset
SELECT mq.discard('d', 'default', (:'ids'::bigint[])[1:1]);
COMMIT;
SELECT payload FROM mq.pop('d', max_messages => 10);
SELECT mq.drop_queue('d');

-- its own, rolled back to a savepoint: nobody holds it, no failure is counted
SELECT mq.create_queue('d2');
BEGIN;
SELECT mq.send('d2', '1') AS id \gset
SAVEPOINT s;
SELECT mq.discard('d2', 'default', array[:id]);
ROLLBACK TO s;
COMMIT;
SELECT payload, attempt, failures FROM mq.pop('d2', max_messages => 10);
SELECT mq.drop_queue('d2');
