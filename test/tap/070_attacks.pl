# A hostile tenant: consumers with many names, seeks that eat memory, column privileges, expressions nested beyond the stack, locks on
# leftovers of a restore.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('attacks', conf => "mq.drop_delay = 0\nfsync = off\nautovacuum = off\nsynchronous_commit = off\nmq.shared_memory = '32MB'\nmq.max_groups = 1000\n");
$SIG{__DIE__} = sub { diag(@_) if !$^S; };
one($node, "CREATE ROLE $_ LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO $_; CREATE SCHEMA $_ AUTHORIZATION $_; GRANT TEMP ON DATABASE postgres TO $_") for qw(alice bob);
one($node, 'CREATE ROLE carl LOGIN');
my ($alice, $bob, $carl) = map { session($node, user => $_) } qw(alice bob carl);

# --- names of consumers that have one hash: giving all back costs no more for each than for a few -------------------------------------
{
	$bob->q("SELECT mq.create_queue('names'); SELECT count(*) FROM mq.send_batch('names', array_fill('1'::jsonb, ARRAY[12000]))");
	$bob->q("CREATE TEMP TABLE names AS SELECT 'c' || g AS name FROM generate_series(1, 1000000) g WHERE hashtext('c' || g) & 63 = 0 LIMIT 12000; CREATE TEMP TABLE held (n serial, receipt uuid)");
	$bob->q("DO \$\$ DECLARE r record; BEGIN FOR r IN SELECT name FROM names LOOP INSERT INTO held (receipt) SELECT receipt FROM mq.receive('names', consumer => r.name, visibility_timeout => '1 h'); END LOOP; END \$\$");
	my $time = "CREATE FUNCTION pg_temp.back(lo int, hi int) RETURNS float8 LANGUAGE plpgsql AS \$\$ DECLARE t timestamptz := clock_timestamp(); r uuid[] := ARRAY(SELECT receipt FROM held WHERE n BETWEEN lo AND hi); BEGIN PERFORM mq.nack_batch(r); RETURN extract(epoch FROM clock_timestamp() - t) * 1e6 / (hi - lo + 1); END \$\$";
	$bob->q($time);
	my $many = $bob->q('SELECT pg_temp.back(1, 6000)');
	$bob->q('SELECT pg_temp.back(6001, 11000)');
	my $few = $bob->q('SELECT pg_temp.back(11001, 12000)');
	diag("a nack of one name among 12000: $many us, among 1000: $few us");
	cmp_ok($many, '<', 4 * $few + 3, 'a name is let go whatever the number of others');
	$bob->q("SELECT mq.drop_queue('names', force => true)");
}

# --- one transaction that moves its groups again and again keeps no memory from others ---------------------------------------------------
{
	$alice->q("SELECT mq.create_queue('a'); SELECT count(*) FROM mq.send_batch('a', array_fill('1'::jsonb, ARRAY[1000]))");
	$bob->q("SELECT mq.create_queue('eat', groups => ARRAY(SELECT 'g' || i FROM generate_series(1, 300) i)); BEGIN");
	$bob->q(<<'SQL');
DO $$ BEGIN FOR i IN 1 .. 1000 LOOP PERFORM mq.send('eat', '1');
	BEGIN PERFORM mq.send_batch('eat', array_fill('1'::jsonb, ARRAY[300])); RAISE EXCEPTION 'x'; EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$;
DO $$ DECLARE n int := 0; BEGIN
	WHILE n < 3000 LOOP n := n + 1; BEGIN PERFORM mq.purge('eat'); EXCEPTION WHEN OTHERS THEN EXIT; END; END LOOP;
	WHILE n < 6000 LOOP n := n + 1; BEGIN PERFORM mq.seek('eat', 'g1', 'latest'); EXCEPTION WHEN OTHERS THEN EXIT; END; END LOOP;
	WHILE n < 9000 LOOP n := n + 1; BEGIN PERFORM mq.seek('eat', 'g1', 'earliest'); EXCEPTION WHEN OTHERS THEN EXIT; END; END LOOP;
END $$;
SQL
	is($alice->q("SELECT count(*) FROM mq.receive('a', max_messages => 10)"), '10', 'others receive');
	is($alice->q("SELECT count(*) FROM mq.pop('a', max_messages => 500)"), '500', 'and pop');
	is($alice->try("SELECT mq.create_queue('a2'); SELECT mq.send('a2', '1'); SELECT mq.ack(receipt) FROM mq.receive('a2')"), '', 'and make queues');
	$bob->q('ROLLBACK');
	$bob->q("SELECT mq.drop_queue('eat', force => true)");
}

# --- privileges on columns -------------------------------------------------------------------------------------------------------------
{
	my $reads = sub { my ($s, $q) = @_; return $s->try("SELECT id, payload FROM mq.q_$q"); };
	my $queue = sub { my ($q) = @_; $alice->q("SELECT mq.create_queue('$q'); SELECT mq.send('$q', '1'); GRANT SELECT ON mq.q_$q TO bob WITH GRANT OPTION"); return $q; };
	my $q = $queue->('c1');
	$bob->q("GRANT SELECT (id, payload) ON mq.q_$q TO carl");
	is($reads->($carl, $q), '', 'a privilege on columns, passed on');
	is($alice->try("SELECT mq.revoke('$q', 'browse', 'bob')"), '', 'revoked from the one who passed it on');
	is($reads->($_, $q), '42501', 'and gone') for $bob, $carl;

	$q = $queue->('c2');
	$bob->q("GRANT SELECT (id, payload) ON mq.q_$q TO carl, bob");
	$alice->q("SELECT mq.grant('$q', 'send', 'bob'); SET statement_timeout = '20s'");
	is($alice->try("SELECT mq.revoke('$q', 'browse', 'carl')"), '', 'revoked from the one who has it');
	is($reads->($carl, $q), '42501', 'and gone');
	is($reads->($bob, $q), '', 'from that one only');
	is($alice->try("SELECT mq.revoke('$q', 'browse', 'bob')"), '', 'nor does one who gave it to himself keep it');
	is($reads->($bob, $q), '42501', 'gone');
	is($bob->try("SELECT mq.send('$q', '2')"), '', 'another right stays');
	$alice->q('RESET statement_timeout');

	$q = 'c3';
	$bob->q("SELECT mq.create_queue('$q'); GRANT SELECT (id, payload) ON mq.q_$q TO carl, bob");
	one($node, "SELECT mq.alter_queue('$q', '{\"owner\": \"alice\"}')");
	is($reads->($_, $q), '42501', 'what a former owner gave on columns goes with him') for $bob, $carl;
	is($reads->($alice, $q), '', 'the new one reads');

	# some of the owner's own go with nobody else's
	$q = $queue->('c4');
	$alice->q("GRANT SELECT (id) ON mq.q_$q TO carl");
	is($alice->try("SELECT mq.revoke('$q', 'browse', 'bob')"), '', 'revoked');
	is($carl->try("SELECT id FROM mq.q_$q"), '', 'what the owner gave on a column stays');
}

# --- a GRANT on columns that is still open when the right is taken ------------------------------------------------------------------------
{
	my $reads = sub { my ($s, $q) = @_; return $s->try("SELECT id, payload FROM mq.q_$q"); };
	$alice->q("SELECT mq.create_queue('open'); GRANT SELECT ON mq.q_open TO bob WITH GRANT OPTION");
	$bob->q('BEGIN; GRANT SELECT (id, payload) ON mq.q_open TO bob, carl');
	$alice->q("SET lock_timeout = '1s'");
	is($alice->try("SELECT mq.revoke('open', 'browse', 'bob')"), '55P03', 'it is waited for, up to lock_timeout');
	$alice->q('RESET lock_timeout');
	$alice->start("SELECT mq.revoke('open', 'browse', 'bob')");
	ok(poll_until('revoke to wait', sub { $alice->waits_on_lock($node) }, 20), 'revoke waits');
	$bob->q('COMMIT');
	isnt(($alice->finish)[0], '', 'and fails, when it is there');
	is($alice->try("SELECT mq.revoke('open', 'browse', 'bob')"), '', 'the next one takes all');
	is($reads->($_, 'open'), '42501', 'nothing is left of it') for $bob, $carl;

	$alice->q("GRANT SELECT ON mq.q_open TO bob WITH GRANT OPTION; BEGIN; SELECT mq.revoke('open', 'browse', 'bob')");
	$bob->start('GRANT SELECT (id, payload) ON mq.q_open TO bob, carl');
	ok(poll_until('the GRANT to wait', sub { $bob->waits_on_lock($node) }, 20), 'the other way round the GRANT waits');
	$alice->q('COMMIT');
	isnt(($bob->finish)[0], '', 'and fails');
	is($reads->($_, 'open'), '42501', 'nothing is left of it') for $bob, $carl;
}

# --- what others have given on columns, with rights of their own, goes with nobody else's --------------------------------------------------
{
	one($node, 'CREATE ROLE eve LOGIN; CREATE ROLE dave LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO eve');
	my ($eve, $dave) = map { session($node, user => $_) } qw(eve dave);
	my $reads = sub { my ($s, $q) = @_; return $s->try("SELECT id FROM mq.q_$q"); };
	$alice->q("SELECT mq.create_queue('k1'); GRANT SELECT ON mq.q_k1 TO bob, eve WITH GRANT OPTION");
	$eve->q('GRANT SELECT (id) ON mq.q_k1 TO dave');
	$bob->q('GRANT SELECT (id) ON mq.q_k1 TO eve; GRANT SELECT (id) ON mq.q_k1 TO ' . one($node, 'SELECT current_user'));
	$alice->q("GRANT SELECT (id) ON mq.q_k1 TO carl; SELECT mq.revoke('k1', 'browse', 'bob')");
	is($reads->($_, 'k1'), '', 'with a right of its own') for $eve, $dave, $carl;
	is($reads->($bob, 'k1'), '42501', 'without');

	# handed on to one of those who passed something on
	$alice->q("SELECT mq.create_queue('k2'); GRANT SELECT ON mq.q_k2 TO bob WITH GRANT OPTION");
	$bob->q('GRANT SELECT ON mq.q_k2 TO eve WITH GRANT OPTION');
	$eve->q('GRANT SELECT (id) ON mq.q_k2 TO dave');
	one($node, q{SELECT mq.alter_queue('k2', '{"owner": "bob"}')});
	is($reads->($dave, 'k2'), $reads->($eve, 'k2'), 'after a hand-over columns go as tables do');
	is($reads->($eve, 'k2'), '', 'what the new owner has passed on stays');
	$_->close for $eve, $dave;
}

# --- a table that was replaced under a living definition, while the worker cannot take it over ---------------------------------------------
{
	$alice->q("SELECT mq.create_queue('swap'); SELECT mq.send('swap', '1')");
	is($alice->q("SELECT count(mq.release(receipt)) FROM mq.receive('swap')"), '1', 'a session that has used the group');
	my $holder = session($node);
	$holder->q("BEGIN; SELECT FROM mq_internal.queue WHERE name = 'swap' FOR UPDATE");
	one($node, 'ALTER TABLE mq.q_swap RENAME TO was_swap; CREATE TABLE mq.q_swap (LIKE mq.was_swap) PARTITION BY RANGE (id); '
		. 'GRANT INSERT, SELECT, TRUNCATE ON mq.q_swap TO alice WITH GRANT OPTION');
	my $new = session($node, user => 'alice');
	for my $s ($alice, $new, $alice)
	{
		is($s->try("SELECT mq.$_"), '55000', "says so: $_") for "receive('swap')", "send('swap', '2')";
		is($s->try("SELECT mq.grant('swap', 'consume', 'carl', 'default')"), '', 'rights on a group are none of its table');
	}
	$holder->q('ROLLBACK');
	one($node, "SELECT mq.drop_queue('swap', force => true); DROP TABLE mq.was_swap CASCADE");
	$_->close for $holder, $new;
}

# --- an expression nested deeper than the stack ------------------------------------------------------------------------------------------
{
	$alice->q("SELECT mq.create_queue('deep', groups => '{default,other}')");
	my @oids = split /\n/, one($node, "SELECT 'mq.q_deep'::regclass::oid UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = 'mq.q_deep'::regclass UNION ALL SELECT rights::oid FROM mq.groups WHERE queue = 'deep'");
	$bob->q("DO \$\$ BEGIN EXECUTE 'CREATE TABLE bob.d$_ (x text DEFAULT (''$_''::regclass' || repeat(' IS NULL', 10000) || ')::text)'; END \$\$") for @oids;
	my $types = one($node, "SELECT reltype FROM pg_class WHERE oid = 'mq.q_deep'::regclass");
	$bob->q("DO \$\$ BEGIN EXECUTE 'CREATE TABLE bob.t (x text DEFAULT (''$types''::regtype' || repeat(' IS NULL', 10000) || ')::text)'; END \$\$");
	is($alice->try("SELECT mq.drop_group('deep', 'other', force => true)"), '', 'a group is dropped') or diag($alice->{last_err});
	is($alice->try("SELECT mq.drop_queue('deep', force => true)"), '', 'and the queue') or diag($alice->{last_err});
	is(one($node, "SELECT count(*) FROM pg_attrdef JOIN pg_class c ON c.oid = adrelid WHERE relnamespace = 'bob'::regnamespace"), scalar @oids, 'what depended on numbers is there');
}

# --- names of groups -------------------------------------------------------------------------------------------------------------------
{
	$alice->q("SELECT mq.create_queue('secret'); SELECT mq.grant('secret', 'send', 'bob')");
	for my $s ($bob, $carl)
	{
		for my $call ("mq.grant('secret', 'consume', 'bob', '%s')", "mq.revoke('secret', 'consume', 'bob', '%s')", "mq.discard('secret', '%s', '{1}')",
			"mq.seek('secret', '%s', start => 'earliest')", "mq.receive('secret', '%s')", "mq.browse('secret', '%s')", "mq.drop_group('secret', '%s')", "mq.create_group('secret', '%s')")
		{
			my @said = map { my $g = $_; $s->try(sprintf "SELECT $call", $g); (my $e = $s->{last_err}) =~ s/\b$g\b/-/g; $e =~ s/stdin>:\d+/stdin/g; $e } qw(default nope);
			is($said[0], $said[1], "the same whether there is such a group: $call");
		}
	}
	$bob->try("SELECT mq.create_queue('secret', groups => '{$_}', if_not_exists => true)"), unlike($bob->{last_err}, qr/differs/, "nor does create_queue tell: $_") for qw(default nope);
}

# --- leftovers of a restore ----------------------------------------------------------------------------------------------------------------
{
	$bob->q("SELECT mq.create_queue('left'); GRANT SELECT (id, payload) ON mq.q_left TO carl, bob");
	# pg_dump cannot read those expressions either
	one($node, 'DROP SCHEMA bob CASCADE');
	one($node, 'CREATE DATABASE bare');
	my $file = $node->data_dir . '/../bare.sql';
	$node->command_ok([ 'pg_dump', '--schema-only', '-f', $file, $node->connstr('postgres') ], 'a dump without data');
	$node->command_ok([ 'psql', '-XAtq', '-f', $file, $node->connstr('bare') ], 'restored');
	my ($a, $b, $c) = map { session($node, user => $_, db => 'bare') } qw(alice bob carl);
	$c->q('BEGIN; PREPARE s AS DELETE FROM mq.q_left');
	$a->q("SET statement_timeout = '60s'");
	is($a->try("SELECT mq.create_queue('left')"), '55P03', 'who holds a lock on leftovers is not waited for longer than ten seconds');
	$c->q('COMMIT');
	is($a->try("SELECT mq.create_queue('left'); SELECT mq.send('left', '1')"), '', 'made again');
	is($_->try('SELECT id, payload FROM mq.q_left'), '42501', 'what the former owner gave on columns is gone') for $b, $c;
	$_->close for $a, $b, $c;
}
$_->close for $alice, $bob, $carl;
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
