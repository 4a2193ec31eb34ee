# The offset log moves on and its tables are emptied as fast as can be, and the server is killed again and again: what was
# acked must stay acked, so nothing may be emptied before a committed checkpoint has made it superfluous.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('ring', fsync => 1, conf => <<CONF);
mq.drop_delay = 0
mq.offset_log_size = 64kB
CONF

# --- a group whose maker was prepared at the crash: no window speaks for its rows, nobody uses it, and yet they have to stay --------
one($node, <<'SQL');
SELECT mq.create_queue('busy');
SELECT t.put_batch('busy', 'b', 100000);
CREATE PROCEDURE t.pops(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1 .. n LOOP PERFORM mq.pop('busy'); COMMIT; END LOOP; END $$;
SQL
# the ring's rows, in whichever tables there are now
sub ring { return one($node, "SELECT '(' || string_agg(format('SELECT tableoid, n, group_no FROM %s', oid::regclass), ' UNION ALL ') || ') o' FROM pg_class WHERE relnamespace = 'mq_internal'::regnamespace AND relname ~ '^consumer_offset_' AND relkind = 'r'"); }
sub rows_of { my ($group) = @_; return one($node, "SELECT string_agg(n::text, ',' ORDER BY n) FROM " . ring() . " WHERE group_no = $group"); }
# acks of another queue until the ring has moved on and the rows with these numbers were emptied away
sub pushed_out
{
	my ($rows) = @_;
	return $rows ne '' && poll_until("rows $rows to be emptied", sub {
		one($node, 'SET synchronous_commit = off; CALL t.pops(300)');
		one($node, "SELECT count(*) FROM " . ring() . " WHERE n IN ($rows)") eq '0' }, 60);
}
# the queue's log: one message of a sender that is prepared, one from before the group; both undecided when the server crashes
sub group_of_a_crash
{
	my ($q) = @_;
	one($node, "SELECT mq.create_queue('$q', groups => '{}')");
	one($node, "BEGIN; SELECT t.put('$q', 'open', 1); PREPARE TRANSACTION 'sender of $q'");
	one($node, "SELECT t.put('$q', 'before', 1)");
	one($node, "BEGIN; SELECT mq.create_group('$q', 'late'); PREPARE TRANSACTION 'maker of $q'");
	$node->kill9;
	mq_start_again($node);
	return;
}
sub late_group { my ($q) = @_; return one($node, "SELECT group_no FROM mq_internal.consumer_group g JOIN mq_internal.queue USING (queue_no) WHERE queue.name = '$q'"); }
sub late_has
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($q, $name) = @_;
	one($node, "COMMIT PREPARED 'sender of $q'");
	poll_until('the message', sub { one($node, "SELECT count(*) FROM mq.browse('$q', 'late', states => '{ready}')") eq '1' }, 3);
	return is(one($node, "SELECT string_agg(payload->>'k', ' ') FROM mq.pop('$q', consumer_group => 'late', max_messages => 10)"), 'open:1', $name);
}
group_of_a_crash('listed');
one($node, "COMMIT PREPARED 'maker of listed'");
my $rows = rows_of(late_group('listed'));
like($rows, qr/^\d/, 'the group has its position in the ring');
ok(pushed_out($rows), 'the ring comes round though nobody uses the group');
late_has('listed', 'the group has what was in flight when it was made, and nothing else');
SKIP:
{
	skip 'no stop points in this build', 4 if !mq_stop_points($node);
	# the same, and the maker is committed in the middle of a turn: the worker has listed the groups, and is about to empty
	group_of_a_crash('unlisted');
	my $current = sub { return one($node, 'SELECT tableoid::regclass FROM ' . ring() . ' ORDER BY n DESC LIMIT 1'); };
	my $lock = session($node);
	# once round the worker's turn, held after a checkpoint
	my $turn = sub {
		my ($meanwhile) = @_;
		$lock->q('SELECT pg_advisory_lock(77, 1)');
		one($node, "ALTER SYSTEM SET mq.stop_point = 'checkpoint_committed:lock'");
		$node->reload;
		my $held = poll_until('the worker to be held', sub { one($node, "CALL t.pops(1); SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'mq worker' AND NOT l.granted AND l.locktype = 'advisory'") eq '1' }, 30);
		one($node, $meanwhile) if $meanwhile;
		one($node, 'ALTER SYSTEM RESET mq.stop_point');
		$node->reload;
		$lock->q('SELECT pg_advisory_unlock_all()');
		return $held;
	};
	my $old = $current->();
	ok(poll_until('the ring to move on', sub { one($node, 'SET synchronous_commit = off; CALL t.pops(300)'); $current->() ne $old }, 60), 'the ring moves on');
	$turn->() for 1 .. 3;
	ok($turn->("COMMIT PREPARED 'maker of unlisted'"), 'the maker is committed while the worker is in its turn');
	$rows = rows_of(late_group('unlisted'));
	$turn->();
	ok(pushed_out($rows), 'the ring comes round again');
	late_has('unlisted', 'this group has its position too');
	$lock->close;
}
one($node, "SELECT mq.drop_queue(queue, force => true) FROM mq.queues");

# --- single acks, and the ring moves on as fast as it can --------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('q')");
one($node, "SELECT t.put('q', 'm', 150000)");
for my $round (1 .. 6)
{
	my $before = one($node, "SELECT count(*) FROM t.done");
	$node->pgbench('-n -c 4 -j 2 -T 2', 0, [qr/processed/], [qr/^$/], "single pops, round $round",
		{ "012_pop_$round" => "SELECT t.pop('q', 1);\n" });
	$node->kill9;
	mq_start_again($node);
	cmp_ok(one($node, "SELECT count(*) FROM t.done"), '>', $before, 'messages were popped before the crash');
	is(one($node, "SELECT count(*) FROM (SELECT k FROM t.done GROUP BY k HAVING count(*) > 1) d"), '0', 'none of them twice');
}
ledger_ok($node, 'q', 'the ledger');

# no checkpoint can be committed: then nothing may be emptied, however often the ring moves on
one($node, "SELECT mq.create_queue('w'); ALTER SYSTEM SET mq.stop_point = 'checkpoint_written:error'; SELECT pg_reload_conf()");
one($node, "SELECT t.put('w', 'm', 60000)");
$node->pgbench('-n -c 4 -j 2 -T 6', 0, [qr/processed/], [qr/^$/], 'single pops without checkpoints', { '012_pop_w' => "SELECT t.pop('w', 1);\n" });
cmp_ok(one($node, "SELECT count(*) FROM (SELECT 1 FROM mq_internal.consumer_offset_0 LIMIT 1) a") + one($node, "SELECT count(*) FROM (SELECT 1 FROM mq_internal.consumer_offset_1 LIMIT 1) a")
	+ one($node, "SELECT count(*) FROM (SELECT 1 FROM mq_internal.consumer_offset_2 LIMIT 1) a") + one($node, "SELECT count(*) FROM (SELECT 1 FROM mq_internal.consumer_offset_3 LIMIT 1) a"), '>', 2,
	'the ring moved on and kept its rows');
$node->kill9;
mq_start_again($node);
one($node, "ALTER SYSTEM RESET mq.stop_point; SELECT pg_reload_conf()");
ledger_ok($node, 'w', 'the ledger without checkpoints');
$node->stop;
done_testing();
