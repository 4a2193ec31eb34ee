--
-- queue: create_queue and drop_queue
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate

SELECT mq.create_queue('plain');
SELECT relkind, pg_get_partkeydef(oid) FROM pg_class WHERE oid = 'mq.q_plain'::regclass;
SELECT queue, segment_size, segments >= 1 AS has_segments FROM mq.queues WHERE queue = 'plain';
SELECT queue, consumer_group FROM mq.groups WHERE queue = 'plain';

-- twice
SELECT mq.create_queue('plain');                                -- 42710
SELECT mq.create_queue('plain', if_not_exists => true);
SELECT count(*) FROM mq.queues WHERE queue = 'plain';

-- bad names and sizes
SELECT mq.create_queue(NULL);                                   -- 22004
SELECT mq.create_queue('');                                     -- 22023
SELECT mq.create_queue(repeat('x', 49));                        -- 22023
SELECT mq.create_queue(repeat('ü', 24) || 'x');                 -- 22023: 49 bytes, 25 characters
SELECT mq.create_queue(repeat('x', 100000));                    -- 22023
SELECT mq.create_queue('bad', options => '{"segment_size": 1023}');            -- 22023
SELECT mq.create_queue('bad', options => '{"segment_size": 0}');               -- 22023
SELECT mq.create_queue('bad', options => '{"segment_size": -1}');              -- 22023
SELECT mq.create_queue('bad', options => '{"segment_size": 1073741825}');      -- 22023
SELECT mq.create_queue('bad', options => '{"segment_size": 9223372036854775807}'); -- 22023
SELECT count(*) AS none FROM mq.queues WHERE queue <> 'plain';
SELECT mq.create_queue('small', options => '{"segment_size": 1024}');
SELECT mq.create_queue('big', options => '{"segment_size": 1073741824}');
SELECT mq.create_queue('usual');
SELECT queue, segment_size FROM mq.queues ORDER BY queue COLLATE "C";
SELECT mq.drop_queue('small'), mq.drop_queue('big'), mq.drop_queue('usual');

-- odd names: whatever quote_ident can carry, up to 48 bytes
CREATE TEMP TABLE odd (n serial, name text);
INSERT INTO odd (name) VALUES
	('Plain'), ('PLAIN'), (' '), ('with space'), ('semi;colon'), ('dot.ted'), ('"'), ('quo"ted'), ('''); DROP TABLE odd; --'),
	('select'), ('%s %n'), ('back\slash'), (E'new\nline'), (E'tab\t'), ('$1'), ('123'), ('{}'), ('üñï'), (repeat('ü', 24)), (repeat('x', 48));
SELECT count(*) FROM (SELECT mq.create_queue(name) FROM odd OFFSET 0) AS made;
SELECT count(*) FROM (SELECT mq.send(name, to_jsonb(name)) FROM odd OFFSET 0) AS sent;
SELECT count(*) AS tables FROM odd WHERE to_regclass('mq.' || quote_ident('q_' || name)) IS NOT NULL;
SELECT count(*) AS listed FROM mq.queues JOIN odd ON name = queue;
SELECT count(*) AS right_ones
  FROM odd, LATERAL mq.receive(name) AS m
 WHERE m.payload = to_jsonb(name) AND m.queue = name AND m.consumer_group = 'default';
SELECT n AS refused FROM odd WHERE NOT EXISTS (SELECT FROM mq.in_flight WHERE queue = name);
SELECT count(*) FROM (SELECT mq.drop_queue(name, force => true) FROM odd OFFSET 0) AS dropped;
SELECT count(*) AS left_over FROM mq.queues WHERE queue <> 'plain';

-- unknown queues
SELECT mq.drop_queue('nothing');                                -- 42704
SELECT mq.drop_queue(NULL);                                     -- 22004
SELECT mq.drop_queue('');                                       -- 42704
SELECT mq.send('nothing', '1');                                 -- 42704

-- drop_queue refuses unfinished messages, in whatever state they are
SELECT mq.drop_queue('plain');
SELECT mq.create_queue('plain');
SELECT mq.send('plain', '"waiting"') IS NOT NULL AS sent;
SELECT mq.drop_queue('plain');                                  -- 55000
SELECT receipt AS r FROM mq.receive('plain') \gset
SELECT mq.drop_queue('plain');                                  -- 55000: leased
SELECT mq.nack(:'r'::uuid, delay => '1 hour');
SELECT mq.drop_queue('plain');                                  -- 55000: due later
SELECT mq.drop_queue('plain', force => NULL);                   -- 22004
SELECT mq.drop_queue('plain', force => true);
SELECT mq.create_queue('plain');
SELECT mq.send('plain', '"done"') IS NOT NULL AS sent;
SELECT mq.ack(receipt) FROM mq.receive('plain');
SELECT mq.drop_queue('plain');                                  -- all acked: no force needed

-- a rolled-back send does not count as unfinished
SELECT mq.create_queue('plain');
BEGIN;
SELECT mq.send('plain', '"never"') IS NOT NULL AS sent;
ROLLBACK;
SELECT mq.drop_queue('plain');

-- both are transactional
BEGIN;
SELECT mq.create_queue('tx');
SELECT mq.send('tx', '1') IS NOT NULL AS sent;
ROLLBACK;
SELECT mq.send('tx', '1');                                      -- 42704
SELECT to_regclass('mq.q_tx');
SELECT mq.create_queue('tx');
SELECT mq.send('tx', '"survivor"') IS NOT NULL AS sent;
BEGIN;
SELECT mq.drop_queue('tx', force => true);
SELECT mq.send('tx', '1');                                      -- 42704
ROLLBACK;
SELECT payload FROM mq.receive('tx');

-- drop and create of the same name: in one transaction, rolled back and committed
SELECT mq.send('tx', '"second"') IS NOT NULL AS sent;
BEGIN;
SELECT mq.drop_queue('tx', force => true);
SELECT mq.create_queue('tx');
SELECT mq.send('tx', '"new"') IS NOT NULL AS sent;
SELECT payload FROM mq.receive('tx', max_messages => 10);
ROLLBACK;
SELECT payload FROM mq.receive('tx', max_messages => 10);                       -- "second": the old queue stands
BEGIN;
SELECT mq.drop_queue('tx', force => true);
SELECT mq.create_queue('tx');
SELECT mq.send('tx', '"newer"') IS NOT NULL AS sent;
COMMIT;
SELECT payload, attempt, failures FROM mq.receive('tx', max_messages => 10);    -- "newer", first hand-out
SELECT count(*) AS in_flight FROM mq.in_flight WHERE queue = 'tx';
SELECT mq.drop_queue('tx', force => true);
SELECT mq.create_queue('tx');
SELECT payload FROM mq.receive('tx', max_messages => 10);                       -- nothing
SELECT mq.drop_queue('tx');

-- savepoints
BEGIN;
SAVEPOINT a;
SELECT mq.create_queue('sp');
SELECT mq.send('sp', '"rolled back"') IS NOT NULL AS sent;
ROLLBACK TO a;
SELECT mq.create_queue('sp');
SELECT mq.send('sp', '"kept"') IS NOT NULL AS sent;
SAVEPOINT b;
SELECT mq.drop_queue('sp', force => true);
ROLLBACK TO b;
SELECT payload FROM mq.receive('sp', max_messages => 10);
COMMIT;
SELECT count(*) FROM mq.in_flight WHERE queue = 'sp';
SELECT mq.drop_queue('sp', force => true);

-- the same name a hundred times
DO $$
BEGIN
	FOR i IN 1..100 LOOP
		PERFORM mq.create_queue('again');
		PERFORM mq.send('again', to_jsonb(i));
		IF (SELECT payload FROM mq.pop('again')) <> to_jsonb(i) THEN
			RAISE EXCEPTION 'wrong message in round %', i;
		END IF;
		PERFORM mq.drop_queue('again');
		IF i % 10 = 0 THEN
			COMMIT;
		END IF;
	END LOOP;
END $$;
SELECT count(*) AS left_over FROM mq.queues;
SELECT count(*) AS tables_left_over FROM pg_class WHERE relnamespace IN ('mq'::regnamespace, 'mq_internal'::regnamespace) AND relname ~ '^(q|s|i|g)_';
