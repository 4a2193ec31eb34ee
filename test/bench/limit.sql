-- The plain tables that mq is measured against.
CREATE SCHEMA bench;

CREATE TABLE bench.plain (
	id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	payload     jsonb NOT NULL
);

-- the payload of every message in this benchmark
CREATE FUNCTION bench.payload() RETURNS jsonb LANGUAGE sql IMMUTABLE
AS $$ SELECT '{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb $$;
