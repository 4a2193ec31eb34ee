# Messages that have moved are found by the id that mq.send returned, as long as they are there; what is known of them is forgotten
# with them.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('moved', conf => "mq.drop_delay = 0\nautovacuum = off\n");
my $points = mq_stop_points($node);

sub scheduled { my ($q) = @_; return one($node, "SELECT scheduled FROM mq.queues WHERE queue = '$q'"); }
sub pages { my ($n) = @_; return one($node, "SELECT coalesce(sum(pg_relation_size(oid)), 0) FROM pg_class WHERE relname ~ '^moved_$n\$'"); }

one($node, "SELECT mq.create_queue('m', groups => '{a,b}')");
my @ids = split /,/, one($node, "SELECT array_to_string(mq.send_batch('m', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 600) i), delays => (SELECT array_agg(make_interval(secs => 1 + (i * 7919 % 600) / 1000.0)) FROM generate_series(1, 600) i)), ',')");
one($node, "SELECT mq.send('m', '\"plain\"')");
poll_until('all to be moved', sub { scheduled('m') eq '0' });
is(one($node, "SELECT mq.cancel('m', $ids[7])"), 'f', 'what was moved cannot be cancelled any more');
is(one($node, "SELECT mq.discard('m', 'a', array[$ids[7], $ids[599], $ids[0]])"), '3', 'but discarded, by the id that mq.send returned');
is(one($node, "BEGIN; SELECT mq.discard('m', 'a', array[$ids[9]]); ROLLBACK"), '1', 'and a discard can be undone');
is(one($node, "SELECT string_agg(i::text, ',' ORDER BY i) FROM generate_series(1, 600) i WHERE i NOT IN (SELECT payload::text::int FROM mq.pop('m', 'a', max_messages => 1000) WHERE payload <> '\"plain\"')"), '1,8,600', 'those and no others are gone for that group');
is(one($node, "SELECT count(*) FROM mq.receive('m', 'b', max_messages => 1000)"), '601', 'the other group gets all');
my $place = one($node, "SELECT id FROM mq.browse('m', 'b', states => '{leased}', max_messages => 1000) WHERE origin_id = $ids[3]");
isnt($place, $ids[3], 'mq.browse shows both ids');
is(one($node, "SELECT mq.discard('m', 'b', array[$place])"), '1', 'its place names a message too');
is(sqlstate($node, "SELECT mq.discard('m', 'b', array[$ids[5], (SELECT id FROM mq.browse('m', 'b', states => '{leased}', max_messages => 1000) WHERE origin_id = $ids[5])])"), '22023', 'both ids of one message are one given twice');

# a crash keeps what was committed, and forgets what was not
$node->kill9;
mq_start_again($node);
is(one($node, "SELECT mq.discard('m', 'b', array[$ids[3], $ids[4]])"), '1', 'after a crash they are found: one is gone, the other is there');

# wrong rows are no messages, and no crash
one($node, "INSERT INTO mq_internal.moved_3 VALUES (1, 0, 5, '{}'), (1, 0, 5, '{1}'), (1, 0, 5, '{{1,2},{3,4}}'), (1, 0, 5, array[$ids[4], null]::bigint[]), (1, 0, 5, array[$ids[4], -7])");
is(one($node, "SELECT mq.discard('m', 'b', array[$ids[4], $ids[6]])"), '1', 'what mq has not written is passed over');
one($node, "TRUNCATE mq_internal.moved_3");

# dump and restore carries it
{
	my $dir = PostgreSQL::Test::Utils::tempdir;
	$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", '-d', $node->connstr('postgres') ], 'pg_dump');
	one($node, "CREATE DATABASE restored");
	$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), "$dir/dump" ], 'pg_restore');
	is(one($node, "SELECT mq.discard('m', 'b', array[$ids[10], $ids[11]])", 'restored'), '2', 'a restored database knows it');
}

# many: the next table is taken, and the first is emptied when its messages are gone
my $many = 1_300_000;
one($node, "SELECT mq.create_queue('many', options => '{\"segment_size\": 65536}')");
one($node, "CREATE PROCEDURE t.many(n int) LANGUAGE plpgsql AS \$\$ BEGIN FOR i IN 1 .. n / 10000 LOOP PERFORM mq.send_batch('many', array_fill('1'::jsonb, array[10000]), delays => '{1 ms}'); COMMIT; END LOOP; END \$\$");
one($node, "CALL t.many($many)");
ok(poll_until('all to be moved', sub { scheduled('many') eq '0' }), 'many are moved');
cmp_ok(pages(0), '>', 16 * 1024 * 1024, 'the first table is large');
# they are taken in turn when the worker has looked
ok(poll_until('the next table', sub { one($node, "SELECT mq.send('many', '1', delay => '1 ms')"); pages(1) > 0 }), 'rows go to the next one');
is(one($node, "SELECT mq.discard('m', 'b', array[$ids[12]])"), '1', 'the first is asked still');
one($node, "SELECT mq.purge('many'), mq.purge('m')");
one($node, "SELECT mq.drop_queue('m', force => true)");
ok(poll_until('the first table to be emptied', sub { one($node, "SELECT mq.send('many', '1', delay => '1 ms')"); one($node, "SELECT mq.purge('many')"); pages(0) eq '0' }),
	'it is emptied when all its messages are gone');
done_testing();
