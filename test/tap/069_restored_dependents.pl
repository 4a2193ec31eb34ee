# What strangers make of the numbers of tables that a restore brought back: nobody can have a column of a segment's row type, and
# making a queue again over what a dump without data left waits for none of them. Two make one again at once; mq.browse while
# somebody rewrites a segment.
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
	return session($node, user => 'bob', db => $db);
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
	# more of them than are read where somebody waits
	my $long = 'x' x 200_000;
	$bob->q("CREATE TABLE bob.l$_ (x text DEFAULT ('$leaves[0]'::regclass)::text || '$long')") for 1 .. 100;
	$bob->q('BEGIN; LOCK TABLE bob.l100, ' . join ', ', map { "bob.t$_" } @leaves);
	my $maker = session($node, user => 'alice', db => 'bare');
	$maker->q("SET statement_timeout = '20 s'");
	is($maker->try("SELECT mq.create_queue('q')"), '', 'a queue is made over leftovers whatever else depends on their numbers') or diag($maker->{last_err});
	is($maker->q("SELECT mq.send('q', '1')"), '1', 'and works');
	$bob->q('COMMIT');
	is(one($node, "SELECT count(*) FROM pg_attrdef d JOIN pg_class c ON c.oid = adrelid WHERE relnamespace = 'bob'::regnamespace", 'bare'), 100 + @leaves, 'what depends on them is there');

	is($maker->try("SELECT mq.drop_queue('q', force => true)"), '', 'dropped');
	$_->close for $maker, $bob;
}
# --- a definition whose table is gone, made again by two at once ---------------------------------------------------------------------------
for my $groups ("'{}'", "'{default}'")
{
	my ($first, $second) = map { session($node) } 1, 2;
	$first->q("SELECT mq.create_queue('o', groups => $groups)");
	$second->q("SELECT mq.send('o', '1')");
	one($node, 'DROP TABLE mq.q_o');
	my $again = "SELECT mq.create_queue('o', groups => $groups, if_not_exists => true)";
	$first->q("BEGIN; $again");
	$second->start($again);
	ok(poll_until('the second to wait', sub { $second->waits_on_lock($node) }, 20), 'the second one waits');
	$first->q('COMMIT');
	is(($second->finish)[0], '', "and finds it made, with groups $groups") or diag($second->{last_err});
	one($node, "SELECT mq.drop_queue('o', force => true)");
	$_->close for $first, $second;
}

# --- mq.browse while a segment that is not in order is rewritten ----------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('big'); SELECT count(*) FROM mq.send_batch('big', array_fill('1'::jsonb, ARRAY[20000]))");
	my $leaf = one($node, "SELECT segment_table FROM mq.segments WHERE queue = 'big' AND segment = 0");
	one($node, "SELECT mq.discard('big', 'default', ARRAY(SELECT id FROM mq.q_big WHERE id % 4000 = 0))");
	my $browse = "SELECT count(*) FROM mq.browse('big', states => '{ready,finished}', max_messages => 100000)";
	for my $how ('CLUSTER', 'VACUUM FULL')
	{
		one($node, "CREATE INDEX mixed ON $leaf ((id % 97)); ALTER TABLE $leaf SET (fillfactor = " . ($how eq 'CLUSTER' ? 100 : 10) . "); CLUSTER $leaf USING mixed; DROP INDEX mq_internal.mixed");
		one($node, "CREATE INDEX other ON $leaf ((id % 89)); ALTER TABLE $leaf SET (fillfactor = 100)");
		my ($holder, $browser, $rewriter) = map { session($node) } 1 .. 3;
		$holder->q("BEGIN; LOCK TABLE ONLY $leaf IN ACCESS EXCLUSIVE MODE");
		$browser->start($browse);
		ok(poll_until('mq.browse to wait', sub { $browser->waits_on_lock($node) }, 20), 'mq.browse waits');
		$rewriter->start($how eq 'CLUSTER' ? "CLUSTER $leaf USING other" : "VACUUM FULL $leaf");
		ok(poll_until('the rewrite to wait', sub { $rewriter->waits_on_lock($node) }, 20), "behind it $how");
		$holder->q('COMMIT');
		my ($state, $shown) = $browser->finish;
		is("$state $shown", ' 20000', "all are shown, though $how comes in between") or diag($browser->{last_err});
		is(($rewriter->finish)[0], '', 'which goes on after that');
		one($node, 'DROP INDEX mq_internal.other');
		$_->close for $holder, $browser, $rewriter;
	}
}
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
