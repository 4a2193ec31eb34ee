# What a review and an attack of the schedule found: rows that a drop leaves, a worker that waits for itself, one role's messages that
# hold up everybody's, looks that begin at the left end again and again, memory that grows with what cannot be moved.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time sleep);
use MqTest;

my $node = mq_node('schedule_review', conf => "mq.drop_delay = 0\nautovacuum = off\nmq.max_queues = 1000\nmq.max_groups = 1000\n");
my $points = mq_stop_points($node);
my $s = session($node);
my $d = session($node);
sub number { my ($q) = @_; return one($node, "SELECT queue_no FROM mq_internal.queue WHERE name = '$q'"); }
sub rows { my ($no) = @_; return one($node, "SELECT count(*) FROM mq_internal.scheduled WHERE queue_no = $no"); }
sub scheduled { my ($q) = @_; return one($node, "SELECT scheduled FROM mq.queues WHERE queue = '$q'"); }
sub waits { my ($session) = @_; my $pid = $session->pid; return poll_until("session $pid to wait", sub { one($node, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid") eq 'Lock' }); }
sub arm { my ($point) = @_; return one($node, "ALTER SYSTEM SET mq.stop_point = '$point'; SELECT pg_reload_conf()"); }
# by due time the worker reads, by id who cancels
sub index_reads { my ($which) = @_; return one($node, "SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_all_indexes WHERE indexrelname LIKE 'scheduled_%$which'"); }

# ---------------------------------------------------------------------------------------------------------------------
# a drop leaves nothing in the schedule

for my $how ('reschedule', 'cancel that is rolled back', 'make_due')
{
	my $end = $how =~ /rolled back/ ? 'ROLLBACK' : 'COMMIT';
	one($node, "SELECT mq.create_queue('drop')");
	my $no = number('drop');
	my $id = one($node, "SELECT mq.send('drop', '1', delay => '3 hours')");
	$s->q('BEGIN');
	$s->q($how eq 'reschedule' ? "SELECT mq.reschedule('drop', $id, now() + '30 min')" : $how eq 'make_due' ? "SELECT mq.make_due('drop')" : "SELECT mq.cancel('drop', $id)");
	$d->start("SELECT mq.drop_queue('drop', force => true)");
	waits($d);
	$s->q($end);
	is(($d->finish)[0], '', "drop_queue waits for a $how");
	is(rows($no), '0', 'and leaves no row');
}
{
	one($node, "SELECT mq.create_queue('drop')");
	my $no = number('drop');
	$s->q('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$s->q('SELECT count(*) FROM mq.queues');
	one($node, "SELECT mq.send('drop', '1', delay => '1 hour')");
	like(($s->try("SELECT mq.drop_queue('drop')")), qr/55000/, 'a drop in an old snapshot sees what was scheduled since');
	$s->q('ROLLBACK');
	$s->q('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$s->q('SELECT count(*) FROM mq.queues');
	one($node, "SELECT mq.send('drop', '1', delay => '1 hour')");
	is($s->try("SELECT mq.drop_queue('drop', force => true)"), '', 'and if forced');
	$s->q('COMMIT');
	is(rows($no), '0', 'it takes it along');
}
{
	one($node, "SELECT mq.create_queue('drop'); CREATE PUBLICATION p FOR ALL TABLES");
	one($node, "SELECT mq.send('drop', '1', delay => '1 hour')");
	is(sqlstate($node, "SELECT mq.drop_queue('drop', force => true)"), '', 'a publication of all tables does not keep a queue from being dropped');
	one($node, "SELECT mq.create_queue('drop')");
	my $id = one($node, "SELECT mq.send('drop', '1', delay => '1 hour')");
	is(sqlstate($node, "SELECT mq.cancel('drop', $id)"), '', 'nor a message from being cancelled');
	one($node, "SELECT mq.send('drop', '1', delay => '1 ms')");
	is(one($node, "SELECT count(*) FROM mq.pop('drop', wait => '10 s')"), '1', 'nor one from being moved');
	one($node, "DROP PUBLICATION p; SELECT mq.drop_queue('drop', force => true)");
}

# ---------------------------------------------------------------------------------------------------------------------
# the worker does not wait for what only it can make

SKIP:
{
	skip 'no stop points in this build', 1 if !$points;
	one($node, "SELECT mq.create_queue('seg', options => '{\"segment_size\": 1024}'); SELECT mq.create_queue('other')");
	one($node, "SELECT mq.send('seg', '1', delay => '1 ms'), mq.send('other', '1', delay => '1 ms')");
	is(one($node, "SELECT count(*) FROM mq.pop('seg', wait => '10 s')") . one($node, "SELECT count(*) FROM mq.pop('other', wait => '10 s')"), '11', 'two queues whose messages come');
	$s->q('SELECT pg_advisory_lock(77, 1)');
	arm('move_taken:lock');
	one($node, "SELECT mq.send('seg', '2', delay => '1 ms')");
	poll_until('the worker to have taken it', sub { one($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") eq '1' });
	# ids go far beyond the segments that there are
	one($node, "SELECT count(*) FROM unnest(mq.send_batch('seg', array_fill('1'::jsonb, array[6000]), delays => '{1 hour}'))");
	arm('');
	my $t = time;
	$s->q('SELECT pg_advisory_unlock(77, 1)');
	one($node, "SELECT mq.send('other', '2', delay => '1 ms')");
	is(one($node, "SELECT count(*) FROM mq.pop('other', wait => '60 s')"), '1', 'a segment that is missing: another queue\'s message comes');
	is(one($node, "SELECT count(*) FROM mq.pop('seg', wait => '60 s')"), '1', 'and its own');
	cmp_ok(time - $t, '<', 15, 'long before mq.segment_wait is over');
}
{
	one($node, "SELECT mq.create_queue('guard'); SELECT mq.create_queue('beside')");
	one($node, "SELECT mq.send('guard', '1', delay => '1 ms')");
	one($node, "SELECT count(*) FROM mq.pop('guard', wait => '10 s')");
	my $leaf = one($node, "SELECT segment_table FROM mq.segments WHERE queue = 'guard' AND segment = 0");
	my $t = time;
	for my $i (1 .. 3)
	{
		$s->q("ALTER TABLE $leaf DISABLE TRIGGER ALL");
		$s->q("SELECT mq.send('guard', '$i', delay => '1 ms')");
		is($s->q("SELECT count(*) FROM mq.pop('guard', wait => '60 s')"), '1', 'a guard that is off: it comes when the guard is on again');
	}
	cmp_ok(time - $t, '<', 15, 'long before mq.segment_wait is over');
}

# ---------------------------------------------------------------------------------------------------------------------
# one role's messages do not hold up everybody's

one($node, "CREATE ROLE alice; GRANT EXECUTE ON FUNCTION mq.create_queue TO alice");
my $queues = 400;
one($node, "SET ROLE alice; SELECT count(mq.create_queue('alice' || i)) FROM generate_series(1, $queues) i");
poll_until('all to be known', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue LIKE 'alice%'") >= 2 * $queues });
# whose queue comes last, whatever the order is
one($node, "SELECT mq.create_queue('bob')");
one($node, "CREATE TABLE t.due AS SELECT clock_timestamp() + interval '6 s' AS at");
one($node, "SET ROLE alice; SELECT count(mq.send_batch('alice' || i, array_fill(to_jsonb(repeat('x', 300)), array[700]), deliver_at => array[(SELECT at FROM t.due)])) FROM generate_series(1, $queues) i")
  if one($node, "GRANT USAGE ON SCHEMA t TO alice; GRANT SELECT ON t.due TO alice; SELECT 1");
$s->start("SELECT count(*) FROM mq.pop('bob', wait => '60 s')");
one($node, "SELECT mq.send('bob', '1', deliver_at => (SELECT at + interval '10 ms' FROM t.due))");
$s->finish(120);
ok(poll_until('all of alice\'s', sub { one($node, "SELECT sum(scheduled) FROM mq.queues WHERE queue LIKE 'alice%'") eq '0' }), 'all of a flood comes');
# counted in messages, for a machine may stand still at any time
my $before = one($node, "SELECT round(100.0 * count(*) FILTER (WHERE enqueued_at < (SELECT max(enqueued_at) FROM mq.q_bob)) / count(*)) FROM (" . join(' UNION ALL ', map { "SELECT enqueued_at FROM mq.q_alice$_" } 1 .. $queues) . ') x');
cmp_ok($before, '<', 25, "$before % of alice's messages came before bob's, which was due 10 ms later");

# ---------------------------------------------------------------------------------------------------------------------
# what is undecided costs one look, and no memory

one($node, "SELECT mq.create_queue('open')");
$s->q('BEGIN');
$s->q("DO \$\$ BEGIN FOR i IN 1 .. 400 LOOP BEGIN PERFORM mq.send_batch('open', array_fill('1'::jsonb, array[50]), delays => '{1 ms}'); EXCEPTION WHEN OTHERS THEN RAISE; END; END LOOP; END \$\$");
one($node, "SELECT mq.send('open', '1', delay => '1 ms')");
is(one($node, "SELECT count(*) FROM mq.pop('open', wait => '10 s')"), '1', 'a message comes past 400 undecided savepoints');
one($node, 'SELECT pg_stat_reset()');
sleep 4;
# statistics come after a while; a worker that begins again each second reads 20,000 each time
cmp_ok(index_reads('due'), '<', 20000, 'they are not read again each second');
$s->q('COMMIT');
ok(poll_until('them to come', sub { scheduled('open') eq '0' }), 'they come when they are committed');
is(one($node, "SELECT count(*) FROM mq.pop('open', max_messages => 100000)"), '20000', 'all of them');

# a row that several have locked, without being about to delete it
one($node, "SELECT mq.create_queue('locked')");
one($node, "SELECT mq.send('locked', '\"held\"', delay => '700 ms')");
for ($s, $d) { $_->q('BEGIN'); $_->q("SELECT id FROM mq_internal.scheduled WHERE payload = '\"held\"' FOR SHARE"); }
one($node, "SELECT mq.send('locked', '\"marker\"', delay => '800 ms')");
is(one($node, "SELECT payload FROM mq.pop('locked', wait => '30 s')"), '"marker"', 'a row that is locked by two is passed');
$_->q('COMMIT') for ($s, $d);
is(one($node, "SELECT payload FROM mq.pop('locked', wait => '30 s')"), '"held"', 'and comes when they have ended');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/moving what is due in queue "locked"/, 'without an error of the worker');

one($node, "SELECT mq.create_queue('large')");
one($node, "DO \$\$ BEGIN FOR i IN 1 .. 40 LOOP PERFORM mq.send('large', body => (SELECT decode(string_agg(md5(i::text || j), ''), 'hex') FROM generate_series(1, 250000) j), deliver_at => clock_timestamp() + '20 s'); END LOOP; END \$\$");
$s->q('BEGIN');
$s->q("SELECT count(*) FROM (SELECT mq.cancel('large', id) FROM mq.scheduled WHERE queue = 'large') x");
my $worker = backend_pid($node, 'mq worker');
one($node, "SELECT mq.send('large', '1', delay => '21 s')");
is(one($node, "SELECT count(*) FROM mq.pop('large', wait => '50 s')"), '1', 'a message comes past large ones that are being cancelled');
my ($peak) = PostgreSQL::Test::Utils::slurp_file("/proc/$worker/status") =~ /VmHWM:\s+(\d+)/;
my ($shared) = PostgreSQL::Test::Utils::slurp_file("/proc/$worker/status") =~ /RssShmem:\s+(\d+)/;
cmp_ok($peak - $shared, '<', 100 * 1024, 'the worker has not read them (160 MB): ' . int(($peak - $shared) / 1024) . ' MB');
$s->q('COMMIT');

# ---------------------------------------------------------------------------------------------------------------------
# looks under a held snapshot

one($node, "SELECT mq.create_queue('again')");
my $id = one($node, "SELECT mq.send('again', '1', delay => '10 min')");
one($node, "CREATE PROCEDURE t.again(id bigint, d interval, n int) LANGUAGE plpgsql AS \$\$ BEGIN FOR i IN 1 .. n LOOP PERFORM mq.reschedule('again', id, clock_timestamp() + d); COMMIT; END LOOP; END \$\$");
$d->q('BEGIN ISOLATION LEVEL REPEATABLE READ');
$d->q('SELECT count(*) FROM mq.scheduled');
# in one session, whose own statistics are there when they are reset and when they are asked for
$s->q("CALL t.again($id, '10 min', 5000)");
$s->q("CALL t.again($id, '3 days', 1)");
$s->q('SELECT pg_stat_force_next_flush()');
$s->q('SELECT pg_stat_reset()');
$s->q("CALL t.again($id, '3 days', 200)");
$s->q('SELECT pg_stat_force_next_flush()');
# five tables may be asked for one row each
cmp_ok(index_reads('id'), '<', 20 * 200, 'a reschedule does not read the versions of another table');
is(one($node, "SELECT mq.cancel('again', $id)"), 't', 'the newest version is found');
$d->q('COMMIT');

# ---------------------------------------------------------------------------------------------------------------------
# a plain queue needs no table of the schedule; views do not wait for one; readers keep no locks

$s->q('BEGIN');
$s->q('LOCK TABLE mq_internal.scheduled_later, mq_internal.scheduled_hour_0 IN ACCESS EXCLUSIVE MODE');
one($node, "SELECT mq.create_queue('plain')");
is(sqlstate($node, "SET statement_timeout = '20 s'; SELECT mq.send('plain', '1')"), '', 'a plain queue is used while a table of the schedule is locked');
is(sqlstate($node, "SET statement_timeout = '20 s'; SELECT sum(scheduled) FROM mq.queues"), '', 'and the views do not wait');
$s->q('ROLLBACK');

# memory of a discard of many that were moved one by one
my $no = number('plain');
one($node, "INSERT INTO mq_internal.moved_0 SELECT $no, i/256, i+1000000, array[i, i+1000000]::bigint[] FROM generate_series(1, 50000) i");
$s->q("SELECT mq.discard('plain', 'default', array(SELECT i::bigint FROM generate_series(1, 50000) i))");
($peak) = PostgreSQL::Test::Utils::slurp_file('/proc/' . $s->pid . '/status') =~ /VmHWM:\s+(\d+)/;
($shared) = PostgreSQL::Test::Utils::slurp_file('/proc/' . $s->pid . '/status') =~ /RssShmem:\s+(\d+)/;
cmp_ok($peak - $shared, '<', 200 * 1024, 'a discard of 50,000 takes ' . int(($peak - $shared) / 1024) . ' MB');

# an array without elements is no array of one
is(sqlstate($node, "SELECT mq.send_batch('plain', '{1}', delays => '{}')"), '22023', 'a message and no delay: refused');
done_testing();
