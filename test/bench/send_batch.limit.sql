DO $$
BEGIN
	FOR i IN 1..50 LOOP
		INSERT INTO bench.bare SELECT * FROM bench.rows;
	END LOOP;
END $$;
