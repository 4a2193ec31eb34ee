# Dead messages go to the queue for dead letters, each is in exactly one place whatever happens, and mq.redrive sends them back.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('dead', ladder => 1, conf => "autovacuum = off\nmax_prepared_transactions = 10\n");
my $points = mq_stop_points($node);

sub dead { my ($q, $g) = @_; return one($node, "SELECT sum(dead) FROM mq.groups WHERE queue = '$q'"); }
sub in { my ($q, $g) = @_; $g //= 'default'; return one($node, "SELECT count(*) FROM mq.browse('$q', '$g', max_messages => 1000000)"); }
sub bury { my ($q, $n, $g) = @_; $g //= 'default'; one($node, "SELECT mq.dead_letter_batch((SELECT array_agg(receipt) FROM mq.receive('$q', '$g', max_messages => $n)))"); }
sub all_moved { my ($q) = @_; poll_until("the dead of $q to be moved", sub { dead($q) eq '0' }); }

# an order that fails three times
one($node, q{SELECT mq.create_queue('orders', groups => '{billing,audit}'); SELECT mq.alter_group('orders', 'billing', '{"retry_delays": null, "max_failures": 3}')});
my $id = one($node, q{SELECT mq.send('orders', '{"order": 1}', headers => '{"trace": "x"}')});
one($node, "SELECT mq.nack(receipt) FROM mq.receive('orders', 'billing')") for 1 .. 3;
all_moved('orders');
is(one($node, "SELECT payload->>'order', headers->>'trace', origin_queue, origin_id, attempt, failures, death->0->>'queue', death->0->>'consumer_group', death->0->>'id', death->0->>'failures', death->0->>'attempt', jsonb_array_length(death) FROM mq.browse('orders.dead')"),
	"1|x|orders|$id|0|0|orders|billing|$id|3|3|1", 'it is a dead letter, which says where it comes from');
is(one($node, "SELECT count(*) FROM mq.receive('orders', 'billing')"), '0', 'its group has it no more');
is(one($node, "SELECT count(*) FROM mq.receive('orders', 'audit')"), '1', 'the other one does');
is(one($node, "SELECT dead_letter_of FROM mq.queues WHERE queue = 'orders.dead'"), 'orders', 'the queue says whose dead letters it has');
is(one($node, "SELECT dead_letter_queue FROM mq.groups WHERE queue = 'orders' AND consumer_group = 'billing'"), 'orders.dead', '... and the group where they go');
is(one($node, "SELECT max_failures IS NULL AND dead_letter_queue IS NULL FROM mq.groups WHERE queue = 'orders.dead'"), 't', 'what fails there stays there');
is(one($node, "SELECT mq.redrive('orders.dead')"), '1', 'mq.redrive sends it back');
is(in('orders.dead'), '0', 'then there is none');
is(one($node, "SELECT id <> origin_id, origin_id, failures, attempt, jsonb_array_length(death) FROM mq.receive('orders', 'billing')"), "t|$id|0|1|1", 'its group gets it, as if it had never failed');
is(one($node, "SELECT count(*) FROM mq.receive('orders', 'audit')"), '0', 'the other group does not');
is(one($node, "SELECT count(*) FROM mq.browse('orders', 'audit', states => '{ready,finished}')"), '0', '... nor sees it');
is(one($node, "SELECT mq.discard('orders', 'billing', array[$id])"), '1', 'the id that mq.send returned still names it');
# again and again
for my $times (2 .. 12)
{
	one($node, "SELECT mq.send('orders', '2')") if $times == 2;
	bury('orders', 1, 'billing');
	all_moved('orders');
	is(one($node, "SELECT mq.redrive('orders.dead')"), '1', 'once more') if $times < 12;
}
is(one($node, "SELECT jsonb_array_length(death) FROM mq.browse('orders.dead')"), '10', 'the last ten deaths are remembered');
one($node, "SELECT count(*) FROM mq.pop('orders.dead')");
one($node, "SELECT mq.purge('orders')");

# kill -9 at each stop point: in exactly one place
$node->append_conf('postgresql.conf', "restart_after_crash = off\n");
$node->restart;
for my $point (qw(dead_finished dead_appended dead_committed))
{
	one($node, "SELECT mq.send_batch('orders', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 300) i))");
	one($node, "ALTER SYSTEM SET mq.stop_point = '$point:kill'; SELECT pg_reload_conf()");
	eval { bury('orders', 300, 'billing') };
	ok(wait_down($node), "the server dies at $point");
	mq_restart_after($node);
	# failures of the last second may be lost, never a message; and a move that was not flushed: then it is given up again
	bury('orders', 300, 'billing');
	all_moved('orders');
	is(one($node, "SELECT count(*), count(DISTINCT payload) FROM (SELECT payload FROM mq.browse('orders', 'billing', max_messages => 1000) UNION ALL SELECT payload FROM mq.browse('orders.dead', max_messages => 1000)) p"), '300|300', "crash at $point: each is in one place");
	is(in('orders.dead'), '300', '... among the dead letters');
	one($node, "SELECT count(*) FROM mq.pop('orders.dead', max_messages => 1000)");
	one($node, "SELECT mq.purge('orders')");
}

# a move that was flushed, and of which no checkpoint knows, is in the offset log
{
	my $lock = session($node);
	$lock->q('SELECT pg_advisory_lock(77, 1)');
	one($node, "SELECT mq.send_batch('orders', '{1,2,3}'); ALTER SYSTEM SET mq.stop_point = 'dead_committed:lock'; SELECT pg_reload_conf()");
	bury('orders', 3, 'billing');
	ok(poll_until('the worker to be held', sub { one($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") eq '1' }), 'the move is committed');
	one($node, 'ALTER SYSTEM RESET mq.stop_point; CREATE TABLE flushed ()');
	$node->stop('immediate');
	mq_restart_after($node);
	is(in('orders', 'billing') + in('orders.dead'), '3', 'after a crash each is in one place still');
	one($node, "SELECT count(*) FROM mq.pop('orders.dead', max_messages => 1000)");
	one($node, "SELECT mq.purge('orders')");
}

# a target that cannot have them: they stay, the log says so, and they go when they can
one($node, q{CREATE ROLE anna LOGIN; CREATE ROLE bert LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO anna, bert});
sub as { my ($role, $sql) = @_; return one($node, "SET SESSION AUTHORIZATION $role; $sql"); }
sub fails_as { my ($role, $sql) = @_; return sqlstate($node, "SET SESSION AUTHORIZATION $role; $sql"); }
as('bert', "SELECT mq.create_queue('grave')");
as('anna', "SELECT mq.create_queue('a')");
is(fails_as('anna', q{SELECT mq.alter_group('a', 'default', '{"dead_letter_queue": "grave"}')}), '42501', 'who may not send to a queue cannot have dead letters sent there');
is(fails_as('anna', q{SELECT mq.alter_group('a', 'default', '{"dead_letter_queue": "a"}')}), '22023', 'nor to the queue itself');
is(fails_as('anna', q{SELECT mq.alter_group('a', 'default', '{"dead_letter_queue": "nowhere"}')}), '42704', 'nor to one that is not there');
as('bert', "SELECT mq.grant('grave', 'send', 'anna')");
as('anna', q{SELECT mq.alter_group('a', 'default', '{"dead_letter_queue": "grave"}')});
as('bert', "SELECT mq.revoke('grave', 'send', 'anna')");
as('anna', "SELECT mq.send('a', '1')");
my $log = -s $node->logfile;
bury('a', 1);
poll_until('the log to say so', sub { PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /WARNING: .*dead messages of consumer group "default" of queue "a" cannot be moved/ });
is(dead('a'), '1', 'it stays');
as('bert', "SELECT mq.grant('grave', 'send', 'anna')");
all_moved('a');
is(in('grave'), '1', 'and goes when it can');
is(as('bert', "SELECT mq.redrive('grave')"), '0', 'who may not send to where they come from cannot send them back');
is(in('grave'), '1', '... and they stay');
is(fails_as('anna', "SELECT mq.redrive('grave')"), '42501', 'nor who may not manage the queue that has them');
as('anna', "SELECT mq.grant('a', 'send', 'bert')");
is(as('bert', "SELECT mq.redrive('grave')"), '1', 'who may do both can');
is(sqlstate($node, "SELECT mq.drop_queue('grave')"), '55000', 'a queue that has dead letters of others is not dropped');
one($node, "SELECT mq.drop_queue('grave', force => true)");
is(one($node, "SELECT dead_letter_queue IS NULL FROM mq.groups WHERE queue = 'a'"), 't', 'with force it is; then they stay');

# the queue made for them is its parent's, whoever that is
one($node, q{SELECT mq.alter_group('a', 'default', '{"reset": ["dead_letter_queue"]}')});
bury('a', 1);
all_moved('a');
is(as('anna', "SELECT count(*) FROM mq.browse('a.dead')"), '1', 'its owner sees them');
is(fails_as('bert', "SELECT * FROM mq.browse('a.dead')"), '42501', 'others do not');
is(fails_as('bert', "SELECT * FROM mq.receive('a.dead')"), '42501', '... and get nothing');
is(fails_as('bert', q{SELECT mq.create_queue('b.dead')}), '42939', 'nobody can make a queue of such a name');
is(fails_as('anna', q{SELECT mq.grant('a.dead', 'browse', 'bert')}), '55000', 'it has no rights of its own');
is(fails_as('anna', q{SELECT mq.alter_queue('a.dead', '{"owner": "anna"}')}), '55000', '... and no owner');
as('anna', "SELECT mq.grant('a', 'manage', 'bert')");
is(as('bert', "SELECT count(*) FROM mq.receive('a.dead')"), '1', 'who may manage the queue may have them');
one($node, "SELECT mq.alter_queue('a', '{\"owner\": \"bert\"}')");
is(fails_as('anna', "SELECT * FROM mq.receive('a.dead')"), '42501', 'handed on with it');
is(one($node, "SELECT owner FROM mq.queues WHERE queue = 'a.dead'"), 'bert', '... as the view says');
is(sqlstate($node, "SELECT mq.drop_queue('a')"), '55000', 'a queue with dead letters is not dropped');
one($node, "SELECT mq.drop_queue('a', force => true)");
is(one($node, "SELECT count(*) FROM mq.queues WHERE queue LIKE 'a%'"), '0', 'with force both go');

# one is in a transaction that drops the queue when the first message dies: nothing is left of it
as('anna', "SELECT mq.create_queue('gone'); SELECT mq.send('gone', '1')");
my $receipt = one($node, "SELECT receipt FROM mq.receive('gone')");
my $dropper = session($node);
$dropper->q("BEGIN");
$dropper->q("SELECT mq.drop_queue('gone', force => true)");
one($node, "SET lock_timeout = '10 s'; SELECT mq.dead_letter('$receipt')");
# until the worker has had a turn
one($node, "SELECT mq.create_queue('turn'); SELECT mq.send('turn', '1'); SELECT mq.dead_letter(receipt) FROM mq.receive('turn')");
all_moved('turn');
$dropper->q("COMMIT");
as('anna', "SELECT mq.create_queue('gone'); SELECT mq.send('gone', '1')");
bury('gone', 1);
all_moved('gone');
is(in('gone.dead'), '1', 'a drop that is under way leaves no queue of dead letters behind');
is(fails_as('anna', "SELECT mq.send('gone.dead', '1')"), '55000', 'nobody sends to one');
is(fails_as('bert', q{SELECT mq.create_queue('bs'); SELECT mq.alter_group('bs', 'default', '{"dead_letter_queue": "gone.dead"}')}), '42501', 'nor makes it the grave of his own');

# what is sent back to one group has not moved for the others
one($node, q{SELECT mq.create_queue('two', groups => '{a,b}'); SELECT mq.alter_group('two', 'b', '{"dead_letter_queue": null}'); SELECT mq.send('two', '1')});
bury('two', 1, $_) for qw(a b);
poll_until('the one of a', sub { one($node, "SELECT dead FROM mq.groups WHERE queue = 'two' AND consumer_group = 'a'") eq '0' });
is(one($node, "SELECT mq.redrive('two.dead')"), '1', 'sent back to one group');
is(one($node, "SELECT mq.retry('two', 'b', '{1}')"), '1', 'the other one names its own message still');
is(one($node, "SELECT mq.discard('two', 'b', '{1}'), mq.discard('two', 'a', '{1}')"), '1|1', '... each of them its own');

# a queue that is full takes none back
one($node, q{SELECT mq.create_queue('narrow', options => '{"max_messages": 5}'); SELECT mq.send('narrow', '1') FROM generate_series(1, 5)});
bury('narrow', 5);
all_moved('narrow');
one($node, "SELECT mq.send('narrow', '2') FROM generate_series(1, 3)");
is(sqlstate($node, "SELECT mq.redrive('narrow.dead')"), '53400', 'a queue that is full takes none back');
is(one($node, "SELECT mq.redrive('narrow.dead', max_messages => 2)"), '2', '... but what it has room for');

# over a restart, a delay that is not over is retried at once
one($node, q{SELECT mq.create_queue('later', options => '{"segment_size": 1024}'); SELECT mq.alter_group('later', 'default', '{"retry_delays": ["1 h"]}')});
one($node, "SELECT count(mq.send_batch('later', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 5000) i)))");
one($node, "BEGIN; SELECT mq.send('later', '0'); ROLLBACK");
one($node, "SELECT count(mq.nack(receipt)) FROM mq.receive('later', max_messages => 5000)");
$node->restart;
sqlstate($node, "SELECT mq.drop_queue('later')");
is(one($node, "SELECT mq.retry('later', 'default', (SELECT array_agg(id) FROM mq.browse('later', max_messages => 5000)))"), '5000', 'what is not read yet is retried as well');
is(one($node, "SELECT count(*) FROM mq.receive('later', max_messages => 10000)"), '5000', '... and comes');

# many at a time, and a rollback
one($node, q{SELECT mq.create_queue('m', groups => '{x,y}')});
one($node, "SELECT count(mq.send_batch('m', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 20000) i)))");
bury('m', 20000, 'x');
all_moved('m');
is(in('m.dead'), '20000', 'twenty thousand dead letters');
one($node, "BEGIN; SELECT mq.redrive('m.dead'); ROLLBACK");
is(in('m.dead'), '20000', 'a redrive that is rolled back leaves them there');
is(one($node, "SELECT count(*) FROM mq.receive('m', 'x')"), '0', '... and sends nothing');
is(one($node, "SELECT mq.redrive('m.dead', max_messages => 7)"), '7', 'some of them');
is(one($node, "SELECT count(*), count(DISTINCT payload) FROM mq.receive('m', 'x', max_messages => 100)"), '7|7', 'come back');
is(one($node, "SELECT mq.redrive('m.dead', array[(SELECT id FROM mq.browse('m.dead') LIMIT 1), 999999999])"), '1', 'or one that is named');
is(sqlstate($node, "SELECT mq.redrive('m.dead', '{1,1}')"), '22023', 'not twice');
is(sqlstate($node, "SELECT mq.redrive('m.dead', max_messages => 0)"), '22023', 'none is an error');
is(one($node, "SELECT mq.redrive('m.dead', max_messages => 10, spread => '1 h')"), '10', 'or over a time');
poll_until('the first to come', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = 'm'") eq '9' });
is(one($node, "SELECT count(*), count(consumer_group), min(kind), max(due_at) - min(due_at) > interval '50 min' FROM mq.scheduled WHERE queue = 'm'"), '9|9|redrive|t', '... nine of ten are in the schedule');
is(one($node, "SELECT mq.cancel('m', (SELECT id FROM mq.scheduled WHERE queue = 'm' LIMIT 1))"), 'f', 'no sender cancels them');
one($node, "SELECT mq.make_due('m')");
poll_until('them to come', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = 'm'") eq '0' });
is(one($node, "SELECT count(*), count(DISTINCT origin_id), bool_and(origin_id < id), count(death) FROM mq.receive('m', 'x', max_messages => 100) WHERE payload <> 'null'"), '11|11|t|11', 'they come with what they were');
is(one($node, "SELECT count(*) FROM mq.receive('m', 'y', max_messages => 100000)"), '20000', 'the other group gets its own, once');
# a seek voids what was sent back before
is(one($node, "SELECT mq.redrive('m.dead', max_messages => 5)"), '5', 'five more');
one($node, "SELECT mq.seek('m', 'x', start => 'earliest')");
is(one($node, "SELECT count(*) FROM mq.receive('m', 'x', max_messages => 100000)"), '20000', 'after a seek to the beginning it gets each once');
# the group is gone
one($node, "SELECT mq.drop_group('m', 'x', force => true)");
is(one($node, "SELECT mq.redrive('m.dead', max_messages => 5)"), '0', 'from a group that is gone: none is sent');
ok(in('m.dead') > 19000, '... and they stay');
is(sqlstate($node, "SELECT mq.drop_queue('m.dead')"), '55000', 'the queue of dead letters is not dropped with them in it');
one($node, "SELECT mq.purge('m.dead')");
one($node, "SELECT mq.drop_queue('m.dead')");
one($node, "SELECT mq.send('m', '1')");
bury('m', 1, 'y');
all_moved('m');
is(in('m.dead'), '1', 'it is made again when there is the next one');

done_testing();
