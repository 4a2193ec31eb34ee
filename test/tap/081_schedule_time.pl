# The schedule over hours and months, by a clock of the server's own (clock.c): messages come nearer from table to table, tables are
# emptied, a clock that is set back or forth loses nothing and delivers nothing early by the clock as it is; dump and restore, a copy of
# the database, a standby that takes over.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time sleep);
use PostgreSQL::Test::Utils;
use MqTest;

use constant { HOUR => 3600, DAY => 86400 };
my $dir = PostgreSQL::Test::Utils::tempdir;
system('gcc', '-shared', '-fPIC', '-O1', '-Wall', '-o', "$dir/clock.so", "$FindBin::Bin/clock.c") == 0 or die 'gcc';
my $offset = 0;
sub set_clock
{
	($offset) = @_;
	open my $f, -e "$dir/clock" ? '+<' : '>', "$dir/clock" or die "$dir/clock: $!";
	syswrite $f, pack('q', $offset * 1_000_000);
	close $f;
	return;
}
set_clock(0);
my $node;
{
	local $ENV{LD_PRELOAD} = "$dir/clock.so";
	local $ENV{MQ_CLOCK} = "$dir/clock";
	$node = mq_node('schedule_time', streaming => 1, conf => "mq.drop_delay = 0\nautovacuum = off\n");
}
my $points = mq_stop_points($node);

sub put { my ($q, $k, $delay) = @_; return one($node, "SELECT mq.send('$q', to_jsonb('$k'::text), delay => '$delay')"); }
# where the message is: hour, day, later, or nowhere
sub where { my ($id, $q) = @_; return one($node, "SELECT coalesce((SELECT regexp_replace(s.tableoid::regclass::text, '.*scheduled_([a-z]+).*', '\\1') FROM mq_internal.scheduled s JOIN mq_internal.queue u USING (queue_no) WHERE id = $id AND u.name = '$q'), 'nowhere')"); }
sub came { my ($q) = @_; return one($node, "SELECT string_agg(payload #>> '{}', ',') FROM mq.pop('$q', max_messages => 1000)"); }
sub pages { return one($node, "SELECT coalesce(sum(pg_relation_size(oid)), 0) FROM pg_class WHERE relname ~ '^scheduled_(hour|day)_.\$'"); }

# ---------------------------------------------------------------------------------------------------------------------
# nearer and nearer: no two steps are skipped, and none is taken twice

one($node, "SELECT mq.create_queue('near')");
worker_alive($node);
my $soon = put('near', 'soon', '30 min');
my $day = put('near', 'day', '20 hours');
my $month = put('near', 'month', '30 days');
is(where($soon, 'near') . where($day, 'near') . where($month, 'near'), 'hourdaylater', 'a table for each distance');
set_clock(HOUR);
ok(poll_until('the first', sub { where($soon, 'near') eq 'nowhere' }), 'the clock goes an hour ahead: one is due');
is(came('near'), 'soon', 'and comes');
set_clock(19 * HOUR);
ok(poll_until('the second to come nearer', sub { where($day, 'near') eq 'hour' }), 'what comes nearer is moved');
set_clock(21 * HOUR);
ok(poll_until('the second', sub { where($day, 'near') eq 'nowhere' }), 'then it is due');
set_clock(29 * DAY);
ok(poll_until('the third to come nearer', sub { where($month, 'near') eq 'day' }), 'what is far comes nearer too');
set_clock(30 * DAY - HOUR / 2);
ok(poll_until('the third to come nearer', sub { where($month, 'near') eq 'hour' }), 'and nearer');
set_clock(30 * DAY + 60);
ok(poll_until('the third', sub { where($month, 'near') eq 'nowhere' }), 'and is due');
is(came('near'), 'day,month', 'they come in order');
is(one($node, "SELECT count(*), coalesce(max(n_tup_ins), 0) FROM (SELECT sum(n_tup_ins) AS n_tup_ins FROM pg_stat_all_tables WHERE relname LIKE 'scheduled_%') s"),
	'1|6', 'three messages were written six times: once, twice and three times')
  if poll_until('the statistics', sub { one($node, "SELECT sum(n_tup_ins) FROM pg_stat_all_tables WHERE relname LIKE 'scheduled_%'") eq '6' });

# a table whose time is over is emptied, but not while a snapshot sees a row of it
my $reader = session($node);
$reader->q("BEGIN ISOLATION LEVEL REPEATABLE READ");
$reader->q("SELECT 1");
put('near', 'x', '1 s');
ok(poll_until('x', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = 'near'") eq '0' }), 'one comes under a snapshot');
$reader->q("COMMIT");
my $kept = put('near', 'y', '1 s');
my $kept_table = one($node, "SELECT tableoid::oid FROM mq_internal.scheduled WHERE id = $kept");
# a snapshot, and no lock yet: as a dump that has not come to this table
$reader->q("BEGIN ISOLATION LEVEL REPEATABLE READ");
$reader->q("SELECT 1");
ok(poll_until('y', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = 'near'") eq '0' }), 'it is moved');
# of three tables the one of the hour before is neither for now nor for next
set_clock($offset + HOUR);
put('near', 'z', '1 s');
ok(poll_until('z', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = 'near'") eq '0' }), 'an hour later');
# until the worker has looked into the table, and left it
my $looks = "SELECT sum(seq_scan) FROM pg_stat_all_tables WHERE relid = $kept_table";
my $seen = one($node, $looks);
ok(poll_until('a look of the worker', sub { one($node, $looks) > $seen }, 60), 'the worker has looked into its table');
is($reader->q("SELECT count(*) FROM mq.scheduled WHERE id = $kept"), '1', 'the snapshot sees it still: the table was not emptied');
cmp_ok(pages(), '>', 0, 'its pages are there');
$reader->q("COMMIT");
# of three tables two are in use at any time
for (1 .. 6)
{
	last if pages() == 0;
	set_clock($offset + DAY + HOUR);
	poll_until('tables to be emptied', sub { pages() == 0 }, 12);
}
is(pages(), '0', 'then all tables of hours and days are emptied');

# ---------------------------------------------------------------------------------------------------------------------
# a clock that is set back, and forth

one($node, "SELECT mq.create_queue('clock')");
put('clock', 'a', '1 s');
ok(poll_until('a', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = 'clock'") eq '0' }), 'one is moved');
set_clock($offset - HOUR);
my $b = put('clock', 'b', '2 s');
ok(poll_until('b', sub { where($b, 'clock') eq 'nowhere' }), 'after the clock was set back an hour another one comes in its time');
is(came('clock'), 'a,b', 'both came');
put('clock', 'c', '30 min');
set_clock($offset + HOUR);
ok(poll_until('c', sub { came('clock') eq 'c' }, 10), 'a clock that is set forth is seen within seconds');

# ---------------------------------------------------------------------------------------------------------------------
# dump and restore, template copy

one($node, "SELECT mq.create_queue('dump')");
one($node, "SELECT mq.send('dump', to_jsonb('o' || i), delay => make_interval(secs => 40 - i)) FROM generate_series(1, 10) i");
my $far = one($node, "SELECT mq.send('dump', '\"far\"', delay => '90 days')");
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", '-d', $node->connstr('postgres') ], 'pg_dump');
one($node, "CREATE DATABASE restored");
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), "$dir/dump" ], 'pg_restore');
set_clock($offset + 60);
ok(poll_until('all of the original', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = 'dump'") eq '1' }), 'the original goes on');
sleep(2);
is(one($node, "SELECT count(*) FROM mq_internal.scheduled", 'restored'), '11', 'a restored queue that nobody has used is left alone');
is(one($node, "SELECT count(*) FROM mq.pop('dump')", 'restored'), '0', 'its first use');
ok(poll_until('the restored ones', sub { one($node, "SELECT scheduled FROM mq.queues WHERE queue = 'dump'", 'restored') eq '1' }), 'takes it over, and moves what is overdue');
is(one($node, "SELECT string_agg(payload #>> '{}', ',') FROM mq.pop('dump', max_messages => 100)", 'restored'), 'o10,o9,o8,o7,o6,o5,o4,o3,o2,o1', 'in the order of due times');
is(one($node, "SELECT mq.cancel('dump', $far)", 'restored'), 't', 'what is not due can be cancelled there');
is(one($node, "SELECT mq.cancel('dump', $far)"), 't', 'and here: they are two');
cmp_ok(one($node, "SELECT mq.send('dump', '1')", 'restored'), '>', $far, 'ids go on above');

one($node, "SELECT mq.send('dump', '\"t\"', delay => '5 s')", 'restored');
poll_until('a copy', sub { sqlstate($node, "CREATE DATABASE copy TEMPLATE restored") eq '' });
one($node, "SELECT count(*) FROM mq.pop('dump')", 'copy');
for my $db (qw(restored copy))
{
	ok(poll_until('t', sub { one($node, "SELECT count(*) FROM mq.pop('dump', max_messages => 100) WHERE payload = '\"t\"'", $db) eq '1' }), "a copied database: it comes in $db");
}

# ---------------------------------------------------------------------------------------------------------------------
# a standby takes over

one($node, "SELECT mq.create_queue('ha')");
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
{
	local $ENV{LD_PRELOAD} = "$dir/clock.so";
	local $ENV{MQ_CLOCK} = "$dir/clock";
	$standby->start;
}
one($node, "SELECT mq.send('ha', to_jsonb('h' || i), delay => make_interval(secs => 1 + i / 10.0)) FROM generate_series(1, 40) i");
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is(one($standby, "SELECT count(*) > 0 FROM mq.scheduled WHERE queue = 'ha'"), 't', 'a standby shows the schedule');
ok(poll_until('some to be moved', sub { one($node, "SELECT count(*) BETWEEN 1 AND 30 FROM mq.scheduled WHERE queue = 'ha'") eq 't' }), 'the primary is moving them');
$node->stop('immediate');
$standby->promote;
worker_alive($standby);
ok(poll_until('the rest', sub { one($standby, "SELECT count(*) FROM mq.scheduled WHERE queue = 'ha'") eq '0' }), 'the standby goes on');
is(one($standby, "SELECT string_agg(payload #>> '{}', ',') = (SELECT string_agg('h' || i, ',' ORDER BY i) FROM generate_series(1, 40) i) FROM mq.pop('ha', max_messages => 100)"), 't', 'each comes once, in order');

# ---------------------------------------------------------------------------------------------------------------------
# killed while something comes nearer

SKIP:
{
	skip 'no stop points in this build', 1 if !$points;
	my $id = one($standby, "SELECT mq.send('ha', '\"n\"', delay => '20 hours')");
	one($standby, "ALTER SYSTEM SET mq.stop_point = 'nearer_moved:kill'; SELECT pg_reload_conf()");
	set_clock($offset + 19 * HOUR);
	ok(wait_down($standby), 'the worker is killed while a message comes nearer');
	{
		local $ENV{LD_PRELOAD} = "$dir/clock.so";
		local $ENV{MQ_CLOCK} = "$dir/clock";
		mq_restart_after($standby);
	}
	is(one($standby, "SELECT count(*) FROM mq.scheduled WHERE id = $id"), '1', 'it is in one place');
	set_clock($offset + HOUR + 60);
	ok(poll_until('n', sub { one($standby, "SELECT string_agg(payload #>> '{}', ',') FROM mq.pop('ha', max_messages => 100)") eq 'n' }), 'and comes');
}
done_testing();
