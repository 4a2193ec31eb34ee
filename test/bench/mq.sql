-- Queues, and tables that look like them.
CREATE EXTENSION mq;

-- sends many messages to a queue, 10000 per transaction
CREATE PROCEDURE bench.fill_mq(queue text, many bigint) LANGUAGE plpgsql AS $$
DECLARE
	batch jsonb[] := array_fill(bench.payload(), array[10000]);
BEGIN
	WHILE many > 0 LOOP
		PERFORM mq.send_batch(queue, batch[1:least(many, 10000)]);
		COMMIT;
		many := many - 10000;
	END LOOP;
END $$;

-- a thousand rows as they lie in a queue's table, and as they come from receive; a bare heap for the former
SELECT mq.create_queue('rows');
CALL bench.fill_mq('rows', 1000);
CREATE TABLE bench.rows (LIKE mq.q_rows);
INSERT INTO bench.rows SELECT * FROM mq.q_rows ORDER BY id;
CREATE TABLE bench.bare (LIKE mq.q_rows);
CREATE TABLE bench.messages AS SELECT * FROM mq.receive('rows', max_messages => 1000);
SELECT mq.drop_queue('rows', force => true);
VACUUM ANALYZE bench.rows, bench.messages;
