# An upgrade script that makes functions anew keeps who may call them: tried with a made-up version 0.1.1.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('upgrade', install => 0);

# the scripts of this build, and one more that leads on from them
chomp(my $share = `pg_config --sharedir`);
chomp(my $lib = `pg_config --pkglibdir`);
my $path = one($node, "SELECT coalesce(nullif(current_setting('extension_destdir', true), ''), current_setting('extension_control_path', true))");
my $installed = $path =~ /^([^:]+?)(?:\Q$share\E)?(?::|$)/ ? $1 : die "no stage in $path";
my $stage = $node->basedir . '/stage';
mkdir $stage;
system("mkdir -p '$stage$share/extension' '$stage$lib' && cp '$installed$share/extension/'mq* '$stage$share/extension/' && ln -s '$installed$lib/mq.so' '$stage$lib/'") == 0 or die 'copy';
append_to_file("$stage$share/extension/mq--0.1.0--0.1.1.sql", <<'SQL');
-- an argument more for every function: the old one makes room for the new one, which gets its privileges
DO $$
DECLARE f record;
BEGIN
	FOR f IN SELECT oid::regprocedure AS was, proname, pg_get_function_arguments(oid) AS arguments, pg_get_function_result(oid) AS result, prosrc, prokind, ' /* ' || proname || ' */' AS mark
			FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND prokind = 'f' AND pronargs > pronargdefaults
	LOOP
		EXECUTE format('CREATE FUNCTION mq.%I(%s, later integer DEFAULT NULL) RETURNS %s LANGUAGE c VOLATILE PARALLEL UNSAFE AS %L, %L',
			f.proname, f.arguments, f.result, 'MODULE_PATHNAME', f.prosrc);
		PERFORM mq_internal.pass_on_privileges(f.was, oid) FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND proname = f.proname AND oid <> f.was;
		EXECUTE format('DROP FUNCTION %s', f.was);
	END LOOP;
END $$;
SQL
$node->append_conf('postgresql.conf', one($node, "SELECT current_setting('extension_destdir', true) IS NOT NULL") eq 't'
	? "extension_destdir = '$stage'" : "extension_control_path = '$stage$share:\$system'");
$node->restart;

my $acls = "SELECT string_agg(format('%s: %s', proname, (SELECT string_agg(format('%s %s %s', coalesce(g.rolname, 'public'), a.privilege_type, a.is_grantable), ', ' ORDER BY 1)
	FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) a LEFT JOIN pg_roles g ON g.oid = a.grantee)), E'\\n' ORDER BY proname)
	FROM pg_proc WHERE pronamespace = 'mq'::regnamespace";
one($node, <<'SQL');
CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE carol;
CREATE EXTENSION mq VERSION '0.1.0';
GRANT EXECUTE ON FUNCTION mq.create_queue TO alice WITH GRANT OPTION;
SET ROLE alice; GRANT EXECUTE ON FUNCTION mq.create_queue TO bob; RESET ROLE;
REVOKE ALL ON FUNCTION mq.send FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mq.send TO bob;
-- who makes it anew would give it away
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO carol;
SQL
is(sqlstate($node, "SELECT mq_internal.pass_on_privileges(a.oid, b.oid) FROM pg_proc a, pg_proc b WHERE a.proname = 'drop_queue' AND b.proname = 'create_queue' AND b.pronamespace = 'mq'::regnamespace"), '42501', 'only a script passes privileges on');
my $before = one($node, $acls);
one($node, "ALTER EXTENSION mq UPDATE TO '0.1.1'");
is(one($node, "SELECT extversion FROM pg_extension WHERE extname = 'mq'"), '0.1.1', 'upgraded');
is(one($node, "SELECT bool_and(pg_get_function_arguments(oid) ~ 'later integer') FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND prokind = 'f'"), 't', 'every function was made anew');
is(one($node, $acls), $before, 'with the privileges it had');
is(one($node, "SELECT has_function_privilege('public', oid, 'EXECUTE') FROM pg_proc WHERE proname = 'create_queue' AND pronamespace = 'mq'::regnamespace"), 'f', 'PUBLIC did not get create_queue back');
is(one($node, "SELECT count(*) FROM pg_shdepend d, pg_proc p WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND p.pronamespace = 'mq'::regnamespace AND d.deptype = 'a' AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"),
	'3', 'and roles that have privileges are on record');
one($node, "REVOKE ALL ON FUNCTION mq.create_queue FROM alice CASCADE; DROP ROLE alice");
is(one($node, "SELECT has_function_privilege('bob', oid, 'EXECUTE') FROM pg_proc WHERE proname = 'create_queue' AND pronamespace = 'mq'::regnamespace"), 'f', 'who gave it is known, too');
$node->stop;
done_testing();
