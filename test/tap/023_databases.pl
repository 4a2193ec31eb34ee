# Commands that need a database without anybody in it: whoever PostgreSQL lets do them stops the worker, nobody else does.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('databases', conf => "max_worker_processes = 20\n");
one($node, "CREATE ROLE ci LOGIN CREATEDB; CREATE ROLE owner_a LOGIN; CREATE ROLE owner_b LOGIN CREATEDB; CREATE ROLE nobody LOGIN");
one($node, "CREATE DATABASE $_") for qw(tmpl private of_a of_b of_ci);
one($node, "CREATE EXTENSION mq; SELECT mq.create_queue('q')", $_) for qw(tmpl private of_a of_b of_ci);
one($node, "ALTER DATABASE tmpl IS_TEMPLATE true; ALTER DATABASE of_a OWNER TO owner_a; ALTER DATABASE of_b OWNER TO owner_b; ALTER DATABASE of_ci OWNER TO ci");

sub worker { my ($db) = @_; return one($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = '$db'"); }
my %pid;
for my $db (qw(tmpl private of_a of_b of_ci))
{
	ok(poll_until("the worker of $db", sub { $pid{$db} = worker($db) }), "$db has a worker");
}
sub as { my ($user, $sql) = @_; return sqlstate($node, $sql, params => [ '-U', $user ]); }
# refused, or not in need of the database alone: the worker stays
sub stays
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($state, $user, $db, $sql) = @_;
	is(as($user, $sql), $state, "$user: $sql: " . ($state || 'works'));
	return is(worker($db), $pid{$db}, '... and the worker is the same');
}

# --- attacks ---------------------------------------------------------------------------------------------------------------------
stays('42501', 'nobody', 'tmpl', 'CREATE DATABASE x TEMPLATE tmpl');
stays('42501', 'owner_a', 'of_a', 'CREATE DATABASE x TEMPLATE of_a');
stays('42501', 'owner_a', 'of_a', 'ALTER DATABASE of_a RENAME TO x');
stays('42501', 'ci', 'private', 'CREATE DATABASE x TEMPLATE private');
stays('42501', 'ci', 'private', 'ALTER DATABASE private RENAME TO x');
stays('42501', 'ci', 'private', 'ALTER DATABASE private SET TABLESPACE pg_default');
stays('42501', 'ci', 'private', 'DROP DATABASE private');
stays('42501', 'ci', 'tmpl', 'DROP DATABASE tmpl');
stays('42501', 'nobody', 'private', 'DROP DATABASE private WITH (FORCE)');

# --- what does not need the database alone ------------------------------------------------------------------------------------------
stays('', 'owner_a', 'of_a', $_) for 'ALTER DATABASE of_a CONNECTION LIMIT 20', 'ALTER DATABASE of_a ALLOW_CONNECTIONS true',
	'ALTER DATABASE of_a WITH IS_TEMPLATE false', "ALTER DATABASE of_a SET work_mem = '8MB'";
stays('', 'owner_b', 'of_b', 'ALTER DATABASE of_b OWNER TO owner_b');

# --- who may do it ---------------------------------------------------------------------------------------------------------------
is(as('ci', 'CREATE DATABASE copy TEMPLATE tmpl'), '', 'a role with CREATEDB copies a template whose worker is there');
is(one($node, "SELECT count(*) FROM mq.queues", 'copy'), '1', 'and has its queues');
is(as('ci', 'CREATE DATABASE copy2 TEMPLATE of_ci'), '', 'and a database of its own');
is(as('owner_b', 'ALTER DATABASE of_b RENAME TO of_bb'), '', 'the owner renames');
one($node, "SET allow_in_place_tablespaces = on; CREATE TABLESPACE there LOCATION ''");
one($node, 'GRANT CREATE ON TABLESPACE there TO owner_a');
is(as('owner_a', 'ALTER DATABASE of_a SET TABLESPACE there'), '', 'the owner moves to another tablespace');
is(sqlstate($node, 'DROP DATABASE private'), '', 'a superuser drops');
ok(poll_until('the worker', sub { worker('tmpl') }), 'the worker of the template comes back');
is(as('owner_b', 'DROP DATABASE of_bb'), '', 'the owner drops');
done_testing();
