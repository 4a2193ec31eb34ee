# The triggers that keep others from writing to a queue's tables: they fire always, logical replication skips rows instead of
# stopping, dumps restore; and when somebody has switched them off they come back, after a look at what was written.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('guard', conf => "mq.drop_delay = 3600\nmq.segment_wait = '20s'\nlog_min_messages = log\n");

sub leaf { my ($q, $segment, $db) = @_; return one($node, "SELECT segment_table FROM mq.segments WHERE queue = '$q' AND segment = " . ($segment || 0), $db); }
my $guards_off = "SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid WHERE proname = 'refuse_direct_write' AND tgenabled <> 'A'";
sub guards_back { my ($db) = @_; return poll_until('the guards to be back', sub { one($node, $guards_off, $db) eq '0' }, 30); }
sub pop_all { my ($q, $db) = @_; return one($node, "SELECT count(*) || ' ' || count(DISTINCT id) FROM mq.pop('$q', max_messages => 100000)", $db); }

# --- whoever writes, and however -------------------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('q', options => jsonb_build_object('segment_size', 1024)); SELECT mq.send_batch('q', array(SELECT to_jsonb(i) FROM generate_series(1, 10) i))");
my $leaf = leaf('q');
for my $table ('mq.q_q', $leaf)
{
	for my $sql ("INSERT INTO $table SELECT * FROM $table", "UPDATE $table SET payload = '0'", "UPDATE $table SET id = id + 1", "DELETE FROM $table", "TRUNCATE $table",
		"COPY $table FROM PROGRAM 'echo'")
	{
		is(sqlstate($node, "SET session_replication_role = replica; $sql"), '55000', "as a replica: $sql");
	}
}
is(sqlstate($node, "BEGIN; ALTER TABLE ONLY mq.q_q DISABLE TRIGGER ALL; INSERT INTO mq.q_q SELECT * FROM mq.q_q"), '55000', 'by way of the parent alone');
is(one($node, $guards_off), '0', 'the guards of parent and partitions fire always');
is(one($node, "SELECT count(*) FROM mq.q_q"), '10', 'nothing has changed');

# --- sends, while the guard is off ------------------------------------------------------------------------------------
is(sqlstate($node, "BEGIN; ALTER TABLE $leaf DISABLE TRIGGER ALL; SELECT mq.send('q', '1')"), '55000', 'a send in the transaction that switched it off');
{
	my ($s, $sender) = (session($node), session($node));
	$s->q("BEGIN; ALTER TABLE $leaf DISABLE TRIGGER ALL");
	$sender->start("SELECT mq.send('q', '11')");
	ok(poll_until('the sender to wait', sub { $sender->waits_on_lock($node) }), 'another sender waits for its end');
	$s->q("COMMIT");
	my ($state, $id) = $sender->finish;
	is("$state $id", ' 11', 'and goes on when the worker has put the guard back');
	ok(guards_back(), 'the guard is back');
	$_->close for $s, $sender;
}
like(slurp_file($node->logfile), qr/the guard trigger of segment "s_\d+_0_0" of queue "q" was off, and is put back/, 'the log says so');
is(pop_all('q'), '11 11', 'all are there');
one($node, "BEGIN; DROP TRIGGER refuse_direct_row ON mq.q_q; DROP TRIGGER refuse_direct_write ON $leaf; INSERT INTO $leaf (id, enqueued_at) VALUES (100, now()); COMMIT");
ok(poll_until('a new row trigger', sub { sqlstate($node, "BEGIN; UPDATE $leaf SET payload = '0'; ROLLBACK") eq '55000' }, 30), 'a guard that was dropped is made again');

# --- ids ahead of what was given out --------------------------------------------------------------------------------------
sub ahead
{
	my ($q, $segment, $lo, $hi) = @_;
	my $l = leaf($q, $segment);
	one($node, "BEGIN; ALTER TABLE $l DISABLE TRIGGER ALL; INSERT INTO $l (id, enqueued_at, payload) SELECT i, now(), '\"ahead\"' FROM generate_series($lo, $hi) i; ALTER TABLE $l ENABLE TRIGGER ALL; COMMIT");
	return;
}
one($node, "SELECT mq.create_queue('ahead', options => jsonb_build_object('segment_size', 1024)); SELECT mq.send_batch('ahead', array(SELECT to_jsonb(i) FROM generate_series(1, 10) i))");
ok(poll_until('segment 2', sub { leaf('ahead', 2) ne '' }), 'segments are made ahead');
ahead('ahead', 0, 500, 600);
ahead('ahead', 1, 1100, 1200);
ok(guards_back(), 'ids ahead: the guards are back');
one($node, "SELECT mq.send_batch('ahead', array(SELECT to_jsonb(i) FROM generate_series(1, 3000) i))");
is(pop_all('ahead'), '3212 3212', 'ids ahead, in this segment and the next: every message comes once, no number twice');
is(one($node, "SELECT count(*) - count(DISTINCT id) FROM mq.q_ahead"), '0', 'numbers in use were skipped');
ahead('ahead', one($node, "SELECT max(id) / 1024 FROM mq.q_ahead"), map { one($node, "SELECT max(id) + $_ FROM mq.q_ahead") } 50, 60);
$node->restart;
one($node, "SELECT mq.send_batch('ahead', array(SELECT to_jsonb(i) FROM generate_series(1, 2000) i))");
is(pop_all('ahead'), '2011 2011', 'the same with a restart in between');
ok(guards_back(), 'and the guards are back');

# --- dumps ---------------------------------------------------------------------------------------------------------------------
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
my @at = ('-h', $node->host, '-p', $node->port);
one($node, "SELECT mq.create_queue('shop', options => jsonb_build_object('segment_size', 1024)); SELECT mq.send_batch('shop', array(SELECT to_jsonb(i) FROM generate_series(1, 3000) i))");
one($node, "SELECT count(*) FROM mq.pop('shop', max_messages => 700)");
sub is_guarded_copy
{
	my ($db, $name) = @_;
	is(one($node, $guards_off, $db), '0', "$name: the guards fire always");
	is(sqlstate($node, "SET session_replication_role = replica; DELETE FROM mq.q_shop", db => $db), '55000', "$name: and refuse");
	is(pop_all('shop', $db), '2300 2300', "$name: each message once");
	one($node, "DROP DATABASE $db WITH (FORCE)");
	return;
}
one($node, 'CREATE DATABASE plain');
system("pg_dump -h '" . $node->host . "' -p " . $node->port . " postgres | psql -X -q -v ON_ERROR_STOP=1 -h '" . $node->host . "' -p " . $node->port . " -d plain >$dump.out 2>$dump.err");
is(slurp_file("$dump.err"), '', 'pg_dump | psql says nothing');
is_guarded_copy('plain', 'plain');
command_ok([ 'pg_dump', @at, '-Fc', '-f', $dump, 'postgres' ], 'pg_dump -Fc');
one($node, 'CREATE DATABASE custom');
command_ok([ 'pg_restore', @at, '--exit-on-error', '-d', 'custom', $dump ], 'pg_restore');
is_guarded_copy('custom', 'custom');
one($node, 'CREATE DATABASE sections');
command_ok([ 'pg_restore', @at, '--exit-on-error', '--section', $_, '-d', 'sections', $dump ], "pg_restore --section $_") for 'pre-data', 'data', 'post-data';
is_guarded_copy('sections', 'sections');

# --- the schema first, the data later, with triggers that are there
one($node, 'CREATE DATABASE halves');
command_ok([ 'pg_restore', @at, '--exit-on-error', '--schema-only', '-d', 'halves', $dump ], 'pg_restore --schema-only');
command_ok([ 'pg_restore', @at, '--exit-on-error', '--data-only', '--disable-triggers', '-d', 'halves', $dump ], 'pg_restore --data-only --disable-triggers');
is(one($node, "SELECT count(*) FROM mq.pop('shop', max_messages => 1)", 'halves'), '1', 'used');
one($node, "SELECT mq.send('shop', '1'); SELECT count(*) FROM mq.groups", 'halves');
ok(guards_back('halves'), 'the guards are back') or diag one($node, $guards_off, 'halves');
is_guarded_copy('halves', 'halves');

# --- a dump's data into the living database -----------------------------------------------------------------------------------
my $before = one($node, "SELECT count(*) FROM mq.q_shop");
system('pg_restore', @at, '--data-only', '--disable-triggers', '--table', one($node, "SELECT relname FROM pg_class WHERE oid = '" . leaf('shop', $_) . "'::regclass"), '-d', 'postgres', $dump) for 0 .. 2;
$node->command_checks_all([ 'pg_restore', @at, '--data-only', '--disable-triggers', '--single-transaction', '--table', one($node, "SELECT relname FROM pg_class WHERE oid = '" . leaf('shop', 1) . "'::regclass"), '-d', 'postgres', $dump ], 0, [], [], 'pg_restore --data-only --disable-triggers into the living database');
cmp_ok(one($node, "SELECT count(*) FROM mq.q_shop"), '>', $before, 'rows are there twice now');
is(pop_all('shop'), '2300 2300', 'each message is delivered once');
one($node, "SELECT mq.send_batch('shop', array(SELECT to_jsonb(i) FROM generate_series(1, 100) i))");
is(pop_all('shop'), '100 100', 'and it goes on');
ok(guards_back(), 'the guards are back');
unlike(slurp_file($node->logfile), qr/terminated by signal/, 'no process died');

# --- logical replication ------------------------------------------------------------------------------------------------------------
{
	my $from = mq_node('publisher', streaming => 1, conf => "wal_level = logical\n");
	my $to = mq_node('subscriber');
	for my $n ($from, $to)
	{
		one($n, "SELECT mq.create_queue('r'); CREATE TABLE public.app (id int PRIMARY KEY)");
		# what one publishes the other must have
		poll_until('segments ahead', sub { one($n, "SELECT count(*) FROM mq.segments WHERE queue = 'r'") eq '3' });
	}
	one($from, "SELECT mq.send_batch('r', array(SELECT to_jsonb(i) FROM generate_series(1, 5) i)); INSERT INTO app VALUES (1)");
	one($from, "CREATE PUBLICATION p FOR TABLE mq.q_r, public.app");
	one($to, "CREATE SUBSCRIPTION s CONNECTION \$\$" . $from->connstr('postgres') . "\$\$ PUBLICATION p");
	$to->wait_for_subscription_sync($from, 's');
	for my $i (2 .. 5)
	{
		one($from, "BEGIN; SELECT mq.send('r', '1'); INSERT INTO app VALUES ($i); COMMIT");
	}
	$from->wait_for_catchup('s');
	is(one($to, 'SELECT count(*) FROM app'), '5', 'logical replication goes on for the other tables');
	is(one($to, 'SELECT count(*) FROM mq.q_r'), '0', 'no row of a queue was applied');
	my @warnings = slurp_file($to->logfile) =~ /(WARNING:  logical replication of rows into table "\S+" is skipped)/g;
	cmp_ok(scalar @warnings, '>=', 1, 'a WARNING says so');
	cmp_ok(scalar @warnings, '<=', 4, 'not for each row');
	is(one($to, "SELECT mq.send('r', '1')"), '1', 'the queue of the subscriber is its own');
	one($to, 'DROP SUBSCRIPTION s');
	$_->stop for $to, $from;
}
$node->stop;
done_testing();
