# CALL mq.wait, then a receive that has nothing, and that again and again: what is ready may not be for this client (its consumer is at
# the limit, the window has its share of the memory). It does not spin: the third wait for the same message sleeps, until there is room.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;
$SIG{__DIE__} = sub { diag(@_) if !$^S; };

my $node = mq_node('vain', conf => "mq.shared_memory = '1MB'\nmq.visibility_timeout = '10 min'\nfsync = off\nsynchronous_commit = off\n");
my $w = session($node);

# What a worker does. Says how often it was told of a message in vain.
one($node, <<'SQL');
CREATE PROCEDURE work(q text, name text) LANGUAGE plpgsql AS $$
DECLARE m mq.message; vain int := 0;
BEGIN
	LOOP
		CALL mq.wait(q, timeout => '60 s');
		SELECT * INTO m FROM mq.receive(q, max_messages => 1, consumer => name);
		COMMIT;
		EXIT WHEN m.id IS NOT NULL OR vain > 20000;
		vain := vain + 1;
	END LOOP;
	RAISE WARNING 'had % after % times', m.id, vain;
END $$;
SQL

sub sleeps
{
	my ($s) = @_;
	my $sleeps = 0;
	poll_until('it to sleep, or to end', sub {
		$sleeps = one($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = " . $s->pid . " AND state = 'active' AND wait_event_type = 'Extension'");
		return $sleeps || $s->is_done;
	});
	return $sleeps;
}

sub works
{
	my ($what, $q, $name, $make_room) = @_;
	$w->start("CALL work('$q', " . ($name ? "'$name'" : 'NULL') . ')');
	ok(sleeps($w), "$what: sleeps");
	$make_room->();
	is(($w->finish(60))[0], '', "$what: ends when there is room");
	my ($had, $vain) = $w->{last_err} =~ /had (\d+) after (\d+) times/;
	ok($had, "$what: with a message");
	cmp_ok($vain, '<', 100, "$what: having been told a few times, not all the time");
	return;
}

# --- the consumer is at its limit ----------------------------------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('c', groups => '{}'); SELECT mq.create_group('c', 'default', options => jsonb_build_object('max_in_flight_per_consumer', 1))");
one($node, "SELECT mq.send('c', to_jsonb(i)) FROM generate_series(1, 3) i");
my $held = one($node, "SELECT receipt FROM mq.receive('c', max_messages => 1, consumer => 'me')");
works('the limit of a consumer', 'c', 'me', sub { one($node, "SELECT mq.ack('$held'::uuid)") });
is(one($node, "CALL mq.wait('c', timeout => '60 s'); SELECT count(*) FROM mq.receive('c', max_messages => 1, consumer => 'other')"), '1', 'who may have it has it');

# --- the group is at its limit: room is told, not looked for -----------------------------------------------------------------------------
if (mq_stop_points($node))
{
	one($node, 'ALTER SYSTEM SET mq.wake_sweep = off');
	one($node, 'SELECT pg_reload_conf()');
	poll_until('the setting to be read', sub { one($node, 'SHOW mq.wake_sweep') eq 'off' });
}
one($node, "SELECT mq.create_queue('g', groups => '{}'); SELECT mq.create_group('g', 'default', options => jsonb_build_object('max_in_flight', 1))");
one($node, "SELECT mq.send('g', to_jsonb(i)) FROM generate_series(1, 3) i");
$held = one($node, "SELECT receipt FROM mq.receive('g')");
works('the limit of a group', 'g', undef, sub { one($node, "SELECT mq.ack('$held'::uuid)") });
one($node, 'ALTER SYSTEM RESET mq.wake_sweep') if mq_stop_points($node);
one($node, 'SELECT pg_reload_conf()');

# --- the window has its share of the memory -----------------------------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('m'); SELECT count(*) FROM mq.send_batch('m', ARRAY(SELECT '1'::jsonb FROM generate_series(1, 12000)))");
my $n = one($node, <<'SQL');
CREATE TABLE held (r uuid);
DO $$ DECLARE r uuid; BEGIN LOOP SELECT receipt INTO r FROM mq.receive('m'); EXIT WHEN r IS NULL; INSERT INTO held VALUES (r); END LOOP; END $$;
SELECT count(*) FROM held;
SQL
cmp_ok($n, '<', 12000, "held back after $n messages, one by one");
works('memory', 'm', undef, sub { one($node, 'SELECT count(mq.ack(r)) FROM held') });

# --- the same message again, though it was handed out: that is not in vain ----------------------------------------------------------------
one($node, "SELECT mq.create_queue('f'); SELECT mq.send('f', '1')");
$w->q("CALL mq.wait('f', timeout => '60 s'); SELECT mq.nack(receipt) FROM mq.receive('f')");
$w->start("CALL mq.wait('f', timeout => '60 s')");
is(($w->finish(20))[0], '', 'a message that has failed once is told of again');

$w->close;
$node->stop;
done_testing();
