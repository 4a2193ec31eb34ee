# Waiting: wait on receive and pop, CALL mq.wait.  What wakes, how fast, whom; what ends a wait; what waiting costs.
# The worker's safety sweep is off throughout, so a wake-up that is lost is seen.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time sleep);
use MqTest;

my $SOON = 0.5;        # a wake-up takes about a millisecond; the safety sweep (off) a second
my $node = mq_node('wait', conf => "mq.wake_sweep = off\nmax_connections = 280\nmq.drop_delay = 0\nmq.visibility_timeout = '10 min'\n");
my $points = mq_stop_points($node);

my $admin = session($node);
my ($w, $w2, $s, $s2) = map { session($node) } 1 .. 4;

# asleep in a wait of mq, as the server shows it (not for a lock, not for the client)
sub asleep
{
	my ($session, $what) = @_;
	my $ok = poll_until("$session->{pid} to wait", sub {
		return -1 if $session->is_done;
		$admin->q("SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{pid} AND state = 'active' AND wait_event_type IN ('Extension', 'IPC')") eq '1' }, 10);
	if ($ok != 1) { fail(($what || 'a receiver') . ' waits'); diag($session->is_done ? 'it did not: ' . join(' ', $session->finish) : 'it is doing something else'); return 0; }
	return 1;
}

# the wait that $session is in ends within $most (and not before $least) of now, with this state and output
sub ends
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($session, $name, $since, %o) = @_;
	my ($state, $out) = $session->finish(8);
	my $took = time() - $since;
	my $good = is("$state:$out", ($o{state} // '') . ':' . ($o{out} // ''), $name);
	if ($state eq 'TIMEOUT') { one($node, "SELECT pg_cancel_backend($session->{pid})"); $session->finish; }
	cmp_ok($took, '<', $o{most} // $SOON, sprintf('%s: at once (%.0f ms)', $name, 1000 * $took));
	cmp_ok($took, '>=', $o{least}, sprintf('%s: not before (%.0f ms)', $name, 1000 * $took)) if $o{least};
	return $good;
}

sub queue { my ($q, %o) = @_; one($node, "SELECT mq.create_queue('$q'" . ($o{args} ? ", $o{args}" : '') . ')'); one($node, "SELECT t.put('$q', 'm', $o{n})") if $o{n}; return $q; }

my $pop = "SELECT payload->>'k' FROM mq.pop('%s', max_messages => 10, wait => '%s')";
sub waiter { my ($session, $q, $how, $for) = @_; $session->start(sprintf($how || $pop, $q, $for || '20 s')); return asleep($session, $q); }

# wakes('name', before => [statements], cause => sub, out => ..): a receiver sleeps, the cause comes, it gets the message
my $n = 0;
sub wakes
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($name, %o) = @_;
	my $q = queue('wake' . ++$n, n => $o{n} // 1, args => $o{args});
	my $sql = sub { my ($t) = @_; $t =~ s/%q/$q/g; return $t; };
	for my $b (@{ $o{before} || [] }) { $s->q($sql->($b)); }
	if (waiter($w, $q, $o{how}))
	{
		my $since = time();
		for my $c (@{ $o{cause} }) { $s->q($sql->($c)); $since = time() if !$o{from_start}; }
		# from the last statement's return (a commit wakes before it returns)
		ends($w, "$name wakes", $since, out => $o{out} // 'm:1', most => $o{most}, least => $o{least});
	}
	$s->q('ROLLBACK') if $o{rollback};
	return $q;
}

# --- what wakes ---------------------------------------------------------------------------------------------------------
my $hold = "SELECT receipt AS r FROM mq.receive('%q') \\gset\n";
wakes('commit of a send', n => 0, cause => [ "SELECT t.put('%q', 'm', 1)" ]);
wakes('commit of a send, receive', n => 0, cause => [ "SELECT t.put('%q', 'm', 1)" ], how => "SELECT payload->>'k' FROM mq.receive('%s', wait => '%s')");
wakes('commit of a send, for CALL mq.wait', n => 0, cause => [ "SELECT t.put('%q', 'm', 1)" ], how => "CALL mq.wait('%s', timeout => '%s')", out => '');
wakes('commit of a block', n => 0, before => [ "BEGIN; SELECT t.put('%q', 'm', 1)" ], cause => [ 'COMMIT' ]);
wakes('commit of a bulk', n => 0, cause => [ "SELECT t.put_batch('%q', 'm', 5000)" ], out => join("\n", map { "m:$_" } 1 .. 10));
wakes('a send in a savepoint that is released', n => 0, before => [ "BEGIN; SAVEPOINT a; SELECT t.put('%q', 'm', 1); RELEASE a" ], cause => [ 'COMMIT' ]);
wakes('a send in a savepoint that is kept', n => 0, before => [ "BEGIN; SAVEPOINT a; SAVEPOINT b; SELECT t.put('%q', 'm', 1)" ], cause => [ 'COMMIT' ]);
wakes('a send beside one rolled back', n => 0, before => [ "BEGIN; SELECT t.put('%q', 'm', 1); SAVEPOINT a; SELECT t.put('%q', 'x', 2); ROLLBACK TO a" ], cause => [ 'COMMIT' ]);
wakes('a send after a savepoint was rolled back', n => 0, before => [ "BEGIN; SAVEPOINT a; SELECT t.put('%q', 'x', 1); ROLLBACK TO a; SELECT t.put('%q', 'm', 1)" ], cause => [ 'COMMIT' ]);
wakes('a send in PL/pgSQL beside a caught error', n => 0, cause => [ "DO \$\$BEGIN PERFORM t.put('%q', 'm', 1); BEGIN PERFORM t.put('%q', 'x', 1); RAISE 'no'; EXCEPTION WHEN OTHERS THEN END; END\$\$" ]);
wakes('nack', before => [ $hold ], cause => [ "SELECT mq.nack(:'r'::uuid)" ]);
wakes('nack in a block that stays open', before => [ $hold, 'BEGIN' ], cause => [ "SELECT mq.nack(:'r'::uuid)" ], rollback => 1);
wakes('nack with a delay, when it is due,', before => [ $hold ], cause => [ "SELECT mq.nack(:'r'::uuid, '400 ms')" ], least => 0.3, most => 0.4 + $SOON);
wakes('due time of an earlier nack', before => [ $hold, "SELECT mq.nack(:'r'::uuid, '500 ms')" ], cause => [ 'SELECT 1' ], most => 0.5 + $SOON);
wakes('a due time before the one it waits for', n => 2, before => [ $hold, "SELECT mq.nack(:'r'::uuid, '1 h')", $hold ], cause => [ "SELECT mq.nack(:'r'::uuid, '300 ms')" ], out => 'm:2', least => 0.2, most => 0.3 + $SOON);
wakes('release', before => [ $hold ], cause => [ "SELECT mq.release(:'r'::uuid)" ]);
wakes('rollback of a receive', before => [ "BEGIN; SELECT count(*) FROM mq.receive('%q')" ], cause => [ 'ROLLBACK' ]);
wakes('rollback of a pop', before => [ "BEGIN; SELECT count(*) FROM mq.pop('%q')" ], cause => [ 'ROLLBACK' ]);
wakes('rollback to a savepoint', before => [ "BEGIN; SAVEPOINT a; SELECT count(*) FROM mq.receive('%q')" ], cause => [ 'ROLLBACK TO a' ], rollback => 1);
wakes('rollback to a savepoint, pop', before => [ "BEGIN; SAVEPOINT a; SELECT count(*) FROM mq.pop('%q')" ], cause => [ 'ROLLBACK TO a' ], rollback => 1);
wakes('rollback of an ack whose lease is over', before => [ "SELECT receipt AS r FROM mq.receive('%q', max_messages => 1, visibility_timeout => '300 ms') \\gset\nBEGIN; SELECT mq.ack(:'r'::uuid)", 'SELECT pg_sleep(0.4)' ], cause => [ 'ROLLBACK' ]);
wakes('lease end', before => [ "SELECT count(*) FROM mq.receive('%q', max_messages => 1, visibility_timeout => '600 ms')" ], cause => [ 'SELECT 1' ], most => 0.6 + $SOON);
wakes('a lease made shorter', before => [ $hold ], cause => [ "SELECT mq.extend(:'r'::uuid, '300 ms')" ], least => 0.2, most => 0.3 + $SOON);
wakes('commit of a transaction whose lease is over', before => [ "BEGIN; SELECT count(*) FROM mq.receive('%q', max_messages => 1, visibility_timeout => '100 ms')", 'SELECT pg_sleep(0.2)' ], cause => [ 'COMMIT' ]);
wakes('resume of the queue', before => [ "SELECT mq.pause('%q')" ], cause => [ "SELECT mq.resume('%q')" ]);
wakes('resume of the group', before => [ "SELECT mq.pause('%q', 'default')" ], cause => [ "SELECT mq.resume('%q', 'default')" ]);
wakes('commit of a resume', before => [ "SELECT mq.pause('%q')", "BEGIN; SELECT mq.resume('%q')" ], cause => [ 'COMMIT' ]);
wakes('seek', before => [ "SELECT count(*) FROM mq.pop('%q')" ], cause => [ "SELECT mq.seek('%q', 'default', start => 'earliest')" ]);
wakes('commit of a seek', before => [ "SELECT count(*) FROM mq.pop('%q')", "BEGIN; SELECT mq.seek('%q', 'default', start_id => 1)" ], cause => [ 'COMMIT' ]);
wakes('discard rolled back', before => [ "BEGIN; SELECT mq.discard('%q', 'default', (SELECT array_agg(id) FROM mq.\"q_%q\"))" ], cause => [ 'ROLLBACK' ]);
# limits: room
my $limit = [ "SELECT mq.alter_group('%q', 'default', jsonb_build_object('max_in_flight', 1))", $hold ];
my $one = "SELECT payload->>'k' FROM mq.receive('%s', max_messages => 5, wait => '%s')";
wakes("room under max_in_flight: $_->[0],", n => 2, before => $limit, cause => $_->[1], out => $_->[2], how => $one)
	for [ 'ack', [ "SELECT mq.ack(:'r'::uuid)" ], 'm:2' ], [ 'nack', [ "SELECT mq.nack(:'r'::uuid)" ], 'm:1' ], [ 'nack with a delay', [ "SELECT mq.nack(:'r'::uuid, '1 h')" ], 'm:2' ],
	[ 'ack in a block', [ 'BEGIN', "SELECT mq.ack(:'r'::uuid)", 'COMMIT' ], 'm:2' ], [ 'alter_group', [ "SELECT mq.alter_group('%q', 'default', jsonb_build_object('max_in_flight', 2))" ], 'm:2' ],
	[ 'reset', [ "SELECT mq.alter_group('%q', 'default', jsonb_build_object('reset', jsonb_build_array('max_in_flight')))" ], 'm:2' ], [ 'seek', [ "SELECT mq.seek('%q', 'default', start => 'earliest')" ], 'm:1' ];
wakes('room under max_in_flight: end of the lease', n => 2, before => [ $limit->[0], "SELECT count(*) FROM mq.receive('%q', max_messages => 1, visibility_timeout => '500 ms')" ], cause => [ 'SELECT 1' ], out => 'm:1', how => $one, most => 0.5 + $SOON);
wakes('room under max_in_flight: rollback of a pop', n => 2, before => [ $limit->[0], "BEGIN; SELECT count(*) FROM mq.pop('%q')" ], cause => [ 'ROLLBACK' ], how => $one);
wakes('room under max_in_flight: commit of a pop', n => 2, before => [ $limit->[0], "BEGIN; SELECT count(*) FROM mq.pop('%q')" ], cause => [ 'COMMIT' ], out => 'm:2', how => $one);
wakes('room under max_in_flight_per_consumer', n => 2, before => [ "SELECT mq.alter_group('%q', 'default', jsonb_build_object('max_in_flight_per_consumer', 1))", "SELECT receipt AS r FROM mq.receive('%q', consumer => 'x') \\gset" ],
	cause => [ "SELECT mq.ack(:'r'::uuid)" ], out => 'm:2', how => "SELECT payload->>'k' FROM mq.receive('%s', max_messages => 5, wait => '%s', consumer => 'x')");

# two-phase commit runs no callback of ours: within about two seconds
{
	my $q = queue('prep');
	$s->q("BEGIN; SELECT t.put('$q', 'm', 1); PREPARE TRANSACTION 'p'");
	if (waiter($w, $q)) { my $t = time(); $s->q("COMMIT PREPARED 'p'"); ends($w, 'COMMIT PREPARED of a send wakes', $t, out => 'm:1', most => 2.5); }
	$s->q("SELECT t.put('$q', 'n', 1)");
	$s->q("BEGIN; SELECT count(*) FROM mq.pop('$q'); PREPARE TRANSACTION 'p'");
	if (waiter($w, $q)) { my $t = time(); $s->q("ROLLBACK PREPARED 'p'"); ends($w, 'ROLLBACK PREPARED of a pop wakes', $t, out => 'n:1', most => 2.5); }
}

# what a client that goes away held
{
	my $q = queue('away', n => 1);
	my $x = session($node);
	$x->q("BEGIN; SELECT count(*) FROM mq.receive('$q')");
	if (waiter($w, $q)) { my $t = time(); $admin->q("SELECT pg_terminate_backend($x->{pid})"); ends($w, 'the end of a session that held it wakes', $t, out => 'm:1'); }
	$x->close;
}

# --- what does not wake, or not in vain ----------------------------------------------------------------------------------
{
	my $q = queue('quiet');
	my $t = time();
	$w->start(sprintf($pop, $q, '700 ms'));
	asleep($w);
	$s->q("BEGIN; SELECT t.put('$q', 'x', 1); ROLLBACK");
	$s->q("SELECT mq.pause('$q'); SELECT mq.resume('$q')");
	ends($w, 'nothing came: no rows when the time is over', $t, out => '', least => 0.69, most => 0.7 + $SOON);
	$t = time();
	is($w->q(sprintf($pop, $q, '0 s')), '', 'wait of 0');
	cmp_ok(time() - $t, '<', $SOON, 'does not wait');
	$t = time();
	is($w->q("SELECT payload FROM mq.receive('$q', wait => null)"), '', 'wait of null');
	cmp_ok(time() - $t, '<', $SOON, 'neither');
	is(sqlstate($node, "SELECT mq.receive('$q', wait => '$_')"), '22023', "wait of $_: 22023") for '-1 ms', '60001 ms', 'infinity' eq 'x' ? () : '1 day';
	is(sqlstate($node, "SELECT mq.pop('$q', wait => '61 s')"), '22023', 'pop: the same');
	is(sqlstate($node, "BEGIN READ ONLY; SELECT mq.pop('$q', wait => '1 s')"), '25006', 'read only: at once, 25006');
	is(sqlstate($node, "SELECT mq.pop('no such', wait => '10 s')"), '42704', 'no such queue: at once');
	is(sqlstate($node, "SELECT mq.pop('$q', consumer_group => 'x', wait => '10 s')"), '42704', 'no such group: at once');
	# own sends
	is($w->q("BEGIN; SELECT t.put('$q', 'own', 1); SELECT payload->>'k' FROM mq.pop('$q', wait => '10 s'); COMMIT"), "1\nown:1", 'own sends: no need to wait');
	# a paused queue
	$s->q("SELECT mq.pause('$q'); SELECT t.put('$q', 'm', 1)");
	waiter($w, $q);
	$s->q("SELECT t.put('$q', 'n', 1)");
	ok(!$w->is_done, 'paused: a send does not end the wait');
	$t = time();
	$s->q("SELECT mq.resume('$q')");
	ends($w, 'resume does', $t, out => "m:1\nn:1");
}

# --- who is blocked or has an old definition in mind keeps nothing from the others (a review found each of these) ---------------
{
	# the timekeeper's consumer has as much as it may: what a lease's end makes ready is for somebody else
	my $q = queue('clock', n => 2);
	one($node, "SELECT mq.alter_group('$q', 'default', jsonb_build_object('max_in_flight_per_consumer', 1))");
	$s->q("SELECT count(*) FROM mq.receive('$q', max_messages => 1, consumer => 'a', visibility_timeout => '1 h')");
	$s->q("SELECT count(*) FROM mq.receive('$q', max_messages => 1, consumer => 'x', visibility_timeout => '1500 ms')");
	my $t = time();
	waiter($w, $q, "SELECT payload->>'k' FROM mq.receive('%s', max_messages => 1, wait => '%s', consumer => 'a', visibility_timeout => '1 h')");
	waiter($w2, $q, "SELECT payload->>'k' FROM mq.receive('%s', max_messages => 1, wait => '%s', consumer => 'b', visibility_timeout => '1 h')");
	ends($w2, 'a blocked timekeeper passes on what the clock makes ready', $t, out => 'm:2', most => 1.5 + $SOON);
	# and room for the blocked one: the limit goes
	$t = time();
	$s->q("SELECT t.put('$q', 'n', 3)");
	$s->q("SELECT mq.alter_group('$q', 'default', jsonb_build_object('reset', jsonb_build_array('max_in_flight_per_consumer')))");
	ends($w, 'a limit that goes wakes who is blocked', $t, out => 'n:1');
}
{
	# the timekeeper read 'paused'; the one that resume wakes is another one
	my $q = queue('paused', n => 1);
	$s->q("SELECT count(*) FROM mq.receive('$q', max_messages => 1, visibility_timeout => '2500 ms')");
	my $t = time();
	$s->q("SELECT mq.pause('$q')");
	my $x = session($node);
	waiter($x, $q, undef, '500 ms');
	waiter($w, $q);
	waiter($w2, $q);
	$x->finish;
	$s->q("SELECT mq.resume('$q')");
	my $got = sub { ($w->is_done ? 1 : 0) + ($w2->is_done ? 1 : 0) };
	ok(poll_until('the lease to end', sub { $got->() }, 10), 'after a resume the clock is kept');
	cmp_ok(time() - $t, '<', 2.5 + $SOON, 'and at once');
	one($node, "SELECT pg_cancel_backend($_->{pid})") for grep { !$_->is_done } $w, $w2;
	$_->finish for $w, $w2;
	$x->close;
}

SKIP:
{
	# what max_bytes leaves is for a receiver of the same name, who had been told that the name has as much as it may
	skip 'no stop points in this build', 6 if !$points;
	my $q = queue('leaves', n => 2);
	one($node, "SELECT mq.alter_group('$q', 'default', jsonb_build_object('max_in_flight_per_consumer', 2))");
	my $x = session($node);
	$x->q("SET mq.stop_point = 'receive_marked:lock'");
	$admin->q('SELECT pg_advisory_lock(77, 1)');
	$x->start("SELECT payload->>'k' FROM mq.receive('$q', max_messages => 2, consumer => 'x', max_bytes => 1)");
	poll_until('it to be held', sub { $x->waits_on_lock($node) }, 10);
	waiter($w, $q, "SELECT payload->>'k' FROM mq.receive('%s', max_messages => 1, wait => '%s', consumer => 'x')");
	my $t = time();
	$admin->q('SELECT pg_advisory_unlock(77, 1)');
	ends($w, 'what max_bytes leaves wakes who is blocked', $t, out => 'm:2');
	is(join(':', $x->finish), ':m:1', 'the other one has the first');

	# the same where they were committed after the other one's statement began, so that it may have neither
	$q = queue('newer');
	one($node, "SELECT mq.alter_group('$q', 'default', jsonb_build_object('max_in_flight_per_consumer', 2))");
	$admin->q('SELECT pg_advisory_lock(77, 1); SELECT pg_advisory_lock(78)');
	$x->start("SELECT (SELECT count(*) FROM mq.receive('$q', max_messages => 2, consumer => 'x')) FROM pg_advisory_xact_lock(78)");
	poll_until('it to begin', sub { $x->waits_on_lock($node) }, 10);
	$s->q("SELECT t.put('$q', 'm', 2)");
	$admin->q('SELECT pg_advisory_unlock(78)');
	poll_until('it to have both', sub { $admin->q("SELECT leased FROM mq.groups WHERE queue = '$q'") eq '2' }, 10);
	waiter($w, $q, "SELECT payload->>'k' FROM mq.receive('%s', max_messages => 1, wait => '%s', consumer => 'x')");
	$t = time();
	$admin->q('SELECT pg_advisory_unlock(77, 1)');
	ends($w, 'what is given back because it is too new wakes who is blocked by a limit', $t, out => 'm:1');
	is(join(':', $x->finish), ':0', 'the other one may have none of them');
	$x->close;
}

# --- isolation: after a wait, newer ones in READ COMMITTED, never in the others ---------------------------------------------------
{
	my $q = queue('iso');
	for my $level ('REPEATABLE READ', 'SERIALIZABLE')
	{
		my $t = time();
		$w->start("BEGIN ISOLATION LEVEL $level; SELECT payload->>'k' FROM mq.pop('$q', max_messages => 10, wait => '3 s'); SELECT count(*) FROM t.sent WHERE q = '$q'; COMMIT");
		asleep($w, $level);
		waiter($w2, $q);
		$t = time();
		$s->q("SELECT t.put('$q', 'new', 1)");
		# whichever of the two is woken: the other gets it
		ends($w2, "$level: a receiver who can see the message gets it though one who cannot waits too", $t, out => 'new:1');
		$s->q("SELECT t.put('$q', 'left', 2)");
		ends($w, "$level: never newer than the snapshot, to the end of the wait", $t, out => '0', most => 3 + $SOON, least => 1);
		is($w->q("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM mq.pop('$q', max_messages => 10, wait => '3 s'); COMMIT"), '2', "$level: what the snapshot sees, at once");
		$s->q("TRUNCATE t.sent");
	}
	is($w->q("SELECT count(*) || ' ' || coalesce(max(failures), 0) FROM mq.pop('$q', max_messages => 10)"), '0 0', 'nothing is left over');
}

# --- the waiting are served fairly: each message wakes as many as it can serve ------------------------------------------------------
{
	my $q = queue('some');
	my @x = map { session($node) } 1 .. 6;
	waiter($_, $q, "SELECT payload->>'k' FROM mq.pop('%s', max_messages => 1, wait => '%s')") for @x;
	is(one($node, "SELECT waiting FROM mq.groups WHERE queue = '$q'"), '6', 'mq.groups.waiting counts them');
	my $t = time();
	$s->q("SELECT t.put_batch('$q', 'b', 4)");
	ok(poll_until('four', sub { (grep { $_->is_done } @x) >= 4 }, 5), 'one commit of four messages serves four of six');
	cmp_ok(time() - $t, '<', $SOON, 'at once');
	is(one($node, "SELECT waiting FROM mq.groups WHERE queue = '$q'"), '2', 'the other two go on waiting');
	$s->q("SELECT t.put('$q', 'c', 1)") for 1, 2;
	ok(poll_until('all', sub { (grep { $_->is_done } @x) == 6 }, 5), 'and are served later');
	is(join(' ', sort map { ($_->finish)[1] } @x), 'b:1 b:2 b:3 b:4 c:1 c:1', 'each once');
	$_->close for @x;
	# two groups, one message: one waiter of each
	$q = queue('both', args => "groups => '{a,b}'");
	waiter($w, $q, "SELECT payload->>'k' FROM mq.pop('%s', consumer_group => 'a', max_messages => 1, wait => '%s')");
	waiter($w2, $q, "SELECT payload->>'k' FROM mq.pop('%s', consumer_group => 'b', max_messages => 1, wait => '%s')");
	$t = time();
	$s->q("SELECT t.put('$q', 'm', 1)");
	ends($w, 'one message wakes group a', $t, out => 'm:1');
	ends($w2, 'and group b', $t, out => 'm:1');
	# sends to two queues in one transaction
	my $q2 = queue('both2');
	waiter($w, $q, "SELECT payload->>'k' FROM mq.pop('%s', consumer_group => 'a', max_messages => 1, wait => '%s')");
	waiter($w2, $q2);
	$t = time();
	$s->q("BEGIN; SELECT t.put('$q', 'm', 1); SELECT t.put('$q2', 'n', 1); COMMIT");
	ends($w, 'a transaction that sent to two queues wakes the one', $t, out => 'm:1');
	ends($w2, 'and the other', $t, out => 'n:1');
}

# --- a woken waiter that dies passes it on ------------------------------------------------------------------------------------------
SKIP:
{
	skip 'no stop points in this build', 1 if !$points;
	my $q = queue('pass');
	for my $how ('error', 'cancel', 'terminate')
	{
		my ($x, $y) = map { session($node) } 1, 2;
		$admin->q('SELECT pg_advisory_lock(77, 1)');
		$x->q("SET mq.stop_point = 'receive_marked:" . ($how eq 'error' ? 'error' : 'lock') . "'");
		waiter($x, $q);
		waiter($y, $q);
		# x came first; whichever is woken, y has it in the end
		my $t = time();
		$s->q("SELECT t.put('$q', 'm', 1)");
		poll_until('one of them to have it', sub { $x->is_done || $y->is_done || $x->waits_on_lock($node) }, 10);
		if ($how ne 'error' && !$y->is_done)
		{
			ok(!$y->is_done, "$how: x has it and is held");
			$t = time();
			one($node, "SELECT pg_" . ($how eq 'cancel' ? 'cancel' : 'terminate') . "_backend($x->{pid})");
		}
		ends($y, "passed on after $how of the one that was woken", $t, out => 'm:1');
		one($node, "SELECT pg_terminate_backend($x->{pid})");
		$x->finish;
		$admin->q('SELECT pg_advisory_unlock_all()');
		$_->close for $x, $y;
	}
}
{
	# the same without a stop point: killed at the moment of the commit, again and again
	my $q = queue('moment');
	my $bad = 0;
	for my $i (1 .. scaled(15))
	{
		my $x = session($node);
		waiter($x, $q, "INSERT INTO t.done SELECT '$q', payload->>'k' FROM mq.pop('%s', max_messages => 1, wait => '%s')");
		waiter($w, $q, "INSERT INTO t.done SELECT '$q', payload->>'k' FROM mq.pop('%s', max_messages => 1, wait => '%s')");
		my $kill = $i % 2 ? "pg_terminate_backend($x->{pid})" : "pg_cancel_backend($x->{pid})";
		$s->start("SELECT t.put('$q', 'i$i', 1)");
		$admin->q("SELECT $kill");
		$s->finish;
		my $ok = poll_until('it to be received', sub { $admin->q("SELECT count(*) FROM t.done WHERE q = '$q' AND k = 'i$i:1'") eq '1' }, 3);
		$bad++ if !$ok;
		$admin->q("SELECT pg_terminate_backend($x->{pid})");
		$x->close;
		$admin->q("SELECT pg_cancel_backend($w->{pid})");
		$w->finish;
		one($node, "SELECT t.pop('$q', 10)") if !$ok;
	}
	is($bad, 0, 'a waiter that ends at the moment of a commit: the other one is served');
	is(one($node, "SELECT t.verdict('$q')"), 'ok', 'and each message was received once');
}

# --- what ends a wait at once -----------------------------------------------------------------------------------------------------------
{
	my %how = (receive => "SELECT payload->>'k' FROM mq.receive('%s', consumer_group => 'g', wait => '%s')", pop => "SELECT payload->>'k' FROM mq.pop('%s', consumer_group => 'g', wait => '%s')",
		'CALL mq.wait' => "CALL mq.wait('%s', 'g', '%s')");
	for my $what (sort keys %how)
	{
		my $q = queue('end', args => "groups => '{g}'");
		my $x = session($node);
		my $t;
		if (waiter($x, $q, $how{$what})) { $t = time(); $admin->q("SELECT pg_cancel_backend($x->{pid})"); ends($x, "$what: cancel ends it", $t, state => '57014'); }
		$t = time();
		is($x->try("SET statement_timeout = '300 ms'; " . sprintf($how{$what}, $q, '20 s')), '57014', "$what: statement_timeout ends it");
		cmp_ok(time() - $t, '<', 0.3 + $SOON, "$what: at once");
		$x->q('RESET statement_timeout');
		is(one($node, "SELECT waiting FROM mq.groups WHERE queue = '$q'"), '0', "$what: then nobody waits");
		if (waiter($x, $q, $how{$what})) { $t = time(); $s->q("SELECT mq.drop_group('$q', 'g', force => true)"); ends($x, "$what: drop_group ends it", $t, state => '42704'); }
		$s->q("SELECT mq.create_group('$q', 'g')");
		if (waiter($x, $q, $how{$what}))
		{
			$s->q("BEGIN; SELECT mq.drop_group('$q', 'g', force => true); ROLLBACK; BEGIN; SELECT mq.drop_queue('$q'); ROLLBACK");
			ok(!$x->is_done, "$what: a drop that is rolled back does not end it");
			$t = time();
			$s->q("SELECT t.put('$q', 'm', 1)");
			ends($x, "$what: it gets what comes", $t, out => $what =~ /CALL/ ? '' : 'm:1');
		}
		$s->q("SELECT count(*) FROM mq.pop('$q', consumer_group => 'g'); SELECT mq.seek('$q', 'g', start => 'latest')");
		if (waiter($x, $q, $how{$what})) { $t = time(); $s->q("SELECT mq.drop_queue('$q', force => true)"); ends($x, "$what: drop_queue ends it", $t, state => '42704'); }
		queue('end', args => "groups => '{g}'");
		if (waiter($x, $q, $how{$what})) { $t = time(); $admin->q("SELECT pg_terminate_backend($x->{pid})"); ends($x, "$what: pg_terminate_backend ends it", $t, state => 'DEAD'); }
		$x->close;
		one($node, "SELECT mq.drop_queue('end', force => true)");
	}
	one($node, 'CREATE DATABASE other');
	one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('q')", 'other');
	my ($x, $y) = map { session($node, db => 'other') } 1, 2;
	waiter($x, 'q');
	waiter($y, 'q', "CALL mq.wait('%s', timeout => '%s')");
	my $t = time();
	is(sqlstate($node, 'DROP DATABASE other WITH (FORCE)'), '', 'DROP DATABASE ... WITH (FORCE) while two wait there');
	ends($x, 'DROP DATABASE ends a receive', $t, state => 'DEAD', most => 6);
	ends($y, 'DROP DATABASE ends a CALL mq.wait', $t, state => 'DEAD', most => 6);
	$_->close for $x, $y;
}

# --- a client that is killed while it waits takes nothing along -------------------------------------------------------------------
{
	my %how = ('pop' => "SELECT payload->>'k' FROM mq.pop('%s', wait => '%s')", 'receive' => "SELECT payload->>'k' FROM mq.receive('%s', wait => '%s')", 'CALL mq.wait' => "CALL mq.wait('%s', timeout => '%s')",
		'pop in a block' => "BEGIN; SELECT payload->>'k' FROM mq.pop('%s', wait => '%s')");
	for my $what (sort keys %how)
	{
		my $q = queue('killed' . ++$n);
		my $x = session($node);
		waiter($x, $q, $how{$what}, '60 s') or next;
		$x->{run}->signal('KILL');
		my $t = time();
		ok(poll_until('nobody to wait', sub { $admin->q("SELECT waiting FROM mq.groups WHERE queue = '$q'") eq '0' }, 5), "$what: kill -9 of the client ends the wait");
		$s->q("SELECT t.put('$q', 'm', 1)");
		is($s->q("SELECT payload->>'k' FROM mq.pop('$q')"), 'm:1', "$what: the next message is there for somebody who lives");
		ok(poll_until('the session to end', sub { $admin->q("SELECT count(*) FROM pg_stat_activity WHERE pid = $x->{pid}") eq '0' }, 5), "$what: the session ends");
		$x->vanish;
	}
}

# --- what the mutants found missing: a look after getting into line, a timekeeper that leaves, a wait that a transaction survives ---------
{
	# committed after the statement began: its first look may not have the message, nobody will be woken for it
	my $q = queue('between');
	$admin->q('SELECT pg_advisory_lock(78)');
	$w->start("SELECT (SELECT payload->>'k' FROM mq.pop('$q', max_messages => 1, wait => '20 s')) FROM pg_advisory_xact_lock(78)");
	ok(poll_until('it to be held', sub { $w->waits_on_lock($node) }, 10), 'a statement that begins before the message is sent, and receives after');
	$s->q("SELECT t.put('$q', 'm', 1)");
	my $t = time();
	$admin->q('SELECT pg_advisory_unlock(78)');
	ends($w, 'sent between the begin of the statement and the wait', $t, out => 'm:1');

	# the first in line sees to the clock; when it leaves, another one does
	$q = queue('leaver', n => 1);
	my $x = session($node);
	$t = time();
	$s->q("SELECT count(*) FROM mq.receive('$q', max_messages => 1, visibility_timeout => '3 s')");
	waiter($x, $q, undef, '1500 ms');
	waiter($_, $q) for $w, $w2;
	is(join(':', $x->finish(8)), ':', 'the first of three receivers has waited long enough');
	poll_until('one of the others to have it', sub { $w->is_done || $w2->is_done }, 10);
	my ($got, $other) = $w->is_done ? ($w, $w2) : ($w2, $w);
	ends($got, 'the end of a lease after the first one has left', $t, out => 'm:1', least => 2.5, most => 3 + $SOON);
	$t = time();
	$s->q("SELECT t.put('$q', 'n', 1)");
	ends($other, 'and the last one is woken too', $t, out => 'n:1');

	# woken, and interrupted before it could look
	for my $how ('cancel', 'terminate')
	{
		$q = queue("stopped_$how");
		my $y = session($node);
		waiter($_, $q) for $y, $w;
		kill 'STOP', $y->{pid};
		$s->q("SELECT t.put('$q', 'm', 1)");
		$admin->q("SELECT pg_${how}_backend($y->{pid})");
		$t = time();
		kill 'CONT', $y->{pid};
		ends($w, "after $how of the receiver that was woken for it the next one", $t, out => 'm:1');
		$y->finish;
		$y->close;
	}

	# an error that the transaction survives
	my $pop_it = "mq.pop('%q', wait => '20 s')";
	my %how = (
		'an exception block' => "DO \$\$ BEGIN BEGIN PERFORM $pop_it; EXCEPTION WHEN query_canceled THEN END; END \$\$",
		'an exception block in an open transaction' => "BEGIN; DO \$\$ BEGIN BEGIN PERFORM $pop_it; EXCEPTION WHEN query_canceled THEN END; END \$\$",
		'a savepoint' => "BEGIN; SAVEPOINT a; SELECT $pop_it; ROLLBACK TO a",
		'nested ones' => "BEGIN; SAVEPOINT a; SAVEPOINT b; SELECT $pop_it; ROLLBACK TO a; COMMIT",
		'mq.wait in a savepoint' => "BEGIN; SAVEPOINT a; CALL mq.wait('%q', timeout => '20 s'); ROLLBACK TO a; COMMIT");
	for my $what (sort keys %how)
	{
		$q = queue('caught' . ++$n);
		(my $sql = $how{$what}) =~ s/%q/$q/g;
		$x->q("SET statement_timeout = '200 ms'");
		$x->try($sql);
		is(one($node, "SELECT waiting FROM mq.groups WHERE queue = '$q'"), '0', "a wait that statement_timeout ends in $what: nobody waits after it");
		next if !waiter($w, $q);
		$t = time();
		$s->q("SELECT t.put('$q', 'm', 1)");
		ends($w, "after $what: the next message wakes another receiver", $t, out => 'm:1');
		$x->q('ROLLBACK; SET statement_timeout = 0');
	}
	# and waits again, for another queue
	$q = queue('again');
	waiter($x, $q);
	$t = time();
	$s->q("SELECT t.put('$q', 'm', 1)");
	ends($x, 'whose waits were ended like that: it can wait for another queue', $t, out => 'm:1');
	$x->close;
}

# --- CALL mq.wait: takes nothing, holds no snapshot -------------------------------------------------------------------------------------------
{
	my $q = queue('call');
	my $quick = sub { my ($sql, $name) = @_; my $t = time(); $w->q($sql); cmp_ok(time() - $t, '<', $SOON, $name); };
	my $slow = sub { my ($sql, $name) = @_; my $t = time(); $w->q($sql); cmp_ok(time() - $t, '>=', 0.69, $name); };
	$slow->("CALL mq.wait('$q', timeout => '700 ms')", 'CALL mq.wait waits until the time is over');
	waiter($w, $q, "CALL mq.wait('%s', timeout => '%s')");
	is($admin->q("SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE pid = $w->{pid}"), 't', 'outside a transaction block it holds no snapshot');
	is($admin->q("SELECT count(*) FROM pg_locks WHERE pid = $w->{pid} AND locktype = 'relation' AND relation::regclass::text ~ '^mq'"), '0', 'and no lock on the queue');
	my $t = time();
	$s->q("SELECT t.put('$q', 'm', 1)");
	ends($w, 'CALL mq.wait returns when there is something', $t, out => '');
	$quick->("CALL mq.wait('$q')", 'and at once when there is something already');
	is($w->q("SELECT payload->>'k' || ' ' || attempt || ' ' || failures FROM mq.receive('$q', max_messages => 1, visibility_timeout => '1 h')"), 'm:1 1 0', 'it has taken nothing');
	$slow->("CALL mq.wait('$q', timeout => '700 ms')", 'a leased message is not available');
	$slow->("SELECT mq.pause('$q'); SELECT t.put('$q', 'n', 1); CALL mq.wait('$q', timeout => '700 ms'); SELECT mq.resume('$q')", 'nor one of a paused queue');
	$w->q("SELECT count(*) FROM mq.pop('$q')");
	$w->q("BEGIN; CALL mq.wait('$q', timeout => '100 ms')");
	like($w->{last_err}, qr/WARNING:/, 'inside a transaction block: a WARNING');
	is($w->try("SET LOCAL statement_timeout = '2 s'; CALL mq.wait('$q', timeout => '61 s')"), '22023', 'and no more than 60 s there');
	$w->q('ROLLBACK');
	$w->q("CALL mq.wait('$q', timeout => '10 ms')");
	unlike($w->{last_err}, qr/WARNING/, 'outside: no warning');
	# a snapshot for the whole transaction cannot be given up, block or not
	for my $level ('repeatable read', 'serializable')
	{
		my $x = session($node);
		$x->q("SET default_transaction_isolation = '$level'; SET statement_timeout = '2 s'");
		is($x->try("CALL mq.wait('$q', timeout => '10 ms')"), '', "CALL mq.wait outside a transaction block that is $level by default");
		like($x->{last_err}, qr/WARNING:.*\n*HINT:/, "$level: a WARNING");
		is($x->try("CALL mq.wait('$q', timeout => '61 s')"), '22023', "$level: no more than 60 s");
		$x->close;
	}
	is(sqlstate($node, "CALL mq.wait('$q', timeout => '366 days')"), '22023', 'more than 365 days: 22023');
	is(sqlstate($node, "CALL mq.wait('$q', timeout => '-1 s')"), '22023', 'negative: 22023');
	is(sqlstate($node, "CALL mq.wait('$q', timeout => null)"), '22004', 'null: 22004');
	is(sqlstate($node, "CALL mq.wait('$q', 'nobody', '1 s')"), '42704', 'no such group: 42704');
	waiter($w, $q, "CALL mq.wait('%s', timeout => '365 days')");
	ok(!$w->is_done, '365 days are allowed');
	$s->q("SELECT t.put('$q', 'end', 1)");
	is(join(':', $w->finish(8)), ':', 'and end when something comes');
	# in a procedure that may commit
	one($node, "CREATE PROCEDURE t.work(n int) LANGUAGE plpgsql AS \$\$ BEGIN FOR i IN 1 .. n LOOP COMMIT; CALL mq.wait('$q', timeout => '20 s'); PERFORM t.pop('$q', 1); END LOOP; END \$\$");
	$w2->start('CALL t.work(3)');
	for my $i (1 .. 3)
	{
		$s->q("SELECT t.put('$q', 'w$i', 1)") if $i > 1;
		poll_until('the procedure to take it', sub { $admin->q("SELECT count(*) FROM t.done WHERE q = '$q'") >= $i - 1 }, 5);
	}
	is(join(':', $w2->finish(10)), ':', 'CALL mq.wait in a procedure that receives and commits');
	is(one($node, "SELECT count(*) FROM t.done WHERE q = '$q'"), '3', 'it has all three');
	# a role that may not consume
	one($node, "CREATE ROLE nobody_here");
	is(sqlstate($node, "SET ROLE nobody_here; CALL mq.wait('$q', timeout => '10 s')"), '42501', 'who may not consume may not wait');
	is(sqlstate($node, "SET ROLE nobody_here; SELECT mq.pop('$q', wait => '10 s')"), '42501', 'nor receive');
}

# --- 200 waiters and one message ------------------------------------------------------------------------------------------------------------------
my $ticks = sub {
	my %t;
	for my $pid (@_)
	{
		open my $f, '<', "/proc/$pid/stat" or next; my @f = split / /, <$f> =~ s/^.*\) //r; close $f;
		open $f, '<', "/proc/$pid/status" or next; my ($sw) = join('', <$f>) =~ /^voluntary_ctxt_switches:\s+(\d+)/m; close $f;
		$t{$pid} = [ $f[11] + $f[12], $sw ];
	}
	return \%t;
};
{
	my $q = queue('many');
	my $file = $node->basedir . '/waiter.sql';
	open my $f, '>', $file or die; print $f "INSERT INTO t.done SELECT '$q', payload->>'k' FROM mq.pop('$q', max_messages => 1, wait => '60 s');\n"; close $f;
	local %ENV = $node->_get_env(PGAPPNAME => 'waiters');
	my ($out, $err) = ('', '');
	my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '200', '-j', '1', '-t', '1', '-f', $file, 'postgres' ], '>', \$out, '2>', \$err);
	ok(poll_until('200 waiters', sub { $admin->q("SELECT waiting FROM mq.groups WHERE queue = '$q'") eq '200' }, 40), '200 receivers wait');
	my @pid = split /\n/, $admin->q("SELECT pid FROM pg_stat_activity WHERE application_name = 'waiters'");
	is(scalar(@pid), 200, 'in 200 processes');
	my $a = $ticks->(@pid);
	sleep(3);                               # the time over which idleness is measured
	my $b = $ticks->(@pid);
	my ($cpu, $switches) = (0, 0);
	for (@pid) { $cpu += $b->{$_}[0] - $a->{$_}[0]; $switches += $b->{$_}[1] - $a->{$_}[1]; }
	cmp_ok($cpu, '<=', 5, "3 s of idle waiting of 200 took almost no CPU ($cpu ticks of 10 ms)");
	cmp_ok($switches, '<=', 40, "and they slept ($switches wake-ups)");
	my $t = time();
	$s->q("SELECT t.put('$q', 'one', 1)");
	ok(poll_until('one served', sub { $admin->q("SELECT count(*) FROM t.done WHERE q = '$q'") eq '1' }, 5), 'one message: one is served');
	cmp_ok(time() - $t, '<', $SOON, 'at once');
	my $c = $ticks->(@pid);
	my $woken = grep { !$c->{$_} || $c->{$_}[1] > $b->{$_}[1] } @pid;
	cmp_ok($woken, '<=', 5, "a handful of the 200 was woken ($woken)");
	is($admin->q("SELECT waiting FROM mq.groups WHERE queue = '$q'"), '199', 'the others go on waiting');
	$s->q("BEGIN; SELECT t.put_batch('$q', 'rest', 150); COMMIT");
	ok(poll_until('151 served', sub { $admin->q("SELECT count(*) FROM t.done WHERE q = '$q'") eq '151' }, 10), 'a commit of 150 serves 150');
	$s->q("SELECT t.put('$q', 'last$_', 1)") for 1 .. 49;
	ok(poll_until('all served', sub { $admin->q("SELECT count(*) FROM t.done WHERE q = '$q'") eq '200' }, 10), '49 commits serve the last 49');
	$bench->finish;
	is(one($node, "SELECT t.verdict('$q')"), 'ok', 'each message once');
	like($out . $err, qr/processed: 200\/200/, 'every client ended well') or diag($err);
}

# --- an ack makes room only where a limit stood in the way: else nobody is woken for it -------------------------------------------
{
	my $q = queue('acks', n => 250);
	one($node, "SELECT mq.alter_group('$q', 'default', jsonb_build_object('max_in_flight', 300))");
	one($node, "CREATE TABLE t.in_hand AS SELECT receipt FROM mq.receive('$q', max_messages => 250, visibility_timeout => '1 h')");
	one($node, <<'SQL');
CREATE PROCEDURE t.ack_each() LANGUAGE plpgsql AS $$
DECLARE r uuid;
BEGIN
	FOR r IN SELECT receipt FROM t.in_hand LOOP
		PERFORM mq.ack(r);
		COMMIT;
		PERFORM pg_sleep(0.002);           -- so that each could wake by itself
	END LOOP;
END $$;
SQL
	if (waiter($w, $q))
	{
		my $before = $ticks->($w->{pid});
		$s->q('CALL t.ack_each()');
		my $switches = $ticks->($w->{pid})->{ $w->{pid} }[1] - $before->{ $w->{pid} }[1];
		is(one($node, "SELECT leased + settling FROM mq.groups WHERE queue = '$q'"), '0', '250 messages are acked, each in a transaction of its own');
		cmp_ok($switches, '<=', 25, "a receiver beside them sleeps ($switches wake-ups)");
		my $t = time();
		$s->q("SELECT t.put('$q', 'm', 1)");
		ends($w, 'the next message wakes it', $t, out => 'm:1');
	}
}

# --- a change of a definition reaches all receivers, of all groups, however many stand in one line ----------------------------------
{
	my $q = queue('all', args => "groups => '{crowd,b,c,d}'");
	my $file = $node->basedir . '/crowd.sql';
	open my $f, '>', $file or die; print $f "SELECT mq.pop('$q', 'crowd', 1, wait => '60 s');\n"; close $f;
	local %ENV = $node->_get_env(PGAPPNAME => 'crowd');
	my ($out, $err) = ('', '');
	my $crowd = IPC::Run::start([ 'pgbench', '-n', '-c', '80', '-j', '1', '-t', '1000', '-f', $file, 'postgres' ], '>', \$out, '2>', \$err);
	my %x = map { $_ => session($node) } qw(b c d);
	my $waiting = sub { my ($n) = @_; return poll_until("$n to wait", sub { $admin->q("SELECT sum(waiting) FROM mq.groups WHERE queue = '$q'") eq $n }, 40); };
	my @missed;
	for my $round (1 .. 6)
	{
		# the resume is all that wakes for the message; a change before it has put the crowd's line in front of the others
		$s->q("SELECT mq.pause('$q'); SELECT t.put('$q', 'r$round', 1)");
		$x{$_}->start("SELECT payload->>'k' FROM mq.pop('$q', '$_', 1, wait => '20 s')") for sort keys %x;
		$waiting->(83) or last;
		$s->q("SELECT mq.pause('$q')");
		$waiting->(83) or last;
		$s->q("SELECT mq.resume('$q')");
		poll_until('all of them', sub { !grep { !$_->is_done } values %x }, 3) or diag("round $round");
		push @missed, map { "$_ in round $round" } grep { !$x{$_}->is_done } sort keys %x;
		last if @missed;
		$x{$_}->finish for keys %x;
	}
	is("@missed", '', 'a resume wakes a receiver of each group, beside 80 of another');
	ok($waiting->(80), 'those of the other group go on waiting') if !@missed;
	one($node, "SELECT mq.drop_queue('$q', force => true)");
	$crowd->finish;
	$_->close for values %x;
}

{
	# what it has sent itself in the same statement is not for it, and gives nobody a reason to look again
	my $q = queue('own');
	$w->start("SELECT mq.send('$q', '1') > 0, (SELECT count(*) FROM mq.receive('$q', wait => '2 s'))");
	asleep($w);
	my $a = $ticks->($w->{pid});
	is(join(':', $w->finish), ':t|0', 'a statement does not receive what it sends itself');
	cmp_ok($ticks->($w->{pid})->{ $w->{pid} }[0] - $a->{ $w->{pid} }[0], '<=', 40, 'and sleeps while it waits for others');
}

# --- many waiters, senders, random ends: nothing is lost, nobody sleeps while there is work -------------------------------------------------------------
{
	my $q = queue('chaos', args => q{options => '{"segment_size": 1024}'});
	my $file = $node->basedir . '/sender';
	one($node, 'CREATE SEQUENCE t.chaos');
	my %script = (
		a => "\\set r random(1, 15)\n\\sleep :r ms\nSELECT t.put('$q', 'a' || nextval('t.chaos'), 1);\n",
		b => "\\set r random(1, 20)\nBEGIN;\nSELECT t.put('$q', 'b' || nextval('t.chaos'), 2);\n\\sleep :r ms\nSAVEPOINT a;\nSELECT t.put('$q', 'c' || nextval('t.chaos'), 1);\nRELEASE a;\nCOMMIT;\n",
		c => "\\set r random(1, 20)\n\\sleep :r ms\nBEGIN;\nSELECT t.put('$q', 'never', 2);\nROLLBACK;\n");
	my @f;
	for my $x (sort keys %script) { open my $f, '>', "$file$x.sql" or die; print $f $script{$x}; close $f; push @f, '-f', "$file$x.sql"; }
	my @work = (
		"INSERT INTO t.done SELECT '$q', payload->>'k' FROM mq.pop('$q', max_messages => 1, wait => '20 s')",
		"INSERT INTO t.done SELECT '$q', payload->>'k' FROM mq.pop('$q', max_messages => 3, wait => '20 s')",
		"WITH m AS (SELECT * FROM mq.receive('$q', max_messages => 2, wait => '20 s')), d AS (INSERT INTO t.done SELECT '$q', payload->>'k' FROM m) SELECT count(mq.ack(receipt)) FROM m",
		"DO \$\$BEGIN INSERT INTO t.done SELECT '$q', payload->>'k' FROM mq.pop('$q', max_messages => 1, wait => '20 s'); EXCEPTION WHEN query_canceled THEN END\$\$",
		"BEGIN; SAVEPOINT a; INSERT INTO t.done SELECT '$q', payload->>'k' FROM mq.pop('$q', max_messages => 1, wait => '20 s'); ROLLBACK TO a; COMMIT",
		"SELECT count(*) FROM mq.receive('$q', max_messages => 1, wait => '20 s', visibility_timeout => '50 ms')",
		"SELECT count(mq.nack(receipt, '20 ms')) FROM mq.receive('$q', max_messages => 1, wait => '20 s')",
		"SELECT count(mq.release(receipt)) FROM mq.receive('$q', max_messages => 1, wait => '20 s')",
		"BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO t.done SELECT '$q', payload->>'k' FROM mq.pop('$q', max_messages => 1, wait => '500 ms'); COMMIT",
		"CALL mq.wait('$q', timeout => '20 s')");
	my @x = map { session($node) } 1 .. 20;
	local %ENV = $node->_get_env(PGAPPNAME => 'senders');
	my ($out, $err) = ('', '');
	my $T = scaled(7);
	my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '4', '-T', $T, @f, 'postgres' ], '>', \$out, '2>', \$err);
	my ($end, $ended) = (time() + $T, 0);
	my $begin = sub { my ($i) = @_; $x[$i]->start($work[ $i < 8 ? $i % 4 : int(rand(@work)) ]); };
	$begin->($_) for 0 .. $#x;
	while (time() < $end)
	{
		for my $i (0 .. $#x)
		{
			if ($x[$i]->is_done)
			{
				my ($st) = $x[$i]->finish;
				if ($st eq 'DEAD') { $x[$i]->close; $x[$i] = session($node); }
				elsif ($st ne '') { $x[$i]->try('ROLLBACK'); }
				$begin->($i);
			}
			elsif (rand() < 0.01) { $ended++; $admin->q("SELECT pg_cancel_backend($x[$i]{pid})"); }
			elsif (rand() < 0.002) { $ended++; $admin->q("SELECT pg_terminate_backend($x[$i]{pid})"); }
		}
		sleep(0.002);
	}
	$bench->finish;
	like($out, qr/processed: [1-9]\d\d/, 'chaos: senders were busy') or diag($err);
	cmp_ok($ended, '>', scaled(20), "chaos: $ended waits were ended by force");
	# the rest is for those that finish what they receive: they have to be woken for it
	for my $i (0 .. $#x)
	{
		if ($i >= 4) { $admin->q("SELECT pg_terminate_backend($x[$i]{pid})"); $x[$i]->close; }
	}
	my $calm = time() + 15;
	my $verdict = '';
	my ($ready, $since) = (0, time());
	while (time() < $calm)
	{
		for my $i (0 .. 3)
		{
			next if !$x[$i]->is_done;
			my ($st) = $x[$i]->finish;
			if ($st eq 'DEAD') { $x[$i]->close; $x[$i] = session($node); }
			elsif ($st ne '') { $x[$i]->try('ROLLBACK'); }
			$x[$i]->start($work[0]);
		}
		$verdict = $admin->q("SELECT t.verdict('$q')");
		last if $verdict eq 'ok';
	}
	is($verdict, 'ok', sprintf('chaos: each message received exactly once, by receivers that were woken for it (%.1f s after the last send)', time() - $since));
	cmp_ok(time() - $since, '<', 6, 'chaos: without waiting for a wait to end');
	is($admin->q("SELECT ready + retrying + leased + settling + pending FROM mq.groups WHERE queue = '$q'"), '0', 'chaos: nothing is left');
	for my $x (@x[0 .. 3]) { next if !$x->is_done; $x->finish; $x->start($work[0]); }
	ok(poll_until('them to wait', sub { $admin->q("SELECT waiting FROM mq.groups WHERE queue = '$q'") eq '4' }, 5), 'chaos: and those that wait now have nothing to take');
	for my $x (@x[0 .. 3]) { $admin->q("SELECT pg_terminate_backend($x->{pid})"); $x->close; }
}

# --- shutdown ends waits -------------------------------------------------------------------------------------------------------------------------------
{
	my $q = queue('down');
	waiter($w, $q);
	waiter($w2, $q, "CALL mq.wait('%s', timeout => '%s')");
	my $t = time();
	$node->stop('fast');
	cmp_ok(time() - $t, '<', 5, 'a fast shutdown does not wait for those who wait');
	$_->close for $w, $w2, $s, $s2, $admin;
}
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/TRAP|PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
