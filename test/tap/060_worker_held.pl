# What a tenant locks is its own trouble: the worker goes on for the others. (A wait of the worker for each of the queues that
# somebody has locked would stop it for everybody.)
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time);
use MqTest;

my $n = 25;
my $node = mq_node('worker_held', conf => "mq.drop_delay = 0\nmq.segment_wait = '3s'\nmax_locks_per_transaction = 512\n");
one($node, "CREATE ROLE $_ LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO $_") for qw(mallory alice);
my $m = session($node, user => 'mallory');
my $h = session($node, user => 'mallory');		# holds the locks
my $a = session($node, user => 'alice');

# two segments are made ahead: more than that needs the worker
sub alice_goes_on
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($q, $what) = @_;
	$a->q("SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', 1024))");
	my $start = time();
	my $failed = 0;
	$failed += $a->try("SELECT count(*) FROM mq.send_batch('$q', array_fill('1'::jsonb, ARRAY[1024]))") ne '' for 1 .. 8;
	is($failed, 0, sprintf("$what: others get their segments (%.1f s)", time() - $start));
	# and what they have finished goes
	$a->q("SELECT count(*) FROM mq.pop('$q', max_messages => 10000)");
	ok(poll_until('old segments to go', sub { one($node, "SELECT min(first_id) >= 6 * 1024 FROM mq.segments WHERE queue = '$q'") eq 't' }, 20), "$what: and their finished ones go");
	return;
}

sub lock_all
{
	my ($also) = @_;
	$h->q("BEGIN; DO \$\$ BEGIN FOR i IN 1 .. $n LOOP EXECUTE format('LOCK TABLE mq.q_n%s IN ACCESS EXCLUSIVE MODE', i); $also END LOOP; END \$\$");
	return;
}

# --- queues that notify: there is something to look for that cannot be read ----------------------------------------------------------
$m->q("SELECT count(mq.create_queue('n' || i, options => jsonb_build_object('segment_size', 1024, 'notify_interval', '10 ms'))) FROM generate_series(1, $n) i");
alice_goes_on('v0', 'in peace');
lock_all("PERFORM mq.send('n' || i, '1');");
alice_goes_on('v1', 'locked queues that notify');
$h->q('ROLLBACK');

# --- the same without notifying: a group that has finished all has to look past the end of a segment that cannot be read ---------------
$m->q("SELECT count(mq.alter_queue('n' || i, jsonb_build_object('reset', jsonb_build_array('notify_interval')))) FROM generate_series(1, $n) i");
$m->q("SELECT count(*) FROM generate_series(1, $n) i, LATERAL mq.pop('n' || i, max_messages => 100000)");
lock_all("PERFORM mq.send_batch('n' || i, array_fill('1'::jsonb, ARRAY[1100]));");
alice_goes_on('v2', 'locked queues without notifying');
$h->q('ROLLBACK');

# --- senders that wait for a segment of a queue whose table is locked, in a way that lets them send ------------------------------------
{
	my @senders = map { session($node, user => 'mallory') } 1 .. 8;
	$h->q("BEGIN; DO \$\$ BEGIN FOR i IN 1 .. $n LOOP EXECUTE format('LOCK TABLE ONLY mq.q_n%s IN SHARE UPDATE EXCLUSIVE MODE', i); END LOOP; END \$\$");
	my $i = 0;
	$_->start('SELECT mq.send_batch(\'n' . ++$i . '\', array_fill(\'1\'::jsonb, ARRAY[10000])) LIMIT 1') for @senders;
	ok(poll_until('them to wait', sub { one($node, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'mallory' AND wait_event_type = 'Extension' AND query ~ 'send_batch'") >= 8 }), 'senders wait for segments of locked queues');
	alice_goes_on('v3', 'senders that wait for segments of locked queues');
	$_->finish for @senders;
	$h->q('ROLLBACK');
	is($m->try("SELECT count(mq.send_batch('n1', array_fill('1'::jsonb, ARRAY[5000])))"), '', 'a queue that is not locked any more gets its segments');
	$_->close for @senders;
}

$_->close for $m, $h, $a;
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
