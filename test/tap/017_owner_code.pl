# A queue's owner cannot hang anything on the queue's table or its segments: the worker, who is a superuser, makes, seals and
# drops segments; superusers receive, browse and look at the views.
# Event triggers, which only a superuser can make, do not break any of it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time sleep);
use MqTest;

my $node = mq_node('owner_code', conf => "mq.drop_delay = 0\nlog_min_messages = log\nmq.segment_wait = '2 s'\n");

one($node, <<'SQL');
CREATE ROLE mallory LOGIN;
CREATE SCHEMA m AUTHORIZATION mallory;
GRANT USAGE ON SCHEMA t TO mallory; GRANT ALL ON ALL TABLES IN SCHEMA t TO mallory;
DO $$ BEGIN EXECUTE (SELECT format('GRANT EXECUTE ON FUNCTION %s TO mallory', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND proname = 'create_queue'); END $$;
SQL
my $m = session($node, user => 'mallory');
# The trap says in the server log (which no rollback takes back) who it runs as.  The immutable ones hide it.
$m->q(<<'SQL');
CREATE FUNCTION m.trap(what text) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN RAISE LOG 'TRAP RAN as % for %', current_user, what; RETURN true; END $f$;
CREATE FUNCTION m.imm(what text, x bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM m.trap(what); RETURN x; END $f$;
CREATE FUNCTION m.immb(what text, x bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN RETURN m.trap(what); END $f$;
CREATE FUNCTION m.trig() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM m.trap('trigger ' || tg_op); RETURN new; END $f$;
CREATE TABLE m.t (i int);
SQL
sub ran { my ($at) = @_; return [ substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $at) =~ /TRAP RAN as (.*)/g ]; }
{
	my $at = -s $node->logfile;
	$m->q("SELECT m.imm('itself', 1)");
	is(join(',', @{ ran($at) }), 'mallory for itself', 'the trap works');
}

# a queue that others see the worker work on, by which its turns are counted
one($node, "SELECT mq.create_queue('clock', options => jsonb_build_object('segment_size', 1024))");
sub turns
{
	my $until = one($node, "SELECT (next_id / 1024) + 2 FROM mq.queues WHERE queue = 'clock'");
	one($node, "SELECT count(*) FROM mq.send_batch('clock', array_fill('1'::jsonb, ARRAY[3072]))");
	one($node, "SELECT count(*) FROM mq.pop('clock', max_messages => 1000000)");
	return poll_until('the worker to go round', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'clock' AND segment < $until") eq '0' }, 40);
}

# %t: the queue's table, %s: one of its segments (the first, which will be sealed and dropped; the last, which is not in use yet)
my %attack = (
	'CHECK on the table'                => "ALTER TABLE %t ADD CHECK (m.immb('check', id))",
	'CHECK that is constant'            => "ALTER TABLE %t ADD CHECK (m.immb('constant check', 1))",
	'CHECK not validated'               => "ALTER TABLE %t ADD CHECK (m.immb('check not valid', id)) NOT VALID",
	'CHECK on the first segment'        => "ALTER TABLE %first ADD CHECK (m.immb('check on leaf', id))",
	'CHECK on the last segment'         => "ALTER TABLE %last ADD CHECK (m.immb('check on leaf', 1))",
	'DEFAULT on the table'              => "ALTER TABLE %t ALTER COLUMN headers SET DEFAULT to_jsonb(m.imm('default', 1))",
	'DEFAULT on the last segment'       => "ALTER TABLE %last ALTER COLUMN headers SET DEFAULT to_jsonb(m.imm('default on leaf', 1))",
	'trigger on the table'              => "CREATE TRIGGER a BEFORE INSERT OR UPDATE OR DELETE ON %t FOR EACH ROW EXECUTE FUNCTION m.trig()",
	'statement trigger on the table'    => "CREATE TRIGGER a BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %t EXECUTE FUNCTION m.trig()",
	'trigger on the first segment'      => "CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON %first FOR EACH ROW EXECUTE FUNCTION m.trig(); CREATE TRIGGER b BEFORE TRUNCATE ON %first EXECUTE FUNCTION m.trig()",
	'trigger with WHEN'                 => "CREATE TRIGGER a BEFORE INSERT ON %last FOR EACH ROW WHEN (m.trap('when')) EXECUTE FUNCTION m.trig()",
	'rule on the first segment'         => "CREATE RULE a AS ON INSERT TO %first DO ALSO SELECT m.trap('rule'); CREATE RULE b AS ON DELETE TO %first DO ALSO SELECT m.trap('rule')",
	'row security on the table'         => "ALTER TABLE %t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY a ON %t USING (m.trap('policy'))",
	'row security on the first segment' => "ALTER TABLE %first ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY a ON %first USING (m.trap('policy'))",
	'a domain column'                   => "CREATE DOMAIN m.dom AS bigint DEFAULT m.imm('domain default', 1) CHECK (m.immb('domain', VALUE)); ALTER TABLE %t ADD COLUMN x m.dom",
	'a generated column'                => "ALTER TABLE %t ADD COLUMN x bigint GENERATED ALWAYS AS (m.imm('generated', id)) STORED",
	'a default partition with a CHECK'  => "CREATE TABLE m.def_%q (LIKE %t); ALTER TABLE m.def_%q ADD CHECK (m.immb('default partition', 1)); ALTER TABLE %t ATTACH PARTITION m.def_%q DEFAULT",
	'replica identity'                  => "ALTER TABLE %t REPLICA IDENTITY FULL",
	'trigger disabled'                  => "ALTER TABLE %first DISABLE TRIGGER ALL",
	'another owner'                     => "ALTER TABLE %t OWNER TO mallory",
	'a reference'                       => "CREATE TABLE m.ref_%q (id bigint REFERENCES %t (id))",
	'a publication'                     => "CREATE PUBLICATION pub_%q FOR TABLE %t",
	'an inherited table of its own'     => "CREATE TABLE m.part (LIKE %t); ALTER TABLE m.part ADD CHECK (m.immb('own partition', id)); ALTER TABLE %t ATTACH PARTITION m.part FOR VALUES FROM (9000000000) TO (9000000001)",
	'statistics on an expression'       => "CREATE STATISTICS m.st ON (m.imm('statistics', id)), id FROM %first",
	# with CREATE on the schema, which only a superuser can give, indexes too
	'index on an expression, table'     => "CREATE INDEX ON %t ((m.imm('index', id)))",
	'index on a constant, table'        => "CREATE INDEX ON %t ((m.imm('constant index', 1)), id)",
	'partial index, table'              => "CREATE INDEX ON %t (id) WHERE m.immb('partial index', id)",
	'index on the first segment'        => "CREATE INDEX ON %first ((m.imm('index on leaf', id)))",
	'index on the last segment'         => "CREATE INDEX ON %last ((m.imm('index on leaf', id))) WHERE m.immb('partial index on leaf', 1)",
);
one($node, 'GRANT CREATE ON SCHEMA mq TO mallory');
my $start = -s $node->logfile;
my @queue;
for my $what (sort keys %attack)
{
	my $q = 'a' . @queue;
	push @queue, $q;
	$m->q("SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', 1024))");
	$m->q("SELECT count(*) FROM mq.send_batch('$q', array_fill('1'::jsonb, ARRAY[1500]))");
	my ($first, $last) = split / /, one($node, "SELECT min(segment_table::text) || ' ' || max(segment_table::text) FROM mq.segments WHERE queue = '$q'");
	(my $sql = $attack{$what}) =~ s/%t\b/mq.q_$q/g;
	$sql =~ s/%q\b/$q/g;
	$sql =~ s/%first/$first/g;
	$sql =~ s/%last/$last/g;
	my $state = $m->try("BEGIN; $sql; COMMIT");
	like($state, qr/^(42501|42830)$/, "$what: refused");
	$m->try('ROLLBACK');
	# mallory goes on, as far as mq lets it: some go to the next segment, all get finished
	$m->try("SELECT count(*) FROM mq.pop('$q', max_messages => 1000)");
	$m->try("SELECT count(*) FROM mq.send_batch('$q', array_fill('1'::jsonb, ARRAY[1500]))");
	$m->try("SELECT count(*) FROM mq.pop('$q', max_messages => 100000)");
}
ok(turns(), 'the worker goes round');
# superusers use them
for my $q (@queue)
{
	for my $sql ("SELECT count(*) FROM mq.receive('$q', max_messages => 10)", "SELECT count(*) FROM mq.browse('$q', states => '{finished}')", "SELECT count(*) FROM mq.browse('$q', states => '{ready}')", "SELECT mq.send('$q', '1')", "SELECT mq.seek('$q', 'default', start => 'earliest')", "SELECT count(*) FROM mq.pop('$q', max_messages => 100)",
		"SELECT mq.discard('$q', 'default', '{1,2,3}')", "SELECT mq.create_group('$q', 'x', start_time => '2020-01-01')", "SELECT mq.purge('$q')", "SELECT mq.alter_queue('$q', jsonb_build_object('retention', '1 ms', 'drop_unread', true))")
	{
		sqlstate($node, $sql);
	}
}
is(one($node, 'SELECT count(*) > 0 FROM mq.queues, mq.groups, mq.segments'), 't', 'superusers look at the views');
ok(turns(), 'the worker goes round');
my $ran = ran($start);
is(join("\n", sort keys %{ { map { $_ => 1 } grep { !/^mallory / } @$ran } }), '', "nothing ran as anybody else");
# the other queues go on
one($node, "SELECT t.put('clock', 'm', 3)");
is(one($node, "SELECT count(*) FROM mq.pop('clock', max_messages => 10)"), '3', 'other queues are not disturbed');
is(sqlstate($node, "SELECT mq.drop_queue('$_', force => true)"), '', "queue $_ can be dropped") for @queue;
$ran = ran($start);
is(join("\n", sort keys %{ { map { $_ => 1 } grep { !/^mallory / } @$ran } }), '', "nothing ran as anybody else while they were dropped");
one($node, 'REVOKE CREATE ON SCHEMA mq FROM mallory');

# --- settings of the role and the database do not reach the worker's statements ---------------------------------------------------
{
	$m->q(<<'SQL');
CREATE FUNCTION m.eq(a bigint, b bigint) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN PERFORM m.trap('operator'); RETURN true; END $f$;
CREATE FUNCTION m.eq(a integer, b integer) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN PERFORM m.trap('operator'); RETURN true; END $f$;
CREATE FUNCTION m.eq(a oid, b oid) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN PERFORM m.trap('operator'); RETURN true; END $f$;
CREATE FUNCTION m.eq(a name, b name) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN PERFORM m.trap('operator'); RETURN true; END $f$;
CREATE FUNCTION m.eq(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN PERFORM m.trap('operator'); RETURN true; END $f$;
CREATE OPERATOR m.= (FUNCTION = m.eq, LEFTARG = bigint, RIGHTARG = bigint);
CREATE OPERATOR m.= (FUNCTION = m.eq, LEFTARG = integer, RIGHTARG = integer);
CREATE OPERATOR m.= (FUNCTION = m.eq, LEFTARG = oid, RIGHTARG = oid);
CREATE OPERATOR m.= (FUNCTION = m.eq, LEFTARG = name, RIGHTARG = name);
CREATE OPERATOR m.= (FUNCTION = m.eq, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR m.< (FUNCTION = m.eq, LEFTARG = bigint, RIGHTARG = bigint);
CREATE FUNCTION m.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS $f$ BEGIN PERFORM m.trap('format'); RETURN 'x'; END $f$;
CREATE FUNCTION m.now() RETURNS timestamptz LANGUAGE plpgsql AS $f$ BEGIN PERFORM m.trap('now'); RETURN pg_catalog.now(); END $f$;
CREATE FUNCTION m.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $f$ BEGIN PERFORM m.trap('pg_notify'); END $f$;
CREATE FUNCTION m.count(int) RETURNS bigint LANGUAGE plpgsql AS $f$ BEGIN PERFORM m.trap('count'); RETURN 0; END $f$;
SQL
	my $w = backend_pid($node, 'mq worker');
	my $s = session($node);
	one($node, "ALTER DATABASE postgres SET search_path = m, pg_catalog, public; ALTER ROLE postgres SET search_path = m, pg_catalog; ALTER DATABASE postgres SET default_tablespace = pg_default");
	my $at = -s $node->logfile;
	$s->q("SELECT pg_terminate_backend($w)");
	poll_until('another worker', sub { my $p = $s->q("SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker'"); $p ne '' && $p ne $w });
	$m->q("SET search_path = pg_catalog; SELECT mq.create_queue('path', options => jsonb_build_object('segment_size', 1024, 'retention', '1 ms', 'drop_unread', true, 'notify_interval', '50 ms'))");
	$m->q("SELECT count(*) FROM mq.send_batch('path', array_fill('1'::jsonb, ARRAY[1000]))") for 1 .. 4;
	ok(poll_until('segments to be sealed and dropped', sub { $s->q("SELECT min(segment) > 1 FROM mq.segments WHERE queue = 'path'") eq 't' }, 40), 'the worker makes, seals and drops segments');
	is(join("\n", @{ ran($at) }), '', 'and runs no operator or function from the search_path of the database or its role');
	$s->q("ALTER DATABASE postgres RESET ALL; ALTER ROLE postgres RESET ALL");
	$s->close;
}

# --- event triggers ---------------------------------------------------------------------------------------------------------------------
{
	one($node, <<'SQL');
CREATE TABLE t.ddl (who name, ev text, tag text, what text);
GRANT INSERT ON t.ddl TO PUBLIC; GRANT USAGE ON SCHEMA t TO PUBLIC;
CREATE FUNCTION t.on_end() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN INSERT INTO t.ddl SELECT current_user, tg_event, tg_tag, object_identity FROM pg_event_trigger_ddl_commands(); END $f$;
CREATE FUNCTION t.on_drop() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN INSERT INTO t.ddl SELECT current_user, tg_event, tg_tag, object_identity FROM pg_event_trigger_dropped_objects(); END $f$;
CREATE FUNCTION t.on_start() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN INSERT INTO t.ddl VALUES (current_user, tg_event, tg_tag, NULL); END $f$;
CREATE EVENT TRIGGER a ON ddl_command_start EXECUTE FUNCTION t.on_start();
CREATE EVENT TRIGGER b ON ddl_command_end EXECUTE FUNCTION t.on_end();
CREATE EVENT TRIGGER c ON sql_drop EXECUTE FUNCTION t.on_drop();
CREATE EVENT TRIGGER d ON table_rewrite EXECUTE FUNCTION t.on_start();
SQL
	my $s = session($node, user => 'mallory');
	is($s->try("SELECT mq.create_queue('ev', groups => '{default,x}', options => jsonb_build_object('segment_size', 1024))"), '', 'event triggers: create_queue');
	is($s->try("SELECT mq.create_group('ev', 'y', start => 'earliest'); SELECT mq.grant('ev', 'send', 'public'); SELECT mq.grant('ev', 'consume', 'public'); SELECT mq.revoke('ev', 'consume', 'public', 'x')"), '', 'event triggers: create_group, grant, revoke');
	is($s->try("SELECT count(*) FROM mq.send_batch('ev', array_fill('1'::jsonb, ARRAY[1000]))"), '', "event triggers: batch $_") for 1 .. 4;
	is($s->try("SELECT count(*) FROM mq.pop('ev', consumer_group => '$_', max_messages => 100000)"), '', "event triggers: pop $_") for qw(default x y);
	is($s->try("SELECT mq.seek('ev', 'default', start => 'earliest'); SELECT mq.alter_group('ev', 'y', jsonb_build_object('max_in_flight', 3)); SELECT mq.alter_queue('ev', jsonb_build_object('retention', '1 h')); SELECT mq.alter_queue('ev', jsonb_build_object('reset', jsonb_build_array('retention'))); SELECT count(*) FROM mq.pop('ev', max_messages => 100000)"), '', 'event triggers: seek, alter');
	ok(poll_until('drops', sub { one($node, "SELECT min(segment) > 1 FROM mq.segments WHERE queue = 'ev'") eq 't' }, 40), 'event triggers: the worker makes, seals and drops segments');
	is($s->try("BEGIN; SELECT mq.create_queue('ev2', options => jsonb_build_object('segment_size', 1024)); SELECT count(*) FROM mq.send_batch('ev2', array_fill('1'::jsonb, ARRAY[3000])); COMMIT"), '', 'event triggers: segments made by the sender');
	is($s->try("SELECT mq.drop_group('ev', 'x', force => true); SELECT mq.drop_queue('ev', force => true); SELECT mq.drop_queue('ev2', force => true)"), '', 'event triggers: drop_group, drop_queue');
	cmp_ok(one($node, "SELECT count(*) FROM t.ddl WHERE ev = 'ddl_command_end'"), '>', 5, 'event triggers were fired');
	# one that refuses: an error for the caller, no damage
	one($node, "CREATE FUNCTION t.no() RETURNS event_trigger LANGUAGE plpgsql AS \$f\$ BEGIN IF current_user <> 'postgres' OR tg_tag = 'CREATE TABLE' THEN RAISE 'no DDL today'; END IF; END \$f\$; CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION t.no()");
	my $state = $s->try("SELECT mq.create_queue('ev3', options => jsonb_build_object('segment_size', 1024))");
	one($node, 'DROP EVENT TRIGGER e');
	is(one($node, "SELECT count(*) FROM mq.queues WHERE queue = 'ev3'"), $state eq '' ? '1' : '0', "an event trigger that refuses DDL: nothing is half made ($state)");
	is($s->try("SELECT mq.create_queue('ev3', if_not_exists => true); SELECT mq.send('ev3', '1')"), '', 'and later it works');
	one($node, 'DROP EVENT TRIGGER a; DROP EVENT TRIGGER b; DROP EVENT TRIGGER c; DROP EVENT TRIGGER d');
	$s->close;
}
$m->close;
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
