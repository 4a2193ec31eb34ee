# Transactions at random, of pops, receives, nacks and releases of what was popped, acks and savepoints, some of them prepared. After
# a crash just that is unfinished that was before it; over a crash a prepared transaction finishes what it popped and acked, if it
# commits, and no more. MQ_SEED=n does the same again.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;
$SIG{__DIE__} = sub { diag(@_) if !$^S; };

my $seed = $ENV{MQ_SEED} || time();
srand $seed;
note("MQ_SEED=$seed");
my $node = mq_node('fuzz_verbs', conf => "mq.drop_delay = 0\nmq.offset_log_size = '64kB'\nmq.visibility_timeout = '1 h'\n");
one($node, "SELECT mq.create_queue('f', options => jsonb_build_object('segment_size', 1024))");
one($node, <<'SQL');
CREATE FUNCTION t.unfinished() RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(b.id::text, ' ' ORDER BY b.id), '')
	FROM unnest('{ready,retrying,leased,settling}'::text[]) AS s, mq.browse('f', states => ARRAY[s], max_messages => 100000) AS b $$;
CREATE FUNCTION t.settling() RETURNS bigint LANGUAGE sql AS $$ SELECT settling FROM mq.groups WHERE queue = 'f' $$;
SQL

my @log;		# what this round has done

sub run { my ($s, $sql) = @_; push @log, $sql; return $s->q($sql); }
sub id { return (split / /, $_[0])[0]; }
sub receipt { return (split / /, $_[0])[1]; }

# gives up some of what was popped; the rest stays
sub give_up
{
	my ($s, $popped) = @_;
	my @some = grep { rand() < .4 } @$popped;
	my %gone = map { $_ => 1 } @some;
	return if !@some;
	@$popped = grep { !$gone{$_} } @$popped;
	my $list = 'ARRAY[' . join(',', map { "'" . receipt($_) . "'" } @some) . ']::uuid[]';
	run($s, rand() < .5 ? "SELECT mq.nack_batch($list, '0 s')" : "SELECT mq.release_batch($list)");
	return;
}

# One transaction, to its end; a reference to the ids that it finishes if it commits, when it was prepared.
sub transaction
{
	my ($s, $name) = @_;
	my %has = (held => [], popped => [], acked => []);		# each "id receipt"
	my @savepoints;

	run($s, 'BEGIN');
	for (1 .. 2 + int rand 8)
	{
		my $what = rand;
		if ($what < .35)
		{
			push @{ $has{popped} }, split /\n/, run($s, "SELECT id || ' ' || receipt FROM mq.pop('f', max_messages => " . (1 + int rand 6) . ')');
		}
		elsif ($what < .45)
		{
			push @{ $has{held} }, split /\n/, run($s, "SELECT id || ' ' || receipt FROM mq.receive('f', max_messages => " . (1 + int rand 4) . ')');
		}
		elsif ($what < .55)
		{
			next if !@{ $has{held} };
			my ($one) = splice @{ $has{held} }, int rand @{ $has{held} }, 1;
			push @{ $has{acked} }, $one;
			run($s, "SELECT mq.ack('" . receipt($one) . "'::uuid)");
		}
		elsif ($what < .8) { give_up($s, $has{popped}); }
		elsif ($what < .9)
		{
			push @savepoints, { map { $_ => [ @{ $has{$_} } ] } keys %has };
			run($s, 'SAVEPOINT s' . @savepoints);
		}
		elsif (@savepoints)
		{
			my $undo = rand() < .6;
			run($s, ($undo ? 'ROLLBACK TO' : 'RELEASE') . ' SAVEPOINT s' . @savepoints);
			my $was = pop @savepoints;
			%has = %$was if $undo;
		}
	}
	if (rand() < .3)
	{
		run($s, "PREPARE TRANSACTION '$name'");
		return [ map { id($_) } @{ $has{popped} }, @{ $has{acked} } ];
	}
	run($s, rand() < .75 ? 'COMMIT' : 'ROLLBACK');
	return;
}

sub crash { push @log, 'crash'; $node->stop('immediate'); $node->start; return; }

sub decide
{
	my ($name) = @_;
	my $commit = rand() < .6;
	push @log, my $end = ($commit ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$name'";
	one($node, $end);
	poll_until('it to be settled', sub { one($node, 'SELECT t.settling()') eq '0' });
	return $commit;
}

# false, and how it came to that
sub same
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($is, $expected, $name) = @_;
	my $ok = is($is, $expected, $name);
	diag("MQ_SEED=$seed\n", map { "$_;\n" } @log) if !$ok;
	return $ok;
}

ROUND: for my $round (1 .. 8)
{
	@log = ();
	one($node, "SELECT count(mq.send_batch('f', array_fill('1'::jsonb, array[60])))");
	my $s = session($node);
	for my $n (1 .. 12)
	{
		my $finishes = transaction($s, "t$n") or next;
		if (rand() >= .4)
		{
			decide("t$n");
			next;
		}
		# the crash comes first; what others may have while it is undecided is not asked
		my @before = split / /, one($node, 'SELECT t.unfinished()');
		$s->close;
		crash();
		my $commit = decide("t$n");
		my %gone = $commit ? map { $_ => 1 } @$finishes : ();
		same(one($node, 'SELECT t.unfinished()'), join(' ', grep { !$gone{$_} } @before),
			"round $round: prepared over a crash, then " . ($commit ? 'committed' : 'rolled back')) or last ROUND;
		$s = session($node);
	}
	$s->close;
	my $before = one($node, 'SELECT t.unfinished()');
	crash();
	same(one($node, 'SELECT t.unfinished()'), $before, "round $round: unfinished after the crash is what was before") or last;
}
$node->stop;
done_testing();
