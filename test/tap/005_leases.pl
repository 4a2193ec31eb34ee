# Leases: expiry, lost sessions, cancel, time-outs, failure counts, late acks.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('leases');
one($node, "SELECT mq.create_queue('l'); SELECT mq.create_queue('other')");

# one message, fresh: returns nothing; the queue is empty before
my $serial = 0;
sub fresh
{
	# whatever the last case left: leased, waiting for its due time
	one($node, "SELECT mq.discard('l', 'default', (SELECT array_agg(id) FROM mq.q_l)) WHERE EXISTS (SELECT FROM mq.q_l)");
	$serial++;
	one($node, "SELECT mq.send('l', to_jsonb($serial))");
	return;
}

# what a receive shows now: 'payload attempt failures', or ''
sub look { return one($node, "SELECT payload::text || ' ' || attempt || ' ' || failures FROM mq.receive('l', max_messages => 10, visibility_timeout => '1 hour')"); }
sub look_soon { return one($node, "SELECT payload::text || ' ' || attempt || ' ' || failures FROM mq.receive('l', max_messages => 10, wait => '20 s', visibility_timeout => '1 hour')"); }

# --- expiry ----------------------------------------------------------------------------------------------------------
fresh();
my $r = one($node, "SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '400 ms')");
is(look(), '', 'a leased message is not handed out');
my $seen;
ok(poll_until('expiry', sub { ($seen = look()) ne '' }), 'after its lease it is');
like($seen, qr/^$serial 2 /, 'second attempt');
is(sqlstate($node, "SELECT mq.ack('$r')"), 'MQ001', 'the late ack is refused');
is(sqlstate($node, "SELECT mq.extend('$r', '1 min')"), 'MQ001', 'and so is the late extend');
is(sqlstate($node, "SELECT mq.nack('$r')"), 'MQ001', 'nack');
is(sqlstate($node, "SELECT mq.release('$r')"), 'MQ001', 'release');
is(one($node, "SELECT count(*) FROM mq.in_flight WHERE queue = 'l' AND state = 'leased'"), '1', 'none of which disturbed the new holder');

# the lease ends exactly at lease_until, taken or not
fresh();
my $s = session($node);
my ($receipt, $until) = split /\|/, $s->q("SELECT receipt, lease_until FROM mq.receive('l', max_messages => 1, visibility_timeout => '300 ms')");
$s->q("DO \$\$ BEGIN WHILE clock_timestamp() <= '$until' LOOP PERFORM pg_sleep(0.005); END LOOP; END \$\$");
is($s->try("SELECT mq.ack('$receipt')"), 'MQ001', 'an ack after lease_until is refused though nobody took the message');
like(look(), qr/^$serial 2 /, 'and the message comes again');

# lease_until is what was asked for
fresh();
is($s->q("SELECT abs(extract(epoch FROM lease_until - clock_timestamp()) - 7200) < 2 FROM mq.receive('l', max_messages => 1, visibility_timeout => '2 hours')"), 't', 'lease_until is now + visibility_timeout');
fresh();
is($s->q("SET mq.visibility_timeout = '90 s'; SELECT abs(extract(epoch FROM lease_until - clock_timestamp()) - 90) < 2 FROM mq.receive('l', max_messages => 1)"), 't', 'by default mq.visibility_timeout');
$s->q('RESET mq.visibility_timeout');

# extend: longer, shorter
fresh();
$r = one($node, "SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '400 ms')");
one($node, "SELECT mq.extend('$r', '1 hour')");
$s->q("DO \$\$ DECLARE e timestamptz := clock_timestamp() + interval '500 ms'; BEGIN WHILE clock_timestamp() < e LOOP PERFORM pg_sleep(0.01); END LOOP; END \$\$");
is(look(), '', 'an extended lease holds beyond its first end');
one($node, "SELECT mq.extend('$r', '50 ms')");
ok(poll_until('the shorter end', sub { look() ne '' }), 'and may be cut short');

# --- the end of a session ----------------------------------------------------------------------------------------------
fresh();
my $v = session($node);
$v->q("BEGIN; SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
one($node, "SELECT pg_terminate_backend($v->{pid})");
ok(poll_until('the message', sub { ($seen = look()) ne '' }), 'pg_terminate_backend inside the transaction: the message comes back');
is($seen, "$serial 2 0", 'second attempt, no failure');
$v->close;

fresh();
$v = session($node);
$v->q("BEGIN; SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
$v->vanish;
ok(poll_until('the message', sub { ($seen = look()) ne '' }), 'the client vanishes inside its transaction: the message comes back');
like($seen, qr/^$serial 2 /, 'second attempt');

fresh();
$v = session($node);
$v->q("BEGIN");
my $ack = $v->q("SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
$v->q("SELECT mq.ack('$ack')");
$v->vanish;
ok(poll_until('the message', sub { look() ne '' }), 'the client vanishes after an ack it did not commit: the message comes back');

fresh();
$v = session($node);
$r = $v->q("SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
$v->close;
ok(poll_until('session to be gone', sub { one($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $v->{pid}") eq '0' }), 'session closed');
is(look(), '', 'a lease from a committed receive survives its session');
is(sqlstate($node, "SELECT mq.ack('$r')"), '', 'and is acked from another');

fresh();
$v = session($node);
$r = $v->q("SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
one($node, "SELECT pg_terminate_backend($v->{pid})");
ok(poll_until('session to be gone', sub { one($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $v->{pid}") eq '0' }), 'session terminated');
is(look(), '', 'also when the session was terminated');
$v->close;

fresh();
$v = session($node);
$v->q("SET idle_in_transaction_session_timeout = '100 ms'; BEGIN; SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
ok(poll_until('the message', sub { look() ne '' }), 'idle_in_transaction_session_timeout: the message comes back');
$v->close;

# --- cancel: a hand-out, not a failure; time-outs: a failure -----------------------------------------------------------------------
fresh();
$v = session($node);
is($v->try("SET statement_timeout = '100 ms'; SELECT pg_sleep(100) FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')"), '57014', 'statement_timeout after a receive');
is(look(), "$serial 2 1", 'the message is back, a failure');
$v->try("ROLLBACK; RESET statement_timeout");

fresh();
$v->start("SELECT pg_sleep(100) FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
poll_until('the sleep', sub { one($node, "SELECT count(*) FROM mq.in_flight WHERE queue = 'l'") eq '1' });
one($node, "SELECT pg_cancel_backend($v->{pid})");
is(($v->finish)[0], '57014', 'cancelled after a receive');
is(look(), "$serial 2 0", 'the message is back, no failure');

fresh();
$v->q('BEGIN; SAVEPOINT a');
$v->start("SELECT pg_sleep(100) FROM mq.pop('l', max_messages => 1)");
poll_until('the sleep', sub { one($node, "SELECT count(*) FROM mq.in_flight WHERE queue = 'l'") eq '1' });
one($node, "SELECT pg_cancel_backend($v->{pid})");
is(($v->finish)[0], '57014', 'cancelled after a pop inside a savepoint');
$v->q('ROLLBACK TO a');
is(look(), "$serial 2 0", 'the message is back with the savepoint, while the transaction goes on');
$v->q('COMMIT');

# a serialization failure
fresh();
one($node, 'CREATE TABLE hot (x int); INSERT INTO hot VALUES (0)');
$v->q("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
one($node, 'UPDATE hot SET x = 1');
is($v->try('UPDATE hot SET x = 2'), '40001', 'a serialization failure after a receive');
$v->q('ROLLBACK');
is(look(), "$serial 2 0", 'is a hand-out, not a failure');

# cancelled in the middle of a big receive, ack, send: nothing half done
one($node, "SELECT mq.create_queue('big')");
one($node, "SELECT t.put_batch('big', 'm', 60000)");
my $cut = 0;
for my $ms (2, 5, 10, 20, 40, 80, 160)
{
	for my $sql ("SELECT t.take('big', 20000)", "SELECT t.put_batch('big', 'n$ms', 20000)", "SELECT t.pop('big', 20000)")
	{
		$cut++ if $v->try("SET statement_timeout = '$ms ms'; BEGIN; $sql; COMMIT") eq '57014';
		$v->try('ROLLBACK; RESET statement_timeout');
	}
}
cmp_ok($cut, '>', 0, "statement_timeout hit $cut big statements in the middle");
ledger_ok($node, 'big', 'and nothing was lost or done twice');

one($node, q{SELECT mq.alter_group('l', 'default', '{"retry_delays": null}')});

# --- failures --------------------------------------------------------------------------------------------------------------
fresh();
for my $i (1 .. 3) { $v->q("BEGIN; SELECT count(*) FROM mq.receive('l', max_messages => 1, wait => '20 s', visibility_timeout => '1 hour'); ROLLBACK"); }
is(look_soon(), "$serial 4 3", 'three rollbacks: fourth attempt, three failures');

fresh();
is($v->try("BEGIN; SELECT 1 / (attempt - attempt) FROM mq.pop('l', max_messages => 1)"), '22012', 'the consumer fails');
$v->q('ROLLBACK');
is(look(), "$serial 2 1", 'a failure, kept though everything was rolled back');

fresh();
$v->q("DO \$\$ BEGIN FOR i IN 1 .. 5 LOOP BEGIN PERFORM mq.pop('l', max_messages => 1, wait => '20 s'); RAISE EXCEPTION 'poison'; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END \$\$");
is(look_soon(), "$serial 6 5", 'five exception blocks: five failures');

fresh();
for (1 .. 2) { one($node, "SELECT mq.nack(receipt, '0') FROM mq.receive('l')"); one($node, "SELECT mq.release(receipt) FROM mq.receive('l')"); }
is(look(), "$serial 5 2", 'nack counts a failure, release does not');

# nack inside a transaction that rolls back is not undone, and counts once
fresh();
$r = one($node, "SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
$v->q("BEGIN; SELECT mq.nack('$r'); ROLLBACK");
is(look(), "$serial 2 1", 'nack is not undone by rollback');

# received and nacked in the same transaction, which rolls back: one failure, not two
fresh();
$v->q("BEGIN; SELECT mq.nack(receipt) FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour'); ROLLBACK");
is(look(), "$serial 2 1", 'received and nacked in one transaction that rolls back: one failure');
fresh();
$v->q("BEGIN; SELECT mq.release(receipt) FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour'); ROLLBACK");
is(look(), "$serial 2 0", 'received and released in one transaction that rolls back: none');

# nack with a delay
fresh();
one($node, "SELECT mq.nack(receipt, '400 ms') FROM mq.receive('l')");
is(look(), '', 'nacked with a delay: not yet due');
ok(poll_until('due', sub { ($seen = look()) ne '' }), 'then due');
is($seen, "$serial 2 1", 'with its failure');
fresh();
one($node, "SELECT mq.nack(receipt, '1 hour') FROM mq.receive('l')");
one($node, "SELECT mq.send('l', '\"next\"')");
like(look(), qr/^"next" 1 0$/, 'a message nacked far ahead is in nobody\'s way');

# --- fencing ------------------------------------------------------------------------------------------------------------------
fresh();
one($node, "SELECT mq.send('l', '\"b\"'); SELECT mq.send('l', '\"c\"')");
my @r = split /\n/, one($node, "SELECT receipt FROM mq.receive('l', max_messages => 3, visibility_timeout => '1 hour')");
is(sqlstate($node, "SELECT mq.ack('$r[0]')"), '', 'acked');
is(sqlstate($node, "SELECT mq.ack_batch(ARRAY['$r[1]', '$r[0]', '$r[2]']::uuid[])"), 'MQ001', 'the array form refuses when one is lost');
is(one($node, "SELECT leased FROM mq.groups WHERE queue = 'l'"), '2', 'and does nothing');
is(one($node, "SELECT mq.ack_batch(ARRAY['$r[1]', '$r[0]', '$r[2]']::uuid[], strict => false)"), "{$r[0]}", 'not strict: acks the rest and returns the refused');
is(one($node, "SELECT leased + settling FROM mq.groups WHERE queue = 'l'"), '0', 'done');
is(sqlstate($node, "SELECT mq.ack(gen_random_uuid())"), 'MQ001', 'a receipt out of the air');
is(sqlstate($node, "SELECT mq.ack('00000000-0000-0000-0000-000000000000')"), 'MQ001', 'zeros');
is(sqlstate($node, "SELECT mq.ack('ffffffff-ffff-ffff-ffff-ffffffffffff')"), 'MQ001', 'ones');

# every byte of a receipt counts
fresh();
$r = one($node, "SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
my $wrong = 0;
for my $i (0 .. 31)
{
	(my $hex = $r) =~ s/-//g;
	substr($hex, $i, 1) = sprintf '%x', (hex(substr $hex, $i, 1) ^ 1);
	my $state = sqlstate($node, "SELECT mq.ack('$hex'::uuid)");
	if ($state ne 'MQ001') { $wrong++; diag("receipt changed at nibble $i: '$state'"); }
}
is($wrong, 0, 'a receipt with any one bit changed is refused');
is(sqlstate($node, "SELECT mq.ack('$r')"), '', 'the right one is not');

# a dropped and re-created queue
one($node, "SELECT mq.create_queue('re'); SELECT mq.send('re', '1')");
$r = one($node, "SELECT receipt FROM mq.receive('re', max_messages => 1, visibility_timeout => '1 hour')");
one($node, "SELECT mq.drop_queue('re', force => true); SELECT mq.create_queue('re'); SELECT mq.send('re', '1'); SELECT count(*) FROM mq.receive('re', max_messages => 1, visibility_timeout => '1 hour')");
is(sqlstate($node, "SELECT mq.ack('$r')"), 'MQ001', 'a receipt from a dropped and re-created queue');
is(sqlstate($node, "SELECT mq.nack('$r')"), 'MQ001', 'nack too');
is(one($node, "SELECT leased FROM mq.groups WHERE queue = 're'"), '1', 'the new one is undisturbed');

# the same message received twice by turns: only the last receipt counts
fresh();
$r = one($node, "SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
one($node, "SELECT mq.release('$r')");
my $r2 = one($node, "SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
isnt($r, $r2, 'each hand-out has its own receipt');
is(sqlstate($node, "SELECT mq.ack('$r')"), 'MQ001', 'the first receipt is refused');
is(sqlstate($node, "SELECT mq.ack('$r2')"), '', 'the second is not');

# acked, the transaction rolled back: the same receipt acks again
fresh();
$r = one($node, "SELECT receipt FROM mq.receive('l', max_messages => 1, visibility_timeout => '1 hour')");
$v->q("BEGIN; SELECT mq.ack('$r'); ROLLBACK");
is(look(), '', 'an ack rolled back: leased again, not handed out');
is(sqlstate($node, "SELECT mq.ack('$r')"), '', 'and the receipt is good');

# a transaction that receives and acks, then sends, then receives again on the same queue
fresh();
is($v->q("BEGIN; SELECT count(mq.ack(receipt)) FROM mq.receive('l'); SELECT mq.send('l', '\"second\"') IS NOT NULL; SELECT payload FROM mq.pop('l', max_messages => 5); COMMIT"), "1\nt\n\"second\"", 'receive, ack, send, receive in one transaction');
is(look(), '', 'and all of it is done');

$_->close for $s, $v;
$node->stop;
done_testing();
