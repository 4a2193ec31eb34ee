# Messages with a delay or a time of delivery: not before their time, in the order of (due time, id), each once, whatever happens to
# the sender, to the worker that moves them, and to the server. mq.cancel and mq.reschedule race the worker and tell the truth.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('schedule', fsync => 1, conf => "mq.drop_delay = 0\n");
my $points = mq_stop_points($node);
my $n = 0;

# sends one message, which is in the ledger if the transaction commits
one($node, <<'SQL');
CREATE FUNCTION t.plan(q text, k text, delay interval, OUT id bigint) LANGUAGE plpgsql AS $$
BEGIN
	id := mq.send(q, jsonb_build_object('k', k), delay => delay);
	INSERT INTO t.sent VALUES (q, k);
END $$;
-- what came, in the order it came
CREATE TABLE t.came (n bigserial, q text, k text, id bigint, origin_id bigint, due_at timestamptz, enqueued_at timestamptz, seen_at timestamptz DEFAULT clock_timestamp());
CREATE PROCEDURE t.collect(q text, want int, secs int DEFAULT 60) LANGUAGE plpgsql AS $$
DECLARE
	got int := 0;
	n int;
	until timestamptz := clock_timestamp() + make_interval(secs => secs);
BEGIN
	WHILE got < want AND clock_timestamp() < until LOOP
		WITH m AS (SELECT * FROM mq.pop(q, max_messages => 1000)), c AS (
			INSERT INTO t.came (q, k, id, origin_id, due_at, enqueued_at) SELECT q, payload->>'k', id, origin_id, due_at, enqueued_at FROM m),
			d AS (INSERT INTO t.done SELECT q, payload->>'k' FROM m)
		SELECT count(*) FROM m INTO n;
		COMMIT;
		got := got + n;
		IF n = 0 THEN CALL mq.wait(q, timeout => '1 s'); END IF;
	END LOOP;
END $$;
SQL

sub queue
{
	my ($options) = @_;
	my $q = 'q' . ++$n;
	one($node, "SELECT mq.create_queue('$q', options => '" . ($options || '{}') . "')");
	return $q;
}
sub collect { my ($q, $want, $secs) = @_; return one($node, "CALL t.collect('$q', $want, " . ($secs || 60) . ")"); }
sub scheduled { my ($q) = @_; return one($node, "SELECT count(*) FROM mq.scheduled WHERE queue = '$q'"); }
sub arm { my ($point) = @_; return one($node, "ALTER SYSTEM SET mq.stop_point = '$point'; SELECT pg_reload_conf()"); }

# ---------------------------------------------------------------------------------------------------------------------
# order, and identity

my $q = queue();
one($node, "SELECT t.plan('$q', 'm' || i, make_interval(secs => 1 + ((i * 7919) % 300) / 300.0)) FROM generate_series(1, 300) i");
is(scheduled($q), '300', 'they are in mq.scheduled');
is(one($node, "SELECT scheduled FROM mq.queues WHERE queue = '$q'"), '300', 'and counted in mq.queues');
is(one($node, "SELECT count(*) FROM mq.receive('$q')"), '0', 'and not handed out');
collect($q, 300);
is(one($node, "SELECT count(*), count(DISTINCT k) FROM t.came WHERE q = '$q'"), '300|300', 'each comes once');
is(one($node, "SELECT count(*) FROM (SELECT (due_at, origin_id) < lag((due_at, origin_id)) OVER (ORDER BY n) AS back FROM t.came WHERE q = '$q') s WHERE back"),
	'0', 'in the order of due time and id');
is(one($node, "SELECT count(*) FROM t.came WHERE q = '$q' AND (enqueued_at < due_at OR seen_at < due_at)"), '0', 'none before its time');
is(one($node, "SELECT count(*) FROM t.came WHERE q = '$q' AND (id <= origin_id OR due_at IS NULL)"), '0', 'each has the id of its place and that of its send');
is(scheduled($q), '0', 'nothing is left in the schedule');
is(one($node, "SELECT scheduled FROM mq.queues WHERE queue = '$q'"), '0', 'nor in the count');

# one at a time, in one batch, with and without a time; the past is now; an array of one is for all
$q = queue();
is(one($node, "SELECT array_length(mq.send_batch('$q', '{1,2,3,4}', delays => array[null, '1 s', '-1 s', '0']::interval[]), 1)"), '4', 'a batch of which one is delayed');
is(one($node, "SELECT string_agg(payload::text, ',' ORDER BY id) FROM mq.pop('$q', max_messages => 10)"), '1,3,4', 'the others come at once');
is(one($node, "SELECT payload FROM mq.pop('$q', wait => '20 s')"), '2', 'that one when it is due');
my @ids = split /,/, one($node, "SELECT array_to_string(mq.send_batch('$q', '{1,2,3}', delays => '{1 hour}'), ',')");
is(scheduled($q), '3', 'one delay for all');
is(join(',', sort { $a <=> $b } @ids), join(',', @ids), 'ids are in the order of the elements');
one($node, "SELECT mq.send('$q', '\"old\"', deliver_at => '0044-03-15 BC')");
is(one($node, "SELECT payload, due_at IS NULL FROM mq.pop('$q')"), '"old"|t', 'long ago is now, and has no due time');
is(sqlstate($node, "SELECT mq.send('$q', '1', delay => '36526 days')"), '22023', 'a delay of more than 100 years is refused');
is(sqlstate($node, "SELECT mq.send('$q', '1', deliver_at => 'infinity')"), '22023', 'so is infinity');
is(sqlstate($node, "SELECT mq.send('$q', '1', deliver_at => '-infinity')"), '22023', 'and minus infinity');
is(sqlstate($node, "SELECT mq.send('$q', '1', delay => '170000000 years'::interval)"), '22023', 'and what is absurd');
is(sqlstate($node, "SELECT mq.send('$q', '1', delay => '1 s', deliver_at => now())"), '22023', 'and both at a time');
is(one($node, "SELECT mq.send('$q', '1', deliver_at => now() + '36524 days'::interval) > 0"), 't', 'nearly 100 years are not');
is(sqlstate($node, "SELECT mq.send_batch('$q', '{1,2,3}', delays => array['1 s', '2 s']::interval[])"), '22023', 'arrays of two lengths are refused');

# large ones go through the TOAST table of the schedule
$q = queue();
one($node, "SELECT mq.send('$q', to_jsonb(repeat(md5(i::text), 4000)), body => decode(repeat(md5(i::text), 20000), 'hex'), headers => '{\"h\":1}', delay => '1 s') FROM generate_series(1, 20) i");
poll_until('large ones', sub { one($node, "SELECT ready + unread_at_most FROM mq.groups WHERE queue = '$q'") >= 20 && scheduled($q) eq '0' });
is(one($node, "SELECT sum(length(payload #>> '{}')), sum(length(body)), count(headers->'h') FROM mq.pop('$q', max_messages => 100)"), '2560000|6400000|20', 'large messages come whole');

# ---------------------------------------------------------------------------------------------------------------------
# the sender's transaction

$q = queue();
one($node, "BEGIN; SELECT t.plan('$q', 'rolled back', '1 ms'); ROLLBACK");
one($node, "BEGIN; SELECT t.plan('$q', 'a', '1 ms'); SAVEPOINT s; SELECT t.plan('$q', 'b', '1 ms'); ROLLBACK TO s; SAVEPOINT u; SELECT t.plan('$q', 'c', '1 ms'); RELEASE u; COMMIT");
my $s = session($node);
$s->q("BEGIN");
$s->q("SELECT t.plan('$q', 'late', '1 ms')");
one($node, "SELECT t.plan('$q', 'after it', '2 ms')");
collect($q, 3);
$s->q("COMMIT");
collect($q, 1);
is(one($node, "SELECT string_agg(k, ',' ORDER BY n) FROM t.came WHERE q = '$q'"), 'a,c,after it,late', 'what commits after its due time comes at once, and none is passed over');
ledger_ok($node, $q, 'rollback, also to a savepoint: ledger');

for my $how (qw(none kill9))
{
	for my $end ('COMMIT PREPARED', 'ROLLBACK PREPARED')
	{
		my $commit = $end eq 'COMMIT PREPARED';

		$q = queue();
		one($node, "BEGIN; SELECT t.plan('$q', 'p' || i, '1 ms') FROM generate_series(1, 5) i; SELECT t.plan('$q', 'f', '1 hour'); PREPARE TRANSACTION '$q'");
		one($node, "SELECT t.plan('$q', 'other', '1 ms')");
		if ($how eq 'kill9') { $node->kill9; mq_start_again($node); }
		collect($q, 1);
		is(one($node, "SELECT string_agg(k, ',') FROM t.came WHERE q = '$q'"), 'other', "$end, crash: $how: what is prepared holds nobody up");
		one($node, "$end '$q'");
		collect($q, $commit ? 5 : 0, $commit ? 60 : 1);
		is(one($node, "SELECT count(*) FROM t.came WHERE q = '$q'"), $commit ? '6' : '1', "$end, crash: $how: they come if they exist");
		ok(poll_until('the count', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = '$q'") eq ($commit ? '1' : '0') }), "$end, crash: $how: counted");
	}
}

# ---------------------------------------------------------------------------------------------------------------------
# cancel and reschedule

$s = session($node);
$q = queue();
my $id = one($node, "SELECT t.plan('$q', 'x', '1 hour')");
is(one($node, "SELECT mq.cancel('$q', $id), mq.cancel('$q', $id)"), 't|f', 'cancel takes it out, once');
is(one($node, "SELECT mq.cancel('$q', 123456)"), 'f', 'there is nothing to cancel');
$id = one($node, "SELECT t.plan('$q', 'x', '1 hour')");
one($node, "BEGIN; SELECT mq.cancel('$q', $id); ROLLBACK");
is(scheduled($q), '1', 'a cancel that is rolled back leaves it');
one($node, "BEGIN; SAVEPOINT s; SELECT mq.reschedule('$q', $id, now() + '1 s'); ROLLBACK TO s; COMMIT");
is(one($node, "SELECT due_at > now() + '10 min' FROM mq.scheduled WHERE queue = '$q'"), 't', 'so does a reschedule to a savepoint');
is(one($node, "SELECT mq.reschedule('$q', $id, now() + '2 hours'), mq.reschedule('$q', $id, now() + '3 days'), mq.reschedule('$q', $id, now() + '40 days'), mq.reschedule('$q', $id, now() - interval '1 day')"),
	't|t|t|t', 'reschedule to and fro');
collect($q, 1);
is(one($node, "SELECT k, origin_id FROM t.came WHERE q = '$q'"), "x|$id", 'what is rescheduled to the past comes at once, with its id');
is(one($node, "SELECT mq.reschedule('$q', $id, now() + '1 day'), mq.cancel('$q', $id)"), 'f|f', 'then it is too late');
is(one($node, "WITH s AS (SELECT mq.send('$q', '1', delay => '1 hour') AS id) SELECT mq.cancel('$q', id) FROM s"), 't', 'a statement cancels what it has sent itself');
$s->q("BEGIN");
$id = $s->q("SELECT mq.send('$q', '1', delay => '1 hour')");
is($s->q("SELECT mq.reschedule('$q', $id, now() + '1 day')") . $s->q("SELECT mq.cancel('$q', $id)"), 'tt', 'and a transaction');
$s->q("COMMIT");
is(scheduled($q), '0', 'nothing is left');
is(sqlstate($node, "SELECT mq.reschedule('$q', 1, 'infinity')"), '22023', 'infinity is refused');
is(sqlstate($node, "SELECT mq.reschedule('$q', 1, null)"), '22004', 'null too');

# a cancel that is undone after the worker has passed the row; and one that holds the row while it is due
for my $end (qw(ROLLBACK COMMIT))
{
	$q = queue();
	$id = one($node, "SELECT t.plan('$q', 'held', '500 ms')");
	$s->q("BEGIN");
	is($s->q("SELECT mq.cancel('$q', $id)"), 't', "$end of a cancel: it has the row");
	one($node, "SELECT t.plan('$q', 'marker', '600 ms')");
	collect($q, 1);
	is(one($node, "SELECT string_agg(k, ',') FROM t.came WHERE q = '$q'"), 'marker', "$end of a cancel: the worker passes the row");
	$s->q($end);
	collect($q, $end eq 'ROLLBACK' ? 1 : 0, 5);
	is(one($node, "SELECT string_agg(k, ',' ORDER BY n) FROM t.came WHERE q = '$q'"), $end eq 'ROLLBACK' ? 'marker,held' : 'marker', "$end of a cancel: it comes if it is not cancelled");
}
for my $end ('ROLLBACK PREPARED', 'COMMIT PREPARED')
{
	$q = queue();
	$id = one($node, "SELECT t.plan('$q', 'held', '500 ms')");
	one($node, "BEGIN; SELECT mq.cancel('$q', $id); PREPARE TRANSACTION '$q'");
	one($node, "SELECT t.plan('$q', 'marker', '600 ms')");
	collect($q, 1);
	one($node, "$end '$q'");
	collect($q, $end eq 'ROLLBACK PREPARED' ? 1 : 0, 5);
	is(one($node, "SELECT string_agg(k, ',' ORDER BY n) FROM t.came WHERE q = '$q'"), $end eq 'ROLLBACK PREPARED' ? 'marker,held' : 'marker', "$end of a cancel");
}

# isolation levels: the truth, and no serialization failure
$q = queue();
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	$s->q("BEGIN ISOLATION LEVEL $level");
	$s->q("SELECT count(*) FROM mq.queues");
	my $a = one($node, "SELECT mq.send('$q', '1', delay => '1 hour')");
	my $b = one($node, "SELECT mq.send('$q', '1', delay => '1 hour')");
	one($node, "SELECT mq.cancel('$q', $b)");
	is($s->q("SELECT mq.cancel('$q', $a), mq.cancel('$q', $b)"), 't|f', "$level: what came after the snapshot can be cancelled, what went cannot");
	is($s->try("COMMIT"), '', "$level: and it commits");
}

# the race with the worker: one of them wins, and the caller is told the truth
$q = queue();
my $races = scaled(10000);
one($node, "CREATE TABLE t.race (k text, cancelled boolean)");
my @racers = map { session($node) } 1 .. 4;
for my $i (0 .. 3)
{
	my $count = int($races / 4);
	$racers[$i]->start(<<"SQL");
DO \$\$
DECLARE id bigint; ok boolean;
BEGIN
	FOR i IN 1 .. $count LOOP
		id := mq.send('$q', to_jsonb('r$i.' || i), delay => '1 ms');
		COMMIT;
		PERFORM pg_sleep(random() * 0.002);
		ok := mq.cancel('$q', id);
		INSERT INTO t.race VALUES ('r$i.' || i, ok);
		COMMIT;
	END LOOP;
END \$\$
SQL
}
is(join(',', map { ($_->finish)[0] } @racers), ',,,', 'no race fails');
ok(poll_until('the schedule to be empty', sub { scheduled($q) eq '0' }), 'all are gone from the schedule');
one($node, "CREATE TABLE t.won AS SELECT payload #>> '{}' AS k FROM mq.pop('$q', max_messages => 100000)");
is(one($node, "SELECT count(*) FROM t.race r WHERE r.cancelled = (SELECT count(*) > 0 FROM t.won w WHERE w.k = r.k)"), '0', 'a message was either cancelled or came');
is(one($node, "SELECT count(*) - count(DISTINCT k) FROM t.won"), '0', 'once');
note('cancelled in time: ' . one($node, "SELECT count(*) FILTER (WHERE cancelled) || ' of ' || count(*) FROM t.race"));
is(one($node, "SELECT scheduled FROM mq.queues WHERE queue = '$q'"), '0', 'the count is true after all that');

# ---------------------------------------------------------------------------------------------------------------------
# crashes

SKIP:
{
	skip 'no stop points in this build', 1 if !$points;
	for my $point (qw(move_taken move_appended move_committed))
	{
		$q = queue();
		arm("$point:kill");
		one($node, "SELECT t.plan('$q', 'k' || i, make_interval(secs => 0.5)) FROM generate_series(1, 50) i");
		ok(wait_down($node), "the worker is killed at $point");
		mq_restart_after($node);
		collect($q, 50);
		is(one($node, "SELECT count(*), count(DISTINCT k) FROM t.came WHERE q = '$q'"), '50|50', "kill -9 at $point: each comes once");
		is(one($node, "SELECT count(*) FROM (SELECT origin_id < lag(origin_id) OVER (ORDER BY n) AS back FROM t.came WHERE q = '$q') s WHERE back"), '0', "kill -9 at $point: in order");
	}

	# a batch that fails is tried again
	$q = queue();
	arm('move_appended:error');
	one($node, "SELECT t.plan('$q', 'e' || i, '300 ms') FROM generate_series(1, 5) i");
	ok(poll_until('the failure in the log', sub { PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /stop point "move_appended"/ }), 'a batch fails');
	arm('');
	collect($q, 5);
	is(one($node, "SELECT string_agg(k, ',' ORDER BY n) FROM t.came WHERE q = '$q'"), 'e1,e2,e3,e4,e5', 'and comes later, in order');
}

# due while the server is down
$q = queue();
one($node, "SELECT t.plan('$q', 'd' || i, make_interval(secs => 2 - i / 50.0)) FROM generate_series(1, 50) i");
$node->stop('immediate');
sleep(2);
$node->start;
collect($q, 50);
is(one($node, "SELECT count(*) FROM (SELECT (due_at, origin_id) < lag((due_at, origin_id)) OVER (ORDER BY n) AS back FROM t.came WHERE q = '$q') s WHERE back"), '0', 'what was due during a downtime comes in order');
is(one($node, "SELECT count(*) FROM t.came WHERE q = '$q'"), '50', 'all of it');
$s = session($node);

# ids of scheduled messages are not given again after a crash
$q = queue();
my $max = one($node, "SELECT max(mq.send('$q', '1', delay => '1 day')) FROM generate_series(1, 100)");
$node->kill9;
mq_start_again($node);
cmp_ok(one($node, "SELECT mq.send('$q', '1')"), '>', $max, 'ids go on above those of scheduled messages');

# 64 ids are reserved at a time in a small segment: scheduled messages skip none
$q = queue('{"segment_size": 1024}');
one($node, "SELECT mq.send('$q', '1', delay => '1 day') FROM generate_series(1, 100)");
cmp_ok(one($node, "SELECT mq.send('$q', '1')"), '<', 200, 'a scheduled message takes one id');

# ---------------------------------------------------------------------------------------------------------------------
# a snapshot that is held: what was moved is passed once

$q = queue();
$s = session($node);
$s->q("BEGIN ISOLATION LEVEL REPEATABLE READ");
$s->q("SELECT count(*) FROM t.sent");
my $many = 20000;
# all of them are there, and nothing was read, before they are due
one($node, "SELECT count(*) FROM unnest(mq.send_batch('$q', array_fill('1'::jsonb, array[$many]), deliver_at => array[clock_timestamp() + '10 s'::interval]))");
one($node, "SELECT pg_stat_reset()");
is(one($node, "SELECT scheduled FROM mq.queues WHERE queue = '$q'"), $many, 'many that are due at one moment');
# (a look into mq.scheduled reads them as well)
ok(poll_until('all to be moved', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = '$q'") eq '0' }), 'many that are due at one moment, under a snapshot');
# the last batches are in the statistics when all have been read once
my $read = 0;
poll_until('the statistics', sub { ($read = one($node, "SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_all_indexes WHERE indexrelname LIKE 'scheduled_%_due'")) >= $many });
ok($read >= $many && $read < 3 * $many, "$read index entries were read for $many messages");
is(one($node, "SELECT count(*) FROM mq.pop('$q', max_messages => 1000000)"), $many, 'they come');
$s->q("COMMIT");

# ---------------------------------------------------------------------------------------------------------------------
# rights

one($node, "CREATE ROLE sender LOGIN; CREATE ROLE other LOGIN; CREATE ROLE boss LOGIN; CREATE ROLE nobody_special LOGIN");
$q = queue();
one($node, "SELECT mq.grant('$q', 'send', 'sender'), mq.grant('$q', 'send', 'other'), mq.grant('$q', 'manage', 'boss')");
sub as { my ($role, $sql) = @_; return sqlstate($node, "SET ROLE $role; $sql"); }
$id = one($node, "SET ROLE sender; SELECT mq.send('$q', '1', delay => '1 hour')");
is(as('other', "SELECT mq.cancel('$q', $id)"), '42501', 'another sender may not cancel it');
is(as('other', "SELECT mq.reschedule('$q', $id, now())"), '42501', 'nor reschedule it');
is(as('nobody_special', "SELECT mq.cancel('$q', $id)"), '42501', 'nor who has no right');
is(as('other', "SELECT mq.cancel('$q', $id + 1000)"), '', 'of what is not there he learns no more');
is(one($node, "SET ROLE sender; SELECT mq.reschedule('$q', $id, now() + '2 hours')"), 't', 'its sender may reschedule it');
is(one($node, "SET ROLE boss; SELECT mq.cancel('$q', $id)"), 't', 'who manages may cancel it');
is(one($node, "SET ROLE nobody_special; SELECT count(*) FROM mq.scheduled"), '0', 'mq.scheduled shows nothing to who has no right');
$id = one($node, "SET ROLE sender; SELECT mq.send('$q', '1', delay => '1 hour')");
is(one($node, "SET ROLE other; SELECT queue, id, sender, kind FROM mq.scheduled"), "$q|$id|sender|send", 'and to who has one what there is');
one($node, "SELECT mq.revoke('$q', 'send', 'sender')");
is(as('sender', "SELECT mq.cancel('$q', $id)"), '42501', 'without the right to send its sender may not cancel it either');

# ---------------------------------------------------------------------------------------------------------------------
# drop, purge, pause, seek

like(err($node, "SELECT mq.drop_queue('$q')"), qr/55000.*1 scheduled message/s, 'drop_queue asks');
is(one($node, "SELECT mq.drop_queue('$q', force => true)"), '', 'and drops them if forced');
is(one($node, "SELECT count(*) FROM mq_internal.scheduled s WHERE NOT EXISTS (SELECT FROM mq_internal.queue q WHERE q.queue_no = s.queue_no)"), '0', 'none is left of a queue that is gone');
$q = queue();
one($node, "SELECT t.plan('$q', 'p', '1 hour')");
my ($out, $err);
$node->psql('postgres', "SELECT mq.purge('$q')", stderr => \$err);
like($err, qr/1 scheduled message/, 'purge says what stays in the schedule');
one($node, "SELECT mq.pause('$q')");
one($node, "SELECT t.plan('$q', 'paused', '100 ms')");
ok(poll_until('the move', sub { scheduled($q) eq '1' }), 'a paused queue goes on moving what is due');
is(one($node, "SELECT count(*) FROM mq.receive('$q')"), '0', 'and hands nothing out');
one($node, "SELECT mq.resume('$q')");
is(one($node, "SELECT payload->>'k' FROM mq.pop('$q', wait => '10 s')"), 'paused', 'until it goes on');

# a drop waits for who is scheduling, and who comes after it is told
$q = queue();
$s->q("BEGIN");
$s->q("SELECT mq.send('$q', '1', delay => '1 hour')");
my $d = session($node);
$d->start("SELECT mq.drop_queue('$q', force => true)");
ok(poll_until('the drop to wait', sub { one($node, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = " . $d->pid) eq 'Lock' }), 'drop_queue waits for a sender');
$s->q("COMMIT");
is(($d->finish)[0], '', 'and drops');
is($s->try("SELECT mq.send('$q', '1', delay => '1 hour')"), '42704', 'then there is no queue');
is(one($node, "SELECT count(*) FROM mq_internal.scheduled s WHERE NOT EXISTS (SELECT FROM mq_internal.queue q WHERE q.queue_no = s.queue_no)"), '0', 'and nothing is left of it');

# receivers that wait are woken, and NOTIFY is sent
$q = queue('{"notify_interval": "10 ms"}');
$s->start("SELECT payload FROM mq.pop('$q', wait => '30 s')");
one($node, "SELECT mq.send('$q', '7', delay => '700 ms')");
is(join('|', $s->finish), '|7', 'a receiver that waits gets it');
$s->q("LISTEN \"mq_$q\"");
one($node, "SELECT mq.send('$q', '8', delay => '300 ms')");
ok(poll_until('the notification', sub { $s->q("SELECT 1"); $s->{raw} = join('', $s->{out}, $s->{last_err} // ''); ($s->{all} //= '') .= $s->{out}; $s->{all} =~ /notification "mq_$q"/ }), 'NOTIFY is sent when it is due');

done_testing();
