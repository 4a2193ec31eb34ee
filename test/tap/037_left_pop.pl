# nack and release of what the transaction itself has popped: what of it is on disk, after crashes, with checkpoints in between,
# with savepoints, prepared transactions.  What left the pop comes again, the rest never does.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('left', conf => "mq.drop_delay = '30 s'\nmq.visibility_timeout = '10 min'\n");

sub crash
{
	my ($how) = @_;
	return if $how eq 'none';
	if ($how eq 'restart') { $node->restart; }
	else { $node->kill9; mq_start_again($node); }
	return;
}

my $n = 0;
sub fresh
{
	my $q = 'q' . ++$n;
	one($node, "SELECT mq.create_queue('$q'); SELECT mq.send_batch('$q', array_agg(to_jsonb(i) ORDER BY i)) FROM generate_series(1, 5) i");
	return $q;
}

# pops all and gives those up
my $pop = "CREATE TEMP TABLE IF NOT EXISTS m AS SELECT * FROM mq.pop('none'); TRUNCATE m; BEGIN; INSERT INTO m SELECT * FROM mq.pop('%q', max_messages => 100)";
sub left { my ($verb, $list) = @_; return "SELECT count(mq.$verb(receipt" . ($verb eq 'nack' ? ", '0'" : '') . ")) FROM m WHERE payload::int IN ($list)"; }

one($node, "SELECT mq.create_queue('none')");
# what comes of a queue now (what was given up may need a moment in memory, when a prepared transaction is decided)
sub comes
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($q, $expected, $name) = @_;
	poll_until("$name: settled", sub { one($node, "SELECT coalesce(sum(settling), 0) FROM mq.groups WHERE queue = '$q'") eq '0' }, 20);
	is(one($node, "SELECT coalesce(string_agg(payload::text, ',' ORDER BY id), '') FROM mq.receive('$q', max_messages => 100)"), $expected, $name);
	return;
}

# a checkpoint of the queue while something is open: a failure of another message makes one due
sub checkpoint
{
	my ($q) = @_;
	my $count = "SELECT count(*) FROM mq_internal.consumer_offset_0 WHERE replay_from >= 0 AND group_no = (SELECT group_no FROM mq_internal.consumer_group g JOIN mq_internal.queue USING (queue_no) WHERE queue.name = '$q')";
	my $before = one($node, $count);
	one($node, "SELECT mq.send('$q', '100'); SELECT CASE payload WHEN '100' THEN mq.nack(receipt, '1 hour') ELSE mq.release(receipt) END FROM mq.receive('$q', max_messages => 10)");
	ok(poll_until('a checkpoint', sub { one($node, $count) > $before }, 30), 'a checkpoint in between');
	return;
}

for my $how (qw(none kill9 restart))
{
	my $s = session($node);
	my $run = sub { my ($q, @sql) = @_; for my $sql (@sql) { (my $t = $sql) =~ s/%q/$q/g; $s->q($t); } };

	my $q1 = fresh(); $run->($q1, $pop, left('nack', '2,3'), left('release', '5'), 'COMMIT');
	# somebody else finishes what came back
	my $q2 = fresh(); $run->($q2, $pop, left('nack', '2'), 'COMMIT'); one($node, "SELECT mq.pop('$q2', max_messages => 10)");
	# again and again, at last without
	my $q3 = fresh(); $run->($q3, $pop, left('nack', '2,4'), 'COMMIT', $pop, left('nack', '2'), 'COMMIT', $pop, left('release', '2'), 'COMMIT', $pop, 'COMMIT');
	# savepoints: one that is rolled back, one that is kept
	my $q4 = fresh(); $run->($q4, $pop, 'SAVEPOINT a', left('nack', '1,2'), 'ROLLBACK TO a', 'SAVEPOINT b', left('nack', '4'), 'RELEASE b', 'COMMIT');
	# rolled back as a whole
	my $q5 = fresh(); $run->($q5, $pop, left('nack', '1'), 'ROLLBACK');
	# checkpoints: before the commit, and between pop and nack
	my $q6 = fresh(); $run->($q6, $pop, left('nack', '3')); checkpoint($q6); $run->($q6, 'COMMIT');
	my $q7 = fresh(); $run->($q7, $pop); checkpoint($q7); $run->($q7, left('nack', '3'), 'COMMIT');
	# and after it
	my $q8 = fresh(); $run->($q8, $pop, left('nack', '3'), 'COMMIT'); checkpoint($q8);
	# open at the crash
	my $q9 = fresh(); $run->($q9, $pop, left('nack', '3'));

	my ($prepared, $undone) = (fresh(), fresh());
	for my $q ($prepared, $undone)
	{
		my $p = session($node);
		# (no temporary table: PREPARE refuses those)
		$p->q("BEGIN; SELECT count(CASE WHEN payload::int IN (2, 3) THEN mq.nack(receipt, '0')::text END) FROM mq.pop('$q', max_messages => 100)");
		$p->q("SAVEPOINT a; SELECT mq.send('$q', '6'); RELEASE a; PREPARE TRANSACTION '$q'");
	}
	$s = undef if $how ne 'none';
	$how eq 'none' ? $s->q('ROLLBACK') : crash($how);
	one($node, "COMMIT PREPARED '$prepared'");
	one($node, "ROLLBACK PREPARED '$undone'");

	comes($q1, '2,3,5', "$how: what left the pop, and no more");
	comes($q2, '', "$how: finished by somebody else since");
	comes($q3, '', "$how: finished at the last try");
	comes($q4, '4', "$how: savepoints");
	comes($q5, '1,2,3,4,5', "$how: rolled back");
	comes($q6, '3', "$how: a checkpoint before the commit");
	comes($q7, '3', "$how: a checkpoint between pop and nack");
	comes($q8, '3', "$how: a checkpoint after the commit");
	comes($q9, '1,2,3,4,5', "$how: never committed");
	comes($prepared, '2,3,6', "$how: COMMIT PREPARED");
	comes($undone, '1,2,3,4,5', "$how: ROLLBACK PREPARED");
}

# failures: counted once, kept by checkpoints
my $q = fresh();
my $s = session($node);
(my $sql = $pop) =~ s/%q/$q/g;
$s->q($sql);
$s->q(left('nack', '2'));
$s->q('COMMIT');
checkpoint($q);
$node->restart;
is(one($node, "SELECT payload::text || ' ' || failures FROM mq.receive('$q')"), '2 1', 'the failure outlives a restart');
# --- what is shown meanwhile: no end of a lease, for there is none ---------------------------------------------------------------------------
{
	my $q = fresh();
	my $s = session($node);
	$s->q("BEGIN; CREATE TEMP TABLE p ON COMMIT DROP AS SELECT * FROM mq.pop('$q', max_messages => 4); SELECT mq.nack(receipt) FROM p WHERE payload = '1'; "
		. "SELECT mq.nack(receipt, '1 hour') FROM p WHERE payload = '2'; SELECT mq.release(receipt) FROM p WHERE payload = '3'; SELECT * FROM mq.receive('$q')");
	my $ends = "string_agg(state || CASE WHEN lease_until IS NULL THEN ' none' WHEN lease_until > now() THEN ' later' ELSE ' odd' END, ',' ORDER BY id)";
	is(one($node, "SELECT $ends FROM mq.in_flight WHERE queue = '$q'"), 'settling none,settling none,settling none,settling none,leased later', 'mq.in_flight');
	is(one($node, "SELECT $ends FROM mq.browse('$q', states => '{settling}')"), 'settling none,settling none,settling none,settling none', 'mq.browse');
	$s->q('COMMIT');
	$s->close;
}

$node->stop;
done_testing();
