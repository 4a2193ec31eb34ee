# What one call takes need not be ascending: what a transaction itself has sent comes last, with whatever ids. Its acks count after a
# crash all the same.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('any_order');

one($node, "SELECT mq.create_queue('q')");
for my $verb ('pop', 'receive and ack')
{
	my $own = session($node);

	$own->q("BEGIN; SELECT mq.send('q', '\"own\"')");
	one($node, "SELECT mq.send_batch('q', '{1,2}'::jsonb[])");
	is($own->q($verb eq 'pop' ? "SELECT string_agg(payload::text, ' ') FROM mq.pop('q', max_messages => 10)"
			: "SELECT string_agg(payload::text, ' ') || left(count(mq.ack(receipt))::text, 0) FROM mq.receive('q', max_messages => 10)"),
		'1 2 "own"', "$verb: its own last, though it was sent first");
	$own->q('COMMIT');
	$own->close;
	$node->stop('immediate');
	$node->start;
	is(one($node, "SELECT count(*) FROM mq.receive('q', max_messages => 10)"), '0', "$verb: all are finished after a crash");
	is(one($node, "SELECT count(*) FROM mq.browse('q', states => '{ready}')"), '0', "$verb: and shown as such");
}
$node->stop;
done_testing();
