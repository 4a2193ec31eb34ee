# max_per_second: a token bucket of one second. What is over it is not handed out; who waits gets it in time, without spinning.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('rate', conf => "mq.visibility_timeout = '1 h'\n");
sub rate { my ($q, $rate) = @_; return one($node, "SELECT mq.alter_group('$q', 'default', '{\"max_per_second\": $rate}')"); }
sub receive { my ($q, $n) = @_; return one($node, "SELECT count(*) FROM mq.receive('$q', max_messages => " . ($n || 1000) . ')'); }

# ---------------------------------------------------------------------------------------------------------------------
# the bucket: one second's worth, at least one message

one($node, "SELECT mq.create_queue('q'); SELECT t.put('q', 'm', 200)");
rate('q', 0.001);
is(receive('q'), '1', 'less than one in a second: the first comes');
is(receive('q'), '0', 'and no more');
is(one($node, "SELECT ready + unread_at_most > 0, leased FROM mq.groups WHERE queue = 'q'"), 't|1', 'the rest is there');
rate('q', 'null');
is(receive('q', 10), '10', 'turned off');
rate('q', 0.002);
is(receive('q'), '0', 'turned on again: what was used counts');
$node->restart;
is(receive('q'), '1', 'a restart fills the bucket');
is(receive('q'), '0', 'once');
one($node, "SELECT mq.create_queue('f'); SELECT t.put('f', 'm', 300)");
rate('f', 50);
{
	my $begin = time();
	my $got = receive('f');
	is($got, '50', 'a full bucket is one second');
	$got += receive('f') for 1 .. 20;
	my $took = time() - $begin;
	cmp_ok($got, '<=', 50 + int(50 * $took) + 1, "never more than it fills: $got in $took s");
}
# of one that asks for few the rest stays for others
rate('q', 'null');
one($node, "SELECT mq.create_queue('s'); SELECT t.put('s', 'm', 100)");
rate('s', 10);
is(receive('s', 3), '3', 'three of ten');
cmp_ok(receive('s'), '>=', 7, 'the other seven');
one($node, "SELECT mq.create_queue('p'); SELECT t.put('p', 'm', 100)");
rate('p', 0.01);
is(one($node, "SELECT count(*) FROM mq.pop('p', max_messages => 5)"), '1', 'pop too');

# ---------------------------------------------------------------------------------------------------------------------
# what was not handed out after all does not count; what was rolled back does

one($node, "SELECT mq.create_queue('b'); SELECT mq.send_batch('b', bodies => array_fill(decode(repeat('00', 1000), 'hex'), array[10]))");
rate('b', 0.001);
is(one($node, "SELECT count(*) FROM mq.receive('b', max_messages => 10, max_bytes => 10)"), '1', 'one of them, by size and rate');
one($node, "SELECT mq.create_queue('c'); SELECT mq.send_batch('c', bodies => array_fill(decode(repeat('00', 1000), 'hex'), array[10]))");
rate('c', 4);
{
	my $begin = time();
	is(one($node, "SELECT count(*) FROM mq.receive('c', max_messages => 10, max_bytes => 1500)"), '1', 'the second does not fit');
	cmp_ok(receive('c'), '>=', 3, 'and is left in the bucket');
}
my $old = session($node);
$old->q('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
one($node, "SELECT mq.create_queue('d'); SELECT t.put('d', 'm', 5)");
rate('d', 0.001);
is($old->q("SELECT count(*) FROM mq.receive('d', max_messages => 5)"), '0', 'too new for a snapshot');
is(receive('d'), '1', 'takes nothing from the bucket');
$old->q('COMMIT');
one($node, "SELECT mq.create_queue('e'); SELECT t.put('e', 'm', 5)");
rate('e', 0.001);
one($node, "BEGIN; SELECT mq.pop('e'); ROLLBACK");
is(receive('e'), '0', 'rolled back: it was handed out');

# ---------------------------------------------------------------------------------------------------------------------
# who waits gets them as the bucket fills, one after the other, and sleeps in between

one($node, "SELECT mq.create_queue('w'); SELECT t.put_batch('w', 'm', 1000); CREATE TABLE t.got (n int, at timestamptz)");
rate('w', 20);
one($node, <<'SQL');
CREATE PROCEDURE t.worker(q text, secs float) LANGUAGE plpgsql AS $$
DECLARE until timestamptz := clock_timestamp() + secs * interval '1 s'; n int;
BEGIN
	WHILE clock_timestamp() < until LOOP
		SELECT count(*) INTO n FROM mq.pop(q, wait => '1 s');
		IF n > 0 THEN INSERT INTO t.got VALUES (n, clock_timestamp()); END IF;
		COMMIT;
	END LOOP;
END $$;
-- by mq.wait and pop
CREATE PROCEDURE t.waiter(q text, secs float) LANGUAGE plpgsql AS $$
DECLARE until timestamptz := clock_timestamp() + secs * interval '1 s'; n int;
BEGIN
	WHILE clock_timestamp() < until LOOP
		CALL mq.wait(q, timeout => '1 s');
		SELECT count(*) INTO n FROM mq.pop(q);
		INSERT INTO t.got VALUES (n, clock_timestamp());
		COMMIT;
	END LOOP;
END $$;
SQL
sub switches { my ($pid) = @_; open my $f, '<', "/proc/$pid/status" or return 0; my ($n) = join('', <$f>) =~ /^voluntary_ctxt_switches:\s+(\d+)/m; return $n; }
for my $how ('worker', 'waiter')
{
	one($node, 'TRUNCATE t.got');
	my @s = map { session($node) } 1 .. 6;
	my $before = 0;
	$before += switches($_->pid) for @s;
	my $begin = time();
	$_->start("CALL t.$how('w', 3)") for @s;
	$_->finish for @s;
	my $took = time() - $begin;
	my $n = one($node, 'SELECT sum(n) FROM t.got');
	my $calls = one($node, 'SELECT count(*) FROM t.got');
	my $after = 0;
	$after += switches($_->pid) for @s;
	cmp_ok($n, '<=', 20 + 20 * $took + 1, "$how: no more than the rate: $n in $took s");
	cmp_ok($n, '>=', 0.7 * 20 * 3, "$how: nearly as many");
	cmp_ok($after - $before, '<', 40 * $n, "$how: nobody spins (" . ($after - $before) . " context switches for $n messages, $calls calls)");
	# in each tenth of a second there is room for two
	my $slots = one($node, "SELECT count(DISTINCT floor(extract(epoch FROM at) * 10)) FROM t.got WHERE n > 0");
	cmp_ok($slots, '>=', 15, "$how: evenly, not once a second: in $slots of 30 tenths of a second");
	my $in_vain = one($node, 'SELECT count(*) FROM t.got WHERE n = 0');
	cmp_ok($in_vain, '<=', 3 * 20 * 3, "$how: seldom told in vain: $in_vain");
	$_->close for @s;
}
# one client alone is never told in vain
one($node, 'TRUNCATE t.got');
{
	my $s = session($node);
	$s->q("CALL t.waiter('w', 2)");
	is(one($node, 'SELECT count(*) FROM t.got WHERE n = 0 AND at < (SELECT max(at) FROM t.got)'), '0', 'mq.wait returns when there is room');
	$s->close;
}
# one that has nothing else to wake it: a message comes when the bucket is empty
one($node, "SELECT mq.create_queue('x'); SELECT t.put('x', 'm', 1)");
rate('x', 2);
receive('x');
receive('x');
one($node, "SELECT mq.create_queue('y'); SELECT t.put('y', 'm', 1)");
rate('y', 1);
is(receive('y'), '1', 'the bucket of one is empty');
my $w = session($node);
$w->start("SELECT count(*) FROM mq.receive('y', wait => '50 s')");
ok(poll_until('it to wait', sub { one($node, "SELECT waiting FROM mq.groups WHERE queue = 'y'") eq '1' }), 'a receiver waits');
my $sent = time();
one($node, "SELECT t.put('y', 'n', 1)");
is(join('|', $w->finish), '|1', 'gets the message when there is room again');
cmp_ok(time() - $sent, '<', 20, 'long before its own time is over');
# alter_group wakes who waits
rate('y', 0.001);
one($node, "SELECT t.put('y', 'o', 2)");
receive('y');
$w->start("SELECT count(*) FROM mq.receive('y', wait => '50 s')");
ok(poll_until('it to wait', sub { one($node, "SELECT waiting FROM mq.groups WHERE queue = 'y'") eq '1' }), 'a receiver waits for long');
rate('y', 'null');
is(join('|', $w->finish), '|1', 'the limit is turned off: at once');

# NOTIFY comes when there is room, not before
one($node, q{SELECT mq.create_queue('n', options => '{"notify_interval": "10 ms"}')});
rate('n', 0.5);
one($node, "SELECT t.put('n', 'm', 3)");
receive('n');
my $l = session($node);
$l->q('LISTEN mq_n');
my $note = '';
ok(poll_until('a notification', sub { $note .= $l->q('SELECT 1'); $note =~ /mq_n/ }), 'NOTIFY when there is room again');
is(receive('n'), '1', 'then there is one');
$node->stop;
done_testing();
