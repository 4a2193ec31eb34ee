--
-- dml: the log is written by mq only
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('w');
SELECT count(mq.send('w', to_jsonb(i))) FROM generate_series(1, 3) AS i;
SELECT (SELECT tableoid::regclass FROM mq.q_w LIMIT 1) AS segment \gset

-- the parent
INSERT INTO mq.q_w (id, enqueued_at, payload) VALUES (1, now(), '1');   -- 55000, all of them
INSERT INTO mq.q_w SELECT * FROM mq.q_w;
UPDATE mq.q_w SET payload = '0';
UPDATE mq.q_w SET payload = '0' WHERE id < 0;
DELETE FROM mq.q_w;
DELETE FROM mq.q_w WHERE false;
TRUNCATE mq.q_w;
TRUNCATE mq.q_w CASCADE;
MERGE INTO mq.q_w USING (VALUES (1)) AS v (i) ON false WHEN NOT MATCHED THEN INSERT (id, enqueued_at, payload) VALUES (1, now(), '1');
COPY mq.q_w FROM stdin;
\.

-- the segment
INSERT INTO :segment SELECT * FROM mq.q_w;
UPDATE :segment SET payload = '0';
DELETE FROM :segment;
DELETE FROM ONLY :segment;
TRUNCATE :segment;

-- reading is plain SQL: in any order, by any column, as often as wanted
SELECT payload FROM mq.q_w ORDER BY id DESC;
SELECT count(*) FROM mq.q_w WHERE enqueued_at > now() - interval '1 hour';
SELECT payload FROM mq.q_w ORDER BY id LIMIT 1 FOR SHARE;
CREATE TEMP TABLE copied AS SELECT * FROM mq.q_w;

-- nothing was lost, nothing came twice
SELECT payload FROM mq.pop('w', max_messages => 10);
-- browsing shows finished ones too; depth comes from the views
SELECT count(*) FROM mq.q_w;
SELECT mq.drop_queue('w');
