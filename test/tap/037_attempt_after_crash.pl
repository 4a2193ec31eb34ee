# After a crash a message that may have been handed out before does not come as if for the first time.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('attempt', conf => "mq.drop_delay = 0\n");

# waits until a checkpoint of the group says that look-ahead has passed `id`
sub checkpointed
{
	my ($id) = @_;
	return ok(poll_until('a checkpoint', sub { one($node, "SELECT coalesce(max(hi), 0) > $id FROM mq_internal.consumer_offset_0 WHERE replay_from >= 0 AND group_no > 0") eq 't' }), "a checkpoint behind message $id");
}

sub crash { $node->kill9; mq_start_again($node); return; }

one($node, "SELECT mq.create_queue('q'); SELECT mq.send_batch('q', array_agg(to_jsonb(i) ORDER BY i)) FROM generate_series(1, 100) i");
one($node, "SELECT count(*) FROM mq.receive('q', max_messages => 100, visibility_timeout => '1 hour')");
one($node, "SELECT mq.send('q', '101')");
# a failure: written down within about a second
one($node, "SELECT mq.nack(receipt, '0') FROM mq.receive('q', max_messages => 1, visibility_timeout => '1 hour')");
checkpointed(101);
crash();
# sent since: nobody has had it
one($node, "SELECT mq.send('q', '\"new\"')");
is(one($node, "SELECT attempt, failures, count(*) FROM mq.receive('q', max_messages => 200, visibility_timeout => '1 hour') GROUP BY 1, 2 ORDER BY 1, 2"), "1|0|1\n2|0|100\n2|1|1",
	'handed out before the crash: attempt 2; sent since: 1');
# the ones before the crash are noted on disk as they are handed out: the next crash counts them
one($node, "SELECT mq.nack(receipt, '0') FROM mq.receive('q', max_messages => 1)");

# scattered acks: bit maps
one($node, "SELECT mq.create_queue('s'); SELECT mq.send_batch('s', array_agg(to_jsonb(i) ORDER BY i)) FROM generate_series(1, 200) i");
one($node, "SELECT mq.ack(receipt) FROM mq.receive('s', max_messages => 200, visibility_timeout => '1 hour') WHERE id % 2 = 0");
one($node, "SELECT mq.send('s', '201')");
one($node, "SELECT mq.nack(receipt, '0') FROM mq.receive('s', max_messages => 1, visibility_timeout => '1 hour')");
ok(poll_until('a checkpoint', sub { one($node, "SELECT count(*) FROM mq_internal.consumer_offset_0 WHERE replay_from >= 0 AND hi = 202") > 0 }), 'a checkpoint');
crash();
is(one($node, "SELECT attempt, failures, count(*) FROM mq.receive('s', max_messages => 300, visibility_timeout => '1 hour') GROUP BY 1, 2 ORDER BY 1, 2"), "2|0|100\n2|1|1", 'scattered ones too');

# an orderly stop is none: leases do not survive it, but nobody was cut off
one($node, "SELECT mq.create_queue('o'); SELECT mq.send('o', '1')");
one($node, "SELECT count(*) FROM mq.receive('o', max_messages => 1, visibility_timeout => '1 hour')");
$node->restart;
is(one($node, "SELECT attempt FROM mq.receive('o')"), '1', 'after an orderly restart: as before');

# a new group of a queue that saw a crash begins with attempt 1
one($node, "SELECT mq.create_group('s', 'fresh', start => 'earliest')");
is(one($node, "SELECT DISTINCT attempt FROM mq.receive('s', consumer_group => 'fresh', max_messages => 300)"), '1', 'another group has had nothing');

$node->stop;
done_testing();
