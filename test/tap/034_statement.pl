# A receive or pop that waits inside a statement that reads tables: the message that comes meanwhile belongs to rows that the
# statement cannot see.  It stays for the next call.  Statements that read no table have it at once.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('statement', conf => "mq.visibility_timeout = '10 min'\n");
my $admin = session($node);
my $w = session($node);

one($node, <<'SQL');
CREATE TABLE orders (id int, amount int);
CREATE TABLE invoices (id int, amount int);
CREATE VIEW next_job AS SELECT * FROM mq.pop('orders', max_messages => 10, wait => '60 s');
CREATE FUNCTION next_jobs() RETURNS SETOF mq.message LANGUAGE plpgsql AS $$
BEGIN RETURN QUERY SELECT * FROM mq.pop('orders', max_messages => 10, wait => '60 s'); END $$;
CREATE FUNCTION next_jobs_sql() RETURNS SETOF mq.message LANGUAGE sql AS $$
	SELECT * FROM mq.pop('orders', max_messages => 10, wait => '60 s') $$;
CREATE FUNCTION bill() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
	WITH job AS (SELECT * FROM mq.pop('orders', max_messages => 10, wait => '60 s')),
		 i AS (INSERT INTO invoices SELECT o.id, o.amount FROM job JOIN orders o ON o.id = (job.payload->>'k')::int RETURNING 1)
	SELECT count(*) INTO n FROM i;
	RETURN n;
END $$;
CREATE FUNCTION bill_sql() RETURNS bigint LANGUAGE sql AS $$
	WITH job AS (SELECT * FROM mq.pop('orders', max_messages => 10, wait => '60 s')),
		 i AS (INSERT INTO invoices SELECT o.id, o.amount FROM job JOIN orders o ON o.id = (job.payload->>'k')::int RETURNING 1)
	SELECT count(*) FROM i $$;
CREATE FUNCTION bill_by_loop() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE m mq.message; n bigint := 0;
BEGIN
	FOR m IN SELECT * FROM mq.pop('orders', max_messages => 10, wait => '60 s') LOOP
		INSERT INTO invoices SELECT o.id, o.amount FROM orders o WHERE o.id = (m.payload->>'k')::int;
		n := n + 1;
	END LOOP;
	RETURN n;
END $$;
SQL

my $join = "JOIN orders o ON o.id = (job.payload->>'k')::int";
my $pop = "mq.pop('orders', max_messages => 10, wait => '60 s')";
my $receive = "mq.receive('orders', max_messages => 10, wait => '60 s')";

my $case = 0;
# $stays: whether the message is left for the next call
sub waits
{
	my ($name, $sql, $stays) = @_;
	my $id = ++$case;
	one($node, "TRUNCATE orders, invoices; INSERT INTO orders VALUES (0, 0); SELECT mq.create_queue('orders')");
	$w->start($sql);
	poll_until("$name to wait", sub {
		$w->is_done || $admin->q("SELECT count(*) FROM pg_stat_activity WHERE pid = $w->{pid} AND state = 'active' AND wait_event_type IN ('Extension', 'IPC')") eq '1' }, 10);
	one($node, "BEGIN; INSERT INTO orders VALUES ($id, 10); SELECT mq.send('orders', jsonb_build_object('k', $id)); COMMIT");
	my ($state, $out) = $w->finish(20);
	is($state, '', "$name: ends when a message comes");
	$out =~ s/\s+$//;
	my $left = one($node, "SELECT coalesce(sum(ready + retrying + unread_at_most + pending), 0) FROM mq.groups WHERE queue = 'orders'");
	if ($stays)
	{
		is(one($node, 'SELECT count(*) FROM invoices WHERE id > 0'), '0', "$name: nothing done");
		is(one($node, "SELECT count(*) FROM mq.browse('orders', states => '{ready}') WHERE state = 'ready'"), '1', "$name: the message stays");
		$w->q($sql);
	}
	is(one($node, "SELECT string_agg(id::text, ',') FROM invoices WHERE id > 0"), $id, "$name: " . ($stays ? 'the next call has it' : 'done'));
	is(one($node, "SELECT count(*) FROM mq.browse('orders', states => '{ready}') WHERE state = 'ready'"), '0', "$name: nothing left");
	is(one($node, "SELECT count(*) FROM mq.receive('orders', max_messages => 10)"), '0', "$name: and nothing comes again") if $sql !~ /receive/ || $sql =~ /ack/;
	one($node, "SELECT mq.drop_queue('orders', force => true)");
	return;
}

# --- statements that read a table -----------------------------------------------------------------------------------------
waits('INSERT from pop and a join', "WITH job AS (SELECT * FROM $pop) INSERT INTO invoices SELECT o.id, o.amount FROM job $join", 1);
waits('the table in a sub-select', "INSERT INTO invoices SELECT (SELECT id FROM orders WHERE id = (job.payload->>'k')::int), 1 FROM $pop job", 1);
waits('UPDATE ... FROM', "INSERT INTO invoices VALUES (0); WITH job AS (SELECT * FROM $pop), u AS (UPDATE orders o SET amount = 11 FROM job WHERE o.id = (job.payload->>'k')::int RETURNING o.id) INSERT INTO invoices SELECT id FROM u", 1);
waits('MERGE', "MERGE INTO orders o USING $pop job ON o.id = (job.payload->>'k')::int WHEN MATCHED THEN UPDATE SET amount = 12; INSERT INTO invoices SELECT id FROM orders WHERE amount = 12", 1);
waits('receive, ack and INSERT in one statement', "WITH job AS (SELECT * FROM $receive), a AS (SELECT mq.ack(receipt) FROM job), "
	. "i AS (INSERT INTO invoices SELECT o.id, o.amount FROM job $join RETURNING 1) SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM i)", 1);
waits('pop in the target list', "INSERT INTO invoices SELECT o.id, o.amount FROM (SELECT $pop AS job OFFSET 0) j JOIN orders o ON o.id = ((j.job).payload->>'k')::int", 1);
waits('a view', "INSERT INTO invoices SELECT o.id, o.amount FROM next_job job $join", 1);
waits('a PL/pgSQL function with that statement', 'SELECT bill()', 1);
waits('a SQL function with that statement', 'SELECT bill_sql()', 1);
waits('a PL/pgSQL function, joined outside', "INSERT INTO invoices SELECT o.id, o.amount FROM next_jobs() job $join", 1);
waits('a SQL function, joined outside', "INSERT INTO invoices SELECT o.id, o.amount FROM next_jobs_sql() job $join", 1);
waits('a prepared statement', "PREPARE p AS WITH job AS (SELECT * FROM $pop) INSERT INTO invoices SELECT o.id, o.amount FROM job $join; EXECUTE p; DEALLOCATE p", 1);
waits('a WITH part that nobody reads', "WITH i AS (INSERT INTO invoices SELECT o.id, o.amount FROM $pop job $join) SELECT 1", 1);
waits('in a transaction', "BEGIN; WITH job AS (SELECT * FROM $pop) INSERT INTO invoices SELECT o.id, o.amount FROM job $join; COMMIT", 1);

# --- statements that read none ---------------------------------------------------------------------------------------------
waits('INSERT from pop only', "INSERT INTO invoices SELECT (payload->>'k')::int FROM $pop", 0);
waits('INSERT ... ON CONFLICT', "INSERT INTO invoices SELECT (payload->>'k')::int FROM $pop ON CONFLICT DO NOTHING", 0);
waits('two INSERTs from pop', "WITH job AS MATERIALIZED (SELECT * FROM $pop), o AS (INSERT INTO orders SELECT (payload->>'k')::int FROM job) INSERT INTO invoices SELECT (payload->>'k')::int FROM job", 0);
waits('a view, no table', "INSERT INTO invoices SELECT (payload->>'k')::int FROM next_job", 0);
waits('a loop with statements of its own', 'SELECT bill_by_loop()', 0);
waits('a function, no table', "INSERT INTO invoices SELECT (payload->>'k')::int FROM next_jobs()", 0);

# --- the message that is there before the call is had at once, as ever -----------------------------------------------------
one($node, "TRUNCATE orders, invoices; SELECT mq.create_queue('orders'); INSERT INTO orders VALUES (7, 1); SELECT mq.send('orders', '{\"k\": 7}')");
one($node, "WITH job AS (SELECT * FROM $pop) INSERT INTO invoices SELECT o.id, o.amount FROM job $join");
is(one($node, 'SELECT count(*) FROM invoices'), '1', 'what was there before is had at once');

# --- many senders and workers that simply call again: no order is lost -----------------------------------------------------
one($node, 'TRUNCATE orders, invoices');
my $n = 200;
one($node, "CREATE PROCEDURE produce(first int, n int) LANGUAGE plpgsql AS \$\$ BEGIN FOR i IN first .. first + n - 1 LOOP INSERT INTO orders VALUES (i, 1); "
	. "PERFORM mq.send('orders', jsonb_build_object('k', i)); COMMIT; END LOOP; END \$\$");
one($node, "CREATE PROCEDURE work() LANGUAGE plpgsql AS \$\$ DECLARE stop timestamptz := clock_timestamp() + interval '40 s'; BEGIN LOOP WITH job AS (SELECT * FROM mq.pop('orders', max_messages => 10, wait => '2 s')) "
	. "INSERT INTO invoices SELECT o.id, o.amount FROM job $join; COMMIT; EXIT WHEN (SELECT count(*) FROM invoices) >= 2 * $n OR clock_timestamp() > stop; END LOOP; END \$\$");
my @workers = map { session($node) } 1 .. 3;
my @senders = map { session($node) } 1 .. 2;
$_->start('CALL work()') for @workers;
$senders[$_]->start("CALL produce(" . (1 + $_ * $n) . ", $n)") for 0 .. 1;
is(join(',', map { ($_->finish(60))[0] } @senders, @workers), ',,,,', 'senders and workers end');
is(one($node, 'SELECT count(*), count(DISTINCT id) FROM invoices'), (2 * $n) . '|' . (2 * $n), 'each order has one invoice');

done_testing();
