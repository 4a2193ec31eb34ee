--
-- views: what they say at each step of a message's way
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
\d mq.queues
\d mq.groups
\d mq.segments
\d mq.in_flight
\d mq.consumers
SELECT mq.create_queue('v', options => '{"segment_size": 4096}');
CREATE TEMP VIEW state AS
	SELECT ready + retrying AS ready, leased, settling, pending, unread_at_most, held_back FROM mq.groups WHERE queue = 'v' AND consumer_group = 'default';

SELECT queue, owner = current_user AS is_owner, queue_table, segment_size, segments > 0 AS has_segments FROM mq.queues;
SELECT queue, level, segment, segment_table::text ~ '^mq_internal\.s_\d+_0_\d+$' AS named_as_said, last_id - first_id + 1 AS ids, sealed, bytes >= 0 AS has_bytes
  FROM mq.segments WHERE queue = 'v' ORDER BY segment LIMIT 1;
SELECT * FROM state;

SELECT mq.send_batch('v', array(SELECT to_jsonb(i) FROM generate_series(1, 10) AS i)) AS ids \gset
SELECT next_id > (:'ids'::bigint[])[10] AS beyond_the_last FROM mq.queues WHERE queue = 'v';
SELECT ready, leased, settling, unread_at_most + ready >= 10 AS at_least_ten, held_back FROM state;

-- leased
SELECT array_agg(receipt) AS rs FROM mq.receive('v', max_messages => 4, visibility_timeout => '1 hour') \gset
SELECT leased, settling, ready + unread_at_most >= 6 AS at_least_six FROM state;
SELECT queue, consumer_group, id = any (:'ids'::bigint[]) AS known, state, attempt, failures, lease_until > clock_timestamp() AS ahead FROM mq.in_flight ORDER BY id;

-- settling while the ack is not committed
BEGIN;
SELECT mq.ack_batch((:'rs'::uuid[])[1:2]);
SELECT leased, settling FROM state;
SELECT state, count(*) FROM mq.in_flight GROUP BY state ORDER BY state;
COMMIT;
SELECT leased, settling FROM state;
SELECT low_watermark >= (:'ids'::bigint[])[3] AND low_watermark <= (:'ids'::bigint[])[3] AS everything_below_the_third_is_finished FROM mq.groups WHERE queue = 'v';

-- given back
SELECT mq.nack((:'rs'::uuid[])[3]);
SELECT mq.release((:'rs'::uuid[])[4]);
SELECT leased, settling, ready >= 2 AS two_ready FROM state;
SELECT count(*) FROM mq.in_flight;

-- finished
SELECT count(*) FROM mq.pop('v', max_messages => 100);
SELECT ready, leased, settling, pending FROM state;
SELECT low_watermark > (:'ids'::bigint[])[10] AS everything_is_finished FROM mq.groups WHERE queue = 'v';

-- own, not yet committed
BEGIN;
SELECT cardinality(mq.send_batch('v', array['1', '2']::jsonb[])) AS sent;
SELECT ready + pending + unread_at_most >= 2 AS counted_somewhere FROM state;
ROLLBACK;
SELECT count(*) FROM mq.receive('v', max_messages => 10);
SELECT ready, leased, settling, pending FROM state;

-- nothing of it can be written to
INSERT INTO mq.queues (queue) VALUES ('x');                     -- 55000
DELETE FROM mq.groups;                                          -- 55000
UPDATE mq.in_flight SET lease_until = now();                    -- 55000
SELECT mq.drop_queue('v');
SELECT count(*) FROM mq.groups;
SELECT count(*) FROM mq.segments;
