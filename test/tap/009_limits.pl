# Limits: a full arena, a full disk, no queue slot left.  Nothing hangs, nothing is lost, other messages flow, and the
# views and errors say what is going on.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use PostgreSQL::Test::Utils;
use MqTest;

my $million = scaled(1_000_000);
my $node = mq_node('arena', conf => "mq.shared_memory = '1MB'\nmq.drop_delay = 0\nsynchronous_commit = off\n");

one($node, <<'SQL');
CREATE FUNCTION t.numbers(q text, first bigint, last bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE lo bigint := first;
BEGIN
	WHILE lo <= last LOOP
		PERFORM mq.send_batch(q, (SELECT array_agg(to_jsonb(i) ORDER BY i) FROM generate_series(lo, least(lo + 999, last)) i));
		lo := lo + 1000;
	END LOOP;
END $$;
CREATE TABLE t.got (q text, i bigint);
CREATE TABLE t.held (q text, receipt uuid, i bigint);
-- pops what there is into t.got until 'want' numbers are there; nulls are others' messages
CREATE PROCEDURE t.collect(q text, want bigint, secs int DEFAULT 170) LANGUAGE plpgsql AS $$
DECLARE n bigint; have bigint; stop timestamptz := clock_timestamp() + secs * interval '1 s';
BEGIN
	SELECT count(*) INTO have FROM t.got g WHERE g.q = collect.q;
	WHILE have < want LOOP
		INSERT INTO t.got SELECT collect.q, payload::bigint FROM mq.pop(collect.q, max_messages => 20000) WHERE jsonb_typeof(payload) = 'number';
		GET DIAGNOSTICS n = ROW_COUNT;
		COMMIT;
		have := have + n;
		IF n = 0 AND clock_timestamp() > stop THEN
			RAISE EXCEPTION 'have % of %: %', have, want, (SELECT to_jsonb(g) FROM mq.groups g WHERE g.queue = collect.q);
		END IF;
	END LOOP;
END $$;
-- acks what is held, 'per' at a time in the given order, each call with its ledger in one transaction; stops at the first refusal
CREATE PROCEDURE t.finish(which text, per int, OUT done bigint, OUT refused text) LANGUAGE plpgsql AS $$
DECLARE c record; r uuid[];
BEGIN
	done := 0;
	FOR c IN EXECUTE format('SELECT (n - 1) / %s AS piece, array_agg(receipt) AS r, array_agg(i) AS i FROM (SELECT *, row_number() OVER (ORDER BY i) AS n FROM t.held h WHERE %s) x GROUP BY 1 ORDER BY 1', per, which) LOOP
		BEGIN
			INSERT INTO t.got SELECT (SELECT q FROM t.held LIMIT 1), unnest(c.i);
			PERFORM mq.ack_batch(c.r);
			done := done + cardinality(c.i);
		EXCEPTION WHEN OTHERS THEN
			refused := SQLSTATE;
		END;
		COMMIT;
		EXIT WHEN refused IS NOT NULL;
	END LOOP;
END $$;
-- discards everything, 500 at a time, each in a transaction of its own: what is unfinished counts
CREATE PROCEDURE t.discard_all(q text, OUT total bigint) LANGUAGE plpgsql AS $$
DECLARE c record;
BEGIN
	total := 0;
	FOR c IN EXECUTE format('SELECT array_agg(id) AS ids FROM (SELECT id, row_number() OVER (ORDER BY id) / 500 AS p FROM mq.%I) x GROUP BY p ORDER BY p', 'q_' || q) LOOP
		total := total + mq.discard(q, 'default', c.ids);
		COMMIT;
	END LOOP;
END $$;
SQL

sub collect_ok
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($q, $n, $name) = @_;
	my $err = '';
	$node->psql('postgres', "CALL t.collect('$q', $n)", stderr => \$err);
	is($err, '', "$name: all arrive");
	is(one($node, "SELECT count(*) || ' ' || count(DISTINCT i) || ' ' || min(i) || ' ' || max(i) FROM t.got WHERE q = '$q'"), "$n $n 1 $n", "$name: each once");
	is(one($node, "SELECT count(*) FROM mq.receive('$q', max_messages => 100) WHERE jsonb_typeof(payload) = 'number'"), '0', "$name: and nothing else");
	return;
}

# others' queue: what must flow whatever is stuck elsewhere
one($node, "SELECT mq.create_queue('free', options => jsonb_build_object('segment_size', 4096))");
my $tick = 0;
sub flows
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($when) = @_;
	$tick++;
	my $t0 = time();
	my $n = one($node, "SET statement_timeout = '20s'; SELECT t.put('free', 'f$tick', 5); SELECT t.take('free', 5)");
	return is($n, "5\n5", "another queue flows $when");
}

# --- a bulk sender open while receivers run on the messages of others between its own --------------------------------------
{
	my $five = scaled(5_000_000);
	one($node, "SELECT mq.create_queue('bulk'); CREATE SEQUENCE t.bulk");
	my $a = session($node);
	$a->q('BEGIN');
	$a->start("SELECT t.numbers('bulk', 1, $five)");
	$node->pgbench("-n -c 3 -j 1 -T " . scaled(5), 0, [qr/processed/], [qr/^$/], 'single sends and takes beside a bulk sender, 1 MB of shared memory',
		{ '009_send@2' => "SELECT t.put('bulk', 's' || nextval('t.bulk'), 1);\n", '009_take@2' => "SELECT t.take('bulk', 4);\n" });
	is(($a->finish)[0], '', "$five messages sent");
	one($node, "SET statement_timeout = '60s'; SELECT t.put('bulk', 'z', 10)");
	ok(poll_until("others' messages", sub {
		one($node, "SET statement_timeout = '60s'; SELECT t.take('bulk', 1000)");
		one($node, "SELECT count(*) - (SELECT count(*) FROM t.done WHERE q = 'bulk') FROM t.sent WHERE q = 'bulk'") eq '0';
	}), "others' messages all arrive while the bulk sender is open") or diag(settle_text($node, 'bulk'));
	flows('while it is open');
	diag('bulk sender open: ' . settle_text($node, 'bulk'));
	$a->q('COMMIT');
	$a->close;
	collect_ok('bulk', $five, 'the bulk');
	ledger_ok($node, 'bulk', "the bulk: the others' ledger");
	one($node, "SELECT mq.drop_queue('bulk', force => true); TRUNCATE t.got");
}

# --- a million leased and never acked ------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('leased'); SELECT t.numbers('leased', 1, $million)");
	my $got = 0;
	for (1 .. 120)
	{
		my $n = one($node, "SET statement_timeout = '60s'; WITH m AS (SELECT * FROM mq.receive('leased', max_messages => 10000, visibility_timeout => '1 hour')), i AS (INSERT INTO t.held SELECT 'leased', receipt, payload::bigint FROM m RETURNING 1) SELECT count(*) FROM i");
		$got += $n;
		last if $n == 0;
	}
	cmp_ok($got, '>', 0, "leased $got of $million and never acked");
	diag('leased: ' . settle_text($node, 'leased'));
	if ($got < $million) { cmp_ok(one($node, "SELECT held_back FROM mq.groups WHERE queue = 'leased'"), '>', 0, 'mq.groups.held_back says that hand-outs were given up'); }
	is(one($node, "SELECT count(*) - count(DISTINCT i) FROM t.held"), '0', 'each was leased once');
	flows('while they are leased');
	is(sqlstate($node, "SELECT t.put('leased', 'late', 10)"), '', 'sends to the same queue work');
	# every other one acked, as far as there is room for so fine a pattern: a call is refused whole, with a clear error
	my ($n, $refused) = split /\|/, one($node, "CALL t.finish('i % 2 = 0', 1000, NULL, NULL)");
	like($refused // '', qr/^(53200)?$/, "every other one of $n acked" . ($refused ? ', then refused whole' : ''));
	cmp_ok($n, '>', 0, 'there is room for some');
	# from the front it always goes, and makes room
	my $reached = one($node, 'SELECT max(i) FROM t.got');
	is(one($node, "CALL t.finish('NOT EXISTS (SELECT FROM t.got g WHERE g.i = h.i) AND h.i <= $reached', 100, NULL, NULL)") =~ /\|(.*)$/ ? $1 : '?', '', 'acks from the front always go');
	flows('after that');
	$node->kill9;
	mq_start_again($node);
	# the leases are gone with the crash; the acked ones stay acked
	collect_ok('leased', $million, 'a million leased, half acked, kill -9');
	one($node, "SELECT mq.drop_queue('leased', force => true); TRUNCATE t.got; TRUNCATE t.held");
}

# --- the finest pattern: single acks all over the place ---------------------------------------------------------------------------
{
	my $n = scaled(200_000);
	one($node, "SELECT mq.create_queue('fine'); SELECT t.numbers('fine', 1, $n)");
	my $state = sqlstate($node, <<'SQL');
SET statement_timeout = '120s';
DO $$
DECLARE n int;
BEGIN
	LOOP
		WITH m AS MATERIALIZED (SELECT receipt, payload::bigint AS i FROM mq.receive('fine', max_messages => 1000, visibility_timeout => '1 hour')),
			 k AS (INSERT INTO t.held SELECT 'fine', receipt, i FROM m WHERE i % 2 = 1),
			 g AS (INSERT INTO t.got SELECT 'fine', i FROM m WHERE i % 2 = 0)
		SELECT count(mq.ack(receipt)) INTO n FROM m WHERE i % 2 = 0;
		COMMIT;
		EXIT WHEN n = 0;
	END LOOP;
END $$;
SQL
	is($state, '', 'received by the thousand, every other one acked singly');
	diag('fine: ' . settle_text($node, 'fine') . '; acked ' . one($node, "SELECT count(*) FROM t.got"));
	flows('then');
	is(sqlstate($node, "SELECT mq.release_batch(r) FROM (SELECT array_agg(receipt) AS r FROM (SELECT receipt, row_number() OVER (ORDER BY i) / 500 AS p FROM t.held) x GROUP BY p ORDER BY p) y"), '', 'the others are released, 500 at a time');
	collect_ok('fine', $n, 'the finest pattern');
	one($node, "SELECT mq.drop_queue('fine', force => true); TRUNCATE t.got; TRUNCATE t.held");
}

# --- a million nacked far ahead ----------------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('nacked'); SELECT t.numbers('nacked', 1, $million)");
	my $sum = 0;
	for (1 .. 120)
	{
		my $n = one($node, "SET statement_timeout = '60s'; SELECT count(*) FROM (SELECT array_agg(receipt) AS r, count(*) AS n FROM mq.receive('nacked', max_messages => 10000, visibility_timeout => '1 hour') HAVING count(*) > 0) m, LATERAL (SELECT mq.nack_batch(m.r, '1 hour') OFFSET 0) x, generate_series(1, m.n)");
		$sum += $n;
		last if $n == 0;
	}
	cmp_ok($sum, '>', 0, "nacked $sum of $million far ahead");
	diag('nacked: ' . settle_text($node, 'nacked'));
	cmp_ok(one($node, "SELECT held_back FROM mq.groups WHERE queue = 'nacked'"), '>', 0, 'mq.groups.held_back says so') if $sum < $million;
	flows('while they wait');
	my $s = session($node);
	is($s->try("SET statement_timeout = '20s'; SELECT count(*) FROM mq.receive('nacked', max_messages => 10)"), '', 'a receive there does not hang');
	$s->close;
	# each is unfinished, once
	is(one($node, "CALL t.discard_all('nacked', NULL)"), $million, 'every one of them is still unfinished');
	is(one($node, "SELECT count(*) FROM mq.receive('nacked', max_messages => 10)"), '0', 'discarded');
	one($node, "SELECT mq.drop_queue('nacked')");
}

# --- memory full: a consumer with a name is served too, else nothing would be acked and memory never got free ----------------------
{
	my $n = 60_000;               # what fills 1 MB, whatever the scale
	one($node, "SELECT mq.create_queue('named'); SELECT t.numbers('named', 1, $n)");
	one($node, "INSERT INTO t.held SELECT 'named', receipt, payload::bigint FROM mq.receive('named', max_messages => $n, visibility_timeout => '1 hour')");
	# a block in front, then every other message: a cell for each, until there is none to cut one more off the block
	one($node, <<'SQL');
CREATE PROCEDURE t.fill_memory() LANGUAGE plpgsql AS $$
DECLARE c record;
BEGIN
	PERFORM mq.nack_batch((SELECT array_agg(receipt) FROM t.held WHERE i <= 1000));
	FOR c IN SELECT array_agg(receipt) AS r FROM t.held WHERE i > 1000 AND i % 2 = 0 GROUP BY i / 200 ORDER BY i / 200 LOOP
		PERFORM mq.nack_batch(c.r);
		EXIT WHEN (SELECT count(*) = 0 FROM mq.receive('named', max_messages => 1, visibility_timeout => '1 hour'));
	END LOOP;
END $$;
SQL
	one($node, "CALL t.fill_memory()");
	is(one($node, "SELECT held_back > 0 AND ready + retrying > 1000 FROM mq.groups WHERE queue = 'named'"), 't', 'a message that would need a cell is held back: memory is full') or diag(settle_text($node, 'named'));
	my $take = sub { my ($count, $who) = @_; return one($node, "SET statement_timeout = '20s'; SELECT count(*) FROM mq.receive('named', max_messages => $count, consumer => '$who', visibility_timeout => '1 hour')"); };
	is($take->(1100, 'a'), '1100', 'what needs none goes to a consumer with a new name');
	is($take->(1, 'a'), '1', 'with one that is known');
	is($take->(100, 'b'), '100', 'and with another');
	is(one($node, "SELECT string_agg(consumer || ' ' || n, ', ' ORDER BY consumer) FROM (SELECT consumer, count(*) AS n FROM mq.in_flight WHERE queue = 'named' AND consumer IS NOT NULL GROUP BY 1) x"), 'a 1101, b 100', 'each under its name');
	is(one($node, "SELECT count(*) FROM mq.pop('named', max_messages => 100, consumer => 'c')"), '100', 'pop too');
	flows('then');
	one($node, "SELECT mq.drop_queue('named', force => true); TRUNCATE t.held");
}

# --- different delays: a window that cannot be kept as ranges ------------------------------------------------------------------------
{
	my $n = scaled(100_000);
	one($node, "SELECT mq.create_queue('delays'); SELECT t.numbers('delays', 1, $n)");
	my $t0 = time();
	my $state = sqlstate($node, <<'SQL');
SET statement_timeout = '120s';
DO $$
DECLARE r record; n int;
BEGIN
	LOOP
		n := 0;
		FOR r IN SELECT receipt FROM mq.receive('delays', max_messages => 1000, visibility_timeout => '1 hour') LOOP
			n := n + 1;
			PERFORM mq.nack(r.receipt, random() * interval '3 s' + interval '2 s');
		END LOOP;
		COMMIT;
		EXIT WHEN n = 0;
		EXIT WHEN (SELECT held_back > 0 FROM mq.groups WHERE queue = 'delays');
	END LOOP;
END $$;
SQL
	like($state, qr/^(53200)?$/, 'each nacked with its own delay' . ($state ? ', until the group has its share of the memory' : ''));
	flows('then');
	collect_ok('delays', $n, 'different delays');
	one($node, "SELECT mq.drop_queue('delays', force => true); TRUNCATE t.got");
}

ledger_ok($node, 'free', 'the other queue: ledger');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal (?!9)/, 'no PANIC, no failed assertion in the log');
$node->stop;

# --- no slot left -------------------------------------------------------------------------------------------------------------------------
{
	my $n2 = mq_node('slots', conf => "mq.max_queues = 16\nmq.max_groups = 16\n");
	one($n2, "SELECT mq.create_queue('q' || i) FROM generate_series(1, 16) i");
	# memory is taken at the first use
	one($n2, "SELECT t.put('q$_', 'first', 2); SELECT t.take('q$_', 1)") for 1 .. 16;
	my $e = err($n2, "SELECT mq.create_queue('q17'); SELECT mq.send('q17', '1')");
	like($e, qr/53400|54000/, 'mq.max_queues reached: 53400 or 54000');
	like($e, qr/mq\.max_(queues|groups)/, 'the error names the setting');
	isnt(sqlstate($n2, "SELECT mq.send('q17', '1')"), '', 'and the queue cannot be used');
	$n2->psql('postgres', "SELECT mq.drop_queue('q17', force => true)", stderr => \my $never_made);
	one($n2, "SELECT t.put('q$_', 'm', 5)") for 1 .. 16;
	is(sqlstate($n2, "SELECT mq.drop_queue('q2', force => true)"), '', 'one dropped');
	ok(poll_until('slot', sub { sqlstate($n2, "SELECT mq.create_queue('q17')") eq '' }), 'a slot is free again');
	one($n2, "BEGIN; SELECT mq.drop_queue('q17'); SELECT mq.create_queue('q17'); ROLLBACK");
	one($n2, "SELECT t.put('q17', 'm', 5)");
	# create and roll back many times: no slot leaks
	one($n2, "SELECT mq.drop_queue('q17', force => true)");
	my $leak = 0;
	for my $i (1 .. 6)
	{
		my $state = '';
		poll_until('slot', sub { ($state = sqlstate($n2, "BEGIN; SELECT mq.create_queue('r$i'); SELECT mq.send('r$i', '1'); SELECT count(*) FROM mq.receive('r$i'); ROLLBACK")) eq '' }, 20) or do { $leak++; diag("round $i: $state"); last; };
	}
	is($leak, 0, 'create + rollback leaks no slot');
	ledger_ok($n2, "q$_", "q$_: ledger") for 1, 3, 16;
	$n2->restart;
	ok(poll_until('slot', sub { sqlstate($n2, "SELECT mq.create_queue('last')") eq '' }, 20), 'after a restart too');
	$n2->stop;
}

# --- disk full ------------------------------------------------------------------------------------------------------------------------------
# A preloaded C library makes writes that would grow a file below base/ fail with ENOSPC while a file says so.
SKIP:
{
	my $tmp = PostgreSQL::Test::Utils::tempdir();
	my $cc = $ENV{CC} || 'cc';
	PostgreSQL::Test::Utils::append_to_file("$tmp/full.c", <<'C');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* would this write grow a relation file while the disk is "full"? */
static int full(int fd, off_t offset, size_t n)
{
	const char *flag = getenv("MQ_FULL");
	char link[64], path[4096];
	struct stat st;
	ssize_t len;

	if (flag == NULL || access(flag, F_OK) != 0)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	if ((len = readlink(link, path, sizeof path - 1)) < 0)
		return 0;
	path[len] = 0;
	if (strstr(path, "/base/") == NULL || fstat(fd, &st) != 0)
		return 0;
	return (off_t) (offset + n) > st.st_size;
}

static size_t sum(const struct iovec *v, int n) { size_t s = 0; for (int i = 0; i < n; i++) s += v[i].iov_len; return s; }
#define NEXT(name, type) static type next; if (next == NULL) next = (type) dlsym(RTLD_NEXT, name)
#define REFUSE(fd, off, n) if (full(fd, off, n)) { errno = ENOSPC; return -1; }

typedef ssize_t (*pw) (int, const void *, size_t, off_t);
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { NEXT("pwrite", pw); REFUSE(fd, o, n); return next(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off_t o) { NEXT("pwrite64", pw); REFUSE(fd, o, n); return next(fd, b, n, o); }
typedef ssize_t (*pwv) (int, const struct iovec *, int, off_t);
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t o) { NEXT("pwritev", pwv); REFUSE(fd, o, sum(v, n)); return next(fd, v, n, o); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off_t o) { NEXT("pwritev64", pwv); REFUSE(fd, o, sum(v, n)); return next(fd, v, n, o); }
typedef int (*fal) (int, off_t, off_t);
int posix_fallocate(int fd, off_t o, off_t n) { NEXT("posix_fallocate", fal); if (full(fd, o, n)) return ENOSPC; return next(fd, o, n); }
int posix_fallocate64(int fd, off_t o, off_t n) { NEXT("posix_fallocate64", fal); if (full(fd, o, n)) return ENOSPC; return next(fd, o, n); }
C
	my $made = system("$cc -O1 -shared -fPIC -o '$tmp/full.so' '$tmp/full.c' -ldl >'$tmp/full.log' 2>&1") == 0;
	skip 'no C compiler for the full-disk library', 1 if !$made;

	local $ENV{LD_PRELOAD} = "$tmp/full.so";
	local $ENV{MQ_FULL} = "$tmp/full";
	my $n3 = mq_node('full', fsync => 1, conf => "autovacuum = off\nmq.offset_log_size = '64kB'\nmq.drop_delay = 0\n");
	local $ENV{LD_PRELOAD} = '';
	my $fill = sub { PostgreSQL::Test::Utils::append_to_file("$tmp/full", "1\n") };
	my $free = sub { unlink "$tmp/full" };
	one($n3, "SELECT mq.create_queue('d', options => jsonb_build_object('segment_size', 4096)); SELECT t.put_batch('d', 'a', 3000); SELECT t.take('d', 200)");
	# all relations that tests write have a little room; the ledger tables are the test's own
	$fill->();
	my $big = sqlstate($n3, "SELECT mq.send('d', body => decode(repeat('00ff', 400000), 'hex'))");
	# compressible or not: a body of 800 kB needs new pages
	is(sqlstate($n3, "SELECT mq.send('d', body => (SELECT string_agg(decode(md5(i::text), 'hex'), '') FROM generate_series(1, 50000) i))"), '53100', 'disk full: a big send says 53100');
	my ($state, $sent) = ('', 0);
	for my $i (1 .. 3000) { $state = sqlstate($n3, "SELECT mq.send_batch('d', array_fill('\"never\"'::jsonb, ARRAY[2000]))"); last if $state ne ''; $sent++; last if $sent > 20; }
	is($state, '53100', 'disk full: a batch says 53100');
	# leases need no disk
	my @r = split /\n/, one($n3, "SELECT receipt FROM mq.receive('d', max_messages => 1000, visibility_timeout => '1 hour')");
	is(scalar @r, 1000, 'disk full: receive works, it writes nothing');
	# acks until the offset log's page is full; what was refused is not acked
	my (@ok, @no);
	for my $i (0 .. $#r)
	{
		$state = sqlstate($n3, "SELECT mq.ack('$r[$i]')");
		$state eq '' ? push(@ok, $r[$i]) : push(@no, $r[$i]);
		last if @no >= 3;
	}
	cmp_ok(scalar @no, '>', 0, 'disk full: an ack that cannot be written is refused (' . scalar(@ok) . ' found room)');
	is($state, '53100', 'with 53100') if @no;
	is(sqlstate($n3, "SELECT mq.nack('$r[-1]')"), '', 'nack needs no disk');
	is(sqlstate($n3, "SELECT mq.release('$r[-2]')"), '', 'nor does release');
	is(one($n3, "SELECT leased FROM mq.groups WHERE queue = 'd'"), 1000 - @ok - 2, 'what was refused is leased as before');
	$free->();
	my $bad = 0;
	for my $x (@no) { $bad++ if sqlstate($n3, "SELECT mq.ack('$x')") ne ''; }
	is($bad, 0, 'with room again the same receipts ack');
	my $list = join ',', map { "'$_'" } @ok, @no;
	is(sqlstate($n3, "SELECT mq.ack('$ok[0]')"), 'MQ001', 'what was acked is acked') if @ok;

	# the worker: checkpoints and segments while the disk is full, then a crash
	one($n3, "SELECT mq.create_queue('e', options => jsonb_build_object('segment_size', 1024)); SELECT t.put_batch('e', 'a', 3000)");
	one($n3, "SELECT t.take('e', 1)") for 1 .. 30;
	$fill->();
	my $acked = 0;
	for my $i (1 .. 400)
	{
		# the test's own ledger cannot grow either: transactions that fail, fail whole
		$n3->psql('postgres', "SELECT t.take('e', 2)", stderr => \my $err);
		if ($err ne '') { is($err =~ /No space left/ ? 1 : 0, 1, 'a transaction that needs room fails whole') or diag($err); last; }
		$acked++;
	}
	ok(poll_until('the worker is there', sub { one($n3, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker'") eq '1' }), 'the worker survives or comes back');
	$free->();
	one($n3, "SELECT t.put_batch('e', 'b', 1500); SELECT t.take('e', 100)");
	$fill->();
	$n3->psql('postgres', "SELECT t.take('e', 50)", stderr => \my $ignored) for 1 .. 5;
	$n3->kill9;
	$free->();
	{
		local $ENV{LD_PRELOAD} = "$tmp/full.so";
		mq_start_again($n3);
	}
	one($n3, "SELECT t.put('e', 'c', 10)");
	ledger_ok($n3, 'e', 'disk full, then kill -9: ledger');
	$n3->stop;
}

done_testing();
