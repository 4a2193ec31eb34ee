# A superuser writes to a queue's tables at random, with triggers off, while others send and receive: copies, updates, deletes,
# rows out of order, ids ahead, VACUUM, VACUUM FULL, TRUNCATE, triggers left off or put back. No process dies, no call goes on
# for ever, no group gets an id twice, and what is there at the end comes to a new group once. MQ_SEED repeats a run.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $seed = $ENV{MQ_SEED} || 20261126;
srand($seed);
note("MQ_SEED=$seed");
my $node = mq_node('fuzz', conf => "mq.drop_delay = 3600\nmq.segment_wait = '60s'\nstatement_timeout = '120s'\n");
my $rounds = scaled(30) + 4;
my $size = 1024;

one($node, "SELECT mq.create_queue('f', groups => '{a,b}', options => jsonb_build_object('segment_size', $size))");
one($node, "CREATE TABLE t.got (g text, id bigint, at timestamptz DEFAULT clock_timestamp())");
one($node, "CREATE TABLE t.sent_ids (id bigint)");
one($node, "CREATE TABLE t.touched (id bigint)");	# what was deleted, or written by hand
# receives, remembers and acks in one transaction
one($node, <<'SQL');
CREATE FUNCTION t.take_ids(grp text, n int) RETURNS bigint LANGUAGE sql AS $$
	WITH m AS (SELECT id, receipt FROM mq.receive('f', consumer_group => grp, max_messages => n, visibility_timeout => '1 min')),
		w AS (INSERT INTO t.got SELECT grp, id FROM m RETURNING 1)
	SELECT count(mq.ack(receipt)) FROM m;
$$;
CREATE FUNCTION t.send_ids(n int) RETURNS bigint LANGUAGE sql AS $$
	WITH s AS (INSERT INTO t.sent_ids SELECT unnest(mq.send_batch('f', array(SELECT to_jsonb(repeat('x', i)) FROM generate_series(1, n) i))) RETURNING 1) SELECT count(*) FROM s;
$$;
SQL

sub leaves { return split /\n/, one($node, "SELECT segment_table FROM mq.segments WHERE queue = 'f' ORDER BY segment"); }
sub pick { return $_[int rand @_]; }

# One act of damage on a segment, as SQL. What it deletes or writes is noted, in the same transaction.
sub act
{
	my ($t) = @_;
	my ($k, $r) = (2 + int rand 12, int rand 12);
	my $some = "id % $k = " . int rand $k;
	my $note = "INSERT INTO t.touched SELECT id FROM $t WHERE $some;";
	my $own = "(SELECT coalesce(min(id), 0) / $size * $size FROM $t)";
	return pick(
		"$note INSERT INTO $t SELECT * FROM $t WHERE $some",
		"$note INSERT INTO $t SELECT * FROM $t WHERE $some ORDER BY id DESC",
		"$note UPDATE $t SET payload = '\"u\"' WHERE $some",
		"$note UPDATE $t SET body = decode(repeat('ab', " . (1 + int rand 900) . "), 'hex') WHERE $some",
		"$note DELETE FROM $t WHERE $some",
		"$note CREATE TEMP TABLE aside ON COMMIT DROP AS SELECT * FROM $t WHERE $some; DELETE FROM $t WHERE $some; INSERT INTO $t SELECT * FROM aside ORDER BY random()",
		# ids ahead, or in gaps
		"INSERT INTO t.touched SELECT i FROM generate_series(1, 20) n, LATERAL (SELECT $own + 1 + (random() * ($size - 3))::int AS i) x; INSERT INTO $t (id, enqueued_at, payload) SELECT id, now(), '\"ahead\"' FROM (SELECT id FROM t.touched WHERE id BETWEEN $own + 1 AND $own + $size - 1 ORDER BY random() LIMIT 20) x WHERE EXISTS (SELECT FROM $t)",
		"INSERT INTO t.touched SELECT id FROM $t; TRUNCATE $t");
}

sub damage
{
	my $t = pick(leaves());
	my $acts = join ";\n", map { act($t) =~ s/CREATE TEMP TABLE aside/CREATE TEMP TABLE aside_$_/r =~ s/FROM aside /FROM aside_$_ /r } 1 .. 1 + int rand 3;
	my $end = pick('ENABLE TRIGGER ALL', 'ENABLE TRIGGER ALL', 'DISABLE TRIGGER USER');
	my $last = rand() < 0.1 ? 'ROLLBACK' : 'COMMIT';
	return sqlstate($node, "BEGIN; SET LOCAL lock_timeout = '20s'; SET LOCAL session_replication_role = replica; ALTER TABLE $t DISABLE TRIGGER ALL;\n$acts;\nALTER TABLE $t $end; $last")
		. (rand() < 0.5 ? '' : sqlstate($node, pick("VACUUM $t", "VACUUM FULL $t", "VACUUM (FREEZE) $t", "VACUUM (TRUNCATE) $t")));
}

# --- senders and receivers that go on all the time ----------------------------------------------------------------------------
my %work = (
	a => "SELECT t.take_ids('a', (1 + random() * 60)::int)",
	a1 => "SELECT t.take_ids('a', 1)",
	b => "SELECT t.take_ids('b', (1 + random() * 200)::int)",
	send => "SELECT t.send_ids((1 + random() * 20)::int)",
	held => "BEGIN; SELECT t.send_ids(3); SELECT pg_sleep(random() * 0.02); COMMIT",
	undone => "BEGIN; SELECT t.take_ids('b', 20); SELECT t.send_ids(5); ROLLBACK",
);
my %session = map { $_ => session($node) } keys %work;
my %calls;
my @bad;
sub turn
{
	for my $name (sort keys %session)
	{
		my $s = $session{$name};
		next if $s->{mark} && !$s->is_done;
		if ($s->{busy})
		{
			my ($state) = $s->finish;
			push @bad, "$name: $state " . substr($s->{last_err}, 0, 200) if $state ne '';
			last if $state eq 'DEAD';
			$calls{$name}++;
		}
		$s->start($work{$name});
		$s->{busy} = 1;
	}
	return;
}

sub calls { my $n = 0; $n += $_ for values %calls; return $n; }

for my $round (1 .. $rounds)
{
	my $before = calls();
	poll_until('some calls', sub { turn(); grep({ /DEAD/ } @bad) || calls() >= $before + 12 });
	my $state = damage();
	push @bad, "damage: $state" if $state ne '' && $state !~ /^(55P03|40P01|55000|42704)+$/;
	last if grep { /DEAD/ } @bad;
	if ($round == int($rounds / 2))
	{
		$_->finish for values %session;
		delete $_->{busy} for values %session;
		$_->close for values %session;
		$node->stop(pick('fast', 'immediate'));
		$node->start;
		%session = map { $_ => session($node) } keys %work;
	}
}
for my $name (sort keys %session)
{
	my ($state) = $session{$name}->finish(150);
	push @bad, "$name at the end: $state " . substr($session{$name}->{last_err} || '', 0, 200) if $state ne '';
	$session{$name}->close;
}
is(join("\n", @bad[0 .. ($#bad < 5 ? $#bad : 5)]), '', 'no call failed, died or went on for ever');
cmp_ok($calls{$_} || 0, '>', 0, "$_: there were calls") for sort keys %work;
unlike(slurp_file($node->logfile), qr/terminated by signal|TRAP:/, 'no process died');

# --- what is there at the end ---------------------------------------------------------------------------------------------------------
ok(poll_until('the guards to be back', sub { one($node, "SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid WHERE proname = 'refuse_direct_write' AND tgenabled <> 'A' AND tgrelid IN (SELECT segment_table FROM mq.segments)") eq '0' }, 60), 'the guards are back');
for my $g ('a', 'b')
{
	ok(poll_until("group $g to have all", sub { one($node, "SELECT t.take_ids('$g', 10000)"); one($node, "SELECT ready + retrying + leased + settling + pending + unread_at_most FROM mq.groups WHERE queue = 'f' AND consumer_group = '$g'") eq '0' && one($node, "SELECT t.take_ids('$g', 1)") eq '0' }, 60), "group $g comes to an end");
	is(one($node, "SELECT count(*) FROM (SELECT id FROM t.got WHERE g = '$g' GROUP BY id HAVING count(*) > 1) x"), '0', "group $g got no id twice");
	is(one($node, "SELECT count(*) || coalesce(' for example ' || min(id), '') FROM t.sent_ids s WHERE NOT EXISTS (SELECT FROM t.got WHERE g = '$g' AND id = s.id) AND NOT EXISTS (SELECT FROM t.touched d WHERE d.id = s.id)"), '0', "group $g got all that was sent and not touched");
}
is(one($node, "SELECT count(*) - count(DISTINCT id) FROM t.sent_ids"), '0', 'no id was given out twice');
one($node, "SELECT mq.create_group('f', 'z', start => 'earliest')");
one($node, "SELECT t.take_ids('z', " . pick(100, 1000, 100000) . ") FROM generate_series(1, 1000)");
is(one($node, "SELECT count(*) || ' ' || count(DISTINCT id) FROM t.got WHERE g = 'z'"), one($node, "SELECT count(DISTINCT id) || ' ' || count(DISTINCT id) FROM mq.q_f"), 'a new group gets each visible id, once');
is(one($node, "SELECT count(*) FROM (SELECT DISTINCT id FROM mq.q_f EXCEPT SELECT id FROM t.got WHERE g = 'z') x"), '0', 'those and no others');
$node->stop;
done_testing();
