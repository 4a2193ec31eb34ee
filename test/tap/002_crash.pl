# Crashes: immediate stop, kill -9 of a backend, the worker and the postmaster, and a kill at every stop point.
# Everything committed is there, everything acked stays acked, the rest is handed out again, old receipts are refused.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $small = <<CONF;
mq.drop_delay = 0
mq.offset_log_size = '64kB'
checkpoint_timeout = 30s
CONF
my $node = mq_node('crash', fsync => 1, conf => $small);
my $points = mq_stop_points($node);

# A queue with messages in every state; what was acked, leased and left is noted in the ledger.
# Returns the receipts of committed leases and of an ack.
sub prepare_queue
{
	my ($q, $segment_size) = @_;
	one($node, "SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', " . ($segment_size || 1024) . "))");
	one($node, "SELECT t.put_batch('$q', 'a', 300)");
	one($node, "SELECT t.put('$q', 'b', 20)");
	one($node, "SELECT t.take('$q', 50)");
	one($node, "SELECT t.pop('$q', 30)");
	my $acked = one($node, "SELECT receipt FROM mq.receive('$q', max_messages => 1)");
	# lease mode: the ledger row and the ack commit together, the receive committed before
	one($node, "BEGIN; INSERT INTO t.done SELECT queue, m.k FROM (SELECT '$q' AS queue, payload->>'k' AS k FROM mq.q_$q"
		  . " WHERE id = (SELECT min(id) FROM mq.in_flight WHERE queue = '$q')) m; SELECT mq.ack('$acked'); COMMIT");
	my @leased = split /\n/, one($node, "SELECT receipt FROM mq.receive('$q', max_messages => 40, visibility_timeout => '1 hour')");
	is(scalar @leased, 40, "$q: 40 messages leased");
	return ($acked, @leased);
}

sub after_crash
{
	my ($q, $acked, @leased) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sqlstate($node, "SELECT mq.ack('$leased[0]')"), 'MQ001', "$q: a receipt from before the crash is refused by ack");
	is(sqlstate($node, "SELECT mq.nack('$leased[1]')"), 'MQ001', "$q: ... by nack");
	is(sqlstate($node, "SELECT mq.extend('$leased[2]', '1 min')"), 'MQ001', "$q: ... by extend");
	is(sqlstate($node, "SELECT mq.release('$leased[3]')"), 'MQ001', "$q: ... by release");
	is(sqlstate($node, "SELECT mq.ack('$acked')"), 'MQ001', "$q: an ack is not possible twice");
	my $list = join ',', map { "'$_'" } @leased;
	is(one($node, "SELECT cardinality(mq.ack_batch(ARRAY[$list]::uuid[], strict => false))"), scalar(@leased),
		"$q: the array form returns all old receipts as refused");
	one($node, "SELECT t.put('$q', 'after', 5)");
	ledger_ok($node, $q, "$q: nothing lost, nothing repeated, the leased ones handed out again");
}

# --- immediate stop -------------------------------------------------------------------------------------------------
{
	my @r = prepare_queue('stopped');
	# an open transaction that sent, received and acked: none of it may stay
	my $s = session($node);
	$s->q("BEGIN; SELECT mq.send('stopped', '{\"k\":\"never\"}'); SELECT mq.ack(receipt) FROM mq.receive('stopped', max_messages => 5)");
	$node->stop('immediate');
	$s->close;
	$node->start;
	after_crash('stopped', @r);
}

# --- kill -9 of the postmaster -----------------------------------------------------------------------------------------
{
	my @r = prepare_queue('headless');
	my $s = session($node);
	$s->q("BEGIN; SELECT t.put('headless', 'never', 10); SELECT t.take('headless', 5)");
	$node->kill9;
	$s->close;
	ok(mq_start_again($node), 'the server starts again after kill -9 of the postmaster (its children left)');
	after_crash('headless', @r);
}

# --- tokens do not start again where they started before: the first receipt of one life is not the first of the next --------
{
	one($node, "SELECT mq.create_queue('token'); SELECT t.put('token', 'm', 1)");
	$node->restart;
	my $first = one($node, "SELECT receipt FROM mq.receive('token', max_messages => 1, visibility_timeout => '1 hour')");
	$node->kill9;
	mq_start_again($node);
	my $second = one($node, "SELECT receipt FROM mq.receive('token', max_messages => 1, visibility_timeout => '1 hour')");
	isnt($first, $second, 'the same hand-out after a restart has another receipt');
	is(sqlstate($node, "SELECT mq.ack('$first')"), 'MQ001', 'and the one from before is refused, though the message is leased again');
	is(sqlstate($node, "SELECT mq.release('$second')"), '', 'the new one is good');
	ledger_ok($node, 'token', 'token: ledger');
}

# --- kill -9 of a backend, with and without the server surviving it (restart_after_crash) ---------------------------------
{
	my @r = prepare_queue('backend');
	my $s = session($node);
	$s->q("BEGIN; SELECT t.put('backend', 'never', 10); SELECT t.take('backend', 5)");
	kill 9, $s->pid;
	ok(wait_down($node), 'kill -9 of a backend takes the server down');
	$s->close;
	mq_start_again($node);
	after_crash('backend', @r);

	$node->append_conf('postgresql.conf', "restart_after_crash = on");
	$node->reload;
	@r = prepare_queue('backend2');
	$s = session($node);
	my $other = session($node);
	$s->q("BEGIN; SELECT t.put('backend2', 'never', 10); SELECT t.take('backend2', 5)");
	kill 9, $s->pid;
	poll_until('the other session to be gone', sub { ($other->try('SELECT 1'))[0] ne '' });
	ok(poll_until('crash restart', sub { one($node, "SELECT 1 FROM mq.queues LIMIT 1") eq '1' }), 'the server restarts by itself');
	$s->close;
	$other->close;
	ok(worker_alive($node), 'the worker is back after the crash restart');
	after_crash('backend2', @r);
}

# --- kill -9 of the worker ------------------------------------------------------------------------------------------------
{
	my @r = prepare_queue('workerless');
	my $pid = worker_alive($node);
	my $s = session($node);
	kill 9, $pid;
	poll_until('the session to be gone', sub { ($s->try('SELECT 1'))[0] ne '' });
	ok(poll_until('crash restart', sub { one($node, "SELECT 1 FROM mq.queues LIMIT 1") eq '1' }), 'kill -9 of the worker: the server restarts');
	$s->close;
	ok(worker_alive($node, $pid), 'kill -9 of the worker: a new one comes');
	after_crash('workerless', @r);
	$node->append_conf('postgresql.conf', "restart_after_crash = off");
	$node->reload;
}

# --- crash right after create_queue + sends in one transaction (wal_level = minimal: no WAL for a new table's rows) -------
{
	is(one($node, 'SHOW wal_level'), 'minimal', 'wal_level is minimal here');
	one($node, "BEGIN; SELECT mq.create_queue('fresh', options => jsonb_build_object('segment_size', 1024)); SELECT t.put_batch('fresh', 'f', 5000); "
		  . "SELECT t.put('fresh', 'g', 100); SELECT t.take('fresh', 700); COMMIT");
	$node->kill9;
	mq_start_again($node);
	one($node, "SELECT t.put('fresh', 'h', 10)");
	ledger_ok($node, 'fresh', 'create_queue + sends + takes in one transaction survive a kill -9 right after the commit');
}

# --- crash after crash: positions from replay of replays ---------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('again', options => jsonb_build_object('segment_size', 1024))");
	for my $round (1 .. 5)
	{
		one($node, "SELECT t.put_batch('again', 'r$round', 700)");
		one($node, "SELECT t.take('again', 150)") for 1 .. 3;
		one($node, "SELECT count(*) FROM mq.receive('again', max_messages => 60, visibility_timeout => '1 hour')");
		one($node, "SELECT t.take('again', 100)");
		$round % 2 ? $node->kill9 : $node->stop('immediate');
		mq_start_again($node);
		is(one($node, "SELECT count(*) FROM (SELECT k FROM t.done WHERE q = 'again' GROUP BY k HAVING count(*) > 1) x"), '0',
			"round $round: nothing repeated so far");
	}
	ledger_ok($node, 'again', 'five crashes in a row');
}

# --- failure counts survive by checkpoint ----------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('counts')");
	one($node, "SELECT t.put('counts', 'poison', 1)");
	for (1 .. 3) { one($node, "SELECT mq.nack(receipt, '0') FROM mq.receive('counts')"); }
	one($node, "SELECT mq.nack(receipt, '1 hour') FROM mq.receive('counts')");
	# the worker makes a checkpoint of a group that changed, once enough was logged, at most about once a second;
	# the poison message is the low watermark all along, so only a checkpoint can tell that the rest is finished
	my $end = time() + 4;
	my $i = 0;
	while (time() < $end) { $i++; one($node, "SELECT t.put('counts', 'c$i', 20); SELECT t.take('counts', 5) FROM generate_series(1, 4)"); }
	$node->kill9;
	mq_start_again($node);
	is(one($node, "SELECT count(*) FROM mq.receive('counts', max_messages => 100)"), '0', 'a due time far ahead survives a crash by checkpoint');
	# send another poison, due at once, and go round again
	one($node, "SELECT t.put('counts', 'poison2', 1)");
	for (1 .. 3) { one($node, "SELECT mq.nack(receipt, '0') FROM mq.receive('counts')"); }
	my $held = one($node, "SELECT receipt FROM mq.receive('counts', max_messages => 1, visibility_timeout => '1 hour')");
	$end = time() + 4;
	while (time() < $end) { $i++; one($node, "SELECT t.put('counts', 'd$i', 20); SELECT t.take('counts', 5) FROM generate_series(1, 4)"); }
	$node->stop('immediate');
	$node->start;
	is(one($node, "SELECT failures FROM mq.receive('counts', max_messages => 1, visibility_timeout => '1 hour')"), '3', 'the failure count survives a crash by checkpoint');
}

# --- every stop point ----------------------------------------------------------------------------------------------------
SKIP:
{
	skip 'built without stop points (make MQ_TEST=1)', 1 if !$points;

	# [ point, what the killed session does, is its work there afterwards ]
	my @in_backend = (
		[ 'send_before_insert', "SELECT t.put('%q', 'x', 3)", 0 ],
		[ 'send_after_insert',  "SELECT t.put('%q', 'x', 3)", 0 ],
		[ 'send_after_insert',  "SELECT t.put_batch('%q', 'x', 3000)", 0 ],
		[ 'receive_marked',     "SELECT t.take('%q', 5)", 0 ],
		[ 'walk_read',          "SELECT t.take('%q', 200)", 0 ],
		[ 'ack_marked',         "SELECT t.take('%q', 5)", 0 ],
		[ 'ack_written',        "SELECT t.take('%q', 5)", 0 ],
		[ 'pre_commit',         "SELECT t.take('%q', 5)", 0 ],
		[ 'commit_recorded',    "SELECT t.take('%q', 5)", 1 ],
		[ 'commit_recorded',    "BEGIN; SELECT t.put('%q', 'x', 3); SELECT t.take('%q', 5); COMMIT", 1 ],
		[ 'prepared',           "BEGIN; SELECT t.put('%q', 'x', 3); SELECT t.take('%q', 5); PREPARE TRANSACTION '%q'", 2 ],
	);
	my $i = 0;
	for my $p (@in_backend)
	{
		my ($point, $sql, $there) = @$p;
		my $q = 'p' . ++$i;
		$sql =~ s/%q/$q/g;
		my $what = "stop point $point ($i)";
		my @r = prepare_queue($q);
		# walk_read is reached only if something is left to walk
		one($node, "SELECT t.put_batch('$q', 'more', 3000)") if $point eq 'walk_read';
		my $before = one($node, "SELECT (SELECT count(*) FROM t.sent WHERE q = '$q') || ' ' || (SELECT count(*) FROM t.done WHERE q = '$q')");
		my $s = session($node);
		$s->q("SET mq.stop_point = '$point:kill'");
		my $state = $s->try($sql);
		is($state, 'DEAD', "$what: killed");
		$s->close;
		if ($state ne 'DEAD') { diag("state '$state': the stop point was not reached"); next; }
		ok(wait_down($node), "$what: server down");
		mq_restart_after($node);
		my $after = one($node, "SELECT (SELECT count(*) FROM t.sent WHERE q = '$q') || ' ' || (SELECT count(*) FROM t.done WHERE q = '$q')");
		isnt($after, $before, "$what: the transaction is committed") if $there == 1;
		is($after, $before, "$what: the transaction is gone") if $there != 1;
		if ($there == 2)
		{
			is(one($node, "SELECT count(*) FROM pg_prepared_xacts"), '1', "$what: prepared");
			# nothing it touched may be handed out while undecided
			one($node, "SELECT t.take('$q', 10)");
			one($node, $i % 2 ? "COMMIT PREPARED '$q'" : "ROLLBACK PREPARED '$q'");
		}
		after_crash($q, @r);
	}

	# points in the worker: [ point, how to get it there ]
	for my $point (qw(checkpoint_written checkpoint_committed truncate_before segment_created segment_attached segment_committed seal_before drop_before))
	{
		my $q = "w_$point";
		my $what = "stop point $point in the worker";
		my @r = prepare_queue($q);
		# a lease would keep its segment: these come back after the crash only, so use a second queue for the traffic
		one($node, "SELECT mq.create_queue('${q}2', options => jsonb_build_object('segment_size', 1024)); SELECT t.put('${q}2', 'first', 1)");
		one($node, "ALTER SYSTEM SET mq.stop_point = '$point:kill'");
		$node->reload;
		my $round = 0;
		my $pidfile = $node->data_dir . '/postmaster.pid';
		my $reached = poll_until("$point", sub {
			$round++;
			# each transaction is whole or not there: the ledger knows
			$node->psql('postgres', "SELECT t.put_batch('${q}2', 'r$round', 1500); SELECT t.take('${q}2', 1000); SELECT t.take('${q}2', 500);"
				  . ($round > 1 ? "SELECT t.take('${q}2', 1) FROM generate_series(1, 100)" : ''), stderr => \my $e);
			return !-e $pidfile;
		}, 60);
		ok($reached, "$what: reached");
		if (!$reached)
		{
			one($node, "ALTER SYSTEM RESET mq.stop_point");
			$node->reload;
			next;
		}
		wait_down($node);
		mq_restart_after($node);
		after_crash($q, @r);
		ledger_ok($node, "${q}2", "$what: the traffic's ledger");
	}

	# rebuild_before: the first touch after a start, in whatever process
	{
		my @r = prepare_queue('rebuilt');
		one($node, "ALTER SYSTEM SET mq.stop_point = 'rebuild_before:kill'");
		$node->stop('immediate');
		mq_start_to_fall($node);
		my $pidfile = $node->data_dir . '/postmaster.pid';
		ok(poll_until('the rebuild to be killed', sub { $node->psql('postgres', "SELECT count(*) FROM mq.receive('rebuilt')", stderr => \my $e); !-e $pidfile }),
			'stop point rebuild_before: reached');
		wait_down($node);
		mq_restart_after($node);
		after_crash('rebuilt', @r);
	}
}

# no queue of this file is in a bad way after all that
is(one($node, "SELECT count(*) FROM (SELECT DISTINCT q FROM t.sent WHERE q <> 'counts') s WHERE t.verdict(q) <> 'ok'"), '0', 'all ledgers are still right at the end');
$node->stop('fast');
$node->start;
is(one($node, "SELECT count(*) FROM mq.queues q, mq.receive(q.queue, max_messages => 10) m WHERE q.queue <> 'counts'"), '0', 'and nothing comes back after a clean restart');
$node->stop;
done_testing();
