# The ladder of retry_delays, what counts towards max_failures, what is dead, and mq.retry: exact in time, over crashes, and undone by
# nobody's rollback.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('retry', ladder => 1, conf => "autovacuum = off\nmax_prepared_transactions = 10\n");

sub state_of { my ($q, $id, $g) = @_; $g //= 'default'; return one($node, "SELECT state FROM mq.browse('$q', '$g') WHERE id = $id") // ''; }
sub failures_of { my ($q, $id) = @_; return one($node, "SELECT failures FROM mq.browse('$q') WHERE id = $id"); }
# Fails the next message, says how: seconds until it is ready again, as browse shows it.
sub nack { my ($q, $arguments) = @_; $arguments //= ''; return one($node, "SELECT mq.nack(receipt$arguments) FROM mq.receive('$q')"); }
sub left { my ($q) = @_; return one($node, "SELECT coalesce(extract(epoch FROM max(due_at) - clock_timestamp()), 0) FROM mq.browse('$q', states => '{retrying}')"); }

# the ladder: each step, and the last one again and again; within a tenth
one($node, "SELECT mq.create_queue('l', groups => '{}')");
one($node, q{SELECT mq.create_group('l', 'default', options => '{"retry_delays": ["0 s", "100 s", "1000 s", "1 day"], "max_failures": null}')});
my $id = one($node, "SELECT mq.send('l', '1')");
nack('l');
is(state_of('l', $id), 'ready', 'the first failure comes back at once');
for my $delay (100, 1000, 86400, 86400)
{
	nack('l');
	my $left = left('l');
	ok($left > $delay - 20 && $left <= $delay * 1.1, "then after $delay seconds, at most a tenth later ($left)");
	is(one($node, "SELECT mq.retry('l', 'default', array[$id])"), '1', 'mq.retry makes it ready now');
	is(state_of('l', $id), 'ready', '... and it is');
}
is(one($node, "SELECT mq.retry('l', 'default', array[$id])"), '0', 'what is ready is not retried');
is(failures_of('l', $id), '5', 'a retry of what was not dead forgets no failure');
nack('l', ", delay => '50 s'");
ok(left('l') > 30 && left('l') <= 50.5, 'a delay that is given counts instead');
one($node, "SELECT mq.retry('l', 'default', array[$id])");
one($node, "SELECT mq.release(receipt, delay => '70 s') FROM mq.receive('l')");
ok(left('l') > 50 && left('l') <= 71, 'a release can have one too');
is(failures_of('l', $id), '6', '... and is no failure');
is(state_of('l', $id), 'retrying', 'it is retrying');

# what a crash leaves: a second after the failure its time is on disk, though nothing else has happened in the group
one($node, "SELECT mq.create_queue('disk'); SELECT mq.send('disk', '1')");
nack('disk', ", delay => '0'") for 1 .. 2;
nack('disk', ", delay => '70 s'");
ok(poll_until('a checkpoint', sub { one($node, "SELECT count(*) FROM mq_internal.consumer_offset_0 JOIN mq_internal.consumer_group g USING (group_no) JOIN mq_internal.queue q ON q.queue_no = g.queue_no WHERE q.name = 'disk' AND replay_from >= 0 AND ranges[4] > 0") ne '0' }), 'a nack is worth a checkpoint');
my $due = one($node, "SELECT due_at FROM mq.browse('disk')");
$node->stop('immediate'); $node->start;
is(one($node, "SELECT due_at FROM mq.browse('disk')"), $due, 'a crash does not bring it back early');
is(one($node, "SELECT failures FROM mq.browse('disk')"), '3', '... nor forgets failures');
$node->restart;
is(one($node, "SELECT due_at FROM mq.browse('disk')"), $due, 'a restart neither');

# neighbours that fail one after the other stay few entries
one($node, "SELECT mq.create_queue('n'); SELECT mq.alter_group('n', 'default', '{\"retry_delays\": [\"1 h\"]}')");
one($node, "SELECT count(mq.send_batch('n', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 20000) i)))");
my $free = one($node, "SELECT count(mq.nack(receipt)) FROM mq.receive('n', max_messages => 20000)");
is(one($node, "SELECT retrying FROM mq.groups WHERE queue = 'n'"), '20000', 'all of them wait');
ok(one($node, "SELECT count(*) FROM (SELECT DISTINCT due_at FROM mq.browse('n', max_messages => 20000)) d") <= 3, 'in few entries');

one($node, "SELECT mq.create_queue('spread', groups => (SELECT array_agg('g' || i) FROM generate_series(1, 20) i)); SELECT mq.send('spread', '1')");
one($node, "SELECT mq.alter_group('spread', 'g' || i, '{\"retry_delays\": [\"1 h\"]}') FROM generate_series(1, 20) i");
one($node, "SELECT count(mq.nack(receipt)) FROM generate_series(1, 20) i, LATERAL mq.receive('spread', 'g' || i)");
ok(one($node, "SELECT count(DISTINCT next_due_at) FROM mq.groups WHERE queue = 'spread'") > 10, 'groups that fail together do not come back together');

# max_failures: dead in place
one($node, "SELECT mq.create_queue('d'); SELECT mq.alter_group('d', 'default', '{\"retry_delays\": null, \"max_failures\": 3, \"dead_letter_queue\": null}')");
my $d = one($node, "SELECT mq.send('d', '1')");
nack('d') for 1 .. 2;
is(state_of('d', $d), 'ready', 'two of three failures');
nack('d', ", delay => '1 s'");
is(state_of('d', $d), 'dead', 'after the third it is dead, whatever delay was given');
is(one($node, "SELECT count(*) FROM mq.receive('d')"), '0', 'what is dead is not handed out');
is(one($node, "SELECT dead, ready, retrying, unfinished_at_most, oldest_dead_at IS NOT NULL FROM mq.groups WHERE queue = 'd'"), '1|0|0|1|t', 'and counted');
is(sqlstate($node, "SELECT mq.drop_group('d', 'default')"), '55000', 'the group has unfinished messages');
one($node, "BEGIN; SELECT mq.discard('d', 'default', array[$d]); ROLLBACK");
is(state_of('d', $d), 'dead', 'a discard that is rolled back leaves it dead');
$node->restart;
is(state_of('d', $d), 'dead', 'a restart, too');
one($node, "SELECT mq.alter_group('d', 'default', '{\"max_failures\": null}')");
is(state_of('d', $d), 'dead', 'and no change of the option');
is(one($node, "SELECT mq.retry('d', 'default', array[$d])"), '1', 'mq.retry makes it ready');
is(failures_of('d', $d), '0', '... as if it had never failed');
is(one($node, "SELECT count(*) FROM mq.pop('d')"), '1', '... and it is handed out');
is(one($node, "SELECT dead FROM mq.groups WHERE queue = 'd'"), '0', 'then there is none');

# mq.dead_letter: at once, in batches, of what was popped
one($node, "SELECT mq.send_batch('d', array['2', '3', '4', '5']::jsonb[])");
one($node, "BEGIN; SELECT mq.dead_letter(receipt) FROM mq.receive('d'); ROLLBACK");
is(one($node, "SELECT dead FROM mq.groups WHERE queue = 'd'"), '1', 'a message that is given up stays dead');
is(one($node, "SELECT array_length(mq.dead_letter_batch((SELECT array_agg(receipt) FROM mq.receive('d', max_messages => 2))), 1)"), '', 'two more');
is(one($node, "BEGIN; SELECT mq.dead_letter(receipt) FROM mq.pop('d'); SELECT state FROM mq.browse('d') ORDER BY id DESC LIMIT 1; COMMIT"), "\nsettling", 'of a pop it is settling until the commit');
is(one($node, "SELECT dead FROM mq.groups WHERE queue = 'd'"), '4', '... and dead then');
one($node, "SELECT mq.send('d', '6')");
one($node, "BEGIN; SELECT receipt AS r FROM mq.pop('d') \\gset\nSAVEPOINT s; SELECT mq.dead_letter(:'r'); ROLLBACK TO s; COMMIT");
is(one($node, "SELECT dead FROM mq.groups WHERE queue = 'd'"), '4', 'a savepoint puts it back into the pop, which commits');
is(state_of('d', one($node, "SELECT max(id) FROM mq.q_d")), '', '... so it is finished');

# what counts how much
one($node, "SELECT mq.create_queue('c'); SELECT mq.alter_group('c', 'default', '{\"retry_delays\": null, \"max_failures\": 2, \"dead_letter_queue\": null}')");
my $c = one($node, "SELECT mq.send('c', '1')");
sqlstate($node, "DO \$\$ BEGIN PERFORM mq.receive('c'); RAISE 'bad'; END \$\$") for 1 .. 2;
is(state_of('c', $c), 'dead', 'two errors of the work of two');
one($node, "SELECT mq.retry('c', 'default', array[$c])");
one($node, "BEGIN; SELECT mq.receive('c'); ROLLBACK") for 1 .. 3;
is(state_of('c', $c), 'ready', 'a rollback without a known cause counts half');
one($node, "BEGIN; SELECT mq.receive('c'); ROLLBACK");
is(state_of('c', $c), 'dead', '... so that four are two');
one($node, "SELECT mq.retry('c', 'default', array[$c])");
one($node, "BEGIN; SELECT mq.receive('c'); ROLLBACK") for 1 .. 3;
$node->restart;
is(failures_of('c', $c), '3', 'how many there were is known after a restart');
one($node, "BEGIN; SELECT mq.receive('c'); ROLLBACK");
is(state_of('c', $c), 'dead', '... and that they count half');

# a policy that is changed by a prepared transaction, and one that is rolled back
one($node, "SELECT mq.retry('c', 'default', array[$c])");
# Whether a message of a queue of its own is dead after one failure.
sub dies_at_once
{
	my $id = one($node, "SELECT mq.send('prep', '1')");
	nack('prep');
	my $state = state_of('prep', $id);
	one($node, "SELECT mq.discard('prep', 'default', array[$id])");
	return $state eq 'dead';
}
one($node, "SELECT mq.create_queue('prep'); SELECT mq.alter_group('prep', 'default', '{\"retry_delays\": null, \"max_failures\": 2, \"dead_letter_queue\": null}')");
one($node, "BEGIN; SELECT mq.alter_group('prep', 'default', '{\"max_failures\": 1}'); PREPARE TRANSACTION 'p'");
ok(!dies_at_once(), 'a change that is prepared is none yet');
one($node, "COMMIT PREPARED 'p'");
ok(poll_until('the worker to bring it', \&dies_at_once), '... and the worker brings it when it is committed');
one($node, "BEGIN; SELECT mq.alter_group('prep', 'default', '{\"max_failures\": 9}'); ROLLBACK");
ok(dies_at_once(), 'a change that is rolled back changes nothing');
one($node, "BEGIN; SAVEPOINT s; SELECT mq.alter_group('prep', 'default', '{\"max_failures\": 9}'); ROLLBACK TO s; COMMIT");
ok(dies_at_once(), '... nor one that a savepoint rolls back');
one($node, "BEGIN; SELECT mq.alter_group('c', 'default', '{\"max_failures\": 3}'); SELECT mq.alter_group('c', 'default', '{\"max_failures\": 2}'); COMMIT");
one($node, "SELECT mq.retry('c', 'default', array[$c])");
nack('c') for 1 .. 2;
is(state_of('c', $c), 'dead', 'the last change that was committed counts');
is(one($node, "SELECT max_failures, retry_delays, retry_span FROM mq.groups WHERE queue = 'c'"), '2||00:00:00', 'the view shows it');
is(one($node, "SELECT max_failures, retry_delays, retry_span FROM mq.groups WHERE queue = 'l'"), '|{00:00:00,00:01:40,00:16:40,"1 day"}|', '... for ever');
one($node, "SELECT mq.create_queue('def')");
is(one($node, "SELECT max_failures, retry_delays, retry_span FROM mq.groups WHERE queue = 'def'"), '20|{00:00:00,00:00:01,00:00:10,00:01:00,00:05:00,00:15:00,01:00:00}|13:21:11', 'what it is without an option');

done_testing();
