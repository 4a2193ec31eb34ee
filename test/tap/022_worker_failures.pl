# What fails in the worker is said at once, then rarely, and that it works again is said too; what keeps a database without a
# worker, or its worker from making segments, is named in the log and to senders.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time sleep);
use PostgreSQL::Test::Utils;
use MqTest;

my $node = mq_node('failures', conf => "mq.segment_wait = '3 s'\nmax_worker_processes = 8\n");

# lines of the log since a place in it
my $from = 0;
sub mark { $from = -s $node->logfile; return; }
sub lines { my ($re) = @_; return grep { /$re/ } split /^/m, substr(slurp_file($node->logfile), $from); }
sub said { my ($re) = @_; my @l = lines($re); return scalar @l; }
sub has_said { my ($re, $name) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; return ok(poll_until($name, sub { said($re) }, 30), $name); }
# the worker has begun that many turns more
sub turns
{
	my ($n) = @_;
	for (1 .. $n)
	{
		my $was = one($node, "SELECT max(query_start) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'postgres'");
		poll_until('a turn', sub { one($node, "SELECT max(query_start) > '$was' FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'postgres'") eq 't' });
		sleep(0.9);
	}
	return;
}
my $points = mq_stop_points($node);

# --- a job that fails each time, of several queues ------------------------------------------------------------------------------
SKIP:
{
	skip 'no stop points', 8 if !$points;
	one($node, "SELECT mq.create_queue('f' || i, segment_size => 1024) FROM generate_series(1, 3) i");
	worker_alive($node);
	mark();
	one($node, "ALTER SYSTEM SET mq.stop_point = 'segment_created:error'");
	$node->reload;
	# beyond the first segments; one of the queues has a sender that waits
	one($node, "SELECT t.put_batch('f1', 'm', 2000)");
	has_said(qr/stop point "segment_created"/, 'a job that fails is logged');
	has_said(qr/CONTEXT: .*creating a segment of queue "f\d"/, 'with what it was for');
	is(sqlstate($node, "SELECT t.put_batch('f1', 'm', 3000)"), '55000', 'senders at the end of the last segment fail');
	turns(5);
	cmp_ok(said(qr/stop point "segment_created"/), '<=', 3, 'it is said once of each queue, though it was tried again');
	one($node, "ALTER SYSTEM RESET mq.stop_point");
	$node->reload;
	is(sqlstate($node, "SELECT t.put_batch('f1', 'm', 3000)"), '', 'when the cause is gone a sender that waits is served at once');
	has_said(qr/creating a segment of queue "f1" works again/, 'and that is said');

	# --- a full NOTIFY queue is the server's, not a queue's --------------------------------------------------------------------
	one($node, "SELECT mq.create_queue('n' || i, notify_interval => '10 ms') FROM generate_series(1, 10) i");
	mark();
	one($node, "ALTER SYSTEM SET mq.stop_point = 'notify_before:error'");
	$node->reload;
	one($node, "SELECT mq.send('n' || i, '{}') FROM generate_series(1, 10) i");
	has_said(qr/stop point "notify_before"/, 'a notification that cannot be sent is logged');
	turns(4);
	is(said(qr/stop point "notify_before"/), 1, 'once, for all queues');
	my $l = session($node);
	$l->q('LISTEN mq_n7');
	one($node, "ALTER SYSTEM RESET mq.stop_point");
	$node->reload;
	ok(poll_until('a notification', sub { $l->q('SELECT 1') =~ /"mq_n7"/ }), 'they go out when they can');
	has_said(qr/sending a notification works again/, 'and that is said');
	$l->close;
}

done_testing();
