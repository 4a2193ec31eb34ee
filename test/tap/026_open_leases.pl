# A lease whose transaction is still open: its end is shown as it was given, and is kept from the commit on, to the moment;
# what is over then is handed out by that commit, not by a clock. And who holds a message is seen, since when and by which process.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('open_leases', conf => "autovacuum = off\n");
my $watch = session($node);
one($node, "SELECT mq.create_queue('first')");
my $worker = worker_alive($node) or die 'no worker';

# with the worker stopped nothing but the consumers themselves moves a message
sub without_worker
{
	my ($code) = @_;
	kill 'STOP', $worker;
	eval { $code->(); 1 } or diag($@);
	kill 'CONT', $worker;
	return;
}

sub past { my ($time) = @_; return poll_until("$time to be past", sub { one($node, "SELECT clock_timestamp() > '$time'") eq 't' }); }

my $number = 0;
sub queue
{
	my $q = 'q' . ++$number;
	one($node, "SELECT mq.create_queue('$q'); SELECT mq.send('$q', to_jsonb(i)) FROM generate_series(1, 3) i");
	return $q;
}

# --- what is shown, while it is open and after -----------------------------------------------------------------------------
for my $end ('COMMIT', 'ROLLBACK', "PREPARE TRANSACTION 'p'")
{
	my $q = queue();
	my $holder = session($node);
	my $before = one($node, 'SELECT clock_timestamp()');
	my ($until, $receipt) = split /\|/, $holder->q("BEGIN; SELECT lease_until, receipt FROM mq.receive('$q', max_messages => 1, consumer => 'me', visibility_timeout => '300 ms')");
	$holder->q('SELECT txid_current()') if $end =~ /PREPARE/;
	without_worker(sub {
		ok(past($until), "$end: the lease is past its end, its transaction open");
		# each look may try to end it
		for (1 .. 5)
		{
			$watch->q("SELECT count(*) FROM mq.receive('$q', max_messages => 10, visibility_timeout => '1 ms')");
			one($node, 'SELECT pg_sleep(0.06)');
		}
		is($watch->q("SELECT lease_until FROM mq.in_flight WHERE queue = '$q' AND consumer = 'me'"), $until, "$end: lease_until stays in mq.in_flight");
		is($watch->q("SELECT lease_until FROM mq.browse('$q', states => '{leased}') WHERE consumer = 'me'"), $until, "$end: and in mq.browse");
		is($watch->q("SELECT pid FROM mq.in_flight WHERE queue = '$q' AND consumer = 'me'"), $holder->pid, "$end: with the process that has it");
		is($watch->q("SELECT leased_at BETWEEN '$before' AND lease_until - interval '300 ms' FROM mq.in_flight WHERE queue = '$q' AND consumer = 'me'"), 't', "$end: and since when");

		# a receiver waits for it; nobody tells it but the end of that transaction
		poll_until('the others to be finished, whenever they are due', sub {
			$watch->q("SELECT mq.ack(receipt) FROM mq.receive('$q', max_messages => 10)");
			return $watch->q("SELECT string_agg(id::text, ' ') FROM mq.browse('$q')") eq '1';
		});
		my $waiter = session($node);
		$waiter->start("SELECT id, attempt, failures FROM mq.receive('$q', max_messages => 1, wait => '60 s', visibility_timeout => '1 h')");
		ok(poll_until('the receiver in line', sub { one($node, "SELECT waiting FROM mq.groups WHERE queue = '$q'") eq '1' }), "$end: a receiver waits");
		$holder->q($end);
		is($watch->try("SELECT mq.ack('$receipt'::uuid)"), 'MQ001', "$end: a late ack is refused at once");
		is(($waiter->finish(20))[1], '1|2|1', "$end: the message is handed out at once, a failure counted");
		is($watch->q("SELECT coalesce(pid::text, 'none') FROM mq.in_flight WHERE queue = '$q' AND attempt = 2"), 'none', "$end: and then belongs to no process");
		$waiter->close;
	});
	one($node, "ROLLBACK PREPARED 'p'") if $end =~ /PREPARE/;
	$holder->close;
}

# --- nobody has looked meanwhile: refused all the same ---------------------------------------------------------------------------
{
	my $q = queue();
	my $holder = session($node);
	without_worker(sub {
		my ($until, $receipt) = split /\|/, $holder->q("BEGIN; SELECT lease_until, receipt FROM mq.receive('$q', max_messages => 1, visibility_timeout => '100 ms')");
		past($until);
		$holder->q("SELECT mq.extend('$receipt'::uuid, '1 ms'); SELECT pg_sleep(0.005); SAVEPOINT a; SELECT mq.ack('$receipt'::uuid); ROLLBACK TO a");
		$holder->q('COMMIT');
		is($holder->try("SELECT mq.ack('$receipt'::uuid)"), 'MQ001', 'refused after the commit');
		is($watch->q("SELECT attempt FROM mq.receive('$q', max_messages => 1)"), '2', 'handed out again');
	});
	$holder->close;
}

# --- longer again by extend, in the open transaction: it holds on after the commit -----------------------------------------------
{
	my $q = queue();
	my $holder = session($node);
	my ($until, $receipt) = split /\|/, $holder->q("BEGIN; SELECT lease_until, receipt FROM mq.receive('$q', max_messages => 1, visibility_timeout => '50 ms')");
	past($until);
	$watch->q("SELECT count(*) FROM mq.receive('$q', max_messages => 1, visibility_timeout => '1 ms')");
	$holder->q("SELECT mq.extend('$receipt'::uuid, '1 h'); COMMIT");
	is($watch->q("SELECT lease_until > clock_timestamp() + interval '59 min' AND pid IS NULL AND leased_at < '$until' FROM mq.in_flight WHERE queue = '$q' AND id = 1"), 't', 'extended in time: the lease goes on, leased_at stays');
	is($holder->try("SELECT mq.ack('$receipt'::uuid)"), '', 'and the ack is taken');
	$holder->close;
}

# --- who acked, while that is undecided ----------------------------------------------------------------------------------------------
{
	my $q = queue();
	my $acker = session($node);
	$acker->q("BEGIN; SELECT mq.ack(receipt) FROM mq.receive('$q', max_messages => 1)");
	is($watch->q("SELECT state || ' ' || pid FROM mq.in_flight WHERE queue = '$q'"), 'settling ' . $acker->pid, 'who acked is seen too');
	$acker->q("PREPARE TRANSACTION 'p'");
	is($watch->q("SELECT state || ' ' || coalesce(pid::text, 'nobody') FROM mq.in_flight WHERE queue = '$q'"), 'settling nobody', 'a prepared transaction has no process');
	one($node, "COMMIT PREPARED 'p'");
	$acker->close;
}

# --- leased_at of one that waited is when it got the message ----------------------------------------------------------------------
{
	my $q = 'late';
	one($node, "SELECT mq.create_queue('$q')");
	my $waiter = session($node);
	$waiter->start("BEGIN; SELECT lease_until FROM mq.receive('$q', max_messages => 1, wait => '60 s', visibility_timeout => '1 h')");
	ok(poll_until('the receiver in line', sub { one($node, "SELECT waiting FROM mq.groups WHERE queue = '$q'") eq '1' }), 'a receiver waits');
	my $now = one($node, "SELECT pg_sleep(0.1); SELECT clock_timestamp()");
	$now =~ s/^\n//;
	one($node, "SELECT mq.send('$q', '1')");
	my $until = ($waiter->finish)[1];
	is($watch->q("SELECT leased_at > '$now' AND lease_until = '$until' AND lease_until - leased_at BETWEEN interval '1 h' AND interval '1 h 1 s' FROM mq.in_flight WHERE queue = '$q'"), 't', 'leased_at is when it got it');
	$waiter->q('ROLLBACK');
	$waiter->close;
}

# --- the query of doc/operations.md finds who only received, and has no xid -------------------------------------------------------
{
	my $q = queue();
	my $holder = session($node);
	$holder->q("BEGIN; SELECT count(*) FROM mq.receive('$q', max_messages => 1, visibility_timeout => '1 h')");
	open my $f, '<', "$FindBin::Bin/../../doc/operations.md" or die $!;
	my $doc = do { local $/; <$f> };
	my ($sql) = $doc =~ /Oldest transactions that keep .*?```sql\n(.*?)```/s;
	like(one($node, $sql), qr/^${\ $holder->pid}\|/m, 'the query of doc/operations.md finds it');
	$holder->q('COMMIT');
	unlike(one($node, $sql), qr/^${\ $holder->pid}\|/m, 'and only while it is open');
	$holder->close;
}

$watch->close;
done_testing();
