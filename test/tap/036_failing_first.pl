# A message that fails at once and is first in line: the others get their turn.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time);
use MqTest;

my $node = mq_node('failing', conf => "mq.visibility_timeout = '10 min'\n");

# takes one at a time; message 1 comes back by `how`; ends when all others are done, or after so many hand-outs of message 1
one($node, <<'SQL');
CREATE FUNCTION fail() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'innocent' USING errcode = '40001'; END $$;
CREATE TABLE tries (q text, at timestamptz, attempt int, failures int);
CREATE PROCEDURE work(q text, how text, at_least int, at_most int) LANGUAGE plpgsql AS $$
DECLARE m mq.message; bad int := 0; done int := 0;
BEGIN
	WHILE (done < 999 OR bad < at_least) AND bad < at_most LOOP
		m := NULL;
		BEGIN
			IF how LIKE 'pop%' THEN
				SELECT * INTO m FROM mq.pop(q);
			ELSE
				SELECT * INTO m FROM mq.receive(q, max_messages => 1, visibility_timeout => CASE how WHEN 'lease end' THEN interval '1 ms' ELSE '1 hour' END);
			END IF;
			IF m.payload = '1' THEN
				bad := bad + 1;
				IF how LIKE '%savepoint' THEN
					RAISE EXCEPTION 'bad';
				ELSIF how = '40001' THEN
					PERFORM fail();
				ELSIF how = 'nack' THEN
					PERFORM mq.nack(m.receipt);
				END IF;
			ELSIF m.id IS NOT NULL THEN
				done := done + 1;
				IF how NOT LIKE 'pop%' THEN
					PERFORM mq.ack_batch(ARRAY[m.receipt], strict => false);
				END IF;
			END IF;
		EXCEPTION WHEN raise_exception OR serialization_failure THEN NULL;
		END;
		IF m.payload = '1' AND how LIKE '%rollback' THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
		IF m.payload = '1' THEN
			INSERT INTO tries VALUES (q, clock_timestamp(), m.attempt, m.failures);
			IF how = 'lease end' THEN PERFORM pg_sleep(0.002); END IF;
			COMMIT;
		END IF;
	END LOOP;
END $$;
SQL

my $i = 0;
for my $how ('rollback', 'savepoint', 'pop, rollback', 'pop, savepoint', 'nack', 'lease end', '40001')
{
	my $q = 'q' . ++$i;
	one($node, "SELECT mq.create_queue('$q')");
	one($node, "SELECT mq.send_batch('$q', array_agg(to_jsonb(i) ORDER BY i)) FROM generate_series(1, 1000) i");
	one($node, "CALL work('$q', '$how', 5, 100)");
	my $bad = one($node, "SELECT count(*) FROM tries WHERE q = '$q'");
	cmp_ok($bad, '<', 100, "$how: the others get their turn ($bad hand-outs of the bad one)");
	cmp_ok($bad, '>=', 5, "$how: it comes again and again");
	is(one($node, "SELECT count(*) FROM mq.browse('$q', states => '{finished}', max_messages => 1000)"), '999', "$how: they are done");
	# gaps between its hand-outs: the second at once, then growing
	my @gap = split /,/, one($node, "SELECT string_agg((extract(epoch FROM gap) * 1000)::int::text, ',' ORDER BY at) FROM (SELECT at, at - lag(at) OVER (ORDER BY at) AS gap FROM tries WHERE q = '$q') x WHERE gap IS NOT NULL");
	note("$how: ms between hand-outs: @gap");
	my ($second, $third) = $how eq '40001' ? (2, 3) : (1, 2);
	my $least = $how eq '40001' ? 1000 : 100;
	cmp_ok($gap[$second], '>=', $least - 20, "$how: a pause (@gap)");
	cmp_ok($gap[$third], '>=', 2 * $least - 20, "$how: and a longer one");
	if ($how eq '40001') { is(one($node, "SELECT max(failures) FROM tries WHERE q = '$q'"), '0', "$how: no failure counted"); }
}

# with a delay it comes when the nack says, and at once if that is 0
one($node, "SELECT mq.create_queue('z'); SELECT mq.send('z', '1')");
is(one($node, "DO \$\$ BEGIN FOR i IN 1 .. 20 LOOP PERFORM mq.nack(receipt, '0') FROM mq.receive('z'); COMMIT; END LOOP; END \$\$; SELECT attempt, failures FROM mq.receive('z')"), '21|20', 'delay 0: at once');

# the pause is in the checkpoint
one($node, "SELECT mq.create_queue('r'); SELECT mq.send('r', '1')");
one($node, "DO \$\$ BEGIN FOR i IN 1 .. 30 LOOP PERFORM mq.nack(receipt, '0') FROM mq.receive('r'); COMMIT; END LOOP; PERFORM mq.nack(receipt) FROM mq.receive('r'); END \$\$");
$node->restart;
is(one($node, "SELECT count(*) FROM mq.receive('r')"), '0', 'a long pause outlives a restart');
is(one($node, "SELECT failures FROM mq.browse('r', states => '{retrying}')"), '31', 'with its failures');

# neighbours that come back together stay together: a rollback of a large hand-out takes no memory
one($node, "SELECT mq.create_queue('many'); SELECT mq.send_batch('many', array_agg(to_jsonb(i))) FROM generate_series(1, 5000) i");
one($node, "DO \$\$ BEGIN FOR i IN 1 .. 3 LOOP PERFORM count(*) FROM mq.receive('many', max_messages => 5000, wait => '5 s'); ROLLBACK; END LOOP; END \$\$");
is(one($node, "SELECT count(*), min(failures), count(DISTINCT due_at) < 5 FROM mq.browse('many', states => '{retrying}', max_messages => 5000)"), '5000|3|t', 'a hand-out that fails as a whole stays whole');

done_testing();
