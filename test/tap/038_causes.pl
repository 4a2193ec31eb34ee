# What counts as a failure of a message whose transaction is undone, and what does not; whatever the settings of the log.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('causes', conf => "log_min_messages = panic\nmq.visibility_timeout = '10 min'\nlc_messages = 'C'\n");
my $points = mq_stop_points($node);
my $admin = session($node);
my $pg = one($node, "SELECT current_setting('server_version_num')::int");

one($node, <<'SQL');
SELECT mq.create_queue('q');
CREATE TABLE t.locked (i int);
INSERT INTO t.locked VALUES (1);
CREATE TABLE t.parent (i int PRIMARY KEY);
CREATE TABLE t.child (i int REFERENCES t.parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION t.fail(code text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'made up' USING errcode = code; END $$;
SQL

my $take = "BEGIN; SELECT count(*) FROM mq.receive('q', max_messages => 10)";

# the message is taken in a transaction that ends so; then it is ready, with so many failures
sub ends_with
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($name, $failures, $code) = @_;
	one($node, "SELECT mq.purge('q'); SELECT mq.send('q', '1')");
	my $s = session($node);
	$code->($s);
	eval { $s->try('ROLLBACK') };
	ok(poll_until("$name: to be ready", sub { one($node, "SELECT count(*) FROM mq.browse('q', states => '{ready}')") eq '1' }, 20), "$name: ready again");
	is(one($node, "SELECT attempt || ' ' || failures FROM mq.receive('q')"), "2 $failures", "$name: " . ($failures ? 'a failure' : 'no failure'));
	return;
}

sub by { my (@sql) = @_; return sub { my ($s) = @_; $s->q($take); $s->try($_) for @sql; }; }

sub wait_gone { my ($s, $t) = @_; return poll_until('the session to end', sub { $admin->q("SELECT count(*) FROM pg_stat_activity WHERE pid = $s->{pid}") eq '0' }, $t || 20); }

# started, and asleep; then something is done to it
sub while_asleep
{
	my ($sql, $do) = @_;
	return sub {
		my ($s) = @_;
		$s->q($take);
		$s->start($sql);
		poll_until('it to sleep', sub { $admin->q("SELECT count(*) FROM pg_stat_activity WHERE pid = $s->{pid} AND wait_event IN ('PgSleep', 'relation', 'transactionid')") eq '1' }, 20);
		$do->($s);
		$s->finish(30);
	};
}

for my $level ('panic', 'fatal', 'debug1')
{
	one($node, "ALTER SYSTEM SET log_min_messages = '$level'");
	one($node, 'SELECT pg_reload_conf()');
	poll_until('the setting', sub { one($node, 'SHOW log_min_messages') eq $level });

	# the work's
	ends_with("log $level, an error", 1, by('SELECT 1 / (SELECT 0)'));
	ends_with("log $level, statement_timeout", 1, by("SET LOCAL statement_timeout = '50 ms'", 'SELECT pg_sleep(30)'));
	ends_with("log $level, lock_timeout", 1, sub {
		my ($s) = @_;
		my $holder = session($node);
		$holder->q('BEGIN; LOCK TABLE t.locked');
		by("SET LOCAL lock_timeout = '50 ms'", 'SELECT * FROM t.locked')->($s);
		$holder->q('ROLLBACK');
	});
	# nobody's
	ends_with("log $level, cancel", 0, while_asleep('SELECT pg_sleep(30)', sub { $admin->q("SELECT pg_cancel_backend($_[0]->{pid})") }));
	ends_with("log $level, cancel in a command", 0, while_asleep('DO $$ BEGIN PERFORM pg_sleep(30); END $$', sub { $admin->q("SELECT pg_cancel_backend($_[0]->{pid})") }));
	for my $code ('40001', '40P01', '53100', '53200', '53400')
	{
		ends_with("log $level, $code", 0, by("SELECT t.fail('$code')"));
	}
	# undone to a savepoint it is over: the ROLLBACK that follows is the client's own
	ends_with("log $level, 40001 in a savepoint, undone", 1, by('SAVEPOINT a', "SELECT t.fail('40001')", 'ROLLBACK TO a'));
	ends_with("log $level, 40001 in a savepoint, not undone", 0, by('SAVEPOINT a', "SELECT t.fail('40001')"));
}

ends_with('plain ROLLBACK', 1, by('ROLLBACK'));
ends_with('an error of the planner', 1, by('SELECT 1 / 0'));
ends_with('cancel of a lock wait in a command', 0, sub {
	my ($s) = @_;
	my $holder = session($node);
	$holder->q('BEGIN; LOCK TABLE t.locked');
	while_asleep('LOCK TABLE t.locked', sub { $admin->q("SELECT pg_cancel_backend($_[0]->{pid})") })->($s);
	$holder->q('ROLLBACK');
});

# the session ends
ends_with('idle_in_transaction_session_timeout', 1, sub { my ($s) = @_; $s->q("SET idle_in_transaction_session_timeout = '100 ms'; $take"); wait_gone($s); });
ends_with('transaction_timeout, idle', 1, sub { my ($s) = @_; $s->q("SET transaction_timeout = '200 ms'; $take"); wait_gone($s); }) if $pg >= 170000;
ends_with('transaction_timeout, running', 1, sub { my ($s) = @_; $s->q("SET transaction_timeout = '200 ms'; $take"); $s->try('SELECT pg_sleep(30)'); }) if $pg >= 170000;
ends_with('terminated while idle', 0, sub { my ($s) = @_; $s->q($take); $admin->q("SELECT pg_terminate_backend($s->{pid})"); wait_gone($s); });
ends_with('terminated while running', 0, while_asleep('SELECT pg_sleep(30)', sub { $admin->q("SELECT pg_terminate_backend($_[0]->{pid})") }));
ends_with('the client is killed', 1, sub { my ($s) = @_; $s->q($take); $s->{run}->kill_kill; wait_gone($s); });

# the commit
ends_with('a deferred constraint', 1, by('INSERT INTO t.child VALUES (1)', 'COMMIT'));
if ($points)
{
	one($node, "SELECT mq.create_queue('none'); SELECT mq.send('none', '1')");
	ends_with('the commit itself', 0, by("SELECT count(*) FROM mq.pop('none')", "SET mq.stop_point = 'pre_commit:error'", 'COMMIT'));
}
# serializable: of two that read what the other writes the second commit fails
ends_with('serialization failure at the commit', 0, sub {
	my ($s) = @_;
	my $other = session($node);
	one($node, 'CREATE TABLE t.ssi (i int)');
	$s->q("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM mq.receive('q', max_messages => 10); SELECT count(*) FROM t.ssi; INSERT INTO t.ssi VALUES (1)");
	$other->q('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM t.ssi; INSERT INTO t.ssi VALUES (2); COMMIT');
	is($s->try('COMMIT'), '40001', 'the commit fails');
});

# what PL/pgSQL catches belongs to its savepoint only
sub caught
{
	my ($name, $code, $failures) = @_;
	one($node, "SELECT mq.purge('q'); SELECT mq.send('q', '1')");
	one($node, "DO \$\$ BEGIN PERFORM mq.receive('q', max_messages => 10); PERFORM t.fail('$code'); EXCEPTION WHEN OTHERS THEN NULL; END \$\$");
	is(one($node, "SELECT attempt || ' ' || failures FROM mq.receive('q')"), "2 $failures", $name);
	return;
}
caught('caught 40001: no failure', '40001', 0);
caught('caught error: a failure', '22012', 1);
{
	one($node, "SELECT mq.purge('q'); SELECT mq.send('q', '1')");
	my $s = session($node);
	$s->q($take);
	$s->q("DO \$\$ BEGIN PERFORM t.fail('40001'); EXCEPTION WHEN OTHERS THEN NULL; END \$\$");
	$s->q('ROLLBACK');
	is(one($node, "SELECT failures FROM mq.receive('q')"), '1', 'an innocent error in a block that was caught excuses no rollback');
	one($node, "SELECT mq.purge('q'); SELECT mq.send('q', '1')");
	$s->q($take);
	$s->q('SAVEPOINT a');
	is($s->try("SELECT t.fail('40001')"), '40001', 'an error in a savepoint');
	$s->q('ROLLBACK TO a');
	$s->q('ROLLBACK');
	is(one($node, "SELECT failures FROM mq.receive('q')"), '1', 'nor one in a savepoint');
}

# a fast shutdown
one($node, "SELECT mq.purge('q'); SELECT mq.send('q', '1')");
my $s = session($node);
$s->q($take);
$node->stop('fast');
$node->start;
is(one($node, "SELECT failures FROM mq.receive('q')"), '0', 'shutdown: no failure');
$node->stop;
done_testing();
