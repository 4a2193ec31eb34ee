# The SQL in doc/operations.md that tells what is unfinished without the library: what it says on a server that has not
# loaded mq is what the groups are given once it is loaded again.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $document = slurp_file("$FindBin::RealBin/../../doc/operations.md");
my ($views) = $document =~ /^(SELECT 'CREATE VIEW pg_temp\.offset_log.*?)^SELECT m\.id/ms;
ok($views, 'the document has it');

my $node = mq_node('plain', fsync => 1, conf => "mq.drop_delay = 0\nmq.offset_log_size = 64kB\n");
my @groups = qw(default slow moved latest fresh);
sub have_groups { return split /\n/, one($node, "SELECT consumer_group FROM mq.groups WHERE queue = 'q'"); }

# ids per group, by the document
sub by_document
{
	my $rows = join(' UNION ALL ', map { "SELECT '$_', m.id FROM mq.q_q m JOIN unfinished u ON m.id <@ u.ids WHERE u.queue = 'q' AND u.consumer_group = '$_'" } @groups);
	my ($rc, $out, $err) = $node->psql('postgres', "$views $rows ORDER BY 1, 2;");
	is($err, '', 'no error');
	return $out;
}

# and by the engine
sub by_engine
{
	one($node, 'CREATE TABLE given (g text, id bigint, receipt uuid)');
	one($node, "INSERT INTO given SELECT '$_', id, receipt FROM mq.receive('q', consumer_group => '$_', max_messages => 1000000, visibility_timeout => '1 h')") for have_groups();
	my $out = one($node, 'SELECT g, id FROM given ORDER BY 1, 2');
	one($node, 'SELECT mq.release_batch(array_agg(receipt)) FROM given; DROP TABLE given');
	return $out;
}

sub preload
{
	my ($library) = @_;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = '$library'");
	$node->start;
	return;
}

sub compare
{
	my ($how, $name) = @_;
	$node->stop($how);
	preload('');
	is(sqlstate($node, "SELECT mq.send('q', '1')"), '55000', "$name: the library is not there");
	my $document = by_document();
	$node->stop;
	preload('mq');
	my $engine = by_engine();
	is($document, $engine, "$name: plain SQL and the engine say the same");
	cmp_ok(length($engine), '>', 100, "$name: and there is something to say");
	return;
}

one($node, "SELECT mq.create_queue('q', groups => '{default,slow,moved}', options => jsonb_build_object('segment_size', 1024))");
one($node, "SELECT t.put('q', 'a', 3000)");
one($node, "SELECT mq.create_group('q', 'fresh', start => 'earliest')");
compare('immediate', 'nothing acked');

# holes, rollbacks, nacks
one($node, "SELECT mq.ack_batch(array_agg(receipt)) FROM mq.receive('q', max_messages => 2000, visibility_timeout => '1 h') WHERE id % 3 > 0");
one($node, "BEGIN; SELECT count(*) FROM mq.pop('q', 'slow', 100); ROLLBACK; SELECT count(*) FROM mq.pop('q', 'slow', 50)");
one($node, "BEGIN; SAVEPOINT s; SELECT count(*) FROM mq.pop('q', 'slow', 10); ROLLBACK TO s; SELECT count(*) FROM mq.pop('q', 'slow', 3); COMMIT");
one($node, "SELECT count(mq.nack(receipt, '1 ms')) FROM mq.receive('q', consumer_group => 'slow', max_messages => 500, visibility_timeout => '1 h')");
one($node, "SELECT mq.discard('q', 'slow', '{700,701,705}')");
compare('immediate', 'holes');

# many rows, so that checkpoints come and the tables of the ring are emptied
my $session = session($node);
$session->q('BEGIN');
$session->q("SELECT t.put('q', 'open', 20)");
$node->pgbench('-n -c 4 -j 2 -t 1500', 0, [qr/processed/], [qr/^$/], 'single pops and sends',
	{ '018_pop' => "SELECT t.put('q', 'p', 1);\nSELECT count(*) FROM mq.pop('q', max_messages => 1);\nSELECT count(*) FROM mq.pop('q', 'slow', 2);\n" });
one($node, "SELECT mq.create_group('q', 'latest', start => 'latest')");
one($node, "SELECT count(*) FROM mq.pop('q', 'moved', 100000)");
one($node, "SELECT mq.seek('q', 'moved', start_id => 2500)");
one($node, "SELECT count(*) FROM mq.pop('q', 'moved', 700)");
$session->q('COMMIT');
compare('immediate', 'checkpoints, seeks, a new group');
compare('fast', 'stopped in order');

# seek to latest with a sender in flight, then more
$session = session($node);
$session->q('BEGIN');
$session->q("SELECT t.put('q', 'late', 5)");
one($node, "SELECT t.put('q', 'b', 300)");
one($node, "SELECT mq.purge('q')");
$session->q('COMMIT');
one($node, "SELECT t.put('q', 'c', 30)");
one($node, "SELECT count(*) FROM mq.pop('q', '$_', 7)") for qw(default moved);
compare('immediate', 'purge');

# the last way out
$node->stop;
preload('');
my ($rc, $out, $err) = $node->psql('postgres', "SET client_min_messages = warning; CREATE TABLE mine AS SELECT payload FROM mq.q_q; DROP EXTENSION mq CASCADE; SELECT count(*) > 30 FROM mine");
is("$out$err", 't', 'the messages can be copied and the extension dropped without the library');
$node->stop;
done_testing();
