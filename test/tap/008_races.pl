# Race tests: many pgbench clients at once, nothing on stderr, and an exact ledger at the end.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $T = scaled(8);
my $node = mq_node('races', conf => <<CONF);
mq.drop_delay = 0
mq.offset_log_size = '256kB'
synchronous_commit = off
max_prepared_transactions = 50
CONF

one($node, <<'SQL');
CREATE SEQUENCE t.seq;
CREATE FUNCTION t.put1(q text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE key text := 'k' || nextval('t.seq');
BEGIN
	INSERT INTO t.sent VALUES (q, key);
	PERFORM mq.send(q, jsonb_build_object('k', key));
END $$;
-- finishes a committed lease, unless it is no longer ours
CREATE FUNCTION t.finish(q text, n int, receipt text, key text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF n > 0 AND cardinality(mq.ack_batch(ARRAY[receipt::uuid], strict => false)) = 0 THEN
		INSERT INTO t.done VALUES (q, key);
	END IF;
END $$;
CREATE FUNCTION t.give_up(queue_name text, n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		PERFORM t.take(queue_name, n);
		RAISE EXCEPTION 'poison';
	EXCEPTION WHEN raise_exception THEN NULL;
	END;
END $$;
SQL

my $lease = "SELECT count(*) AS n, coalesce(min(receipt::text), '') AS r, coalesce(min(payload->>'k'), '') AS k FROM mq.receive('race', max_messages => 1, visibility_timeout => '%vt%') \\gset\n";
sub lease { my ($vt) = @_; (my $t = $lease) =~ s/%vt%/$vt/; return $t; }

my %mix = (
	'send@12'          => "SELECT t.put1('race');\n",
	'send_batch@2'     => "SELECT t.put_batch('race', 'b' || nextval('t.seq'), 30);\n",
	'send_rollback@2'  => "BEGIN;\nSELECT t.put1('race');\nSELECT t.put_batch('race', 'never', 20);\nROLLBACK;\n",
	'send_savepoint@3' => "BEGIN;\nSELECT t.put1('race');\nSAVEPOINT a;\nSELECT t.put1('race');\nROLLBACK TO a;\nSELECT t.put1('race');\nRELEASE a;\nCOMMIT;\n",
	'take@4'           => "SELECT t.take('race', 5);\n",
	'take_open@3'      => "BEGIN;\nSELECT t.take('race', 3);\nSELECT t.put1('race');\nSELECT t.take('race', 3);\nCOMMIT;\n",
	'take_rollback@3'  => "BEGIN;\nSELECT t.take('race', 5);\nROLLBACK;\n",
	'take_savepoint@3' => "BEGIN;\nSELECT t.take('race', 3);\nSAVEPOINT a;\nSELECT t.take('race', 3);\nROLLBACK TO a;\nSELECT t.take('race', 3);\nCOMMIT;\n",
	'take_exception@2' => "SELECT t.give_up('race', 4);\n",
	'take_rr@2'        => "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT t.take('race', 3);\nSELECT t.take('race', 3);\nCOMMIT;\n",
	'pop@4'            => "SELECT t.pop('race', 5);\n",
	'pop_rollback@2'   => "BEGIN;\nSELECT t.pop('race', 5);\nROLLBACK;\n",
	'lease@4'          => lease('30 s') . "SELECT t.finish('race', :n, ':r', ':k');\n",
	'lease_late@2'     => lease('1 ms') . "SELECT t.finish('race', :n, ':r', ':k');\n",
	'lease_lost@1'     => lease('20 ms'),
	'lease_undo@2'     => lease('30 s') . "BEGIN;\nSELECT t.finish('race', :n, ':r', ':k');\nROLLBACK;\nSELECT t.finish('race', :n, ':r', ':k');\n",
	'nack@2'           => "SELECT count(mq.nack(receipt)) FROM mq.receive('race', max_messages => 3);\n",
	'nack_delay@1'     => "SELECT count(mq.nack(receipt, '5 ms')) FROM mq.receive('race', max_messages => 3);\n",
	'release@2'        => "SELECT count(mq.release(receipt)) FROM mq.receive('race', max_messages => 3);\n",
	'extend@1'         => "SELECT count(mq.extend(receipt, '10 ms')) FROM mq.receive('race', max_messages => 2);\n",
	'twophase@1'       => "BEGIN;\nSELECT t.take('race', 3);\nSELECT t.put1('race');\nPREPARE TRANSACTION 'x:client_id';\nCOMMIT PREPARED 'x:client_id';\n",
	'twophase_rb@1'    => "BEGIN;\nSELECT t.take('race', 3);\nSELECT t.put1('race');\nPREPARE TRANSACTION 'x:client_id';\nROLLBACK PREPARED 'x:client_id';\n",
	'views@1'          => "SELECT count(*) FROM mq.groups;\nSELECT count(*) FROM mq.in_flight;\nSELECT count(*) FROM mq.segments;\nSELECT count(*) FROM mq.queues;\n",
	'vacuum@1'         => "\\set r random(1, 20)\n\\if :r = 1\nVACUUM mq.q_race;\n\\endif\n",
);

one($node, "SELECT mq.create_queue('race', options => jsonb_build_object('segment_size', 1024))");
for my $clients (4, 24)
{
	$node->pgbench("-n -c $clients -j 2 -T $T", 0, [qr/number of failed transactions: 0 |processed: \d+/], [qr/^$/],
		"everything at once, $clients clients", { map { ("008_${clients}_$_" => $mix{$_}) } sort keys %mix });
	like(one($node, "SELECT count(*) FROM t.sent"), qr/^[1-9]\d\d+/, 'messages were sent');
	like(one($node, "SELECT count(*) FROM t.done"), qr/^[1-9]\d\d+/, 'messages were done');
}
ledger_ok($node, 'race', 'everything at once: ledger');
is(one($node, "SELECT count(*) FROM mq.in_flight WHERE queue = 'race'"), '0', 'nothing is in flight at the end');
$node->restart;
one($node, "SELECT t.put('race', 'restart', 3)");
ledger_ok($node, 'race', 'and after a restart nothing comes back');

# --- one statement: the message's order row is always visible to the statement that pops it ---------------------------
one($node, <<'SQL');
SELECT mq.create_queue('orders', options => '{"segment_size": 1024}');
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, done int NOT NULL DEFAULT 0);
CREATE INDEX ON orders (id);
SQL
$node->pgbench("-n -c 16 -j 2 -T $T", 0, [qr/processed/], [qr/^$/], 'one-statement consumers',
	{
		'008_order@4' => "WITH o AS (INSERT INTO orders DEFAULT VALUES RETURNING id) SELECT mq.send('orders', jsonb_build_object('id', id)) FROM o;\n",
		'008_order_back@1' => "BEGIN;\nWITH o AS (INSERT INTO orders DEFAULT VALUES RETURNING id) SELECT mq.send('orders', jsonb_build_object('id', id)) FROM o;\nROLLBACK;\n",
		'008_bill@2' => "WITH m AS (SELECT * FROM mq.pop('orders', max_messages => 4)) UPDATE orders o SET done = done + 1 FROM m WHERE o.id = (m.payload->>'id')::bigint;\n",
		'008_bill_rr@1' => "BEGIN ISOLATION LEVEL REPEATABLE READ;\nWITH m AS (SELECT * FROM mq.pop('orders', max_messages => 4)) UPDATE orders o SET done = done + 1 FROM m WHERE o.id = (m.payload->>'id')::bigint;\nCOMMIT;\n",
		'008_bill_ack@1' => "WITH m AS (SELECT * FROM mq.receive('orders', max_messages => 4)), u AS (UPDATE orders o SET done = done + 1 FROM m WHERE o.id = (m.payload->>'id')::bigint RETURNING m.receipt) SELECT count(mq.ack(receipt)) FROM u;\n",
	});
ok(poll_until('all orders to be billed', sub {
	one($node, "WITH m AS (SELECT * FROM mq.pop('orders', max_messages => 1000)) UPDATE orders o SET done = done + 1 FROM m WHERE o.id = (m.payload->>'id')::bigint");
	one($node, "SELECT NOT EXISTS (SELECT FROM orders WHERE done = 0)") eq 't';
}, 60), 'every order is billed');
is(one($node, "SELECT count(*) FROM orders WHERE done <> 1"), '0', 'exactly once each');
like(one($node, "SELECT count(*) FROM orders"), qr/^[1-9]\d\d+$/, 'and there were orders');

# --- queues come and go: create, use and drop in one transaction or several, each client its own -----------------------
$node->pgbench("-n -c 8 -j 2 -T " . int($T / 2 + 1), 0, [qr/processed/], [qr/^$/], 'queues come and go',
	{
		'008_whole_rb' => "BEGIN;\nSELECT mq.create_queue('c:client_id');\nSELECT mq.send('c:client_id', '1');\nSELECT mq.ack(receipt) FROM mq.receive('c:client_id');\nSELECT mq.drop_queue('c:client_id');\nROLLBACK;\n",
		'008_whole' => "BEGIN;\nSELECT mq.create_queue('c:client_id');\nSELECT mq.send('c:client_id', '1');\nSELECT mq.drop_queue('c:client_id', force => true);\nCOMMIT;\n",
		'008_parts' => "SELECT mq.create_queue('c:client_id', options => jsonb_build_object('segment_size', 1024));\nSELECT mq.send_batch('c:client_id', array_fill('1'::jsonb, ARRAY[1500]));\nSELECT count(*) FROM mq.pop('c:client_id', max_messages => 700);\nSELECT count(*) FROM mq.receive('c:client_id', max_messages => 700);\nSELECT mq.drop_queue('c:client_id', force => true);\n",
		'008_shared' => "SELECT t.put1('orders_shared');\nSELECT t.take('orders_shared', 2);\n",
	}) if one($node, "SELECT mq.create_queue('orders_shared', options => jsonb_build_object('segment_size', 1024))") eq '';
is(one($node, "SELECT count(*) FROM mq.queues WHERE queue ~ '^c[0-9]+\$'"), '0', 'no queue is left');
ledger_ok($node, 'orders_shared', 'queues come and go: the ledger of the one that stayed');

# --- the same with some clients dying: pg_terminate_backend at random ----------------------------------------------------
one($node, "SELECT mq.create_queue('deaths', options => jsonb_build_object('segment_size', 1024))");
{
	my @s = map { session($node) } 1 .. 6;
	my $put = session($node);
	my $end = time() + $T;
	my $rounds = 0;
	$_->start("BEGIN; SELECT t.take('deaths', 3); SELECT t.put1('deaths'); SELECT t.take('deaths', 2); COMMIT") for @s;
	while (time() < $end)
	{
		$put->try("SELECT t.put('deaths', 'd$rounds', 10)");
		$rounds++;
		# each killed at some moment of its work
		for my $i (0 .. $#s)
		{
			if (rand() < 0.15)
			{
				one($node, "SELECT pg_terminate_backend($s[$i]{pid})");
				$s[$i]->finish;
				$s[$i]->close;
				$s[$i] = session($node);
			}
			elsif (rand() < 0.15) { one($node, "SELECT pg_cancel_backend($s[$i]{pid})"); $s[$i]->finish; $s[$i]->try('ROLLBACK'); }
			elsif (!$s[$i]->is_done) { next; }
			$s[$i]->finish if defined $s[$i]{mark};
			my $commit = rand() < 0.7 ? 'COMMIT' : 'ROLLBACK';
			$s[$i]->start("BEGIN; SELECT t.take('deaths', 3); SELECT t.put1('deaths'); SELECT t.take('deaths', 2); $commit");
		}
	}
	$_->finish for @s;
	$_->try('ROLLBACK') for @s;
	$_->close for @s, $put;
	cmp_ok($rounds, '>', 3, 'deaths: rounds were played');
	ledger_ok($node, 'deaths', 'terminated and cancelled sessions: ledger');
}

my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/PANIC|TRAP|was terminated by signal/, 'no PANIC, no failed assertion, no crash in the server log');
$node->stop;
done_testing();
