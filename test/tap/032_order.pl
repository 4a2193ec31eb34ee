# A partition that was restored, upgraded or rewritten is looked through once; then what is unfinished in it is found by its
# place again, however many stretches that is. Counted in pages read, beside those that the partition has.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('order', conf => "mq.drop_delay = 3600\nlog_min_messages = log\n");
my $recorded = "SELECT bool_and(file = pg_relation_filenode(v.segment_table)) FROM mq.segments v JOIN mq_internal.queue q ON q.name = v.queue JOIN mq_internal.segment s USING (queue_no, segment) WHERE v.queue = 'big'";

sub leaf { my ($segment, $db) = @_; return one($node, "SELECT segment_table FROM mq.segments WHERE queue = 'big' AND segment = $segment", $db); }
sub pages { my ($db) = @_; return one($node, "SELECT pg_relation_size('" . leaf(0, $db) . "') / 8192", $db); }

# pages read of the first partition, by whoever
sub reads
{
	my ($db) = @_;
	return one($node, "SELECT pg_stat_force_next_flush(); SELECT pg_stat_clear_snapshot(); SELECT heap_blks_read + heap_blks_hit FROM pg_statio_all_tables WHERE relid = '" . leaf(0, $db) . "'::regclass", $db) =~ s/.*\n//sr;
}

# all of them, in one call or in many; each once
sub take_all
{
	my ($db, $batch, $want, $name) = @_;
	my $before = reads($db);
	my $s = session($node, db => $db);
	my $got = $s->q("CREATE TEMP TABLE got (id bigint); DO \$\$ BEGIN LOOP INSERT INTO got SELECT id FROM mq.pop('big', max_messages => $batch); EXIT WHEN NOT FOUND; END LOOP; END \$\$; SELECT count(*) || ' ' || count(DISTINCT id) FROM got; SELECT pg_stat_force_next_flush()");
	is($got =~ s/\s*$//r, "$want $want", "$name: all of them, each once");
	$s->close;
	my $ratio = (reads($db) - $before) / pages($db);
	cmp_ok($ratio, '<=', 3, "$name: at most three times the pages that there are");
	cmp_ok($ratio, '>', 0, sprintf("$name: counted (%.2f times)", $ratio));
	return;
}

sub restore
{
	my ($db, $dump) = @_;
	one($node, "CREATE DATABASE $db");
	command_ok([ 'pg_restore', '-h', $node->host, '-p', $node->port, '--exit-on-error', '-d', $db, $dump ], "restored into $db");
	return;
}

one($node, "SELECT mq.create_queue('big')");
one($node, "SELECT count(mq.send_batch('big', NULL::jsonb[], NULL, array_fill((SELECT string_agg(sha256(i::text::bytea), '') FROM generate_series(1, 40) i), array[1000]))) FROM generate_series(1, 35)");
cmp_ok(pages('postgres'), '>', 5000, 'a large partition');
one($node, "SELECT count(mq.ack_batch(r)) FROM (SELECT array_agg(receipt) r FROM mq.receive('big', max_messages => 100000, visibility_timeout => '1 h') WHERE id % 100 <> 0) m");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-Fc', '-f', $dump, 'postgres' ], 'dumped');

restore('at_once', $dump);
take_all('at_once', 100000, 350, 'restored, all in one call');
restore('one_by_one', $dump);
take_all('one_by_one', 1, 350, 'restored, one by one');
restore('later', $dump);
is(one($node, "SELECT unread_at_most > 0 FROM mq.groups WHERE queue = 'big'", 'later'), 't', 'used once');
ok(poll_until('the order to be on record', sub { one($node, $recorded, 'later') eq 't' }, 60), 'the worker puts on record that it is in order');
is(one($node, "SELECT count(*) FROM mq.receive('big')", 'later'), '1', 'one of them');
{
	my $before = reads('later');
	one($node, "SELECT count(*) FROM mq.receive('big')", 'later') for 1 .. 10;
	cmp_ok(reads('later') - $before, '<', pages('later') / 10, 'a new session does not read it whole any more');
}

# a rewrite of a living one, appended to meanwhile
one($node, "SELECT mq.create_group('big', 'again', start => 'earliest')");
one($node, "SELECT count(mq.ack_batch(r)) FROM (SELECT array_agg(receipt) r FROM mq.receive('big', consumer_group => 'again', max_messages => 100000, visibility_timeout => '1 h') WHERE id % 100 <> 0) m");
$node->restart;
one($node, "VACUUM FULL mq.q_big; SELECT mq.send_batch('big', NULL::jsonb[], NULL, array_fill('\\x00'::bytea, array[100]))");
take_all('postgres', 1, 450, 'VACUUM FULL');
ok(poll_until('the order to be on record', sub { one($node, $recorded) eq 't' }, 60), 'a rewritten one is put on record too');
unlike(slurp_file($node->logfile), qr/not in the order of ids/, 'nothing is out of order');

# in no order: read whole, and known for that
{
	my $leaf = leaf(0);
	one($node, "SELECT mq.seek('big', 'default', start => 'earliest')");
	one($node, "CREATE INDEX backwards ON $leaf (id DESC); CLUSTER $leaf USING backwards; DROP INDEX mq_internal.backwards");
	ok(poll_until('a word on the order', sub { slurp_file($node->logfile) =~ /not in the order of ids/ }, 60), 'CLUSTER in reverse order is noticed');
	one($node, "SELECT mq.send_batch('big', NULL::jsonb[], NULL, array_fill('\\x00'::bytea, array[50]))");
	my $all = one($node, 'SELECT count(*) FROM mq.q_big');
	# some ranges in it that follow each other
	one($node, "SELECT mq.discard('big', 'default', ARRAY(SELECT id FROM mq.q_big WHERE id % 7000 = 0))");
	my ($pages, $shown) = split /\|/, one($node, <<'SQL') =~ s/.*\n//sr;
CREATE FUNCTION pg_temp.page_through() RETURNS text LANGUAGE plpgsql AS $$
DECLARE last bigint := 0; n int := 0; pages int := 0; page bigint[];
BEGIN
	LOOP
		page := ARRAY(SELECT id FROM mq.browse('big', states => '{ready,finished}', max_messages => 9000, after_id => last));
		EXIT WHEN page = '{}';
		IF page <> ARRAY(SELECT unnest(page) ORDER BY 1) THEN RAISE EXCEPTION 'not by id: % .. %', page[1], page[cardinality(page)]; END IF;
		n := n + cardinality(page); pages := pages + 1; last := page[cardinality(page)];
	END LOOP;
	RETURN pages || '|' || n;
END $$;
SELECT pg_temp.page_through();
SQL
	is($shown, $all, "mq.browse pages through all of them, by id, in $pages pages");
	one($node, "SELECT mq.seek('big', 'default', start => 'earliest')");
	is(one($node, "SELECT count(*) || ' ' || count(DISTINCT id) FROM mq.pop('big', max_messages => 100000)"), "$all $all", 'all are there, each once');
	my @said = slurp_file($node->logfile) =~ /not in the order of ids/g;
	is(scalar @said, 1, 'said once');
}
$node->stop;
done_testing();
