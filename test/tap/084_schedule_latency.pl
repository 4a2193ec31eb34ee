# A message that is due comes at once: the worker does not wait for its next turn, and a new queue not for the worker to know it. Measured
# in multiples of a committed INSERT beside it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('latency', fsync => 1);
worker_alive($node);
one($node, <<'SQL');
CREATE TABLE t.plain (id int, at timestamptz);
CREATE TABLE t.took (what text, s float8);
CREATE PROCEDURE t.inserts(n int) LANGUAGE plpgsql AS $$
DECLARE begun timestamptz;
BEGIN
	FOR i IN 1 .. n LOOP
		begun := clock_timestamp();
		INSERT INTO t.plain VALUES (i, now());
		COMMIT;
		INSERT INTO t.took VALUES ('insert', extract(epoch FROM clock_timestamp() - begun));
	END LOOP;
END $$;
CREATE PROCEDURE t.delays(q text, n int) LANGUAGE plpgsql AS $$
DECLARE late float8;
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM mq.send(q, to_jsonb(i), delay => '60 ms');
		COMMIT;
		SELECT extract(epoch FROM clock_timestamp() - due_at) INTO late FROM mq.pop(q, wait => '30 s');
		COMMIT;
		INSERT INTO t.took VALUES (q, late);
	END LOOP;
END $$;
SQL
sub median { my ($what) = @_; return one($node, "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY s) FROM t.took WHERE what = '$what'"); }

one($node, "SELECT mq.create_queue('steady')");
one($node, "CALL t.inserts(60); CALL t.delays('steady', 60)");
# a turn is a second: without being woken it would be half of that
cmp_ok(median('steady'), '<', 100 * median('insert'), sprintf('a message comes %.1f ms after it is due; an INSERT takes %.1f ms', 1000 * median('steady'), 1000 * median('insert')));
is(one($node, "SELECT count(*) FROM t.took WHERE what = 'steady' AND s < 0"), '0', 'and none before');

# each in a queue that has just been made
for my $i (1 .. 15) { one($node, "SELECT mq.create_queue('new$i')"); one($node, "CALL t.delays('new$i', 1)"); }
one($node, "UPDATE t.took SET what = 'new' WHERE what LIKE 'new%'");
cmp_ok(median('new'), '<', 500 * median('insert'), sprintf('the first message of a new queue: %.1f ms', 1000 * median('new')));
done_testing();
