# Retention: what keeps finished segments for replay, what drops them, what is never dropped, and what drop_unread does.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time sleep);
use MqTest;

my $node = mq_node('retention', fsync => 1, conf => "mq.drop_delay = 0\nlog_min_messages = log\nmq.visibility_timeout = '10 min'\n");

my $points = mq_stop_points($node);

# n segments' worth of messages, sealed and finished by the group default
sub fill
{
	my ($q, $n, %o) = @_;
	one($node, "SELECT mq.send_batch('$q', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 1024) i)) IS NULL") for 1 .. $n;
	one($node, "SELECT count(*) FROM mq.pop('$q', max_messages => 1000000)") if !$o{unread};
	return;
}
sub first_segment { my ($q) = @_; return one($node, "SELECT min(segment) FROM mq.segments WHERE queue = '$q'"); }
sub sealed { my ($q) = @_; return one($node, "SELECT count(*) FROM mq.segments WHERE queue = '$q' AND sealed"); }
sub all_sealed { my ($q, $n) = @_; return poll_until("$q to be sealed", sub { sealed($q) >= $n }, 30); }
sub left { my ($q, $g) = @_; $g ||= 'default'; return one($node, "SELECT mq.seek('$q', '$g', start => 'earliest'); SELECT count(*) FROM mq.pop('$q', consumer_group => '$g', max_messages => 1000000)") =~ s/\s//gr; }

# The worker has been round twice since now: another queue's finished segments come and go.
one($node, "SELECT mq.create_queue('clock', options => jsonb_build_object('segment_size', 1024))");
sub turns
{
	my $until = one($node, "SELECT (next_id / 1024) + 2 FROM mq.queues WHERE queue = 'clock'");
	fill('clock', 3);
	return poll_until('the worker to go round', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'clock' AND segment < $until") eq '0' }, 30);
}

# --- the default: dropped when every group has finished ------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('none', groups => '{default,slow}', options => jsonb_build_object('segment_size', 1024))");
	fill('none', 4);
	all_sealed('none', 3);
	ok(turns(), 'the worker goes round');
	is(first_segment('none'), '0', 'no retention: what one group has not finished stays');
	is(one($node, "SELECT count(*) FROM mq.pop('none', consumer_group => 'slow', max_messages => 1000000)"), '4096', 'it is all there');
	ok(poll_until('drops', sub { first_segment('none') >= 3 }, 30), 'finished by all groups: it goes');
	is(one($node, "SELECT sum(dropped) FROM mq.groups WHERE queue = 'none'"), '0', 'nothing counts as dropped unread');
}

# --- by time ----------------------------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('hour', options => jsonb_build_object('segment_size', 1024, 'retention', '1 hour'))");
	one($node, "SELECT mq.create_queue('short', options => jsonb_build_object('segment_size', 1024, 'retention', '6 s'))");
	fill($_, 3) for qw(hour short);
	my $begin = time();
	all_sealed($_, 2) for qw(hour short);
	ok(turns(), 'the worker goes round');
	is(first_segment('hour'), '0', 'retention of an hour: finished segments stay');
	if (time() - $begin < 4.5) { is(first_segment('short'), '0', 'retention of some seconds: they stay that long'); }
	else { pass('(too slow a machine to see that)'); }
	is(left('hour'), '3072', 'and can be read again');
	ok(poll_until('drops', sub { first_segment('short') >= 2 }, 30), 'when they are old enough they go');
	cmp_ok(time() - $begin, '>=', 5, 'not before');
	is(one($node, "SELECT retention = '1 hour' AND retention_bytes IS NULL AND NOT drop_unread FROM mq.queues WHERE queue = 'hour'"), 't', 'mq.queues shows it');
	# unread ones never go by time
	one($node, "SELECT mq.create_queue('unread', options => jsonb_build_object('segment_size', 1024, 'retention', '100 ms'))");
	fill('unread', 4, unread => 1);
	all_sealed('unread', 3);
	ok(turns(), 'the worker goes round');
	is(first_segment('unread'), '0', 'unread messages outlive the retention');
	my $r = one($node, "SELECT (array_agg(receipt ORDER BY id))[1] FROM (SELECT * FROM mq.receive('unread', max_messages => 2000)) m");
	one($node, "SELECT mq.ack_batch(array_agg(receipt)) FROM mq.receive('unread', max_messages => 10000)");
	ok(turns(), 'the worker goes round');
	is(first_segment('unread'), '0', 'leased ones too');
	is(sqlstate($node, "SELECT mq.ack('$r'::uuid)"), '', 'their receipts are good');
	# through a restart: the clock of a segment goes on
	$node->restart;
	ok(turns(), 'the worker goes round');
	is(first_segment('hour'), '0', 'a restart changes nothing about what is kept');
	is(left('hour'), '3072', 'all of it');
	# alter_queue
	one($node, "BEGIN; SELECT mq.alter_queue('hour', jsonb_build_object('retention', '1 ms')); ROLLBACK");
	ok(turns(), 'the worker goes round');
	is(first_segment('hour'), '0', 'alter_queue rolled back');
	one($node, "SELECT mq.alter_queue('hour', jsonb_build_object('retention', '1 ms'))");
	ok(poll_until('drops', sub { first_segment('hour') >= 2 }, 30), 'a shorter retention drops what is there');
	one($node, "SELECT mq.alter_queue('hour', jsonb_build_object('retention', '1 day'))");
	fill('hour', 3);
	my $first = first_segment('hour');
	all_sealed('hour', 2);
	ok(turns(), 'the worker goes round');
	is(first_segment('hour'), $first, 'a longer one keeps them');
	one($node, "SELECT mq.alter_queue('hour', jsonb_build_object('reset', jsonb_build_array('retention')))");
	is(one($node, "SELECT retention IS NULL FROM mq.queues WHERE queue = 'hour'"), 't', 'reset');
	ok(poll_until('drops', sub { first_segment('hour') > $first + 1 }, 30), 'then finished segments go at once');
}

# --- by bytes ------------------------------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('bytes', options => jsonb_build_object('segment_size', 1024, 'retention_bytes', 100000000))");
	fill('bytes', 6);
	all_sealed('bytes', 5);
	ok(turns(), 'the worker goes round');
	is(first_segment('bytes'), '0', 'retention_bytes not reached: finished segments stay');
	my $one = one($node, "SELECT bytes FROM mq.segments WHERE queue = 'bytes' AND segment = 1");
	my $all = one($node, "SELECT sum(bytes) FROM mq.segments WHERE queue = 'bytes'");
	is(one($node, "SELECT bytes FROM mq.queues WHERE queue = 'bytes'"), $all, 'mq.queues.bytes is the size of the segments together');
	my $limit = $all - int(1.5 * $one);
	one($node, "SELECT mq.alter_queue('bytes', jsonb_build_object('retention_bytes', $limit))");
	ok(poll_until('drops', sub { first_segment('bytes') >= 2 }, 30), 'above the limit the oldest go');
	ok(turns(), 'the worker goes round');
	is(first_segment('bytes'), '2', 'and no more than needed');
	cmp_ok(one($node, "SELECT bytes FROM mq.queues WHERE queue = 'bytes'"), '<=', $limit, 'what is left is within the limit');
	# unread ones do not go
	one($node, "SELECT mq.create_group('bytes', 'slow', start => 'earliest')");
	one($node, "SELECT mq.alter_queue('bytes', jsonb_build_object('retention_bytes', 0))");
	ok(turns(), 'the worker goes round');
	is(first_segment('bytes'), '2', 'a limit of 0 drops nothing unread');
	one($node, "SELECT count(*) FROM mq.pop('bytes', consumer_group => 'slow', max_messages => 1000000)");
	ok(poll_until('drops', sub { first_segment('bytes') >= 5 }, 30), 'finished: 0 keeps nothing');
	# both limits: whichever is passed first drops
	one($node, "SELECT mq.create_queue('both', options => jsonb_build_object('segment_size', 1024, 'retention', '1 hour', 'retention_bytes', 0))");
	one($node, "SELECT mq.create_queue('both2', options => jsonb_build_object('segment_size', 1024, 'retention', '1 ms', 'retention_bytes', 1000000000))");
	fill($_, 3) for qw(both both2);
	ok(poll_until('drops', sub { first_segment($_) >= 2 }, 30), "both limits: the one that is passed drops ($_)") for qw(both both2);
}

# --- without groups ----------------------------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('alone', groups => '{}', options => jsonb_build_object('segment_size', 1024)); SELECT mq.create_queue('alone2', groups => '{}', options => jsonb_build_object('segment_size', 1024, 'retention', '1 ms'))");
	fill($_, 4, unread => 1) for qw(alone alone2);
	ok(poll_until('drops', sub { first_segment('alone2') >= 3 }, 30), 'no group: what is past the retention goes');
	is(first_segment('alone'), '0', 'and without a retention nothing');
	one($node, "SELECT mq.create_group('alone', 'default', start => 'earliest')");
	is(one($node, "SELECT count(*) FROM mq.pop('alone', max_messages => 1000000)"), '4096', 'a group that comes later can have it all');
}

# --- drop_unread -----------------------------------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('lossy', groups => '{default,slow}', options => jsonb_build_object('segment_size', 1024, 'retention', '1 hour', 'drop_unread', true))");
	fill('lossy', 4);                        # default has all, slow nothing
	my $old = one($node, "SELECT receipt FROM mq.receive('lossy', consumer_group => 'slow', max_messages => 1, visibility_timeout => '1 h')");
	my $new = one($node, "SELECT (array_agg(receipt ORDER BY id DESC))[1] FROM (SELECT * FROM mq.receive('lossy', consumer_group => 'slow', max_messages => 4000, visibility_timeout => '1 h')) m");
	my $s = session($node);
	$s->q("BEGIN; SELECT mq.ack('$old'::uuid)");
	all_sealed('lossy', 3);
	ok(turns(), 'the worker goes round');
	is(first_segment('lossy'), '0', 'drop_unread: within the limit nothing goes');
	$s->q('ROLLBACK');
	my $at = -s $node->logfile;
	one($node, "SELECT mq.alter_queue('lossy', jsonb_build_object('retention', '1 ms'))");
	ok(poll_until('drops', sub { first_segment('lossy') >= 3 }, 30), 'past the limit unread segments go');
	is(sqlstate($node, "SELECT mq.ack('$old'::uuid)"), 'MQ001', 'leases in them are lost');
	is(sqlstate($node, "SELECT mq.nack('$old'::uuid)"), 'MQ001', 'for every call');
	cmp_ok(one($node, "SELECT dropped FROM mq.groups WHERE queue = 'lossy' AND consumer_group = 'slow'"), '>=', 3000, 'mq.groups.dropped counts them');
	is(one($node, "SELECT dropped FROM mq.groups WHERE queue = 'lossy' AND consumer_group = 'default'"), '0', 'and nothing for the group that had read them');
	my $log = substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $at);
	like($log, qr/LOG:.*lossy/, 'the server log says so') or diag($log);
	my $rest = one($node, "SELECT count(*) FROM mq.q_lossy");
	one($node, "SELECT count(mq.release(receipt)) FROM (SELECT '$new'::uuid AS receipt) x") if $rest && sqlstate($node, "SELECT mq.extend('$new'::uuid, '1 h')") eq '';
	cmp_ok(one($node, "SELECT count(*) FROM mq.pop('lossy', consumer_group => 'slow', max_messages => 100000)"), '<=', $rest, 'the group goes on with what is there');
	one($node, "SELECT mq.send('lossy', '\"next\"')");
	is(one($node, "SELECT payload FROM mq.pop('lossy', consumer_group => '$_')"), '"next"', "new messages arrive ($_)") for qw(default slow);
	my $dropped = one($node, "SELECT dropped FROM mq.groups WHERE queue = 'lossy' AND consumer_group = 'slow'");
	$node->kill9;
	ok(mq_start_again($node), 'kill -9');
	is(one($node, "SELECT count(*) FROM mq.pop('lossy', consumer_group => 'default', max_messages => 100000)"), '0', 'nothing comes back');
	is(one($node, "SELECT dropped FROM mq.groups WHERE queue = 'lossy' AND consumer_group = 'slow'"), $dropped, 'the count stays');
	# an undecided sender's messages are not lost
	$s->close;
	$s = session($node);
	one($node, "SELECT mq.create_queue('open', options => jsonb_build_object('segment_size', 1024, 'retention', '1 ms', 'drop_unread', true))");
	$s->q("BEGIN; SELECT mq.send('open', '\"late\"')");
	fill('open', 4, unread => 1);
	all_sealed('open', 3);
	ok(turns(), 'the worker goes round');
	$s->q('COMMIT');
	my $got = one($node, "SELECT count(*) FROM mq.q_open WHERE payload = '\"late\"'");
	note("an open sender's segment was " . ($got ? 'kept' : 'dropped'));
	is($got, '1', 'a segment with messages in flight is not dropped before they are decided');
	$s->close;
	one($node, "SELECT mq.create_queue('limit', options => jsonb_build_object('segment_size', 1024, 'retention_bytes', 0, 'drop_unread', true))");
	fill('limit', 4, unread => 1);
	ok(poll_until('drops', sub { first_segment('limit') >= 4 }, 30), 'drop_unread by bytes');
	cmp_ok(one($node, "SELECT dropped FROM mq.groups WHERE queue = 'limit'"), '>=', 4 * 1024 - 1, 'counted');
	one($node, "SELECT mq.alter_queue('limit', jsonb_build_object('drop_unread', false))");
	fill('limit', 3, unread => 1);
	my $first = first_segment('limit');
	ok(turns(), 'the worker goes round');
	is(first_segment('limit'), $first, 'drop_unread => false: no more of that');
	is(sqlstate($node, "SELECT mq.alter_queue('limit', jsonb_build_object('drop_unread', true, 'reset', jsonb_build_array('retention_bytes')))"), '22023', 'drop_unread needs a limit');
}

# --- somebody is altering a group whose unread messages have to go: the worker waits for nobody ------------------------------------
{
	one($node, "SELECT mq.create_queue('held', options => jsonb_build_object('segment_size', 1024, 'retention', '1 hour', 'drop_unread', true))");
	fill('held', 3, unread => 1);
	all_sealed('held', 2);
	my $r = one($node, "SELECT receipt FROM mq.receive('held', max_messages => 1, visibility_timeout => '1 h')");
	my $s = session($node);
	$s->q("BEGIN; SELECT mq.alter_group('held', 'default', jsonb_build_object('max_in_flight', 1000))");
	one($node, "SELECT mq.alter_queue('held', jsonb_build_object('retention_bytes', 0, 'reset', jsonb_build_array('retention')))");
	my $waits = 0;
	for (1 .. 60)                           # over 3 s, which is two or three of the worker's turns
	{
		$waits += one($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND wait_event_type = 'Lock'");
		sleep(0.05);
	}
	cmp_ok($waits, '<=', 1, "alter_group is open: the worker does not wait for its lock (seen $waits of 60 times)");
	ok(turns(), 'the worker goes round');
	is(first_segment('held') . ' ' . one($node, "SELECT dropped FROM mq.groups WHERE queue = 'held'"), '0 0', 'nothing is dropped yet');
	is(sqlstate($node, "SELECT mq.ack('$r'::uuid)"), '', 'and a lease in there is good');
	$s->q('COMMIT');
	ok(poll_until('drops', sub { first_segment('held') >= 3 }, 30), 'committed: they go');
	is(one($node, "SELECT dropped FROM mq.groups WHERE queue = 'held'"), 3 * 1024 - 2, 'counted: all but the one that was acked, and the one that is in the next segment');
	$s->close;
}

# --- a paused group, a seek back and retention ------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('back', options => jsonb_build_object('segment_size', 1024, 'retention', '1 hour'))");
	fill('back', 3);
	is(left('back'), '3072', 'a seek back replays what retention kept');
	one($node, "SELECT mq.seek('back', 'default', start => 'earliest'); SELECT mq.pause('back'); SELECT mq.alter_queue('back', jsonb_build_object('retention', '1 ms'))");
	ok(turns(), 'the worker goes round');
	is(first_segment('back'), '0', 'sought back is unread: retention does not drop it');
	one($node, "SELECT mq.resume('back')");
	is(one($node, "SELECT count(*) FROM mq.pop('back', max_messages => 1000000)"), '3072', 'all of it is given');
	ok(poll_until('drops', sub { first_segment('back') >= 2 }, 30), 'and then it goes');
}

# --- what changes while the worker is in the middle of its turn ------------------------------------------------------------------
SKIP:
{
	skip 'no stop points in this build', 4 if !$points;
	my ($lock, $s) = map { session($node) } 1, 2;
	# holds the worker, which has listed queues and groups, before it drops segments; the caller then makes a checkpoint due
	my $hold = sub { $lock->q('SELECT pg_advisory_lock(77, 1)'); one($node, "ALTER SYSTEM SET mq.stop_point = 'checkpoint_committed:lock'"); $node->reload; return; };
	my $is_held = sub { return poll_until('the worker to be held', sub { one($node, "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'mq worker' AND NOT l.granted AND l.locktype = 'advisory'") eq '1' }, 30); };
	my $let_go = sub { one($node, 'ALTER SYSTEM RESET mq.stop_point'); $node->reload; $lock->q('SELECT pg_advisory_unlock_all()'); return; };

	one($node, "SELECT mq.create_queue('late', options => jsonb_build_object('segment_size', 1024))");
	fill('late', 4, unread => 1);
	all_sealed('late', 3);
	$s->q("BEGIN; SELECT count(*) FROM mq.pop('late', max_messages => 1000000)");
	turns() for 1, 2;
	$hold->();
	$s->q('COMMIT');
	ok($is_held->(), 'the worker is about to drop finished segments');
	one($node, "SELECT mq.create_group('late', 'second', start => 'earliest')");
	$let_go->();
	turns();
	is(one($node, "SELECT count(*) FROM mq.pop('late', consumer_group => 'second', max_messages => 1000000)"), '4096', 'a group made at that moment gets all that was there');

	one($node, "SELECT mq.create_queue('wary', options => jsonb_build_object('segment_size', 1024, 'retention', '1 hour', 'drop_unread', true))");
	fill('wary', 4, unread => 1);
	all_sealed('wary', 3);
	$s->q("BEGIN; SELECT count(*) FROM mq.pop('wary')");
	turns() for 1, 2;
	$hold->();
	$s->q("SELECT mq.alter_queue('wary', jsonb_build_object('retention', '1 ms')); COMMIT");
	ok($is_held->(), 'the worker is about to drop unread segments');
	one($node, "SELECT mq.alter_queue('wary', jsonb_build_object('drop_unread', false))");
	$let_go->();
	turns();
	is(first_segment('wary') . ' ' . one($node, "SELECT dropped FROM mq.groups WHERE queue = 'wary'"), '0 0', 'drop_unread switched off at that moment: nothing is dropped');
	$_->close for $lock, $s;
}

$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP|PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
