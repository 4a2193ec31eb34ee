# One server, many tenants: one that cuts its leases as finely as it can takes its share of the memory and no more. The refusal
# is its own; the others receive, ack, nack and extend as before. After a start a group that does not fit is left out,
# and said to be; everybody else's queues work.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;
$SIG{__DIE__} = sub { diag(@_) if !$^S; };

my $n = 40_000;		# enough to fill 1 MB with a cell for each, several times over

my $helpers = <<SQL;
CREATE ROLE mallory LOGIN; CREATE ROLE alice LOGIN;
GRANT USAGE ON SCHEMA t TO PUBLIC;
SQL

# calls the statement with piece after piece of what is held, until it is refused
my $attack = <<'SQL';
CREATE PROCEDURE t.attack(call text, per int, INOUT refused text DEFAULT NULL, INOUT hint text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE c record; times int := 0;
BEGIN
	FOR c IN EXECUTE format('SELECT array_agg(r ORDER BY i) AS rs, min(i) AS i FROM t.held WHERE i %% 2 = 0 GROUP BY i / %s ORDER BY i / %1$s', per) LOOP
		BEGIN
			times := times + 1;
			EXECUTE call USING c.rs, times;
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
			refused := SQLSTATE;
		END;
		EXIT WHEN refused IS NOT NULL;
		COMMIT;
	END LOOP;
END $$;
SQL

sub tenants
{
	my ($name, %o) = @_;
	my $node = mq_node($name, conf => "mq.shared_memory = '" . ($o{memory} || '1MB') . "'\nautovacuum = off\nsynchronous_commit = off\nfsync = off\nmq.drop_delay = 0\n");
	one($node, $helpers . $attack);
	for my $who ('mallory', 'alice')
	{
		one($node, "GRANT EXECUTE ON FUNCTION mq.create_queue TO $who; GRANT ALL ON SCHEMA t TO $who; GRANT ALL ON ALL TABLES IN SCHEMA t TO $who");
		one($node, "SET ROLE $who; SELECT mq.create_queue('$who', groups => '{default,second}')");
	}
	one($node, "CREATE TABLE t.held (i int, r uuid); GRANT ALL ON t.held TO PUBLIC");
	one($node, "SET ROLE mallory; SELECT count(mq.send_batch('mallory', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 1000) i))) FROM generate_series(1, $n / 1000)");
	one($node, "SET ROLE alice; SELECT count(mq.send_batch('alice', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 1000) i)))");
	return $node;
}

# all that a consumer does, one of a batch each
sub alice_works
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($node, $name) = @_;
	my $alice = session($node, user => 'alice');
	my $said = $alice->try(<<'SQL');
DO $$
DECLARE r uuid[];
BEGIN
	FOR i IN 1 .. 3 LOOP
		SELECT array_agg(receipt ORDER BY id) INTO r FROM mq.receive('alice', max_messages => 20, consumer => 'alice ' || i, visibility_timeout => '1 h');
		IF cardinality(r) IS DISTINCT FROM 20 THEN RAISE EXCEPTION 'received %', cardinality(r); END IF;
		PERFORM mq.ack(r[10]);
		PERFORM mq.ack(r[1]);
		PERFORM mq.extend(r[5], '2 h');
		PERFORM mq.nack(r[7], '1 h');
		PERFORM mq.release(r[15]);
		PERFORM mq.discard('alice', 'default', array[(SELECT min(id) FROM mq.browse('alice', states => '{ready}'))]);
	END LOOP;
END $$
SQL
	my $ok = is($said, '', "$name: others receive, ack, extend, nack, release and discard");
	diag($alice->{last_err}, settle_text($node, 'mallory'), "\n", settle_text($node, 'alice')) if !$ok;
	$alice->close;
	return;
}

# --- every way to cut a lease into many entries ----------------------------------------------------------------------------
my %way = (
	'extend'  => q{SELECT mq.extend_batch($1, ($2 + 1000) * interval '1 s')},
	'extend one by one' => q{SELECT mq.extend(r, (n + $2 + 1000) * interval '1 s') FROM unnest($1) WITH ORDINALITY u (r, n)},
	'nack with a delay' => q{SELECT mq.nack_batch($1, ($2 + 1000) * interval '1 s')},
	'nack'    => q{SELECT mq.nack_batch($1)},
	'release' => q{SELECT mq.release_batch($1)},
	'ack'     => q{SELECT mq.ack_batch($1)},
);
for my $way (sort keys %way)
{
	(my $name = "tenants_$way") =~ tr/ /_/;
	my $node = tenants($name);
	my $mallory = session($node, user => 'mallory');
	for my $group ('default', 'second')
	{
		$mallory->q("TRUNCATE t.held");
		$mallory->q("INSERT INTO t.held SELECT row_number() OVER (ORDER BY id), receipt FROM mq.receive('mallory', consumer_group => '$group', max_messages => $n, visibility_timeout => '30 days')");
		my ($refused, $hint) = split /\|/, $mallory->q("CALL t.attack(\$q\$$way{$way}\$q\$, 20)"), -1;
		is($refused, '53200', "$way, group $group: refused in the end");
		like($hint, qr/same fate/, "$way, group $group: with what to do");
		alice_works($node, "$way, group $group");
		# what leaves no more behind always goes
		is($mallory->try("SELECT mq.ack_batch(array_agg(r)) FROM (SELECT r FROM t.held WHERE i % 2 = 1 ORDER BY i LIMIT 5) x"), '', "$way, group $group: what it holds it may finish");
	}
	$mallory->close;
	$node->stop('immediate');
}

# --- a name for each message -------------------------------------------------------------------------------------------------------
{
	my $node = tenants('names');
	my $mallory = session($node, user => 'mallory');
	$mallory->try("DO \$\$ BEGIN FOR i IN 1 .. 15000 LOOP PERFORM mq.receive('mallory', max_messages => 1, consumer => 'n' || i, visibility_timeout => '1 h'); END LOOP; END \$\$");
	alice_works($node, 'names');
	$mallory->close;
	$node->stop('immediate');
}

# --- after a start with less memory -------------------------------------------------------------------------------------------------
{
	my $node = tenants('restart', memory => '4MB');
	my $mallory = session($node, user => 'mallory');
	$mallory->q("SELECT count(mq.send_batch('mallory', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 1000) i))) FROM generate_series(1, 20)");
	$mallory->q("INSERT INTO t.held SELECT row_number() OVER (ORDER BY id), receipt FROM mq.receive('mallory', max_messages => 60000, visibility_timeout => '30 days')");
	$mallory->q("CALL t.attack(\$q\$$way{'nack with a delay'}\$q\$, 20)");
	$mallory->close;
	one($node, "SELECT count(*) FROM mq.pop('alice', max_messages => 10)");
	$node->stop('fast');
	$node->append_conf('postgresql.conf', "mq.shared_memory = '1MB'\n");
	$node->start;

	alice_works($node, 'left out');
	is(one($node, "SELECT count(*) FROM mq.receive('alice', max_messages => 5, visibility_timeout => '1 s')"), '5', 'left out: other groups of the database work');
	is(one($node, "SELECT count(*) FROM mq.receive('mallory', consumer_group => 'second', max_messages => 5, visibility_timeout => '1 s')"), '5', 'left out: so does the other group of the same queue');
	like(err($node, "SELECT mq.receive('mallory')"), qr/53200: the unfinished messages of consumer group "default" of queue "mallory" do not fit.*HINT: .*mq.shared_memory/s, 'left out: the group itself is refused, with what to do');
	is(sqlstate($node, "SELECT mq.send('mallory', '1')"), '', 'left out: senders go on');
	is(one($node, "SELECT held_back > 0 AND ready + retrying = 0 AND unread_at_most >= 1000 FROM mq.groups WHERE queue = 'mallory' AND consumer_group = 'default'"), 't', 'left out: mq.groups shows it')
	  or diag(settle_text($node, 'mallory'));
	is(one($node, "SELECT count(*) FROM mq.in_flight WHERE queue = 'mallory' AND consumer_group = 'default'"), '0', 'left out: mq.in_flight goes on');
	my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
	is(scalar(() = $log =~ /WARNING:  consumer group "default" of queue "mallory" is left out/g), 1, 'left out: one warning in the log');
	unlike($log, qr/ERROR:  .*(?!receive).*fit into mq's shared memory.*\n.*\n.*CONTEXT.*worker/, 'left out: and the worker does not complain each second');

	$node->append_conf('postgresql.conf', "mq.shared_memory = '4MB'\n");
	$node->restart;
	is(one($node, "SELECT count(*) FROM mq.receive('mallory', max_messages => 5)"), '5', 'with more memory it is there again');
	is(one($node, "SELECT ready + retrying + leased + unread_at_most > 10000 FROM mq.groups WHERE queue = 'mallory' AND consumer_group = 'default'"), 't', 'whole');
	$node->stop('immediate');
}

# --- with what gives it up --------------------------------------------------------------------------------------------------------------
for my $how ("mq.purge('mallory')", "mq.seek('mallory', 'default', start => 'latest')", "mq.drop_queue('mallory', force => true)")
{
	(my $name = "give_up_$how") =~ s/\W.*//s;
	my $node = tenants($name . length $how, memory => '4MB');
	my $mallory = session($node, user => 'mallory');
	$mallory->q("INSERT INTO t.held SELECT row_number() OVER (ORDER BY id), receipt FROM mq.receive('mallory', max_messages => 60000, visibility_timeout => '30 days')");
	$mallory->q("CALL t.attack(\$q\$$way{'nack with a delay'}\$q\$, 20)");
	$mallory->close;
	$node->stop('fast');
	$node->append_conf('postgresql.conf', "mq.shared_memory = '1MB'\n");
	$node->start;
	is(sqlstate($node, "SELECT mq.receive('mallory')"), '53200', "$how: left out");
	is(sqlstate($node, "SELECT mq.drop_queue('mallory')"), '55000', "$how: and not taken for empty");
	is(sqlstate($node, "SELECT $how"), '', "$how: works");
	is(one($node, "SELECT mq.create_queue('mallory', if_not_exists => true); SELECT mq.send('mallory', '\"new\"') > 0; SELECT payload FROM mq.pop('mallory')") =~ /"new"/ ? 1 : 0, 1, "$how: it goes on");
	$node->stop('immediate');
}

done_testing();
