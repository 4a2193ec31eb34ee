# Somebody's event trigger alters each new table, also those that mq makes later: what can be undone is, the rest is not made, and
# the reason is said once, with a hint that can be followed.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use PostgreSQL::Test::Utils;
use MqTest;

my $node = mq_node('triggers', conf => "mq.segment_wait = '3 s'\nmq.drop_delay = 0\nmq.offset_log_size = 64kB\n");
one($node, "CREATE FUNCTION t.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
my %what = (
	'row level security' => 'ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
	'other columns' => 'ALTER TABLE %s ADD COLUMN made_by text DEFAULT current_user',
	'a check constraint' => 'ALTER TABLE %s ADD CONSTRAINT theirs CHECK (true)',
	'an index' => 'CREATE INDEX ON %s ((1))',
	'a trigger' => 'CREATE TRIGGER theirs BEFORE INSERT ON %s FOR EACH STATEMENT EXECUTE FUNCTION t.nothing()');

sub event_trigger
{
	my ($do) = @_;
	one($node, <<SQL);
CREATE OR REPLACE FUNCTION t.alter_new() RETURNS event_trigger LANGUAGE plpgsql AS \$\$
DECLARE r record;
BEGIN
	FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' AND schema_name LIKE 'mq%' LOOP
		EXECUTE format('$do', r.object_identity);
	END LOOP;
END \$\$;
CREATE EVENT TRIGGER alter_new ON ddl_command_end EXECUTE FUNCTION t.alter_new();
SQL
	return;
}
sub no_event_trigger { one($node, 'DROP EVENT TRIGGER alter_new'); return; }
my $from = 0;
sub lines { my ($re) = @_; return scalar grep { /$re/ } split /^/m, substr(slurp_file($node->logfile), $from); }

my $hint = qr/55000: (?:table|segment).*HINT:.*event trigger/s;
for my $kind (sort keys %what)
{
	my $q = 'after_' . ($kind =~ tr/ /_/r);
	# first the queue, then the trigger
	one($node, "SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', 1024))");
	one($node, "SELECT t.put('$q', 'm', 1)");
	poll_until('segments ahead', sub { one($node, "SELECT max(last_id) FROM mq.segments WHERE queue = '$q'") > 2048 });
	my $had = one($node, "SELECT max(last_id) FROM mq.segments WHERE queue = '$q'");
	$from = -s $node->logfile;
	event_trigger($what{$kind});
	if ($kind eq 'row level security')
	{
		is(sqlstate($node, "SELECT mq.create_queue('before')"), '', "$kind: a queue can be made");
		is(sqlstate($node, "SELECT t.put_batch('before', 'm', 10)"), '', '... and used');
		is(sqlstate($node, "SELECT t.put_batch('$q', 'm$_', 1000)"), '', "$kind: the worker takes it off") for 1 .. 5;
		is(lines(qr/ERROR:/), 0, '... and has nothing to say');
	}
	else
	{
		like(err($node, "SELECT mq.create_queue('before_$q')"), $hint, "$kind: a queue is refused, with a hint");
		# into the last segment but one: the worker wants the next one long before a sender does
		one($node, "SELECT t.put_batch('$q', 'm', 1300)");
		ok(poll_until('a word', sub { lines(qr/ERROR:.*has $kind/) > 1 && lines(qr/HINT:.*event trigger/) > 1 }), "$kind: the worker says what is wrong before anybody needs the partition, with the hint");    # the other one is create_queue's
		is(sqlstate($node, "SELECT t.put_batch('$q', 'm', 5000)"), '55000', '... senders at the end of the last one fail');
		is(one($node, "SELECT max(last_id) FROM mq.segments WHERE queue = '$q'"), $had, '... nothing was made');
		is(lines(qr/ERROR:.*has $kind/), 2, '... it was said once');
	}
	no_event_trigger();
	is(sqlstate($node, "SELECT t.put_batch('$q', 'x', 5000)"), '', "$kind: without the trigger all goes on");
	one($node, "SELECT mq.drop_queue('$q', force => true)");
}

# --- a table of the offset log ----------------------------------------------------------------------------------------------------
{
	one($node, "SELECT mq.create_queue('ring')");
	one($node, 'CREATE PROCEDURE t.pops(n int) LANGUAGE plpgsql AS $$ BEGIN PERFORM mq.send_batch(\'ring\', array_fill(\'1\'::jsonb, ARRAY[n])); FOR i IN 1 .. n LOOP PERFORM mq.pop(\'ring\'); COMMIT; END LOOP; END $$');
	one($node, "SELECT mq.send('ring', '0')");
	one($node, "BEGIN; SELECT mq.pop('ring'); PREPARE TRANSACTION 'holds'");
	my $tables = sub { return one($node, "SELECT count(*) FROM pg_class WHERE relname ~ '^consumer_offset_' AND relkind = 'r'"); };
	my $had = $tables->();
	$from = -s $node->logfile;
	event_trigger($what{'other columns'});
	ok(poll_until('a word', sub { one($node, 'SET synchronous_commit = off; CALL t.pops(500)'); lines(qr/ERROR:.*consumer_offset_\d+" has other columns/) }),
		'a table of the offset log that is altered as it is made is refused');
	is(sqlstate($node, 'SET synchronous_commit = off; CALL t.pops(500)'), '', 'acks go on in the old one');
	is($tables->(), $had, 'it was not made');
	no_event_trigger();
	ok(poll_until('a table', sub { one($node, 'SET synchronous_commit = off; CALL t.pops(100)'); $tables->() > $had }), 'without the trigger it is made');
	is(sqlstate($node, 'CALL t.pops(10)'), '', 'and used');
}

# --- one that refuses DROP: what is finished is emptied, and dropped when it may be --------------------------------------------------
{
	one($node, "SELECT mq.create_queue('stays', options => jsonb_build_object('segment_size', 1024))");
	one($node, "CREATE FUNCTION t.no_drop() RETURNS event_trigger LANGUAGE plpgsql AS \$f\$ BEGIN RAISE 'no DROP today'; END \$f\$; CREATE EVENT TRIGGER no_drop ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION t.no_drop()");
	one($node, "SELECT t.put_batch('stays', 'm', 3000); SELECT count(*) FROM mq.pop('stays', max_messages => 10000)");
	my $leaf = one($node, "SELECT min(segment_table::text) FROM mq.segments WHERE queue = 'stays' AND first_id = 0");
	ok(poll_until('the first partition to be emptied', sub { one($node, "SELECT pg_relation_size('$leaf')") eq '0' }), 'a finished partition that cannot be dropped is emptied');
	is(one($node, "SELECT t.put_batch('stays', 'n', 100); SELECT count(*) FROM mq.pop('stays', max_messages => 10000)"), "100\n100", 'the queue goes on');
	one($node, 'DROP EVENT TRIGGER no_drop');
	ok(poll_until('the first partition to be dropped', sub { one($node, "SELECT to_regclass('$leaf') IS NULL") eq 't' }, 120), 'and dropped when that works again');
}
done_testing();
