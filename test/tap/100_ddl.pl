# mq.ddl: what it prints makes an equal queue in another database, for every option there is, whatever the names are.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('ddl', ladder => 1, conf => "mq.drop_delay = 3600\n");
one($node, 'CREATE DATABASE other');
one($node, 'CREATE EXTENSION mq', 'other');
one($node, "SELECT mq.create_queue('graves')", $_) for qw(postgres other);

my $queues = 0;
my $text = '';

# as one string: psql -c, a script and \gexec all run it
sub runs { my ($db, $sql) = @_; return one($node, "SELECT ''; $sql", $db); }

# The ddl of a queue here; in the other database it makes a queue with the same ddl, which is dropped again.
sub same
{
	my ($queue, $what, $settings) = @_;
	my $name = $queue =~ s/'/''/gr;
	$text = one($node, ($settings || '') . "SELECT mq.ddl('$name')");
	runs('other', $text);
	my $again = one($node, "SELECT mq.ddl('$name')", 'other');
	one($node, "SELECT mq.drop_queue('$name')", 'other');
	return is($again, $text, "$what: the same ddl there");
}

# ---------------------------------------------------------------------------------------------------------------------
# every option that can be given; the hint of the error tells which these are

my @samples = ('true', '7', '"1 min"', '"3 days 04:05:06.000007"', '123456', '2', '0.5', '["1 s", "2 days"]', '"graves"', '["a.*", "b.#"]', '"drop_oldest"', '"dead_letter"', '"move"', '"x"', '"$.payload.a == 1"',
	'null', 'false');
my @beside = ('', '"retention": "1 day", ', '"max_messages": 10, ', '"priorities": 3, ');

# A value of the option that is not its default: one that mq.ddl shows. Returns the queue.
sub make_with
{
	my ($option, $of_group) = @_;
	for my $beside ($of_group ? '' : @beside)
	{
		for my $sample (@samples)
		{
			my $queue = 'o' . ++$queues;
			my $options = "{$beside\"$option\": $sample}";
			next if index($beside, "\"$option\"") >= 0;
			my $state = sqlstate($node, $of_group ? "BEGIN; SELECT mq.create_queue('$queue', groups => '{}'); SELECT mq.create_group('$queue', 'g', options => '$options'); COMMIT"
				: "SELECT mq.create_queue('$queue', options => '$options')");
			next if $state ne '';
			return ($queue, $sample) if one($node, "SELECT mq.ddl('$queue')") =~ /"\Q$option\E": /;
		}
	}
	return;
}

for my $kind (['queue', "SELECT mq.create_queue('x', options => '[]')"], ['group', "SELECT mq.create_queue('h'); SELECT mq.create_group('h', 'x', options => '[]')"])
{
	my ($names) = err($node, $kind->[1]) =~ /HINT:  The options are (.*)\./;
	my @names = grep { !/^(owner|like)$/ } split /, /, $names;
	cmp_ok(scalar @names, '>=', 3, "the $kind->[0] has options: @names");
	for my $option (@names)
	{
		my ($queue, $sample) = make_with($option, $kind->[0] eq 'group');
		ok(defined $queue, "option $option: is shown where it is not the default") or next;
		same($queue, "option $option = $sample");
	}
}

# ---------------------------------------------------------------------------------------------------------------------
# none that is as by default, and what the settings of the session do not change

one($node, "SELECT mq.create_queue('plain')");
same('plain', 'defaults');
my $owner = one($node, 'SELECT current_user');
is($text, "SELECT mq.create_queue('plain', groups => '{}', options => '{\"owner\": \"$owner\"}');\nSELECT mq.create_group('plain', 'default', start => 'earliest');\n", 'no option that is as by default');
one($node, q{SELECT mq.alter_queue('plain', '{"retention": "1 year 2 days 03:04:05.5"}')});
for my $style ('postgres', 'sql_standard', 'iso_8601', 'postgres_verbose')
{
	same('plain', "IntervalStyle $style", "SET intervalstyle = '$style'; SET standard_conforming_strings = off; ");
	like($text, qr/"retention": "1 year 2 days 03:04:05.5"/, "IntervalStyle $style: an interval as anybody reads it");
}

# ---------------------------------------------------------------------------------------------------------------------
# names, rights, pauses

my $odd = q{it's "q" \\x -- {é} $1};
my $lit = $odd =~ s/'/''/gr;
one($node, <<"SQL");
CREATE ROLE "it's \\ a ""role""";
CREATE ROLE app;
CREATE ROLE tenant;
CREATE ROLE reader;
SELECT mq.create_queue('$lit', groups => array['g', '$lit', 'third'], options => jsonb_build_object('owner', 'tenant', 'closed', true));
SELECT mq.grant('$lit', 'send', E'it''s \\\\ a "role"'), mq.grant('$lit', 'browse', 'public'), mq.grant('$lit', 'manage', 'app'), mq.grant('$lit', 'send', 'app');
SELECT mq.grant('$lit', 'consume', E'it''s \\\\ a "role"', '$lit'), mq.grant('$lit', 'consume', 'app');
SELECT mq.revoke('$lit', 'send', 'tenant'), mq.revoke('$lit', 'consume', 'tenant', 'g');
SELECT mq.pause('$lit', 'third'), mq.pause('$lit');
SQL
same($odd, 'odd names');
like($text, qr/\Q$_\E/, "there is: $_") for 'SELECT mq.revoke(', "'send', 'tenant')", "'browse', 'public')", "'manage', 'app')", "'third');", '"owner": "tenant"', '"closed": true';
is(() = $text =~ /mq\.pause/g, 2, 'both pauses');
is(() = $text =~ /'consume', 'app'/g, 3, 'consume in three groups');
# what has the rights there: asked of PostgreSQL itself
runs('other', $text);
my $acl = "SELECT string_agg(format('%s %s', CASE WHEN grantee = 0 THEN 'public' ELSE pg_get_userbyid(grantee) END, privilege_type), ', ' ORDER BY grantee, privilege_type) FROM pg_class c, aclexplode(relacl) a WHERE relnamespace = 'mq'::regnamespace AND relname = 'q_$lit'";
is(one($node, $acl, 'other'), one($node, $acl), 'the ACL of the table is the same');
is(one($node, "SELECT paused, owner FROM mq.queues WHERE queue = '$lit'", 'other'), 't|tenant', 'paused, and its owner\'s');
is(one($node, "SELECT string_agg(consumer_group, ',' ORDER BY consumer_group) FROM mq.groups WHERE queue = '$lit'", 'other'), one($node, "SELECT string_agg(consumer_group, ',' ORDER BY consumer_group) FROM mq.groups WHERE queue = '$lit'"), 'the same groups');
one($node, "SELECT mq.drop_queue('$lit', true)", 'other');
# an ACL in another order
one($node, "SELECT mq.create_queue('order'); SELECT mq.grant('order', 'manage', 'tenant'), mq.grant('order', 'send', 'app'), mq.grant('order', 'browse', 'tenant'), mq.grant('order', 'browse', 'app')");
same('order', 'rights given in another order');
# what was given by a GRANT of the owner's own, with grant option
one($node, "SELECT mq.grant('plain', 'browse', 'app'); GRANT SELECT ON mq.q_plain TO reader WITH GRANT OPTION; GRANT TRUNCATE ON mq.q_plain TO reader");
same('plain', 'plain GRANTs');
like($text, qr/mq\.grant\('plain', '$_', 'reader'\)/, "$_ by GRANT") for 'browse', 'manage';

# ---------------------------------------------------------------------------------------------------------------------
# who may, and when

is(sqlstate($node, "SET ROLE reader; SELECT mq.ddl('plain')"), '', 'who may browse may see it');
is(sqlstate($node, "SET ROLE reader; SELECT mq.ddl('h')"), '42501', 'nobody else');
is(sqlstate($node, "SELECT mq.ddl(null)"), '22004', 'null');
is(sqlstate($node, "SELECT mq.ddl('nothing')"), '42704', 'no such queue');
like(one($node, "BEGIN READ ONLY; SELECT mq.ddl('plain')"), qr/create_queue/, 'in a read-only transaction');
# a transaction that keeps its snapshot sees what the queue is, as all calls of mq do
my $s = session($node);
$s->q('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
one($node, q{SELECT mq.alter_group('plain', 'default', '{"max_in_flight": 77}'); SELECT mq.create_queue('young')});
like($s->q("SELECT mq.ddl('plain')"), qr/77/, 'REPEATABLE READ: options of now');
like($s->q("SELECT mq.ddl('young')"), qr/create_group/, 'REPEATABLE READ: a queue that is younger');
like(one($node, "BEGIN; SELECT mq.create_queue('own'); SELECT mq.alter_queue('own', '{\"closed\": true}'); SELECT mq.ddl('own'); ROLLBACK"), qr/closed/, 'of a queue made in this transaction');
$node->stop;
done_testing();
