--
-- callers: wherever SQL can call a function
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate
SELECT mq.create_queue('c');
CREATE TEMP VIEW in_flight AS SELECT state, count(*) FROM mq.in_flight WHERE queue = 'c' GROUP BY state ORDER BY state;

-- triggers: at once, per statement, and at commit
CREATE TABLE public.mq_orders (id int PRIMARY KEY, total numeric);
CREATE FUNCTION public.mq_on_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM mq.send('c', jsonb_build_object('when', TG_ARGV[0], 'id', NEW.id));
	RETURN NEW;
END $$;
CREATE TRIGGER before_row BEFORE INSERT ON public.mq_orders FOR EACH ROW EXECUTE FUNCTION public.mq_on_order('before');
CREATE TRIGGER after_row AFTER INSERT ON public.mq_orders FOR EACH ROW EXECUTE FUNCTION public.mq_on_order('after');
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON public.mq_orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.mq_on_order('commit');
INSERT INTO public.mq_orders VALUES (1, 10), (2, 20);
SELECT payload FROM mq.pop('c', max_messages => 100);
BEGIN;
INSERT INTO public.mq_orders VALUES (3, 30);
SELECT payload FROM mq.pop('c', max_messages => 100);                           -- the deferred one is not sent yet
COMMIT;
SELECT payload FROM mq.pop('c', max_messages => 100);
INSERT INTO public.mq_orders VALUES (4, 40), (1, 10);           -- 23505: no message of 4
SELECT payload FROM mq.pop('c', max_messages => 100);
BEGIN;
INSERT INTO public.mq_orders VALUES (5, 50) ON CONFLICT DO NOTHING;
ROLLBACK;
SELECT payload FROM mq.pop('c', max_messages => 100);
INSERT INTO public.mq_orders VALUES (1, 10) ON CONFLICT DO NOTHING;
SELECT payload FROM mq.pop('c', max_messages => 100);                           -- before triggers fire for rows that conflict
-- one that fails at commit takes everything back, what was received too
CREATE FUNCTION public.mq_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'P0009'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON public.mq_orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.total < 0) EXECUTE FUNCTION public.mq_refuse();
SELECT mq.send('c', '"work"') > 0 AS sent;
BEGIN;
SELECT mq.ack(receipt) FROM mq.receive('c');
INSERT INTO public.mq_orders VALUES (6, -1);
COMMIT;                                                         -- P0009
SELECT payload, attempt, failures FROM mq.pop('c', max_messages => 100);
-- a trigger that receives and acks at commit
CREATE FUNCTION public.mq_consume() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM mq.ack(receipt) FROM mq.receive('c', max_messages => 10);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER consume AFTER UPDATE ON public.mq_orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.mq_consume();
SELECT mq.send_batch('c', array['"a"', '"b"']::jsonb[]) IS NOT NULL AS sent;
UPDATE public.mq_orders SET total = 0 WHERE id = 1;
SELECT count(*) FROM mq.receive('c', max_messages => 10);
SELECT * FROM in_flight;
DROP TABLE public.mq_orders;
DROP FUNCTION public.mq_on_order(), public.mq_refuse(), public.mq_consume();

-- prepared statements outlive the queue they were prepared for
PREPARE s(jsonb) AS SELECT mq.send('c', $1) > 0 AS sent;
PREPARE r AS SELECT payload FROM mq.pop('c', max_messages => 10);
EXECUTE s('1'); EXECUTE s('2'); EXECUTE s('3'); EXECUTE s('4'); EXECUTE s('5'); EXECUTE s('6'); EXECUTE s('7');
EXECUTE r;
SELECT mq.drop_queue('c');
EXECUTE s('8');                                                 -- 42704
EXECUTE r;                                                      -- 42704
SELECT mq.create_queue('c');
EXECUTE s('9');
EXECUTE r;
DISCARD ALL;
SET client_min_messages = warning;
SELECT mq.send('c', '10') > 0 AS sent;

-- looking at the plan is not receiving
EXPLAIN (COSTS OFF) SELECT * FROM mq.receive('c', max_messages => 10);
SELECT count(*) FROM mq.in_flight WHERE queue = 'c';
DO $$ BEGIN EXECUTE 'EXPLAIN ANALYZE SELECT * FROM mq.receive(''c'', max_messages => 10)'; END $$;
SELECT state, attempt FROM mq.in_flight WHERE queue = 'c';      -- EXPLAIN ANALYZE is
SELECT mq.drop_queue('c', force => true);

-- what is not evaluated is not done
SELECT mq.create_queue('c');
SELECT CASE WHEN false THEN mq.send('c', '1') END, coalesce(0, mq.send('c', '1'));
SELECT mq.send('c', '1') FROM generate_series(1, 0);
SELECT count(*) FROM mq.receive('c', max_messages => 10);

-- CREATE TABLE AS, INSERT ... SELECT, COPY, set operations, LATERAL, aggregates
SELECT count(mq.send('c', to_jsonb(i))) FROM generate_series(1, 20) AS i;
CREATE TEMP TABLE taken AS SELECT * FROM mq.receive('c', max_messages => 2);
INSERT INTO taken SELECT * FROM mq.receive('c', max_messages => 2);
SELECT payload FROM taken ORDER BY id;
COPY (SELECT payload FROM mq.receive('c', max_messages => 2)) TO stdout;
SELECT payload FROM mq.receive('c', max_messages => 1) UNION ALL SELECT payload FROM mq.receive('c', max_messages => 1);
SELECT i, m.payload FROM generate_series(1, 2) AS i, LATERAL mq.receive('c', max_messages => 1) AS m;          -- nothing of i in the call: it is made once
SELECT (SELECT payload FROM mq.receive('c')), (SELECT payload FROM mq.receive('c'));
SELECT jsonb_agg(payload ORDER BY id) FROM mq.receive('c', max_messages => 3);
SELECT payload FROM mq.receive('c', max_messages => 3) WHERE payload = '16';    -- leases three, shows one
SELECT count(*) AS leased FROM mq.in_flight WHERE queue = 'c';
SELECT mq.ack_batch(array_agg(receipt)) FROM taken;
SELECT payload FROM mq.pop('c', max_messages => 10);
SELECT mq.drop_queue('c', force => true);

-- views and SQL functions over receive; a view's owner lends no rights to the function
SELECT mq.create_queue('c');
CREATE VIEW public.mq_next AS SELECT payload FROM mq.receive('c');
CREATE FUNCTION public.mq_next_one() RETURNS jsonb LANGUAGE sql AS $$ SELECT payload FROM mq.pop('c') $$;
SELECT count(mq.send('c', to_jsonb(i))) FROM generate_series(1, 3) AS i;
SELECT * FROM public.mq_next;
SELECT public.mq_next_one();
CREATE ROLE regress_mq_viewer;
GRANT SELECT ON public.mq_next TO regress_mq_viewer;
SET ROLE regress_mq_viewer;
SELECT * FROM public.mq_next;                                   -- 42501
SELECT public.mq_next_one();                                    -- 42501
RESET ROLE;
DROP VIEW public.mq_next;
DROP FUNCTION public.mq_next_one();
DROP ROLE regress_mq_viewer;

-- a generated default: every row sends
CREATE TEMP TABLE auto (id int, message bigint DEFAULT mq.send('c', '"by default"'));
INSERT INTO auto (id) VALUES (1), (2);
SELECT payload FROM mq.pop('c', max_messages => 10);
SELECT mq.drop_queue('c', force => true);
