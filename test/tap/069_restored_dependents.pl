# What strangers make of the numbers of tables that a restore brought back: nobody can have a column of a segment's row type, and
# making a queue again over what a dump without data left waits for none of them.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('restored_dependents', conf => "mq.drop_delay = 0\nfsync = off\nautovacuum = off\n");
$SIG{__DIE__} = sub { diag(@_) if !$^S; };
one($node, 'CREATE ROLE alice LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO alice; CREATE ROLE bob LOGIN; CREATE DATABASE whole; CREATE DATABASE bare');
my $alice = session($node, user => 'alice');
$alice->q("SELECT mq.create_queue('q', options => jsonb_build_object('segment_size', 1024)); SELECT count(*) FROM mq.send_batch('q', array_fill('1'::jsonb, ARRAY[3000]))");
$alice->close;

sub restore
{
	my ($db, @how) = @_;
	my $file = $node->data_dir . "/../$db.sql";
	$node->command_ok([ 'pg_dump', @how, '-f', $file, $node->connstr('postgres') ], "a dump: $db");
	$node->command_ok([ 'psql', '-XAtq', '-f', $file, $node->connstr($db) ], 'restored');
	one($node, "CREATE SCHEMA bob AUTHORIZATION bob", $db);
	return session($node, user => 'bob', dbname => $db);
}
my $open = q{SELECT count(*) FROM pg_class JOIN pg_type t ON t.oid = reltype WHERE pg_class.relnamespace = 'mq_internal'::regnamespace
	AND relname ~ '^s_' AND has_type_privilege('bob', t.oid, 'USAGE')};

# --- whole -------------------------------------------------------------------------------------------------------------------------
{
	my $bob = restore('whole');
	cmp_ok(one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'q'", 'whole'), '>=', 3, 'segments are there');
	ok(poll_until('the worker to close them', sub { one($node, $open, 'whole') eq '0' }, 20), 'row types of restored segments are for nobody');
	is(one($node, "SELECT count(*) FROM mq.pop('q', 'default', 10000)", 'whole'), '3000', 'the messages are there');
	$bob->close;
}

# --- without data: somebody holds what has the number of a table that goes ---------------------------------------------------------------
{
	my $bob = restore('bare', '--exclude-table-data=mq_internal.*', '--exclude-table-data=mq.*', '--schema-only');
	my @leaves = split /\n/, one($node, "SELECT inhrelid FROM pg_inherits WHERE inhparent = 'mq.q_q'::regclass", 'bare');
	cmp_ok(scalar @leaves, '>=', 3, 'leftovers');
	$bob->q("CREATE TABLE bob.t$_ (x text DEFAULT ('$_'::regclass)::text)") for @leaves;
	$bob->q('BEGIN; LOCK TABLE ' . join ', ', map { "bob.t$_" } @leaves);
	my $maker = session($node, user => 'alice', dbname => 'bare');
	$maker->q("SET statement_timeout = '20 s'");
	is($maker->try("SELECT mq.create_queue('q')"), '', 'a queue is made over leftovers whatever else depends on their numbers') or diag($maker->{last_err});
	is($maker->q("SELECT mq.send('q', '1')"), '1', 'and works');
	$bob->q('COMMIT');
	is(one($node, "SELECT count(*) FROM pg_attrdef d JOIN pg_class c ON c.oid = adrelid WHERE relnamespace = 'bob'::regnamespace", 'bare'), scalar @leaves, 'what depends on them is there');

	# one whose owner's transaction drops it: that is waited for, but not for ever
	is($maker->try("SELECT mq.drop_queue('q', force => true)"), '', 'dropped');
	$_->close for $maker, $bob;
}
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
