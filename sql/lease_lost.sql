--
-- MQ001: which message, and in its DETAIL which receipts
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
SELECT mq.create_queue('ll'), mq.create_queue('ll2');
SELECT cardinality(mq.send_batch('ll', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 10) i))) AS sent, mq.send('ll2', '1') AS sent2;
CREATE TEMP TABLE held AS SELECT id, receipt FROM mq.receive('ll', max_messages => 10, visibility_timeout => '1 h');
CREATE TEMP TABLE other AS SELECT id, receipt FROM mq.receive('ll2', max_messages => 10, visibility_timeout => '1 h');

-- what a statement says, and the ids of the receipts that its DETAIL lists, in that order
CREATE FUNCTION pg_temp.said(what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE message text; detail text;
BEGIN
	BEGIN
		EXECUTE what;
		RAISE EXCEPTION SQLSTATE 'ZZ000' USING MESSAGE = 'done';
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
		IF SQLSTATE <> 'MQ001' THEN RETURN SQLSTATE || ' ' || message; END IF;
	END;
	RETURN message || ': ' || (SELECT string_agg(coalesce(h.id::text, 'other ' || o.id, 'unknown'), ' ' ORDER BY n)
		FROM jsonb_array_elements_text(detail::jsonb) WITH ORDINALITY d (r, n) LEFT JOIN held h ON h.receipt = d.r::uuid LEFT JOIN other o ON o.receipt = d.r::uuid);
END $$;
CREATE FUNCTION pg_temp.forms(ids text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT f || ': ' || pg_temp.said(format('SELECT mq.%s%s(%s%s)', f, CASE WHEN ids ~ 'array_agg|array' THEN '_batch' END, ids, CASE WHEN f = 'extend' THEN ', ''1 h''' END)) FROM unnest(array['ack', 'nack', 'release', 'extend']) f $$;

-- one of a run: it is named, not the first one
SELECT mq.ack(receipt) FROM held WHERE id = 4;
SELECT pg_temp.forms($$(SELECT array_agg(receipt ORDER BY id) FROM held)$$);
SELECT pg_temp.forms($$(SELECT receipt FROM held WHERE id = 4)$$);
SELECT count(*) AS leased_still FROM mq.in_flight WHERE queue = 'll' AND state = 'leased' AND failures = 0;
-- several, in the order of the argument
SELECT mq.ack_batch(array[receipt]) FROM held WHERE id IN (7, 8, 10);
SELECT pg_temp.forms($$(SELECT array_agg(receipt ORDER BY id DESC) FROM held)$$);
-- in one queue of two
SELECT pg_temp.forms($$(SELECT array_agg(receipt ORDER BY q, id) FROM (SELECT 2 AS q, * FROM held WHERE id < 6 UNION ALL SELECT 1, * FROM other) x)$$);
SELECT mq.release(receipt) FROM other;
SELECT pg_temp.forms($$(SELECT array_agg(receipt ORDER BY q, id) FROM (SELECT 2 AS q, * FROM held WHERE id < 6 UNION ALL SELECT 1, * FROM other) x)$$);

-- made up: no id is named, above all none that there is not
SELECT pg_temp.said(format('SELECT mq.ack(%L::uuid)', r)) FROM unnest(array['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff']) r;
SELECT pg_temp.said(format('SELECT mq.ack(%L::uuid)', overlay(receipt::text placing 'ffff' from 10))) FROM held WHERE id = 1;
SELECT pg_temp.said('SELECT mq.ack_batch(array[gen_random_uuid(), gen_random_uuid()])');
-- a group that is gone
CREATE TEMP TABLE gone AS SELECT receipt FROM mq.receive('ll2');
SELECT mq.drop_queue('ll2', force => true);
SELECT pg_temp.said(format('SELECT mq.ack(%L::uuid)', receipt)) FROM gone;
SELECT regexp_replace(pg_temp.said(format('SELECT mq.ack_batch(array[%L, %1$L]::uuid[])', receipt)), '[0-9a-f-]{36}', 'R') FROM held WHERE id = 1;

-- all of it, once
\set SHOW_CONTEXT never
SELECT mq.ack('ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid);
-- what does not hold any more is left out, the rest is done
SELECT (SELECT array_agg(h.id ORDER BY h.id) FROM held h WHERE h.receipt = ANY (refused)) AS refused FROM mq.ack_batch((SELECT array_agg(receipt) FROM held), strict => false) refused;
SELECT mq.drop_queue('ll');
