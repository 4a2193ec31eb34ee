# VACUUM, VACUUM FULL, CLUSTER, REINDEX, TRUNCATE, and DDL on the active segment, between and during sends and receives,
# with aborted sends before: nothing lost, nothing stuck, whatever page and slot comes next.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('vacuum', conf => "mq.drop_delay = 0\nautovacuum = off\n");

sub leaf { my ($q) = @_; return one($node, "SELECT segment_table FROM mq.segments WHERE queue = '$q' AND first_id <= (SELECT next_id FROM mq.queues WHERE queue = '$q') AND last_id >= (SELECT next_id FROM mq.queues WHERE queue = '$q') - 1 ORDER BY first_id DESC LIMIT 1"); }
sub aborted { my ($q, $n) = @_; return one($node, "BEGIN; SELECT mq.send_batch('$q', array_fill('\"never\"'::jsonb, ARRAY[$n])) IS NOT NULL; ROLLBACK"); }

# --- each kind of maintenance at each kind of moment ------------------------------------------------------------------
my %op = (
	'VACUUM'          => 'VACUUM %t',
	'VACUUM FREEZE'   => 'VACUUM (FREEZE, INDEX_CLEANUP on) %t',
	'VACUUM TRUNCATE' => 'VACUUM (TRUNCATE on, DISABLE_PAGE_SKIPPING) %t',
	'VACUUM FULL'     => 'VACUUM FULL %t',
	'ANALYZE'         => 'ANALYZE %t',
	'REINDEX'         => 'REINDEX TABLE %t',
);
my $n = 0;
for my $what (sort keys %op)
{
	my $q = 'm' . ++$n;
	one($node, "SELECT mq.create_queue('$q')");
	(my $sql = $op{$what}) =~ s/%t/mq.q_$q/;
	my $do = sub { one($node, $sql) };

	# an empty table; nothing but aborted sends (the table shrinks to nothing under the senders' tail)
	$do->();
	aborted($q, 700);
	$do->();
	one($node, "SELECT t.put('$q', 'a', 3)");
	is(one($node, "SELECT t.take('$q', 10)"), '3', "$what: after aborted sends only");

	# between sends, with aborted ones before and after
	one($node, "SELECT t.put('$q', 'b', 150)");
	aborted($q, 300);
	$do->();
	one($node, "SELECT t.put_batch('$q', 'c', 300)");
	$do->();
	aborted($q, 40);
	one($node, "SELECT t.take('$q', 100)");
	$do->();
	one($node, "SELECT t.put('$q', 'd', 20)");

	# while some are leased, settling, and an open sender has rows there
	my ($s, $w, $l) = map { session($node) } 1 .. 3;
	$l->q("BEGIN; SELECT t.take('$q', 30)");    # holds AccessShare only: VACUUM FULL waits for it
	$s->q("BEGIN; SELECT t.put('$q', 'open', 30); SAVEPOINT x; SELECT t.put('$q', 'gone', 30); ROLLBACK TO x");
	$w->start($sql);
	my $waited = 0;
	poll_until("$what to end or to wait", sub { $w->is_done || ($waited = $w->waits_on_lock($node)) });
	$s->q("SELECT t.put('$q', 'more', 5)");
	$s->q('COMMIT');
	$l->q('ROLLBACK');
	is(($w->finish(60))[0], '', "$what: works" . ($waited ? ' once the senders and receivers are done' : ' under open senders and receivers'));
	one($node, "SELECT t.put('$q', 'e', 20)");
	$_->close for $s, $w, $l;
	ledger_ok($node, $q, "$what: ledger");
}

# --- slots of aborted rows in one page: every pattern of aborted and kept, vacuumed, filled again --------------------------
{
	one($node, "SELECT mq.create_queue('slots')");
	srand(7);
	for my $round (1 .. 12)
	{
		my $s = session($node);
		for my $i (1 .. 8)
		{
			my $k = 1 + int rand 9;
			if (rand() < 0.5) { $s->q("BEGIN; SELECT t.put('slots', 'never', $k); ROLLBACK"); }
			else              { $s->q("SELECT t.put('slots', 'r$round.$i', $k)"); }
			# a look at half of the page, so that the walker stands in the middle of it
			$s->q("SELECT t.take('slots', " . (1 + int rand 5) . ")") if rand() < 0.4;
			$s->q('VACUUM mq.q_slots') if rand() < 0.5;
			$s->q('VACUUM FULL mq.q_slots') if rand() < 0.1;
		}
		$s->q("SELECT t.take('slots', 1000)") if rand() < 0.3;
		# sessions come and go: the next one has no cached target block
		$s->close;
	}
	ledger_ok($node, 'slots', 'slots of aborted rows, vacuumed and used again');
}

# --- a sender open on the tail page, others beyond it, vacuum between: ids and slots out of step ---------------------------
{
	one($node, "SELECT mq.create_queue('step')");
	my ($a, $b) = map { session($node) } 1 .. 2;
	for my $round (1 .. 6)
	{
		$a->q('BEGIN');
		$b->q('BEGIN');
		for my $i (1 .. 12)
		{
			$a->q("SELECT t.put('step', 'a$round.$i', 3)");
			$b->q("SELECT t.put('step', 'b$round.$i', 3)");
		}
		$b->q('ROLLBACK');
		one($node, "SELECT t.take('step', 5)");
		one($node, 'VACUUM mq.q_step');
		one($node, "SELECT t.put('step', 'c$round', 40)");
		one($node, "SELECT t.take('step', 17)");
		$a->q($round % 2 ? 'COMMIT' : 'ROLLBACK');
		one($node, 'VACUUM mq.q_step');
		one($node, "SELECT t.put('step', 'd$round', 40)");
	}
	$_->close for $a, $b;
	ledger_ok($node, 'step', 'open senders, vacuumed between');
}

# --- VACUUM FULL and friends under fire ------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('fire', options => jsonb_build_object('segment_size', 4096)); CREATE SEQUENCE t.fire");
	my $w = session($node);
	my $stop = stop_file($node) . '_vacuum';
	$w->start("\\set ECHO none\n" . join('', map { "VACUUM mq.q_fire;\n" . ($_ % 3 == 0 ? "VACUUM FULL mq.q_fire;\n" : '') . ($_ % 5 == 0 ? "REINDEX TABLE mq.q_fire;\n" : '') . "SELECT pg_sleep(0.05);\n" } 1 .. 40));
	# (REINDEX waits for a sender that waits for a segment, which cannot be made meanwhile: seldom, and 40P01 as any deadlock)
	$node->pgbench("-n -c 8 -j 2 --max-tries=10 -T " . scaled(5), 0, [qr/processed/], [qr/^$/], 'sends and receives under VACUUM, VACUUM FULL, REINDEX',
		{
			'006_send@3' => "SELECT t.put('fire', 's' || nextval('t.fire'), 2);\n",
			'006_abort@2' => "BEGIN;\nSELECT t.put_batch('fire', 'never', 30);\nROLLBACK;\n",
			'006_take@3' => "SELECT t.take('fire', 5);\n",
			'006_take_rb@1' => "BEGIN;\nSELECT t.take('fire', 5);\nROLLBACK;\n",
			'006_pop@1' => "SELECT t.pop('fire', 5);\n",
		});
	is(($w->finish)[0], '', 'the maintenance worked');
	$w->close;
	ledger_ok($node, 'fire', 'under fire: ledger');
}

# --- TRUNCATE and direct DML are refused -------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('direct'); SELECT t.put('direct', 'x', 10)");
	my $leaf = leaf('direct');
	like($leaf, qr/s_\d+_\d+_\d+/, "the active segment is $leaf");
	for my $t ('mq.q_direct', $leaf)
	{
		is(sqlstate($node, "TRUNCATE $t"), '55000', "TRUNCATE $t");
		is(sqlstate($node, "DELETE FROM $t"), '55000', "DELETE FROM $t");
		is(sqlstate($node, "UPDATE $t SET payload = '0'"), '55000', "UPDATE $t");
		is(sqlstate($node, "INSERT INTO $t SELECT * FROM $t LIMIT 1"), '55000', "INSERT INTO $t");
		isnt(sqlstate($node, "COPY $t (payload) FROM STDIN;\n1\n\\.\n"), '', "COPY $t");
	}
	ledger_ok($node, 'direct', 'and nothing is lost');
}

# --- what append does not maintain is refused clearly, and works again when it is gone ------------------------------------------
{
	one($node, "SELECT mq.create_queue('ddl'); CREATE FUNCTION t.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'");
	one($node, "SELECT t.put('ddl', 'before', 5)");
	my $leaf = leaf('ddl');
	my @ddl = (
		[ 'an index',       "CREATE INDEX bad ON $leaf (id)",                                                      'DROP INDEX mq_internal.bad', qr/index/i ],
		[ 'a unique index', "CREATE UNIQUE INDEX bad ON $leaf (id)",                                               'DROP INDEX mq_internal.bad', qr/index/i ],
		[ 'a trigger',      "CREATE TRIGGER bad BEFORE INSERT ON $leaf FOR EACH ROW EXECUTE FUNCTION t.nothing()", "DROP TRIGGER bad ON $leaf", qr/trigger/i ],
		[ 'a CHECK',        "ALTER TABLE $leaf ADD CONSTRAINT bad CHECK (payload IS DISTINCT FROM '42')",          "ALTER TABLE $leaf DROP CONSTRAINT bad", qr/constraint|check/i ],
		[ 'row security',   "ALTER TABLE $leaf ENABLE ROW LEVEL SECURITY",                                         "ALTER TABLE $leaf DISABLE ROW LEVEL SECURITY", qr/row/i ],
		[ 'an index on the queue', 'CREATE INDEX bad ON mq.q_ddl (enqueued_at)',                          'DROP INDEX mq.bad', qr/index/i ],
		[ 'a column',       "ALTER TABLE mq.q_ddl ADD COLUMN bad int DEFAULT 7",                                   'ALTER TABLE mq.q_ddl DROP COLUMN bad', qr/column/i ],
	);
	for my $d (@ddl)
	{
		my ($name, $make, $drop, $says) = @$d;
		my $state = sqlstate($node, $make);
		if ($state ne '') { pass("$name: not even allowed ($state)"); next; }
		my $err = err($node, "SELECT t.put('ddl', 'during', 1)");
		isnt($err, '', "$name: a send is refused");
		like($err, $says, "$name: the error says why");
		like($err, qr/HINT/, "$name: and what to do");
		like($err, qr/55000/, "$name: 55000");
		# reading goes on (with another column it may be refused until that is gone)
		one($node, "SELECT t.take('ddl', 2)") if $name ne 'a column';
		is(sqlstate($node, $drop), '', "$name: dropped");
		is(sqlstate($node, "SELECT t.put('ddl', 'after " . ++$n . "', 3)"), '', "$name: sends flow again");
	}
	ledger_ok($node, 'ddl', 'nothing was lost meanwhile');
}

# --- CLUSTER needs an index: sends wait for its end, then it flows ----------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('cluster')");
	one($node, "SELECT t.put('cluster', 'a', 100)");
	aborted('cluster', 50);
	one($node, "SELECT t.put('cluster', 'b', 100); SELECT t.take('cluster', 30); SELECT count(*) FROM mq.receive('cluster', max_messages => 20, visibility_timeout => '200 ms')");
	my $leaf = leaf('cluster');
	# backwards, so that physical order is the opposite of id order
	is(sqlstate($node, "CREATE INDEX backwards ON $leaf (id DESC); CLUSTER $leaf USING backwards"), '', 'CLUSTER of the active segment');
	is(one($node, "SELECT count(*) FROM (SELECT t.take('cluster', 10)) x"), '1', 'receives go on');
	isnt(sqlstate($node, "SELECT t.put('cluster', 'c', 5)"), '', 'sends do not, while the index is there');
	one($node, 'DROP INDEX mq_internal.backwards');
	one($node, "SELECT t.put('cluster', 'd', 50)");
	aborted('cluster', 20);
	one($node, 'VACUUM mq.q_cluster');
	one($node, "SELECT t.put_batch('cluster', 'e', 500)");
	ledger_ok($node, 'cluster', 'CLUSTER in reverse order: ledger');

	# the same, then a restart before anybody reads on
	one($node, "SELECT mq.create_queue('cluster2'); SELECT t.put_batch('cluster2', 'a', 3000); SELECT t.take('cluster2', 700)");
	$leaf = leaf('cluster2');
	one($node, "CREATE INDEX backwards ON $leaf (id DESC); CLUSTER $leaf USING backwards; DROP INDEX mq_internal.backwards");
	$node->restart;
	one($node, "SELECT t.put('cluster2', 'b', 20)");
	ledger_ok($node, 'cluster2', 'CLUSTER in reverse order, restart: ledger');

	# and with a backlog that is only partly looked at, while a sender is open
	one($node, "SELECT mq.create_queue('cluster3', options => jsonb_build_object('segment_size', 1024)); SELECT t.put_batch('cluster3', 'a', 5000); SELECT t.take('cluster3', 300)");
	my $s = session($node);
	$s->q("BEGIN; SELECT t.put('cluster3', 'open', 5)");
	my @sealed;
	ok(poll_until('sealed segments', sub { @sealed = split /\n/, one($node, "SELECT segment_table FROM mq.segments WHERE queue = 'cluster3' AND sealed"); @sealed >= 4 }, 60), 'there are sealed segments');
	is(err($node, "SET lock_timeout = '5s'; CREATE INDEX backwards ON $_ (id DESC); CLUSTER $_ USING backwards; DROP INDEX mq_internal.backwards"),
		'', "CLUSTER of $_")
		for @sealed;
	one($node, "SELECT t.take('cluster3', 1500)");
	$s->q('COMMIT');
	$s->close;
	ledger_ok($node, 'cluster3', 'CLUSTER of sealed segments: ledger');
}

# --- toasted payloads survive rewrites --------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('toast')");
	one($node, "SELECT mq.send('toast', body => decode(repeat(md5(i::text), i * 997), 'hex')) FROM generate_series(1, 40) i");
	one($node, "BEGIN; SELECT mq.send('toast', body => decode(repeat(md5(i::text), 5000), 'hex')) FROM generate_series(1, 20) i; ROLLBACK");
	one($node, 'VACUUM FULL mq.q_toast');
	one($node, "SELECT mq.send('toast', body => decode(repeat(md5(i::text), i * 997), 'hex')) FROM generate_series(41, 60) i");
	one($node, 'VACUUM mq.q_toast');
	is(one($node, "SELECT count(*) || ' ' || count(DISTINCT body) || ' ' || bool_and(length(body) % (997 * 16) = 0) FROM mq.pop('toast', max_messages => 100)"), '60 60 true', 'toasted bodies arrive whole');
}

$node->stop;
done_testing();
