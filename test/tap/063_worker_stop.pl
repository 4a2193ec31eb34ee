# The worker of a database is told to end while the server goes on (CREATE DATABASE ... TEMPLATE): it is let to write down what has
# changed, and a crash after that is still a crash.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $queues = 300;
my $node = mq_node('worker_stop', conf => "mq.drop_delay = 0\nmax_locks_per_transaction = 512\n");
one($node, 'CREATE DATABASE tpl');
one($node, "CREATE EXTENSION mq; SELECT count(mq.create_queue('q' || i)), count(mq.send('q' || i, '1')) FROM generate_series(1, $queues) i", 'tpl');
sub worker { return one($node, "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'tpl'"); }
ok(poll_until('a worker', \&worker), 'a worker');
my $marks = "SELECT coalesce(string_agg(hi::text, ' ' ORDER BY n), '') FROM (" . join(' UNION ALL ', map { "SELECT * FROM mq_internal.consumer_offset_$_" } 0 .. 3) . ') o WHERE group_no = 0';
ok(poll_until('the start to be noted', sub { one($node, $marks, 'tpl') eq '1' }), 'the start is noted');

# --- each group has something to be written down ---------------------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('r'); SELECT mq.send('r', '1')", 'tpl');
one($node, "SELECT mq.release(receipt) FROM mq.receive('r', max_messages => 1)", 'tpl');
one($node, "SELECT count(mq.nack(receipt, '1 h')) FROM generate_series(1, $queues) i, LATERAL mq.receive('q' || i, max_messages => 1)", 'tpl');
one($node, 'CREATE DATABASE copy TEMPLATE tpl');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/terminating background worker "mq worker/, 'the worker was not ended in the middle of its work');
is(one($node, 'SELECT count(DISTINCT group_no) FROM mq_internal.consumer_offset_0 WHERE replay_from >= 0 AND group_no > 0 AND ranges[3] = 1', 'copy'), $queues, 'it has written down what had changed');
is(one($node, $marks, 'copy'), '1', 'and no stop of the server');

# --- the server crashes while there is no worker ------------------------------------------------------------------------------------------
is(one($node, "SELECT count(*) FROM mq.receive('r', max_messages => 1, visibility_timeout => '1 h')", 'tpl'), '1', 'a message is handed out');
is(worker(), '0', 'there is no worker yet');
$node->kill9;
mq_start_again($node);
is(one($node, "SELECT attempt FROM mq.receive('r', max_messages => 1, visibility_timeout => '1 h')", 'tpl'), '2', 'a redelivery after the crash is seen as one');

# --- a worker that is ended alone --------------------------------------------------------------------------------------------------------
my $pid;
ok(poll_until('a worker', sub { $pid = worker(); $pid && one($node, $marks, 'tpl') eq '1 1' }), 'a worker has noted the start');
one($node, "SELECT pg_terminate_backend($pid)");
ok(poll_until('its end', sub { worker() != $pid }), 'it is ended by hand');
ok(poll_until('another one', sub { one($node, $marks, 'tpl') eq '1 1 1' }), 'the next one notes a start, it had noted no stop');

# --- and an orderly stop is one -------------------------------------------------------------------------------------------------------------
ok(poll_until('a worker', \&worker), 'a worker again');
for my $mode (qw(fast smart))
{
	$node->stop($mode);
	$node->start;
	like(one($node, $marks, 'tpl'), qr/\b0( 1)?$/, "a stop ($mode) is noted");
	ok(poll_until('a worker', \&worker), 'a worker again');
	ok(poll_until('the start to be noted', sub { one($node, $marks, 'tpl') =~ /1$/ }), 'the start is noted');
}
$node->stop;
done_testing();
