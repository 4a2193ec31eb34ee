# Under the append lock a sender waits for no heavyweight lock and looks at no catalog: what toasting a large row locks and
# opens was locked and opened before. So with the catalog locked, and invalidations on their way, it gets through, and
# the queue is not held up by one that no cancel ends.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('append_lock', conf => "autovacuum = off\n");
if (!mq_stop_points($node)) { plan skip_all => 'no stop points in this build'; }
one($node, "SELECT mq.create_queue('q')");
# incompressible, so that it is cut into chunks
my $body = "(SELECT string_agg(sha512(i::text::bytea), NULL) FROM generate_series(1, 1500) i)";
one($node, "CREATE TABLE t.body AS SELECT $body AS b");
my $leaf = one($node, "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = (SELECT queue_table FROM mq.queues WHERE queue = 'q') ORDER BY inhrelid LIMIT 1");

# what: done to the leaf while the sender stands before the append lock, to make its cached definitions invalid
sub gets_through
{
	my ($name, $send, @what) = @_;
	my $stop = session($node);
	my $sender = session($node);
	my $locker = session($node);

	# what a session that is not new has looked up already
	$sender->q($send);
	$locker->q("SELECT count(*) FROM pg_stat_activity; SELECT count(*) FROM pg_locks; SELECT pg_cancel_backend(0) WHERE false");
	$stop->q('SELECT pg_advisory_lock(77, 1)');
	$sender->q("SET mq.stop_point = 'send_before_insert:lock'");
	$sender->start($send);
	ok(poll_until('the sender at its stop point', sub { $sender->waits_on_lock($node) }), "$name: a sender stands before the append lock");
	one($node, $_) for @what;
	$locker->q("BEGIN; LOCK pg_class, pg_index, pg_attribute IN ACCESS EXCLUSIVE MODE");
	$stop->q('SELECT pg_advisory_unlock(77, 1)');
	my $state = "SELECT coalesce((SELECT wait_event_type || ' ' || wait_event FROM pg_stat_activity WHERE pid = " . $sender->pid . " AND state = 'active'), 'over')";
	ok(poll_until('the sender to get through', sub { $sender->is_done }, 20), "$name: it gets through while the catalog is locked")
	  or diag($locker->q($state), ' ', $locker->q("SELECT pg_cancel_backend(" . $sender->pid . "); SELECT pg_sleep(0.5); $state"));
	$locker->q('ROLLBACK');
	is(($sender->finish)[0], '', "$name: without an error");
	$_->close for $stop, $sender, $locker;
	return;
}

my $large = "SELECT mq.send('q', body => b) FROM t.body";
gets_through('ANALYZE', $large, "ANALYZE $leaf");
gets_through('VACUUM', $large, "VACUUM (ANALYZE) $leaf");
gets_through('a batch', "SELECT mq.send_batch('q', payloads => NULL::jsonb[], bodies => array_agg(b)) FROM t.body, generate_series(1, 3)", "VACUUM (ANALYZE) $leaf");
gets_through('small', "SELECT mq.send('q', '1')", "VACUUM (ANALYZE) $leaf");

# the first large row of a session: everything is still to be looked up when the locks are taken
{
	my $sender = session($node);
	is($sender->try($large), '', 'the first send of a session');
	$sender->close;
}
is(one($node, "SELECT count(*) FROM mq.pop('q', max_messages => 100)"), one($node, "SELECT count(*) FROM mq.q_q"), 'everything arrived');

done_testing();
