DO $$
DECLARE
	batch jsonb[] := array(SELECT payload FROM bench.rows);
BEGIN
	FOR i IN 1..50 LOOP
		PERFORM mq.send_batch('send_batch', batch);
	END LOOP;
END $$;
