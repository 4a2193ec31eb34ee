# Many queues of which few are in use: the worker visits those that need it, and whatever needs it is cared for within some turns,
# not only when the round of a minute comes to it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time sleep);
use MqTest;

my $node = mq_node('quiet', conf => "mq.drop_delay = 0\nmq.max_queues = 500\nmq.max_groups = 500\nmq.visibility_timeout = '10 min'\n");
my $points = mq_stop_points($node);
my $queues = 300;

# Looks from another database do not count as transactions of the first.
one($node, 'CREATE DATABASE other');
sub look { my ($sql) = @_; return one($node, $sql, 'other'); }
my $worker = "FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'postgres'";
sub began { return look("SELECT coalesce(extract(epoch FROM max(query_start)), 0) $worker"); }
sub transactions { return look("SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'"); }

# Waits until the code says yes, for no more than so many turns: jobs of one turn follow each other at once, the next begins later.
sub within
{
	my ($turns, $what, $code) = @_;
	my $seen = 0;
	my $last = began();
	my $met = poll_until($what, sub {
		return 'yes' if $code->();
		my $now = began();
		($seen, $last) = ($seen + 1, $now) if $now - $last > 0.9;
		return $seen > $turns ? 'no' : 0;
	});
	diag("not within $turns turns: $what") if $met eq 'no' && $what ne '';
	return $met eq 'yes';
}
sub turns { my ($n) = @_; within($n, '', sub { 0 }); return; }
sub soon { my ($name, $code) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; return ok(within(12, $name, $code), $name); }

# transactions per turn: turns come no faster than each second, unless somebody asks for one
sub per_turn
{
	my ($from, $begun) = (transactions(), time());
	turns(6);
	return (transactions() - $from) / (time() - $begun + 1);
}
sub settled { return look("SELECT count(*) $worker AND state = 'idle'") eq '1' && per_turn() < $queues / 3; }

one($node, "SELECT mq.create_queue('quiet' || i) FROM generate_series(1, $queues) i");
my $served = sub { my ($q, $n) = @_; return one($node, "SELECT count(*) FROM mq.segments WHERE queue = '$q'") >= $n; };
soon('new queues get their segments', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue LIKE 'quiet%'") >= 3 * $queues });
poll_until('rest', \&settled, 30);
cmp_ok(per_turn(), '<', $queues / 3, 'a quiet queue costs no transaction in each turn');

# --- what has to be done is done in time ------------------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('one')");
soon('a new queue is served', sub { $served->('one', 3) });

{
	my $r = one($node, "SELECT t.put('quiet1', 'x', 1); SELECT receipt FROM mq.receive('quiet1', max_messages => 1, visibility_timeout => '5 s')");
	soon('a lease that is over is ended', sub { one($node, "SELECT ready + retrying = 1 AND leased = 0 FROM mq.groups WHERE queue = 'quiet1'") eq 't' });
}

{
	one($node, "SELECT mq.create_queue('told', options => jsonb_build_object('notify_interval', '100 ms'))");
	my $l = session($node);
	my $heard = sub { return $l->q('SELECT 1') =~ /Asynchronous notification "mq_told"/; };
	$l->q('LISTEN mq_told');
	one($node, "SELECT t.put('told', 'x', 1)");
	soon('a message is told of', $heard);
	my $r = one($node, "SELECT receipt FROM mq.receive('told', max_messages => 1, visibility_timeout => '6 s')");
	$heard->();
	turns(2);
	$heard->();
	soon('and again when its lease is over', $heard);
	$r = one($node, "SELECT receipt FROM mq.receive('told', max_messages => 1)");
	turns(2);
	$heard->();
	one($node, "SELECT mq.nack('$r'::uuid)");
	soon('and when it was given back', $heard);
	$r = one($node, "SELECT receipt FROM mq.receive('told', max_messages => 1)");
	turns(2);
	$heard->();
	one($node, "SELECT mq.pause('told')");
	one($node, "SELECT mq.release('$r'::uuid)");
	turns(2);
	ok(!$heard->(), 'a paused queue tells nothing');
	one($node, "SELECT mq.resume('told')");
	soon('until it goes on', $heard);
	one($node, "SELECT mq.alter_queue('quiet2', jsonb_build_object('notify_interval', '100 ms'))");
	$l->q('LISTEN mq_quiet2');
	one($node, "SELECT t.put('quiet2', 'x', 1)");
	soon('a queue that notifies from now on', sub { return $l->q('SELECT 1') =~ /Asynchronous notification "mq_quiet2"/; });
	one($node, "SELECT count(*) FROM mq.pop('quiet2') a, mq.pop('told') b");
	$l->close;
}

{
	my $r = one($node, "SELECT t.put('quiet3', 'x', 1); SELECT receipt FROM mq.receive('quiet3', max_messages => 1)");
	$r =~ s/.*\n//s;
	my $s = session($node);
	$s->q("BEGIN; SELECT mq.ack('$r'::uuid); PREPARE TRANSACTION 'ack'");
	turns(3);
	is(one($node, "SELECT settling FROM mq.groups WHERE queue = 'quiet3'"), '1', 'a prepared ack is undecided');
	$s->q("COMMIT PREPARED 'ack'");
	soon('COMMIT PREPARED of an ack is seen', sub { one($node, "SELECT settling FROM mq.groups WHERE queue = 'quiet3'") eq '0' });
	my $waits = session($node);
	$s->q("BEGIN; SELECT mq.send('quiet3', '1'); PREPARE TRANSACTION 'send'");
	$waits->start("SELECT count(*) FROM mq.pop('quiet3', max_messages => 1, wait => '50 s')");
	turns(3);
	$s->q("COMMIT PREPARED 'send'");
	soon('COMMIT PREPARED of a send wakes who waits', sub { $waits->is_done });
	is(($waits->finish)[1], '1', 'with the message');
	$_->close for $s, $waits;
}

# --- segments: dropped when finished by all, by time, when the limits change; made when somebody has dropped one --------------
my $first = sub { my ($q) = @_; return one($node, "SELECT min(segment) FROM mq.segments WHERE queue = '$q'"); };
my $fill = sub { my ($q) = @_; one($node, "SELECT t.put_batch('$q', 'f', 3000); SELECT count(*) FROM mq.pop('$q', max_messages => 3000)"); return; };
{
	one($node, q{SELECT mq.create_queue('drops', groups => '{default,slow}', options => '{"segment_size": 1024}'),
		mq.create_queue('kept', options => '{"segment_size": 1024, "retention": "1 day"}'),
		mq.create_queue('hour', options => '{"segment_size": 1024, "retention": "1 day"}'),
		mq.create_queue('short', options => '{"segment_size": 1024, "retention": "7 s"}')});
	$fill->($_) for qw(drops kept hour short);
	soon('segments are sealed', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue IN ('drops', 'kept', 'hour') AND sealed") eq '6' });
	soon('what is finished goes when it is old enough', sub { $first->('short') >= 2 });
	turns(3);
	is(join(',', map { $first->($_) } qw(drops kept hour)), '0,0,0', 'what is kept, or not finished by all, stays');
	one($node, "SELECT count(*) FROM mq.pop('drops', consumer_group => 'slow', max_messages => 1500)");
	soon('a segment that all have finished goes', sub { $first->('drops') eq '1' });
	one($node, "SELECT mq.drop_group('drops', 'slow', force => true)");
	soon('and those that only a dropped group had not', sub { $first->('drops') eq '2' });
	one($node, "SELECT mq.alter_queue('kept', jsonb_build_object('reset', jsonb_build_array('retention')))");
	soon('an option that was altered is seen', sub { $first->('kept') eq '2' });
	one($node, "UPDATE mq_internal.queue SET retention = NULL WHERE name = 'hour'");
	soon('also one that was altered by hand', sub { $first->('hour') eq '2' });
	one($node, "ALTER SYSTEM SET mq.drop_delay = '1 h'");
	$node->reload;
	$fill->('drops');
	turns(4);
	is($first->('drops'), '2', 'mq.drop_delay is kept');
	one($node, "ALTER SYSTEM RESET mq.drop_delay");
	$node->reload;
	soon('and a new setting is seen', sub { $first->('drops') > 2 });
}

{
	my $no = one($node, "SELECT queue_no FROM mq_internal.queue WHERE name = 'quiet4'");
	one($node, "DROP TABLE mq_internal.s_${no}_0_2");
	soon('a segment that somebody has dropped is made again', sub { one($node, "SELECT to_regclass('mq_internal.s_${no}_0_2') IS NOT NULL") eq 't' });
	one($node, "ALTER TABLE mq_internal.s_${no}_0_1 DISABLE TRIGGER refuse_direct_row");
	soon('a guard that is off is put back', sub { one($node, "SELECT tgenabled FROM pg_trigger WHERE tgrelid = 'mq_internal.s_${no}_0_1'::regclass AND tgname = 'refuse_direct_row'") eq 'A' });
	soon('and the order of its pages is put on record', sub { one($node, "SELECT file <> 0 FROM mq_internal.segment WHERE queue_no = $no AND segment = 1") eq 't' });
}

# --- a table in the way, and what fails: tried again ------------------------------------------------------------------------------
{
	my $s = session($node);
	my $was = $first->('drops');
	one($node, "SELECT t.put_batch('drops', 'l', 2100)");
	turns(2);
	$s->q('BEGIN; LOCK TABLE mq.q_drops IN SHARE UPDATE EXCLUSIVE MODE');
	one($node, "SELECT count(*) FROM mq.pop('drops', max_messages => 3000)");
	turns(3);
	is($first->('drops'), $was, 'a segment is not dropped while the queue is locked');
	$s->q('COMMIT');
	soon('when a lock is gone the work is done', sub { $first->('drops') > $was });
	$s->close;
}
SKIP:
{
	skip 'no stop points', 2 if !$points;
	one($node, "SELECT mq.create_queue('fails', options => jsonb_build_object('segment_size', 1024))");
	soon('a queue is made', sub { $served->('fails', 3) });
	one($node, "ALTER SYSTEM SET mq.stop_point = 'segment_created:error'");
	$node->reload;
	one($node, "SELECT t.put_batch('fails', 'f', 2000)");
	turns(3);
	one($node, "ALTER SYSTEM RESET mq.stop_point");
	$node->reload;
	soon('what has failed is tried again', sub { $served->('fails', 4) });
}

# --- slots of what was rolled back; a queue of the same name ------------------------------------------------------------------------
{
	my $made = one($node, 'SELECT count(*) FROM mq.queues');
	my $more = 500 - $made;
	one($node, "BEGIN; SELECT count(mq.create_queue('r' || i)) FROM generate_series(1, $more) i; ROLLBACK");
	soon('room of queues that were rolled back is free again', sub { sqlstate($node, "SELECT count(mq.create_queue('s' || i)) FROM generate_series(1, $more) i") eq '' });
	one($node, "SELECT mq.drop_queue('s' || i) FROM generate_series(1, $more) i");
	one($node, "SELECT mq.drop_queue('quiet5'), mq.create_queue('quiet5')");
	soon('and one that was made again is served', sub { $served->('quiet5', 3) });
}

# --- quiet again --------------------------------------------------------------------------------------------------------------
poll_until('rest', \&settled, 60);
cmp_ok(per_turn(), '<', $queues / 3, 'and all are quiet again');
done_testing();
