# expires_after: groups that nobody receives from, and queues that nobody uses, are dropped; nothing that is in use is.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('expires', fsync => 1, conf => "mq.drop_delay = 0\nmq.visibility_timeout = '1 h'\n");
my $points = mq_stop_points($node);
sub there { my ($q, $g) = @_; return one($node, "SELECT count(*) FROM mq.groups WHERE queue = '$q' AND consumer_group = '$g'"); }
sub queue_there { my ($q) = @_; return one($node, "SELECT count(*) FROM mq.queues WHERE queue = '$q'"); }
sub gone { my ($q, $g) = @_; return poll_until("$g of $q to go", sub { there($q, $g) eq '0' }); }
sub queue_gone { my ($q) = @_; return poll_until("$q to go", sub { queue_there($q) eq '0' }); }
sub group { my ($q, $g, $after) = @_; return one($node, "SELECT mq.create_group('$q', '$g', options => '{\"expires_after\": \"" . ($after || '2 s') . "\"}')"); }
# something that goes some time after everything made before it would have gone
my $probes = 0;
sub probe
{
	my $p = 'probe' . ++$probes;
	group('q', $p, '3 s');
	return gone('q', $p);
}

# ---------------------------------------------------------------------------------------------------------------------
# groups

one($node, "SELECT mq.create_queue('q')");
# the time begins when they are as they shall be
my @groups = ('dead', 'leased', 'paused', 'waits', 'polls', 'prepared');
one($node, "SELECT mq.create_group('q', '$_')") for @groups;
one($node, "SELECT t.put('q', 'm', 10)");
one($node, "SELECT count(*) FROM mq.receive('q', 'leased')");
one($node, "SELECT mq.pause('q', 'paused')");
group('q', 'rests', '4 s');
one($node, "SELECT mq.pause('q', 'rests')");
my $waits = session($node);
$waits->q("SELECT count(*) FROM mq.pop('q', 'waits', max_messages => 100)");
$waits->start("SELECT count(*) FROM mq.receive('q', 'waits', wait => '60 s')");
one($node, "SELECT count(*) FROM mq.pop('q', 'polls', max_messages => 100)");
my $polls = session($node);
$polls->start("DO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM t.done WHERE k = 'enough') LOOP PERFORM mq.receive('q', 'polls'); PERFORM pg_sleep(0.1); COMMIT; END LOOP; END \$\$");
one($node, "BEGIN; SELECT mq.pop('q', 'prepared'); PREPARE TRANSACTION 'p'");
ok(poll_until('one to wait', sub { one($node, "SELECT waiting FROM mq.groups WHERE queue = 'q' AND consumer_group = 'waits'") eq '1' }), 'one waits');
one($node, "SELECT mq.alter_group('q', '$_', '{\"expires_after\": \"2 s\"}')") for @groups;
ok(gone('q', 'dead'), 'a group that nobody receives from goes, with what it has not finished');
is(sqlstate($node, "SELECT mq.receive('q', 'dead')"), '42704', 'it is no more');
ok(probe(), 'time goes on');
is(there('q', $_), '1', "one that is used does not: $_") for 'leased', 'paused', 'waits', 'polls', 'prepared', 'default';
like(slurp_file($node->logfile), qr/LOG:  consumer group "dead" of queue "q" expires: nobody has received from it for 2 s/, 'it is logged');

# time begins anew after a pause, however long that was
one($node, "SELECT mq.resume('q', 'rests')");
group('q', 'short', '1 s');
ok(gone('q', 'short'), 'a group with a shorter time goes first');
is(there('q', 'rests'), '1', 'the time of a pause does not count');
ok(gone('q', 'rests'), 'that after it does');

# each of them goes once that is over
one($node, "SELECT mq.resume('q', 'paused')");
one($node, "INSERT INTO t.done VALUES ('q', 'enough'); SELECT mq.release(receipt) FROM (SELECT receipt FROM mq.receive('q', 'leased')) x");
one($node, "SELECT mq.discard('q', 'leased', array_agg(id)) FROM mq.in_flight WHERE queue = 'q' AND consumer_group = 'leased'");
one($node, "COMMIT PREPARED 'p'");
ok(gone('q', $_), "unused now: $_") for 'paused', 'polls', 'prepared', 'leased';
is(there('q', 'waits'), '1', 'one still waits');
one($node, "SELECT t.put('q', 'n', 1)");
$waits->finish;
one($node, "SELECT mq.discard('q', 'waits', array_agg(id)) FROM mq.in_flight WHERE queue = 'q' AND consumer_group = 'waits'");
ok(gone('q', 'waits'), 'not any more');
is(there('q', 'default'), '1', 'one without the option stays');

# a definition that somebody has locked is not waited for
one($node, "SELECT mq.create_group('q', 'locked', options => '{\"expires_after\": \"1 s\"}')");
my $locks = session($node);
$locks->q("BEGIN; SELECT mq.alter_group('q', 'locked', '{\"max_in_flight\": 5}')");
ok(probe(), 'others go meanwhile');
is(there('q', 'locked'), '1', 'it stays');
$locks->q('ROLLBACK');
ok(gone('q', 'locked'), 'and goes then');
# names are no SQL
my $odd = q{x', 'y', true), mq.drop_queue('q', true); -- \\ "};
my $lit = $odd =~ s/'/''/gr;
one($node, "SELECT mq.create_queue('$lit', groups => array['$lit'], options => '{\"expires_after\": \"2 s\"}'); SELECT mq.create_group('q', '$lit', options => '{\"expires_after\": \"1 s\"}')");
ok(poll_until('the group to go', sub { there('q', $lit) eq '0' }), 'a group with an odd name goes');
ok(poll_until('the queue to go', sub { queue_there($lit) eq '0' }), 'a queue with an odd name goes');
is(queue_there('q'), '1', 'and no other');
# turned off in time
group('q', 'thinks', '4 s');
one($node, q{SELECT mq.alter_group('q', 'thinks', '{"expires_after": null}')});
ok(probe(), 'time goes on');
ok(probe(), 'and on');
is(there('q', 'thinks'), '1', 'turned off');

# a restart begins anew; a crash in the middle of the drop leaves it whole
group('q', 'restart', '5 s');
ok(probe(), 'time goes on');
$node->restart;
group('q', 'after', '3 s');
ok(gone('q', 'after'), 'after a restart');
is(there('q', 'restart'), '1', 'time begins anew with a restart');
ok(gone('q', 'restart'), 'and goes on');
SKIP:
{
	skip 'no stop points', 3 if !$points;
	one($node, "ALTER SYSTEM SET mq.stop_point = 'expire_before:kill'; SELECT pg_reload_conf()");
	$node->append_conf('postgresql.conf', "restart_after_crash = off\n");
	$node->reload;
	group('q', 'crash', '1 s');
	ok(wait_down($node), 'killed while it drops');
	ok(mq_restart_after($node), 'starts again');
	ok(gone('q', 'crash'), 'and drops it then');
}

# ---------------------------------------------------------------------------------------------------------------------
# queues

sub queue { my ($q, $after) = @_; return one($node, "SELECT mq.create_queue('$q', options => '{\"expires_after\": \"" . ($after || '2 s') . "\"}')"); }
sub queue_probe { my $p = 'queue_probe' . ++$probes; queue($p, '3 s'); return queue_gone($p); }
my @queues = ('empty', 'gap', 'unread', 'ready', 'leased', 'scheduled', 'paused', 'viewed', 'sent', 'bare');
one($node, "SELECT mq.create_queue('$_')") for @queues;
one($node, "BEGIN; SELECT t.put('gap', 'm', 200); ROLLBACK");
one($node, "SELECT t.put('gap', 'm', 2)");
one($node, "SELECT count(*) FROM mq.pop('gap', max_messages => 10)");
one($node, "BEGIN; SELECT t.put('gap', 'm', 200); ROLLBACK");
one($node, "SELECT mq.drop_group('bare', 'default'); SELECT mq.send('bare', '1')");
one($node, "SELECT t.put('$_', 'm', 2)") for 'unread', 'ready', 'leased';
one($node, "BEGIN; SELECT mq.receive('ready'); ROLLBACK");
one($node, "SELECT count(*) FROM mq.receive('leased', max_messages => 2)");
one($node, "SELECT mq.send('scheduled', '1', delay => '1 day')");
one($node, "SELECT mq.pause('paused', 'default')");
one($node, "CREATE VIEW t.v AS SELECT id FROM mq.q_viewed");
my $sends = session($node);
$sends->start("DO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM t.done WHERE k = 'sent enough') LOOP PERFORM mq.send('sent', '1'), mq.purge('sent'); PERFORM pg_sleep(0.1); COMMIT; END LOOP; END \$\$");
one($node, "SELECT mq.alter_queue('$_', '{\"expires_after\": \"2 s\"}')") for @queues;
ok(queue_gone($_), "an unused queue goes: $_") for 'empty', 'gap', 'bare';
is(one($node, "SELECT to_regclass('mq.q_empty') IS NULL"), 't', 'with its table');
ok(queue_probe(), 'time goes on');
is(queue_there($_), '1', "one that is in use, or has something unfinished, stays: $_") for 'unread', 'ready', 'leased', 'scheduled', 'paused', 'viewed', 'sent', 'q';
like(slurp_file($node->logfile), qr/LOG:  queue "empty" expires: nobody has used it for 2 s/, 'it is logged');
like(slurp_file($node->logfile), qr/cannot drop .*q_viewed.* because other objects depend on it/, 'what keeps one is logged');
is(one($node, 'SELECT count(*) FROM t.v'), '0', 'a view on it lives on');
one($node, "DROP VIEW t.v; INSERT INTO t.done VALUES ('sent', 'sent enough'); SELECT mq.resume('paused', 'default')");
$sends->finish;
one($node, "SELECT mq.purge('sent')");
one($node, "SELECT id FROM mq.pop('$_', max_messages => 10)") for 'unread', 'ready';
one($node, "SELECT mq.discard('leased', 'default', array_agg(id)) FROM mq.in_flight WHERE queue = 'leased'; SELECT mq.cancel('scheduled', id) FROM mq.scheduled");
ok(queue_gone($_), "unused now: $_") for 'unread', 'ready', 'leased', 'scheduled', 'paused', 'viewed', 'sent';

# it drops the queue: only the owner may say so
one($node, "CREATE ROLE manager; CREATE ROLE boss; SELECT mq.create_queue('r', options => '{\"owner\": \"boss\"}'); SELECT mq.grant('r', 'manage', 'manager')");
is(sqlstate($node, q{SET ROLE manager; SELECT mq.alter_queue('r', '{"retention": "1 h"}')}), '', 'a manager may change other options');
is(sqlstate($node, "SET ROLE manager; SELECT mq.alter_queue('r', '$_')"), '42501', "not this one: $_") for '{"expires_after": "1 s"}', '{"expires_after": null}', '{"reset": ["expires_after"]}';
is(sqlstate($node, q{SET ROLE manager; SELECT mq.alter_group('r', 'default', '{"expires_after": "1 h"}')}), '', 'that of a group, whom he may drop');
is(sqlstate($node, q{SET ROLE boss; SELECT mq.alter_queue('r', '{"expires_after": "1 h"}')}), '', 'the owner may');
is(sqlstate($node, "SELECT mq.alter_queue('r', '{\"expires_after\": \"$_\"}')"), '22023', "expires_after $_") for '0', '0.9 s', '-1 s', '366 days';
is(one($node, "SELECT expires_after FROM mq.queues WHERE queue = 'r'"), '01:00:00', 'shown');
$node->stop;
done_testing();
