# Messages with a deduplication id: each id is sent once, whoever sends it, however many at once and in whatever order, after a crash
# in the middle, and beside prepared transactions. No transaction fails for it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time);
use MqTest;

my $node = mq_node('dedup', fsync => 1, conf => "mq.drop_delay = 0\n");
my $points = mq_stop_points($node);

sub row { my ($q, $column) = @_; return one($node, "SELECT $column FROM mq.queues WHERE queue = '$q'"); }

# ---------------------------------------------------------------------------------------------------------------------
# many at once: single ones and batches, committed, rolled back, in savepoints, in all isolation levels. What a client was told is
# written down in the same transaction.

one($node, <<'SQL');
CREATE TABLE t.told (d text, id bigint, who int);
CREATE FUNCTION t.once(q text, d text, who int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE id bigint;
BEGIN
	id := mq.send(q, to_jsonb(d), dedup_id => d);
	INSERT INTO t.told VALUES (d, id, who);
	RETURN id;
END $$;
CREATE FUNCTION t.once_batch(q text, first int, step int, n int, who int) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
	d text[] := (SELECT array_agg('d' || (first + i * step + 100000) % 600 ORDER BY i) FROM generate_series(1, n) i);
	ids bigint[];
BEGIN
	ids := mq.send_batch(q, (SELECT array_agg(to_jsonb(x)) FROM unnest(d) x), dedup_ids => d);
	INSERT INTO t.told SELECT u.d, u.id, who FROM unnest(d, ids) AS u(d, id);
	RETURN ids;
END $$;
SQL
one($node, "SELECT mq.create_queue('race'), mq.create_queue('other')");
my $seconds = scaled(12);
$node->pgbench("-n -c 16 -j 2 -T $seconds", 0, [qr/number of failed transactions: 0 |processed: \d+/], [qr/^$/],
	'16 clients with the same 600 ids',
	{
		'090_single@6' => "\\set i random(1, 600)\nSELECT t.once('race', 'd' || :i, :client_id);\n",
		'090_up@2' => "\\set i random(1, 600)\nSELECT t.once_batch('race', :i, 1, 20, :client_id);\n",
		'090_down@2' => "\\set i random(1, 600)\nSELECT t.once_batch('race', :i, -1, 20, :client_id);\n",
		'090_rollback@4' => "\\set i random(1, 600)\nBEGIN;\nSELECT t.once_batch('race', :i, 1, 5, :client_id);\nROLLBACK;\n",
		'090_savepoint@2' => "\\set i random(1, 600)\nBEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT 1;\nSAVEPOINT s;\nSELECT t.once('race', 'd' || :i, :client_id);\nROLLBACK TO s;\nSELECT t.once('race', 'd' || :i, :client_id);\nCOMMIT;\n",
		'090_serializable@2' => "\\set i random(1, 600)\nBEGIN ISOLATION LEVEL SERIALIZABLE;\nSELECT mq.send('race', to_jsonb('d' || :i), dedup_id => 'd' || :i);\nCOMMIT;\n",
		'090_other@1' => "\\set i random(1, 600)\nSELECT t.once('other', 'o' || :i, :client_id);\n",
	});
my $sent = one($node, "SELECT count(*) FROM mq.browse('race', max_messages => 100000)");
cmp_ok($sent, '>', 300, "ids were used ($sent)");
is(one($node, "SELECT count(*) FROM (SELECT dedup_id FROM mq.browse('race', max_messages => 100000) GROUP BY 1 HAVING count(*) > 1) x"), '0', 'no id was sent twice');
is(one($node, "SELECT count(*) FROM mq.browse('race', max_messages => 100000) WHERE payload #>> '{}' <> dedup_id"), '0', 'and each is of its message');
is(one($node, "SELECT count(*) FROM t.told LEFT JOIN (SELECT * FROM mq.browse('race', max_messages => 100000) UNION ALL SELECT * FROM mq.browse('other', max_messages => 100000)) m ON m.id = told.id AND m.dedup_id = told.d WHERE m.id IS NULL"), '0',
	'every client was told the id of the one that was sent: no false positives, and none was lost');
cmp_ok(row('race', 'duplicates'), '>', 100, 'repeats are counted');
is(one($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND objsubid > 0 AND classid = 'mq_internal.queue'::regclass"), '0', 'no lock is left');

# ---------------------------------------------------------------------------------------------------------------------
# one that waits counts its window from when it was sent

one($node, "SELECT mq.create_queue('w', options => '{\"dedup_window\": \"5 s\"}')");
my $a = session($node);
my $b = session($node);
$a->q("BEGIN");
$a->q("SELECT mq.send('w', '1', dedup_id => 'x')");
$b->start("SELECT mq.send('w', '2', dedup_id => 'x')");
ok(poll_until('the second to wait', sub { $b->waits_on_lock($node) }), 'the second waits');
is(one($node, "SELECT wait_event FROM pg_stat_activity WHERE pid = " . $b->pid), 'transactionid', 'for a transaction, which pg_locks shows');
$a->q("ROLLBACK");
$b->finish;
is(one($node, "SELECT string_agg(payload::text, ',') FROM mq.pop('w', max_messages => 10)"), '2', 'the first rolls back: the second is sent');
is(sqlstate($node, "SET lock_timeout = '100 ms'; SELECT mq.dedup_find('w', 'x')"), '', 'dedup_find waits for nobody');
$a->q("BEGIN");
$a->q("SELECT mq.send('w', '3', dedup_id => 'y')");
is(sqlstate($node, "SET lock_timeout = '100 ms'; SELECT mq.send('w', '4', dedup_id => 'y')"), '55P03', 'lock_timeout holds');
is(sqlstate($node, "SET statement_timeout = '100 ms'; SELECT mq.send('w', '4', dedup_id => 'y')"), '57014', 'and statement_timeout');
$a->q("COMMIT");

# opposite orders in several statements: PostgreSQL finds the circle
$a->q("BEGIN");
$b->q("BEGIN");
$a->q("SELECT mq.send('w', '1', dedup_id => 'c1')");
$b->q("SELECT mq.send('w', '1', dedup_id => 'c2')");
$a->start("SELECT mq.send('w', '1', dedup_id => 'c2')");
ok(poll_until('the first to wait', sub { $a->waits_on_lock($node) }), 'one waits for the other');
my ($state_b, $out_b) = $b->try("SELECT mq.send('w', '1', dedup_id => 'c1')");
$b->q("ROLLBACK");
my ($state_a, $out_a) = $a->finish;
$a->q("ROLLBACK");
like(join(' ', grep { defined } $state_a, $out_a, $state_b, $out_b), qr/deadlock|40P01/, 'and the other for it: one of them is told, 40P01');

# ---------------------------------------------------------------------------------------------------------------------
# prepared transactions: waited for, but not for long; across a crash

one($node, "SELECT mq.create_queue('p')");
for my $end ('COMMIT', 'ROLLBACK')
{
	for my $how (qw(none kill9))
	{
		my $d = "$end $how";
		my $id = one($node, "BEGIN; SELECT mq.send('p', '1', dedup_id => '$d') \\gset\n PREPARE TRANSACTION 'p'; SELECT :send");
		if ($how eq 'kill9') { $node->kill9; mq_start_again($node); }
		my $begun = time;
		is(sqlstate($node, "SELECT mq.send('p', '2', dedup_id => '$d')"), '55P03', "$d: a prepared one is waited for, and then it is an error") if $how eq 'kill9' || $end eq 'COMMIT';
		cmp_ok(time - $begun, '<', 60, "$d: after some seconds");
		is(one($node, "SELECT mq.send('p', '2', dedup_id => 'beside $d')") > 0, 1, "$d: others are sent");
		one($node, "$end PREPARED 'p'");
		my $second = one($node, "SELECT mq.send('p', '2', dedup_id => '$d')");
		is($second == $id ? 'COMMIT' : 'ROLLBACK', $end, "$d: then it is a repeat, or not");
	}
}
like(err($node, "BEGIN; SELECT mq.send('p', '1', dedup_id => 'h'); PREPARE TRANSACTION 'h'; SELECT mq.send('p', '1', dedup_id => 'h')"), qr/HINT:.*COMMIT PREPARED/s, 'with a hint');
one($node, "ROLLBACK PREPARED 'h'");
# it ends while somebody waits
one($node, "BEGIN; SELECT mq.send('p', '1', dedup_id => 'i'); PREPARE TRANSACTION 'i'");
$b = session($node);
$b->start("SELECT mq.send('p', '2', dedup_id => 'i')");
ok(poll_until('the sender to wait', sub { one($node, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = " . $b->pid) eq 'Extension' }), 'a sender waits');
one($node, "COMMIT PREPARED 'i'");
$b->finish;
is(one($node, "SELECT count(*) FROM mq.browse('p', max_messages => 1000) WHERE dedup_id = 'i'"), '1', 'and is told of the one that was prepared');

# ---------------------------------------------------------------------------------------------------------------------
# crash: between the look and the send, between the send and the note of it, and after a commit

SKIP:
{
	skip 'no stop points in this build', 1 if !$points;
	for my $point (qw(dedup_claimed send_after_insert))
	{
		$node->psql('postgres', "SET mq.stop_point = '$point:kill'; SELECT mq.send('p', '\"lost\"', dedup_id => '$point')");
		mq_restart_after($node);
		is(one($node, "SELECT mq.dedup_find('p', '$point')"), '', "killed at $point: the id is free");
		my $id = one($node, "SELECT mq.send('p', '\"kept\"', dedup_id => '$point')");
		is(one($node, "SELECT mq.send('p', '\"kept\"', dedup_id => '$point')"), $id, 'is sent once');
		is(one($node, "SELECT string_agg(payload #>> '{}', ',') FROM mq.browse('p', max_messages => 1000) WHERE dedup_id = '$point'"), 'kept', 'and there once');
	}
}
my $id = one($node, "SELECT mq.send('p', '1', dedup_id => 'durable')");
$node->kill9;
mq_start_again($node);
is(one($node, "SELECT mq.send('p', '1', dedup_id => 'durable')"), $id, 'after a crash it is known');
is(row('p', 'duplicates'), '1', 'duplicates are counted from the start on');
my $ids = one($node, "SELECT count(DISTINCT dedup_id) FROM mq.browse('p', max_messages => 1000)");
ok(poll_until('the count', sub { row('p', 'dedup_ids') eq $ids }), 'dedup_ids are counted after a start');
one($node, "SELECT mq.send('p', '1', dedup_id => 'one more')");
is(row('p', 'dedup_ids'), $ids + 1, 'and go on');
$node->restart;
is(one($node, "SELECT mq.send('p', '1', dedup_id => 'durable')"), $id, 'after a restart too');

# ---------------------------------------------------------------------------------------------------------------------
# the table of a superuser's

for my $t (qw(day_0 day_1 day_2)) { one($node, "CREATE INDEX bad_$t ON mq_internal.dedup_$t ((id + 1))"); }
is(sqlstate($node, "SELECT mq.send('p', '1', dedup_id => 'altered')"), '55000', 'an index on an expression: refused');
for my $t (qw(day_0 day_1 day_2)) { one($node, "DROP INDEX mq_internal.bad_$t"); }
is(sqlstate($node, "SELECT mq.send('p', '1', dedup_id => 'altered')"), '', 'undone');

# a queue is dropped while somebody holds an id of it
$a = session($node);
$a->q("BEGIN");
$a->q("SELECT mq.dedup_forget('p', 'durable')");
$b = session($node);
$b->start("SELECT mq.drop_queue('p', true)");
ok(poll_until('the drop to wait', sub { $b->waits_on_lock($node) }), 'a drop waits for who has freed an id');
$a->q("COMMIT");
$b->finish;
is(sqlstate($node, "SELECT mq.dedup_find('p', 'durable')"), '42704', 'dropped');
done_testing();
