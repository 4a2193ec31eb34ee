# Deduplication ids over hours and months, by a clock of the server's own (clock.c): across the end of the window, across the tables that
# are used in turn and emptied, with a clock that is set back; dump and restore, a copy of the database.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
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
	$node = mq_node('dedup_time', conf => "mq.drop_delay = 0\nautovacuum = off\n");
}

sub queue { my ($q, $window) = @_; return one($node, "SELECT mq.create_queue('$q', options => '{\"dedup_window\": " . (defined $window ? "\"$window\"" : 'null') . "}')"); }
sub put { my ($q, $d, $db, $more) = @_; return one($node, "SELECT mq.send('$q', '1', dedup_id => '$d'" . ($more || '') . ")", $db); }
sub find { my ($q, $d, $db) = @_; return one($node, "SELECT mq.dedup_find('$q', '$d')", $db); }
sub tables { my ($db) = @_; return one($node, "SELECT coalesce(string_agg(DISTINCT regexp_replace(relname, 'dedup_([a-z]+).*', '\\1'), ',' ORDER BY regexp_replace(relname, 'dedup_([a-z]+).*', '\\1')), '') FROM pg_class WHERE relkind = 'r' AND relname ~ '^dedup_' AND pg_relation_size(oid) > 0", $db); }

# ---------------------------------------------------------------------------------------------------------------------
# a table for each length, and the end of each window; the rest are kept as they are

my %first;
my %length = (h => [ '1 hour', HOUR ], d => [ '1 day', DAY ], m => [ '30 days', 30 * DAY ], l => [ '90 days', 90 * DAY ], e => [ undef, 0 ]);
for my $q (sort keys %length) { queue($q, $length{$q}[0]); $first{$q} = put($q, 'x'); }
worker_alive($node);
is(tables(), 'day,hour,later,month', 'a table for each length of the window');
my $now = 0;
for my $q (qw(h d m l))
{
	set_clock($now = $length{$q}[1] - 60);
	is(put($q, 'x'), $first{$q}, "$length{$q}[0]: known a minute before the end");
	is(join(',', map { find($_, 'x') } grep { !$length{$_}[1] || $length{$_}[1] > $now } sort keys %length), join(',', map { $first{$_} } grep { !$length{$_}[1] || $length{$_}[1] > $now } sort keys %length), 'and all that last longer');
	set_clock($now = $length{$q}[1] + 60);
	is(find($q, 'x'), '', 'a minute after it the id is free');
	cmp_ok(put($q, 'x'), '>', $first{$q}, 'and the next one is sent');
	is(put($q, 'x'), find($q, 'x'), 'which has the id from then on');
}
is(put('e', 'x'), $first{e}, 'for ever: still known');
set_clock($now = 200 * DAY);
# of three tables two are in use at any time
for (1 .. 6)
{
	last if tables() eq 'later';
	set_clock($now += 31 * DAY + HOUR);
	poll_until('tables to be emptied', sub { tables() eq 'later' }, 15);
}
is(tables(), 'later', 'tables of which nothing is needed are emptied');
is(put('e', 'x'), $first{e}, 'for ever: its table stays');
ok(poll_until('the counts', sub { one($node, "SELECT dedup_ids FROM mq.queues WHERE queue = 'h'") eq '0' }, 30), 'emptied tables do not count');
is(one($node, "SELECT dedup_ids FROM mq.queues WHERE queue = 'e'"), '1', 'the others do');
is(one($node, "SELECT sum(n_tup_del) FROM pg_stat_all_tables WHERE relname ~ '^dedup_'"), '0', 'no row was deleted on the way');

# a steady stream over many hours: each id once in its window, tables in turn
queue('s', '1 hour');
my %last;
for my $step (1 .. 40)
{
	set_clock($now += 1000);
	my $id = put('s', 'y');
	my $known = $last{id} && $now - $last{at} < HOUR;
	$id == $last{id} or fail("step $step: known") if $known;
	$id != $last{id} or fail("step $step: not known any more") if $last{id} && !$known;
	%last = (id => $id, at => $now) if !$known;
}
is(one($node, "SELECT count(*) FROM mq.browse('s')"), '10', 'eleven hours: one each window');

# a table with something that is needed is not emptied, whoever else's is over
queue('wide', '1 hour');
my $kept = put('wide', 'k');
one($node, "SELECT mq.alter_queue('wide', '{\"dedup_window\": \"10 days\"}')");
my $table = one($node, "SELECT tableoid FROM (SELECT tableoid, * FROM mq_internal.dedup_hour_0 UNION ALL SELECT tableoid, * FROM mq_internal.dedup_hour_1 UNION ALL SELECT tableoid, * FROM mq_internal.dedup_hour_2) d WHERE dedup_id = 'k'");
my $looked = 0;
for (1 .. 3)
{
	set_clock($now += HOUR);
	my $looks = "SELECT seq_scan FROM pg_stat_all_tables WHERE relid = $table";
	my $seen = one($node, $looks);
	# in one of the three hours it is neither for now nor for next
	$looked += poll_until('a look of the worker', sub { one($node, $looks) > $seen }, 20) ? 1 : 0;
}
cmp_ok($looked, '>', 0, 'the worker has looked into its table');
is(put('wide', 'k'), $kept, 'a longer window holds for what is kept');

# ---------------------------------------------------------------------------------------------------------------------
# the window counts from when it is due; a clock that is set back

queue('due', '1 hour');
my $due = put('due', 'z', undef, ", delay => '3 hours'");
set_clock($now += 2 * HOUR);
is(put('due', 'z'), $due, 'longer than the window after the send');
set_clock($now += HOUR + HOUR / 2);
is(put('due', 'z'), $due, 'half an hour after it was due');
set_clock($now += HOUR);
cmp_ok(put('due', 'z'), '>', $due, 'the window is over');

queue('back', '1 hour');
my $back = put('back', 'b');
set_clock($now -= 3 * HOUR);
is(put('back', 'b'), $back, 'the clock goes back: it is known');
set_clock($now += 3 * HOUR + HOUR / 2);
is(put('back', 'b'), $back, 'and forth');
set_clock($now += HOUR);
my $next = put('back', 'b');
cmp_ok($next, '>', $back, 'after its window the next one is sent');
set_clock($now -= 2 * HOUR);
is(put('back', 'b'), $next, 'the clock goes back over the end of the window: the second has the id, and not the first');
set_clock($now += 2 * HOUR);

# freed ids stay free as long as what they were freed from could be seen
queue('free', '1 hour');
my $m = put('free', 'f', undef, ", delay => '30 min'");
is(one($node, "SELECT mq.cancel('free', $m)"), 't', 'cancelled');
one($node, "SELECT mq.alter_queue('free', '{\"dedup_window\": \"10 days\"}')");
is(find('free', 'f'), '', 'free');
set_clock($now += 5 * HOUR);
is(find('free', 'f'), '', 'hours later too, however the window was changed');

# ---------------------------------------------------------------------------------------------------------------------
# dump and restore, template copy: windows go on by the clock

queue('dump', '1 day');
my $old = put('dump', 'old');
set_clock($now += 20 * HOUR);
my $new = put('dump', 'new');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", '-d', $node->connstr('postgres') ], 'pg_dump');
one($node, "CREATE DATABASE restored");
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), "$dir/dump" ], 'pg_restore');
is(one($node, "SELECT dedup_window FROM mq.queues WHERE queue = 'dump'", 'restored'), '1 day', 'dedup_window is restored');
is(put('dump', 'old', 'restored') . put('dump', 'new', 'restored'), "$old$new", 'ids are known in the restored database');
my $third = put('dump', 'third', 'restored');
cmp_ok($third, '>', $new, 'ids go on above');
is(find('dump', 'third'), '', 'the databases do not share them');
set_clock($now += 5 * HOUR);
is(find('dump', 'old', 'restored'), '', 'windows go on by the clock');
is(find('dump', 'new', 'restored'), $new, 'each by its own');
poll_until('a copy', sub { sqlstate($node, "CREATE DATABASE copy TEMPLATE restored") eq '' });
is(put('dump', 'new', 'copy') . put('dump', 'third', 'copy'), "$new$third", 'a copied database knows them');
is(one($node, "SELECT count(*) FROM mq.browse('dump')", 'copy'), '3', 'and has nothing more');
done_testing();
