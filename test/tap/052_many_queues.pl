# Thousands of queues: what a view and a session's first send cost, as ratios of one run; who sees the views; a standby; more
# queues than fit.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Time::HiRes qw(time);
use Test::More;
use MqTest;

my $many = scaled(5000);
my $conf = "mq.max_queues = 6000\nmq.max_groups = 6000\nmax_locks_per_transaction = 1000\nautovacuum = off\n";
my $node = mq_node('many', conf => $conf, streaming => 1);
one($node, 'CREATE TABLE plain (id int, payload jsonb)');

# the fastest of some runs, in seconds
sub fastest
{
	my ($times, $code) = @_;
	my $best;
	for (1 .. $times)
	{
		my $start = time();
		$code->();
		my $took = time() - $start;
		$best = $took if !defined $best || $took < $best;
	}
	return $best;
}
sub views
{
	my ($s) = @_;
	return { map { my $sql = $_; $sql => fastest(3, sub { $s->q($sql) }) } 'SELECT count(*) FROM mq.queues', 'SELECT count(*) FROM mq.groups', 'SELECT count(*) FROM mq.segments', 'SELECT count(*) FROM mq.in_flight', 'SELECT sum(bytes) FROM mq.queues', 'SELECT sum(held_bytes) FROM mq.groups' };
}
sub create
{
	my ($from, $to) = @_;
	# so many at a time as the lock table holds
	for (my $at = $from; $at <= $to; $at += 100)
	{
		my $end = $at + 99 < $to ? $at + 99 : $to;
		one($node, "SELECT count(mq.create_queue('q' || i, options => jsonb_build_object('segment_size', 1024))) FROM generate_series($at, $end) i");
	}
	return;
}
# the fastest first one of a session
sub first_time
{
	my ($sql) = @_;
	my $best;
	for (1 .. 25)
	{
		my $s = session($node);
		$s->q('SELECT 1');
		my $start = time();
		$s->q($sql);
		my $took = time() - $start;
		$s->close;
		$best = $took if !defined $best || $took < $best;
	}
	return $best;
}

create(1, 10);
my $s = session($node);
one($node, "SELECT mq.send('q7', '1')");
my $few = views($s);
my $send_few = first_time("SELECT mq.send('q7', '1')");
create(11, $many);
# each queue is used once since the start: what is measured is the view, not that
$s->q('SELECT count(*) FROM mq.groups');
my $lots = views($s);
my $send_lots = first_time("SELECT mq.send('q7', '1')");
my $insert = fastest(20, sub { $s->q("INSERT INTO plain VALUES (1, '1')") });
for my $sql (sort keys %$few)
{
	# at $many / 10 times as many queues; a view of nothing takes at least a round trip
	my $ratio = $lots->{$sql} / $few->{$sql};
	cmp_ok($ratio, '<=', 600, sprintf('%s: %.1f times as long with %d queues as with 10 (%.1f ms)', $sql, $ratio, $many, 1000 * $lots->{$sql}));
}
# what a session does first reads the catalogs, which grow with the tables there are: an INSERT does so, too
my $first_insert = first_time("INSERT INTO plain VALUES (1, '1')");
cmp_ok($send_lots - $send_few, '<=', $first_insert, sprintf('a session\'s first send takes %.2f ms, and %.2f with 10 queues; its first INSERT %.2f', 1000 * $send_lots, 1000 * $send_few, 1000 * $first_insert));
# one queue of many
my $one = fastest(15, sub { $s->q("SELECT * FROM mq.queues WHERE queue = 'q77'") });
cmp_ok($one, '<=', $lots->{'SELECT count(*) FROM mq.queues'} + $insert, 'a look at one queue takes no more than one at all');
# what one queue does is no news for the others: their definitions stay known
{
	my $b = session($node);
	$b->q("SELECT mq.send('q' || i, '1') FROM generate_series(1, 20) i");
	my $known = fastest(5, sub { $b->q("SELECT mq.send('q3', '1')") });
	my $after;
	for (1 .. 5)
	{
		my $segments = one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'q9'");
		one($node, "SELECT count(*) FROM mq.send_batch('q9', array_fill('1'::jsonb, ARRAY[3000]))");
		ok(poll_until('segments of another queue to be attached', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'q9'") > $segments }), 'another queue gets segments');
		my $start = time();
		$b->q("SELECT mq.send('q3', '1')");
		my $took = time() - $start;
		$after = $took if !defined $after || $took < $after;
	}
	cmp_ok($after, '<=', $known + 20 * $insert, 'a send after that is no dearer');
	$b->close;
}
# many groups of a queue with many partitions: each partition is measured once
one($node, "SELECT mq.create_queue('wide', options => jsonb_build_object('segment_size', 1024))");
one($node, "SELECT count(mq.create_group('wide', 'g' || i)) FROM generate_series(1, 20) i");
one($node, "SELECT count(*) FROM mq.send_batch('wide', array_fill('1'::jsonb, ARRAY[3000]))") for 1 .. 20;
ok(poll_until('partitions', sub { one($node, "SELECT segments FROM mq.queues WHERE queue = 'wide'") >= 58 }), 'a queue with many partitions and groups');
my $bytes = fastest(3, sub { $s->q("SELECT bytes FROM mq.queues WHERE queue = 'wide'") });
my $held = fastest(3, sub { $s->q("SELECT sum(held_bytes) FROM mq.groups WHERE queue = 'wide'") });
my $groups_only = fastest(3, sub { $s->q("SELECT sum(ready) FROM mq.groups WHERE queue = 'wide'") });
cmp_ok($held - $groups_only, '<=', 5 * $bytes + 3 * $insert, sprintf('held_bytes of 21 groups takes %.1f ms, bytes of the queue %.1f', 1000 * $held, 1000 * $bytes));
is(one($node, "SELECT string_agg(DISTINCT held_bytes::text, ' ') = (SELECT bytes::text FROM mq.queues WHERE queue = 'wide') FROM mq.groups WHERE queue = 'wide' AND low_watermark < 1024"), 't', 'and says the same');
$s->close;

# --- who sees the views ----------------------------------------------------------------------------------------------------------
one($node, "CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor; CREATE ROLE stats LOGIN; GRANT pg_read_all_stats TO stats; CREATE ROLE nobody LOGIN");
one($node, "SELECT mq.create_queue('seen'); SELECT mq.send('seen', '\"secret\"'); SELECT count(*) FROM mq.receive('seen', max_messages => 1, visibility_timeout => '1 h')");
for my $role ('monitor', 'stats')
{
	my $m = session($node, user => $role);
	is($m->q("SELECT count(*) FROM mq.queues WHERE queue = 'seen'"), '1', "$role sees the queue");
	is($m->q("SELECT leased FROM mq.groups WHERE queue = 'seen'"), '1', "$role sees how much is in it");
	is($m->q("SELECT count(*) FROM mq.in_flight WHERE queue = 'seen'"), '1', "$role sees what is handed out");
	is($m->q("SELECT count(*) > 0 FROM mq.segments WHERE queue = 'seen'"), 't', "$role sees partitions");
	is($m->try($_), '42501', "$role: $_") for "SELECT * FROM mq.browse('seen', states => '{ready}')", 'SELECT * FROM mq.q_seen', "SELECT * FROM mq.receive('seen')", "SELECT mq.send('seen', '1')", "SELECT mq.purge('seen')", 'SELECT * FROM mq_internal.group_state()';
	$m->close;
}
is(one($node, 'SET ROLE nobody; SELECT (SELECT count(*) FROM mq.queues) + (SELECT count(*) FROM mq.groups) + (SELECT count(*) FROM mq.segments) + (SELECT count(*) FROM mq.in_flight)'), '0', 'a role without rights sees nothing');

# --- a standby says what it cannot know ---------------------------------------------------------------------------------------------
{
	$node->backup('copy');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($node, 'copy', has_streaming => 1);
	$standby->start;
	$node->wait_for_catchup($standby);
	is(one($standby, "SELECT count(*), count(next_id), count(bytes) FROM mq.queues WHERE queue = 'seen'"), '1|0|1', 'standby: queues, with what is on disk');
	is(one($standby, "SELECT count(*), count(ready), count(leased), count(unread_at_most), count(epoch) FROM mq.groups WHERE queue = 'seen'"), '1|0|0|0|1', 'standby: groups; null is not zero');
	my ($out, $err) = ('', '');
	$standby->psql('postgres', 'SELECT count(*) FROM mq.in_flight', stdout => \$out, stderr => \$err);
	like($err, qr/NOTICE:  what is in flight is known on the primary only/, 'standby: in_flight says why it is empty');
	$standby->stop;
}

# --- more queues than fit: the others are shown --------------------------------------------------------------------------------------
{
	$node->append_conf('postgresql.conf', "mq.max_queues = 100\nmq.max_groups = 100");
	$node->restart;
	is(one($node, 'SELECT count(*) = ' . ($many + 2) . ', count(next_id) BETWEEN 90 AND 100 FROM mq.queues'), 't|t', 'all queues are listed, with what is known of those that fit');
	is(one($node, 'SELECT count(*) = ' . ($many + 22) . ', count(ready) BETWEEN 60 AND 100 FROM mq.groups'), 't|t', 'all groups too');
	is(sqlstate($node, 'SELECT * FROM mq.in_flight'), '', 'and in_flight');
}
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
