# Maintenance on a queue's table that comes without a pause: a sender that needs the next segment gets it all the same.
# Maintenance that waits for a sender who waits for a segment: one of them is told at once.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IPC::Run ();
use Time::HiRes qw(time);
use Test::More;
use MqTest;

my $node = mq_node('starve', conf => "autovacuum = off\nmq.segment_wait = '15 s'\n");

# Two sessions that do this one after the other: while one of them has the lock the other stands in line for it, so nobody
# ever gets it who does not stand in line.
sub maintain
{
	my ($sql) = @_;
	my $file = $node->basedir . '/maintain.sql';
	open my $f, '>', $file or die $!;
	print $f "$sql;\n";
	close $f;
	local %ENV = $node->_get_env();
	my ($out, $err) = ('', '');
	my $h = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', $MqTest::TIMEOUT, '-f', $file, 'postgres' ], '<', \'', '>', \$out, '2>', \$err);
	return { run => $h, err => \$err };
}

sub rest { my ($m) = @_; $m->{run}->kill_kill(grace => 1); }

my $n = 0;
foreach my $sql ("VACUUM %t", "VACUUM (ANALYZE) %t", "BEGIN; LOCK TABLE %t IN SHARE UPDATE EXCLUSIVE MODE; SELECT pg_sleep(0.1); COMMIT")
{
	my $q = 'starve' . ++$n;
	(my $do = $sql) =~ s/%t/mq.q_$q/;
	one($node, "SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', 1024))");
	my $m = maintain($do);
	my $s = session($node);
	my $start = time();
	my $state = '';
	for my $i (1 .. 12)
	{
		$state = $s->try("SELECT t.put_batch('$q', 'm$i', 1024)");
		last if $state ne '';
	}
	is($state, '', sprintf("$do: segments are made (%.1f s)", time() - $start));
	diag($s->{last_err}) if $state ne '';
	rest($m);
	$s->close;
	ledger_ok($node, $q, "$do: ledger");
}

# One full segment of a sender after the other, with the next ones made before it gets there.
{
	one($node, "SELECT mq.create_queue('ahead', options => jsonb_build_object('segment_size', 1024))");
	my $s = session($node);
	for my $i (1 .. 6)
	{
		$s->q("SELECT t.put_batch('ahead', 'm$i', 1024)");
		ok(poll_until('segments ahead', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'ahead' AND first_id >= (SELECT next_id FROM mq.queues WHERE queue = 'ahead')") >= 2 }),
			"after $i full segments two are ahead");
	}
	$s->close;
}

# Whoever locks the whole queue has the parent (or waits for it, if the sender has read it) and waits for the sender's transaction, which needs a segment that the worker
# cannot make meanwhile. That is a deadlock, and seen as one; everybody else goes on.
foreach my $sql ('LOCK TABLE %t IN SHARE MODE', 'LOCK TABLE %t IN ACCESS EXCLUSIVE MODE', 'REINDEX TABLE %t', "SELECT mq.drop_queue('%q', force => true)")
{
	my $q = 'circle' . ++$n;
	(my $do = $sql) =~ s/%t/mq.q_$q/;
	$do =~ s/%q/$q/;
	one($node, "SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', 1024))");
	my ($s, $m, $o) = map { session($node) } 1 .. 3;
	$s->q("SET deadlock_timeout = '100 ms'; BEGIN; SELECT t.put_batch('$q', 'a', 500)");
	$s->q("SELECT count(*) FROM mq.q_$q") if $do =~ /ACCESS EXCLUSIVE/;
	$m->start("BEGIN; $do; COMMIT") if $do !~ /REINDEX/;
	$m->start($do) if $do =~ /REINDEX/;
	ok(poll_until("$do to wait", sub { $m->waits_on_lock($node) }), "$do: waits for the sender");
	my $start = time();
	is($s->try("SELECT t.put_batch('$q', 'b', 20000)"), '40P01', sprintf("$do: a sender that needs more segments is told of a deadlock (%.1f s)", time() - $start));
	like($s->{last_err}, qr/DETAIL:  It cannot be made while process $m->{pid} has or awaits a lock/, "$do: and by whom");
	$s->q('ROLLBACK');
	is(($m->finish)[0], '', "$do: goes on");
	if ($do !~ /drop/)
	{
		is($o->try("SELECT t.put_batch('$q', 'c', 5000)"), '', "$do: others, too");
		ledger_ok($node, $q, "$do: ledger");
	}
	$_->close for $s, $m, $o;
}

# Who holds the sender up no more than that, and is held up by it, makes no circle.
{
	one($node, "SELECT mq.create_queue('line', options => jsonb_build_object('segment_size', 1024)); CREATE TABLE t.other (n int); INSERT INTO t.other VALUES (1)");
	my ($s, $m) = map { session($node) } 1 .. 2;
	$s->q("SET deadlock_timeout = '100 ms'; BEGIN; UPDATE t.other SET n = 2");
	$m->q('BEGIN; LOCK TABLE mq.q_line IN ROW SHARE MODE');
	$m->start('UPDATE t.other SET n = 3');
	ok(poll_until('the other to wait', sub { $m->waits_on_lock($node) }), 'a session with a weak lock on the table waits for the sender');
	is($s->try("SELECT t.put_batch('line', 'a', 20000)"), '', 'who gets its segments');
	$s->q('COMMIT');
	$m->finish;
	$m->q('COMMIT');
	$_->close for $s, $m;
	ledger_ok($node, 'line', 'a weak lock: ledger');
}

$node->stop;
done_testing();
