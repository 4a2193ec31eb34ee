DO $$
BEGIN
	FOR i IN 1..50 LOOP
		INSERT INTO bench.skip_locked (payload) SELECT payload FROM bench.rows;
	END LOOP;
END $$;
