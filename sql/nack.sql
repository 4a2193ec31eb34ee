--
-- nack, release, extend: giving a message back, or keeping it longer. All three act at once.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('n');

-- nack: back at once, one failure more
SELECT mq.send('n', '"poison"') > 0 AS sent;
SELECT receipt AS r, attempt, failures FROM mq.receive('n') \gset
SELECT mq.nack(:'r'::uuid);
SELECT mq.nack(:'r'::uuid);                                     -- MQ001
SELECT receipt AS r2, attempt, failures FROM mq.receive('n') \gset
\echo attempt :attempt failures :failures
SELECT mq.ack(:'r'::uuid);                                      -- MQ001: the old receipt
SELECT mq.nack(:'r2'::uuid, delay => '0');
SELECT attempt, failures FROM mq.receive('n');
SELECT mq.drop_queue('n', force => true);

-- nack with a delay: not before it is due
SELECT mq.create_queue('n');
SELECT mq.send('n', '"later"') > 0 AS sent;
SELECT mq.nack(receipt, '1 hour') FROM mq.receive('n');
SELECT count(*) FROM mq.receive('n', max_messages => 10);
SELECT mq.send('n', '"soon"') > 0 AS sent;
SELECT mq.nack(receipt, '20 milliseconds') FROM mq.receive('n');
CREATE TEMP TABLE seen (payload jsonb, attempt int, failures int);
DO $$
BEGIN
	LOOP
		INSERT INTO seen SELECT payload, attempt, failures FROM mq.pop('n', max_messages => 10);
		EXIT WHEN FOUND;
		IF clock_timestamp() > now() + interval '60 seconds' THEN
			RAISE EXCEPTION 'never due';
		END IF;
		PERFORM pg_sleep(0.005);
	END LOOP;
END $$;
SELECT * FROM seen;
SELECT mq.drop_queue('n');                                      -- 55000: one is due in an hour
SELECT mq.drop_queue('n', force => true);

-- bad arguments change nothing
SELECT mq.create_queue('n');
SELECT mq.send('n', '1') > 0 AS sent;
SELECT receipt AS r FROM mq.receive('n', max_messages => 1, visibility_timeout => '1 hour') \gset
SELECT mq.nack(:'r'::uuid, '-1 second');                        -- 22023
SELECT mq.nack(:'r'::uuid, '366 days');                         -- 22023
SELECT mq.nack(:'r'::uuid, '100000000 years');                  -- 22023
SELECT mq.nack(NULL::uuid);                                     -- 22004
SELECT mq.nack_batch(NULL::uuid[]);                                   -- 22004
SELECT mq.nack_batch(array[:'r', NULL]::uuid[]);                      -- 22004
SELECT mq.nack_batch(array[:'r', :'r']::uuid[]);                      -- 22023
SELECT mq.nack_batch(array[:'r', :'r']::uuid[], strict => false);     -- 22023
SELECT mq.nack_batch(array[:'r', gen_random_uuid()::text]::uuid[]);   -- MQ001
SELECT mq.nack_batch(array[:'r']::uuid[], '-1 second');               -- 22023
SELECT mq.nack_batch(array[:'r']::uuid[], strict => NULL);            -- 22004
SELECT mq.nack(gen_random_uuid());                              -- MQ001
SELECT mq.release(NULL::uuid);                                  -- 22004
SELECT mq.release_batch(NULL::uuid[]);                                -- 22004
SELECT mq.release_batch(array[:'r', :'r']::uuid[]);                   -- 22023
SELECT mq.release_batch(array[:'r', gen_random_uuid()::text]::uuid[]); -- MQ001
SELECT mq.release(gen_random_uuid());                           -- MQ001
SELECT mq.extend(:'r'::uuid, NULL);                             -- 22004
SELECT mq.extend(NULL::uuid, '1 hour');                         -- 22004
SELECT mq.extend(:'r'::uuid, '0');                              -- 22023
SELECT mq.extend(:'r'::uuid, '-1 hour');                        -- 22023
SELECT mq.extend(:'r'::uuid, '366 days');                       -- 22023
SELECT mq.extend(:'r'::uuid, '100000000 years');                -- 22023
SELECT mq.extend_batch(array[:'r', :'r']::uuid[], '1 hour');          -- 22023
SELECT mq.extend_batch(array[:'r', gen_random_uuid()::text]::uuid[], '1 hour'); -- MQ001
SELECT mq.extend(gen_random_uuid(), '1 hour');                  -- MQ001
SELECT state, attempt, failures, lease_until - clock_timestamp() BETWEEN interval '55 minutes' AND interval '1 hour' AS lease_as_it_was
  FROM mq.in_flight WHERE queue = 'n';
-- infinity is an interval from 17 on (before, it is no interval at all)
DO $$
DECLARE call text;
BEGIN
	FOREACH call IN ARRAY array['mq.receive(''n'', max_messages => 1, visibility_timeout => ''%s'')', 'mq.nack(gen_random_uuid(), ''%s'')', 'mq.extend(gen_random_uuid(), ''%s'')',
	                            'mq.nack_batch(array[gen_random_uuid()], ''%s'')', 'mq.extend_batch(array[gen_random_uuid()], ''%s'')'] LOOP
		BEGIN
			EXECUTE 'SELECT ' || format(call, 'infinity');
			RAISE EXCEPTION 'accepted: %', call;
		EXCEPTION WHEN invalid_datetime_format OR invalid_parameter_value THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT mq.nack_batch(array[]::uuid[]), mq.release_batch(array[]::uuid[]), mq.extend_batch(array[]::uuid[], '1 hour');

-- strict => false tells the refused
SELECT mq.nack_batch(array[:'r', '00000000-0000-0000-0000-000000000000']::uuid[], strict => false);
SELECT receipt AS r, attempt, failures FROM mq.receive('n') \gset
SELECT mq.release_batch(array[:'r', '00000000-0000-0000-0000-000000000000']::uuid[], strict => false);
SELECT receipt AS r, attempt, failures FROM mq.receive('n') \gset
SELECT mq.extend_batch(array['00000000-0000-0000-0000-000000000000', :'r']::uuid[], '1 hour', strict => false);
SELECT attempt, failures FROM mq.in_flight WHERE queue = 'n';

-- release: back, no failure counted; the hand-outs are
SELECT mq.release(:'r'::uuid);
SELECT mq.release(:'r'::uuid);                                  -- MQ001
SELECT receipt AS r, attempt, failures FROM mq.receive('n') \gset
\echo attempt :attempt failures :failures

-- extend: the lease ends that long from now, later or sooner
SELECT mq.extend(:'r'::uuid, '2 hours');
SELECT lease_until - clock_timestamp() BETWEEN interval '119 minutes' AND interval '2 hours' AS two_hours FROM mq.in_flight WHERE queue = 'n';
SELECT mq.extend(:'r'::uuid, '365 days');
SELECT mq.extend(:'r'::uuid, '1 minute');
SELECT lease_until - clock_timestamp() BETWEEN interval '50 seconds' AND interval '1 minute' AS one_minute FROM mq.in_flight WHERE queue = 'n';
SELECT mq.ack(:'r'::uuid);
SELECT mq.drop_queue('n');

-- they act at once: rollback does not take them back
SELECT mq.create_queue('n');
SELECT count(mq.send('n', to_jsonb(i))) FROM generate_series(1, 3) AS i;
SELECT (array_agg(receipt))[1] AS r1, (array_agg(receipt))[2] AS r2, (array_agg(receipt))[3] AS r3 FROM mq.receive('n', max_messages => 3, visibility_timeout => '1 minute') \gset
BEGIN;
SELECT mq.nack(:'r1'::uuid);
SELECT mq.release(:'r2'::uuid);
SELECT mq.extend(:'r3'::uuid, '10 hours');
ROLLBACK;
SELECT lease_until > clock_timestamp() + interval '9 hours' AS still_extended FROM mq.in_flight WHERE queue = 'n';
SELECT payload, attempt, failures FROM mq.receive('n', max_messages => 10);

-- and inside the transaction that received: given back before its end, others may have it, and its rollback counts nothing twice
SELECT mq.drop_queue('n', force => true);
SELECT mq.create_queue('n');
SELECT mq.send('n', '1') > 0 AS sent;
BEGIN;
SELECT receipt AS r FROM mq.receive('n') \gset
SELECT mq.nack(:'r'::uuid);
ROLLBACK;
SELECT attempt, failures FROM mq.receive('n');
SELECT mq.drop_queue('n', force => true);

-- after an ack in this transaction there is no lease to give back
SELECT mq.create_queue('n');
SELECT mq.send('n', '1') > 0 AS sent;
SELECT receipt AS r FROM mq.receive('n') \gset
BEGIN;
SELECT mq.ack(:'r'::uuid);
SAVEPOINT s;
SELECT mq.nack(:'r'::uuid);                                     -- MQ001
ROLLBACK TO s;
SELECT mq.release(:'r'::uuid);                                  -- MQ001
ROLLBACK TO s;
SELECT mq.extend(:'r'::uuid, '1 hour');                         -- MQ001
ROLLBACK TO s;
COMMIT;
SELECT count(*) FROM mq.receive('n');
SELECT mq.drop_queue('n');

-- order: what comes back comes first, it has the lower id
SELECT mq.create_queue('n');
SELECT count(mq.send('n', to_jsonb(i))) FROM generate_series(1, 6) AS i;
SELECT mq.release_batch(array_agg(receipt)) FROM mq.receive('n', max_messages => 3);
SELECT payload FROM mq.pop('n', max_messages => 10);
SELECT mq.drop_queue('n');
