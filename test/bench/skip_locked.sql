-- The queue that most people write: a table, a visibility timeout, FOR UPDATE SKIP LOCKED.
CREATE TABLE bench.skip_locked (
	id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	visible_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
	attempt     int NOT NULL DEFAULT 0,
	payload     jsonb NOT NULL
);
CREATE INDEX ON bench.skip_locked (visible_at);

CREATE PROCEDURE bench.fill_skip_locked(many bigint) LANGUAGE sql AS $$
	INSERT INTO bench.skip_locked (payload) SELECT bench.payload() FROM generate_series(1, many);
$$;
