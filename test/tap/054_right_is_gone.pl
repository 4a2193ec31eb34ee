# A right that was taken is gone: whoever had given it back and forth, whoever waits in a receive, whoever is just making a group.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('rights_kept');
one($node, "CREATE ROLE $_ LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO $_") for qw(alice bob bob2 carol);
my $a = session($node, user => 'alice');
my $b = session($node, user => 'bob');

# --- a grant that comes back to its giver ----------------------------------------------------------------------------------------------
for ([ 'send', 'INSERT' ], [ 'browse', 'SELECT' ], [ 'manage', 'TRUNCATE' ])
{
	my ($right, $privilege) = @$_;
	$a->q("SELECT mq.create_queue('$right'); GRANT $privilege ON mq.q_$right TO bob WITH GRANT OPTION");
	$b->q("GRANT $privilege ON mq.q_$right TO bob2 WITH GRANT OPTION");
	one($node, "SET ROLE bob2; GRANT $privilege ON mq.q_$right TO bob");
	is($a->try("SELECT mq.revoke('$right', '$right', 'bob')"), '', "the owner revokes $right");
	is(one($node, "SELECT has_table_privilege('bob', 'mq.q_$right', '$privilege') OR has_table_privilege('bob2', 'mq.q_$right', '$privilege')"), 'f', 'and it is gone');
}

# --- who has a right with grant option takes it from the owner ------------------------------------------------------------------------------
$a->q("SELECT mq.create_queue('own'); GRANT INSERT ON mq.q_own TO bob WITH GRANT OPTION");
isnt($b->try("SELECT mq.revoke('own', 'send', 'alice')"), '', 'bob, who may give send, cannot take it from the owner who gave it to him');
is($a->try("SELECT mq.send('own', '1')"), '', 'the owner may send still');

# --- a receiver that waits ------------------------------------------------------------------------------------------------------------------
for my $verb ('receive', 'pop')
{
	$a->q("SELECT mq.create_queue('w$verb'); SELECT mq.grant('w$verb', 'consume', 'carol', 'default')");
	my $c = session($node, user => 'carol');
	$c->start("SELECT payload FROM mq.$verb('w$verb', wait => '30 s')");
	poll_until('the receiver to wait', sub { one($node, "SELECT waiting FROM mq.groups WHERE queue = 'w$verb'") eq '1' });
	$a->q("SELECT mq.revoke('w$verb', 'consume', 'carol')");
	$a->q("SELECT mq.send('w$verb', '\"after the revoke\"')");
	my (undef, $out) = $c->finish(60);
	unlike($out, qr/after the revoke/, "$verb: what was sent after the revoke is not handed to who was waiting");
	is($a->q("SELECT count(*) FROM mq.receive('w$verb')"), '1', "$verb: it is there for others");
	$c->close;
}

# --- a queue is handed on while its owner makes a group ------------------------------------------------------------------------------------
{
	$a->q("SELECT mq.create_queue('handed')");
	$a->q("BEGIN; SELECT mq.create_group('handed', 'late', start => 'earliest')");
	my $dba = session($node);
	$dba->start("SELECT mq.alter_queue('handed', jsonb_build_object('owner', 'bob'))");
	# it may wait for alice, or not
	poll_until('the hand-over to be done, or to wait', sub { one($node, "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'alter_queue.*owner.*bob' AND pid <> pg_backend_pid() AND (state = 'idle' OR wait_event_type = 'Lock')") ne '0' });
	$a->q('COMMIT');
	$dba->finish(60);
	is(one($node, "SELECT owner FROM mq.queues WHERE queue = 'handed'"), 'bob', 'handed on');
	$b->q("SELECT mq.send('handed', '\"of bob\"')");
	isnt($a->try("SELECT * FROM mq.pop('handed', consumer_group => 'late')"), '', 'the former owner has no right in the group made meanwhile');
	is($b->try("SELECT * FROM mq.pop('handed', consumer_group => 'late')"), '', 'the new one has');
	$dba->close;
}
$_->close for $a, $b;
$node->stop;
done_testing();
