#!/usr/bin/perl
# torture: producers and consumers of every style against a nemesis, with ledgers kept outside the server.
#
# Each client writes its own ledger file: what it is about to commit before it says COMMIT, what it received when it has
# received it, and how each transaction ended as far as it could see.  A transaction whose end nobody saw (the server
# died during COMMIT) is decided afterwards by a mark: a row of a plain table written in the same transaction.
# The nemesis kills backends, worker, launcher and postmaster with kill -9, stops immediately, restarts, cancels,
# terminates, sets stop points to kill (test builds), and runs VACUUM, VACUUM FULL and checkpoints.
# The queues q1, q2 and q4 have two consumer groups, default and second, each with a ledger of its own; consumers take from
# either, and partly wait, have names and limits.  q1 and q2 have a backlog most of the time, q4 next to none: there consumers
# get what their own transaction has sent, and now and then kill their backend when they have acked in another order than that
# of ids.  A third group, wander, and the queue q3 belong to one client that seeks, purges, pauses, resumes, makes and drops
# groups, and checks at once what each of these promises.
# At the end everything is drained by receivers that only wait (the worker's sweep is off: mq.wake_sweep), and the ledgers of all
# clients together must show, for each group (design.md, section 9):
#   lost       a committed send that was never acked
#   uncommitted  a message handed out though its send did not commit
#   twice      a message with two committed acks
#   again      a message handed out by a call that began after an ack of it was known to be committed
#   shared     a message handed out to a second holder while a first held it and acked it successfully later
#   half       a transaction whose commit was confirmed but whose mark is missing (that would be PostgreSQL's own fault)
#   hang       a statement that did not answer within 120 s
#   asleep     a message that stays ready while a receiver waits, once all is quiet
#   over       more messages in flight than max_in_flight
#   missed, early  after a seek or create_group: a message that was there and did not come; one that is before the position and came
#   late       one that came only when the group was asked once more half a second later
#   receipt    one from before a seek that was good after it, or not good after a seek that was rolled back
#   paused     a message handed out by a queue or group that is paused
#
# usage: torture.pl --data DIR --socket DIR --log FILE --out DIR --minutes N --seed S [--clients N] [--stop-points]
# The server is running when it starts, has restart_after_crash = on, and runs when it ends.  Exit 0: all invariants hold.
# The schedule of each client comes from the seed; the interleaving is the machine's.
use strict;
use warnings;

# ---------------------------------------------------------------------------------------------------------------------
# Just enough of the PostgreSQL protocol: simple queries over a Unix socket, trust authentication.
package Wire;
use IO::Socket::UNIX;
use IO::Select;
use Time::HiRes qw(time);

our $HANG = 120;

sub new
{
	my ($class, $dir, %o) = @_;
	my $s = IO::Socket::UNIX->new(Peer => "$dir/.s.PGSQL." . ($o{port} || 5432)) or return;
	my $self = bless { s => $s, buf => '', sel => IO::Select->new($s) }, $class;
	my $body = pack('N', 196608) . join('', map { "$_\0" } 'user', 'postgres', 'database', 'postgres', 'application_name', $o{name} || 'torture') . "\0";
	$self->_write(pack('N', length($body) + 4) . $body) or return;
	while (1)
	{
		my ($type, $msg) = $self->_message or return;
		return $self if $type eq 'Z';
		return if $type eq 'E';
		$self->{pid} = unpack('N', $msg) if $type eq 'K';
	}
}

sub _write
{
	my ($self, $data) = @_;
	local $SIG{PIPE} = 'IGNORE';
	while (length $data)
	{
		my $n = syswrite($self->{s}, $data);
		return 0 if !defined $n;
		substr($data, 0, $n) = '';
	}
	return 1;
}

sub _need
{
	my ($self, $n) = @_;
	my $end = time() + $HANG;
	while (length($self->{buf}) < $n)
	{
		my $left = $end - time();
		if ($left <= 0 || !$self->{sel}->can_read($left)) { $self->{hung} = 1 if $end <= time() + 0.01; return 0 if $end <= time() + 0.01; next; }
		my $r = sysread($self->{s}, $self->{buf}, 65536, length $self->{buf});
		return 0 if !$r;
	}
	return 1;
}

sub _message
{
	my ($self) = @_;
	$self->_need(5) or return;
	my ($type, $len) = unpack('aN', $self->{buf});
	$self->_need($len + 1) or return;
	my $msg = substr($self->{buf}, 5, $len - 4);
	substr($self->{buf}, 0, $len + 1) = '';
	return ($type, $msg);
}

# q($sql): (sqlstate, rows): sqlstate '' for success, 'GONE' when the connection is lost, 'HANG'
sub q
{
	my ($self, $sql) = @_;
	my (@rows, $state);
	$self->{error} = $self->{tag} = '';
	$self->{gone} = 1 if !$self->{gone} && !$self->_write('Q' . pack('N', length($sql) + 5) . "$sql\0");
	return ('GONE', []) if $self->{gone};
	while (1)
	{
		my ($type, $msg) = $self->_message;
		if (!defined $type)
		{
			$self->{gone} = 1;
			return ($self->{hung} ? 'HANG' : 'GONE', \@rows);
		}
		if ($type eq 'D')
		{
			my $n = unpack('n', $msg);
			my $at = 2;
			my @row;
			for (1 .. $n)
			{
				my $len = unpack('N', substr($msg, $at, 4));
				$at += 4;
				if ($len == 0xffffffff) { push @row, undef; next; }
				push @row, substr($msg, $at, $len);
				$at += $len;
			}
			push @rows, \@row;
		}
		elsif ($type eq 'E' && !defined $state)
		{
			my %f = map { (substr($_, 0, 1) => substr($_, 1)) } grep { length } split /\0/, $msg;
			$state = $f{C};
			$self->{error} = "$f{C}: $f{M}";
			# the server says so and hangs up
			$self->{gone} = 1 if $f{S} && $f{S} =~ /FATAL|PANIC/;
			return ('GONE', \@rows) if $self->{gone};
		}
		elsif ($type eq 'C') { ($self->{tag}) = $msg =~ /^([^\0]*)/; }
		elsif ($type eq 'Z') { return (defined $state ? $state : '', \@rows); }
	}
}

# ---------------------------------------------------------------------------------------------------------------------
package main;
use Getopt::Long;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep time);
use POSIX ();

my %opt = (minutes => 1, seed => int(time()), clients => 10, out => '.');
GetOptions(\%opt, 'data=s', 'socket=s', 'port=i', 'log=s', 'out=s', 'minutes=f', 'seed=s', 'clients=i', 'stop-points!', 'calm!', 'verbose!') or exit 2;
for (qw(data socket log)) { die "--$_ is needed\n" if !$opt{$_}; }
mkdir $opt{out};
$| = 1;

my @busy = ('q1', 'q2');
my $quiet = 'q4';
my @queues = (@busy, $quiet);         # have ledgers
my @groups = ('default', 'second');
my $wander_queue = 'q3';              # only the wanderer takes from it
my $stop_at = clock_gettime(CLOCK_MONOTONIC) + $opt{minutes} * 60;
sub now { return clock_gettime(CLOCK_MONOTONIC); }
sub connect_db { my ($name) = @_; return Wire->new($opt{socket}, port => $opt{port}, name => $name); }

# connects, trying until the server is there (restarts take a while); undef after two minutes
sub connect_patiently
{
	my ($name) = @_;
	my $end = now() + 120;
	while (now() < $end)
	{
		my $c = connect_db($name);
		return $c if $c;
		sleep 0.05;
	}
	return;
}

sub must
{
	my ($c, $sql) = @_;
	my ($state, $rows) = $c->q($sql);
	die "torture: $sql: $state $c->{error}\n" if $state ne '';
	return $rows;
}

# ---- a client ---------------------------------------------------------------------------------------------------------
# Its private generator, so that its schedule depends on the seed and its number alone.
my ($me, $rng, $ledger, $conn, $tx, $txn, %count);
my $unordered = '';                   # the last transaction that took messages in another order than that of their ids

sub rnd
{
	my ($n) = @_;
	use integer;    # wraps
	$rng = $rng * 6364136223846793005 + 1442695040888963407;
	return (($rng >> 33) & 0x3fffffff) % $n;
}

sub note_line { my $l = join("\t", @_) . "\n"; syswrite($ledger, $l) == length $l or die "ledger: $!"; return; }

sub run { my ($sql) = @_; my ($state, $rows) = $conn->q($sql); note_line('HANG', $tx, $sql) if $state eq 'HANG'; return ($state, $rows); }

# begins a transaction with a name of its own
sub begin
{
	my ($how) = @_;
	$tx = "$me." . ++$txn;
	my ($state) = run('BEGIN' . ($how ? " $how" : ''));
	return $state eq '';
}

# the mark decides the transactions whose end nobody saw
sub mark { my ($state) = run("INSERT INTO t.marks VALUES ('$tx')"); return $state eq ''; }

# ends it and notes how that went
sub end
{
	my ($how) = @_;
	my $t0 = now();
	if ($how eq 'rollback') { note_line('END', $tx, 'rollback', $t0, $t0); run('ROLLBACK'); $count{rollback}++; return; }
	note_line('TRY', $tx, $t0);
	my ($state) = run('COMMIT');
	my $t1 = now();
	# COMMIT of a failed transaction is no error: it says ROLLBACK
	my $word = $state eq '' ? ($conn->{tag} eq 'COMMIT' ? 'commit' : 'rollback') : $state eq 'GONE' || $state eq 'HANG' ? 'unknown' : 'rollback';
	$count{$word}++;
	note_line('END', $tx, $word, $t0, $t1);
	# acks in such an order have to count after a crash, and there is a checkpoint soon
	if ($word eq 'commit' && $unordered eq $tx && !$opt{calm} && rnd(4) == 0) { $count{crash_after_unordered}++; kill 9, $conn->{pid}; }
	return $word;
}

sub queue { return one_of(@queues); }
sub any_queue { return one_of(@busy, @busy, $wander_queue); }
my $serial = 0;
# a message's key says which queue it is in; a hand-out's and an ack's also for which group: 3.17.4/q1@second
sub keys_for { my ($q, $n) = @_; return map { "$tx." . ++$serial . "/$q" } 1 .. $n; }

# sends n, one by one or as a batch; notes the keys as sent by this transaction.  Some are not due at once: they are noted with the
# time before which nobody may have them.
sub send_some
{
	my ($q, $n, $batch, $now) = @_;
	my @k = keys_for($q, $n);
	my $delay = $now || rnd(4) ? 0 : 1 + rnd(rnd(4) ? 300 : 3000);
	my $sql = $batch
	  ? "SELECT cardinality(mq.send_batch('$q', ARRAY[" . join(',', map { "'{\"k\":\"$_\"}'" } @k) . ']::jsonb[]' . ($delay ? ", delays => '{$delay ms}'" : '') . '))'
	  : join(';', map { "SELECT mq.send('$q', '{\"k\":\"$_\"}'" . ($delay ? ", delay => '$delay ms'" : '') . ')' } @k);
	if ($delay) { note_line('DUE', $tx, now() + $delay / 1000, @k); $count{delayed} += @k; }
	my ($state) = run($sql);
	return if $state ne '';
	return @k;
}

# what mq.cancel and mq.reschedule say of a message that was just sent must be true
sub change_my_mind
{
	my ($q) = @_;
	begin() or return;
	my ($k) = keys_for($q, 1);
	my $delay = rnd(2) ? 1 + rnd(20) : 1 + rnd(1500);
	note_line('DUE', $tx, now() + $delay / 1000, $k);
	my ($state, $rows) = run("SELECT mq.send('$q', '{\"k\":\"$k\"}', delay => '$delay ms')");
	return give_up() if $state ne '';
	my $id = $rows->[0][0];
	note_line('SEND', $tx, $k);
	mark() or return give_up();
	my $word = end(decide(95));
	return if !defined $word || $word ne 'commit';
	sleep(rnd(2) ? $delay / 1000 : rnd(30) / 1000);
	begin() or return;
	if (rnd(3) == 0)
	{
		note_line('RESCHEDULE', $tx, $k);
		($state) = run("SELECT mq.reschedule('$q', $id, clock_timestamp() + '" . rnd(500) . " ms')");
		return $state eq '' && mark() ? end(decide(70)) : give_up();
	}
	if (rnd(3) == 0) { (run('SAVEPOINT s'))[0] eq '' or return give_up(); (run("SELECT mq.cancel('$q', $id)"))[0] eq '' or return give_up(); (run('ROLLBACK TO s'))[0] eq '' or return give_up(); }
	($state, $rows) = run("SELECT mq.cancel('$q', $id)");
	return give_up() if $state ne '';
	$count{ $rows->[0][0] eq 't' ? 'cancelled' : 'cancelled_too_late' }++;
	note_line('CANCEL', $tx, $k) if $rows->[0][0] eq 't';
	mark() or return give_up();
	return rnd(5) ? end(decide(75)) : prepare();
}

# Now and then a consumer sends to the queue that it takes from.  What comes of that is handed out to it last, with whatever ids others
# were given meanwhile: then its acks are not in the order of ids.
sub send_to_own
{
	my ($q) = @_;
	return 1 if rnd(3);
	my @k = send_some($q, 1 + rnd(3), rnd(2), 1) or return 0;
	note_line('SEND', $tx, @k);
	$count{sent_to_own} += @k;
	sleep(rnd(50) / 1000);
	return 1;
}

# receives up to n, for one of the groups; notes every hand-out.  Some wait, some have a name.
sub receive_some
{
	my ($q, $n, $vt, $pop) = @_;
	my $g = one_of(@groups);
	my $more = ", consumer_group => '$g'" . (rnd(4) ? '' : ", wait => '2 s'") . (rnd(3) ? '' : ", consumer => 'n" . rnd(3) . "'") . (rnd(10) ? '' : ', max_bytes => 200');
	my $t0 = now();
	my ($state, $rows) = run("SELECT receipt, payload->>'k', id FROM " . ($pop ? "mq.pop('$q', max_messages => $n$more)" : "mq.receive('$q', max_messages => $n, visibility_timeout => '$vt'$more)"));
	return if $state ne '';
	my $t1 = now();
	note_line('RECV', $tx, $t0, $t1, map { "$_->[1]\@$g" } @$rows) if @$rows;
	$count{received} += @$rows;
	if (grep { $rows->[$_][2] < $rows->[ $_ - 1 ][2] } 1 .. $#$rows) { $unordered = $tx; $count{unordered}++; }
	return map { { r => $_->[0], k => "$_->[1]\@$g" } } @$rows;
}

sub ack_them
{
	my (@m) = @_;
	return 1 if !@m;
	@m = reverse @m if rnd(3) == 0;
	my ($state) = @m == 1 && rnd(2) ? run("SELECT mq.ack('$m[0]{r}')") : run('SELECT mq.ack_batch(ARRAY[' . join(',', map { "'$_->{r}'" } @m) . ']::uuid[])');
	$count{lease_lost}++ if $state eq 'MQ001';
	return $state eq '';
}

# ends with commit or, now and then, rollback
sub decide { my ($percent) = @_; return rnd(100) < $percent ? 'commit' : 'rollback'; }

sub give_up { end('rollback'); return; }

my %producer = (
	single => [ 10, sub { begin() or return; my @k = send_some(rnd(2) ? any_queue() : $quiet, 1 + rnd(3), 0) or return give_up(); note_line('SEND', $tx, @k); mark() or return give_up(); end(decide(90)); } ],
	batch => [ 3, sub { begin() or return; my @k = send_some(any_queue(), 10 + rnd(200), 1) or return give_up(); note_line('SEND', $tx, @k); mark() or return give_up(); end(decide(85)); } ],
	savepoints => [ 3, sub {
		begin() or return;
		my $q = any_queue();
		for my $i (1 .. 1 + rnd(6))
		{
			(run('SAVEPOINT s'))[0] eq '' or return give_up();
			my @k = send_some($q, 1 + rnd(4), rnd(2)) or return give_up();
			if (rnd(2)) { (run('ROLLBACK TO s'))[0] eq '' or return give_up(); }
			else { note_line('SEND', $tx, @k); (run('RELEASE s'))[0] eq '' or return give_up(); }
		}
		mark() or return give_up();
		end(decide(85));
	} ],
	slow => [ 1, sub {
		begin() or return;
		my $q = any_queue();
		for my $i (1 .. 5 + rnd(20))
		{
			my @k = send_some($q, 1 + rnd(3), rnd(2)) or return give_up();
			note_line('SEND', $tx, @k);
			sleep(rnd(60) / 1000);
		}
		mark() or return give_up();
		end(decide(70));
	} ],
	bulk => [ 1, sub {
		begin() or return;
		my $q = any_queue();
		for my $i (1 .. 1 + rnd(4))
		{
			my @k = send_some($q, 1000, 1) or return give_up();
			note_line('SEND', $tx, @k);
		}
		mark() or return give_up();
		end(decide(50));
	} ],
	cancel => [ 3, sub { change_my_mind(queue()); } ],
	prepared => [ 1, sub {
		begin() or return;
		my @k = send_some(any_queue(), 1 + rnd(50), rnd(2)) or return give_up();
		note_line('SEND', $tx, @k);
		mark() or return give_up();
		prepare();
	} ],
);

# PREPARE, and mostly finish it at once; the rest is finished by whoever finds it
sub prepare
{
	my $gid = $tx;
	my $t0 = now();
	note_line('TRY', $tx, $t0);
	my ($state) = run("PREPARE TRANSACTION '$gid'");
	if ($state ne '' || $conn->{tag} ne 'PREPARE TRANSACTION')
	{
		note_line('END', $tx, $state eq 'GONE' || $state eq 'HANG' ? 'unknown' : 'rollback', $t0, now());
		run('ROLLBACK');
		return;
	}
	$count{prepared}++;
	sleep(rnd(300) / 1000) if rnd(3) == 0;
	return note_line('END', $tx, 'unknown', $t0, now()) if rnd(4) == 0;
	my $word = decide(60);
	$t0 = now();
	($state) = run(($word eq 'commit' ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
	note_line('END', $tx, $state eq '' ? $word : 'unknown', $t0, now());
	return;
}

sub finish_a_prepared
{
	my ($state, $rows) = run('SELECT gid FROM pg_prepared_xacts ORDER BY prepared LIMIT 1');
	return if $state ne '' || !@$rows;
	run((rnd(3) ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$rows->[0][0]'");
	return;
}

my @isolation = ('', '', '', '', 'ISOLATION LEVEL REPEATABLE READ', 'ISOLATION LEVEL SERIALIZABLE');

my %consumer = (
	transaction => [ 8, sub {
		begin($isolation[ rnd(scalar @isolation) ]) or return;
		my $q = queue();
		send_to_own($q) or return give_up();
		my @m = receive_some($q, 1 + rnd(30), '1 min') or return give_up();
		note_line('ACK', $tx, map { $_->{k} } @m);
		(mark() && ack_them(@m) && send_to_own($q)) or return give_up();
		end(decide(85));
	} ],
	pop => [ 8, sub {
		begin() or return;
		my $q = queue();
		send_to_own($q) or return give_up();
		my @m = receive_some($q, 1 + rnd(200), '', 1) or return give_up();
		note_line('ACK', $tx, map { $_->{k} } @m);
		(mark() && send_to_own($q)) or return give_up();
		end(decide(85));
	} ],
	savepoints => [ 3, sub {
		begin() or return;
		my $q = queue();
		for my $i (1 .. 1 + rnd(5))
		{
			(run('SAVEPOINT s'))[0] eq '' or return give_up();
			my $pop = rnd(2);
			my @k;
			if (rnd(5) == 0) { @k = send_some($q, 1 + rnd(3), rnd(2)) or return give_up(); note_line('DRAFT', $tx, @k); }
			my @m = receive_some($q, 1 + rnd(5), '1 min', $pop);
			return give_up() if $conn->{gone};
			if (rnd(2)) { (run('ROLLBACK TO s'))[0] eq '' or return give_up(); next; }
			if (@m)
			{
				if (!$pop && !ack_them(@m)) { (run('ROLLBACK TO s'))[0] eq '' or return give_up(); next; }
				note_line('ACK', $tx, map { $_->{k} } @m);
			}
			if (@k) { note_line('SEND', $tx, @k); $count{sent_to_own} += @k; }
			(run('RELEASE s'))[0] eq '' or return give_up();
		}
		mark() or return give_up();
		end(decide(80));
	} ],
	lease => [ 6, sub {
		$tx = "$me." . ++$txn . 'r';
		my $q = queue();
		my @m = receive_some($q, 1 + rnd(20), '2 s') or return;
		# some are slow enough to lose the lease, some ack from another connection
		sleep(rnd(10) == 0 ? 1.5 + rnd(1000) / 1000 : rnd(50) / 1000);
		if (rnd(5) == 0) { $conn = connect_patiently("c$me") or return; }
		begin() or return;
		note_line('ACK', $tx, map { $_->{k} } @m);
		(send_to_own($q) && mark() && ack_them(@m)) or return give_up();
		end(decide(85));
	} ],
	soft => [ 2, sub {
		$tx = "$me." . ++$txn . 'r';
		my @m = receive_some(queue(), 1 + rnd(20), '1 s') or return;
		sleep(rnd(8) == 0 ? 1.1 : 0);
		begin() or return;
		my ($state, $rows) = run('SELECT unnest(mq.ack_batch(ARRAY[' . join(',', map { "'$_->{r}'" } @m) . ']::uuid[], strict => false))');
		return give_up() if $state ne '';
		my %refused = map { ($_->[0] => 1) } @$rows;
		note_line('ACK', $tx, map { $_->{k} } grep { !$refused{ $_->{r} } } @m);
		mark() or return give_up();
		end(decide(85));
	} ],
	nack => [ 2, sub { $tx = "$me." . ++$txn . 'r'; my @m = receive_some(queue(), 1 + rnd(10), '2 s') or return;
		run('SELECT mq.nack_batch(ARRAY[' . join(',', map { "'$_->{r}'" } @m) . "]::uuid[], '" . rnd(200) . " ms', strict => false)"); } ],
	release => [ 1, sub { $tx = "$me." . ++$txn . 'r'; my @m = receive_some(queue(), 1 + rnd(10), '2 s') or return;
		run('SELECT mq.release_batch(ARRAY[' . join(',', map { "'$_->{r}'" } @m) . ']::uuid[], strict => false)'); } ],
	extend => [ 1, sub { $tx = "$me." . ++$txn . 'r'; my @m = receive_some(queue(), 1 + rnd(10), '2 s') or return;
		run('SELECT mq.extend_batch(ARRAY[' . join(',', map { "'$_->{r}'" } @m) . "]::uuid[], '" . (50 + rnd(1000)) . " ms', strict => false)"); } ],
	forget => [ 1, sub { $tx = "$me." . ++$txn . 'r'; receive_some(queue(), 1 + rnd(5), '500 ms'); } ],
	prepared => [ 2, sub {
		begin() or return;
		my $q = queue();
		send_to_own($q) or return give_up();
		my @m = receive_some($q, 1 + rnd(20), '1 min') or return give_up();
		note_line('ACK', $tx, map { $_->{k} } @m);
		(mark() && ack_them(@m)) or return give_up();
		if (rnd(2)) { my @k = send_some(queue(), 1 + rnd(3), 0) or return give_up(); note_line('SEND', $tx, @k); }
		prepare();
	} ],
	statement => [ 3, sub {
		# one statement, one transaction: the effect table says what it took
		$tx = "$me." . ++$txn . 'e';
		my ($q, $g) = (queue(), one_of(@groups));
		my $t0 = now();
		note_line('TRY', $tx, $t0);
		my ($state, $rows) = run("WITH m AS (SELECT * FROM mq.pop('$q', consumer_group => '$g'" . (rnd(2) ? '' : ", wait => '2 s'") . ", max_messages => " . (1 + rnd(10)) . ")), w AS (INSERT INTO t.effects SELECT '$tx', (payload->>'k') || '\@$g' FROM m RETURNING 1), x AS (INSERT INTO t.marks VALUES ('$tx')) SELECT count(*) FROM w");
		note_line('END', $tx, $state eq '' ? 'commit' : $state eq 'GONE' || $state eq 'HANG' ? 'unknown' : 'rollback', $t0, now());
	} ],
	through => [ 2, sub {
		# takes, passes on to another queue, takes again: all in one transaction
		begin() or return;
		my @m = receive_some('q1', 1 + rnd(5), '1 min') or return give_up();
		note_line('ACK', $tx, map { $_->{k} } @m);
		(mark() && ack_them(@m)) or return give_up();
		my @k = send_some('q2', scalar @m, rnd(2)) or return give_up();
		note_line('SEND', $tx, @k);
		@m = receive_some('q2', 1 + rnd(5), '1 min');
		return give_up() if $conn->{gone};
		note_line('ACK', $tx, map { $_->{k} } @m);
		ack_them(@m) or return give_up();
		end(decide(80));
	} ],
	tidy => [ 1, sub { $tx = "$me.t"; finish_a_prepared(); } ],
	look => [ 1, sub {
		$tx = "$me.v";
		my ($state, $rows) = run('SELECT queue, consumer_group, leased + settling FROM mq.groups WHERE leased + settling > max_in_flight');
		note_line('WRONG', $tx, 'over', "@{ $rows->[0] }") if @$rows;
		run('SELECT count(*) FROM mq.in_flight');
		run('SELECT count(*) FROM mq.segments');
	} ],
	wait => [ 2, sub {
		$tx = "$me.c";
		my $q = queue();
		(run("CALL mq.wait('$q', '" . one_of(@groups) . "', timeout => '2 s')"))[0] eq '' or return;
		begin() or return;
		my @m = receive_some($q, 1 + rnd(30), '', 1) or return give_up();
		note_line('ACK', $tx, map { $_->{k} } @m);
		mark() or return give_up();
		end('commit');
	} ],
	# in a group that may be dropped meanwhile, or not be there
	brief => [ 1, sub { $tx = "$me.b"; run("SELECT count(*) FROM mq.pop('" . queue() . "', consumer_group => 'brief', max_messages => 10, wait => '1 s')"); } ],
);

# ---- the wanderer: moves groups that nobody else takes from, and checks what it was promised -------------------------------
# what is in the log: key -> id
sub log_now
{
	my ($q) = @_;
	my ($state, $rows) = run("SELECT payload->>'k', id FROM mq.q_$q");
	return $state eq '' ? { map { $_->[0] => $_->[1] } @$rows } : undef;
}

# all that the group is given, as keys; undef: somebody interrupted
my $pops;           # how many each call gave, and why it may have been too few
sub take_all
{
	my ($q, $g) = @_;
	my %got;
	my $calls = 0;
	$pops = 'pops of';
	while (1)
	{
		my ($state, $rows) = run("SELECT payload->>'k' FROM mq.pop('$q', consumer_group => '$g', max_messages => 100000)");
		return if $state ne '';
		$got{ $_->[0] } = 1 for @$rows;
		$count{takes_of_more_than_20}++ if ++$calls == 21;
		$pops .= ' ' . @$rows;
		last if @$rows < 20;
	}
	my ($state, $rows) = run("SELECT held_back FROM mq.groups WHERE queue = '$q' AND consumer_group = '$g'");
	return if $state ne '';
	$pops .= ", held back $rows->[0][0]";
	return \%got;
}

# The group has just been put to the id $from (undef: to the end).  What was there before and still is has to come, from there on,
# and whatever has been committed since, from there on; what was there before and is below has not.
sub check_position
{
	my ($q, $g, $from, $before, $what) = @_;
	my $after = log_now($q) or return;
	sleep(rnd(100) / 1000);
	my $later = log_now($q) or return;
	my $got = take_all($q, $g) or return;
	my @missed = grep { !$got->{$_} && (exists $before->{$_} ? defined $from && $later->{$_} >= $from
		: !exists $after->{$_} && (!defined $from || $later->{$_} >= $from)) } keys %$later;
	my @early = grep { (!defined $from || $before->{$_} < $from) && $got->{$_} } keys %$before;
	if (@missed)
	{
		# lost, or given only when asked once more?
		my $first = $pops;
		sleep 0.5;
		my $more = take_all($q, $g) or return;
		my @lost = grep { !$more->{$_} } @missed;
		note_line('WRONG', $tx, @lost ? 'missed' : 'late', "$what, $g of $q: " . @missed . ", like $missed[0] (id $later->{$missed[0]}); asked once more, " . @lost . " of them, at " . now() . "; $first; then $pops");
	}
	note_line('WRONG', $tx, 'early', "$what, $g of $q: " . @early . ", like $early[0]") if @early;
	$count{"checked_$what"}++;
	return 1;
}

sub one_id { my ($log) = @_; my @ids = sort { $a <=> $b } values %$log; return one_of(@ids); }

# somewhere: (arguments of mq.seek and mq.create_group, id)
sub a_place
{
	my ($before) = @_;
	my $id = one_id($before);
	my $how = rnd(4);
	return ("start => 'latest'", undef) if $how == 0;
	return ("start_id => $id", $id) if $how == 1 && defined $id;
	return ("start => 'earliest'", 0);
}

sub resume_all
{
	for my $sql ('SELECT mq.resume(queue) FROM mq.queues WHERE paused', 'SELECT mq.resume(queue, consumer_group) FROM mq.groups WHERE paused')
	{
		return 0 if (run($sql))[0] ne '';
	}
	return 1;
}

sub drop_if_exists { my ($q, $g) = @_; my ($state) = run("SELECT mq.drop_group(queue, consumer_group, force => true) FROM mq.groups WHERE queue = '$q' AND consumer_group = '$g'"); return $state eq ''; }

my %wanderer = (
	seek => [ 8, sub {
		$tx = "$me." . ++$txn . 'w';
		my $q = any_queue();
		resume_all() or return;
		my ($state, $old) = run("SELECT receipt FROM mq.receive('$q', consumer_group => 'wander', max_messages => " . (1 + rnd(5)) . ", visibility_timeout => '1 min')");
		return if $state ne '';
		my $before = log_now($q) or return;
		my ($args, $from) = a_place($before);
		my $seek = "SELECT mq.seek('$q', 'wander', $args)";
		($seek, $from) = ("SELECT mq.purge('$q')", undef) if $q eq $wander_queue && rnd(3) == 0;
		if (rnd(4) == 0)
		{
			# not done after all: nothing has changed
			for my $sql ('BEGIN', 'SAVEPOINT a', $seek, rnd(2) ? 'ROLLBACK' : ('ROLLBACK TO a', 'COMMIT')) { return if (run($sql))[0] ne ''; }
			for my $r (@$old)
			{
				($state) = run("SELECT mq.extend('$r->[0]', '1 min')");
				note_line('WRONG', $tx, 'receipt', "of $q is dead after a seek that was rolled back") if $state eq 'MQ001';
				return if $state ne '';
			}
		}
		return if (run($seek))[0] ne '';
		for my $r (@$old)
		{
			($state) = run("SELECT mq.ack('$r->[0]')");
			note_line('WRONG', $tx, 'receipt', "of $q is good after $seek") if $state eq '';
			return if $state ne 'MQ001';
		}
		$conn->{error} = '';
		check_position($q, 'wander', $from, $before, $seek =~ /purge/ ? 'purge' : 'seek');
	} ],
	make => [ 3, sub {
		$tx = "$me." . ++$txn . 'g';
		my $q = any_queue();
		(resume_all() && drop_if_exists($q, 'extra')) or return;
		my $before = log_now($q) or return;
		my ($args, $from) = a_place($before);
		return if (run("SELECT mq.create_group('$q', 'extra', $args)"))[0] ne '';
		check_position($q, 'extra', $from, $before, 'create') or return;
		drop_if_exists($q, 'extra');
	} ],
	brief => [ 2, sub {
		$tx = "$me." . ++$txn . 'g';
		my $q = queue();
		return if (run("SELECT mq.create_group('$q', 'brief', options => '{\"max_in_flight\": 5}', if_not_exists => true)"))[0] ne '';
		sleep(rnd(500) / 1000);
		drop_if_exists($q, 'brief');
	} ],
	pause => [ 3, sub {
		$tx = "$me." . ++$txn . 'p';
		my ($q, $g) = (any_queue(), rnd(2) ? 'wander' : one_of(@groups));
		$g = 'wander' if $q eq $wander_queue;
		resume_all() or return;
		return if (run(rnd(2) ? "SELECT mq.pause('$q')" : "SELECT mq.pause('$q', '$g')"))[0] ne '';
		begin() or return;
		my ($state, $rows) = run("SELECT id FROM mq.receive('$q', consumer_group => '$g', max_messages => 10)");
		note_line('WRONG', $tx, 'paused', "$g of $q") if $state eq '' && @$rows;
		end('rollback');
		sleep(rnd(300) / 1000);
		resume_all();
	} ],
	# it must not keep the log for ever
	catch_up => [ 4, sub { $tx = "$me." . ++$txn . 'u'; resume_all() or return; for my $q (@queues, $wander_queue) { take_all($q, 'wander') or return; } sleep 0.1; } ],
);

sub choose
{
	my ($table) = @_;
	my $total = 0;
	$total += $table->{$_}[0] for keys %$table;
	my $at = rnd($total);
	for my $name (sort keys %$table)
	{
		return $name if ($at -= $table->{$name}[0]) < 0;
	}
	die;
}

sub client
{
	my ($number, $table) = @_;
	$me = $number;
	$rng = hash_of("$opt{seed}/$number");
	$txn = 0;
	$tx = "$me.0";
	open $ledger, '>>', "$opt{out}/ledger.$number" or die;
	binmode $ledger;
	my %strange;
	while (now() < $stop_at)
	{
		if (!$conn || $conn->{gone})
		{
			$conn = connect_patiently("c$me");
			if (!$conn) { note_line('HANG', $tx, 'no connection for two minutes'); last; }
		}
		my $name = choose($table);
		$table->{$name}[1]->();
		$count{transactions}++;
		# what is neither a refusal nor an interruption is a defect: keep a sample
		if ($conn && $conn->{error} && $conn->{error} !~ /^(MQ001|57014|57P0\d|40001|40P01|25P02|XX000: stop point|42704: prepared|55000: prepared|42704: consumer group "brief")/)
		{
			$strange{ $conn->{error} }++ or note_line('STRANGE', $tx, $name, $conn->{error});
			$conn->{error} = '';
		}
		run('ROLLBACK') if $conn && !$conn->{gone} && $conn->{error};
		sleep 0.001;
	}
	note_line('COUNT', map { "$_=$count{$_}" } sort keys %count);
	POSIX::_exit(0);
}

sub hash_of { my ($s) = @_; my $h = 1469598103; for (unpack 'C*', $s) { $h = ($h * 16777619 + $_) & 0x7fffffff; } return $h * 65537 + 12345; }

# ---- the nemesis --------------------------------------------------------------------------------------------------------
my @points = qw(send_before_insert send_after_insert receive_marked walk_read ack_marked ack_written pre_commit commit_recorded prepared
  checkpoint_written checkpoint_committed truncate_before segment_created segment_attached segment_committed seal_before drop_before rebuild_before
  cancel_found move_taken move_appended move_committed move_taken move_appended schedule_truncate moved_truncate);

sub pg_ctl { return system('pg_ctl', '-s', '-w', '-t', '100', '-D', $opt{data}, '-l', $opt{log}, @_) == 0; }

# PostgreSQL itself never ends when it is asked to during the recovery after a crash restart (its checkpointer stays): then at once.
sub stop_fast { connect_patiently('nemesis'); return pg_ctl('stop', '-m', 'fast') || pg_ctl('stop', '-m', 'immediate'); }

sub postmaster_pid { open my $f, '<', "$opt{data}/postmaster.pid" or return 0; my $p = <$f>; chomp $p; return $p; }

# The server's processes that are alive.  Where nobody reaps orphans a dead postmaster still answers kill(0), hence not that.
sub processes
{
	my $want = (stat $opt{data})[1];
	my @pids;
	for my $p (glob '/proc/[0-9]*') { my $at = readlink "$p/cwd"; push @pids, $p =~ s{.*/}{}r if defined $at && -d $at && (stat $at)[1] == $want; }
	return @pids;
}

sub start_again
{
	my ($why) = @_;
	my $end = now() + 60;
	sleep 0.02 while processes() && now() < $end;
	note_line('HANG', 'nemesis', "processes stayed after $why: @{[ processes() ]}") if processes();
	unlink "$opt{data}/postmaster.pid", "$opt{socket}/.s.PGSQL." . ($opt{port} || 5432) . '.lock' if !processes();
	for (1 .. 1200) { return 1 if pg_ctl('start'); sleep 0.1; }
	note_line('HANG', 'nemesis', "the server did not start after $why");
	return 0;
}

sub set_stop_point
{
	my ($value) = @_;
	my $file = "$opt{data}/postgresql.auto.conf";
	open my $in, '<', $file or return;
	my @lines = grep { !/^mq\.stop_point/ } <$in>;
	close $in;
	push @lines, "mq.stop_point = '$value'\n" if $value;
	open my $out, '>', "$file.new" or die;
	print $out @lines;
	close $out;
	rename "$file.new", $file;
	my $p = postmaster_pid();
	kill 'HUP', $p if $p;
	return;
}

sub victims
{
	my ($type) = @_;
	my $c = connect_db('nemesis') or return;
	my ($state, $rows) = $c->q("SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND pid <> pg_backend_pid()");
	return map { $_->[0] } @$rows;
}

sub sql { my (@sql) = @_; my $c = connect_db('nemesis') or return; $c->q($_) for @sql; return; }
sub one_of { my (@l) = @_; return @l ? $l[ rnd(scalar @l) ] : undef; }
sub signal { my ($sig, $type) = @_; my $v = one_of(victims($type)); kill $sig, $v if $v; return; }

my %act = (
	kill_backend    => [ 4, sub { signal(9, 'client backend'); } ],
	kill_worker     => [ 3, sub { signal(9, 'mq worker'); } ],
	kill_launcher   => [ 1, sub { signal(9, 'mq launcher'); } ],
	terminate       => [ 8, sub { signal('TERM', 'client backend'); } ],
	terminate_worker => [ 3, sub { signal('TERM', 'mq worker'); } ],
	cancel          => [ 10, sub { signal('INT', 'client backend'); } ],
	kill_postmaster => [ 2, sub { my $p = postmaster_pid() or return; kill 9, $p; start_again('kill -9 of the postmaster'); } ],
	immediate       => [ 2, sub { pg_ctl('stop', '-m', 'immediate'); start_again('an immediate stop'); } ],
	restart         => [ 1, sub { stop_fast(); start_again('a restart'); } ],
	vacuum          => [ 2, sub { sql(map { "VACUUM mq.q_$_" } @queues); } ],
	vacuum_full     => [ 2, sub { sql("SET lock_timeout = '2s'", "VACUUM FULL mq.q_" . one_of(@queues)); } ],
	checkpoint      => [ 1, sub { sql('CHECKPOINT'); } ],
	horizon         => [ 1, sub { my $c = connect_db('nemesis') or return; $c->q('BEGIN ISOLATION LEVEL REPEATABLE READ'); $c->q('SELECT 1'); $c->q('SELECT pg_sleep(1.5)'); } ],
	pause           => [ 1, sub { my @v = victims('client backend'); my $v = one_of(@v) or return; kill 'STOP', $v; sleep 0.7; kill 'CONT', $v; } ],
	pause_worker    => [ 1, sub { my $v = one_of(victims('mq worker')) or return; kill 'STOP', $v; sleep 0.7; kill 'CONT', $v; } ],
	stop_point      => [ 0, sub { my $p = one_of(@points); $count{"stop_point_$p"}++; set_stop_point("$p:kill"); sleep 0.3 + rnd(1500) / 1000; set_stop_point(''); } ],
	stop_error      => [ 0, sub { my $p = one_of(grep { !/commit_recorded|prepared|move_committed/ } @points); set_stop_point("$p:error"); sleep 0.3 + rnd(700) / 1000; set_stop_point(''); } ],
);

sub nemesis
{
	$me = 'nemesis';
	$rng = hash_of("$opt{seed}/nemesis");
	open $ledger, '>>', "$opt{out}/nemesis" or die;
	$tx = 'nemesis';
	if ($opt{'stop-points'}) { $act{stop_point}[0] = 8; $act{stop_error}[0] = 3; }
	while (now() < $stop_at - 2)
	{
		sleep 0.2 + rnd(1800) / 1000;
		my $name = choose(\%act);
		$count{$name}++;
		note_line('ACT', now(), $name);
		print "nemesis: $name\n" if $opt{verbose};
		$act{$name}[1]->();
	}
	set_stop_point('');
	note_line('COUNT', map { "$_=$count{$_}" } sort keys %count);
	POSIX::_exit(0);
}

# ---- the end: drain, then judge -------------------------------------------------------------------------------------------
# Takes what comes, by waiting only: who is not woken sleeps.
sub sleeper
{
	my ($number, $q, $g) = @_;
	$me = "s$number";
	$rng = hash_of("$opt{seed}/$me");
	$txn = 0;
	$tx = "$me.0";
	open $ledger, '>>', "$opt{out}/ledger.$me" or die;
	while (!-e "$opt{out}/enough")
	{
		if (!$conn || $conn->{gone}) { $conn = connect_patiently('sleeper') or die 'no connection'; }
		begin() or next;
		my $t0 = now();
		my ($state, $rows) = run("SELECT payload->>'k' FROM mq.pop('$q', consumer_group => '$g', max_messages => " . (1 + rnd(rnd(3) ? 20 : 5000)) . ", wait => '60 s', consumer => '$me')");
		if ($state ne '' || !@$rows) { give_up(); next; }
		my @k = map { "$_->[0]\@$g" } @$rows;
		note_line('RECV', $tx, $t0, now(), @k);
		note_line('ACK', $tx, @k);
		mark() or (give_up(), next);
		end(decide(90));
	}
	POSIX::_exit(0);
}

# What is unfinished in the groups with ledgers, and what is ready now, in any group, though somebody waits there.
sub unfinished
{
	my @rows = @{ must($conn, 'SELECT queue, consumer_group, ready + leased + settling, pending, waiting FROM mq.groups ORDER BY 1, 2') };
	my ($open, %ready) = (0);
	for (@rows)
	{
		my ($q, $g, $n, $pending, $waiting) = @$_;
		my $first = must($conn, "SELECT id FROM mq.browse('$q', '$g', states => '{ready}', max_messages => 1)")->[0];
		$ready{"$q/$g"} = $first->[0] if $first && $waiting;
		$open += $n + ($first ? 1 : 0) if grep { $_ eq $g } @groups;
	}
	$open += must($conn, 'SELECT count(*) FROM mq.scheduled')->[0][0];
	return ($open, \%ready);
}

sub drain
{
	$me = 'drain';
	$rng = hash_of("$opt{seed}/drain");
	$txn = 0;
	open $ledger, '>>', "$opt{out}/ledger.drain" or die;
	$conn = connect_patiently('drain') or return 'no connection for the drain';
	my $rows = must($conn, 'SELECT gid FROM pg_prepared_xacts');
	must($conn, (rnd(2) ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$_->[0]'") for @$rows;
	resume_all() or return "drain: $conn->{error}";
	must($conn, "SELECT mq.drop_group(queue, consumer_group, force => true) FROM mq.groups WHERE consumer_group IN ('extra', 'brief')");
	my @sleepers;
	for my $q (@queues) { for my $g (@groups, 'wander') { for (1 .. 3) { my $n = @sleepers; push @sleepers, start_child(sub { sleeper($n, $q, $g) }); } } }

	# late commits, and receivers that are interrupted when they have just been woken: the others have to be
	my $why = '';
	my ($left, $quiet, %since) = (150, 0);
	my $end = now() + 180;
	while ($quiet < 10 && !$why)
	{
		if ($left > 0 && begin())
		{
			$left--;
			my @k = send_some(queue(), 1 + rnd(4), 0) or return "drain: $conn->{error}";
			note_line('SEND', $tx, @k);
			mark() or return "drain: $conn->{error}";
			end(decide(80));
			run("SELECT pg_cancel_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name = 'sleeper' ORDER BY random() LIMIT " . rnd(3) . ') x');
		}
		my ($open, $ready) = unfinished();
		for my $where (keys %since) { delete $since{$where} if !exists $ready->{$where} || $since{$where}[0] ne $ready->{$where}; }
		for my $where (keys %$ready)
		{
			$since{$where} ||= [ $ready->{$where}, now() ];
			$why = "asleep: message $ready->{$where} of $where is ready, and who waits is not woken" if now() - $since{$where}[1] > 5;
		}
		$quiet = $left == 0 && !$open && !%$ready ? $quiet + 1 : 0;
		$why ||= 'drain did not end: ' . join(' ', map { join ',', map { $_ // '' } @$_ } @{ must($conn, 'SELECT * FROM mq.groups') }) if now() > $end;
		sleep 0.02 + rnd(60) / 1000;
	}
	open my $f, '>', "$opt{out}/enough" or die;
	for my $p (@sleepers)
	{
		while (waitpid($p, POSIX::WNOHANG()) == 0) { run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'sleeper'"); sleep 0.05; }
	}
	return $why;
}

sub judge
{
	my (%marked, %effect, %word, %send_tx, %draft_tx, %cancel_tx, %due, %rescheduled, %acked, %wrong, %sample, %totals);
	my $c = connect_patiently('judge') or die "no connection\n";
	$marked{ $_->[0] } = 1 for @{ must($c, 'SELECT tx FROM t.marks') };
	push @{ $effect{ $_->[0] } }, $_->[1] for @{ must($c, 'SELECT tx, k FROM t.effects') };
	my (%recv, %ack_keys);
	for my $file (glob("$opt{out}/ledger.*"), grep { -e } "$opt{out}/nemesis")
	{
		open my $f, '<', $file or die;
		while (<$f>)
		{
			chomp;
			my ($what, $t, @rest) = split /\t/;
			if    ($what eq 'SEND') { $send_tx{$_} = $t for @rest; }
			# sent behind a savepoint, and perhaps put back: its own transaction may have seen it
			elsif ($what eq 'DRAFT') { $draft_tx{$_} = $t for @rest; }
			elsif ($what eq 'RESCHEDULE') { $rescheduled{$_} = 1 for @rest; }
			elsif ($what eq 'CANCEL') { $cancel_tx{$_} = $t for @rest; }
			elsif ($what eq 'DUE') { my ($when, @k) = @rest; $due{$_} = $when for @k; }
			elsif ($what eq 'ACK') { push @{ $ack_keys{$t} }, @rest; }
			elsif ($what eq 'END') { $word{$t} = [@rest]; }
			elsif ($what eq 'RECV') { my ($t0, $t1, @k) = @rest; my $call = [ $t0, $t1, $t ]; push @{ $recv{$_} }, $call for @k; }
			elsif ($what eq 'HANG') { $wrong{hang}++; $sample{hang} ||= "$t: @rest"; }
			elsif ($what eq 'WRONG') { my ($kind, $detail) = @rest; $wrong{$kind}++; $sample{$kind} ||= "$t: $detail"; }
			elsif ($what eq 'STRANGE') { $wrong{strange}++; $sample{strange} .= "@rest; "; }
			elsif ($what eq 'COUNT' && $file !~ /nemesis$/) { for ($t, @rest) { my ($k, $v) = split /=/; $totals{$k} += $v; } }
		}
	}
	for my $t (keys %word)
	{
		my $w = $word{$t}[0];
		if ($w eq 'commit' && !$marked{$t}) { $wrong{half}++; $sample{half} ||= $t; }
		if ($w eq 'rollback' && $marked{$t}) { $wrong{half}++; $sample{half} ||= "$t (rolled back, but its mark is there)"; }
	}
	for my $t (keys %effect) { push @{ $ack_keys{$t} }, @{ $effect{$t} }; }
	for my $t (keys %ack_keys)
	{
		next if !$marked{$t};
		my ($w, $t0, $t1) = @{ $word{$t} || [ 'unknown', 0, 0 ] };
		my $ack = { tx => $t, from => $t0, known => $w eq 'commit' ? $t1 : undef };
		push @{ $acked{$_} }, $ack for @{ delete $ack_keys{$t} };
	}
	my $sent = 0;
	for my $k (keys %send_tx)
	{
		next if !$marked{ $send_tx{$k} };
		$sent++;
		next if $k =~ m{/$wander_queue$};
		next if $cancel_tx{$k} && $marked{ $cancel_tx{$k} };
		for my $g (@groups) { if (!$acked{"$k\@$g"}) { $wrong{lost}++; $sample{lost} ||= "$k\@$g"; } }
	}
	for my $k (keys %acked)
	{
		next if $k =~ /\@wander$/;
		if (@{ $acked{$k} } > 1) { $wrong{twice}++; $sample{twice} ||= "$k acked by " . join(' and ', map { $_->{tx} } @{ $acked{$k} }); }
		my $s = $send_tx{ $k =~ s/@.*//r };
		if (!$s || !$marked{$s}) { $wrong{uncommitted}++; $sample{uncommitted} ||= "$k acked"; }
	}
	for my $k (keys %recv)
	{
		next if $k =~ /\@wander$/;
		my $s = $send_tx{ $k =~ s/@.*//r };
		my $own = $s || $draft_tx{ $k =~ s/@.*//r };
		my ($a) = @{ $acked{$k} || [] };
		# when did the one who acked it get it?
		my $held;
		# (a statement that pops, ...e, holds nothing from before)
		if ($a && $a->{tx} !~ /e$/)
		{
			for my $r (@{ $recv{$k} })
			{
				my ($rt, $n) = $r->[2] =~ /^(\w+)\.(\d+)/;
				my ($at, $an) = $a->{tx} =~ /^(\w+)\.(\d+)/;
				# the same transaction, or a lease taken just before it by the same client
				$held = $r->[1] if $rt eq $at && ($n == $an || $n == $an - 1) && (!defined $held || $r->[1] > $held);
			}
		}
		for my $r (@{ $recv{$k} })
		{
			if (!$s || !$marked{$s})
			{
				# its own transaction may receive it
				if (!$own || $own ne $r->[2]) { $wrong{uncommitted}++; $sample{uncommitted} ||= "$k received by $r->[2]"; }
			}
			my $key = $k =~ s/@.*//r;
			if (defined $due{$key} && $r->[1] < $due{$key} - 0.001 && !$rescheduled{$key}) { $wrong{early}++; $sample{early} ||= "$k due at $due{$key}, received by $r->[2] at $r->[1]"; }
			if ($cancel_tx{$key} && $marked{ $cancel_tx{$key} }) { $wrong{cancelled}++; $sample{cancelled} ||= "$k cancelled by $cancel_tx{$key}, received by $r->[2]"; }
			if ($a && defined $a->{known} && $r->[0] > $a->{known}) { $wrong{again}++; $sample{again} ||= "$k acked by $a->{tx} at $a->{known}, received by $r->[2] at $r->[0]"; }
			if ($a && defined $held && $r->[0] > $held && $r->[1] < $a->{from}) { $wrong{shared}++; $sample{shared} ||= "$k held by $a->{tx} from $held to $a->{from}, received by $r->[2] at $r->[0]"; }
		}
	}
	# crashes that nobody ordered
	open my $l, '<', $opt{log} or die;
	while (<$l>) { if (/was terminated by signal (?!9:)|PANIC|TRAP:|failed Assert/) { $wrong{crash}++; $sample{crash} ||= $_; chomp $sample{crash}; } }
	my $acks = 0;
	$acks += @{ $acked{$_} } for keys %acked;
	open my $n, '<', "$opt{out}/nemesis";
	my ($acts) = $n ? grep { /^COUNT/ } <$n> : '';
	$acts //= '';
	chomp $acts;
	$acts =~ s/^COUNT\t//;
	$acts =~ s/\t/ /g;
	print "torture: seed $opt{seed}, $opt{minutes} minutes, nemesis: $acts\n";
	print "torture: " . join(', ', map { "$_ $totals{$_}" } sort keys %totals) . "\n";
	print "torture: messages sent and committed $sent, acks committed $acks, hand-outs seen " . (eval { my $x = 0; $x += @$_ for values %recv; $x } || 0) . "\n";
	for my $w (sort keys %wrong) { print "torture: VIOLATION $w: $wrong{$w}, for example $sample{$w}\n"; }
	if (!$sent || !$acks) { print "torture: VIOLATION nothing was done\n"; $wrong{nothing} = 1; }
	return !%wrong;
}

# ---- main -----------------------------------------------------------------------------------------------------------------
{
	my $c = connect_patiently('main') or die "torture: no server at $opt{socket}\n";
	# what fails comes back within seconds, and nothing dies: the books are compared when all is finished
	must($c, $_) for ('CREATE EXTENSION IF NOT EXISTS mq',
		"ALTER TABLE mq_internal.consumer_group ALTER retry_delays SET DEFAULT '{0 s,100 ms,200 ms,400 ms,800 ms,2 s}', ALTER max_failures SET DEFAULT NULL", 'CREATE SCHEMA t', 'CREATE TABLE t.marks (tx text)', 'CREATE TABLE t.effects (tx text, k text)',
		"SELECT mq.create_queue('q1', groups => '{default,second,wander}', options => '{\"segment_size\": 1024}')", "SELECT mq.create_queue('q2', groups => '{default,second,wander}', options => '{\"segment_size\": 4096}')",
		"SELECT mq.create_queue('$quiet', groups => '{default,second,wander}', options => '{\"segment_size\": 1024}')",
		"SELECT mq.create_queue('$wander_queue', groups => '{wander}', options => '{\"segment_size\": 1024}')",
		"SELECT mq.alter_group('q1', 'second', '{\"max_in_flight_per_consumer\": 300}')", "SELECT mq.alter_group('q2', 'second', '{\"max_in_flight\": 1500}')");
}
my @kids;
sub start_child { my ($code) = @_; my $p = fork(); die "fork: $!" if !defined $p; if (!$p) { undef $conn; eval { $code->(); }; print STDERR "torture: $@" if $@; POSIX::_exit(1); } return $p; }
sub spawn { my ($code) = @_; push @kids, start_child($code); return; }
my $producers = int($opt{clients} * 0.4) || 1;
for my $i (1 .. $opt{clients})
{
	my $table = $i <= $producers ? \%producer : \%consumer;
	spawn(sub { client($i, $table); });
}
spawn(sub { client('m', \%wanderer); });
spawn(sub { nemesis(); }) if !$opt{calm};
my $bad_kids = 0;
for my $p (@kids) { waitpid $p, 0; $bad_kids++ if $?; }
start_again('the end') if !connect_patiently('main') && !processes();
my $why = eval { drain() };
$why = $@ if !defined $why;
print "torture: VIOLATION $why\n" if $why;
print "torture: VIOLATION $bad_kids client(s) of the test itself failed\n" if $bad_kids;
my $good = judge();
if ($why || $bad_kids || !$good) { print "torture: FAILED (seed $opt{seed}; ledgers in $opt{out})\n"; exit 1; }
print "torture: all invariants hold\n";
exit 0;
