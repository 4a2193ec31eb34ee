# Seeks among consumers in flight, and a kill -9: in the last epoch each message is finished exactly once, whatever acks of
# earlier epochs committed before, during or after the seek, and whatever of it replay reads again.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time sleep);
use MqTest;

my $node = mq_node('seek_crash', fsync => 1, conf => "mq.drop_delay = '1h'\nmq.offset_log_size = '64kB'\nmq.visibility_timeout = '300 ms'\n");
# The ledger has the epoch before the receive (e0) and after the ack (e1).  Both the last: finished in it for sure.  A seek in
# between: finished in one of the two.
one($node, <<'SQL');
SELECT mq.create_queue('e', options => '{"segment_size": 1024}');
CREATE TABLE t.fin (k bigint, e0 int, e1 int);
CREATE FUNCTION t.epoch() RETURNS int LANGUAGE sql AS $$ SELECT epoch::int FROM mq.groups WHERE queue = 'e' $$;
CREATE FUNCTION t.finish(n int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE r uuid[]; ids bigint[]; refused uuid[]; e0 int := t.epoch();
BEGIN
	SELECT array_agg(receipt), array_agg(id) INTO r, ids FROM mq.receive('e', max_messages => n);
	IF r IS NULL THEN RETURN 0; END IF;
	refused := mq.ack_batch(r, strict => false);
	INSERT INTO t.fin SELECT k, e0, t.epoch() FROM unnest(r, ids) u (x, k) WHERE x <> ALL (refused);
	RETURN cardinality(ids);
END $$;
SELECT cardinality(mq.send_batch('e', array_fill('1'::jsonb, ARRAY[6000])));
SQL

my %script = (
	a => "SELECT t.finish(20);\n",
	b => "BEGIN;\nSELECT t.finish(7);\n\\sleep 3 ms\nCOMMIT;\n",
	c => "BEGIN;\nSELECT t.finish(7);\nSAVEPOINT a;\nSELECT t.finish(5);\nROLLBACK TO a;\nCOMMIT;\n",
	d => "BEGIN;\nSELECT t.finish(9);\nROLLBACK;\n");
my @files;
for my $f (sort keys %script) { open my $h, '>', $node->basedir . "/$f.sql" or die; print $h $script{$f}; close $h; push @files, '-f', $node->basedir . "/$f.sql"; }

for my $round (1 .. scaled(3))
{
	local %ENV = $node->_get_env();
	my ($out, $err) = ('', '');
	my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '6', '-T', '20', @files, 'postgres' ], '>', \$out, '2>', \$err);
	my $before = one($node, 'SELECT count(*) FROM t.fin');
	my $end = time() + 1.5;
	while (time() < $end)
	{
		my $id = 1 + int(rand(5000));
		one($node, rand() < 0.5 ? "SELECT mq.seek('e', 'default', start => 'earliest')" : rand() < 0.3 ? "BEGIN; SELECT mq.seek('e', 'default', start => 'latest'); ROLLBACK" : "SELECT mq.seek('e', 'default', start_id => $id)");
		sleep(rand(0.3));
	}
	# the last one, some acks after it, and the end
	my $last = $round % 2 ? 1 : 1 + int(rand(3000));
	one($node, "SELECT mq.seek('e', 'default', start_id => $last)");
	sleep(rand(0.3));
	$node->kill9;
	eval { $bench->finish };
	ok(mq_start_again($node), "round $round: kill -9 and up again");
	cmp_ok(one($node, 'SELECT count(*) FROM t.fin'), '>', $before, "round $round: messages were finished beside the seeks");
	poll_until('the rest', sub { one($node, 'SELECT t.finish(1000)') eq '0' && one($node, "SELECT count(*) FROM mq.in_flight WHERE queue = 'e'") eq '0' }, 30);
	is(one($node, "SELECT count(*) FILTER (WHERE sure > 1) || ' twice, ' || count(*) FILTER (WHERE sure + perhaps = 0) || ' lost of ' || count(*)
		FROM (SELECT i, count(*) FILTER (WHERE e1 = c.e AND e0 = c.e) AS sure, count(*) FILTER (WHERE e1 = c.e AND e0 <> c.e) AS perhaps
			  FROM (SELECT t.epoch() AS e) c, generate_series($last, 6000) i LEFT JOIN t.fin ON k = i GROUP BY 1) x"),
		'0 twice, 0 lost of ' . (6001 - $last), "round $round: each message exactly once in the last epoch");
}
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
