# What a review of the final surface found: a queue with more segments than there are locks, a group dropped under a browse, rights
# and limits that were asked before a wait.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('review', conf => "max_connections = 20\nmax_prepared_transactions = 0\nmax_locks_per_transaction = 10\nfsync = off\nmq.max_groups_per_role = 5\nmq.drop_delay = 3600\n");

# --- more segments than locks: they are looked at after a start all the same ------------------------------------------------------
one($node, q{SELECT mq.create_queue('m', options => '{"segment_size": 1024}'), mq.create_queue('z')});
one($node, "SELECT mq.send('z', '1')");
one($node, "SELECT count(*) FROM mq.send_batch('m', array_fill('1'::jsonb, array[1000]))") for 1 .. 400;
cmp_ok(one($node, "SELECT segments FROM mq.queues WHERE queue = 'm'"), '>', 380, 'a queue with many segments');
for my $how (qw(fast immediate))
{
	$node->stop($how);
	$node->start;
	is(one($node, "SELECT count(*), count(next_id) FROM mq.queues"), '2|2', "$how: mq.queues knows all");
	is(one($node, "SELECT count(*), count(unread_at_most) FROM mq.groups"), '2|2', "$how: mq.groups too");
	is(one($node, "SELECT count(*) FROM mq.in_flight"), '0', "$how: and mq.in_flight");
}
is(one($node, "SELECT count(*) FROM mq.receive('z')"), '1', 'messages come');

# --- a group that is dropped while somebody browses it -----------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('b', groups => '{g}')");
	one($node, "SELECT count(*) FROM mq.send_batch('b', array_fill('1'::jsonb, array[40000]))");
	# many entries, so that the browse takes several looks; it is held up at a row that it may not read on
	one($node, "SELECT mq.discard('b', 'g', array(SELECT i FROM generate_series(1, 39999, 2) i))");
	my $s = session($node);
	$s->start("SELECT count(*) FROM mq.browse('b', 'g', states => '{ready}', max_messages => 1000000)");
	one($node, "SELECT mq.drop_group('b', 'g', force => true)");
	my ($state) = $s->finish(60);
	like($state, qr/^(|42704)$/, 'the browse comes to an end');
	$s->close;
}

# --- create_group asks for the right and the limit when it has waited ---------------------------------------------------------------------
{
	one($node, "CREATE ROLE a LOGIN NOINHERIT; CREATE ROLE b LOGIN; GRANT b TO a; GRANT EXECUTE ON FUNCTION mq.create_queue TO a, b");
	one($node, "SET ROLE b; SELECT mq.create_queue('bq', groups => '{1,2,3,4}')");
	one($node, "SET ROLE a; SELECT mq.create_queue('aq', groups => '{1}')");
	my $owner = session($node, user => 'a');
	my $maker = session($node, user => 'a');
	$owner->q(q{BEGIN; SELECT mq.alter_queue('aq', '{"owner": "b"}')});
	$maker->start("SELECT mq.create_group('aq', 'late')");
	poll_until('it to wait', sub { $maker->waits_on_lock($node) });
	$owner->q('COMMIT');
	is(($maker->finish)[0], '42501', 'who is not the owner any more makes no group');
	is(one($node, "SELECT count(*) FROM mq.groups WHERE queue = 'aq'"), '1', 'and none is there');
	$_->close for $owner, $maker;
}

# --- what belongs to a superuser is not limited --------------------------------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('su', groups => '{1,2,3,4,5,6}'); SELECT mq.grant('su', 'manage', 'a')");
is(sqlstate($node, "SET ROLE a; SELECT mq.create_group('su', 'more')"), '', 'a group in the queue of a superuser');
$node->stop;
done_testing();
