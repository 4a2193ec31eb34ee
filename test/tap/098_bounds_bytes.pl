# Bounds of queues by max_bytes: large and small messages, TOAST, gaps, a message that stays, restart, two groups, and dropping by bytes.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('bounds_bytes', conf => "mq.visibility_timeout = '10 min'\n");

# a body that does not compress
one($node, "CREATE FUNCTION noise(n int) RETURNS bytea LANGUAGE sql AS \$\$ SELECT decode(substr(string_agg(md5(random()::text), ''), 1, 2 * n), 'hex') FROM generate_series(1, n / 16 + 1) \$\$");

sub make { my ($q, $bytes, %o) = @_; my $g = $o{groups} || '{default}'; my $more = $o{drop} ? ', "overflow": "drop_oldest"' : ''; return one($node, "SELECT mq.create_queue('$q', groups => '$g', options => '{\"max_bytes\": $bytes$more}')"); }

# sends messages of a size until one is refused; how many that were
sub fill
{
	my ($q, $size, $most) = @_;
	$most ||= 100000;
	my $s = session($node);
	my $n = $s->q("CREATE TEMP TABLE n (n int); DO \$\$ DECLARE b bytea := noise($size); n int := 0; full_up bool := false; BEGIN WHILE NOT full_up AND n < $most LOOP BEGIN PERFORM mq.send('$q', body => b); n := n + 1; EXCEPTION WHEN SQLSTATE '53400' THEN full_up := true; END; COMMIT; END LOOP; INSERT INTO n VALUES (n); END \$\$; SELECT n FROM n");
	$s->close;
	return $n;
}
sub near { my ($n, $want, $percent, $what) = @_; return ok(abs($n - $want) <= $want * $percent / 100 + 1, "$what: $n, for $want") || diag("$n is not near $want"); }

# --- as many as fit ------------------------------------------------------------------------------------------------------------
for my $size (100, 1000, 10000, 100000)
{
	my $row = $size + 44;
	make("s$size", 2_000_000, groups => '{default,slow}');
	near(fill("s$size", $size), 2_000_000 / $row, 7, "messages of $size bytes");
	is(sqlstate($node, "SELECT mq.send('s$size', body => noise($size))"), '53400', 'no more');
	one($node, "SELECT count(*) FROM mq.pop('s$size', max_messages => 1000000)");
	is(sqlstate($node, "SELECT mq.send('s$size', body => noise($size))"), '53400', 'the slow group counts');
	my $half = one($node, "SELECT count(*) FROM mq.pop('s$size', 'slow', (SELECT ready / 2 FROM mq.groups WHERE queue = 's$size' AND consumer_group = 'slow')::int)");
	near(fill("s$size", $size), $half, 15, 'when it has finished the half, as many fit again');
	one($node, "SELECT count(*) FROM unnest('{default,slow}'::text[]) g, LATERAL mq.pop('s$size', g, 1000000)");
	near(fill("s$size", $size), 2_000_000 / $row, 7, 'when all is finished, as many as at first');
}

# --- what is no message takes nothing -----------------------------------------------------------------------------------------------
{
	make('gap', 1_000_000);
	one($node, "BEGIN; SELECT mq.send('gap', body => noise(10000)) FROM generate_series(1, 80); ROLLBACK") for 1 .. 5;
	one($node, "SELECT mq.send_batch('gap', array_fill('1'::jsonb, array[100]), delays => '{1 h}') IS NULL");
	near(fill('gap', 10000), 1_000_000 / 10044, 7, 'rolled back and scheduled ones are not counted');
	is(sqlstate($node, "SELECT mq.create_queue('one', options => '{\"max_bytes\": 10000}'); SELECT mq.send('one', body => noise(20000))"), '53400', 'a message that is larger than the bound');
	is(sqlstate($node, "SELECT mq.send('one', body => noise(5000))"), '', 'one that is not');
	is(sqlstate($node, "SELECT mq.send('one', body => noise(5000))"), '53400', 'two are');
}

# --- one message that stays holds nothing but itself, here ---------------------------------------------------------------------------
{
	make('stay', 1_000_000);
	one($node, "SELECT mq.send('stay', body => noise(1000)); SELECT count(*) FROM mq.receive('stay')");
	for (1 .. 5) { one($node, "SELECT mq.send_batch('stay', bodies => (SELECT array_agg(noise(1000)) FROM generate_series(1, 700))) IS NULL; SELECT count(*) FROM mq.pop('stay', max_messages => 1000)"); }
	near(fill('stay', 1000), 1_000_000 / 1044, 7, 'with one at the head that is leased for long');
}

# --- large ones that are finished say nothing about small ones -------------------------------------------------------------------------
{
	make('mixed', 1_000_000);
	near(fill('mixed', 10000), 1_000_000 / 10044, 7, 'large ones');
	one($node, "SELECT count(*) FROM mq.pop('mixed', max_messages => 1000)");
	near(fill('mixed', 100), 1_000_000 / 141, 12, 'small ones after them');
	one($node, "SELECT count(*) FROM mq.pop('mixed', max_messages => 100000)");
	near(fill('mixed', 10000), 1_000_000 / 10044, 12, 'and large ones after those');
}

# --- a restart, and max_bytes that comes later -----------------------------------------------------------------------------------------
{
	make('re', 2_000_000, groups => '{default,slow}');
	my $n = fill('re', 1000);
	one($node, "SELECT count(*) FROM mq.pop('re', max_messages => 1000000)");
	my $half = int($n / 2);
	one($node, "SELECT count(*) FROM mq.pop('re', 'slow', $half)");
	$node->restart;
	near(fill('re', 1000), $half, 25, 'after a restart the files tell');
	is(sqlstate($node, "SELECT mq.send('re', body => noise(1000))"), '53400', 'full');
	one($node, "SELECT mq.create_queue('later'); SELECT mq.send_batch('later', bodies => (SELECT array_agg(noise(1000)) FROM generate_series(1, 1000))) IS NULL");
	one($node, "SELECT mq.send('later', body => noise(100000)) FROM generate_series(1, 10)");
	one($node, "SELECT mq.alter_queue('later', '{\"max_bytes\": 2000000}')");
	is(sqlstate($node, "SELECT mq.send('later', '1')"), '53400', 'a bound that comes later counts what is there, large values too');
	one($node, "SELECT mq.alter_queue('later', '{\"max_bytes\": 4000000}')");
	near(fill('later', 1000), 1_900_000 / 1044, 25, 'raised');
	one($node, "SELECT mq.alter_queue('later', '{\"max_bytes\": null}')");
	is(fill('later', 1000, 500), '500', 'off');
}

# --- dropping by bytes -------------------------------------------------------------------------------------------------------------------
{
	make('drop', 1_000_000, drop => 1);
	my $sent = 0;
	for my $i (1 .. 100)
	{
		poll_until('room', sub { sqlstate($node, "SELECT mq.send('drop', body => noise(10000)) FROM generate_series(1, 5)") eq '' }, 30) or last;
		$sent += 5;
	}
	is($sent, 500, 'five times as much as fits');
	ok(poll_until('it to fall', sub { one($node, "SELECT ready + pending + unread_at_most < 105 FROM mq.groups WHERE queue = 'drop'") eq 't' }, 60), 'it falls to the bound');
	near(one($node, "SELECT ready + unread_at_most FROM mq.groups WHERE queue = 'drop'"), 1_000_000 / 10044, 10, 'as much as fits is left');
	is(one($node, "SELECT ready + unread_at_most + dropped FROM mq.groups WHERE queue = 'drop'"), '500', 'the others are counted');
	is(one($node, "SELECT max(id) - min(id) + 1 = count(*) FROM mq.browse('drop', max_messages => 1000)"), 't', 'the newest are left');
}

done_testing();
