# A queue's name is the tenant's choice, and comes back in a restore without the data of mq_internal: making the queue again must
# run no SQL out of it.  (mq.create_queue takes the empty table over, as the owner of the extension.)
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('escalation', conf => "mq.drop_delay = 0\n");
# 48 bytes are enough: "mq."q_" becomes a "char", and that an integer, so that the statement in front of it works
my $name = q{'::pg_catalog.char::int;CALL m.p()--};
my @harmless = (q{it's}, q{'}, q{a'b'c}, q{back\\slash}, q{q"uo'te}, "new'\nline");

one($node, 'CREATE ROLE m LOGIN; CREATE SCHEMA m AUTHORIZATION m; GRANT EXECUTE ON FUNCTION mq.create_queue TO m');
my $m = session($node, user => 'm');
$m->q(<<'SQL');
CREATE PROCEDURE m.p() LANGUAGE plpgsql AS $$
DECLARE leaf regclass;
BEGIN
	RAISE WARNING 'it runs as %', current_user;
	FOR leaf IN SELECT inhrelid FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relname ~ '^s_' LOOP EXECUTE format('DROP TABLE %s CASCADE', leaf); END LOOP;
	ALTER ROLE m SUPERUSER;
END $$;
SQL
is($m->try("SELECT mq.create_queue(\$n\$$_\$n\$)"), '', "queue $_") for $name, @harmless;
$m->close;
one($node, 'CREATE DATABASE restored');
my $dump = $node->data_dir . '/../d.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '--exclude-table-data=mq_internal.*', $node->connstr('postgres') ], 'a dump without the data of mq_internal');
$node->command_ok([ 'psql', '-XAtq', '-f', $dump, $node->connstr('restored') ], 'restored');
is(one($node, 'SELECT count(*) FROM mq_internal.queue', 'restored'), '0', 'no definition');
for my $n (@harmless, $name)
{
	is(sqlstate($node, "SET ROLE m; SELECT mq.create_queue(\$n\$$n\$n\$)", db => 'restored'), '', "made again: $n");
	is(one($node, "SELECT rolsuper FROM pg_roles WHERE rolname = 'm'"), 'f', 'and m is no superuser');
}
$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/it runs as|TRAP: |PANIC|signal (?:6|7|8|11)/, 'nothing ran as somebody else');
done_testing();
