# Objects of a role without any right that depend on a queue by number and do not look like it: an alias that ends in the number,
# kinds of objects beside defaults and views, expressions of many megabytes, a column of a segment's row type; drop_group waits for
# none of them for long. Views leave out a queue that is dropped while they look.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;
use Time::HiRes qw(time);

my $node = mq_node('dependents_2', conf => "mq.drop_delay = 0\nfsync = off\nautovacuum = off\nsynchronous_commit = off\n");
one($node, 'CREATE ROLE alice LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO alice; CREATE ROLE bob LOGIN; CREATE SCHEMA bob AUTHORIZATION bob; GRANT CREATE ON DATABASE postgres TO bob');
my ($a, $b) = map { session($node, user => $_) } qw(alice bob);
my $n = 0;
$SIG{__DIE__} = sub { diag(@_) if !$^S; };

# a queue with two full segments; numbers of what belongs to the first
sub queue
{
	my $q = 'q' . ++$n;
	$a->q("SELECT mq.create_queue('$q', groups => '{default,other}', options => jsonb_build_object('segment_size', 1024))");
	$a->q("SELECT count(*) FROM mq.send_batch('$q', array_fill('1'::jsonb, ARRAY[1024]))") for 1 .. 2;
	my %oid;
	@oid{qw(leaf type rights)} = split /\|/, one($node, <<SQL);
SELECT concat_ws('|', c.oid, c.reltype, g.rights::oid) FROM mq.segments s JOIN pg_class c ON c.oid = segment_table
JOIN mq.groups g ON g.queue = s.queue AND g.consumer_group = 'other' WHERE s.queue = '$q' AND segment = 0
SQL
	return ($q, %oid);
}

sub finish { my ($q) = @_; $a->q("SELECT count(*) FROM mq.pop('$q', '$_', 100000)") for 'default', 'other'; return; }
sub gone { my ($what, $oid) = @_; return poll_until($what, sub { one($node, "SELECT count(*) FROM pg_class WHERE oid = $oid") eq '0' }, 20); }

# --- text that looks like a name ---------------------------------------------------------------------------------------------------
{
	my ($q, %oid) = queue();
	$b->q("CREATE VIEW bob.a$_ AS SELECT '$oid{$_}'::regclass AS \"x $oid{$_}\"") for qw(leaf rights);
	$b->q('BEGIN; ' . join '; ', map { "ALTER VIEW bob.a$_ SET (security_barrier = true)" } qw(leaf rights));
	finish($q);
	ok(gone('the segment to go', $oid{leaf}), 'an alias that ends in the number is no name: the segment goes');
	$a->q("SET statement_timeout = '10s'");
	is($a->try("SELECT mq.drop_group('$q', 'other', force => true)"), '', 'so does the group') or diag($a->{last_err});
	is($a->try("SELECT mq.drop_queue('$q')"), '', 'and the queue, without force') or diag($a->{last_err});
	$b->q('COMMIT');
	is($b->try('SELECT * FROM bob.aleaf; SELECT * FROM bob.arights'), '', 'the views stay');
}

# --- other kinds, all held by somebody -----------------------------------------------------------------------------------------------
{
	my ($q, %oid) = queue();
	my ($type, $leaf) = ("('$oid{type}'::regtype)::oid::int8", "('$oid{leaf}'::regclass)::oid::int8");
	my $deep = "'$oid{leaf}'::regclass::oid::int8" . ' + 1' x 1000;
	$b->q_with_type($_, $oid{type})
	  for "CREATE TABLE bob.k (i int, g int8 GENERATED ALWAYS AS (i + $leaf) STORED)", "CREATE INDEX ON bob.k ((i + $type))", "CREATE INDEX ON bob.k (i) WHERE i <> $leaf",
	  "CREATE TABLE bob.p (i int) PARTITION BY RANGE ((i + $type))", "CREATE FUNCTION bob.f() RETURNS int8 LANGUAGE sql RETURN $type",
	  "CREATE DOMAIN bob.o AS int8 DEFAULT $type CHECK (VALUE <> $leaf)", "CREATE PUBLICATION bob FOR TABLE bob.k WHERE (i <> $leaf)",
	  "CREATE RULE r AS ON UPDATE TO bob.k WHERE NEW.i <> $leaf DO INSTEAD NOTHING", "CREATE TABLE bob.deep (x int8 DEFAULT $deep)",
	  "CREATE FUNCTION bob.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
	  "CREATE TRIGGER t BEFORE UPDATE ON bob.k FOR EACH ROW WHEN (NEW.i <> $leaf) EXECUTE FUNCTION bob.t()";
	$b->q("BEGIN; LOCK TABLE bob.k, bob.p, bob.deep; ALTER FUNCTION bob.f() COST 2; COMMENT ON DOMAIN bob.o IS 'x'; ALTER PUBLICATION bob SET (publish = 'insert')");
	finish($q);
	ok(gone('the segment to go', $oid{leaf}), 'keys, generated columns, publications, rules, triggers, functions and domains keep no segment')
	  or diag one($node, "SELECT string_agg(pg_describe_object(classid, objid, objsubid), ', ') FROM pg_depend WHERE refobjid IN ($oid{leaf}, $oid{type}) AND deptype = 'n'");
	$b->q('COMMIT');
	is(one($node, "SELECT count(*) FROM pg_class WHERE relnamespace = 'bob'::regnamespace AND relname ~ '^(k_|k\$|p\$|deep)'"), '5', 'and are there when it is gone');
	$a->q("SELECT mq.drop_queue('$q', force => true)");
}

# --- a superuser's view that names a segment ------------------------------------------------------------------------------------------
{
	my ($q, %oid) = queue();
	my $name = one($node, "SELECT $oid{leaf}::regclass");
	one($node, "CREATE VIEW public.by_name AS SELECT 1 AS one, '$oid{leaf}'::regclass AS number FROM $name");
	finish($q);
	ok(gone('the segment to go', $oid{leaf}), 'a view that names a segment and has its number');
	is(one($node, "SELECT count(*) FROM pg_class WHERE relname = 'by_name'"), '0', 'goes with it');
	$a->q("SELECT mq.drop_queue('$q', force => true)");
}

# --- a column of a segment's row type, given by number in the protocol ---------------------------------------------------------------
{
	my ($q, %oid) = queue();
	is($b->try("SELECT '$oid{type}'::regtype"), '', 'the number of a row type is no secret');
	is(one($node, "SELECT has_type_privilege('bob', $oid{type}, 'USAGE')"), 'f', 'nobody can have a column of it');
	SKIP:
	{
		my $dir = $node->basedir;
		open my $f, '>', "$dir/typed.c" or die;
		print $f <<'C';
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
int main(int c, char **v) { Oid t = atoi(v[2]); const char *none[1] = {NULL}; PGconn *p = PQconnectdb(v[1]);
PGresult *r = PQexecParams(p, "CREATE TABLE bob.typed AS SELECT $1 AS x", 1, &t, none, NULL, NULL, 0);
printf("%s", PQresultStatus(r) == PGRES_COMMAND_OK ? "" : PQresultErrorField(r, PG_DIAG_SQLSTATE)); return c != 3; }
C
		close $f;
		chomp(my $include = `pg_config --includedir`);
		system("gcc -I'$include' -o '$dir/typed' '$dir/typed.c' -lpq 2>/dev/null") == 0 or skip 'no compiler, or no libpq', 1;
		local %ENV = $node->_get_env();
		is(`'$dir/typed' '@{[$node->connstr('postgres')]} user=bob' $oid{type}`, '42501', 'not by a parameter of that type either');
	}
	$a->q("SELECT mq.drop_queue('$q', force => true)");
}

# --- somebody drops what has the number of a group's sequence, and does not end --------------------------------------------------------
{
	my ($q, %oid) = queue();
	$b->q("CREATE TABLE bob.x (l text DEFAULT ('$oid{rights}'::regclass)::text)");
	$b->q('BEGIN; DROP TABLE bob.x');
	$a->q("SET statement_timeout = '30s'");
	is($a->try("SELECT mq.drop_group('$q', 'other', force => true)"), '55P03', 'drop_group does not wait for ever');
	like($a->{last_err}, qr/HINT:  Somebody has a lock on what depends on the group's sequence/, 'and says for whom it waits');
	$a->q("SET lock_timeout = '200ms'");
	is($a->try("SELECT mq.drop_group('$q', 'other', force => true)"), '55P03', 'no longer than lock_timeout, if there is one');
	is($a->try("SELECT mq.drop_queue('$q', force => true)"), '55P03', 'nor does drop_queue');
	like($a->{last_err}, qr/HINT:  Somebody has a lock on what depends/, 'which says so, too');
	$b->q('ROLLBACK');
	is($a->try("SELECT mq.drop_group('$q', 'other', force => true)"), '', 'when that is over the group goes');
	is(one($node, "SELECT count(*) FROM pg_class WHERE relname = 'x' AND relnamespace = 'bob'::regnamespace"), '1', 'without what has its number');
	is($a->try("SHOW lock_timeout; SELECT mq.drop_queue('$q', force => true)"), '', 'so does the queue');
	$a->q('RESET lock_timeout');
}

# --- expressions of many megabytes -----------------------------------------------------------------------------------------------------
{
	my ($q, %oid) = queue();
	$b->q("DO \$\$ BEGIN FOR i IN 1 .. 12 LOOP EXECUTE format('CREATE TABLE bob.h%s (x text DEFAULT (''$oid{leaf}''::regclass)::text || %L)', i, repeat('a', 40000000)); COMMIT; END LOOP; END \$\$");
	$b->q("DO \$\$ BEGIN FOR i IN 1 .. 100 LOOP EXECUTE format('CREATE TABLE bob.m%s (x text DEFAULT (''$oid{leaf}''::regclass)::text || %L)', i, repeat('a', 200000)); COMMIT; END LOOP; END \$\$");
	my $reads = one($node, "SELECT pg_size_pretty(sum(octet_length(adbin::text))) FROM pg_attrdef");
	finish($q);
	my ($longest, $end) = (0, time + 60);
	until (one($node, "SELECT count(*) FROM pg_class WHERE oid = $oid{leaf}") eq '0' || time > $end)
	{
		my $start = time;
		$a->q("SELECT count(*) FROM mq.send_batch('$q', array_fill('1'::jsonb, ARRAY[10])); SELECT mq.grant('$q', 'send', 'public')");
		$longest = time - $start if time - $start > $longest;
	}
	cmp_ok(time, '<', $end, "$reads of expressions have the number of a segment: it goes");
	cmp_ok($longest, '<', 2, 'and nobody waits for that to be read');
	$a->q("SELECT mq.drop_queue('$q', force => true)");
}

# --- a view while a queue is dropped -----------------------------------------------------------------------------------------------------
SKIP:
{
	skip 'no stop points in this build', 2 if !mq_stop_points($node);
	my $super = session($node);
	$a->q("RESET statement_timeout; SELECT mq.create_queue('stays'); SELECT mq.create_queue('goes')");
	$super->q("SET mq.stop_point = 'queues_listed:lock'");
	my $holder = session($node);
	$holder->q('SELECT pg_advisory_lock(77, 1)');
	$super->start("SELECT string_agg(queue, ' ') FROM mq.queues");
	ok(poll_until('the view to have its list', sub { $super->waits_on_lock($node) }, 20), 'the view has listed the queues');
	$a->q("SELECT mq.drop_queue('goes', force => true)");
	$holder->q('SELECT pg_advisory_unlock(77, 1)');
	my ($state, $queues) = $super->finish;
	is("$state $queues", ' stays', 'one that is dropped then is left out');
	$_->close for $super, $holder;
}
$_->close for $a, $b;
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP: |PANIC|signal (?:6|7|8|11)|ERROR:.*\n.*mq worker/, 'no assertion, no panic');
done_testing();
