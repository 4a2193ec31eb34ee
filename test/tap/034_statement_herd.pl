# One message wakes one receiver: first those that can have it, and of those that wait inside statements that read tables (for whom
# it is too new) one only, who ends, and has it with its next call.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;
$SIG{__DIE__} = sub { diag(@_) if !$^S; };

my $node = mq_node('herd', conf => "mq.visibility_timeout = '10 min'\n");
my $points = mq_stop_points($node);
if ($points)
{
	one($node, 'ALTER SYSTEM SET mq.wake_sweep = off');
	one($node, 'SELECT pg_reload_conf()');
	poll_until('the setting to be read', sub { one($node, 'SHOW mq.wake_sweep') eq 'off' });
}
one($node, "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1); SELECT mq.create_queue('q')");

my @bound = map { session($node) } 1 .. 4;
my $free = session($node);
my $waits_bound = "SELECT count(job.id) FROM mq.pop('q', max_messages => 1, wait => '60 s') job, orders";
my $waits_free = "SELECT count(id) FROM mq.pop('q', max_messages => 1, wait => '60 s')";

# what a statement that waits has given up to sleep
sub sleeps
{
	my (@sessions) = @_;
	my $pids = join ',', map { $_->pid } @sessions;
	return poll_until('them to wait', sub {
		one($node, "SELECT count(*) FROM pg_stat_activity WHERE pid IN ($pids) AND state = 'active' AND wait_event_type = 'Extension'") eq @sessions });
}

sub waiting { return one($node, "SELECT waiting FROM mq.groups WHERE queue = 'q'"); }

# --- one that can have it behind four that cannot --------------------------------------------------------------------------------
for my $s (@bound, $free)
{
	$s->start($s == $free ? $waits_free : $waits_bound);
	sleeps($s);
}
one($node, "SELECT mq.send('q', '1')");
is(join('|', $free->finish(20)), '|1', 'who can have it has it');
is(scalar(grep { $_->is_done } @bound), 0, 'the others sleep on');
is(waiting(), '4', 'in line');

# --- nobody can have it: one of them ends ---------------------------------------------------------------------------------------------
my $done = sub { return grep { $_->is_done } @bound; };
one($node, "SELECT mq.send('q', '2')");
ok(poll_until('one to end', sub { $done->() > 0 }), 'one that cannot have it ends');
my ($first) = $done->();
is(join('|', $first->finish), '|0', 'with nothing');
is($first->q($waits_bound), '1', 'and has it with its next call');
is(waiting(), '3', 'the others sleep on');
is(scalar($done->()), 1, 'and do not know');

# --- more messages than it wants: others are woken, too -------------------------------------------------------------------------------
$first->start($waits_bound);
sleeps($first);
one($node, "SELECT count(*) FROM mq.send_batch('q', ARRAY(SELECT '3'::jsonb FROM generate_series(1, 100)))");
is(join(',', map { ($_->finish(20))[1] } @bound), '0,0,0,0', 'a hundred messages end all of them');
is(join(',', map { $_->q($waits_bound) } @bound), '1,1,1,1', 'each has one then');
one($node, "SELECT mq.purge('q')");

# --- who is to look ends before it does: another one is woken ---------------------------------------------------------------------------
for my $s (@bound[0, 1], $free)
{
	$s->start($s == $free ? $waits_free : $waits_bound);
	sleeps($s);
}
one($node, 'SELECT pg_cancel_backend(' . $free->pid . ')');
is(($free->finish(20))[0], '57014', 'the one that could have it is cancelled');
one($node, "SELECT mq.send('q', '4')");
ok(poll_until('one to end', sub { $bound[0]->is_done || $bound[1]->is_done }), 'one of the others ends');
my ($ended, $left) = $bound[0]->is_done ? @bound[0, 1] : @bound[1, 0];

# --- who ended does not come back: a second later it is somebody else's -------------------------------------------------------------------
if ($points)
{
	one($node, 'ALTER SYSTEM RESET mq.wake_sweep');
	one($node, 'SELECT pg_reload_conf()');
}
is(join('|', $left->finish(30)), '|0', 'it does not come back for it: the worker tells the next');
is($left->q($waits_bound), '1', 'who has it with its next call');

# --- what comes back is for one that can see it, too ---------------------------------------------------------------------------------------
one($node, "SELECT mq.send('q', '5')");
$free->q("BEGIN");
is($free->q($waits_free), '1', 'one has it');
$_->start($waits_bound) for @bound;
sleeps(@bound);
$free->q('ROLLBACK');
ok(poll_until('one to have it', sub { $done->() > 0 }), 'it comes back');
is(join('|', ($done->())[0]->finish), '|1', 'to one that waits, and can see it');
poll_until('the others to wait', sub { waiting() eq '3' });
is(scalar($done->()), 1, 'the others sleep on');
one($node, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%orders%' AND pid <> pg_backend_pid()");
$_->finish(20) for @bound;

$_->close for @bound, $free;
$node->stop;
done_testing();
