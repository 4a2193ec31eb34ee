--
-- leaf: what our direct append would bypass is refused with a clear error, never silently skipped
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('l');
SELECT mq.send('l', '"first"') > 0 AS sent;
SELECT (SELECT tableoid::regclass FROM mq.q_l LIMIT 1) AS segment \gset

-- each of these makes send raise (55000), and undone it works again
CREATE INDEX l_idx ON mq.q_l (enqueued_at);
SELECT mq.send('l', '"with an index"');
DROP INDEX mq.l_idx;
SELECT mq.send('l', '"after the index"') > 0 AS sent;

CREATE INDEX l_idx ON :segment (enqueued_at);
SELECT mq.send('l', '"with an index on the segment"');
SELECT mq.send_batch('l', array['"with an index on the segment"']::jsonb[]);
DROP INDEX mq_internal.l_idx;

CREATE FUNCTION public.l_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER l_t AFTER INSERT ON :segment FOR EACH ROW EXECUTE FUNCTION public.l_trigger();
SELECT mq.send('l', '"with a trigger"');
DROP TRIGGER l_t ON :segment;
SELECT mq.send('l', '"after the trigger"') > 0 AS sent;
DROP FUNCTION public.l_trigger();

ALTER TABLE :segment ADD CONSTRAINT l_check CHECK (payload IS NOT NULL);
SELECT mq.send('l', '"with a check"');
ALTER TABLE :segment DROP CONSTRAINT l_check;
SELECT mq.send('l', '"after the check"') > 0 AS sent;

ALTER TABLE mq.q_l ADD COLUMN extra int;
SELECT mq.send('l', '"with a column"');
ALTER TABLE mq.q_l DROP COLUMN extra;

ALTER TABLE :segment ENABLE ROW LEVEL SECURITY;
SELECT mq.send('l', '"with row security"');
ALTER TABLE :segment DISABLE ROW LEVEL SECURITY;
SELECT mq.send('l', '"after row security"') > 0 AS sent;

ALTER TABLE mq.q_l ENABLE ROW LEVEL SECURITY;
SELECT mq.send('l', '"with row security on the queue"');
ALTER TABLE mq.q_l DISABLE ROW LEVEL SECURITY;

-- what was sent before is received meanwhile
CREATE INDEX l_idx ON :segment (enqueued_at);
SELECT payload FROM mq.pop('l', max_messages => 10);
DROP INDEX mq_internal.l_idx;
SELECT mq.send('l', '"last"') > 0 AS sent;
SELECT payload FROM mq.pop('l', max_messages => 10);

-- a column of another type
ALTER TABLE mq.q_l ALTER COLUMN body TYPE text USING NULL;
SELECT mq.send('l', '"with another type"');
SELECT mq.send('l', '"with another type"', body => '\x0102');
ALTER TABLE mq.q_l ALTER COLUMN body TYPE bytea USING NULL;
SELECT mq.send('l', '"right type again"') > 0 AS sent;
SELECT payload, body FROM mq.pop('l', max_messages => 10);
SELECT mq.drop_queue('l');
