# Segments and the worker: made ahead, sealed, dropped when finished and never before; the offset log's ring; the worker
# killed, DROP DATABASE and DROP EXTENSION beside it; a standby and its promotion.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use PostgreSQL::Test::Cluster;
use MqTest;

my $node = mq_node('worker', fsync => 1, streaming => 1, conf => <<CONF);
mq.drop_delay = 0
mq.offset_log_size = '64kB'
max_connections = 60
shared_buffers = 64MB
CONF

sub segments { my ($q) = @_; return one($node, "SELECT count(*) FROM mq.segments WHERE queue = '$q'"); }
sub ring_bytes { return one($node, "SELECT coalesce(sum(pg_relation_size(oid)), 0) FROM pg_class WHERE relnamespace = 'mq_internal'::regnamespace AND relname ~ '^consumer_offset' AND relkind = 'r'"); }

# --- made ahead, dropped when finished -----------------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('first')");
ok(worker_alive($node), 'a worker runs in the database');
is(one($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq launcher'"), '1', 'and one launcher');
{
	one($node, "SELECT mq.create_queue('seg', options => jsonb_build_object('segment_size', 1024))");
	my $had = segments('seg');
	cmp_ok($had, '>=', 1, 'create_queue makes the first segment');
	my @seen;
	for my $i (1 .. 12)
	{
		one($node, "SELECT t.put_batch('seg', 's$i', 1000)");
		push @seen, segments('seg');
		# a segment lies ahead before it is needed
		ok(poll_until('a segment ahead', sub { one($node, "SELECT max(last_id) > (SELECT next_id FROM mq.queues WHERE queue = 'seg') FROM mq.segments WHERE queue = 'seg'") eq 't' }), "round $i: a segment lies ahead");
	}
	cmp_ok(segments('seg'), '>=', 12, 'unread segments stay, though mq.drop_delay = 0');
	cmp_ok(one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'seg' AND sealed"), '>=', 8, 'old segments are sealed');
	# all but one message of the first segment
	my $first = one($node, "SELECT receipt FROM mq.receive('seg', max_messages => 1, visibility_timeout => '1 hour')");
	one($node, "SELECT t.take('seg', 11000)");
	one($node, "SELECT t.put_batch('seg', 'x', 3000); SELECT t.take('seg', 2000)");
	ok(poll_until('checkpoint', sub { one($node, "SELECT count(*) FROM mq.segments s, mq.groups g WHERE s.queue = 'seg' AND g.queue = 'seg' AND s.first_id <= g.low_watermark AND g.low_watermark <= s.last_id") eq '1' }),
		'a segment with one unfinished message stays');
	one($node, "SELECT mq.release('$first')");
	ledger_ok($node, 'seg', 'no message was dropped with its segment');
	ok(poll_until('drops', sub { segments('seg') <= 4 }), 'finished segments are dropped') or diag('segments: ' . segments('seg') . '; ' . settle_text($node, 'seg'));
	one($node, "SELECT t.put_batch('seg', 'again', 2500)");
	ledger_ok($node, 'seg', 'and it goes on');
}

# --- a gap in the log is passed, whoever has the queue's table locked -----------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('gap', options => jsonb_build_object('segment_size', 1024))");
	one($node, "SELECT t.put_batch('gap', 'g', 5000)");
	my $s = session($node);
	# what is finished lies in the middle
	$s->q("CREATE TEMP TABLE held AS SELECT id, receipt FROM mq.receive('gap', max_messages => 5000, visibility_timeout => '1 h'); SELECT mq.ack_batch(array_agg(receipt)) FROM held WHERE id / 1024 IN (1, 2)");
	ok(poll_until('drops', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'gap' AND first_id / 1024 IN (1, 2)") eq '0' }), 'finished segments go though an earlier one stays');
	$s->q('BEGIN; LOCK TABLE mq.q_gap IN SHARE UPDATE EXCLUSIVE MODE');
	one($node, "SELECT mq.create_group('gap', 'late', start => 'earliest')");
	is(one($node, "SELECT count(*) FROM mq.pop('gap', consumer_group => 'late', max_messages => 10000)"), 5000 - 2 * 1024, 'a receiver passes the gap while another session makes a segment, or VACUUM runs');
	$s->q('ROLLBACK; SELECT mq.release_batch(array_agg(h.receipt), strict => false) FROM held h');
	$s->close;
}

# --- drop_delay is kept ----------------------------------------------------------------------------------------------------
{
	one($node, "ALTER SYSTEM SET mq.drop_delay = '1 h'");
	$node->reload;
	one($node, "SELECT mq.create_queue('keep', options => jsonb_build_object('segment_size', 1024))");
	for my $i (1 .. 5) { one($node, "SELECT t.put_batch('keep', 'k$i', 1000); SELECT t.take('keep', 1000)"); }
	my $n = segments('keep');
	# the worker has been round: it made a checkpoint of something newer
	one($node, "SELECT t.put('keep', 'z', 10); SELECT t.take('keep', 10)");
	my $w = backend_pid($node, 'mq worker');
	one($node, "SELECT pg_terminate_backend($w)");
	worker_alive($node, $w);
	one($node, "SELECT t.put('seg', 'z', 5); SELECT t.take('seg', 5)");
	cmp_ok(segments('keep'), '>=', $n, 'mq.drop_delay is kept');
	one($node, "ALTER SYSTEM RESET mq.drop_delay");
	$node->reload;
	ok(poll_until('drops', sub { segments('keep') <= 4 }), 'and when it is over they are dropped');
}

# --- the worker killed politely ------------------------------------------------------------------------------------------------
{
	my $pid = backend_pid($node, 'mq worker');
	kill 'TERM', $pid;
	ok(worker_alive($node, $pid), 'a worker that got SIGTERM comes back');
	$pid = backend_pid($node, 'mq launcher');
	kill 'TERM', $pid;
	ok(poll_until('launcher', sub { my $p = backend_pid($node, 'mq launcher'); $p ne '' && $p ne $pid }), 'the launcher too');
	ok(worker_alive($node), 'and there is a worker');
	ok(poll_until('one worker', sub { one($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'postgres'") eq '1' }), 'just one');
}

# --- the worker stopped: a sender that needs a segment waits, cancellable and bounded -------------------------------------------
{
	one($node, "SELECT mq.create_queue('wait', options => jsonb_build_object('segment_size', 1024))");
	my $pid = worker_alive($node);
	# not while it commits, say: others would wait for what it holds then
	poll_until('a pause of the worker', sub { segments('wait') >= 3 && one($node, "SELECT state FROM pg_stat_activity WHERE pid = $pid") eq 'idle' });
	kill 'STOP', $pid;
	my $s = session($node);
	$s->q("SET mq.segment_wait = '1 s'");
	my $state = '';
	my $sent = 0;
	for (1 .. 50) { $state = $s->try("SELECT t.put_batch('wait', 'w$_', 500)"); last if $state ne ''; $sent++; }
	is($state, '55000', "no worker: after $sent batches a sender gives up after mq.segment_wait");
	like($s->{last_err}, qr/HINT/, 'and says what to do');
	is($s->try("SET mq.segment_wait = '60 s'; SET statement_timeout = '300 ms'; SELECT t.put_batch('wait', 'c', 2000)"), '57014', 'the wait can be cancelled');
	$s->q('RESET statement_timeout');
	# in a transaction that holds other work, after a savepoint: nothing is lost
	$s->start("SELECT t.put_batch('wait', 'later', 2000)");
	# others receive meanwhile
	is(one($node, "SELECT t.take('wait', 100)"), '100', 'receivers go on meanwhile');
	kill 'CONT', $pid;
	is(($s->finish)[0], '', 'the worker is back: the waiting sender goes on');
	$s->close;
	ledger_ok($node, 'wait', 'ledger');
}

# --- the ring of the offset log: it turns, is truncated, and stays small ------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('ring', options => jsonb_build_object('segment_size', 8192))");
	my $max = 0;
	for my $i (1 .. 12)
	{
		one($node, "SELECT t.put_batch('ring', 'r$i', 500)");
		one($node, "SELECT t.take('ring', 1) FROM generate_series(1, 10)");
		one($node, join ';', ("SELECT t.take('ring', 1)") x 490);
		my $b = ring_bytes();
		$max = $b if $b > $max;
	}
	# ~5900 ack rows of about 60 to 100 bytes each
	cmp_ok($max, '>', 0, "the offset log was written (at most $max bytes at once)");
	ok(poll_until('truncation', sub {
		one($node, "SELECT t.put('ring', 'more', 1); SELECT t.take('ring', 1)");
		ring_bytes() < 400_000;
	}), 'and it is truncated') or diag('bytes: ' . ring_bytes());
	ledger_ok($node, 'ring', 'ring: ledger');
	for my $how ('restart', 'kill9')
	{
		one($node, "SELECT t.put('ring', '$how', 50); SELECT t.take('ring', 20)");
		if ($how eq 'restart') { $node->restart; } else { $node->kill9; mq_start_again($node); }
		ledger_ok($node, 'ring', "ring: ledger after $how");
	}
}

# --- rebuild: many groups, one pass, right for each --------------------------------------------------------------------------------
{
	for my $i (1 .. 20)
	{
		one($node, "SELECT mq.create_queue('many$i', options => jsonb_build_object('segment_size', 1024)); SELECT t.put_batch('many$i', 'm', " . (100 + 60 * $i) . "); SELECT t.take('many$i', " . (7 * $i) . "); SELECT t.take('many$i', 3); "
			  . "SELECT count(*) FROM mq.receive('many$i', max_messages => 5, visibility_timeout => '1 hour'); SELECT t.take('many$i', 11)");
	}
	one($node, "SELECT mq.drop_queue('many7', force => true)");
	$node->kill9;
	mq_start_again($node);
	my $bad = 0;
	for my $i (1 .. 6, 8 .. 20)
	{
		drain($node, "many$i") or $bad++;
		my $v = one($node, "SELECT t.verdict('many$i')");
		if ($v ne 'ok') { $bad++; diag("many$i: $v"); }
	}
	is($bad, 0, 'twenty queues rebuilt right after kill -9');
}

# --- databases: created, used, dropped with the worker running ----------------------------------------------------------------------
{
	for my $round (1 .. 2)
	{
		one($node, 'CREATE DATABASE two');
		one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('x'); SELECT mq.send('x', '1'); SELECT count(*) FROM mq.receive('x', max_messages => 1, visibility_timeout => '1 hour')", 'two');
		ok(poll_until('worker in two', sub { one($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'two'") eq '1' }), "round $round: a worker comes to a new database");
		is(one($node, "SELECT count(*) FROM mq.queues WHERE queue = 'x'"), '0', 'a queue of another database is not seen here');
		ok(poll_until('DROP DATABASE', sub { sqlstate($node, 'DROP DATABASE two') eq '' }, 60), "round $round: DROP DATABASE works while the worker runs");
	}
	# created anew under the same name: nothing of the old one is there
	one($node, 'CREATE DATABASE two');
	one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('x')", 'two');
	is(one($node, "SELECT count(*) FROM mq.receive('x', max_messages => 10)", 'two'), '0', 'a new database starts empty');
	one($node, "SELECT mq.send('x', '1')", 'two');
	is(one($node, "SELECT count(*) FROM mq.pop('x', max_messages => 10)", 'two'), '1', 'and works');
	is(sqlstate($node, 'DROP DATABASE two WITH (FORCE)'), '', 'DROP DATABASE WITH (FORCE)');
	# many databases dropped and created while idle: the worker of a database without the extension is not there
	one($node, 'CREATE DATABASE bare');
	one($node, 'SELECT 1', 'bare');
	is(one($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'bare'"), '0', 'no worker without the extension');
	is(sqlstate($node, 'DROP DATABASE bare'), '', 'DROP DATABASE without the extension');
}

# --- DROP EXTENSION CASCADE while the worker runs, then CREATE again ----------------------------------------------------------------
{
	one($node, 'CREATE DATABASE ext');
	one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('e', options => jsonb_build_object('segment_size', 1024))", 'ext');
	ok(poll_until('worker in ext', sub { one($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'ext'") eq '1' }), 'a worker in ext');
	for my $round (1 .. 3)
	{
		one($node, "SELECT mq.send_batch('e', array_fill('1'::jsonb, ARRAY[3000])) IS NOT NULL; SELECT count(*) FROM mq.pop('e', max_messages => 1500); SELECT count(*) FROM mq.receive('e', max_messages => 100)", 'ext');
		isnt(sqlstate($node, 'DROP EXTENSION mq', db => 'ext'), '', "round $round: DROP EXTENSION refuses while queues exist");
		is(sqlstate($node, "SET lock_timeout = '60s'; DROP EXTENSION mq CASCADE", db => 'ext'), '', "round $round: DROP EXTENSION CASCADE beside the worker");
		is(one($node, "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname IN ('mq', 'mq_internal')", 'ext'), '0', "round $round: nothing is left");
		is(sqlstate($node, "CREATE EXTENSION mq; SELECT mq.create_queue('e', options => jsonb_build_object('segment_size', 1024))", db => 'ext'), '', "round $round: CREATE again");
		is(one($node, "SELECT count(*) FROM mq.receive('e', max_messages => 10)", 'ext'), '0', "round $round: nothing of the old queue");
	}
	# rolled back
	one($node, "SELECT mq.send('e', '1')", 'ext');
	one($node, 'BEGIN; DROP EXTENSION mq CASCADE; ROLLBACK', 'ext');
	is(one($node, "SELECT count(*) FROM mq.pop('e', max_messages => 10)", 'ext'), '1', 'DROP EXTENSION CASCADE rolled back: the message is there');
	ok(poll_until('worker in ext', sub { one($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'ext'") eq '1' }), 'and there is a worker');
	one($node, "SELECT mq.send_batch('e', array_fill('1'::jsonb, ARRAY[4000])) IS NOT NULL", 'ext');
	is(one($node, "SELECT count(*) FROM mq.pop('e', max_messages => 10000)", 'ext'), '4000', 'that makes segments');
	ok(poll_until('DROP DATABASE', sub { sqlstate($node, 'DROP DATABASE ext') eq '' }, 60), 'DROP DATABASE');
}

# --- a plain owner: worker DDL works without CREATE on schema mq ---------------------------------------------------------------------
{
	one($node, "CREATE ROLE plain LOGIN; GRANT USAGE ON SCHEMA mq TO plain; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA mq TO plain");
	one($node, "SELECT mq.create_queue('owned', options => jsonb_build_object('segment_size', 1024)); GRANT INSERT, SELECT ON mq.q_owned TO plain; SELECT mq.grant('owned', 'consume', 'plain')");
	my $s = session($node, user => 'plain');
	is($s->try("SELECT cardinality(mq.send_batch('owned', array_fill('1'::jsonb, ARRAY[5000])))"), '', 'a plain role sends across segments');
	is($s->q("SELECT count(*) FROM mq.pop('owned', max_messages => 10000)"), '5000', 'and consumes across segments');
	$s->close;
}

# --- standby ------------------------------------------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('ha', options => jsonb_build_object('segment_size', 1024)); SELECT t.put_batch('ha', 'h', 3000); SELECT t.take('ha', 500)");
	$node->backup('b');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($node, 'b', has_streaming => 1);
	$standby->start;
	one($node, "SELECT t.put('ha', 'i', 50); SELECT t.take('ha', 200)");
	my $r = one($node, "SELECT receipt FROM mq.receive('ha', max_messages => 1, visibility_timeout => '1 hour')");
	one($node, "BEGIN; SELECT t.take('ha', 5); SELECT t.put('ha', 'p', 5); PREPARE TRANSACTION 'ha'");
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	my %call = (
		send => "SELECT mq.send('ha', '1')", receive => "SELECT * FROM mq.receive('ha')", pop => "SELECT * FROM mq.pop('ha')",
		ack => "SELECT mq.ack('$r')", nack => "SELECT mq.nack('$r')", release => "SELECT mq.release('$r')", extend => "SELECT mq.extend('$r', '1 min')",
		create_queue => "SELECT mq.create_queue('no')", drop_queue => "SELECT mq.drop_queue('ha')", send_batch => "SELECT mq.send_batch('ha', '{1}'::jsonb[])",
		discard => "SELECT mq.discard('ha', 'default', '{1}')",
	);
	is(sqlstate($standby, $call{$_}), '25006', "on a standby $_ says 25006") for sort keys %call;
	like(err($standby, $call{receive}), qr/during recovery.*HINT:  Connect to the primary/s, 'and the hint says what to do');
	like(err($standby, "SELECT * FROM mq.browse('ha', states => '{ready}')"), qr/during recovery.*HINT:  Connect to the primary/s, 'as for browse');
	is(one($standby, "SELECT count(*) FROM mq.q_ha") > 0 ? 1 : 0, 1, 'browsing works on a standby');
	like(sqlstate($standby, 'SELECT count(*) FROM mq.queues'), qr/^(25006)?$/, 'views work there, or say 25006');
	is(one($standby, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker'"), '0', 'no worker on a standby');
	$node->stop('immediate');
	$standby->promote;
	ok(worker_alive($standby), 'after promotion there is a worker');
	is(sqlstate($standby, "SELECT mq.ack('$r')"), 'MQ001', 'a receipt from before the promotion is refused');
	is(sqlstate($standby, "COMMIT PREPARED 'ha'"), '', 'what was prepared before can be committed');
	one($standby, "SELECT t.put_batch('ha', 'new', 2000)");
	ledger_ok($standby, 'ha', 'after promotion: all messages are there, acked stays acked');
	$standby->stop;
}

done_testing();
