# Many prepared transactions that acked and stay: those that are decided behind them in the list hold nothing back.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $STUCK = 150;
my $node = mq_node('prepared', conf => "mq.drop_delay = 0\nmq.offset_log_size = 64kB\nmax_prepared_transactions = 200\nmax_connections = 20\n");
one($node, <<'SQL');
SELECT mq.create_queue('q');
SELECT t.put_batch('q', 'm', 20000);
CREATE PROCEDURE t.pops(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1 .. n LOOP PERFORM mq.pop('q'); COMMIT; END LOOP; END $$;
SQL
worker_alive($node);
sub prepare { my ($name) = @_; return "BEGIN; SELECT FROM mq.pop('q'); PREPARE TRANSACTION '$name';"; }
sub rows_below { my ($n) = @_; return one($node, "SELECT count(*) FROM (SELECT n FROM mq_internal.consumer_offset_0 UNION ALL SELECT n FROM mq_internal.consumer_offset_1 UNION ALL SELECT n FROM mq_internal.consumer_offset_2 UNION ALL SELECT n FROM mq_internal.consumer_offset_3) o WHERE n <= $n"); }
sub last_n { return one($node, "SELECT max(n) FROM (SELECT n FROM mq_internal.consumer_offset_0 UNION ALL SELECT n FROM mq_internal.consumer_offset_1 UNION ALL SELECT n FROM mq_internal.consumer_offset_2 UNION ALL SELECT n FROM mq_internal.consumer_offset_3) o"); }

# the first ones lie in a table of their own; those that stay in a later one
one($node, prepare("first $_")) for 1 .. 3;
my $first = last_n();
# until acks have filled the table and go to another one
ok(poll_until('the next table', sub { one($node, 'SET synchronous_commit = off; CALL t.pops(200)'); one($node, 'SELECT count(DISTINCT t) FROM (SELECT 0 AS t FROM mq_internal.consumer_offset_0 UNION ALL SELECT 1 FROM mq_internal.consumer_offset_1 UNION ALL SELECT 2 FROM mq_internal.consumer_offset_2) o') > 1 }), 'acks go on in another table');
one($node, join "\n", map { prepare("stuck $_") } 1 .. $STUCK);
# the worker has had a whole turn when it has made segments for a second queue
for my $marker (qw(m1 m2))
{
	one($node, "SELECT mq.create_queue('$marker')");
	ok(poll_until('a turn', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = '$marker'") ne '0' }, 30), "a turn: $marker");
}
cmp_ok(rows_below($first), '>', 0, 'the prepared ones hold their table');
one($node, "$_ PREPARED 'first " . ($_ eq 'ROLLBACK' ? 2 : 1) . "'") for 'COMMIT', 'ROLLBACK';
one($node, "COMMIT PREPARED 'first 3'");
ok(poll_until('the table to be emptied', sub { rows_below($first) eq '0' }, 30), "decided, they hold it no more, though $STUCK others stay");
is(one($node, "SELECT settling FROM mq.groups WHERE queue = 'q'"), $STUCK, 'which are still undecided');
one($node, "ROLLBACK PREPARED 'stuck $_'") for 1 .. $STUCK;
one($node, 'SET synchronous_commit = off; CALL t.pops(200)');
ok(poll_until('the rest', sub { one($node, "SELECT settling FROM mq.groups WHERE queue = 'q'") eq '0' }), 'in the end nothing is left');
done_testing();
