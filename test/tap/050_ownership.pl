# What mq makes belongs to the owner of the extension, with exactly the privileges that mq gave: the attacks of a role that has
# queues of its own, of one that has nothing, and what settings of the extension's owner would give away.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('ownership', conf => "mq.drop_delay = 0\nlog_min_messages = log\n", install => 0);

# --- somebody made a schema of that name first -----------------------------------------------------------------------------------
one($node, 'CREATE ROLE mallory LOGIN; CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN');
for my $schema ('mq', 'mq_internal')
{
	one($node, "CREATE SCHEMA $schema AUTHORIZATION mallory");
	is(sqlstate($node, 'CREATE EXTENSION mq'), '42P06', "CREATE EXTENSION refuses a schema $schema that was there before");
	one($node, "DROP SCHEMA $schema");
}
is(one($node, "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^mq'"), '0', 'and leaves nothing behind');

# --- ALTER DEFAULT PRIVILEGES of the extension's owner gives nothing away ---------------------------------------------------------
# everything that can be said to, before and after CREATE EXTENSION
my $defaults = join ';', map { "ALTER DEFAULT PRIVILEGES GRANT ALL ON $_ TO mallory" } qw(TABLES SEQUENCES FUNCTIONS SCHEMAS);
one($node, $defaults);
one($node, 'CREATE EXTENSION mq');
one($node, MqTest::helpers_sql());
one($node, join ';', map { "ALTER DEFAULT PRIVILEGES IN SCHEMA $_->[0] GRANT ALL ON $_->[1] TO mallory" } map { my $s = $_; map { [ $s, $_ ] } qw(TABLES SEQUENCES FUNCTIONS) } qw(mq mq_internal));
one($node, 'GRANT EXECUTE ON FUNCTION mq.create_queue TO alice, bob');
# (helpers of the tests)
one($node, 'GRANT USAGE ON SCHEMA t TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA t TO PUBLIC');
my $a = session($node, user => 'alice');
$a->q("SELECT mq.create_queue('secret', groups => '{default,other}', options => jsonb_build_object('segment_size', 1024))");
$a->q("SELECT count(*) FROM mq.send_batch('secret', array_fill('1'::jsonb, ARRAY[3000]))");
$a->q("SELECT mq.create_group('secret', 'late')");
# an offset log table made at run time
one($node, "ALTER SYSTEM SET mq.offset_log_size = '64kB'");
one($node, 'SELECT pg_reload_conf()');
{
	my $holder = session($node);
	$holder->q("BEGIN; SELECT count(*) FROM mq.pop('secret', 'other', 1)");
	ok(poll_until('a fifth table of the offset log', sub {
		$a->q("SELECT count(*) FROM mq.pop('secret', 'late', 1)") for 1 .. 50;
		one($node, "SELECT mq.ack(receipt) FROM mq.receive('secret', max_messages => 500, visibility_timeout => '1 h') WHERE id % 2 = 1");
		one($node, "SELECT mq.seek('secret', 'default', start => 'earliest')");
		one($node, "SELECT to_regclass('mq_internal.consumer_offset_4') IS NOT NULL") eq 't';
	}), 'the offset log has grown');
	$holder->q('COMMIT');
}
my $others = "SELECT string_agg(DISTINCT format('%s: %s', object, a.grantee::regrole), ', ') FROM (
	SELECT oid::regclass::text AS object, relacl AS acl FROM pg_class WHERE relnamespace IN ('mq'::regnamespace, 'mq_internal'::regnamespace)
	UNION ALL SELECT oid::regprocedure::text, proacl FROM pg_proc WHERE pronamespace IN ('mq'::regnamespace, 'mq_internal'::regnamespace)
	UNION ALL SELECT nspname, nspacl FROM pg_namespace WHERE nspname IN ('mq', 'mq_internal')) o, aclexplode(acl) a
	WHERE a.grantee = 'mallory'::regrole";
is(one($node, $others), '', 'default privileges give mallory nothing: not the schemas, functions, tables, partitions, sequences, offset log');
is(one($node, "SELECT string_agg(privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END, ' ' ORDER BY privilege_type)
	FROM pg_class, aclexplode(relacl) WHERE oid = 'mq.q_secret'::regclass AND grantee = 'alice'::regrole"), 'INSERT* SELECT* TRUNCATE*', 'the owner has exactly three privileges on the table');
is(one($node, "SELECT string_agg(DISTINCT a.privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END, ' ') || ' ' || count(*)
	FROM pg_class, aclexplode(relacl) a WHERE relnamespace = 'mq_internal'::regnamespace AND relkind = 'S' AND a.grantee = 'alice'::regrole"), 'USAGE* 3', 'and USAGE on the sequence of each group');
is(one($node, "SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class WHERE relnamespace IN ('mq'::regnamespace, 'mq_internal'::regnamespace)"), 'postgres', 'all belongs to the owner of the extension');
is(one($node, "SELECT has_schema_privilege('public', 'mq_internal', 'USAGE') OR has_schema_privilege('public', 'mq_internal', 'CREATE')"), 'f', 'nobody may use mq_internal');
my $m = session($node, user => 'mallory');
for my $sql ("SELECT mq.send('secret', '1')", "SELECT * FROM mq.pop('secret')", "SELECT * FROM mq.browse('secret', states => '{ready}')", "SELECT mq.purge('secret')", "SELECT mq.create_queue('mine')",
	"INSERT INTO mq_internal.consumer_offset_4 (n, group_no, level, epoch, lo, hi) VALUES (999999, 1, 0, 1, 1, 20000)", 'TABLE mq_internal.queue',
	"SELECT nextval('mq_internal.g_1')", 'CREATE TABLE mq.x (i int)', 'SELECT * FROM mq_internal.queue_state()', 'SELECT mq_internal.reset_privileges()')
{
	is($m->try($sql), '42501', "mallory: $sql");
}
is($a->try('SELECT mq_internal.reset_privileges()'), '42501', 'the script\'s function is for nobody');
is(sqlstate($node, 'SELECT mq_internal.reset_privileges()'), '42501', 'nor for a superuser by mistake');

# --- what depends on the tables stops nobody ----------------------------------------------------------------------------------------
{
	my ($sequence, $leaf) = split /\|/, one($node, "SELECT rights::oid || '|' || (SELECT min(segment_table::oid) FROM mq.segments WHERE queue = 'secret') FROM mq.groups WHERE queue = 'secret' AND consumer_group = 'other'");
	is($m->try("CREATE TEMP TABLE d (i bigint DEFAULT nextval('mq_internal.g_2'))"), '42501', 'a sequence cannot be named');
	is($m->try("CREATE TEMP VIEW v AS SELECT 1 FROM mq_internal.s_1_0_0"), '42501', 'nor a partition');
	# by its oid everything can be named
	is($m->try("CREATE TEMP TABLE d (i bigint DEFAULT nextval(${sequence}::regclass), l text DEFAULT (${leaf}::regclass)::text)"), '', 'but by oid');
	is($a->try("SELECT mq.drop_group('secret', 'other', force => true)"), '', 'drop_group goes on');
	$a->q("SELECT count(*) FROM mq.pop('secret', '$_', 100000)") for 'default', 'late';
	ok(poll_until('finished partitions to go', sub { one($node, "SELECT count(*) FROM pg_class WHERE oid = $leaf") eq '0' }, 60), 'finished partitions are dropped');
	# the queue's table can be named, in a view say
	is($m->try('CREATE TEMP VIEW w AS SELECT 1 AS one FROM mq.q_secret'), '', 'a view on the table of a queue');
	is($a->try("SELECT mq.drop_queue('secret')"), '2BP01', 'drop_queue without force is refused');
	like(err($node, "SET ROLE alice; SELECT mq.drop_queue('secret')"), qr/view pg_temp_\d+\.w depends on table mq\.q_secret.*HINT:  Use force => true/s, 'and says what is in the way');
	is($a->try("SELECT mq.drop_queue('secret', force => true)"), '', 'with force it goes');
	is(one($node, "SELECT count(*) FROM pg_class WHERE relnamespace = 'mq_internal'::regnamespace AND relname ~ '^[sgi]_[0-9]'"), '0', 'with all its partitions and sequences');
}

# --- the owner may do this and no more ------------------------------------------------------------------------------------------------
$a->q("SELECT mq.create_queue('q', options => jsonb_build_object('segment_size', 1024))");
for my $sql ('ALTER TABLE mq.q_q ADD COLUMN x int', 'ALTER TABLE mq.q_q DISABLE TRIGGER ALL', 'CREATE INDEX ON mq.q_q (id)', 'ALTER TABLE mq.q_q OWNER TO bob', 'DROP TABLE mq.q_q', 'CREATE RULE r AS ON INSERT TO mq.q_q DO NOTHING',
	'CREATE TRIGGER x BEFORE INSERT ON mq.q_q EXECUTE FUNCTION suppress_redundant_updates_trigger()', 'UPDATE mq.q_q SET payload = null', 'DELETE FROM mq.q_q', 'CREATE STATISTICS st ON id, key FROM mq.q_q',
	'ALTER TABLE mq.q_q DETACH PARTITION mq_internal.s_2_0_0', 'GRANT UPDATE ON mq.q_q TO bob', 'VACUUM mq.q_q', 'CREATE PUBLICATION p FOR TABLE mq.q_q')
{
	my $state = $a->try($sql);
	# GRANT and VACUUM only warn: then nothing has changed
	ok($state eq '42501' || ($state eq '' && $sql =~ /^(GRANT|VACUUM)/), "owner: $sql ($state)");
}
is($a->try('INSERT INTO mq.q_q (id, enqueued_at) VALUES (1, now())'), '55000', 'owner: INSERT is refused by the guard');
is($a->try('TRUNCATE mq.q_q'), '55000', 'owner: TRUNCATE too');
is(one($node, "SELECT count(*) FROM pg_class, aclexplode(relacl) a WHERE oid = 'mq.q_q'::regclass AND a.grantee = 'bob'::regrole"), '0', 'bob has nothing');

# --- rights have one grantor; revoke takes them whoever gave them ------------------------------------------------------------------------
my $b = session($node, user => 'bob');
is($a->try("SELECT mq.grant('q', 'send', 'bob'); SELECT mq.grant('q', 'consume', 'bob')"), '', 'alice grants');
is(one($node, "SELECT string_agg(DISTINCT a.grantor::regrole::text, ' ') FROM pg_class, aclexplode(relacl) a WHERE relnamespace IN ('mq'::regnamespace, 'mq_internal'::regnamespace) AND a.grantee = 'bob'::regrole"), 'postgres', 'as the owner of the extension');
is($b->try("SELECT mq.grant('q', 'send', 'carol')"), '42501', 'bob may not grant on');
# with grant option he may: by GRANT, too
$a->q('GRANT INSERT ON mq.q_q TO bob WITH GRANT OPTION');
is($b->try("SELECT mq.grant('q', 'send', 'carol')"), '', 'with grant option he may');
$b->q('GRANT INSERT ON mq.q_q TO carol; GRANT INSERT (payload) ON mq.q_q TO carol');
my $c = session($node, user => 'carol');
is($a->try("SELECT mq.revoke('q', 'send', 'carol')"), '', 'alice revokes what bob gave');
is($c->try("SELECT mq.send('q', '1')"), '42501', 'and it is gone');
is(one($node, "SELECT has_any_column_privilege('carol', 'mq.q_q', 'INSERT')"), 'f', 'columns too');
$a->q("SELECT mq.grant('q', 'send', 'public')");
is($c->try("SELECT mq.send('q', '1')"), '', 'everybody may send');
is($a->try("SELECT mq.revoke('q', 'send', 'carol')"), '55000', 'revoke says that a role would have the right still');
is($a->try("SELECT mq.revoke('q', 'send', 'public')"), '', 'until it is revoked from PUBLIC');
is($c->try("SELECT mq.send('q', '1')"), '42501', 'nobody may');
one($node, 'GRANT bob TO carol');
is($a->try("SELECT mq.revoke('q', 'send', 'carol')"), '55000', 'the same for a member of a role that has it');
one($node, 'REVOKE bob FROM carol');

# --- DROP OWNED takes grants away and leaves the queue; so does handing it on ---------------------------------------------------------------
$a->q("SELECT t.put('q', 'kept', 10)");
$a->q("SELECT mq.grant('q', 'consume', 'carol')");
$a->close;
one($node, 'DROP OWNED BY alice; DROP ROLE alice');
is(one($node, "SELECT owner FROM mq.queues WHERE queue = 'q'"), 'postgres', 'without its owner a queue is the extension owner\'s');
is($c->q("SELECT count(*) FROM mq.pop('q', max_messages => 4)"), '4', 'who was granted a right still has it');
one($node, "SELECT mq.alter_queue('q', jsonb_build_object('owner', 'bob'))");
is(one($node, "SELECT owner FROM mq.queues WHERE queue = 'q'"), 'bob', 'it can be handed on');
is($b->q("SELECT count(*) FROM mq.pop('q', max_messages => 100)"), '7', 'and the new owner has it: what alice sent, and carol');
is($b->try("SELECT mq.create_group('q', 'g2'); SELECT mq.grant('q', 'consume', 'carol', 'g2'); SELECT mq.revoke('q', 'consume', 'carol')"), '', 'with all that an owner may do');
is($c->try("SELECT * FROM mq.pop('q')"), '42501', 'such as taking rights');
is($b->try("SELECT mq.drop_queue('q', force => true)"), '', 'and dropping it');

# --- another superuser's queue, and the extension owner's own -------------------------------------------------------------------------------
one($node, 'CREATE ROLE su2 SUPERUSER LOGIN');
my $s = session($node, user => 'su2');
is($s->try("SELECT mq.create_queue('su'); SELECT mq.send('su', '1')"), '', 'another superuser makes a queue');
is(one($node, "SELECT owner FROM mq.queues WHERE queue = 'su'"), 'su2', 'and is its owner');
one($node, 'DROP OWNED BY su2');
is($s->try("SELECT mq.drop_queue('su', force => true)"), '', 'a superuser may drop any');
$_->close for $s, $b, $c, $m;

# --- DROP EXTENSION takes all along ------------------------------------------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('last')");
is(sqlstate($node, 'DROP EXTENSION mq'), '2BP01', 'DROP EXTENSION is refused while there is a queue');
one($node, 'SET client_min_messages = warning; DROP EXTENSION mq CASCADE');
is(one($node, "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^mq'"), '0', 'with CASCADE both schemas are gone, with all that is in them');
is(sqlstate($node, 'CREATE EXTENSION mq'), '', 'and it can be made again');
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
