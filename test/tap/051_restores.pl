# Dumps that are not whole, restores into a living database, and a library of another version than the extension: each leads to
# a state that says what it is, never to messages that are silently not delivered.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('restores', conf => "mq.drop_delay = 0\nmq.segment_wait = '10 s'\n");
my $dir = PostgreSQL::Test::Utils::tempdir();
my $connect = '-h ' . $node->host . ' -p ' . $node->port;
sub shell
{
	my ($command) = @_;
	my $rc = system("($command) >$dir/out 2>$dir/err");
	note(PostgreSQL::Test::Utils::slurp_file("$dir/err")) if $rc != 0;
	return $rc;
}
sub new_db { my ($db) = @_; one($node, "CREATE DATABASE $db"); return $db; }
sub count_of { my ($db, $q, $n) = @_; return one($node, "SELECT count(*) FROM mq.pop('$q', max_messages => " . ($n || 100000) . ')', $db); }

one($node, q[CREATE ROLE alice LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO alice; SET ROLE alice;
	SELECT mq.create_queue('orders', options => '{"segment_size": 1024}');
	SELECT mq.create_queue('mails', groups => '{default,audit}', options => '{"segment_size": 1024}')]);
one($node, "SELECT t.put_batch('orders', 'a', 3000); SELECT t.put_batch('mails', 'a', 20); SELECT t.take('orders', 100)");
one($node, 'CREATE VIEW seen AS SELECT id, payload FROM mq.q_orders');

# --- a dump of the schema only, or without data -------------------------------------------------------------------------------------------
for my $how ('-s', "--exclude-table-data='mq_internal.*'")
{
	my $db = new_db($how eq '-s' ? 'only_schema' : 'no_data');
	is(shell("pg_dump $connect $how postgres | psql -XAtq -v ON_ERROR_STOP=1 $connect -d $db"), 0, "$how: dump and restore");
	is(one($node, 'SELECT count(*) FROM mq.queues', $db), '0', "$how: no queue is defined");
	is(sqlstate($node, "SELECT mq.send('orders', '1')", db => $db), '42704', "$how: and says so");
	is(sqlstate($node, "SELECT mq.create_queue('$_', options => jsonb_build_object('segment_size', 1024))", db => $db), '', "$how: create_queue('$_')") for 'orders', 'other', 'mails', 'another';
	is(one($node, "SELECT count(*) FROM mq.send_batch('orders', array_fill('1'::jsonb, ARRAY[3000])); SELECT count(*) FROM mq.pop('orders', max_messages => 5000)", $db), "1\n3000", "$how: it works, across segments");
	is(one($node, 'SELECT count(*) > 0 FROM seen', $db), 't', "$how: a view on the table goes on");
	is(one($node, "SELECT count(*) FROM pg_class, aclexplode(relacl) a WHERE oid = 'mq.q_orders'::regclass AND a.grantee = 'alice'::regrole", $db), '0', "$how: the queue is its maker's alone");
	is(sqlstate($node, 'SET client_min_messages = warning; DROP EXTENSION mq CASCADE', db => $db), '', "$how: the extension can be dropped");
	is(one($node, "SELECT count(*) FROM pg_class WHERE relname ~ '^(q_|[sgi]_[0-9]|consumer_offset)'", $db), '0', "$how: with all that was left over");
	is(sqlstate($node, "CREATE EXTENSION mq; SELECT mq.create_queue('orders')", db => $db), '', "$how: and made again");
	one($node, "DROP DATABASE $db WITH (FORCE)");
}
# rows without a definition are somebody's messages: they are not taken over
{
	my $db = new_db('no_definitions');
	is(shell("pg_dump $connect --exclude-table-data='mq_internal.queue' --exclude-table-data='mq_internal.consumer_group' postgres | psql -XAtq -v ON_ERROR_STOP=1 $connect -d $db"), 0, 'without definitions: dump and restore');
	my $err = err($node, "SELECT mq.create_queue('orders')", db => $db);
	like($err, qr/ERROR:  55000: table mq.q_orders is there without the definition/, 'create_queue does not throw messages away');
	like($err, qr/HINT:  Save what is in it, and have a superuser DROP TABLE mq.q_orders/, 'and says what to do');
	is(sqlstate($node, "SELECT mq.create_queue('other')", db => $db), '', 'other names are free');
	is(sqlstate($node, "DROP VIEW seen; DROP TABLE mq.q_orders; SELECT mq.create_queue('orders'); SELECT mq.send('orders', '1')", db => $db), '', 'and so it is');
	is(count_of($db, 'orders'), '1', 'the new queue has its own message only');
	one($node, "DROP DATABASE $db WITH (FORCE)");
}

# --- pg_restore --clean into the living database ------------------------------------------------------------------------------------------
{
	my $db = new_db('living');
	one($node, 'CREATE EXTENSION mq', $db);
	one($node, MqTest::helpers_sql(), $db);
	one($node, "SELECT mq.create_queue('a', options => jsonb_build_object('segment_size', 1024)); SELECT mq.create_queue('b')", $db);
	one($node, "SELECT t.put('a', 'old', 50)", $db);
	is(one($node, "SELECT count(*) FROM mq.pop('a', max_messages => 20)", $db), '20', 'some are done when the dump is taken');
	is(shell("pg_dump $connect -Fc -f $dir/living.dump $db"), 0, 'a dump');
	one($node, "SELECT mq.create_queue('c'); SELECT mq.drop_queue('b', force => true)", $db);
	one($node, "SELECT t.put_batch('a', 'new', 3000)", $db);
	is(count_of($db, 'a', 1500), '1500', 'the living queue goes on');
	my $receiver = session($node, db => $db);
	$receiver->q("SELECT count(*) FROM mq.receive('a', max_messages => 5)");
	shell("pg_restore --clean --if-exists $connect -d $db $dir/living.dump");
	# what is in the table now is the dump's: all of it comes, once
	my $got = 0;
	ok(poll_until('the messages of the dump', sub { my $n = eval { count_of($db, 'a') }; $got += $n || 0; $got >= 50 }, 60), 'what the table has now is delivered');
	is($got, one($node, "SELECT count(*) FROM mq.q_a", $db), 'all of it, once');
	is(count_of($db, 'a'), '0', 'and no more');
	is($receiver->try("SELECT mq.send('a', '1')"), '', 'a session that had used it before goes on');
	is(count_of($db, 'a'), '1', 'and so does the queue');
	is(one($node, "SELECT count(*) FROM mq.send_batch('a', array_fill('1'::jsonb, ARRAY[3000])); SELECT count(*) FROM mq.pop('a', max_messages => 5000)", $db), "1\n3000", 'across segments');
	is(sqlstate($node, "SELECT mq.create_queue('$_')", db => $db), '', "create_queue('$_'): numbers in use are skipped") for 'd', 'e';
	like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/WARNING:  the table of queue "a" was replaced by another one/, 'the log says what happened');
	$receiver->close;
	$node->restart;
	is(count_of($db, 'a'), '0', 'after a restart nothing comes again');
	one($node, "DROP DATABASE $db WITH (FORCE)");
}

# --- after dump and restore everything still belongs to the extension ------------------------------------------------------------------------
{
	my $db = new_db('whole');
	is(shell("pg_dump $connect postgres | psql -XAtq -v ON_ERROR_STOP=1 $connect -d $db"), 0, 'whole: dump and restore');
	is(count_of($db, 'orders'), '2900', 'whole: what was unfinished comes');
	is(one($node, "SELECT owner || ' ' || string_agg(a.privilege_type, ' ' ORDER BY 1) FROM mq.queues, pg_class c, aclexplode(c.relacl) a WHERE queue = 'orders' AND c.oid = queue_table AND a.grantee = 'alice'::regrole GROUP BY owner", $db),
		'alice INSERT SELECT TRUNCATE', 'whole: its owner is its owner');
	is(sqlstate($node, 'SET client_min_messages = warning; DROP EXTENSION mq CASCADE', db => $db), '', 'whole: the extension can be dropped');
	is(one($node, "SELECT count(*) FROM pg_class WHERE relname ~ '^(q_|[sgi]_[0-9]|consumer_offset)'", $db), '0', 'whole: with all that it had');
	one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('orders'); SELECT mq.send('orders', '1')", $db);
	is(one($node, "SELECT low_watermark || ' ' || epoch FROM mq.groups WHERE queue = 'orders'", $db), '1 1', 'whole: a new queue has no position of an old one');
	is(count_of($db, 'orders'), '1', 'whole: and its message');
	one($node, "DROP DATABASE $db WITH (FORCE)");
}

# --- definitions with other columns, and another version -------------------------------------------------------------------------------------
{
	my $db = new_db('columns');
	one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('q', options => jsonb_build_object('segment_size', 1024)); SELECT mq.send('q', '1')", $db);
	for my $table ('queue', 'consumer_group', 'segment')
	{
		one($node, "ALTER TABLE mq_internal.$table " . join(', ', map { "ADD COLUMN later$_ bigint DEFAULT 7" } 1 .. 20), $db);
	}
	is(one($node, "SELECT count(*) FROM mq.send_batch('q', array_fill('1'::jsonb, ARRAY[3000]))", $db), '1', 'with more columns: send');
	is(count_of($db, 'q', 2000), '2000', 'with more columns: receive');
	is(one($node, 'SELECT count(*) FROM mq.queues, mq.groups', $db), '1', 'with more columns: the views');
	$node->stop('immediate');
	$node->start;
	is(count_of($db, 'q'), '1001', 'with more columns: after a crash');
	is(one($node, "SELECT mq.create_queue('r'); SELECT count(*) FROM mq.queues", $db), "\n2", 'with more columns: create_queue');
	# the offset log is refused: what is finished must be written and read without a doubt
	one($node, 'ALTER TABLE mq_internal.consumer_offset_0 ADD COLUMN later bigint', $db);
	is(sqlstate($node, "SELECT mq.send('q', '1'); SELECT * FROM mq.pop('q')", db => $db), '55000', 'another column in the offset log: acks are refused');
	one($node, 'ALTER TABLE mq_internal.consumer_offset_0 DROP COLUMN later', $db);
	is(one($node, "SELECT mq.send('q', '1') > 0; SELECT count(*) FROM mq.pop('q', max_messages => 10)", $db), "t\n2", 'and taken when it is gone');
	# a version of the script that the library does not know
	one($node, "UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'mq'", $db);
	my $err = err($node, "SELECT mq.send('q', '1')", db => $db);
	like($err, qr/ERROR:  55000: extension "mq" has version 0.0.9 in this database, but the server has loaded the library of version/, 'another version is refused in words');
	like($err, qr/HINT:  Use ALTER EXTENSION mq UPDATE/, 'with what to do');
	is(sqlstate($node, $_, db => $db), '55000', "refused: $_") for "SELECT * FROM mq.receive('q')", 'SELECT * FROM mq.groups', "SELECT mq.create_queue('x')", "CALL mq.wait('q')";
	one($node, "UPDATE pg_extension SET extversion = '0.1.0' WHERE extname = 'mq'", $db);
	is(sqlstate($node, "SELECT mq.send('q', '1')", db => $db), '', 'and goes on with the right one');
	is(count_of($db, 'q'), '1', 'as before');
	ok(poll_until('a worker', sub { one($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = '$db'") eq '1' }, 60), 'with its worker');
}

# --- the first queues, untouched by all that --------------------------------------------------------------------------------------------------
ledger_ok($node, $_, "the original: $_") for 'orders', 'mails';
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
