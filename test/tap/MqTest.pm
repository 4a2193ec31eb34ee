# MqTest: what the TAP files share.
#
# It owns: setting a node up with mq preloaded, psql sessions that can be started, waited for and killed, the ledger
# kept in plain tables beside the queue (t.sent, t.done: written in the same transaction as the send or the ack, so that
# plain heap rows are the truth the queue is measured against), stop points, and crashing and restarting a server.
# Every wait is bounded (180 s) and polls a condition.
package MqTest;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run ();
use Time::HiRes qw(time sleep);
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our $TIMEOUT = $ENV{MQ_TEST_TIMEOUT} || 180;

# MQ_SCALE scales the big numbers; 1 (the default) meets the numbers of the issue.
our $SCALE = $ENV{MQ_SCALE} || 1;

our @EXPORT = qw($TIMEOUT mq_node mq_start_again mq_start_to_fall mq_restart_after mq_stop_points scaled poll_until
  one err session drain ledger_ok put_ok sqlstate wait_down backend_pid stop_file worker_alive settle_text);

$SIG{PIPE} = 'IGNORE';

# MQ_FAIL_FAST=1: the first failed test ends the file (make mutants needs no more)
if ($ENV{MQ_FAIL_FAST})
{
	no warnings 'redefine';
	my $ok = \&Test::Builder::ok;
	*Test::Builder::ok = sub { my $good = $ok->(@_); exit 1 if !$good; return $good; };
}

sub scaled { my ($n) = @_; my $v = int($n * $SCALE); return $v < 1 ? 1 : $v; }

# poll_until('what', sub { ... }): true as soon as the code returns true, false after the time-out (and says so).
sub poll_until
{
	my ($what, $code, $timeout) = @_;
	my $end = time() + ($timeout || $TIMEOUT);
	while (1)
	{
		my $r = eval { $code->() };
		return $r if $r;
		if (time() > $end)
		{
			diag("timed out waiting for: $what" . ($@ ? " (last error: $@)" : ''));
			return 0;
		}
		sleep(0.03);
	}
}

my $helpers = <<'SQL';
CREATE SCHEMA IF NOT EXISTS t;
CREATE TABLE t.sent (q text, k text);
CREATE TABLE t.done (q text, k text, at timestamptz DEFAULT clock_timestamp());

-- sends n messages tag:1..n one by one and writes them to the ledger in the same transaction
CREATE FUNCTION t.put(q text, tag text, n int, first int DEFAULT 1) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	FOR j IN first .. first + n - 1 LOOP
		PERFORM mq.send(q, jsonb_build_object('k', tag || ':' || j));
	END LOOP;
	INSERT INTO t.sent SELECT q, tag || ':' || i FROM generate_series(first, first + n - 1) i;
	RETURN n;
END $$;

-- the same by send_batch, a thousand at a time
CREATE FUNCTION t.put_batch(q text, tag text, n int, first int DEFAULT 1) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE lo int := first; hi int;
BEGIN
	WHILE lo <= first + n - 1 LOOP
		hi := least(lo + 999, first + n - 1);
		PERFORM mq.send_batch(q, (SELECT array_agg(jsonb_build_object('k', tag || ':' || i) ORDER BY i)
								  FROM generate_series(lo, hi) i));
		INSERT INTO t.sent SELECT q, tag || ':' || i FROM generate_series(lo, hi) i;
		lo := hi + 1;
	END LOOP;
	RETURN n;
END $$;

-- receives up to n, writes them to the ledger and acks them, all in the caller's transaction
CREATE FUNCTION t.take(queue_name text, n int DEFAULT 1) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE r uuid[]; ks text[];
BEGIN
	SELECT array_agg(receipt), array_agg(payload->>'k') INTO r, ks FROM mq.receive(queue_name, max_messages => n);
	IF r IS NULL THEN
		RETURN 0;
	END IF;
	INSERT INTO t.done SELECT queue_name, unnest(ks);
	PERFORM mq.ack_batch(r);
	RETURN cardinality(r);
END $$;

-- the same by pop, as one statement
CREATE FUNCTION t.pop(queue_name text, n int DEFAULT 1) RETURNS bigint LANGUAGE sql AS $$
	WITH m AS (SELECT * FROM mq.pop(queue_name, max_messages => n)),
		 w AS (INSERT INTO t.done SELECT queue_name, payload->>'k' FROM m RETURNING 1)
	SELECT count(*) FROM w;
$$;

-- a message that is still handed out or undecided somewhere: not drained yet
CREATE FUNCTION t.busy(queue_name text) RETURNS bigint LANGUAGE sql AS $$
	SELECT coalesce(sum(g.ready + g.retrying + g.leased + g.settling + g.pending), 0)::bigint FROM mq.groups g WHERE g.queue = queue_name;
$$;

-- takes until nothing is left; raises after secs
CREATE PROCEDURE t.drain(queue_name text, lim int DEFAULT 1000, secs int DEFAULT 170) LANGUAGE plpgsql AS $$
DECLARE n bigint; idle int := 0; stop timestamptz := clock_timestamp() + secs * interval '1 s';
BEGIN
	LOOP
		n := t.take(queue_name, lim);
		COMMIT;
		IF n > 0 THEN
			idle := 0;
		ELSIF t.busy(queue_name) = 0 THEN
			idle := idle + 1;
			EXIT WHEN idle >= 3;
		ELSE
			idle := 0;
			PERFORM pg_sleep(0.02);
		END IF;
		IF clock_timestamp() > stop THEN
			RAISE EXCEPTION 'drain of % did not end: %', queue_name,
				(SELECT to_jsonb(g) FROM mq.groups g WHERE g.queue = queue_name);
		END IF;
	END LOOP;
END $$;

-- 'ok', or what is wrong with the ledger of a queue
CREATE FUNCTION t.verdict(queue_name text) RETURNS text LANGUAGE sql AS $$
	WITH s AS MATERIALIZED (SELECT k, count(*) AS n FROM t.sent WHERE q = queue_name GROUP BY k),
	d AS MATERIALIZED (SELECT k, count(*) AS n FROM t.done WHERE q = queue_name GROUP BY k),
	x AS (SELECT k, coalesce(s.n, 0) AS sn, coalesce(d.n, 0) AS dn FROM s FULL JOIN d USING (k))
	SELECT CASE WHEN count(*) = 0 THEN 'the ledger is empty'
		WHEN count(*) FILTER (WHERE sn <> dn) = 0 THEN 'ok'
		ELSE format('lost %s, never sent %s, repeated %s; for example %s',
			count(*) FILTER (WHERE sn > dn), count(*) FILTER (WHERE sn = 0), count(*) FILTER (WHERE sn > 0 AND dn > sn),
			(array_agg(format('%s (sent %s, done %s)', k, sn, dn)) FILTER (WHERE sn <> dn))[1:5]) END
	FROM x;
$$;
SQL

# Most tests fail messages often, and do not wait for hours: a ladder of seconds, and nothing dies.
my $short_ladder = "ALTER TABLE mq_internal.consumer_group ALTER retry_delays SET DEFAULT '{0 s,100 ms,200 ms,400 ms,800 ms,2 s}', ALTER max_failures SET DEFAULT NULL";

# With ladder => 1 groups have the ladder that mq gives them.
# mq_node('name', conf => 'lines', fsync => 1, streaming => 1, install => 0): a started node with the helpers in place.
sub mq_node
{
	my ($name, %o) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(($o{streaming} ? (allows_streaming => 1) : ()), extra => [ '--locale=C', '--encoding=UTF8' ]);
	$node->append_conf('postgresql.conf', <<CONF);
shared_preload_libraries = 'mq'
log_statement = none
log_min_messages = warning
log_min_error_statement = panic
autovacuum_naptime = 3s
max_connections = 60
max_prepared_transactions = 20
shared_buffers = 64MB
max_wal_size = 4GB
CONF
	$node->append_conf('postgresql.conf', "fsync = on\n") if $o{fsync};
	$node->append_conf('postgresql.conf', $o{conf}) if $o{conf};
	$node->start;
	if (!exists $o{install} || $o{install})
	{
		$node->safe_psql('postgres', "CREATE EXTENSION mq;\n" . $helpers);
		$node->safe_psql('postgres', $short_ladder) if !$o{ladder};
	}
	return $node;
}

sub helpers_sql { return $helpers; }

# Was the library built with stop points?  They exist only in test builds.
sub mq_stop_points
{
	my ($node) = @_;
	my ($rc) = $node->psql('postgres', "SET mq.stop_point = ''", on_error_stop => 1);
	return 0 if $rc != 0;
	my $known = $node->safe_psql('postgres', "SELECT count(*) FROM pg_settings WHERE name = 'mq.stop_point'");
	return $known eq '1';
}

sub one { my ($node, $sql, $db) = @_; return $node->safe_psql($db || 'postgres', $sql); }

# sqlstate($node, $sql): '' when it works, else the SQLSTATE
sub sqlstate
{
	my ($node, $sql, %o) = @_;
	my ($out, $err) = ('', '');
	$node->psql($o{db} || 'postgres', "\\set VERBOSITY verbose\n" . $sql, stdout => \$out, stderr => \$err,
		on_error_stop => 1, ($o{params} ? (extra_params => $o{params}) : ()));
	return $1 if $err =~ /(?:ERROR|FATAL|PANIC):\s+([0-9A-Z]{5}):/;
	return $err =~ /^(?:psql:.*error|could not)/m ? "? $err" : '';
}

# err(...): the whole error text
sub err
{
	my ($node, $sql, %o) = @_;
	my ($out, $err) = ('', '');
	$node->psql($o{db} || 'postgres', "\\set VERBOSITY verbose\n" . $sql, stdout => \$out, stderr => \$err, on_error_stop => 1);
	return $err;
}

sub put_ok
{
	my ($node, $q, $tag, $n, $how) = @_;
	$how ||= 'put_batch';
	return one($node, "SELECT t.$how('$q', '$tag', $n)");
}

sub drain
{
	my ($node, $q, %o) = @_;
	my ($out, $err) = ('', '');
	my $rc = $node->psql($o{db} || 'postgres', "CALL t.drain('$q', " . ($o{batch} || 1000) . ", " . ($o{secs} || $TIMEOUT - 10) . ")",
		stdout => \$out, stderr => \$err);
	diag("drain of $q: $err") if $rc != 0;
	return $rc == 0;
}

# Drains the queue and compares what was sent with what was done.
sub ledger_ok
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($node, $q, $name, %o) = @_;
	my $drained = drain($node, $q, %o);
	my $verdict = one($node, "SELECT t.verdict('$q')", $o{db});
	return is(($drained ? '' : 'not drained; ') . $verdict, 'ok', $name);
}

sub settle_text
{
	my ($node, $q) = @_;
	return one($node, "SELECT string_agg(format('ready %s leased %s settling %s pending %s unread %s held %s', ready + retrying, leased, settling, pending, unread_at_most, held_back), '; ') FROM mq.groups WHERE queue = '$q'");
}

sub backend_pid { my ($node, $type) = @_; return one($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND (datname = 'postgres' OR '$type' = 'mq launcher') LIMIT 1"); }

sub worker_alive
{
	my ($node, $not) = @_;
	return poll_until('a worker in database postgres', sub {
		my $p = backend_pid($node, 'mq worker');
		return $p ne '' && (!defined $not || $p ne $not) ? $p : 0;
	});
}

# The server went down by itself (a child was killed and restart_after_crash is off).
sub wait_down
{
	my ($node, $timeout) = @_;
	my $pidfile = $node->data_dir . '/postmaster.pid';
	my $down = poll_until('the server to go down', sub { !-e $pidfile }, $timeout);
	$node->{_pid} = undef if $down;
	return $down;
}

# The processes of a server that are still alive (a process that is dead and not reaped has no directory).
sub processes_in
{
	my ($dir) = @_;
	my $want = (stat $dir)[1];
	my @pids;
	for my $p (glob '/proc/[0-9]*')
	{
		my $at = readlink "$p/cwd";
		push @pids, $p =~ s{.*/}{}r if defined $at && -d $at && (stat $at)[1] == $want;
	}
	return @pids;
}

# Starts a server whose postmaster was killed, once all its processes have left, which they have to do by themselves.
# Where nobody reaps orphans (a container without an init) the dead postmaster still answers kill(0): then the file
# that names it has to go.
# Starts a server that goes down by itself, perhaps before Cluster.pm's start() has read its pid file: that would bail out.
sub mq_start_to_fall
{
	my ($node) = @_;
	local %ENV = $node->_get_env(PGAPPNAME => undef);
	system('pg_ctl', '-w', '-s', '-t', '120', '-D', $node->data_dir, '-l', $node->logfile, '-o', '--cluster-name=' . $node->name, 'start');
	return;
}

sub mq_start_again
{
	my ($node) = @_;
	$node->{_pid} = undef;
	my $log = $node->logfile;
	my $gone = poll_until('all processes of the server to leave', sub { !processes_in($node->data_dir) }, 60);
	if (!$gone)
	{
		for my $p (processes_in($node->data_dir))
		{
			diag("still there: $p " . (eval { PostgreSQL::Test::Utils::slurp_file("/proc/$p/cmdline") =~ tr/\0/ /r } || ''));
			kill 9, $p;
		}
		poll_until('them to be gone', sub { !processes_in($node->data_dir) }, 30);
	}
	unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	my $up = poll_until('the server to start again', sub {
		# by hand: Cluster.pm's start() would BAIL_OUT or print the whole log on each try
		local %ENV = $node->_get_env(PGAPPNAME => undef);
		my $rc = system('pg_ctl', '-w', '-s', '-t', '120', '-D', $node->data_dir, '-l', $log, '-o', '--cluster-name=' . $node->name, 'start');
		return 0 if $rc != 0;
		$node->_update_pid(1);
		return 1;
	});
	return $gone && $up;
}

# Takes a stop point out of the configuration and starts the server again.
sub mq_restart_after
{
	my ($node) = @_;
	my $auto = $node->data_dir . '/postgresql.auto.conf';
	my $text = PostgreSQL::Test::Utils::slurp_file($auto);
	$text =~ s/^mq\.stop_point.*\n//mg;
	open my $f, '>', $auto or die "$auto: $!";
	print $f $text;
	close $f;
	return mq_start_again($node);
}

# The file a 'spin' stop point waits on.
sub stop_file { my ($node) = @_; return $node->data_dir . '/mq_stop'; }

sub session { my ($node, %o) = @_; return MqTest::Session->new($node, %o); }

# ---------------------------------------------------------------------------------------------------------------------
# One psql: start() sends a statement without waiting, finish() waits for its end.
package MqTest::Session;

use strict;
use warnings;
use IPC::Run ();
use Time::HiRes qw(time sleep);

sub new
{
	my ($class, $node, %o) = @_;
	for (keys %o) { die "session: unknown option $_" if !/^(?:db|user|nopid)$/; }
	my $self = bless { in => '', out => '', err => '', n => 0, node => $node }, $class;
	local %ENV = $node->_get_env();
	my @cmd = ('psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($o{db} || 'postgres') . ($o{user} ? " user=$o{user}" : ''), '-f', '-');
	$self->{run} = IPC::Run::start(\@cmd, '<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err});
	$self->{pid} = $self->q('SELECT pg_backend_pid()') unless $o{nopid};
	return $self;
}

sub pid { return $_[0]->{pid}; }

# as q, but where a newer release refuses the number of a type without USAGE: with that of text, so that nothing depends on it
sub q_with_type
{
	my ($self, $sql, $type) = @_;
	my $state = $self->try($sql);
	return if $state eq '';
	die "$sql: $state" if $state ne '42501' || $sql !~ /'$type'::regtype/;
	$self->q($sql =~ s/'$type'::regtype/'25'::regtype/gr);
	return;
}

# sends without waiting
sub start
{
	my ($self, $sql) = @_;
	$self->{n}++;
	$self->{out} = $self->{err} = '';
	delete $self->{result};
	$self->{mark} = "==mark $self->{n}==";
	$self->{in} .= "$sql\n;\n\\echo '$self->{mark}'\n\\warn '$self->{mark}'\n";
	$self->_pump_nb;
	return $self;
}

sub _pump_nb { my ($self) = @_; return eval { $self->{run}->pump_nb; 1 } ? 1 : 0; }

sub is_done
{
	my ($self) = @_;
	return 1 if $self->{result};
	my $alive = $self->_pump_nb;
	my $m = $self->{mark};
	return 1 if $self->{out} =~ /\Q$m\E\r?\n/ && $self->{err} =~ /\Q$m\E\r?\n/;
	if (!$alive || !eval { $self->{run}->pumpable })
	{
		$self->{dead} = 1;
		return 1;
	}
	return 0;
}

# waits; returns (sqlstate or '' or 'DEAD', output)
sub finish
{
	my ($self, $timeout) = @_;
	return @{ $self->{result} } if $self->{result};
	my $end = time() + ($timeout || $MqTest::TIMEOUT);
	my $nap = 0.001;
	until ($self->is_done)
	{
		if (time() > $end)
		{
			Test::More::diag("a statement did not end in time: $self->{in}");
			return ('TIMEOUT', $self->{out});
		}
		sleep($nap);
		$nap *= 2 if $nap < 0.02;
	}
	my $m = $self->{mark};
	$self->{out} =~ s/\n?\Q$m\E\r?\n//;
	$self->{err} =~ s/\Q$m\E\r?\n//;
	my ($out, $err) = ($self->{out}, $self->{err});
	$self->{last_err} = $err;
	# the connection is gone when psql says so, whatever came first
	my $state = '';
	if ($self->{dead} || $err =~ /server closed the connection|connection to server was lost|no connection to the server/)
	{
		$state = 'DEAD';
	}
	elsif ($err =~ /(?:ERROR|FATAL|PANIC):\s+([0-9A-Z]{5}):/) { $state = $1; }
	$self->{result} = [ $state, $out ];
	return ($state, $out);
}

# runs; dies on error
sub q
{
	my ($self, $sql, $timeout) = @_;
	$self->start($sql);
	my ($state, $out) = $self->finish($timeout);
	die "session: $sql: $state $self->{last_err}" if $state ne '';
	return $out;
}

# runs; returns the SQLSTATE ('' if it worked)
sub try
{
	my ($self, $sql, $timeout) = @_;
	$self->start($sql);
	my ($state, $out) = $self->finish($timeout);
	return wantarray ? ($state, $out) : $state;
}

# still running (after a moment in which it would have ended)?
sub waits_on_lock
{
	my ($self, $node) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $self->{pid} AND wait_event_type = 'Lock'") eq '1';
}

sub close
{
	my ($self) = @_;
	eval { $self->{in} .= "\\q\n"; $self->{run}->pump_nb; };
	eval { local $SIG{ALRM} = sub { die 'slow' }; alarm 30; $self->{run}->finish; alarm 0; };
	alarm 0;
	return;
}

# the client dies without a word
sub vanish { my ($self) = @_; eval { $self->{run}->kill_kill(grace => 0); }; $self->{dead} = 1; return; }

1;
