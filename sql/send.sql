--
-- send: payload, headers, body, nulls, JSON, sizes
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('s');

-- ids grow
SELECT mq.send('s', '{"n": 1}') AS first \gset
SELECT mq.send('s', '{"n": 2}') > :first AS grows;
SELECT payload, headers, body, key, priority, routing_key, due_at, expires_at, last_reason, dedup_id, queue, consumer_group, attempt, failures
  FROM mq.pop('s', max_messages => 10);

-- positional and by name, and from columns and parameters
SELECT mq.send('s', '{"a": "literal"}') > 0 AS sent;
SELECT mq.send('s', '{"a": "jsonb"}'::jsonb) > 0 AS sent;
SELECT mq.send('s', '{"a": "text"}'::text) > 0 AS sent;       -- 42883: what is typed text or json needs a cast
SELECT mq.send('s', '{"a": "json"}'::json) > 0 AS sent;       -- 42883
SELECT mq.send(queue => 's', payload => '{"a": "named"}') > 0 AS sent;
SELECT mq.send('s', headers => '{"h": 1}', payload => jsonb_build_object('a', 'built')) > 0 AS sent;
PREPARE by_text(text) AS SELECT mq.send('s', $1::jsonb) > 0 AS sent;
PREPARE by_jsonb(jsonb) AS SELECT mq.send('s', $1) > 0 AS sent;
PREPARE untyped AS SELECT mq.send('s', $1) > 0 AS sent;
EXECUTE by_text('{"a": "prepared text"}');
EXECUTE by_jsonb('{"a": "prepared jsonb"}');
EXECUTE untyped('{"a": "prepared, no type"}');
SELECT payload, headers FROM mq.pop('s', max_messages => 100);

-- headers and body
SELECT mq.send('s', '{}', '{"trace": "abc"}') > 0 AS sent;
SELECT mq.send('s', body => '\x00ff00') > 0 AS sent;
SELECT mq.send('s', body => '') > 0 AS sent;                    -- an empty body is a body
SELECT mq.send('s', '{"both": true}', NULL, '\x01') > 0 AS sent;
SELECT mq.send('s', 'null') > 0 AS sent;                        -- JSON null is a payload
SELECT mq.send('s', '"string"') > 0 AS sent;
SELECT mq.send('s', '12.50') > 0 AS sent;
SELECT mq.send('s', '[]') > 0 AS sent;
SELECT payload, headers, body, payload IS NULL AS p_null, body IS NULL AS b_null FROM mq.pop('s', max_messages => 100);

-- headers are an object, or none; its names do not begin with mq.
SELECT mq.send('s', '1', 'null') > 0 AS sent;                   -- JSON null: none
SELECT mq.send('s', '2', '{}') > 0 AS sent;
SELECT mq.send('s', '3', '{"a": {"mq.b": 1}, "mq": 2, "xmq.c": 3}') > 0 AS sent;
SELECT payload, headers FROM mq.pop('s', max_messages => 100);
SELECT mq.send('s', '1', '"x"');                                -- 22023
SELECT mq.send('s', '1', '[1]');                                -- 22023
SELECT mq.send('s', '1', '{"a": 1, "mq.dead_letter": 1}');      -- 22023
SELECT mq.send('s', '1', '{"mq.": 1}');                         -- 22023

-- what comes later
SELECT mq.send('s', '1', key => 'k');                           -- 0A000
SELECT mq.send('s', '1', routing_key => 'k');                   -- 0A000
SELECT mq.send('s', '1', priority => 0);                        -- 0A000
SELECT mq.send('s', '1', expires_in => '1 s');                  -- 0A000
SELECT mq.send('s', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) > 0 AS sent;
SELECT payload FROM mq.pop('s');

-- nulls
SELECT mq.send(NULL, '{}');                                     -- 22004
SELECT mq.send('s', NULL);                                      -- 22004
SELECT mq.send('s', NULL::jsonb);                               -- 22004
SELECT mq.send('s');                                            -- 22004
SELECT mq.send('s', NULL, '{"only": "headers"}');               -- 22004
SELECT mq.send(NULL, NULL);                                     -- 22004

-- what is not JSON
SELECT mq.send('s', '');                                        -- 22P02
SELECT mq.send('s', 'hello');                                   -- 22P02
SELECT mq.send('s', '{"a": }');                                 -- 22P02
SELECT mq.send('s', '{} {}');                                   -- 22P02
SELECT mq.send('s', '"\u0000"');                                -- 22P05
SELECT mq.send('s', '{}', 'not json');                          -- 22P02
SELECT mq.send('nothing', '{}');                                -- 42704
SELECT mq.send('', '{}');                                       -- 42704
SELECT mq.send(repeat('x', 100000), '{}');                      -- 42704
SELECT count(*) AS nothing_of_it_arrived FROM mq.receive('s', max_messages => 100);

-- the same time for messages of one transaction is not promised, order is: enqueued_at grows with id
SELECT count(mq.send('s', to_jsonb(i))) FROM generate_series(1, 50) AS i;
SELECT array_agg(payload::int ORDER BY id) = array_agg(payload::int ORDER BY enqueued_at, id) AS time_follows_id,
       bool_and(enqueued_at BETWEEN now() - interval '5 minutes' AND clock_timestamp()) AS sane
  FROM mq.pop('s', max_messages => 100);

-- sizes: 1 byte to the limit, compressible and not, each read back whole
CREATE FUNCTION pg_temp.noise(n int) RETURNS bytea LANGUAGE sql IMMUTABLE AS
$$ SELECT substr(string_agg(sha256(int4send(i)), ''), 1, n) FROM generate_series(1, n / 32 + 1) AS i $$;
SELECT count(mq.send('s', body => pg_temp.noise(n)))
  FROM unnest(array[1, 2, 31, 100, 500, 1000, 1900, 1990, 1996, 2000, 2010, 2032, 2048, 4000, 8000, 8100, 8160, 8192, 20000, 65536, 100001, 1000000]) AS n;
SELECT count(*), count(*) FILTER (WHERE body = pg_temp.noise(length(body))) AS whole, sum(length(body)) FROM mq.pop('s', max_messages => 100);
SELECT count(mq.send('s', to_jsonb(repeat('compressible ', n)), jsonb_build_object('n', n)))
  FROM unnest(array[1, 10, 100, 150, 200, 1000, 10000, 100000, 1000000]) AS n;
SELECT count(*), count(*) FILTER (WHERE payload = to_jsonb(repeat('compressible ', (headers->>'n')::int))) AS whole FROM mq.pop('s', max_messages => 100);
SELECT count(mq.send('s', to_jsonb(encode(pg_temp.noise(n), 'hex')), jsonb_build_object('h', encode(pg_temp.noise(n), 'base64')), pg_temp.noise(n)))
  FROM unnest(array[300, 700, 900, 2000, 3000, 30000, 300000]) AS n;
SELECT count(*), count(*) FILTER (WHERE payload = to_jsonb(encode(body, 'hex')) AND headers->>'h' = encode(body, 'base64')) AS whole FROM mq.pop('s', max_messages => 100);

-- a value that is already toasted elsewhere
CREATE TEMP TABLE source AS SELECT to_jsonb(encode(pg_temp.noise(50000), 'hex')) AS doc, pg_temp.noise(70000) AS raw;
SELECT mq.send('s', doc, NULL, raw) > 0 AS sent FROM source;
TRUNCATE source;
SELECT length(payload::text), length(body), body = pg_temp.noise(70000) AS whole FROM mq.pop('s');

-- the limit: 16 MB unless set
SELECT mq.send('s', body => pg_temp.noise(16 * 1024 * 1024 - 1024)) > 0 AS sent;
SELECT length(body), body = pg_temp.noise(length(body)) AS whole FROM mq.pop('s');
SELECT mq.send('s', body => pg_temp.noise(16 * 1024 * 1024 + 1));       -- 54000
SET mq.max_message_size = '64kB';
SELECT mq.send('s', body => pg_temp.noise(60000)) > 0 AS sent;
SELECT mq.send('s', body => pg_temp.noise(70000));                      -- 54000
SELECT mq.send('s', to_jsonb(encode(pg_temp.noise(40000), 'hex')));     -- 54000
SELECT mq.send('s', encode(pg_temp.noise(40000), 'hex')::jsonb);        -- 22P02
SELECT mq.send('s', '{}', jsonb_build_object('h', encode(pg_temp.noise(40000), 'hex'))); -- 54000: headers count too
SELECT mq.send('s', to_jsonb(repeat('x', 70000)));                      -- 54000: compressible or not
RESET mq.max_message_size;
SELECT length(body) FROM mq.pop('s', max_messages => 100);

-- a failed send takes its transaction with it; caught, nothing of it stays
BEGIN;
SELECT mq.send('s', '"lost with it"') > 0 AS sent;
SELECT mq.send('s', '{');
SELECT mq.send('s', '"too late"');                                      -- 25P02
COMMIT;
DO $$
BEGIN
	PERFORM mq.send('s', '"before"');
	BEGIN
		PERFORM mq.send('s', '"inside"');
		PERFORM mq.send('s', 'oops');
	EXCEPTION WHEN invalid_text_representation THEN
		NULL;
	END;
	PERFORM mq.send('s', '"after"');
END $$;
SELECT payload FROM mq.pop('s', max_messages => 100);

SELECT mq.drop_queue('s');
