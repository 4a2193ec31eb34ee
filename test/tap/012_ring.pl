# The offset log moves on and its tables are emptied as fast as can be, and the server is killed again and again: what was
# acked must stay acked, so nothing may be emptied before a committed checkpoint has made it superfluous.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('ring', fsync => 1, conf => <<CONF);
mq.drop_delay = 0
mq.offset_log_size = 64kB
CONF

one($node, "SELECT mq.create_queue('q')");
one($node, "SELECT t.put('q', 'm', 150000)");
for my $round (1 .. 6)
{
	my $before = one($node, "SELECT count(*) FROM t.done");
	$node->pgbench('-n -c 4 -j 2 -T 2', 0, [qr/processed/], [qr/^$/], "single pops, round $round",
		{ "012_pop_$round" => "SELECT t.pop('q', 1);\n" });
	$node->kill9;
	mq_start_again($node);
	cmp_ok(one($node, "SELECT count(*) FROM t.done"), '>', $before, 'messages were popped before the crash');
	is(one($node, "SELECT count(*) FROM (SELECT k FROM t.done GROUP BY k HAVING count(*) > 1) d"), '0', 'none of them twice');
}
ledger_ok($node, 'q', 'the ledger');
$node->stop;
done_testing();
