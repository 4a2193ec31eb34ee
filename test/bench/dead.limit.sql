-- Two tables like a log: rows of one are copied to the other, with what a dead letter has more.
CREATE TABLE bench.letters (id bigint PRIMARY KEY, enqueued_at timestamptz NOT NULL, headers jsonb, payload jsonb, body bytea);
CREATE TABLE bench.graves (id bigint GENERATED ALWAYS AS IDENTITY, enqueued_at timestamptz NOT NULL, headers jsonb, payload jsonb, body bytea, sent_at timestamptz, origin_id bigint, origin_queue integer, target_group integer, attempt integer, failures integer, reason text, death jsonb);

CREATE OR REPLACE PROCEDURE bench.fill_letters(many bigint) LANGUAGE sql AS $$
	INSERT INTO bench.letters SELECT i, now(), NULL, bench.payload() FROM generate_series(1, many) i
$$;
CREATE OR REPLACE PROCEDURE bench.bury_letters(many bigint) LANGUAGE plpgsql AS $$
DECLARE
	begun timestamptz := clock_timestamp();
BEGIN
	FOR batch IN 0 .. many / 1000 - 1 LOOP
		INSERT INTO bench.graves (enqueued_at, headers, payload, body, sent_at, origin_id, origin_queue, target_group, attempt, failures, reason, death)
		SELECT clock_timestamp(), headers, payload, body, enqueued_at, id, 1, 1, 1, 1, 'no stock',
			jsonb_build_array(jsonb_build_object('queue', 'dead', 'consumer_group', 'default', 'id', id, 'attempt', 1, 'failures', 1, 'reason', 'no stock', 'dead_at', clock_timestamp()))
		  FROM bench.letters WHERE id BETWEEN batch * 1000 + 1 AND batch * 1000 + 1000;
		COMMIT;
	END LOOP;
	DROP TABLE IF EXISTS bench.dead_rate;
	CREATE TABLE bench.dead_rate AS SELECT many / extract(epoch FROM clock_timestamp() - begun) AS rate;
END $$;

CREATE OR REPLACE PROCEDURE bench.fill_dead(many bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOR batch IN 1 .. many / 1000 LOOP
		PERFORM mq.send_batch('dead', array_fill(bench.payload(), array[1000]));
		COMMIT;
	END LOOP;
	PERFORM mq.dead_letter(receipt) FROM mq.receive('dead');
	-- the queue for dead letters is there
	WHILE (SELECT dead FROM mq.groups WHERE queue = 'dead') > 0 LOOP
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
-- from the moment they are dead; the worker looks once a second, which is counted
CREATE OR REPLACE PROCEDURE bench.bury_dead(many bigint) LANGUAGE plpgsql AS $$
DECLARE
	begun timestamptz;
BEGIN
	begun := clock_timestamp();
	PERFORM mq.dead_letter_batch((SELECT array_agg(receipt) FROM mq.receive('dead', max_messages => many::integer)), reason => 'no stock');
	COMMIT;
	begun := clock_timestamp();
	WHILE (SELECT dead FROM mq.groups WHERE queue = 'dead') > 0 LOOP
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
	DROP TABLE IF EXISTS bench.dead_rate;
	CREATE TABLE bench.dead_rate AS SELECT (many - 1) / extract(epoch FROM clock_timestamp() - begun) AS rate;
END $$;
