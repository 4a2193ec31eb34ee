# What all tenants share, one of them cannot use up: cells of the arena, slots, numbers of groups.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;
$SIG{__DIE__} = sub { diag(@_) if !$^S; };

my $node = mq_node('shares', conf => "mq.max_groups = 200\nmq.max_queues = 32\nmq.shared_memory = '1MB'\nfsync = off\nsynchronous_commit = off\n");
one($node, "CREATE ROLE $_ LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO $_") for qw(mallory alice);
my $alice = session($node, user => 'alice');
my $mallory = session($node, user => 'mallory');

# --- discard takes no memory for what stays in one piece, and no more than its share for the rest ---------------------------------
{
	my $n = 12_000;		# two cells for each would be nearly twice as many as there are
	my $all = "ARRAY(SELECT generate_series(1, $n)::bigint)";
	my $second = "ARRAY(SELECT generate_series(2, $n, 2)::bigint)";
	my $fill = "SELECT count(*) FROM mq.send_batch('d', ARRAY(SELECT '1'::jsonb FROM generate_series(1, $n)))";
	$mallory->q("SELECT mq.create_queue('d'); $fill");
	$alice->q("SELECT mq.create_queue('a'); SELECT count(*) FROM mq.send_batch('a', ARRAY(SELECT '1'::jsonb FROM generate_series(1, 1000)))");
	my $works = sub {
		my ($when) = @_;
		is($alice->try(<<'SQL'), '', "$when: another receives, acks and extends") or diag($alice->{last_err});
DO $$ DECLARE r uuid[]; BEGIN
	SELECT array_agg(receipt ORDER BY id) INTO r FROM mq.receive('a', max_messages => 100, visibility_timeout => '1 h');
	IF cardinality(r) IS DISTINCT FROM 100 THEN RAISE EXCEPTION 'received %', cardinality(r); END IF;
	FOR i IN 1 .. 50 LOOP PERFORM mq.extend(r[2 * i], '2 h'); END LOOP;
	PERFORM mq.ack_batch(r);
END $$
SQL
	};
	is($mallory->q("BEGIN; SELECT mq.discard('d', 'default', $all)"), $n, 'discards more than there are cells for one by one');
	$works->('discarded and open');
	$mallory->q('SAVEPOINT s');
	is($mallory->q("SELECT mq.discard('d', 'default', $all)"), '0', 'twice is once');
	$mallory->q('ROLLBACK TO s; ROLLBACK');
	is($mallory->q("SELECT count(*), min(id), max(id) FROM mq.browse('d', states => '{ready}', max_messages => 100000)"), "$n|1|$n", 'rolled back: all are there');

	is($mallory->try("BEGIN; SELECT mq.discard('d', 'default', $second)"), '53200', 'every second one: more than its share');
	like($mallory->{last_err}, qr/has its share/, 'and it says so');
	$mallory->q('ROLLBACK');
	$works->('refused');
	is($mallory->q("SELECT count(*) FROM mq.browse('d', states => '{ready}', max_messages => 100000)"), $n, 'refused: all are there');

	# some in savepoints, some of them undone, over the borders of lots
	$mallory->q("BEGIN; SELECT mq.discard('d', 'default', ARRAY(SELECT generate_series(100, 1100)::bigint)); SAVEPOINT s");
	is($mallory->q("SELECT mq.discard('d', 'default', ARRAY(SELECT generate_series(50, 1500)::bigint))"), 450, 'around what is discarded already');
	$mallory->q('ROLLBACK TO s; COMMIT');
	is($mallory->q("SELECT count(*) FROM mq.browse('d', states => '{ready}', max_messages => 100000)"), $n - 1001, 'what the savepoint did is undone, no more');
	is($mallory->q("SELECT count(*) FROM mq.browse('d', states => '{ready}', max_messages => 100000) WHERE id BETWEEN 100 AND 1100"), 0, 'the rest is not');
	$mallory->q("SET synchronous_commit = on; SELECT mq.discard('d', 'default', $all)");
	$node->stop("immediate"); $node->start;
	is(one($node, "SELECT count(*) FROM mq.receive('d')"), 0, 'after a crash nothing of it is back');
	$_->close for $alice, $mallory;
	($alice, $mallory) = map { session($node, user => $_) } qw(alice mallory);
	is($mallory->q("SELECT mq.drop_queue('d', force => true)"), '', 'dropped');
}

# --- memory that others have filled: discard of what its own transaction has sent tells, or does it -----------------------------------
{
	my $super = session($node);
	$super->q("SELECT mq.create_queue('full', groups => ARRAY(SELECT 'g' || i FROM generate_series(1, 10) i)); SELECT count(*) FROM mq.send_batch('full', array_fill('1'::jsonb, ARRAY[6000]))");
	# none next to the one before
	$alice->q('BEGIN');
	my @ids;
	for (1 .. 300)
	{
		push @ids, $alice->q("SELECT mq.send('a', '1')");
		$super->q("SELECT mq.send('a', '2')");
	}
	my $ids = '{' . join(',', @ids) . '}';
	# look-ahead puts them aside, as undecided, while there is memory
	$super->q("SELECT count(mq.release(receipt)) FROM mq.receive('a', max_messages => 10000)");
	cmp_ok(one($node, "SELECT pending FROM mq.groups WHERE queue = 'a'"), '>=', 300, 'what another has sent is known as undecided');
	$super->q(<<'SQL');
DO $$ DECLARE n int; BEGIN
	FOR g IN 1 .. 10 LOOP
		FOR i IN 1 .. 2000 LOOP
			SELECT count(*) INTO n FROM mq.receive('full', 'g' || g, visibility_timeout => '1 h');
			EXIT WHEN n = 0;
		END LOOP;
		COMMIT;
	END LOOP;
END $$
SQL
	is($super->q("SELECT count(*) FROM mq.receive('full', 'g10')"), '0', 'no memory for one more hand-out');
	is($alice->q("SELECT mq.discard('a', 'default', '$ids')"), '300', 'with memory full, all of them, not those that fit');
	$alice->q('ROLLBACK');
	$super->q("SELECT mq.drop_queue('full', force => true)");
	$super->close;
}

# --- slots ------------------------------------------------------------------------------------------------------------------------
{
	my $with = sub { my ($n, $letter) = @_; return "groups => ARRAY(SELECT '$letter' || i FROM generate_series(1, $n) i)"; };
	is($mallory->try("SELECT mq.create_queue('many', " . $with->(150, 'g') . ')'), '53400', 'one queue with many groups: more than half of all');
	like($mallory->{last_err}, qr/DETAIL.*100 .*HINT.*mq\.max_groups_per_role/s, 'and it says what to do');
	$mallory->q("SELECT mq.create_queue('m1', " . $with->(90, 'g') . ')');
	is($mallory->try("SELECT mq.create_queue('m2', " . $with->(20, 'g') . ')'), '53400', 'in several queues');
	is($mallory->try("DO \$\$ BEGIN FOR i IN 1 .. 20 LOOP PERFORM mq.create_group('m1', 'h' || i); END LOOP; END \$\$"), '53400', 'group by group');
	$mallory->q("DO \$\$ BEGIN FOR i IN 1 .. 10 LOOP PERFORM mq.create_group('m1', 'h' || i); END LOOP; END \$\$");
	is($mallory->try("SELECT mq.create_group('m1', 'one')"), '53400', 'not one more');
	$mallory->q("SELECT mq.drop_group('m1', 'h1', force => true)");
	is($mallory->try("SELECT mq.create_group('m1', 'one')"), '', 'but for one that was dropped');
	is($mallory->try("DO \$\$ BEGIN FOR i IN 1 .. 20 LOOP PERFORM mq.create_queue('n' || i, groups => '{}'); END LOOP; END \$\$"), '53400', 'many queues');
	like($mallory->{last_err}, qr/DETAIL.*16 .*HINT.*mq\.max_queues_per_role/s, 'and it says what to do');
	is($mallory->try("SET mq.max_queues_per_role = 1000"), '42501', 'who is limited cannot change that');

	# several at once, each of which sees what is committed only
	one($node, 'ALTER ROLE mallory SET mq.max_queues_per_role = 3');
	$_->close for $mallory;
	($mallory, my $second) = map { session($node, user => 'mallory') } 1, 2;
	$second->q('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	$mallory->q("BEGIN; SELECT mq.create_queue('o1', groups => '{}'), mq.create_queue('o2', groups => '{}')");
	$second->start("SELECT mq.create_queue('o3', groups => '{}')");
	ok(poll_until('it to wait', sub { $second->waits_on_lock($node) }), 'who makes one waits for another of that role');
	is($alice->try("SELECT mq.create_queue('after'); SELECT mq.send('after', '1'); SELECT mq.receive('after')"), '', 'others do not');
	$mallory->q('COMMIT');
	is(($second->finish)[0], '53400', 'and counts those, whatever its snapshot');
	$second->q('ROLLBACK');
	$second->close;
	is($mallory->try("SELECT mq.create_queue('o3', groups => '{}')"), '53400', 'committed: no more');
	$mallory->q("SELECT mq.drop_queue('o2')");
	is($mallory->try("SELECT mq.create_queue('m1', if_not_exists => true)"), '', 'what is there already counts as before');

	# handed on it counts for who has it then
	one($node, 'GRANT mallory TO alice; ALTER ROLE alice SET mq.max_groups_per_role = 50');
	$alice->close;
	$alice = session($node, user => 'alice');
	is($alice->try("SELECT mq.alter_queue('m1', jsonb_build_object('owner', 'alice'))"), '53400', 'handed on to who would have too many');
	is($alice->try("SELECT mq.alter_queue('o1', jsonb_build_object('owner', 'alice'))"), '', 'to who has room for it');
	is(sqlstate($node, "SELECT mq.create_group('m1', 's' || i) FROM generate_series(1, 3) i"), '', 'a superuser is not limited');
	one($node, "SELECT mq.drop_queue('m1', force => true)");
}

# --- numbers of groups: they end, and say so before ------------------------------------------------------------------------------------
{
	one($node, "SELECT setval('mq_internal.group_no', 15099000)");
	unlike(err($node, "SELECT mq.create_group('a', 'below')"), qr/WARNING/, 'nine tenths are not used up: silence');
	one($node, "SELECT setval('mq_internal.group_no', 15100000)");
	like(err($node, "SELECT mq.create_group('a', 'above')"), qr/WARNING:  01000: .*1677214 .*HINT/s, 'nine tenths are: a warning says how many are left');
	one($node, "SELECT setval('mq_internal.group_no', 16777214)");
	is(sqlstate($node, "SELECT mq.create_group('a', 'last')"), '', 'the last one');
	like(err($node, "SELECT mq.create_group('a', 'none')"), qr/ERROR:  54000: .*HINT/s, 'no more: an error that says what to do');
	is(sqlstate($node, "SELECT mq.create_queue('b', groups => '{}')"), '', 'queues without groups can be made');
	one($node, "SELECT mq.send('a', '1')");
	is(one($node, "SELECT count(*) FROM mq.receive('a', consumer_group => 'last')"), '1', 'the last one works');
}

$_->close for $alice, $mallory;
$node->stop;
done_testing();
