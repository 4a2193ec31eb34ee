# The clock is set back by an hour, and is right again: nobody sleeps for that hour. The server runs with a clock of its own
# (clock.c).
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time sleep);
use PostgreSQL::Test::Utils;
use MqTest;

use constant HOUR => 3600;
my $dir = PostgreSQL::Test::Utils::tempdir;
system('gcc', '-shared', '-fPIC', '-O1', '-Wall', '-o', "$dir/clock.so", "$FindBin::Bin/clock.c") == 0 or die 'gcc';
sub set_clock
{
	my ($seconds) = @_;
	open my $f, -e "$dir/clock" ? '+<' : '>', "$dir/clock" or die "$dir/clock: $!";
	syswrite $f, pack('q', $seconds * 1_000_000);
	close $f;
	return;
}
set_clock(0);
my $node;
{
	local $ENV{LD_PRELOAD} = "$dir/clock.so";
	local $ENV{MQ_CLOCK} = "$dir/clock";
	$node = mq_node('clock', conf => "mq.drop_delay = 4\nmax_prepared_transactions = 10\n");
}
my $points = mq_stop_points($node);
sub now { return one($node, "SELECT extract(epoch FROM clock_timestamp())"); }
{
	my $was = now();
	set_clock(-HOUR);
	cmp_ok(now(), '<', $was - HOUR / 2, 'the server has a clock of its own');
	set_clock(0);
}
# longer than anything here should take, by the clock on the wall, and much less than an hour
my $PATIENCE = 60;
sub waiting { my ($q) = @_; return poll_until('a receiver that waits', sub { one($node, "SELECT waiting FROM mq.groups WHERE queue = '$q'") > 0 }); }

# --- who waits ----------------------------------------------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('w')");
worker_alive($node);
for my $sql ("SELECT count(*) FROM mq.receive('w', wait => '3 s')", "CALL mq.wait('w', timeout => '3 s')")
{
	my $s = session($node);
	$s->start($sql);
	waiting('w');
	set_clock(-HOUR);
	my ($state) = $s->finish($PATIENCE);
	is($state, '', "$sql ends though the clock was set back meanwhile");
	$s->vanish if $state ne '';
	set_clock(0);
}

# --- a delay that is over when the clock is right again -------------------------------------------------------------------------
if ($points)
{
	# the one who waits has to see it himself
	one($node, 'ALTER SYSTEM SET mq.wake_sweep = off');
	$node->reload;
}
{
	one($node, "SELECT mq.create_queue('d'); SELECT mq.send('d', '{}'); SELECT mq.nack(receipt, '3 s') FROM mq.receive('d')");
	my $s = session($node);
	$s->start("SELECT count(*) FROM mq.receive('d', wait => '60 s')");
	waiting('d');
	set_clock(-HOUR);
	# until it has seen that the time has not come
	sleep(5);
	set_clock(0);
	my ($state, $out) = $s->finish(30);
	is("$state $out", ' 1', 'who waits for a delay sees soon that the clock is right again');
	$s->vanish if $state ne '';
}
one($node, 'ALTER SYSTEM RESET mq.wake_sweep') if $points;
$node->reload;

# --- a sender that waits for a segment ------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('s', options => jsonb_build_object('segment_size', 1024))");
	my $l = session($node);
	$l->q('BEGIN; LOCK TABLE mq.q_s IN SHARE UPDATE EXCLUSIVE MODE');
	my $s = session($node);
	$s->start("SET mq.segment_wait = '3 s'; SELECT t.put_batch('s', 'm', 10000)");
	sleep(1.5);
	set_clock(-HOUR);
	my ($state) = $s->finish($PATIENCE);
	is($state, '55000', 'a sender that waits for a segment gives up in time');
	$s->vanish if $state ne '55000';
	$l->q('ROLLBACK');
	set_clock(0);
}

# --- the worker -----------------------------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('n', options => jsonb_build_object('notify_interval', '200 ms')); SELECT mq.create_queue('x', options => jsonb_build_object('segment_size', 1024))");
	my $l = session($node);
	$l->q('LISTEN mq_n');
	one($node, "SELECT mq.send('n', '{}')");
	my $heard = sub { return poll_until('a notification', sub { $l->q('SELECT 1') =~ /"mq_n"/ }, 20); };
	ok($heard->(), 'a queue notifies');
	# finished segments whose time to go has begun
	one($node, "SELECT t.put_batch('x', 'm', 6000); SELECT t.take('x', 10000)");
	my $kept = one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'x'");
	sleep(2.5);
	one($node, "SELECT mq.send('w', '{}')");
	set_clock(-HOUR);
	sleep(0.5);
	$l->q('SELECT 1');
	ok($heard->(), 'it goes on when the clock is set back');
	one($node, "BEGIN; SELECT mq.pop('w'); PREPARE TRANSACTION 'p'");
	one($node, "COMMIT PREPARED 'p'");
	ok(poll_until('the settling', sub { one($node, "SELECT settling FROM mq.groups WHERE queue = 'w'") eq '0' }, $PATIENCE), 'the worker settles what was prepared');
	ok(poll_until('drops', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'x'") < $kept }, $PATIENCE), 'and drops what is finished');
	set_clock(0);
	$l->q('SELECT 1');
	ok($heard->(), 'and when it is right again');
	$l->close;
}
done_testing();
