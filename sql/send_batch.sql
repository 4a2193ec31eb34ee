--
-- send_batch: many messages in one call
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('b');

-- one id per element, in the order of the elements
SELECT mq.send_batch('b', array['{"n": 1}', '{"n": 2}', '{"n": 3}']::jsonb[]) AS ids \gset
SELECT cardinality(:'ids'::bigint[]) AS ids;
SELECT (SELECT array_agg(i ORDER BY i) FROM unnest(:'ids'::bigint[]) AS i) = :'ids'::bigint[] AS ascending;
SELECT payload, id = (:'ids'::bigint[])[(payload->>'n')::int] AS own_id FROM mq.pop('b', max_messages => 10);

-- texts, headers, bodies
SELECT cardinality(mq.send_batch('b', array['{"t": 1}', '{"t": 2}']::jsonb[])) AS sent;
SELECT cardinality(mq.send_batch('b', array['{"t": 3}', '{"t": 4}']::jsonb[], array['{"h": 3}', NULL]::jsonb[])) AS sent;
SELECT cardinality(mq.send_batch('b', bodies => array['\x01', '\x02']::bytea[])) AS sent;
SELECT cardinality(mq.send_batch('b', array['5', NULL]::jsonb[], NULL, array[NULL, '\x06']::bytea[])) AS sent;
SELECT payload, headers, body FROM mq.pop('b', max_messages => 10);

-- empty
SELECT mq.send_batch('b', array[]::jsonb[]);
SELECT mq.send_batch('b', array[]::jsonb[]);
SELECT mq.send_batch('b', bodies => array[]::bytea[]);
SELECT mq.send_batch('b', array[]::jsonb[], array[]::jsonb[], array[]::bytea[]);

-- nulls
SELECT mq.send_batch(NULL, array['1']::jsonb[]);                                -- 22004
SELECT mq.send_batch('b', NULL::jsonb[]);                                       -- 22004
SELECT mq.send_batch('b');                                                      -- 22004
SELECT mq.send_batch('b', array['1', NULL]::jsonb[]);                            -- 22004
SELECT mq.send_batch('b', array['1', NULL]::jsonb[], NULL, array['\x01', NULL]::bytea[]); -- 22004
SELECT mq.send_batch('b', NULL::jsonb[], array['{}']::jsonb[]);                 -- 22004: headers alone

-- what comes later
SELECT mq.send_batch('b', '{1}', keys => '{k}');                                -- 0A000
SELECT mq.send_batch('b', '{1}', expires_in => '{1 s}');                        -- 0A000

-- headers
SELECT mq.send_batch('b', '{1,2}', '{"{}", 7}');                                -- 22023

-- shapes
SELECT mq.send_batch('b', array['1', '2', '3']::jsonb[], array['{}', '{}']::jsonb[]);      -- 22023
SELECT mq.send_batch('b', array['1', '2']::jsonb[], array['{}', '{}', '{}']::jsonb[]);     -- 22023
SELECT mq.send_batch('b', array['1', '2']::jsonb[], NULL, array['\x01', '\x02', '\x03']::bytea[]); -- 22023
SELECT mq.send_batch('b', array[]::jsonb[], array['{}', '{}']::jsonb[]);        -- 22023
SELECT mq.send_batch('b', array[]::jsonb[], array['{}']::jsonb[]);              -- 22023
SELECT mq.send_batch('b', array[['1', '2'], ['3', '4']]::jsonb[]);               -- 22023
SELECT mq.send_batch('b', array['1', '2', '3', '4']::jsonb[], array[['1', '2'], ['3', '4']]::jsonb[]); -- 22023
SELECT cardinality(mq.send_batch('b', '[7:8]={"70","80"}'::jsonb[])) AS other_lower_bound;
SELECT payload FROM mq.pop('b', max_messages => 10);

-- one bad element, nothing sent
SELECT mq.send_batch('b', array['1', 'nonsense']::jsonb[]);                              -- 22P02
\set VERBOSITY default
SELECT mq.send_batch('b', '{1,2,3}', '{"{}", "{}", 7}');                              -- whoever raises it: which element
SELECT mq.send_batch('b', array['1', NULL]::jsonb[]);
SELECT mq.send_batch('b', array['1', '2', '3']::jsonb[], array['{}', '{}']::jsonb[]);      -- no element's fault
\set VERBOSITY sqlstate
SELECT mq.send_batch('nothing', array['1']::jsonb[]);                                    -- 42704
SELECT mq.send_batch('nothing', array[]::jsonb[]);                               -- 42704
SET mq.max_message_size = '10kB';
SELECT mq.send_batch('b', array['1', to_jsonb(repeat('x', 20000))]::jsonb[]);   -- 54000
-- the limit is per message, not per call
SELECT cardinality(mq.send_batch('b', array_fill(to_jsonb(repeat('x', 5000)), array[10]))) AS sent;
RESET mq.max_message_size;
SELECT count(*), sum(length(payload #>> '{}')) FROM mq.pop('b', max_messages => 100);

-- many: pages and segments are crossed, order and ids hold
SELECT mq.create_queue('many', options => '{"segment_size": 1024}');
SELECT mq.send_batch('many', array(SELECT to_jsonb(i) FROM generate_series(1, 10000) AS i)) AS ids \gset
SELECT count(DISTINCT i) AS ids, array_agg(i ORDER BY i) = :'ids'::bigint[] AS ascending FROM unnest(:'ids'::bigint[]) AS i;
SELECT count(*), array_agg(payload::int ORDER BY id) = array(SELECT generate_series(1, 10000)) AS in_order,
       array_agg(id ORDER BY id) = :'ids'::bigint[] AS same_ids
  FROM mq.pop('many', max_messages => 20000);
SELECT count(*) > 9 AS several_segments FROM mq.segments WHERE queue = 'many';
SELECT mq.drop_queue('many');

-- sizes mixed in one call, some of them TOASTed
SELECT cardinality(mq.send_batch('b', bodies => array(SELECT decode(repeat(md5(n::text), n), 'hex') FROM generate_series(1, 1200, 7) AS n))) AS sent;
SELECT count(*), count(*) FILTER (WHERE body = decode(repeat(md5((length(body) / 16)::text), length(body) / 16), 'hex')) AS whole FROM mq.pop('b', max_messages => 1000);

-- savepoints roll back their part
BEGIN;
SELECT cardinality(mq.send_batch('b', array['"kept 1"', '"kept 2"']::jsonb[])) AS sent;
SAVEPOINT a;
SELECT cardinality(mq.send_batch('b', array['"gone 1"', '"gone 2"']::jsonb[])) AS sent;
ROLLBACK TO a;
SELECT cardinality(mq.send_batch('b', array['"kept 3"']::jsonb[])) AS sent;
COMMIT;
SELECT payload FROM mq.pop('b', max_messages => 10);
SELECT mq.drop_queue('b');
