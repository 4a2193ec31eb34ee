# Installing, not being preloaded, dropping, dumping and restoring, template copies.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use MqTest;

# --- not preloaded: CREATE EXTENSION works, each call says what to set --------------------------------------------------
{
	my $bare = PostgreSQL::Test::Cluster->new('bare');
	$bare->init;
	$bare->append_conf('postgresql.conf', "log_statement = none");
	$bare->start;
	is(sqlstate($bare, 'CREATE EXTENSION mq'), '', 'CREATE EXTENSION without preload');
	my $u = '00000000-0000-0000-0000-000000000000';
	my %call = (
		create_queue => "SELECT mq.create_queue('q')", drop_queue => "SELECT mq.drop_queue('q')", send => "SELECT mq.send('q', '1')",
		send_batch => "SELECT mq.send_batch('q', ARRAY['1']::jsonb[])", receive => "SELECT * FROM mq.receive('q')", pop => "SELECT * FROM mq.pop('q')",
		ack => "SELECT mq.ack('$u')", acks => "SELECT mq.ack_batch(ARRAY['$u']::uuid[])", nack => "SELECT mq.nack('$u')", release => "SELECT mq.release('$u')",
		extend => "SELECT mq.extend('$u', '1 s')", discard => "SELECT mq.discard('q', 'default', '{1}')",
	);
	for my $f (sort keys %call)
	{
		my $e = err($bare, $call{$f});
		like($e, qr/ERROR:\s+55000/, "$f without preload: 55000");
		like($e, qr/HINT:.*shared_preload_libraries/, "$f without preload: the hint says what to set");
	}
	is(sqlstate($bare, "LOAD 'mq'"), '', "LOAD 'mq' works too");
	is(sqlstate($bare, 'DROP EXTENSION mq'), '', 'DROP EXTENSION');
	$bare->stop;
}

my $node = mq_node('basic', conf => "mq.drop_delay = 0\n");

# --- DROP EXTENSION refuses while queues exist; CASCADE takes them ------------------------------------------------------------
{
	one($node, 'CREATE DATABASE d');
	one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('a'); SELECT mq.create_queue('Odd \"Name'); SELECT mq.send('a', '1')", 'd');
	is(sqlstate($node, 'DROP EXTENSION mq', db => 'd'), '2BP01', 'DROP EXTENSION refuses while queues exist');
	is(one($node, "SELECT count(*) FROM mq.pop('a')", 'd'), '1', 'and nothing happened');
	is(sqlstate($node, 'DROP EXTENSION mq CASCADE', db => 'd'), '', 'CASCADE takes them');
	is(one($node, "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid) + (SELECT count(*) FROM pg_proc WHERE pronamespace = n.oid) + (SELECT count(*) FROM pg_type WHERE typnamespace = n.oid) FROM pg_namespace n WHERE nspname = 'mq' UNION ALL SELECT 0 LIMIT 1", 'd'), '0', 'nothing is left in the schema');
	is(one($node, "SELECT count(*) FROM pg_class WHERE relname ~ '^(q_|s_[0-9]|consumer_offset)'", 'd'), '0', 'and so are the tables');
	is(sqlstate($node, "CREATE EXTENSION mq; SELECT mq.create_queue('a'); SELECT mq.drop_queue('a'); DROP EXTENSION mq", db => 'd'), '', 'with no queue left DROP EXTENSION works');
	one($node, 'DROP DATABASE d WITH (FORCE)');
}

# --- functions are visible where they should be, nothing else is exported to PUBLIC ----------------------------------------------
is(one($node, "SELECT string_agg(DISTINCT proname, ' ' ORDER BY proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'mq' AND proname IN ('create_queue','drop_queue','send','send_batch','receive','pop','ack','nack','release','extend','discard')"),
	'ack create_queue discard drop_queue extend nack pop receive release send send_batch', 'all functions are there');
is(one($node, "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'mq' AND proname IN ('send','send_batch','receive','pop','ack','nack','release','extend','discard','create_queue','drop_queue') AND (provolatile <> 'v' OR proparallel <> 'u' OR proisstrict)"),
	'0', 'volatile, parallel unsafe, not strict');
is(one($node, "SELECT has_function_privilege('public', p.oid, 'execute') FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'mq' AND proname = 'create_queue'"), 'f', 'PUBLIC may not create queues');

# --- pg_dump | restore into another database: messages and positions ------------------------------------------------------------------
# Returns the name of the new database.
sub copy_by_dump
{
	my ($from, $to, $format) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/dump';
	one($node, "CREATE DATABASE $to");
	my @conn = ('-h', $node->host, '-p', $node->port);
	my ($log, $rc);
	if ($format eq 'plain')
	{
		$rc = system("pg_dump -h '" . $node->host . "' -p " . $node->port . " -f $file $from 2>$file.err && psql -X -q -v ON_ERROR_STOP=1 -h '" . $node->host . "' -p " . $node->port . " -d $to -f $file >$file.out 2>>$file.err");
	}
	else
	{
		my $jobs = $format eq 'directory' ? '-j 2' : '';
		$rc = system("pg_dump -F $format $jobs -h '" . $node->host . "' -p " . $node->port . " -f $file $from 2>$file.err && pg_restore --exit-on-error $jobs -h '" . $node->host . "' -p " . $node->port . " -d $to $file 2>>$file.err");
	}
	is($rc, 0, "dump ($format) and restore") or diag(PostgreSQL::Test::Utils::slurp_file("$file.err"));
	is(PostgreSQL::Test::Utils::slurp_file("$file.err"), '', "dump ($format) and restore say nothing on stderr");
	return;
}

one($node, "SELECT mq.create_queue('shop', options => jsonb_build_object('segment_size', 1024)); SELECT mq.create_queue('Odd \"Name', options => jsonb_build_object('segment_size', 1024))");
one($node, "SELECT t.put_batch('shop', 'a', 2500); SELECT t.take('shop', 1100); SELECT t.take('shop', 3) FROM generate_series(1, 20)");
one($node, "SELECT count(*) FROM mq.receive('shop', max_messages => 30, visibility_timeout => '1 hour')");
one($node, "SELECT mq.send('Odd \"Name', body => decode(repeat('abcd', 500000), 'hex')); SELECT mq.send('Odd \"Name', NULL::jsonb, '{\"h\": 1}', '\\x00')");
my $acked = one($node, "SELECT count(*) FROM t.done WHERE q = 'shop'");
my $next = one($node, "SELECT max(id) FROM mq.q_shop");
# pg_dump fails for a partition that goes while it begins, as it does for anybody's
poll_until('the first segment to go', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'shop' AND segment = 0") eq '0' });
for my $format ('plain', 'custom', 'directory')
{
	copy_by_dump('postgres', "copy_$format", $format);
	my $db = "copy_$format";
	is(one($node, "SELECT count(*) FROM mq.queues", $db), '2', "$format: both queues are there");
	my $id = one($node, "SELECT t.put('shop', 'new', 10); SELECT max(id) FROM mq.q_shop", $db);
	cmp_ok((split /\n/, $id)[-1], '>', $next, "$format: new ids are above the old");
	drain($node, 'shop', db => $db);
	is(one($node, "SELECT t.verdict('shop')", $db), 'ok', "$format: messages and positions are there, acked stays acked, leased comes again");
	is(one($node, "SELECT count(*) || ' ' || sum(length(body)) FROM mq.pop('Odd \"Name', max_messages => 10)", $db), '2 1000001', "$format: bodies too");
	# the worker adopts it at the first call: segments go on
	one($node, "SELECT t.put_batch('shop', 'much', 5000)", $db);
	drain($node, 'shop', db => $db);
	is(one($node, "SELECT t.verdict('shop')", $db), 'ok', "$format: it goes on across segments");
	one($node, "SELECT mq.drop_queue('shop'); SELECT mq.create_queue('shop'); SELECT mq.send('shop', '1')", $db);
	is(one($node, "SELECT count(*) FROM mq.pop('shop', max_messages => 10)", $db), '1', "$format: drop and create of the same name");
	one($node, "DROP DATABASE $db WITH (FORCE)");
}
# a dump of a dump
copy_by_dump('postgres', 'gen1', 'custom');
one($node, "SELECT t.take('shop', 100)", 'gen1');
copy_by_dump('gen1', 'gen2', 'custom');
drain($node, 'shop', db => 'gen2');
is(one($node, "SELECT t.verdict('shop')", 'gen2'), 'ok', 'a dump of a restored database');
one($node, "DROP DATABASE $_ WITH (FORCE)") for 'gen1', 'gen2';

# --- a template copy -----------------------------------------------------------------------------------------------------------------------
{
	copy_by_dump('postgres', 'tpl', 'custom');
	one($node, "SELECT t.take('shop', 100)", 'tpl');
	my $made = poll_until('CREATE DATABASE ... TEMPLATE beside the worker', sub {
		one($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tpl'");
		sqlstate($node, 'CREATE DATABASE tplcopy TEMPLATE tpl') eq '';
	}, 60);
	ok($made, 'CREATE DATABASE ... TEMPLATE');
	# both go on, each by itself
	for my $db ('tpl', 'tplcopy')
	{
		one($node, "SELECT t.put('shop', 'only in $db', 20)", $db);
		drain($node, 'shop', db => $db);
		is(one($node, "SELECT t.verdict('shop')", $db), 'ok', "template copy: $db goes on by itself");
		is(one($node, "SELECT count(*) FROM t.done WHERE k ~ '^only in' AND k !~ '^only in $db:'", $db), '0', "template copy: $db has nothing of the other");
	}
	one($node, "DROP DATABASE $_ WITH (FORCE)") for 'tpl', 'tplcopy';
}

# --- the original is untouched by all that ---------------------------------------------------------------------------------------------------
is(one($node, "SELECT leased FROM mq.groups WHERE queue = 'shop'"), '30', 'the leases of the original still stand');
$node->restart;
ledger_ok($node, 'shop', 'the original: ledger');
$node->stop;
done_testing();
