# Rows that nobody but mq should have written: two rows with one id, updated and deleted rows, rows out of order, ids ahead
# of what was given out, rows without an id. Never a crash, a loop or silence; what mq sent is delivered once.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('damage', conf => "mq.drop_delay = 3600\n");

sub leaf { my ($q, $segment, $db) = @_; return one($node, "SELECT segment_table FROM mq.segments WHERE queue = '$q' AND segment = " . ($segment || 0), $db); }
sub table { my ($q, $db) = @_; return one($node, "SELECT queue_table FROM mq.queues WHERE queue = '$q'", $db); }

# What a superuser does who switches the guard off, as pg_restore --disable-triggers does. %s is the segment, %q the queue's table.
sub past
{
	my ($q, $sql, %o) = @_;
	my ($leaf, $table) = (leaf($q, $o{segment}), table($q));
	$sql =~ s/%s/$leaf/g;
	$sql =~ s/%q/$table/g;
	one($node, "BEGIN; ALTER TABLE $leaf DISABLE TRIGGER ALL; ALTER TABLE $table DISABLE TRIGGER ALL;\n$sql;\n"
		. "ALTER TABLE $leaf ENABLE TRIGGER ALL; ALTER TABLE $table ENABLE TRIGGER ALL; COMMIT");
	return;
}

sub make
{
	my ($q, $n, %o) = @_;
	one($node, "SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', " . ($o{size} || 16384) . "))");
	one($node, "SELECT mq.send_batch('$q', array(SELECT to_jsonb(i) FROM generate_series(1, $n) i))") if $n;
	return;
}

# ids received, in order, until there are no more; the WARNINGs are in $warned
my $warned;
sub all_ids
{
	my ($q, %o) = @_;
	my ($out, $err) = ('', '');
	my @ids;
	$warned = '';
	for (1 .. 200)
	{
		my $rc = $node->psql('postgres', "SELECT id FROM mq.pop('$q', '" . ($o{group} || 'default') . "', " . ($o{batch} || 1000) . ")",
			stdout => \$out, stderr => \$err, timeout => 60);
		$warned .= $err;
		return "rc $rc $err" if $rc != 0;
		last if $out eq '';
		push @ids, split /\n/, $out;
	}
	return join ' ', @ids;
}

# Lists of ids can be long: says how they differ, and with what.
sub same_ids
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($got, $want, $name) = @_;
	my (%n, %is);
	$n{$_}++ for split ' ', $got;
	my @twice = grep { $n{$_} > 1 } sort keys %n;
	$is{$_} = 1 for split ' ', $want;
	my @missing = grep { !$n{$_} } sort { $a <=> $b } keys %is;
	my @more = grep { !$is{$_} } sort keys %n;
	my $wrong = join '; ', map { $_->[1] ? sprintf('%s %d: %s', $_->[0], $_->[1], join(' ', grep { defined } @{ $_->[2] }[0 .. 9])) : () }
		(['missing', scalar @missing, \@missing], ['twice', scalar @twice, \@twice], ['not wanted', scalar @more, \@more]);
	return is($wrong, '', $name);
}

sub is_alive { my ($name) = @_; return is(one($node, 'SELECT 1'), '1', "$name: the server is there"); }
my $no_crash = sub { return slurp_file($node->logfile) !~ /terminated by signal/; };

# --- two rows with one id ---------------------------------------------------------------------------------------------
my %doubles = (
	'one updated' => "UPDATE %q SET payload = '0' WHERE id = 10",
	'two updated' => "UPDATE %q SET payload = '0' WHERE id IN (3, 4)",
	'all updated' => "UPDATE %q SET payload = '0'",
	'the first updated' => "UPDATE %q SET payload = '0' WHERE id = 1",
	'two inserted again' => "INSERT INTO %s SELECT * FROM %s WHERE id IN (3, 4)",
	'all inserted again' => "INSERT INTO %q SELECT * FROM %q",
	'all inserted again thrice' => "INSERT INTO %q SELECT * FROM %q; INSERT INTO %q SELECT * FROM %q",
	'the first inserted again' => "INSERT INTO %s SELECT * FROM %s WHERE id = 1",
	'one inserted again in reverse order' => "INSERT INTO %s SELECT * FROM %s WHERE id <= 5 ORDER BY id DESC",
);
my $n = 0;
for my $what (sort keys %doubles)
{
	my $q = 'd' . ++$n;
	make($q, 10);
	past($q, $doubles{$what});
	is(all_ids($q), '1 2 3 4 5 6 7 8 9 10', "$what: each once");
	like($warned, qr/WARNING:\s+segment "s_\d+_0_0" has several rows with id \d+/, "$what: a WARNING names segment and id") if $what =~ /inserted/;
	unlike($warned, qr/WARNING/, "$what: no WARNING: there is one visible row of each") if $what =~ /updated/;
	is(one($node, "SELECT ready + retrying + leased + pending FROM mq.groups WHERE queue = '$q'"), '0', "$what: nothing is left");
}
is_alive('two rows with one id');
# the same, read message by message, and with some handed out before
$n = 0;
for my $what (sort keys %doubles)
{
	my $q = 'e' . ++$n;
	make($q, 10);
	is(one($node, "SELECT string_agg(id::text, ' ') FROM mq.pop('$q', max_messages => 2)"), '1 2', "$what: two before");
	one($node, "SELECT mq.release(receipt) FROM mq.receive('$q', max_messages => 5)");
	past($q, $doubles{$what});
	is(all_ids($q, batch => 1), '3 4 5 6 7 8 9 10', "$what: the others one by one, each once");
}
is_alive('one by one');

# --- many pages: the copies are far from the originals --------------------------------------------------------------------
make('far', 3000);
past('far', "UPDATE %s SET body = decode(repeat('ab', 300), 'hex') WHERE id % 7 = 0; INSERT INTO %s SELECT * FROM %s WHERE id % 5 = 0 ORDER BY id DESC; DELETE FROM %s WHERE id % 11 = 0");
one($node, "SELECT mq.send_batch('far', array(SELECT to_jsonb(i) FROM generate_series(1, 500) i))");
{
	my $want = one($node, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM (SELECT DISTINCT id FROM mq.q_far) d");
	same_ids(all_ids('far', batch => 50), $want, 'far apart: each visible id once');
	one($node, "SELECT mq.create_group('far', 'again', start => 'earliest')");
	same_ids(all_ids('far', batch => 5000, group => 'again'), $want, 'far apart: for a new group too');
}

# --- an update that is open while a message is handed out, one that commits after look-ahead --------------------------------
{
	make('open', 10);
	my $s = session($node);
	my $leaf = leaf('open');
	$s->q("BEGIN; ALTER TABLE $leaf DISABLE TRIGGER ALL; UPDATE $leaf SET payload = '\"new\"' WHERE id <= 5");
	is(one($node, "SELECT string_agg(payload::text, ' ') FROM mq.pop('open', max_messages => 2)"), '1 2', 'an open update: the old rows are handed out');
	$s->q("ALTER TABLE $leaf ENABLE TRIGGER ALL; COMMIT");
	is(one($node, "SELECT string_agg(id || payload::text, ' ') FROM mq.pop('open', max_messages => 100)"), '3"new" 4"new" 5"new" 66 77 88 99 1010',
		'committed: the new ones of the rest');
	$s->close;
}

# --- deleted, emptied -------------------------------------------------------------------------------------------------------
make('gone', 10);
one($node, "SELECT mq.release(receipt) FROM mq.receive('gone', max_messages => 4)");
past('gone', 'DELETE FROM %s WHERE id IN (2, 3, 9)');
is(all_ids('gone'), '1 4 5 6 7 8 10', 'DELETEd rows are gone');
make('empty', 10);
one($node, "SELECT mq.release(receipt) FROM mq.receive('empty', max_messages => 4)");
past('empty', 'TRUNCATE %s');
is(all_ids('empty'), '', 'TRUNCATE: nothing is left');
is(one($node, "SELECT mq.send('empty', '1')"), '11', 'and it goes on');
is(all_ids('empty'), '11', 'and is delivered');
is(one($node, "SELECT ready + retrying + leased + pending FROM mq.groups WHERE queue = 'gone'"), '0', 'nothing is left of them in the window');

# --- rows without what mq takes for granted -----------------------------------------------------------------------------------
make('nulls', 5);
past('nulls', 'ALTER TABLE %q ALTER enqueued_at DROP NOT NULL; INSERT INTO %s (id, payload) VALUES (100, \'"timeless"\')');
one($node, "SELECT mq.send_batch('nulls', array(SELECT to_jsonb(i) FROM generate_series(1, 200) i))");
like(all_ids('nulls'), qr/^1 2 3 4 5 .*\b100\b/, 'a row without enqueued_at is delivered');
is(one($node, "SELECT count(*) FROM mq.browse('nulls', states => '{finished}', max_messages => 1000) WHERE enqueued_at IS NULL"), '1', 'and browsed');

# --- a partition that is none of ours ---------------------------------------------------------------------------------------------
make('other', 5);
{
	my $leaf = leaf('other');
	one($node, "CREATE TABLE public.spare (LIKE $leaf); INSERT INTO public.spare (enqueued_at, id) VALUES (now(), 3), (now(), -7), (now(), 9223372036854775807), (now(), 4000000000)");
	one($node, "ALTER TABLE public.spare ALTER id DROP NOT NULL; INSERT INTO public.spare (enqueued_at) VALUES (now())");
	one($node, "BEGIN; ALTER TABLE mq.q_other DETACH PARTITION $leaf; ALTER TABLE $leaf RENAME TO put_aside; ALTER TABLE public.spare SET SCHEMA mq_internal; ALTER TABLE mq_internal.spare RENAME TO " . ($leaf =~ s/.*\.//r) . "; COMMIT");
	is(all_ids('other'), '3', 'ids that do not belong into the partition, and none at all');
	$node->restart;
	one($node, "SELECT mq.create_group('other', 'g', start => 'earliest')");
	is(all_ids('other', group => 'g'), '3', 'the same after a restart');
	cmp_ok(one($node, "SELECT next_id FROM mq.queues WHERE queue = 'other'"), '<', 1000000, 'and no id of theirs is the last one');
}
is_alive('all of it');
ok($no_crash->(), 'no process died');
$node->stop;
done_testing();
