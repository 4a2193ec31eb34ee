--
-- receive: limits, order, what a lease is
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('r');

-- empty
SELECT count(*) FROM mq.receive('r');
SELECT count(*) FROM mq.receive('r', max_messages => 1000000);

-- in the order of ids, each message to one holder
SELECT count(mq.send('r', to_jsonb(i))) FROM generate_series(1, 10) AS i;
SELECT payload, attempt, failures, queue, consumer_group FROM mq.receive('r');
SELECT payload FROM mq.receive('r', max_messages => 3);
SELECT payload FROM mq.receive('r', max_messages => 100);
SELECT payload FROM mq.receive('r', max_messages => 100);
SELECT count(*), count(DISTINCT id) AS ids FROM mq.in_flight WHERE queue = 'r' AND state = 'leased';

-- absurd numbers
SELECT * FROM mq.receive('r', max_messages => 0);                               -- 22023
SELECT * FROM mq.receive('r', max_messages => -1);                              -- 22023
SELECT * FROM mq.receive('r', max_messages => 1000001);                         -- 22023
SELECT * FROM mq.receive('r', max_messages => 2147483647);                      -- 22023
SELECT * FROM mq.receive('r', max_messages => NULL);                            -- 22004
SELECT * FROM mq.receive(NULL);                                 -- 22004
SELECT * FROM mq.receive('r', consumer_group => NULL);          -- 22004
SELECT * FROM mq.receive('r', consumer_group => 'strangers');   -- 42704
SELECT * FROM mq.receive('r', consumer_group => '');            -- 42704
SELECT * FROM mq.receive('nothing');                            -- 42704
SELECT * FROM mq.receive('r', max_messages => 1, visibility_timeout => '0');                          -- 22023
SELECT * FROM mq.receive('r', max_messages => 1, visibility_timeout => '-1 second');                  -- 22023
SELECT * FROM mq.receive('r', max_messages => 1, visibility_timeout => '1 day -25 hours');            -- 22023
SELECT * FROM mq.receive('r', max_messages => 1, visibility_timeout => '366 days');                   -- 22023
SELECT * FROM mq.receive('r', max_messages => 1, visibility_timeout => '365 days 1 microsecond');     -- 22023
SELECT * FROM mq.receive('r', max_messages => 1, visibility_timeout => '100000000 years');            -- 22023
SELECT * FROM mq.receive('r', max_messages => 1, visibility_timeout => '-100000000 years');           -- 22023
SELECT count(*) FROM mq.receive('r', max_messages => 1, visibility_timeout => '365 days');
SELECT count(*) FROM mq.receive('r', max_messages => 1, visibility_timeout => '1 microsecond');
SELECT count(*) FROM mq.receive('r', max_messages => 1, visibility_timeout => '1 month');

-- how long: the setting, or the argument
SELECT mq.send('r', '"lease"') > 0 AS sent;
SELECT lease_until - clock_timestamp() BETWEEN interval '20 seconds' AND interval '30 seconds' AS thirty_seconds FROM mq.receive('r');
SET mq.visibility_timeout = '1h';
SELECT mq.send('r', '"lease"') > 0 AS sent;
SELECT lease_until - clock_timestamp() BETWEEN interval '59 minutes' AND interval '1 hour' AS one_hour FROM mq.receive('r');
RESET mq.visibility_timeout;
SELECT mq.send('r', '"lease"') > 0 AS sent;
SELECT lease_until - clock_timestamp() BETWEEN interval '364 days' AND interval '365 days' AS a_year FROM mq.receive('r', max_messages => 1, visibility_timeout => '365 days');
SELECT mq.drop_queue('r', force => true);

-- a lease that ends: the message comes back to whoever asks, the old receipt is refused
SELECT mq.create_queue('r');
SELECT mq.send('r', '"short"') > 0 AS sent;
SELECT receipt AS old FROM mq.receive('r', max_messages => 1, visibility_timeout => '20 milliseconds') \gset
CREATE TEMP TABLE came_back (payload jsonb, receipt uuid, attempt int, failures int);
DO $$
DECLARE m mq.message;
BEGIN
	LOOP
		SELECT * INTO m FROM mq.receive('r', max_messages => 1, visibility_timeout => '1 hour');
		EXIT WHEN m.id IS NOT NULL;
		IF clock_timestamp() > now() + interval '60 seconds' THEN
			RAISE EXCEPTION 'the lease never ended';
		END IF;
		PERFORM pg_sleep(0.005);
	END LOOP;
	INSERT INTO came_back VALUES (m.payload, m.receipt, m.attempt, m.failures);
END $$;
SELECT payload, attempt, failures, receipt <> :'old'::uuid AS new_receipt FROM came_back;
SELECT mq.ack(:'old'::uuid);                                    -- MQ001
SELECT mq.extend(:'old'::uuid, '1 hour');                       -- MQ001
SELECT mq.ack(receipt) FROM came_back;
SELECT mq.drop_queue('r');

-- however it is called
SELECT mq.create_queue('r');
SELECT count(mq.send('r', to_jsonb(i))) FROM generate_series(1, 20) AS i;
SELECT payload FROM mq.receive('r') LIMIT 1;
SELECT payload FROM mq.receive(queue => 'r', consumer_group => 'default', max_messages => 1, visibility_timeout => NULL);
SELECT (m).payload FROM (SELECT mq.receive('r', max_messages => 2) AS m OFFSET 0) AS in_select_list;
SELECT payload, pg_typeof(m) FROM mq.receive('r') AS m;
SELECT count(*) FROM mq.receive('r', max_messages => 10) LIMIT 1;               -- leases ten, as documented
SELECT payload FROM mq.receive('r', max_messages => 10) LIMIT 1;                -- the last five: all leased, one shown
SELECT count(*) FROM mq.in_flight WHERE queue = 'r';
SELECT count(*) FROM mq.receive('r');
SELECT i, m.payload FROM generate_series(1, 3) AS i LEFT JOIN LATERAL mq.receive('r', max_messages => i) AS m ON true;
SELECT mq.drop_queue('r', force => true);

-- a message is a row of a type that clients know by its columns: ack of a whole set in one statement
SELECT mq.create_queue('r');
SELECT count(mq.send('r', to_jsonb(i))) FROM generate_series(1, 5) AS i;
SELECT mq.ack_batch(array_agg(receipt)) FROM mq.receive('r', max_messages => 10);
SELECT mq.drop_queue('r');

-- pop: receive and ack at once, no lease stays
SELECT mq.create_queue('r');
SELECT count(mq.send('r', to_jsonb(i))) FROM generate_series(1, 5) AS i;
SELECT payload, attempt, failures FROM mq.pop('r');
SELECT payload FROM mq.pop('r', max_messages => 3);
BEGIN;
SELECT payload FROM mq.pop('r', max_messages => 100);
SELECT payload FROM mq.pop('r', max_messages => 100);
ROLLBACK;
SELECT payload, attempt, failures FROM mq.pop('r', max_messages => 100);
SELECT payload FROM mq.pop('r', max_messages => 100);
SELECT * FROM mq.pop('r', max_messages => 0);                                   -- 22023
SELECT * FROM mq.pop('r', max_messages => 1000001);                             -- 22023
SELECT * FROM mq.pop('r', max_messages => NULL);                                -- 22004
SELECT * FROM mq.pop(NULL);                                     -- 22004
SELECT * FROM mq.pop('nothing');                                -- 42704
SELECT * FROM mq.pop('r', 'strangers', 1);                      -- 42704
SELECT * FROM mq.pop('r', NULL, 1);                             -- 22004
-- a popped message carries a receipt that is spent
SELECT mq.send('r', '1') > 0 AS sent;
SELECT receipt AS spent FROM mq.pop('r') \gset
SELECT mq.ack(:'spent'::uuid);                                  -- MQ001
SELECT count(*) FROM mq.in_flight WHERE queue = 'r';
SELECT mq.drop_queue('r');
