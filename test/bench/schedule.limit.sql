-- A table like one of the schedule, with its two indexes, and one to move rows to.
CREATE TABLE bench.scheduled (
	id       bigint GENERATED ALWAYS AS IDENTITY,
	due_at   timestamptz NOT NULL,
	sent_at  timestamptz NOT NULL,
	queue_no integer NOT NULL,
	version  integer NOT NULL,
	kind     "char" NOT NULL,
	sender   text,
	headers  jsonb,
	payload  jsonb
);
CREATE INDEX ON bench.scheduled (queue_no, due_at, id);
CREATE INDEX ON bench.scheduled (queue_no, id, version);
CREATE TABLE bench.moved (id bigint NOT NULL, enqueued_at timestamptz NOT NULL, headers jsonb, payload jsonb, body bytea, sent_at timestamptz, due_at timestamptz, origin_id bigint);

CREATE OR REPLACE PROCEDURE bench.fill_scheduled(many bigint) LANGUAGE sql AS $$
	INSERT INTO bench.scheduled (due_at, sent_at, queue_no, version, kind, sender, payload)
	SELECT now(), now(), 1, 1, 's', current_user, bench.payload() FROM generate_series(1, many)
$$;
-- in batches of 1000, from the first one that is left on
CREATE OR REPLACE PROCEDURE bench.move_scheduled(many bigint) LANGUAGE plpgsql AS $$
DECLARE
	first bigint := (SELECT min(id) FROM bench.scheduled);
	begun timestamptz := clock_timestamp();
BEGIN
	FOR batch IN 0 .. many / 1000 - 1 LOOP
		INSERT INTO bench.moved SELECT id, clock_timestamp(), headers, payload, NULL, sent_at, due_at, id FROM bench.scheduled
		 WHERE queue_no = 1 AND id BETWEEN first + batch * 1000 AND first + batch * 1000 + 999;
		DELETE FROM bench.scheduled WHERE queue_no = 1 AND id BETWEEN first + batch * 1000 AND first + batch * 1000 + 999;
		COMMIT;
	END LOOP;
	DROP TABLE IF EXISTS bench.moved_rate;
	CREATE TABLE bench.moved_rate AS SELECT many / extract(epoch FROM clock_timestamp() - begun) AS rate;
END $$;

-- the same of a queue
CREATE OR REPLACE PROCEDURE bench.fill_due(many bigint, due timestamptz) LANGUAGE plpgsql AS $$
BEGIN
	FOR batch IN 1 .. many / 1000 LOOP
		PERFORM mq.send_batch('due', array_fill(bench.payload(), array[1000]), deliver_at => array[due]);
		COMMIT;
	END LOOP;
	IF clock_timestamp() > due THEN RAISE 'it took too long'; END IF;
	DROP TABLE IF EXISTS bench.due_rate;
	CREATE TABLE bench.due_rate AS SELECT many, due, 0::float8 AS rate;
END $$;
CREATE OR REPLACE PROCEDURE bench.wait_due() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(extract(epoch FROM due - clock_timestamp())) FROM bench.due_rate;
	WHILE (SELECT scheduled FROM mq.queues WHERE queue = 'due') > 0 LOOP
		COMMIT;
		PERFORM pg_sleep(0.002);
	END LOOP;
	UPDATE bench.due_rate SET rate = many / extract(epoch FROM clock_timestamp() - due);
END $$;
-- 5,000 due per second for 20 s, from two seconds on
CREATE OR REPLACE PROCEDURE bench.fill_stream() LANGUAGE plpgsql AS $$
DECLARE
	begin_at timestamptz := clock_timestamp() + interval '4 s';
BEGIN
	FOR batch IN 0 .. 99 LOOP
		PERFORM mq.send_batch('due_latency', array_fill(bench.payload(), array[1000]),
			deliver_at => (SELECT array_agg(begin_at + make_interval(secs => (batch * 1000 + i) / 5000.0)) FROM generate_series(1, 1000) i));
		COMMIT;
	END LOOP;
END $$;
