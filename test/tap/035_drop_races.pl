# Calls that race DROP of what they use: they say 42704 (or what PostgreSQL says of a name that is gone), never an internal
# error, and never touch what was made under the same name and number afterwards.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time);
use MqTest;

my $node = mq_node('drop_races', conf => "log_min_messages = error\nlog_min_error_statement = error\nlog_error_verbosity = verbose\nbacktrace_functions = 'relation_open'\nmq.visibility_timeout = '10 min'\n");
my $admin = session($node);

# --- a receiver that waits over DROP and CREATE EXTENSION has nothing of the next one's -----------------------------------
for my $verb (qw(receive pop))
{
	my $db = "ext_$verb";
	one($node, "CREATE DATABASE $db");
	# (who uses it first holds locks to the end, which the drop would wait for)
	one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('q'); SELECT mq.pop('q')", $db);
	my $w = session($node, db => $db);
	$w->start("SELECT payload FROM mq.$verb('q', max_messages => 10, wait => '60 s')");
	poll_until('the receiver to wait', sub { $admin->q("SELECT count(*) FROM pg_stat_activity WHERE pid = $w->{pid} AND wait_event_type IN ('Extension', 'IPC')") eq '1' }, 20);
	# all in one transaction: whoever looks sees the old or the new, not none
	one($node, "BEGIN; SET LOCAL client_min_messages = error; DROP EXTENSION mq CASCADE; DROP SCHEMA IF EXISTS mq CASCADE; CREATE EXTENSION mq; "
		. "SELECT mq.create_queue('q'); SELECT mq.send('q', '\"of the next\"'); COMMIT", $db);
	my ($state, $out) = $w->finish(30);
	is("$state:$out", '42704:', "$verb: a wait ends with 42704 when the extension is another one");
	is(one($node, "SELECT payload, attempt FROM mq.receive('q', max_messages => 10)", $db), '"of the next"|1', "$verb: the message of the next is there for its own");
	is(one($node, "SELECT payload FROM mq.pop('q', max_messages => 10)", $db), '', "$verb: once");
}

# --- errors of one kind are counted in the server log ---------------------------------------------------------------------
sub internal_errors
{
	my ($from) = @_;
	my $log = substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $from);
	# (a function that is dropped before it is called, or its result's type: PostgreSQL's own, no code of ours has run)
	return join("\n", grep { !/cache lookup failed for function/ && (!/BACKTRACE/ || /mq\.so/) }
		$log =~ /^(.*ERROR:  XX000.*\n(?:.*(?:LOCATION|BACKTRACE|STATEMENT).*\n|\t.*\n)*)/mg);
}

sub race
{
	my ($name, $seconds, $clients, $scripts, $db) = @_;
	my $from = -s $node->logfile;
	my @files;
	my $i = 0;
	for my $sql (@$scripts)
	{
		my $file = $node->basedir . "/race_$name" . $i++ . '.sql';
		PostgreSQL::Test::Utils::append_to_file($file, $sql);
		push @files, $file;
	}
	# each script in a pgbench of its own that goes on after errors: one statement per psql, again and again
	my @runs = map {
		my $file = $_;
		map { session($node, db => $db) } 1 .. $clients
	} @files;
	my $end = time() + $seconds;
	my $calls = 0;
	my %states;
	while (time() < $end)
	{
		for my $r (0 .. $#runs)
		{
			next if !$runs[$r]->is_done;
			my ($state) = $runs[$r]->{started} ? $runs[$r]->finish(60) : '';
			$states{ $state // '' }++;
			$runs[$r]->{started} = 1;
			$runs[$r]->start($scripts->[ int($r / $clients) ]);
			$calls++;
		}
		select(undef, undef, undef, 0.001);
	}
	for my $r (@runs) { my ($state) = $r->finish(60); $states{ $state // '' }++; }
	note("$name: $calls calls; " . join(', ', map { "$_: $states{$_}" } sort keys %states));
	is(internal_errors($from), '', "$name: no internal error");
	is(join(',', grep { !/^($|42704|42710|42P01|42883|3F000|55000|40P01|42501|MQ001|P0001|23505|42P07|2BP01|XX000)$/ } sort keys %states), '', "$name: only what may be");
	return;
}

one($node, "CREATE ROLE friend; CREATE ROLE other");
race('grant', 4, 2, [
	"SELECT mq.create_queue('g')",
	"SELECT mq.grant('g', 'send', 'friend')",
	"SELECT mq.revoke('g', 'send', 'friend')",
	"SELECT mq.grant('g', 'consume', 'other')",
	"SELECT mq.create_group('g', 'more')",
	"SELECT mq.drop_group('g', 'more', force => true)",
	"SELECT mq.drop_queue('g', force => true)" ]);

race('queue', 4, 2, [
	"SELECT mq.create_queue('d', options => jsonb_build_object('segment_size', 1024))",
	"SELECT mq.send_batch('d', array_agg(to_jsonb(i))) FROM generate_series(1, 700) i",
	"SELECT count(*) FROM mq.pop('d', max_messages => 100)",
	"SELECT count(mq.nack(receipt)) FROM mq.receive('d', max_messages => 10)",
	"SELECT count(*) FROM mq.browse('d', states => '{ready}')",
	"SELECT mq.seek('d', 'default', 'earliest')",
	"SELECT mq.pause('d'); SELECT mq.resume('d')",
	"SELECT mq.alter_queue('d', jsonb_build_object('retention', '1 s'))",
	"SELECT mq.drop_queue('d', force => true)" ]);

one($node, 'CREATE DATABASE ext');
race('extension', 8, 1, [
	"SET client_min_messages = error; CREATE EXTENSION IF NOT EXISTS mq",
	"SELECT mq.create_queue('e')",
	"SELECT mq.send('e', '1')",
	"SELECT count(*) FROM mq.pop('e', max_messages => 10, wait => '100 ms')",
	"SELECT count(mq.ack(receipt)) FROM mq.receive('e', max_messages => 10)",
	"CALL mq.wait('e', timeout => '50 ms')",
	"SELECT mq.grant('e', 'send', 'friend')",
	"SELECT mq.create_group('e', 'more', if_not_exists => true)",
	"SELECT count(*) FROM mq.groups; SELECT count(*) FROM mq.queues",
	"SET client_min_messages = error; DROP EXTENSION IF EXISTS mq CASCADE; DROP SCHEMA IF EXISTS mq CASCADE" ], 'ext');

# --- drop_queue, a sender that waits for a segment, the worker ------------------------------------------------------------
one($node, "SELECT mq.create_queue('c', options => jsonb_build_object('segment_size', 1024))");
my ($sender, $dropper) = (session($node), session($node));
$sender->q('BEGIN');
$sender->q("SELECT mq.send('c', '1')");
# the worker is stopped so that the sender finds no segment; the drop locks the table and waits for the sender
my $worker = backend_pid($node, 'mq worker');
kill 'STOP', $worker;
$dropper->start("SELECT mq.drop_queue('c', force => true)");
poll_until('the drop to wait', sub { $admin->q("SELECT count(*) FROM pg_stat_activity WHERE pid = $dropper->{pid} AND wait_event_type = 'Lock'") eq '1' }, 20);
my $since = time();
my ($state, $out) = ('', '');
for my $turn (1 .. 10)
{
	$sender->start("SELECT mq.send_batch('c', array_agg(to_jsonb(i))) FROM generate_series(1, 1000) i");
	($state, $out) = $sender->finish(60);
	last if $state ne '';
}
my $took = time() - $since;
kill 'CONT', $worker;
is($state, '40P01', 'the sender that the drop waits for gives up');
cmp_ok($took, '<', 15, sprintf('long before mq.segment_wait, 30 s, is over (%.1f s)', $took));
$sender->q('ROLLBACK');
is(($dropper->finish(30))[0], '', 'the drop goes on');

# one that holds nothing up waits for the outcome
one($node, "SELECT mq.create_queue('c', options => jsonb_build_object('segment_size', 1024))");
$dropper->q('BEGIN');
$dropper->q("SELECT mq.drop_queue('c', force => true)");
$sender->start("SELECT mq.send('c', '1')");
poll_until('the sender to wait', sub { $admin->q("SELECT count(*) FROM pg_stat_activity WHERE pid = $sender->{pid} AND wait_event_type IN ('Lock', 'Extension', 'IPC')") eq '1' }, 20);
$dropper->q('ROLLBACK');
is(($sender->finish(30))[0], '', 'a sender that holds nobody up waits for the outcome of the drop');

done_testing();
