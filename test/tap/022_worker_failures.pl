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
	one($node, "SELECT mq.create_queue('f' || i, options => jsonb_build_object('segment_size', 1024)) FROM generate_series(1, 3) i");
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
	one($node, "SELECT mq.create_queue('n' || i, options => jsonb_build_object('notify_interval', '10 ms')) FROM generate_series(1, 10) i");
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

# --- a database that lets nobody connect --------------------------------------------------------------------------------------
{
	one($node, 'CREATE DATABASE closed');
	one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('c')", 'closed');
	my $worker = sub { return one($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'closed'"); };
	my $first;
	ok(poll_until('its worker', sub { $first = $worker->() }), 'a database has a worker');
	for my $how ([ "UPDATE pg_database SET datallowconn = false WHERE datname = 'closed'", "UPDATE pg_database SET datallowconn = true WHERE datname = 'closed'", 'ALLOW_CONNECTIONS false' ],
		[ "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'closed'", "UPDATE pg_database SET datconnlimit = -1 WHERE datname = 'closed'", 'an interrupted DROP DATABASE' ])
	{
		mark();
		one($node, $how->[0]);
		my $pid = $worker->();
		one($node, "SELECT pg_terminate_backend($pid)") if $pid ne '';
		poll_until('its end', sub { $worker->() eq '' });
		sleep(7);    # three tries, if it were tried: that nothing happens has no condition to wait for
		is(join('', lines(qr/FATAL/)), '', "$how->[2]: no worker is tried, no word in the log");
		one($node, $how->[1]);
		ok(poll_until('its worker again', $worker, 30), 'when it lets connect again the worker is back');
	}
	one($node, 'DROP DATABASE closed WITH (FORCE)');
}

# --- the extension's owner is no superuser any more ----------------------------------------------------------------------------
{
	one($node, "CREATE ROLE dba SUPERUSER; CREATE DATABASE owned");
	my $made = one($node, "SET SESSION AUTHORIZATION dba; CREATE EXTENSION mq; SELECT mq.create_queue('o', options => jsonb_build_object('segment_size', 1024))", 'owned');
	my $fill = "SELECT count(mq.send('o', '{}')) FROM generate_series(1, 1000)";
	is(sqlstate($node, "$fill; $fill; $fill; SELECT count(*) FROM mq.pop('o', max_messages => 100)", db => 'owned'), '', 'a queue of an extension that a role of its own has made');
	poll_until('nothing to be left to do', sub {
		one($node, "SELECT (count(*) FILTER (WHERE sealed)) || ' ' || max(last_id) FROM mq.segments WHERE queue = 'o'", 'owned') eq '2 5119';
	});
	mark();
	one($node, 'ALTER ROLE dba NOSUPERUSER');
	has_said(qr/role "dba", is not a superuser/, 'the log says that the owner is no superuser');
	turns(5);
	is(said(qr/ERROR:/), 1, 'once, and nothing else');
	my $e = '';
	poll_until('the last segment to be full', sub { $e = err($node, $fill, db => 'owned'); $e ne '' });
	like($e, qr/55000: the owner of extension mq, role "dba", is not a superuser.*HINT:.*REASSIGN OWNED/s, 'senders are told');
	like(err($node, "SELECT mq.create_queue('p')", db => 'owned'), qr/55000: the owner of extension mq, role "dba", is not/, 'so is who makes a queue');
	is(one($node, "SELECT count(*) FROM mq.pop('o', max_messages => 100)", 'owned'), '100', 'receiving goes on');
	one($node, 'REASSIGN OWNED BY dba TO CURRENT_USER', 'owned');
	is(sqlstate($node, $fill, db => 'owned'), '', 'when a superuser has it, all goes on');
	has_said(qr/extension's owner works again/, 'and that is said');
	one($node, 'DROP DATABASE owned WITH (FORCE)');
}

# --- more queues than mq.max_queues lets be used ------------------------------------------------------------------------------
{
	one($node, 'CREATE DATABASE many');
	one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('m' || i, options => jsonb_build_object('segment_size', 1024)) FROM generate_series(1, 40) i", 'many');
	$node->append_conf('postgresql.conf', 'mq.max_queues = 30');
	mark();
	$node->restart;
	has_said(qr/queues of this database cannot be used/, 'queues that do not fit are told of');
	worker_alive($node);
	turns(5);
	cmp_ok(said(qr/ERROR:/), '<=', 2, 'once in each database that has some, whatever their number');
	is(said(qr/many queues are in use/), 0, 'nothing is tried for them');
	my ($q) = grep { sqlstate($node, "SELECT mq.send('m$_', '{}')", db => 'many') eq '' } 1 .. 40;
	is(sqlstate($node, "SELECT count(mq.send('m$q', '{}')) FROM generate_series(1, 5000)", db => 'many'), '', 'those that fit are served');
	one($node, 'DROP DATABASE many WITH (FORCE)');
}

# --- more databases than processes ---------------------------------------------------------------------------------------------
{
	# the launcher, the one of logical replication, and one worker
	my $few = mq_node('few', conf => "max_worker_processes = 3\nmq.segment_wait = '2 s'\n");
	$node->stop;
	$node = $few;
	one($few, "SELECT mq.create_queue('here')");
	worker_alive($few);
	mark();
	one($few, 'CREATE DATABASE second');
	one($few, "CREATE EXTENSION mq; SELECT mq.create_queue('there', options => jsonb_build_object('segment_size', 1024))", 'second');
	has_said(qr/WARNING:.*no process is free for the mq worker of database "second"/, 'the log says that a database has no worker');
	has_said(qr/HINT:.*max_worker_processes/, 'and what to raise');
	one($few, "SELECT count(mq.send('there', '{}')) FROM generate_series(1, 2000)", 'second');
	like(err($few, "SELECT count(mq.send('there', '{}')) FROM generate_series(1, 2000)", db => 'second'),
		qr/not made in time.*DETAIL:.*no mq worker.*HINT:.*max_worker_processes/s, 'senders are told');
	sleep(5);    # as above
	is(said(qr/no process is free/), 1, 'once');
	one($few, 'DROP EXTENSION mq CASCADE');
	ok(poll_until('a worker', sub { one($few, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'second'") eq '1' }), 'a process that becomes free goes to it');
	has_said(qr/a process is free for the mq worker of database "second" again/, 'and that is said');
	is(sqlstate($few, "SELECT count(mq.send('there', '{}')) FROM generate_series(1, 2000)", db => 'second'), '', 'and sends go on');
}

done_testing();
