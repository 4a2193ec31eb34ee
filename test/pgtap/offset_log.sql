-- contract: the offset log is append-only and carries nothing that has to be maintained
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
CREATE TEMP TABLE ring AS
	SELECT * FROM pg_class WHERE relnamespace = 'mq_internal'::regnamespace AND relname ~ '^consumer_offset_\d+$' AND relkind = 'r';
SELECT plan(4);
SELECT is((SELECT count(*)::int FROM pg_index i JOIN ring r ON r.oid = i.indrelid), 0, 'no index');
SELECT is((SELECT count(*)::int FROM ring WHERE relpersistence <> 'p'), 0, 'logged');
SELECT is((SELECT count(*)::int FROM pg_constraint WHERE conrelid IN (SELECT oid FROM ring) AND contype <> 'n'), 0, 'no constraint but NOT NULL, which 18 lists too');
SELECT is((SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::int FROM pg_stat_all_tables WHERE relid IN (SELECT oid FROM ring)), 0, 'no row of it was ever updated or deleted');
SELECT * FROM finish();
ROLLBACK;
