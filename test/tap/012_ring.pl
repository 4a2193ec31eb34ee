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

# no checkpoint can be committed: then nothing may be emptied, however often the ring moves on
one($node, "SELECT mq.create_queue('w'); ALTER SYSTEM SET mq.stop_point = 'checkpoint_written:error'; SELECT pg_reload_conf()");
one($node, "SELECT t.put('w', 'm', 60000)");
$node->pgbench('-n -c 4 -j 2 -T 6', 0, [qr/processed/], [qr/^$/], 'single pops without checkpoints', { '012_pop_w' => "SELECT t.pop('w', 1);\n" });
cmp_ok(one($node, "SELECT count(*) FROM (SELECT 1 FROM mq.consumer_offset_0 LIMIT 1) a") + one($node, "SELECT count(*) FROM (SELECT 1 FROM mq.consumer_offset_1 LIMIT 1) a")
	+ one($node, "SELECT count(*) FROM (SELECT 1 FROM mq.consumer_offset_2 LIMIT 1) a") + one($node, "SELECT count(*) FROM (SELECT 1 FROM mq.consumer_offset_3 LIMIT 1) a"), '>', 2,
	'the ring moved on and kept its rows');
$node->kill9;
mq_start_again($node);
one($node, "ALTER SYSTEM RESET mq.stop_point; SELECT pg_reload_conf()");
ledger_ok($node, 'w', 'the ledger without checkpoints');
$node->stop;
done_testing();
