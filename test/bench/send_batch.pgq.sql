DO $$
BEGIN
	FOR i IN 1..50 LOOP
		PERFORM pgq.insert_event('bench', 'order', payload::text) FROM bench.rows;
	END LOOP;
END $$;
