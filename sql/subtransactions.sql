--
-- subtransactions: by the thousand, in one transaction
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('st');

-- sends: every second one is rolled back, each in its own subtransaction
DO $$
BEGIN
	FOR i IN 1..5000 LOOP
		BEGIN
			PERFORM mq.send('st', to_jsonb(i));
			IF i % 2 = 0 THEN
				RAISE EXCEPTION 'even';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT count(*), count(*) FILTER (WHERE payload::int % 2 = 1) AS odd, count(DISTINCT payload) AS different, min(payload::int), max(payload::int)
  FROM mq.pop('st', max_messages => 10000);

-- the same, and the transaction itself looks while it is open
DO $$
DECLARE
	n int := 0;
	done boolean;
BEGIN
	FOR i IN 1..3000 LOOP
		BEGIN
			PERFORM mq.send('st', to_jsonb(i));
			IF i % 3 = 0 THEN
				RAISE EXCEPTION 'third';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
	-- one call may return fewer than there are; until there are none
	FOR i IN 1..3000 LOOP
		SELECT n + count(*), count(*) = 0 INTO n, done FROM mq.receive('st', max_messages => 10000);
		EXIT WHEN done;
	END LOOP;
	IF n <> 2000 THEN
		RAISE EXCEPTION 'saw % of its own', n;
	END IF;
END $$;
SELECT count(*) AS leased FROM mq.in_flight WHERE queue = 'st';
SELECT mq.drop_queue('st', force => true);

-- receives and acks: a consumer that fails on every third message, each message in its own subtransaction
SELECT mq.create_queue('st');
SELECT cardinality(mq.send_batch('st', array(SELECT to_jsonb(i) FROM generate_series(1, 2000) AS i))) AS sent;
CREATE TEMP TABLE done (n int);
DO $$
DECLARE m mq.message;
BEGIN
	FOR i IN 1..5000 LOOP
		BEGIN
			SELECT * INTO m FROM mq.receive('st');
			EXIT WHEN m.id IS NULL;
			INSERT INTO done VALUES (m.payload::int);
			PERFORM mq.ack(m.receipt);
			IF m.payload::int % 3 = 0 AND m.failures = 0 THEN
				RAISE EXCEPTION 'third';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT count(*), count(DISTINCT n) FROM done;
SELECT count(*) FROM mq.receive('st', max_messages => 10);

-- nested three hundred deep: the outermost rolls back, then it commits
SELECT mq.create_queue('deep');
CREATE FUNCTION pg_temp.dive(depth int, fail boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF depth = 0 THEN
		RETURN;
	END IF;
	BEGIN
		PERFORM mq.send('deep', to_jsonb(depth));
		PERFORM mq.ack(receipt) FROM mq.receive('st');
		PERFORM pg_temp.dive(depth - 1, fail);
		IF fail AND depth = 300 THEN
			RAISE EXCEPTION 'surface';
		END IF;
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END;
END $$;
SELECT cardinality(mq.send_batch('st', array(SELECT to_jsonb(i) FROM generate_series(1, 300) AS i))) AS sent;
SELECT pg_temp.dive(300, true);
SELECT count(*) AS none FROM mq.receive('deep', max_messages => 1000);
SELECT count(*) AS in_flight FROM mq.in_flight WHERE queue = 'st';
SELECT pg_temp.dive(300, false);
SELECT count(*), count(DISTINCT payload) FROM mq.pop('deep', max_messages => 1000);
SELECT count(*) AS none_left FROM mq.receive('st', max_messages => 1000);
SELECT mq.drop_queue('deep');
SELECT mq.drop_queue('st');
