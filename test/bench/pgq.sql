-- PgQ: events are read in batches, from tick to tick.
CREATE EXTENSION pgq;
SELECT pgq.create_queue('bench');
SELECT pgq.set_queue_config('bench', 'ticker_max_count', '1');      -- a tick whenever asked, if there is an event
SELECT pgq.set_queue_config('bench', 'ticker_max_lag', '0');
SELECT pgq.set_queue_config('bench', 'ticker_idle_period', '0');
SELECT pgq.register_consumer('bench', 'reader');

-- inserts batches of 1000 events with a tick after each
CREATE PROCEDURE bench.fill_pgq(batches int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgq.ticker();
	COMMIT;
	FOR b IN 1..batches LOOP
		PERFORM pgq.insert_event('bench', 'order', bench.payload()::text) FROM generate_series(1, 1000);
		COMMIT;
		PERFORM pgq.ticker();
		COMMIT;
	END LOOP;
END $$;
