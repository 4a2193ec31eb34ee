# NOTIFY for clients that cannot block: coalesced, from the worker, for everything that makes a message ready.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time sleep);
use MqTest;

my $node = mq_node('notify', conf => "mq.visibility_timeout = '10 min'\n");
my $l = session($node);

# what has come in on a channel since the last call: [payload, pid of the sender], ...
my @heard;
sub hear
{
	my ($channel) = @_;
	my $out = $l->q('SELECT 1');
	push @heard, [ $1, $2, $3 ] while $out =~ /Asynchronous notification "(.*?)" with payload "(.*?)" received from server process with PID (\d+)/gs;
	push @heard, [ $1, '', $2 ] while $out =~ /Asynchronous notification "([^"]*)" received from server process with PID (\d+)/gs;
	my @mine = grep { $_->[0] eq $channel } @heard;
	@heard = grep { $_->[0] ne $channel } @heard;
	return map { [ $_->[1], $_->[2] ] } @mine;
}
# the next notification on a channel, '' if there is none in time
sub next_on { my ($channel, $secs) = @_; my @got; poll_until("a notification on $channel", sub { @got = hear($channel); scalar @got }, $secs || 10) or return ''; return $got[0][0]; }
# whether one with such a payload comes
sub told { my ($channel, $re) = @_; return poll_until("a notification on $channel like $re", sub { scalar grep { $_->[0] =~ $re } hear($channel) }, 10); }
# none within the time
sub silent { my ($channel, $secs) = @_; my $end = time() + $secs; while (time() < $end) { my @x = hear($channel); return "heard $x[0][0]" if @x; sleep(0.05); } return 'silent'; }
sub clear { my ($channel, $q) = @_; one($node, "SELECT count(*) FROM mq.pop('$q', consumer_group => '$_', max_messages => 100000)") for @_[ 2 .. $#_ ]; sleep(0.1); poll_until('silence', sub { silent($channel, 0.6) eq 'silent' }, 20); return; }

one($node, "SELECT mq.create_queue('n', groups => '{a,b}', options => jsonb_build_object('notify_interval', '100 ms')); SELECT mq.create_queue('off', groups => '{a}')");
$l->q('LISTEN mq_n; LISTEN mq_off');
is(one($node, "SELECT notify_interval FROM mq.queues WHERE queue = 'n'"), '00:00:00.1', 'mq.queues shows it');
is(silent('mq_n', 1.5), 'silent', 'nothing to take: no notification');

# --- what makes a message ready --------------------------------------------------------------------------------------------
one($node, "SELECT t.put('n', 'm', 1)");
is(next_on('mq_n'), '["a","b"]', 'a commit: both groups have something');
one($node, "SELECT count(*) FROM mq.pop('n', consumer_group => 'a', max_messages => 10)");
ok(told('mq_n', qr/^\["b"\]$/), 'b has not taken it: it is told again, a is not');
one($node, "SELECT t.put('n', 'm', 1)");
ok(told('mq_n', qr/"a"/), 'a second message is told too, though b has not taken the first');
one($node, "SELECT (SELECT count(*) FROM mq.pop('n', consumer_group => 'b', max_messages => 10)) + (SELECT count(*) FROM mq.pop('n', consumer_group => 'a', max_messages => 10))");
clear('mq_n', 'n', 'a', 'b');
is(silent('mq_n', 0.8), 'silent', 'taken by both: silence');

my $r;
my $hold = sub { my ($t) = @_; one($node, "SELECT t.put('n', 'x', 1)"); one($node, "SELECT count(*) FROM mq.pop('n', consumer_group => 'b', max_messages => 10)");
	$r = one($node, "SELECT receipt FROM mq.receive('n', consumer_group => 'a', max_messages => 1, visibility_timeout => '$t')"); clear('mq_n', 'n', 'b'); return; };
$hold->('1 h');
is(silent('mq_n', 0.8), 'silent', 'leased: silence');
one($node, "SELECT mq.nack('$r'::uuid)");
is(next_on('mq_n'), '["a"]', 'nacked: the group is told, and only that');
$r = one($node, "SELECT receipt FROM mq.receive('n', consumer_group => 'a', max_messages => 1, visibility_timeout => '1 h')");
clear('mq_n', 'n', 'b');
one($node, "SELECT mq.nack('$r'::uuid, '1500 ms')");
is(silent('mq_n', 0.7), 'silent', 'nacked with a delay: not yet');
is(next_on('mq_n'), '["a"]', 'due: told');
one($node, "SELECT mq.ack(receipt) FROM mq.receive('n', consumer_group => 'a', max_messages => 1, visibility_timeout => '1 h')");
clear('mq_n', 'n', 'a', 'b');
$hold->('2500 ms');
is(next_on('mq_n'), '["a"]', 'a lease that ended: told');
clear('mq_n', 'n', 'a', 'b');
{
	$hold->('1 h');
	one($node, "SELECT mq.release('$r'::uuid)");
	is(next_on('mq_n'), '["a"]', 'released: told');
	my $s = session($node);
	$s->q("BEGIN; SELECT count(*) FROM mq.receive('n', consumer_group => 'a', max_messages => 1)");
	clear('mq_n', 'n', 'b');
	$s->q('ROLLBACK');
	is(next_on('mq_n'), '["a"]', 'rolled back: told');
	one($node, "SELECT count(*) FROM mq.pop('n', consumer_group => 'a', max_messages => 10)");
	clear('mq_n', 'n', 'a', 'b');
	$s->q("BEGIN; SELECT t.put('n', 'y', 1)");
	is(silent('mq_n', 1.2), 'silent', 'a sender that has not committed: silence');
	$s->q('ROLLBACK');
	is(silent('mq_n', 0.8), 'silent', 'one that rolls back: silence');
	$s->q("BEGIN; SELECT t.put('n', 'y', 1); PREPARE TRANSACTION 'y'");
	is(silent('mq_n', 0.8), 'silent', 'prepared: silence');
	$s->q("COMMIT PREPARED 'y'");
	like(next_on('mq_n'), qr/"a"/, 'COMMIT PREPARED: told');
	clear('mq_n', 'n', 'a', 'b');
	$s->q("SELECT mq.pause('n'); SELECT t.put('n', 'z', 1)");
	is(silent('mq_n', 1.2), 'silent', 'paused: nothing can be taken, silence');
	$s->q("SELECT mq.resume('n')");
	like(next_on('mq_n'), qr/"a"/, 'resumed: told');
	clear('mq_n', 'n', 'a', 'b');
	$s->q("SELECT mq.seek('n', 'b', start => 'earliest')");
	is(next_on('mq_n'), '["b"]', 'a seek back: told');
	clear('mq_n', 'n', 'a', 'b');
	$s->close;
}

# --- senders to a queue of which nothing can be taken: the worker looks now and then, not after each of them ---------------------------
{
	one($node, "SELECT mq.create_queue('idle', groups => '{a}', options => jsonb_build_object('notify_interval', '1 s'))");
	$l->q('LISTEN mq_idle');
	one($node, "SELECT mq.pause('idle', 'a')");
	one($node, <<'SQL');
CREATE PROCEDURE t.sends(n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM mq.send('idle', '1');
		COMMIT;
		PERFORM pg_sleep(0.004);           -- so that each could wake it by itself
	END LOOP;
END $$;
SQL
	my $worker = backend_pid($node, 'mq worker');
	my $switches = sub { return PostgreSQL::Test::Utils::slurp_file("/proc/$worker/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : die "no /proc/$worker/status"; };
	my ($before, $begin) = ($switches->(), time());
	one($node, 'SET synchronous_commit = off; CALL t.sends(500)');
	my ($woken, $took) = ($switches->() - $before, time() - $begin);
	cmp_ok($woken, '<=', 40 + 40 * $took, sprintf('paused, 500 commits in %.1f s: the worker was awake %d times', $took, $woken));
	is(silent('mq_idle', 0.3), 'silent', 'paused: silence');
	one($node, "SELECT mq.resume('idle', 'a')");
	is(next_on('mq_idle'), '["a"]', 'resumed: told');
}

# --- coalesced, and from the worker only -----------------------------------------------------------------------------------
{
	one($node, "SELECT mq.alter_queue('n', jsonb_build_object('notify_interval', '300 ms'))");
	my $T = 3;
	hear('mq_n');
	my $begin = time();
	$node->pgbench("-n -c 4 -T $T", 0, [qr/processed: \d\d+/], [qr/^$/], 'many senders', { '016_send' => "SELECT mq.send('n', '1');\nSELECT mq.send('off', '1');\n" });
	my @got = hear('mq_n');
	my $took = time() - $begin;
	my $sent = one($node, "SELECT count(*) FROM mq.q_n");
	cmp_ok(scalar(@got), '>=', 2, 'while messages come there are notifications');
	cmp_ok(scalar(@got), '<=', $took / 0.3 + 2, sprintf('at most one per interval (%d for %d messages in %.1f s)', scalar @got, $sent, $took));
	my $worker = backend_pid($node, 'mq worker');
	is(scalar(grep { $_->[1] ne $worker } @got), 0, 'all of them from the worker');
	is(silent('mq_off', 0.5), 'silent', 'a queue without notify_interval: never');
	# switched off
	one($node, "SELECT mq.alter_queue('n', jsonb_build_object('reset', jsonb_build_array('notify_interval')))");
	clear('mq_n', 'n');
	one($node, "SELECT t.put('n', 'w', 1)");
	is(silent('mq_n', 1.5), 'silent', 'switched off: none');
	# switched on while messages are there
	one($node, "BEGIN; SELECT mq.alter_queue('off', jsonb_build_object('notify_interval', '50 ms')); ROLLBACK");
	is(silent('mq_off', 1.2), 'silent', 'switched on and rolled back: none');
	one($node, "SELECT mq.alter_queue('off', jsonb_build_object('notify_interval', '50 ms'))");
	is(next_on('mq_off'), '["a"]', 'switched on while messages are there: told');
}

# --- names, a worker that dies, a crash ----------------------------------------------------------------------------------------
{
	my $name = q{we"ird ' ☃, name};
	one($node, qq{SELECT mq.create_queue('we"ird '' ☃, name', groups => ARRAY['g"1', 'g,2'], options => '{"notify_interval": "50 ms"}')});
	$l->q(qq{LISTEN "mq_we""ird ' ☃, name"});
	one($node, qq{SELECT mq.send('we"ird '' ☃, name', '1')});
	my $end = time() + 10;
	my $text = '';
	while (time() < $end && $text !~ /g,2/) { $text .= $l->q('SELECT 1'); sleep(0.05); }
	like($text, qr/"mq_we"ird ' ☃, name"/, 'a queue with an odd name has its channel');
	my ($json) = $text =~ /☃, name" with payload "(\[.*?\])"/s;
	is(one($node, 'SELECT string_agg(x, \' \' ORDER BY x) FROM jsonb_array_elements_text($j$' . ($json // '[]') . '$j$) x'), 'g"1 g,2', 'and the payload is JSON');
	one($node, qq{SELECT mq.drop_queue('we"ird '' ☃, name', force => true)});
	one($node, "SELECT count(*) FROM mq.pop('off', consumer_group => 'a', max_messages => 1000000)");
	clear('mq_off', 'off', 'a');
	my $w = backend_pid($node, 'mq worker');
	one($node, "SELECT pg_terminate_backend($w)");
	ok(worker_alive($node, $w), 'the worker comes back');
	one($node, "SELECT t.put('off', 'm', 1)");
	is(next_on('mq_off', 15), '["a"]', 'and goes on telling');
	$l->close;
	$node->kill9;
	ok(mq_start_again($node), 'kill -9');
	$l = session($node);
	@heard = ();
	$l->q('LISTEN mq_off');
	is(next_on('mq_off', 15), '["a"]', 'after a crash what is there is told, without anybody having touched the queue');
}

$l->close;
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP|PANIC|signal (?:6|7|8|11)/, 'no assertion, no panic');
done_testing();
