# PREPARE TRANSACTION with sends, with receives and acks, with savepoints; COMMIT and ROLLBACK PREPARED, also with a
# crash in between; checkpoints and offset-log truncation while something is prepared.  Nothing is lost or repeated.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('twophase', fsync => 1, conf => "mq.offset_log_size = '64kB'\nmq.drop_delay = 0\nmq.visibility_timeout = '4s'\n");
my $points = mq_stop_points($node);

sub crash
{
	my ($how) = @_;
	return if $how eq 'none';
	if    ($how eq 'restart')   { $node->restart; }
	elsif ($how eq 'immediate') { $node->stop('immediate'); $node->start; }
	else                        { $node->kill9; mq_start_again($node); }
	return;
}

my $n = 0;
for my $how (qw(none kill9 restart))
{
	for my $end ('COMMIT PREPARED', 'ROLLBACK PREPARED')
	{
		my $commit = $end eq 'COMMIT PREPARED';
		my $word = "$end, crash: $how";

		# --- sends ------------------------------------------------------------------------------------------------
		my $q = 's' . ++$n;
		one($node, "SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', 1024)); SELECT t.put('$q', 'before', 5)");
		one($node, "BEGIN; SELECT t.put('$q', 'prep', 10); SELECT t.put_batch('$q', 'prepb', 3000); "
			  . "SAVEPOINT a; SELECT t.put('$q', 'gone', 7); ROLLBACK TO a; SAVEPOINT b; SELECT t.put('$q', 'kept', 7); RELEASE b; "
			  . "PREPARE TRANSACTION '$q'");
		one($node, "SELECT t.put('$q', 'between', 5)");
		crash($how);
		# the others' messages flow, the prepared ones are invisible
		is(one($node, "SELECT sum(t.take('$q', 4)) FROM generate_series(1, 6)"), '10', "sends, $word: the others' messages flow past the prepared ones");
		is(one($node, "SELECT count(*) FROM t.done WHERE q = '$q' AND k ~ '^(prep|kept|gone)'"), '0', "sends, $word: prepared sends are invisible");
		one($node, "$end '$q'");
		if ($commit)
		{
			ok(poll_until('prepared sends to arrive', sub { one($node, "SELECT t.take('$q', 1)") eq '1' }), "sends, $word: they arrive");
		}
		ledger_ok($node, $q, "sends, $word: ledger");

		# --- receive + ack ----------------------------------------------------------------------------------------
		$q = 'r' . $n;
		one($node, "SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', 1024)); SELECT t.put_batch('$q', 'm', 400)");
		one($node, "BEGIN; SELECT t.take('$q', 100); SELECT t.pop('$q', 20); "
			  . "SAVEPOINT a; SELECT t.take('$q', 30); ROLLBACK TO a; "
			  . "SAVEPOINT b; SELECT t.take('$q', 30); RELEASE b; "
			  . "SELECT t.put('$q', 'own', 5); PREPARE TRANSACTION '$q'");
		one($node, "SELECT t.take('$q', 100)");
		crash($how);
		one($node, "SELECT sum(t.take('$q', 10)) FROM generate_series(1, 20)");
		is(one($node, "SELECT count(*) FROM t.done WHERE q = '$q'"), '250', "acks, $word: everything but what is settling is handed out");
		is(one($node, "SELECT count(*) FROM mq.receive('$q', max_messages => 10)"), '0', "acks, $word: what is settling is not");
		one($node, "$end '$q'");
		# settled within about a second, without anybody's help
		ok(poll_until('the sweep', sub { one($node, "SELECT sum(settling) FROM mq.groups WHERE queue = '$q'") eq '0' }), "acks, $word: settled by itself");
		ledger_ok($node, $q, "acks, $word: ledger");

		# --- lease mode: received before and committed, acked in the prepared transaction ---------------------------
		$q = 'l' . $n;
		one($node, "SELECT mq.create_queue('$q'); SELECT t.put('$q', 'm', 10)");
		my @lease = split /\n/, one($node, "SELECT receipt || ' ' || (payload->>'k') FROM mq.receive('$q', max_messages => 4, visibility_timeout => '1 hour')");
		my ($r0, $k0) = split / /, $lease[0];
		my ($r1, $k1) = split / /, $lease[1];
		one($node, "BEGIN; INSERT INTO t.done VALUES ('$q', '$k0'); SELECT mq.ack('$r0'); PREPARE TRANSACTION '$q'");
		is(sqlstate($node, "SELECT mq.ack('$r0')"), 'MQ001', "lease mode, $word: a message that is settling cannot be acked again");
		crash($how);
		is(sqlstate($node, "SELECT mq.ack('$r0')"), 'MQ001', "lease mode, $word: nor after the crash");
		if ($how eq 'none')
		{
			is(sqlstate($node, "INSERT INTO t.done VALUES ('$q', '$k1'); SELECT mq.ack('$r1')"), '', "lease mode, $word: its neighbour can");
		}
		one($node, "$end '$q'");
		ok(poll_until('the sweep', sub { one($node, "SELECT sum(settling) FROM mq.groups WHERE queue = '$q'") eq '0' }), "lease mode, $word: settled");
		if ($how eq 'none')
		{
			# leases are committed: give them back, so that the drain need not wait an hour
			one($node, "SELECT mq.release((split_part('$_', ' ', 1))::uuid)") for @lease[ 2, 3 ];
			$node->psql('postgres', "SELECT mq.release('$r0')", stderr => \my $ignored) if !$commit;
		}
		ledger_ok($node, $q, "lease mode, $word: ledger");
	}
}

# --- receive without ack at PREPARE: the lease leaves the session and keeps its deadline -------------------------------
{
	one($node, "SELECT mq.create_queue('leave'); SELECT t.put('leave', 'm', 3)");
	my $s = session($node);
	$s->q("BEGIN");
	my $receipt = $s->q("SELECT receipt FROM mq.receive('leave', max_messages => 1, visibility_timeout => '3 s')");
	$s->q("PREPARE TRANSACTION 'leave'");
	is(one($node, "SELECT count(*) FROM mq.receive('leave', max_messages => 10, visibility_timeout => '1 hour')"), '2', 'a lease of a prepared transaction holds');
	ok(poll_until('lease expiry', sub { one($node, "SELECT count(*) FROM mq.receive('leave', max_messages => 10, visibility_timeout => '1 hour')") eq '1' }), 'it ends at its deadline, prepared or not');
	is($s->try("SELECT mq.ack('$receipt')"), 'MQ001', 'and the receipt ends with it');
	one($node, "COMMIT PREPARED 'leave'");
	$s->close;
}

# --- a failed PREPARE gives everything back ------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('badprep'); SELECT t.put('badprep', 'm', 10)");
	my $s = session($node);
	$s->q("BEGIN; CREATE TEMP TABLE makes_prepare_fail (x int)");
	$s->q("SELECT t.take('badprep', 5)");
	isnt($s->try("PREPARE TRANSACTION 'badprep'"), '', 'PREPARE fails after a temporary table');
	$s->try('ROLLBACK');
	ledger_ok($node, 'badprep', 'a failed PREPARE gives everything back');
	is($s->try("SELECT mq.create_queue('sp'); SELECT t.put('sp', 'm', 3)"), '', 'the session goes on');
	$s->close;
}

# --- the session that prepared goes on working and ends, while the prepared transaction stays ----------------------------
{
	one($node, "SELECT mq.create_queue('own'); SELECT t.put('own', 'm', 30)");
	my $s = session($node);
	$s->q("BEGIN; SELECT t.take('own', 10); PREPARE TRANSACTION 'own'");
	$s->q("BEGIN; SELECT t.take('own', 5)");
	$s->q("ROLLBACK");
	$s->q("SELECT t.take('own', 5)");
	$s->close;
	is(one($node, "SELECT settling FROM mq.groups WHERE queue = 'own'"), '10', 'the end of the session does not touch what it prepared');
	one($node, "ROLLBACK PREPARED 'own'");
	ledger_ok($node, 'own', 'own session');
}

# --- checkpoint and offset-log truncation while prepared, with and without a crash ----------------------------------------
for my $how (qw(none kill9))
{
	for my $end ('COMMIT PREPARED', 'ROLLBACK PREPARED')
	{
		my $q = 'log' . ++$n;
		one($node, "SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', 4096)); SELECT mq.create_queue('${q}b', options => jsonb_build_object('segment_size', 4096)); SELECT t.put('$q', 'm', 50)");
		one($node, "BEGIN; SELECT t.take('$q', 20); SELECT t.put('$q', 'p', 20); PREPARE TRANSACTION '$q'");
		# small acks until the ring has moved on to another file (an empty table, one emptied meanwhile, or a new one), then
		# two seconds more, so that the worker has had its chance to empty the one with the prepared rows
		my $used = "relname ~ '^consumer_offset' AND relnamespace = 'mq_internal'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0";
		my $files = one($node, "SELECT string_agg(relfilenode::text, ',') FROM pg_class WHERE $used");
		my ($round, $more) = (0, 0);
		my $moved = poll_until('the ring to move on', sub {
			$round++;
			one($node, "SELECT t.put_batch('${q}b', 'r$round', 400)");
			one($node, join ';', ("SELECT t.take('${q}b', 2)") x 200);
			one($node, "SELECT t.put('$q', 'r$round', 5); SELECT t.take('$q', 3)");
			$more ||= time() if one($node, "SELECT count(*) > 0 FROM pg_class WHERE relfilenode NOT IN ($files) AND $used") eq 't';
			return $more && time() > $more + 2;
		});
		ok($moved, "$q: the ring moved on, though something is prepared");
		# the ring moved on (more than one table was used) and stays bounded or has grown, but never lost the prepared rows
		ok(poll_until('checkpoints', sub { one($node, "SELECT low_watermark > 0 FROM mq.groups WHERE queue = '${q}b'") eq 't' }), "$q: time passes");
		if ($how ne 'none')
		{
			crash($how);
			one($node, "SELECT t.take('$q', 30)");
		}
		is(one($node, "SELECT count(*) FROM t.done WHERE q = '$q' AND k ~ '^p:'"), '0', "$q: prepared sends still invisible");
		one($node, "$end '$q'");
		crash($how);
		ledger_ok($node, $q, "$q: truncation while prepared, $end, crash: $how");
		ledger_ok($node, "${q}b", "$q: the other queue");
	}
}

# --- COMMIT PREPARED of acks, then a crash at once: acked stays acked ------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('late', options => jsonb_build_object('segment_size', 1024)); SELECT t.put('late', 'm', 100)");
	one($node, "BEGIN; SELECT t.take('late', 40); PREPARE TRANSACTION 'late'");
	one($node, "SELECT t.take('late', 10)");
	one($node, "COMMIT PREPARED 'late'");
	$node->kill9;
	mq_start_again($node);
	ledger_ok($node, 'late', 'COMMIT PREPARED, then kill -9 of the postmaster');
}

# --- COMMIT PREPARED from another database is refused by PostgreSQL; from another session works ------------------------------
# --- 400 subtransactions, half of them rolled back, prepared ----------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('subs', options => jsonb_build_object('segment_size', 1024))");
	my $s = session($node);
	$s->q("SELECT t.put_batch('subs', 'm', 1000)");
	$s->q('BEGIN');
	$s->q(<<'SQL');
DO $$ BEGIN
	FOR i IN 1 .. 400 LOOP
		BEGIN
			PERFORM t.put('subs', 's' || i, 1);
			PERFORM t.take('subs', 1);
			IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
	END LOOP;
END $$
SQL
	$s->q("PREPARE TRANSACTION 'subs'");
	$s->close;
	is(one($node, "SELECT settling FROM mq.groups WHERE queue = 'subs'"), '200', 'subtransactions: those that stayed are settling');
	$node->stop('immediate');
	$node->start;
	one($node, "SELECT t.take('subs', 100)");
	one($node, "COMMIT PREPARED 'subs'");
	ledger_ok($node, 'subs', '400 subtransactions, half rolled back, prepared, crash, committed');
}

# --- the stop point in PREPARE is covered in 002_crash; here: two-phase with a standby's promotion --------------------------
is(one($node, 'SELECT count(*) FROM pg_prepared_xacts'), '0', 'nothing is left prepared');
# --- a delay, under a discard that is undone after a restart ---------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('delayed'); SELECT mq.send('delayed', '1'); SELECT mq.nack(receipt, '1 h') FROM mq.receive('delayed')");
	my $retrying = "SELECT state || ' ' || (due_at > now() + interval '50 min') FROM mq.browse('delayed') WHERE id = 1";
	is(one($node, $retrying), 'retrying true', 'a message waits for an hour');
	one($node, "BEGIN; SELECT mq.discard('delayed', 'default', '{1}'); PREPARE TRANSACTION 'discards'");
	# so that there is something new to be written down at the stop
	one($node, "SELECT mq.send('delayed', '2'); SELECT mq.nack(receipt, '2 h') FROM mq.receive('delayed')");
	$node->restart;
	is(one($node, "SELECT state FROM mq.browse('delayed') WHERE id = 1"), 'settling', 'discarded by a prepared transaction, after a restart');
	one($node, "ROLLBACK PREPARED 'discards'");
	ok(poll_until('the rollback to be seen', sub { one($node, "SELECT state FROM mq.browse('delayed') WHERE id = 1") ne 'settling' }), 'rolled back');
	is(one($node, $retrying), 'retrying true', 'it waits as before');
}

$node->stop;
done_testing();
