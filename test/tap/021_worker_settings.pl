# Settings that somebody makes for a database, a role or the server are for sessions: the worker goes on as before, and needs
# no restart when they are taken back.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('settings', conf => "mq.drop_delay = 0\nmq.segment_wait = '20 s'\n");
one($node, "SELECT mq.create_queue('q', options => jsonb_build_object('segment_size', 1024))");
my $worker = worker_alive($node);

# what the worker would read as it starts; the session below was there before
my $s = session($node);
my %nasty = (
	default_transaction_read_only => 'on', default_transaction_isolation => 'serializable', default_transaction_deferrable => 'on',
	synchronous_commit => 'remote_apply', statement_timeout => '1 ms', lock_timeout => '1 ms',
	idle_in_transaction_session_timeout => '1 ms', exit_on_error => 'on', session_replication_role => 'replica', row_security => 'off',
	role => 'nobody', search_path => 't, pg_temp',
	DateStyle => 'German', max_parallel_maintenance_workers => '4');
$nasty{transaction_timeout} = '1 ms' if one($node, "SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'") eq '1';
# what the worker says of itself
sub log_of_worker
{
	my ($from) = @_;
	return join '', grep { /mq worker|ERROR|FATAL/ && !/administrator command/ } split /^/m, substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $from);
}

# a standby that is not there, so that a commit which waits for it would wait for ever
$s->q("CREATE ROLE nobody; SET synchronous_commit = local; SET default_transaction_read_only = off");
$s->q("ALTER SYSTEM SET synchronous_standby_names = 'not_there'");
$s->q("ALTER SYSTEM SET default_transaction_read_only = 'on'");
$s->q('SELECT pg_reload_conf()');
poll_until('the reload', sub { one($node, 'SHOW default_transaction_read_only') eq 'on' });
for my $where ('DATABASE postgres', 'ROLE ' . $s->q('SELECT current_user'))
{
	$s->q("ALTER $where SET $_ = '$nasty{$_}'") for sort keys %nasty;
}
my $from = -s $node->logfile;
$s->q("SELECT pg_terminate_backend($worker)");
my $next;
ok(poll_until('the next worker', sub { ($next) = $s->q("SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker' AND pid <> $worker") =~ /(\d+)/ }), 'a worker starts beside such settings');

# sending over the ends of many segments; taking all, so that they are sealed and go; a new table of the offset log
for my $i (1 .. 6)
{
	is($s->try("SELECT t.put_batch('q', 'm$i', 1000)"), '', "round $i: the worker has made the segment");
}
$s->q("SELECT t.take('q', 100000)");
ok(poll_until('drops', sub { $s->q("SELECT count(*) FROM mq.segments WHERE queue = 'q'") <= 4 }), 'it seals and drops them');
is($s->q("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND pid = $next"), '1', 'it is still the same worker');
is(log_of_worker($from), '', 'and has nothing to say in the log');
$s->close;
done_testing();
