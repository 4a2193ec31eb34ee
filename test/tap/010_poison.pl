# A message whose consumer takes the server down with it: after a crash, hand-outs of what was unfinished then are noted
# on disk first, so that the next crash is counted against the message. After an orderly stop nothing is noted.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('poison');


# receives in a session that never commits, and kills the server under it
sub receive_and_crash
{
	my $s = session($node);
	$s->q('BEGIN');
	my $row = $s->q("SELECT payload::text || ' ' || failures FROM mq.receive('p', max_messages => 1, visibility_timeout => '1 hour')");
	$node->kill9;
	$s->close;
	mq_start_again($node);
	return $row;
}

one($node, "SELECT mq.create_queue('p')");
ok(worker_alive($node), 'the worker runs');
ok(poll_until('the start is noted', sub { one($node, "SELECT count(*) FROM mq_internal.consumer_offset_0 WHERE group_no = 0") > 0 }), 'the start is noted in the offset log');
one($node, qq{SELECT mq.send('p', '"poison"')});
one($node, qq{SELECT mq.send('p', '"good"')});

is(receive_and_crash(), '"poison" 0', 'the first crash: nobody could know');
is(receive_and_crash(), '"poison" 0', 'handed out again, noted first, and the server is killed again');
is(receive_and_crash(), '"poison" 1', 'that crash is counted');
is(receive_and_crash(), '"poison" 2', 'and the next');
is(one($node, "SELECT string_agg(payload::text || ' ' || failures, ', ' ORDER BY id) FROM mq.pop('p', max_messages => 10)"), '"poison" 3, "good" 0',
	'the innocent neighbour has no failure');

# messages sent after the crash are not noted
one($node, qq{SELECT mq.send('p', '"later"')});
my $before = one($node, "SELECT count(*) FROM mq_internal.consumer_offset_0 WHERE replay_from = -1");
is(one($node, "SELECT payload FROM mq.receive('p', max_messages => 10, visibility_timeout => '1 hour')"), '"later"', 'a message sent since');
is(one($node, "SELECT count(*) FROM mq_internal.consumer_offset_0 WHERE replay_from = -1"), $before, 'is handed out without a note');

# an orderly stop is no crash
ok(poll_until('the start is noted', sub { one($node, "SELECT hi FROM mq_internal.consumer_offset_0 WHERE group_no = 0 ORDER BY n DESC LIMIT 1") eq '1' }), 'the start is noted');
$node->restart;
is(one($node, "SELECT payload::text || ' ' || failures FROM mq.receive('p', max_messages => 10, visibility_timeout => '1 hour')"), '"later" 0', 'after an orderly restart it is ready again');
is(one($node, "SELECT count(*) FROM mq_internal.consumer_offset_0 WHERE replay_from = -1"), $before, 'and handed out without a note');

$node->stop;
done_testing();
