# What mq.groups and mq.consumers say: after a restart, of what is retried, how old what waits is, and who holds or waits.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('watching', conf => "mq.drop_delay = 3600\nmq.visibility_timeout = '10 min'\n");

sub group { my ($columns, $q, $g) = @_; return one($node, "SELECT $columns FROM mq.groups WHERE queue = '$q' AND consumer_group = '" . ($g || 'default') . "'"); }
sub consumers { my ($columns, $q) = @_; return one($node, "SELECT $columns FROM mq.consumers WHERE queue = '$q' ORDER BY consumer, pid"); }

# --- ids that a start passes over are no messages ---------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('u'); SELECT t.put('u', 'm', 10)");
is(group('unread_at_most, ready, unfinished_at_most', 'u'), '10|0|10', 'unread: what was sent');
for my $how ('stop', 'crash')
{
	if ($how eq 'stop') { $node->restart; }
	else { $node->kill9; mq_start_again($node); }
	is(group('unread_at_most', 'u'), '10', "$how: as before");
	one($node, "SELECT t.put('u', '$how', 1)");
	is(group('unread_at_most, unfinished_at_most', 'u'), '11|11', "$how: and what was sent then");
	cmp_ok(one($node, "SELECT max(id) FROM mq.q_u"), '>', 1000, "$how: its id is far away");
	is(one($node, "SELECT count(*) FROM mq.receive('u', max_messages => 5)"), '5', "$how: received");
	is(group('ready + leased + unread_at_most', 'u'), '11', "$how: received: all are counted once");
	is(one($node, "SELECT count(*) FROM mq.pop('u', max_messages => 100)"), '6', "$how: the rest");
	one($node, "SELECT mq.purge('u')");
	is(group('unread_at_most, unfinished_at_most', 'u'), '0|0', "$how: nothing is left");
	one($node, "SELECT t.put('u', 'again', 10)") if $how eq 'stop';
	is(group('unread_at_most', 'u'), '10', 'a group that is read goes on counting') if $how eq 'stop';
}
# a group that begins in the middle, and one that nobody reads
one($node, "SELECT mq.create_queue('v', groups => '{idle}'); SELECT t.put('v', 'm', 100)");
$node->kill9;
mq_start_again($node);
one($node, "SELECT t.put('v', 'n', 50); SELECT mq.create_group('v', 'late', start => 'latest'); SELECT t.put('v', 'o', 5)");
is(group('unread_at_most', 'v', 'idle'), '155', 'a group that nobody reads');
is(group('unread_at_most', 'v', 'late'), '5', 'a group that begins behind the gap');

# start after start, and nobody reads
for (1 .. 3)
{
	$node->restart;
	one($node, "SELECT t.put('v', 'again', 5)");
}
{
	my $there = one($node, 'SELECT count(*) FROM mq.q_v');
	my $shown = group('unread_at_most', 'v', 'idle');
	cmp_ok($shown, '>=', $there, 'after several starts no fewer than there are');
	cmp_ok($shown, '<', 10 * $there, 'and not the ids that all of them passed over');
}

# a segment that was left before its end
one($node, q{SELECT mq.create_queue('w', options => '{"segment_size": 65536, "retention": "1 s"}'); SELECT t.put('w', 'm', 10)});
ok(poll_until('the segment to be left', sub { one($node, "SELECT t.put('w', 'n', 1); SELECT max(id) > 65536 FROM mq.q_w") =~ /t$/ }), 'a queue with a retention leaves its segment when it is old');
is(group('unread_at_most', 'w'), one($node, 'SELECT count(*) FROM mq.q_w'), 'what was left of it are no messages');

# --- retrying, ready, and how old ------------------------------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('r')");
is(group('oldest_ready_at IS NULL, oldest_unfinished_at IS NULL, next_due_at IS NULL', 'r'), 't|t|t', 'empty: no times');
my $first = one($node, "SELECT t.put('r', 'm', 1); SELECT clock_timestamp()");
one($node, "SELECT t.put('r', 'n', 9)");
is(one($node, "SELECT oldest_ready_at = (SELECT enqueued_at FROM mq.q_r ORDER BY id LIMIT 1), oldest_unfinished_at = oldest_ready_at FROM mq.groups WHERE queue = 'r'"), 't|t', 'nobody has looked: the age of the first message');
one($node, "CREATE TABLE t.held AS SELECT id, receipt FROM mq.receive('r', max_messages => 4)");
one($node, "SELECT mq.nack(receipt, n * interval '1 hour') FROM (SELECT receipt, row_number() OVER (ORDER BY id) AS n FROM t.held) h WHERE n <= 2");
is(group('ready + unread_at_most, retrying, leased, unfinished_at_most', 'r'), '6|2|2|10', 'nacked with a delay: retrying, not ready');
is(group("next_due_at BETWEEN now() + '59 min' AND now() + '61 min'", 'r'), 't', 'next_due_at: the earlier one');
is(one($node, "SELECT oldest_ready_at = (SELECT enqueued_at FROM mq.q_r ORDER BY id OFFSET 4 LIMIT 1), oldest_unfinished_at = (SELECT enqueued_at FROM mq.q_r ORDER BY id LIMIT 1) FROM mq.groups WHERE queue = 'r'"),
	't|t', 'the oldest ready message is the fifth, the oldest unfinished one still the first');
is(one($node, "SELECT count(*) FROM mq.pop('r', max_messages => 100)"), '6', 'the rest');
is(group('ready, unread_at_most, oldest_ready_at IS NULL, retrying', 'r'), '0|0|t|2', 'nothing is ready');
one($node, "SELECT mq.discard('r', 'default', array_agg(id)) FROM mq.browse('r')");
is(group('unfinished_at_most, oldest_unfinished_at IS NULL, next_due_at IS NULL', 'r'), '0|t|t', 'all is finished');
# many, in many entries: all of them are counted
one($node, "SELECT t.put_batch('r', 'many', 3000)");
one($node, "SELECT mq.nack(receipt, (n % 7 + 10) * interval '1 min') FROM (SELECT receipt, row_number() OVER (ORDER BY id) AS n FROM mq.receive('r', max_messages => 3000)) x WHERE n % 3 <> 0");
is(group('ready, retrying, leased', 'r'), '0|2000|1000', 'in many entries');
is(one($node, "SELECT count(*), min(due_at) = (SELECT next_due_at FROM mq.groups WHERE queue = 'r') FROM mq.browse('r', states => '{retrying}', max_messages => 10000)"), '2000|t', 'browse says the same');

# a table that somebody has altered: its rows are not read for the times
one($node, "SELECT mq.create_queue('altered'); SELECT mq.send('altered', '1'); ALTER TABLE mq.q_altered ALTER COLUMN enqueued_at TYPE text");
is(group('unread_at_most, oldest_ready_at IS NULL, oldest_unfinished_at IS NULL', 'altered'), '1|t|t', 'a table with other columns: no times, and no error');
one($node, "SELECT mq.drop_queue('altered', force => true)");

# --- pages ----------------------------------------------------------------------------------------------------------------
{
	my ($after, $pages, $seen, %states) = (0, 0, 0);
	for (;;)
	{
		my $page = one($node, "SELECT max(id), count(*), string_agg(DISTINCT state, ',') FROM mq.browse('r', max_messages => 700, after_id => $after)");
		my ($last, $count, $states) = split /\|/, $page, -1;
		last if $count == 0;
		$after = $last;
		$pages++;
		$seen += $count;
		$states{$_}++ for split /,/, $states;
	}
	is("$pages $seen " . join(',', sort keys %states), '5 3000 leased,retrying', 'browse in pages: each message once, all states but finished');
	is(one($node, "SELECT count(*), min(id) > (SELECT min(id) FROM mq.q_r) FROM mq.browse('r', states => '{finished,leased}', max_messages => 100000)"), '1010|f', 'several states');
	is(one($node, "SELECT count(*) FROM mq.browse('r', states => '{scheduled,blocked,dead,expired,filtered}')"), '0', 'states in which nothing is yet');
	is(one($node, "SELECT count(*) FROM mq.browse('r', states => '{}')"), '0', 'no state');
}

# --- consumers -------------------------------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('c'); SELECT t.put('c', 'm', 10)");
	is(one($node, "SELECT count(*) FROM mq.consumers WHERE queue = 'c'"), '0', 'nobody');
	my $a = session($node);
	my $b = session($node);
	$a->q("SELECT count(*) FROM mq.receive('c', max_messages => 3, consumer => 'alpha')");
	$b->q("BEGIN; SELECT count(*) FROM mq.receive('c', max_messages => 2, consumer => 'beta')");
	is(consumers("consumer, leased, settling, oldest_lease_at = last_call_at, waiting, pid", 'c'), "alpha|3|0|t|0|\nbeta|2|0|t|0|$b->{pid}", 'who holds what; a pid while the transaction is open');
	$a->q("BEGIN; SELECT mq.ack(receipt) FROM mq.receive('c', consumer => 'alpha')");
	is(consumers("consumer, leased, settling, oldest_lease_at < last_call_at, pid", 'c'), "alpha|3|1|t|$a->{pid}\nbeta|2|0|f|$b->{pid}", 'settling, and the last hand-out');
	$a->q("COMMIT");
	$b->q("ROLLBACK");
	is(consumers("consumer, leased, settling", 'c'), 'alpha|3|0', 'a rollback gives back');
	# without a name
	$b->q("BEGIN; SELECT count(*) FROM mq.receive('c', max_messages => 1)");
	is(consumers("consumer, leased, pid", 'c'), "alpha|3|\n|1|$b->{pid}", 'one without a name is its process');
	$b->q("ROLLBACK");
	# who waits
	one($node, "SELECT count(*) FROM mq.pop('c', max_messages => 100)");
	one($node, "SELECT mq.purge('c')");
	is(one($node, "SELECT count(*) FROM mq.consumers WHERE queue = 'c'"), '0', 'a purge takes all');
	$a->start("SELECT payload->>'k' FROM mq.pop('c', wait => '60 s', consumer => 'alpha')");
	$b->start("CALL mq.wait('c', timeout => '5 min')");
	ok(poll_until('both to wait', sub { one($node, "SELECT count(*) FROM mq.consumers WHERE queue = 'c' AND waiting = 1") eq '2' }), 'both wait');
	is(consumers("consumer, leased, waiting, oldest_lease_at IS NULL, last_call_at <= clock_timestamp(), pid", 'c'), "alpha|0|1|t|t|$a->{pid}\n|0|1|t|t|$b->{pid}", 'who waits, with its pid');
	is(group('waiting', 'c'), '2', 'mq.groups counts them');
	# others see nothing of it
	one($node, "CREATE ROLE nobody LOGIN; CREATE ROLE watch LOGIN; GRANT pg_monitor TO watch");
	is(one($node, "SET ROLE nobody; SELECT count(*) FROM mq.consumers"), '0', 'a role without rights sees nobody');
	is(one($node, "SET ROLE watch; SELECT count(*) FROM mq.consumers WHERE queue = 'c'"), '2', 'a role for monitoring sees all');
	one($node, "SELECT t.put('c', 'x', 1)");
	ok(poll_until('nobody to wait', sub { one($node, "SELECT coalesce(sum(waiting), 0) FROM mq.consumers WHERE queue = 'c'") ne '2' }), 'who was woken waits no more');
	one($node, "SELECT t.put('c', 'y', 2)");
	$_->finish for $a, $b;
	is(one($node, "SELECT count(*) FROM mq.consumers WHERE queue = 'c'"), '0', 'who has left is gone');
	$a->start("SELECT * FROM mq.receive('c', wait => '60 s', consumer => 'killed') WHERE false");
	one($node, "SELECT count(*) FROM mq.pop('c', max_messages => 10)");
	$a->finish;
	$b->start("SELECT * FROM mq.receive('c', wait => '60 s', consumer => 'killed')");
	ok(poll_until('it to wait', sub { one($node, "SELECT count(*) FROM mq.consumers WHERE consumer = 'killed' AND waiting = 1") eq '1' }), 'one waits');
	one($node, "SELECT pg_terminate_backend($b->{pid})");
	ok(poll_until('it to be gone', sub { one($node, "SELECT count(*) FROM mq.consumers WHERE waiting > 0") eq '0' }), 'terminated: gone');
	$_->close for $a, $b;
}

# --- groups: dropping asks, purge of one ----------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('g', groups => '{one,two}'); SELECT t.put('g', 'm', 3)");
	is(sqlstate($node, "SELECT mq.drop_group('g', 'one')"), '55000', 'drop_group refuses what is not read');
	like(err($node, "SELECT mq.drop_group('g', 'one')"), qr/has unfinished messages.*HINT:.*force => true/s, 'with what to do');
	is(one($node, "SELECT mq.purge('g', 'one'); SELECT unfinished_at_most FROM mq.groups WHERE queue = 'g' ORDER BY consumer_group"), "\n0\n3", 'purge of one group leaves the other');
	is(sqlstate($node, "SELECT mq.purge('g', 'no')"), '42704', 'purge of a group that is not there');
	is(sqlstate($node, "SELECT mq.drop_group('g', 'one')"), '', 'drop_group takes one that is empty');
	my $s = session($node);
	$s->q("BEGIN; SELECT count(*) FROM mq.pop('g', 'two', 10)");
	is(sqlstate($node, "SELECT mq.drop_group('g', 'two')"), '55000', 'drop_group refuses what others are acking');
	is($s->try("SELECT mq.drop_group('g', 'two')"), '', 'what the transaction itself has acked is finished');
	$s->q("ROLLBACK");
	is(group('unfinished_at_most', 'g', 'two'), '3', 'and is there again after a rollback');
	$s->q("BEGIN; SELECT t.put('g', 'open', 1)");
	is(one($node, "SELECT count(*) FROM mq.pop('g', 'two', 10)"), '3', 'all that is committed');
	is(sqlstate($node, "SELECT mq.drop_group('g', 'two')"), '55000', 'drop_group refuses while a sender is undecided');
	$s->q("ROLLBACK");
	is(sqlstate($node, "SELECT mq.drop_group('g', 'two', force => null)"), '22004', 'force may not be null');
	is(sqlstate($node, "SELECT mq.drop_group('g', 'two')"), '', 'a sender that rolled back has left nothing');
	one($node, "SELECT mq.create_queue('h')");
	$s->q("BEGIN; SELECT t.put('h', 'open', 100)");
	is(one($node, "SELECT count(*) FROM mq.pop('h')"), '0', 'nothing yet');
	$s->q("ROLLBACK");
	is(sqlstate($node, "SELECT mq.drop_queue('h')"), '', 'nor in a queue');
	$s->close;
}

# --- options: owner, and what if_not_exists finds different ------------------------------------------------------------------------------
{
	one($node, "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN; GRANT bob TO alice; GRANT EXECUTE ON FUNCTION mq.create_queue TO alice, carol");
	one($node, q{SET ROLE alice; SELECT mq.create_queue('hers', options => '{"retention": "1 h"}'), mq.create_queue('his', options => '{"owner": "bob", "segment_size": 4096}')});
	is(one($node, "SELECT string_agg(queue || ' ' || owner, ', ' ORDER BY queue) FROM mq.queues WHERE queue IN ('hers', 'his')"), 'hers alice, his bob', 'owner: given to a role of which one is a member');
	is(sqlstate($node, q{SET ROLE carol; SELECT mq.create_queue('not', options => '{"owner": "bob"}')}), '42501', 'not to another one');
	is(one($node, "SELECT count(*) FROM mq.queues WHERE queue = 'not'"), '0', 'and nothing is left of it');
	my $notice = sub { my ($role, $call) = @_; my $e = err($node, "SET ROLE $role; SELECT $call"); return $e =~ /NOTICE:.*already exists, skipping/ ? ($e =~ /DETAIL:\s+(.*)/ ? $1 : 'the same') : $e; };
	is($notice->('alice', q{mq.create_queue('hers', if_not_exists => true)}), 'the same', 'if_not_exists: nothing asked, nothing different');
	is($notice->('alice', q{mq.create_queue('hers', options => '{"retention": "60 min", "owner": "alice", "segment_size": 1048576, "drop_unread": false}', if_not_exists => true)}), 'the same', 'the same by value');
	is($notice->('alice', q{mq.create_queue('hers', options => '{"retention": "2 h", "notify_interval": "1 s", "owner": "bob", "segment_size": 1024}', if_not_exists => true)}),
		'What differs: retention, notify_interval, segment_size, owner.', 'what is different is named');
	is($notice->('alice', q{mq.create_queue('hers', groups => '{default,more}', if_not_exists => true)}), 'What differs: groups.', 'a group that is not there, too');
	is($notice->('carol', q{mq.create_queue('hers', options => '{"retention": "2 h"}', if_not_exists => true)}), 'the same', 'not to a role that has no right on it');
	is($notice->('alice', q{mq.create_group('hers', 'default', options => '{"max_in_flight": 5}', if_not_exists => true)}), 'What differs: max_in_flight.', 'of a group, too');
	is(one($node, q{SET ROLE alice; SELECT mq.alter_queue('hers', '{"retention": null, "retention_bytes": 5}'); SELECT retention IS NULL, retention_bytes FROM mq.queues WHERE queue = 'hers'}), "\nt|5", 'null turns off');
	is(one($node, q{SET ROLE alice; SELECT mq.alter_queue('hers', '{"reset": ["retention_bytes"]}'); SELECT mq.alter_queue('hers', '{}'); SELECT retention_bytes IS NULL FROM mq.queues WHERE queue = 'hers'}), "\n\nt", 'reset; nothing to do');
	is(sqlstate($node, q{SET ROLE alice; SELECT mq.alter_queue('hers', '{"owner": "bob; DROP TABLE t.sent"}')}), '42704', 'an owner is a name');
}
$node->stop;
done_testing();
