# Bounds of queues, overflow 'reject': what is refused, what is not, and by how much a bound can be passed: transactions that are open,
# savepoints, many senders, prepared transactions, restarts and crashes, the schedule and its mover.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('bounds', conf => "mq.visibility_timeout = '10 min'\nrestart_after_crash = off\n");
my $points = mq_stop_points($node);

sub make { my ($q, $max, %o) = @_; return one($node, "SELECT mq.create_queue('$q', groups => '$o{groups}', options => '{\"max_messages\": $max}')") if $o{groups};
	return one($node, "SELECT mq.create_queue('$q', options => '{\"max_messages\": $max}')"); }
sub batch { my ($q, $n) = @_; return "SELECT mq.send_batch('$q', array_fill('1'::jsonb, array[$n])) IS NULL"; }
sub state { my ($sql) = @_; return sqlstate($node, $sql); }

# --- an open transaction ------------------------------------------------------------------------------------------------------
{
	make('open', 10);
	my $s = session($node);
	$s->q('BEGIN');
	$s->q("SELECT mq.send('open', '1')") for 1 .. 10;
	$s->q('SAVEPOINT a');
	is($s->try("SELECT mq.send('open', '1')"), '53400', 'a transaction cannot pass the bound by itself');
	$s->q('ROLLBACK TO a');
	is(state("SELECT mq.send('open', '1')"), '53400', 'what is not committed counts for others, for it may be');
	is($s->try("SELECT mq.send('open', '1')"), '53400', 'and for itself after the savepoint');
	$s->q('ROLLBACK TO a');
	is($s->try("SELECT count(*) FROM mq.pop('open', max_messages => 3)"), '', 'the transaction goes on: it takes three of its own');
	is($s->try("SELECT mq.send('open', '1')"), '53400', 'that is not finished before it commits');
	$s->q('ROLLBACK TO a');
	is($s->try('COMMIT'), '', 'and commits');
	is(one($node, "SELECT ready + pending + unread_at_most FROM mq.groups WHERE queue = 'open'"), '10', 'all ten are there');
	$s->q('BEGIN');
	$s->q("SELECT count(*) FROM mq.pop('open', max_messages => 10)");
	is(state("SELECT mq.send('open', '1')"), '53400', 'what is about to be finished counts');
	$s->q('COMMIT');
	is(state(batch('open', 10)), '', 'at the commit there is room at once');
	one($node, "SELECT count(*) FROM mq.pop('open', max_messages => 10)");
	$s->q('BEGIN');
	$s->q(batch('open', 10));
	is(state("SELECT mq.send('open', '1')"), '53400', 'one that will roll back is not known for that');
	$s->q('ROLLBACK');
	is(state(batch('open', 10)), '', 'when it has there is room at once');
	$s->close;
}

# --- who has to read ahead ----------------------------------------------------------------------------------------------------
{
	make('gaps', 1000, groups => '{default,idle}');
	for my $i (1 .. 5)
	{
		one($node, 'BEGIN; ' . batch('gaps', 900) . '; ROLLBACK');
	}
	is(state(batch('gaps', 1000)), '', 'five times nearly as much was rolled back: there is room for all');
	is(state("SELECT mq.send('gaps', '1')"), '53400', 'and not for one more');
	is(one($node, "SELECT count(*) FROM mq.pop('gaps', max_messages => 1000)"), '1000', 'one group takes all');
	is(state("SELECT mq.send('gaps', '1')"), '53400', 'the idle one has not');
	one($node, "SELECT mq.purge('gaps', 'idle')");
	is(state(batch('gaps', 1000)), '', 'it is purged');
}

# --- a rollback that is for a full queue is no failure -------------------------------------------------------------------------
{
	make('to', 1);
	one($node, "SELECT mq.create_queue('from'); SELECT mq.send('from', '1'); SELECT mq.send('to', '1')");
	for (1 .. 3)
	{
		is(state("SELECT mq.send('to', '2') FROM mq.pop('from')"), '53400', 'pop from one, send to another that is full') if $_ == 1;
		state("SELECT mq.send('to', '2') FROM mq.pop('from')") if $_ > 1;
	}
	one($node, "SELECT count(*) FROM mq.pop('to')");
	ok(poll_until('it to come back', sub { one($node, "SELECT failures || ' ' || mq.send('to', '2') FROM mq.pop('from')") =~ /^0 / }, 60), 'no failure, and it goes on when there is room');
}

# --- many senders -------------------------------------------------------------------------------------------------------------
{
	make('many', 100, groups => '{default,b}');
	my @s = map { session($node) } 1 .. 8;
	my $loop = "DO \$\$ BEGIN FOR i IN 1 .. 400 LOOP BEGIN PERFORM mq.send('many', '1'); EXCEPTION WHEN SQLSTATE '53400' THEN NULL; END; COMMIT; END LOOP; END \$\$";
	$_->start($loop) for @s;
	my @r = map { ($_->finish)[0] } @s;
	is("@r", '       ', 'eight senders at once end well');
	my $n = one($node, "SELECT count(*) FROM mq.q_many");
	cmp_ok($n, '>=', 100, "nobody was refused too early ($n)");
	cmp_ok($n, '<=', 107, 'each other sender passes the bound by the call that it is in, at most');
	is(one($node, "SELECT rejected FROM mq.queues WHERE queue = 'many'"), 8 * 400 - $n, 'all others are counted as rejected');

	# with consumers: nothing stalls, and no more than that is ever there
	one($node, "SELECT count(*) FROM unnest('{default,b}'::text[]) g, LATERAL mq.pop('many', g, 1000)");
	$_->start("DO \$\$ DECLARE sent int := 0; BEGIN WHILE sent < 300 LOOP BEGIN PERFORM mq.send('many', '1'); sent := sent + 1; EXCEPTION WHEN SQLSTATE '53400' THEN NULL; END; COMMIT; END LOOP; END \$\$") for @s;
	my @c = map { session($node) } 1 .. 2;
	my $i = 0;
	$_->start("DO \$\$ DECLARE got int := 0; most int := 0; BEGIN WHILE got < 2400 LOOP got := got + (SELECT count(*) FROM mq.pop('many', '" . ('default', 'b')[$i++] . "', 7)); COMMIT; " .
			"most := greatest(most, (SELECT max(ready + leased + settling + pending) FROM mq.groups WHERE queue = 'many')); END LOOP; RAISE WARNING 'most %', most; END \$\$") for @c;
	is(($_->finish)[0], '', 'senders get through while consumers work') for @s;
	for (@c)
	{
		is(($_->finish)[0], '', 'consumers get all');
		cmp_ok($_->{last_err} =~ /most (\d+)/ ? $1 : 1000, '<=', 107, 'never more than the bound and the calls of the others');
	}
	$_->close for @s, @c;
}

# --- the schedule -------------------------------------------------------------------------------------------------------------
{
	make('sch', 10);
	my $s = session($node);
	$s->q('BEGIN');
	$s->q("SELECT mq.send('sch', '1', delay => '1 h')") for 1 .. 6;
	is(state(batch('sch', 5)), '53400', 'what an open transaction has scheduled counts');
	is($s->try('SAVEPOINT a; ' . batch('sch', 4)), '', 'for itself once');
	is($s->try("SELECT mq.send('sch', '1', delay => '1 h')"), '53400', 'its own bound');
	$s->q('ROLLBACK TO a');
	$s->q('SAVEPOINT b');
	$s->q("SELECT mq.send('sch', '1', delay => '1 h')") for 1 .. 4;
	is(state("SELECT mq.send('sch', '1')"), '53400', 'in a savepoint too');
	$s->q('ROLLBACK TO b');
	is(state(batch('sch', 4)), '', 'gone with the savepoint');
	$s->q('SAVEPOINT c; SELECT mq.cancel(\'sch\', id) FROM mq.scheduled WHERE queue = \'sch\' LIMIT 1; RELEASE c');
	$s->q('ROLLBACK');
	is(state(batch('sch', 6)), '', 'and with the transaction');
	is(state("SELECT mq.send('sch', '1')"), '53400', 'exactly');
	one($node, "SELECT mq.purge('sch')");
	# prepared
	$s->q("BEGIN; SELECT mq.send('sch', '1', delay => '1 h') FROM generate_series(1, 10); PREPARE TRANSACTION 'p'");
	is(state("SELECT mq.send('sch', '1')"), '53400', 'what is prepared counts');
	$node->restart;
	worker_alive($node);
	one($node, "COMMIT PREPARED 'p'");
	is(state("SELECT mq.send('sch', '1')"), '53400', 'it counts when it is committed after a restart, before the worker has counted or after');
	ok(poll_until('the count', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = 'sch'") eq '10' }, 90), 'ten are scheduled');
	is(state("SELECT mq.send('sch', '1')"), '53400', 'and fill the queue');
	$s->close;
	$s = session($node);
	# moved: counted once, before, while and after
	one($node, "SELECT mq.make_due('sch')");
	ok(poll_until('the mover', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = 'sch'") eq '0' }, 60), 'they are due and moved, though the queue is full');
	is(state("SELECT mq.send('sch', '1')"), '53400', 'and it is full as before');
	is(one($node, "SELECT count(*) FROM mq.pop('sch', max_messages => 5)"), '5', 'five of them are finished');
	is(state(batch('sch', 6)), '53400', 'five fit');
	is(state(batch('sch', 5)), '', 'they do');
	$s->close;
}

# --- restart, crash -----------------------------------------------------------------------------------------------------------
for my $how ('fast', 'immediate')
{
	my $q = "re$how";
	make($q, 20, groups => '{default,slow}');
	one($node, batch($q, 15));
	one($node, 'BEGIN; ' . batch($q, 5) . '; ROLLBACK');
	one($node, "SELECT count(*) FROM mq.pop('$q', max_messages => 12)");
	one($node, "SELECT count(*) FROM mq.pop('$q', 'slow', 4)");
	one($node, "SELECT mq.send('$q', '1', delay => '1 day') FROM generate_series(1, 3)");
	# as long as somebody may be writing to a schedule the worker cannot count what is in it
	one($node, "SELECT mq.create_queue('other$how')");
	one($node, "BEGIN; SELECT mq.send('other$how', '1', delay => '1 day'); PREPARE TRANSACTION '$how'");
	$node->stop($how);
	$node->start;
	is(state(batch($q, 7)), '53400', "$how stop: 11 unfinished in the slow group and 3 scheduled");
	is(state(batch($q, 6)), '', 'six more fit');
	is(one($node, "SELECT rejected FROM mq.queues WHERE queue = '$q'"), '7', 'rejected counts from the start');
	is(state("SELECT mq.send('$q', '1')"), '53400', 'no more');
	one($node, "ROLLBACK PREPARED '$how'");
}

# --- what is rolled back to a savepoint -------------------------------------------------------------------------------------------
{
	make('sp', 10, groups => '{default,b}');
	my $s = session($node);
	$s->q('BEGIN; ' . batch('sp', 4));
	for my $round (1 .. 3)
	{
		$s->q('SAVEPOINT a; SAVEPOINT b; ' . batch('sp', 6) . '; RELEASE b');
		is($s->try("SELECT mq.send('sp', '1')"), '53400', "savepoint $round: the queue is full");
		$s->q('ROLLBACK TO a');
		is($s->try('SAVEPOINT c; ' . batch('sp', 7)), '53400', 'one too many for what is left');
		$s->q('ROLLBACK TO c');
	}
	is($s->try(batch('sp', 6)), '', 'what was rolled back takes no room in the transaction that goes on');
	$s->q('COMMIT');
	is(one($node, "SELECT string_agg(n::text, ' ') FROM unnest('{default,b}'::text[]) g, LATERAL (SELECT count(*) AS n FROM mq.pop('sp', g, 100)) p"), '10 10', 'ten are there, for each group');
	# a thousand that are refused, in one transaction
	$s->q("DO \$\$ DECLARE n int := 0; BEGIN FOR i IN 1 .. 1000 LOOP BEGIN PERFORM mq.send('sp', '1'); n := n + 1; EXCEPTION WHEN SQLSTATE '53400' THEN NULL; END; END LOOP; ASSERT n = 10; END \$\$");
	is(one($node, "SELECT string_agg(n::text, ' ') FROM unnest('{default,b}'::text[]) g, LATERAL (SELECT count(*) AS n FROM mq.pop('sp', g, 100)) p"), '10 10', 'ten of a thousand tries in one transaction');
	$s->close;
}

# --- two groups, one of which comes, goes, and is moved about ------------------------------------------------------------------
{
	make('g', 10);
	one($node, "SELECT mq.alter_queue('g', '{\"retention\": \"1 hour\"}')");
	one($node, batch('g', 10) . "; SELECT count(*) FROM mq.pop('g', max_messages => 10); " . batch('g', 1));
	# nine are left without counting
	my $s = session($node);
	$s->q("BEGIN; SELECT mq.create_group('g', 'old', 'earliest')");
	is(state("SELECT mq.send('g', '1')"), '', 'a group that is not committed counts for nobody else');
	$s->q('ROLLBACK');
	is(state("SELECT mq.send('g', '1')"), '', 'and then for nobody');
	$s->q("SELECT mq.create_group('g', 'old', 'earliest')");
	is(state("SELECT mq.send('g', '1')"), '53400', 'what was counted before is void when it is there');
	$s->q("SELECT mq.purge('g', 'old')");
	is(state("SELECT mq.send('g', '1')"), '', 'it is purged');
	$s->q("SELECT mq.seek('g', 'old', start => 'earliest')");
	is(state("SELECT mq.send('g', '1')"), '53400', 'and sought back');
	$s->q("SELECT mq.drop_group('g', 'old', force => true)");
	is(state("SELECT mq.send('g', '1')"), '', 'and dropped');
	$s->q("SELECT mq.alter_queue('g', '{\"max_messages\": 5}')");
	is(state("SELECT mq.send('g', '1')"), '53400', 'a bound that is lowered holds for the next');
	$s->q("SELECT mq.alter_queue('g', '{\"max_messages\": 6}')");
	is(state("SELECT mq.send('g', '1')"), '', 'one that is raised too');
	$s->q("BEGIN; SELECT mq.alter_queue('g', '{\"max_messages\": null}')");
	is($s->try(batch('g', 10)), '', 'off in a transaction');
	is(state("SELECT mq.send('g', '1')"), '53400', 'not for others');
	$s->q('ROLLBACK');
	$s->close;
}

# --- the rate: all senders together, by the same clock -----------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('rate', options => '{\"max_send_per_second\": 200}')");
	my @s = map { session($node) } 1 .. 2;
	$_->start("DO \$\$ DECLARE sent int := 0; BEGIN WHILE sent < 300 LOOP BEGIN PERFORM mq.send('rate', to_jsonb(clock_timestamp())); sent := sent + 1; EXCEPTION WHEN SQLSTATE '53400' THEN NULL; END; COMMIT; END LOOP; END \$\$") for @s;
	is(($_->finish)[0], '', 'two senders get all through') for @s;
	my $took = one($node, "SELECT extract(epoch FROM max(t) - min(t)) FROM (SELECT (payload #>> '{}')::timestamptz AS t FROM mq.q_rate) m");
	cmp_ok($took, '>=', 1.98, "six hundred messages of which two hundred come in a second, and two hundred at once ($took s)");
	$_->close for @s;
}

# --- dump and restore ------------------------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('dump', groups => '{default,slow}', options => '{\"max_messages\": 10, \"max_bytes\": 100000, \"max_send_per_second\": 1000}'); " . batch('dump', 9));
	one($node, "SELECT count(*) FROM mq.pop('dump', max_messages => 9); SELECT count(*) FROM mq.pop('dump', 'slow', 2); SELECT mq.send('dump', '1', delay => '1 day')");
	one($node, "SELECT mq.create_queue('dumpd', options => '{\"max_messages\": 5, \"overflow\": \"drop_oldest\"}')");
	one($node, 'CREATE DATABASE restored');
	my $connect = '-h ' . $node->host . ' -p ' . $node->port;
	is(system("pg_dump $connect postgres | psql -XAtq -v ON_ERROR_STOP=1 $connect -d restored >/dev/null"), 0, 'dump and restore');
	my $options = "SELECT string_agg(row_to_json(o)::text, ' ' ORDER BY queue) FROM (SELECT queue, max_messages, max_bytes, overflow, max_send_per_second FROM mq.queues WHERE queue LIKE 'dump%') o";
	is(one($node, $options, 'restored'), one($node, $options), 'the options are the same');
	is(sqlstate($node, batch('dump', 3), db => 'restored'), '53400', 'a restored queue is as full as it was: seven unfinished, one scheduled');
	is(sqlstate($node, batch('dump', 2), db => 'restored'), '', 'and takes what it would have taken');
	is(sqlstate($node, "SELECT mq.send('dump', '1')", db => 'restored'), '53400', 'no more');
}

# --- killed between the count and the append -------------------------------------------------------------------------------------
SKIP:
{
	skip 'no stop points in this build', 2 if !$points;
	make('kill', 5);
	my $s = session($node);
	$s->q("SET mq.stop_point = 'send_before_insert:error'");
	is($s->try("SELECT mq.send('kill', '1')"), 'XX000', 'an append that fails') for 1 .. 1;
	$s->try("SELECT mq.send('kill', '1')") for 1 .. 9;
	is(state(batch('kill', 5)), '', 'takes no room');
	$s->close;
}

done_testing();
