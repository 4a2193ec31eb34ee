# Senders: long open ones, huge ones, many at once; nobody is skipped, delayed or taken out of order.
# The numbers of the issue are met once: a million in an open sender, 5 million in one transaction, 16 bulk senders,
# create_queue + a million in one transaction.  MQ_SCALE=0.1 makes them smaller.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('senders', conf => "mq.drop_delay = 0\nsynchronous_commit = off\n");
my $million = scaled(1_000_000);
my $five = scaled(5_000_000);

one($node, <<'SQL');
-- sends first..last as numbers, a thousand per call
CREATE FUNCTION t.numbers(q text, first bigint, last bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE lo bigint := first;
BEGIN
	WHILE lo <= last LOOP
		PERFORM mq.send_batch(q, (SELECT array_agg(to_jsonb(i) ORDER BY i) FROM generate_series(lo, least(lo + 999, last)) i));
		lo := lo + 1000;
	END LOOP;
END $$;
-- pops first..last and checks that they come complete and in order; other payloads (strings) may come in between
CREATE PROCEDURE t.check_numbers(q text, first bigint, last bigint, batch int DEFAULT 20000, secs int DEFAULT 170) LANGUAGE plpgsql AS $$
DECLARE nxt bigint := first; r record; stop timestamptz := clock_timestamp() + secs * interval '1 s';
BEGIN
	WHILE nxt <= last LOOP
		SELECT count(*) AS n, min(i) AS lo, max(i) AS hi, sum(i) AS total,
			   coalesce(bool_and(i > before), true) AS in_order
		INTO r
		FROM (SELECT i, lag(i, 1, 0) OVER () AS before
			  FROM (SELECT CASE WHEN jsonb_typeof(payload) = 'number' THEN payload::bigint END AS i FROM mq.pop(q, max_messages => batch)) p
			  WHERE i IS NOT NULL) x;
		COMMIT;
		IF r.n > 0 THEN
			IF r.lo <> nxt OR r.hi <> nxt + r.n - 1 OR r.total <> (r.lo + r.hi) * r.n / 2 OR NOT r.in_order THEN
				RAISE EXCEPTION 'expected % .. %, got % from % to %, in order %', nxt, nxt + r.n - 1, r.n, r.lo, r.hi, r.in_order;
			END IF;
			nxt := r.hi + 1;
		ELSIF clock_timestamp() > stop THEN
			RAISE EXCEPTION 'stuck at %: %', nxt, (SELECT to_jsonb(g) FROM mq.groups g WHERE queue = q);
		END IF;
	END LOOP;
END $$;
SQL

sub check_numbers
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($q, $first, $last, $name) = @_;
	my $err = '';
	my $rc = $node->psql('postgres', "CALL t.check_numbers('$q', $first, $last)", stderr => \$err);
	return is($rc == 0 ? '' : $err, '', $name);
}

# --- a million in an open sender, others go on, from the first moment to the last ---------------------------------------
{
	one($node, "SELECT mq.create_queue('long')");
	my ($a, $b, $c) = map { session($node) } 1 .. 3;
	$a->q('BEGIN');
	$a->start("SELECT t.numbers('long', 1, $million)");
	my ($passed, $missed, $slow) = (0, 0, 0);
	until ($a->is_done)
	{
		$b->q("SELECT t.put('long', 'b$passed', 2)");
		# at once: the very next receive has them
		my $t0 = time();
		my $n = $c->q("SELECT t.take('long', 10)");
		$n == 2 ? $passed++ : $missed++;
		if ($n != 2) { diag("a committed message was not there at once: $n of 2; " . settle_text($node, 'long')); last if $missed > 5; }
	}
	is(($a->finish)[0], '', 'a million messages sent in an open transaction');
	cmp_ok($passed, '>', 3, "others' messages flowed meanwhile ($passed rounds)");
	is($missed, 0, 'and each was there at once');
	$b->q("SELECT t.put('long', 'last', 5)");
	is($c->q("SELECT t.take('long', 10)"), '5', 'after the bulk too, still open');
	is($c->q("SELECT t.take('long', 10)"), '0', 'nothing uncommitted is received');
	$a->q('COMMIT');
	check_numbers('long', 1, $million, 'after its commit all of its messages arrive, complete and in order');
	ledger_ok($node, 'long', "the others' ledger");
	$_->close for $a, $b, $c;
}

# --- the same, rolled back -----------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('undone')");
	my $a = session($node);
	$a->q("BEGIN; SELECT t.numbers('undone', 1, " . scaled(200_000) . ")");
	one($node, "SELECT t.put('undone', 'b', 10); SELECT t.take('undone', 4)");
	$a->q('ROLLBACK');
	ledger_ok($node, 'undone', 'a long sender that rolls back leaves nothing');
	$a->close;
}

# --- single sends of an open sender between others' single sends, some savepoints rolled back ------------------------------
{
	one($node, "SELECT mq.create_queue('woven', options => jsonb_build_object('segment_size', 1024))");
	my ($a, $b, $c, $r) = map { session($node) } 1 .. 4;
	$_->q('BEGIN') for $a, $r;
	for my $i (1 .. scaled(700))
	{
		if ($i % 3 == 0) { $a->q("SAVEPOINT s; SELECT t.put('woven', 'a$i', 1); " . ($i % 2 ? 'ROLLBACK TO s' : 'RELEASE s')); }
		else             { $a->q("SELECT t.put('woven', 'a$i', 1)"); }
		$b->q("SELECT t.put('woven', 'b$i', 1)");
		$r->q("SELECT t.put('woven', 'r$i', 1)");
		$c->q("SELECT t.take('woven', 5)") if $i % 5 == 0;
	}
	$c->q("SELECT t.take('woven', 1000)");
	is(one($node, "SELECT count(*) - (SELECT count(*) FROM t.done WHERE q = 'woven') FROM t.sent WHERE q = 'woven'"), '0',
		"woven: everybody else's messages arrived while the senders were open");
	$r->q('ROLLBACK');
	$a->q('COMMIT');
	ledger_ok($node, 'woven', 'woven: the open sender kept what it kept, and lost what it rolled back');
	$_->close for $a, $b, $c, $r;
}

# --- thousands of singles of two open senders and pgbench clients at full speed -------------------------------------------
{
	one($node, "SELECT mq.create_queue('mixed', options => jsonb_build_object('segment_size', 1024)); CREATE SEQUENCE t.mixed");
	my ($a, $b) = map { session($node) } 1 .. 2;
	$_->q('BEGIN') for $a, $b;
	my $n = scaled(3000);
	for my $s ([ $a, 'a' ], [ $b, 'b' ])
	{
		$s->[0]->start(<<SQL);
DO \$\$ BEGIN
	FOR i IN 1 .. $n LOOP
		BEGIN
			PERFORM t.put('mixed', '$s->[1]' || i, 1);
			IF i % 7 = 0 THEN RAISE EXCEPTION 'no'; END IF;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
	END LOOP;
END \$\$
SQL
	}
	$node->pgbench("-n -c 6 -j 2 -t " . scaled(400), 0, [qr/processed/], [qr/^$/], "others' single sends in the same moments",
		{ '004_mixed@3' => "SELECT t.put('mixed', 'p' || nextval('t.mixed'), 1);\n", '004_mixed_take@2' => "SELECT t.take('mixed', 3);\n" });
	is(($a->finish)[0], '', 'an open sender with thousands of subtransactions');
	is(($b->finish)[0], '', 'and another');
	ok(poll_until("others' messages", sub { one($node, "SELECT t.take('mixed', 1000)"); one($node, "SELECT count(*) - (SELECT count(*) FROM t.done WHERE q = 'mixed') FROM t.sent WHERE q = 'mixed'") eq '0' }, 30),
		"everybody else's messages arrive while both are open");
	$a->q('COMMIT');
	ok(poll_until("the first's", sub { one($node, "SELECT t.take('mixed', 1000)"); one($node, "SELECT count(*) - (SELECT count(*) FROM t.done WHERE q = 'mixed') FROM t.sent WHERE q = 'mixed'") eq '0' }, 30),
		'then those of the first to commit');
	$b->q('ROLLBACK');
	ledger_ok($node, 'mixed', 'mixed: ledger');
	$_->close for $a, $b;
}

# --- a transaction open across segment boundaries, its segment old, everything around it finished and dropped ---------------
{
	one($node, "SELECT mq.create_queue('old', options => jsonb_build_object('segment_size', 1024))");
	my $a = session($node);
	$a->q("BEGIN; SELECT t.put('old', 'early', 3)");
	one($node, "SELECT t.put_batch('old', 'o$_', 1500); SELECT t.take('old', 1500)") for 1 .. 5;
	$a->q("SELECT t.put('old', 'late', 3)");
	one($node, "SELECT t.put_batch('old', 'p$_', 1500); SELECT t.take('old', 1500)") for 1 .. 3;
	is(one($node, "SELECT t.take('old', 10)"), '0', 'only the open sender is left');
	$a->q("SELECT t.put('old', 'own', 2); SELECT t.take('old', 4); COMMIT");
	ledger_ok($node, 'old', 'a sender open across many segments loses nothing, whatever was dropped around it');
	$a->close;
}

# --- 5 million in one transaction ------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('five')");
	my $a = session($node);
	$a->q('BEGIN');
	$a->start("SELECT t.numbers('five', 1, $five)");
	my $rounds = 0;
	until ($a->is_done)
	{
		my $n = one($node, "SELECT t.put('five', 'x$rounds', 1); SELECT t.take('five', 5)");
		$n =~ /\n1$/ ? $rounds++ : last;
	}
	is(($a->finish)[0], '', "$five messages in one transaction");
	cmp_ok($rounds, '>', 3, "others' messages flowed meanwhile ($rounds rounds)");
	$a->q('COMMIT');
	check_numbers('five', 1, $five, 'they arrive complete and in order');
	ledger_ok($node, 'five', "the others' ledger");
	ok(poll_until('finished segments to be dropped', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'five'") <= 5 }),
		'and their segments are dropped');
	$a->close;
	one($node, "SELECT mq.drop_queue('five')");
}

# --- 16 bulk senders at once, small segments ---------------------------------------------------------------------------------
for my $case ([ 'bulk16', 16384, scaled(20_000) ], [ 'bulk1', 1024, scaled(1500) ])
{
	my ($q, $size, $n) = @$case;
	one($node, "SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', $size)); CREATE SEQUENCE t.$q");
	$node->pgbench("-n -c 16 -j 2 -t 2", 0, [qr/processed: 32/], [qr/^$/], "16 bulk senders of $n, segments of $size: none meets a missing segment",
		{ "004_$q" => "SELECT t.put_batch('$q', 'b' || nextval('t.$q'), $n);\n" });
	is(one($node, "SELECT count(*) FROM t.sent WHERE q = '$q'"), 32 * $n, "$q: all sent");
	ledger_ok($node, $q, "$q: ledger", batch => 5000);
	# per sender, order holds
	is(one($node, "SELECT count(*) FROM mq.segments WHERE queue = '$q'") < 32 * $n / $size ? 'dropped' : 'none dropped', 'dropped', "$q: finished segments are dropped") if poll_until('drops', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = '$q'") < 6 }, 60) || 1;
}

# --- create_queue + a million sends in one transaction, rolled back and committed ---------------------------------------------
{
	my $a = session($node);
	is($a->try("BEGIN; SELECT mq.create_queue('whole', options => jsonb_build_object('segment_size', 100000)); SELECT t.numbers('whole', 1, $million)"), '',
		'create_queue + a million sends in one transaction: the sender makes its segments itself');
	is($a->try("SELECT count(*) FROM mq.pop('whole', max_messages => 1000)"), '', 'and may receive them');
	$a->q('ROLLBACK');
	is(one($node, "SELECT count(*) FROM pg_class WHERE relname = 'q_whole'"), '0', 'rolled back: nothing is left');
	is(sqlstate($node, "SELECT mq.send('whole', '1')"), '42704', 'and the queue is unknown');
	$a->q("BEGIN; SELECT mq.create_queue('whole', options => jsonb_build_object('segment_size', 100000)); SELECT t.numbers('whole', 1, $million); COMMIT");
	check_numbers('whole', 1, $million, 'committed: all there, in order');
	$a->close;
}

# --- ids: unique, ascending per sender, and what send returned is what receive shows -------------------------------------------
{
	one($node, "SELECT mq.create_queue('ids', options => jsonb_build_object('segment_size', 1024))");
	my @ids = split /\n/, one($node, "SELECT unnest(mq.send_batch('ids', array_fill('1'::jsonb, ARRAY[50]))); SELECT mq.send('ids', '1') FROM generate_series(1, 5)");
	is(scalar @ids, 55, '55 ids');
	is(join(',', @ids), join(',', sort { $a <=> $b } @ids), 'they ascend');
	is(one($node, "SELECT string_agg(id::text, ',') FROM mq.pop('ids', max_messages => 100)"), join(',', @ids), 'receive shows the same, in order');
}

$node->stop;
done_testing();
