# A role without any right on a queue makes things that depend on its tables by their number ('123'::regclass): they neither keep
# segments, groups and queues from being dropped, nor do they go with them.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $many = 5000;		# more than there are locks
my $node = mq_node('dependents', conf => "mq.drop_delay = 0\nmax_locks_per_transaction = 20\nfsync = off\nautovacuum = off\n");
one($node, 'CREATE ROLE alice LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO alice; CREATE ROLE bob LOGIN; CREATE SCHEMA bob AUTHORIZATION bob');
my $a = session($node, user => 'alice');
my $b = session($node, user => 'bob');
my $n = 0;

# a queue with three full segments; names of the numbers of what belongs to the first
sub queue
{
	my $q = 'q' . ++$n;
	$a->q("SELECT mq.create_queue('$q', groups => '{default,other}', options => jsonb_build_object('segment_size', 1024))");
	$a->q("SELECT count(*) FROM mq.send_batch('$q', array_fill('1'::jsonb, ARRAY[1024]))") for 1 .. 3;
	my %oid;
	@oid{qw(leaf type array toast toast_index sequence rights table)} = split /\|/, one($node, <<SQL);
SELECT concat_ws('|', c.oid, c.reltype, t.typarray, c.reltoastrelid, i.indexrelid, 'mq_internal.i_$n'::regclass::oid, g.rights::oid, 'mq.q_$q'::regclass::oid)
FROM mq.segments s JOIN pg_class c ON c.oid = segment_table JOIN pg_type t ON t.oid = c.reltype JOIN pg_index i ON i.indrelid = c.reltoastrelid
JOIN mq.groups g ON g.queue = s.queue AND g.consumer_group = 'other' WHERE s.queue = '$q' AND segment = 0
SQL
	return ($q, %oid);
}

sub finish
{
	my ($q) = @_;
	$a->q("SELECT count(*) FROM mq.pop('$q', '$_', 100000)") for 'default', 'other';
	return;
}

sub gone { my ($what, $oid) = @_; return poll_until($what, sub { one($node, "SELECT count(*) FROM pg_class WHERE oid = $oid") eq '0' }, 20); }

# --- in great number --------------------------------------------------------------------------------------------------------------
{
	my ($q, %oid) = queue();
	one($node, "SET ROLE bob; DO \$\$ BEGIN FOR i IN 1 .. $many LOOP EXECUTE format('CREATE TABLE bob.t%s (l text DEFAULT (''$oid{leaf}''::regclass)::text, t text DEFAULT (''$oid{table}''::regclass)::text)', i); COMMIT; END LOOP; END \$\$");
	finish($q);
	ok(gone('the segment to go', $oid{leaf}), "$many tables depend on a segment: it is dropped");
	is($a->try("SELECT mq.drop_queue('$q')"), '53200', 'and on the table of the queue, which is not dropped by mistake');
	like($a->{last_err}, qr/HINT:  A great many things depend on the queue's table. Use force/, 'and who does it is told');
	is($a->try("SELECT mq.drop_queue('$q', force => true)"), '', 'with force it is');
	is(one($node, "INSERT INTO bob.t1 DEFAULT VALUES RETURNING l || ' ' || t"), "$oid{leaf} $oid{table}", 'the tables are as they were, with a number that names nothing');
	is(one($node, "SELECT count(*) FROM pg_depend WHERE refobjid IN ($oid{leaf}, $oid{table})"), '0', 'nothing is left of what they depended on');
}

# --- of each kind, all held by somebody --------------------------------------------------------------------------------------------------
{
	my ($q, %oid) = queue();
	my $i = 0;
	for my $of (qw(leaf toast toast_index type array sequence rights table))
	{
		my $c = "'$oid{$of}'::" . ($of =~ /type|array/ ? 'regtype' : 'regclass');
		$i++;
		$b->q_with_type($_, $oid{$of})
		  for "CREATE TABLE bob.d$i (i int, x text DEFAULT ($c)::text)",
		  "ALTER TABLE bob.d$i ADD CHECK (i <> ($c)::oid::int8)";
		next if $of !~ /^(leaf|table)$/;
		$b->q($_)
		  for "CREATE INDEX ON bob.d$i ((i::int8 + ($c)::oid::int8))", "CREATE DOMAIN bob.o$i AS text DEFAULT ($c)::text",
		  "CREATE TABLE bob.p$i (i int) PARTITION BY RANGE ((i::int8 + ($c)::oid::int8))", "CREATE VIEW bob.v$i AS SELECT $c AS a FROM bob.d$i",
		  "CREATE FUNCTION bob.f$i(a text DEFAULT ($c)::text) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT ($c)::text; END",
		  "CREATE POLICY p ON bob.d$i USING (i <> ($c)::oid::int8)", "CREATE STATISTICS bob.s$i ON (i::int8 + ($c)::oid::int8), x FROM bob.d$i";
	}
	is($b->try("CREATE VIEW bob.w AS SELECT 1 AS one FROM mq_internal.s_${n}_0_0"), '42501', 'a segment cannot be named');
	$b->q('BEGIN');
	# the strongest lock on each
	$b->q("ALTER TABLE bob.d$_ SET (fillfactor = 90); LOCK TABLE bob.d$_ IN ACCESS EXCLUSIVE MODE") for 1 .. $i;
	$b->q("ALTER VIEW bob.v1 SET (security_barrier = true); ALTER VIEW bob.v8 SET (security_barrier = true)");
	$a->q("SET statement_timeout = '10s'");
	is($a->try("SELECT mq.drop_group('$q', 'other', force => true)"), '', 'a group is dropped though a table that depends on its rights is locked');
	$a->q("SELECT count(*) FROM mq.pop('$q', max_messages => 100000)");
	ok(gone('the segment to go', $oid{leaf}), 'so is a segment');
	$a->q("SELECT mq.drop_queue('$q', force => true)");
	is(one($node, "SELECT count(*) FROM mq.queues WHERE queue = '$q'"), '0', 'and the queue');
	$b->q('COMMIT');
	is($b->try("INSERT INTO bob.d1 (i) VALUES (1); SELECT * FROM bob.v1; SELECT bob.f1(); SELECT * FROM bob.p1; SELECT * FROM bob.d8; SELECT bob.f8(); DROP VIEW bob.v1; DROP FUNCTION bob.f1; DROP DOMAIN bob.o1; DROP TABLE bob.d1, bob.p1"), '', 'what is bob\'s works, and can be dropped');
}

# --- somebody drops one, and does not end ----------------------------------------------------------------------------------------------
{
	my ($q, %oid) = queue();
	my ($other, %others) = queue();
	$b->q("CREATE TABLE bob.x (l text DEFAULT ('$oid{leaf}'::regclass)::text)");
	$b->q('BEGIN; DROP TABLE bob.x');
	finish($_) for $q, $other;
	ok(poll_until('the segment to be empty', sub { one($node, "SELECT pg_relation_size($oid{leaf})") eq '0' }, 20), 'a segment with a dependent that is being dropped is emptied');
	ok(gone('the others to go', $others{leaf}), 'those of others are dropped');
	$a->q("SET lock_timeout = '200ms'");
	is($a->try("SELECT mq.drop_queue('$q', force => true)"), '55P03', 'drop_queue waits for that no longer than lock_timeout');
	like($a->{last_err}, qr/HINT:  Somebody has a lock on what depends/, 'and says what that is');
	$b->q('ROLLBACK');
	ok(gone('the segment to go', $oid{leaf}), 'when that is over it is dropped');
	is($a->try("SELECT mq.drop_queue('$_', force => true)"), '', 'drop_queue') for $q, $other;
	$a->q('RESET lock_timeout');
}

# --- what names the table of a queue is dropped with it; more than there are locks is told -----------------------------------------------
{
	my ($q, %oid) = queue();
	$b->q("CREATE VIEW bob.v AS SELECT id FROM mq.q_$q WHERE id <> ('$oid{table}'::regclass)::oid::int8; CREATE TABLE bob.r (r mq.q_$q)");
	is($a->try("SELECT mq.drop_queue('$q', force => true)"), '', 'a view on the table, and a column of its type');
	is(one($node, "SELECT count(*) FROM pg_class WHERE oid = to_regclass('bob.v')"), '0', 'the view is gone');
	is(one($node, "SELECT count(*) FROM pg_attribute WHERE attrelid = 'bob.r'::regclass AND attnum > 0 AND NOT attisdropped"), '0', 'so is the column');
	($q, %oid) = queue();
	one($node, "SET ROLE bob; DO \$\$ BEGIN FOR i IN 1 .. $many LOOP EXECUTE format('CREATE VIEW bob.w%s AS SELECT 1 AS one FROM mq.q_$q', i); COMMIT; END LOOP; END \$\$");
	is($a->try("SELECT mq.drop_queue('$q', force => true)"), '53200', "$many views");
	like($a->{last_err}, qr/HINT:  Raise max_locks_per_transaction, or have some go first/, 'and what to do');
	finish($q);
	ok(gone('the segment to go', $oid{leaf}), 'its segments go all the same');
}
$_->close for $a, $b;
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)|ERROR:.*\n.*mq worker/, 'no assertion, no panic');
done_testing();
