# What a transaction undoes costs what it did, not what others hold between; and what is done under a lock that others need is done in
# pieces. Compared with the same work without the others, in the same run: no clock of the machine's.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $others = 200_000;
my $node = mq_node('long_lists', conf => "mq.shared_memory = '128MB'\nmq.max_groups = 8100\nautovacuum = off\nsynchronous_commit = off\nfsync = off\n");

# the shortest of several times that rolling back a receive of two messages takes, in microseconds. The first one is the lowest
# id there is, the second the highest.
one($node, <<'SQL');
CREATE FUNCTION t.undo_time(q text, times int) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE began timestamptz; best float8 := 'infinity'; n int;
BEGIN
	FOR i IN 1 .. times LOOP
		-- what failed comes back after a pause
		WHILE EXISTS (SELECT FROM mq.browse(q, states => '{retrying}')) LOOP PERFORM pg_sleep(0.01); END LOOP;
		BEGIN
			SELECT count(*) INTO STRICT n FROM mq.receive(q, max_messages => 2, visibility_timeout => '1 h');
			IF n <> 2 THEN RAISE EXCEPTION 'received %', n; END IF;
			began := clock_timestamp();
			RAISE EXCEPTION SQLSTATE 'ZZ000';
		EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
			best := least(best, extract(epoch FROM clock_timestamp() - began) * 1e6);
		END;
	END LOOP;
	RETURN best;
END $$;
CREATE PROCEDURE t.fill(q text, n int) LANGUAGE plpgsql AS $$
DECLARE lowest uuid;
BEGIN
	PERFORM mq.create_queue(q);
	FOR i IN 1 .. n / 1000 LOOP
		PERFORM mq.send_batch(q, (SELECT array_agg(to_jsonb(j)) FROM generate_series(1, 1000) j));
		COMMIT;
	END LOOP;
	SELECT receipt INTO STRICT lowest FROM mq.receive(q, max_messages => 1, visibility_timeout => '1 h');
	COMMIT;
	-- of the others every second one is acked, so that no two leases touch
	FOR i IN 1 .. n / 1000 LOOP
		PERFORM mq.ack_batch((SELECT array_agg(receipt) FILTER (WHERE id % 2 = 0) FROM mq.receive(q, max_messages => 1000, visibility_timeout => '1 h')));
		COMMIT;
	END LOOP;
	PERFORM mq.send(q, '"the highest"');
	PERFORM mq.release(lowest);
END $$;
SQL

one($node, "CALL t.fill('few', 1000)");
one($node, "CALL t.fill('many', $others)");
cmp_ok(one($node, "SELECT leased FROM mq.groups WHERE queue = 'many'"), '>=', $others / 2 - 1, 'many leases, none touching the next');
my $short = one($node, "SELECT t.undo_time('few', 6)");
my $long = one($node, "SELECT t.undo_time('many', 6)");
diag("undoing two hand-outs: $short us, with $others others' between $long us");
cmp_ok($long, '<', 10 * $short + 100, 'undoing a receive does not walk over what others hold');

# --- consumers with a name, and groups that a session knows: what is looked up costs the same among many ------------------------------
one($node, <<'SQL');
CREATE FUNCTION t.elapsed(sql text, first int, last int) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE began timestamptz := clock_timestamp();
BEGIN
	FOR i IN first .. last LOOP EXECUTE sql USING i; END LOOP;
	RETURN extract(epoch FROM clock_timestamp() - began) * 1e6 / (last - first + 1);
END $$;
SQL
{
	my $names = 20_000;
	my $receive = q{SELECT FROM mq.receive('named', consumer => 'consumer ' || $1, visibility_timeout => '1 h')};
	one($node, "SELECT mq.create_queue('named'); SELECT mq.create_group('named', 'limited', options => jsonb_build_object('max_in_flight_per_consumer', 5)); SELECT count(*) FROM mq.send_batch('named', array_fill('1'::jsonb, ARRAY[$names]))");
	$receive =~ s/consumer =>/consumer_group => 'limited', consumer =>/;
	my ($first, $last) = split /\|/, one($node, sprintf q{SELECT t.elapsed(s, 1, 1000), t.elapsed(s, 1001, %d - 1000) IS NULL, t.elapsed(s, %d - 999, %d) FROM (SELECT $s$%s$s$ AS s) q}, ($names) x 3, $receive)
	  =~ s/\|f\|/|/r;
	diag("receiving for a new name: $first us, with $names names $last us");
	is(one($node, "SELECT count(*) FROM mq.consumers WHERE queue = 'named'"), $names, 'so many consumers with a name');
	cmp_ok($last, '<', 3 * $first, 'names of consumers are found whatever their number');
}
{
	my $groups = 8_000;
	one($node, "SELECT mq.create_queue('wide', groups => ARRAY(SELECT 'g' || i FROM generate_series(1, $groups) i))");
	# the same two hundred, when the session knows no others and when it knows them all
	my $receive = q{SELECT FROM mq.receive('wide', 'g' || (1 + $1 % 200))};
	my (undef, $first, undef, $last) = split /\|/, one($node, sprintf q{SELECT t.elapsed(s, 1, 200), t.elapsed(s, 1, 4000), t.elapsed(a, 1, %d), t.elapsed(s, 1, 4000)
		FROM (SELECT $s$%s$s$ AS s, $s$SELECT FROM mq.receive('wide', 'g' || $1)$s$ AS a) q}, $groups, $receive);
	diag("receiving from a group: $first us, in a session that knows $groups $last us");
	cmp_ok($last, '<', 3 * $first, 'a group is found whatever number the session knows');
}

done_testing();
