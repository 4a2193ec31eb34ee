# mq.count_from tells how many messages a seek would bring: the same number as the seek itself then does.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('count_from', fsync => 0, conf => "mq.drop_delay = 0\nfsync = off\n");
sub count_from { my ($q, $where) = @_; return one($node, "SELECT mq.count_from('$q', 'default', $where)"); }

# What a seek to there brings, all of it received and given back by the rollback.
sub brings
{
	my ($q, $where) = @_;
	one($node, "SELECT mq.seek('$q', 'default', $where)");
	return one($node, "BEGIN; SELECT count(*) FROM mq.pop('$q', max_messages => 1000000); ROLLBACK");
}
sub same { my ($q, $where, $what) = @_; my $n = count_from($q, $where); is($n, brings($q, $where), "$what: $n"); return $n; }

# ---------------------------------------------------------------------------------------------------------------------
# several segments, with what was rolled back among the rest, read and unread, finished and not

one($node, q{SELECT mq.create_queue('q', options => '{"segment_size": 1024, "retention": "1 day"}')});
is(count_from('q', $_), '0', "empty: $_") for "start => 'earliest'", "start => 'latest'", 'start_id => 1', "start_time => now() - interval '1 hour'";
one($node, "SELECT t.put_batch('q', 'a', 1500)");
one($node, "BEGIN; SELECT t.put_batch('q', 'b', 700); ROLLBACK");
my $time = one($node, 'SELECT clock_timestamp()');
one($node, "SELECT t.put_batch('q', 'c', 1300)");
one($node, "SELECT count(*) FROM mq.pop('q', max_messages => 400)");
cmp_ok(one($node, "SELECT segments FROM mq.queues WHERE queue = 'q'"), '>=', 4, 'several segments');
is(same('q', "start => 'earliest'", 'earliest'), '2800', 'all there are');
is(same('q', "start => 'latest'", 'latest'), '0', 'none');
is(same('q', "start_time => '$time'", 'a time'), '1300', 'what came since');
my $middle = one($node, 'SELECT id FROM mq.q_q ORDER BY id OFFSET 1234 LIMIT 1');
is(same('q', "start_id => $middle", 'an id'), 2800 - 1234, 'from that one on');
same('q', 'start_id => ' . ($middle + 1), 'the next one');
same('q', 'start_id => ' . one($node, "SELECT next_id FROM mq.queues WHERE queue = 'q'"), 'the end');
# the group stays where it is
one($node, "SELECT mq.seek('q', 'default', start => 'latest')");
count_from('q', "start => 'earliest'");
is(one($node, "SELECT count(*) FROM mq.receive('q')"), '0', 'counting moves nothing');

# ---------------------------------------------------------------------------------------------------------------------
# open transactions: what they have sent does not count yet; what is counted stays free

my $sender = session($node);
$sender->q("BEGIN; SELECT t.put_batch('q', 'd', 50)");
is(count_from('q', "start => 'earliest'"), '2800', 'an open sender: not counted');
is($sender->q("SELECT mq.count_from('q', 'default', start => 'earliest')"), '2800', 'by itself neither');
is($sender->q("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'AccessShareLock' AND relation IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'mq.q_q'::regclass)"), '0', 'no segment stays locked');
$sender->q('COMMIT');
is(count_from('q', "start => 'earliest'"), '2850', 'committed: counted');
my $reader = session($node);
$reader->q('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1');
one($node, "SELECT t.put_batch('q', 'e', 50)");
is($reader->q("SELECT mq.count_from('q', 'default', start => 'earliest')"), '2900', 'in a read-only transaction, and what is there now');
$reader->q('COMMIT');

# ---------------------------------------------------------------------------------------------------------------------
# after a crash, after a rewrite by others, and when segments are gone

$node->kill9;
mq_start_again($node);
is(same('q', "start_id => $middle", 'after a crash'), 2800 - 1234 + 100, 'the same');
one($node, "VACUUM FULL $_") for split /\n/, one($node, "SELECT segment_table FROM mq.segments WHERE queue = 'q' AND bytes > 0");
is(count_from('q', "start_id => $middle"), 2800 - 1234 + 100, 'rewritten segments');
one($node, q{SELECT mq.alter_queue('q', '{"retention": null}'); SELECT mq.seek('q', 'default', start => 'latest')});
ok(poll_until('segments to be dropped', sub { one($node, "SELECT min(first_id) > 0 FROM mq.segments WHERE queue = 'q'") eq 't' }), 'segments are dropped');
is(count_from('q', "start => 'earliest'"), one($node, 'SELECT count(*) FROM mq.q_q'), 'what is still there');
is(count_from('q', 'start_id => 1'), one($node, 'SELECT count(*) FROM mq.q_q'), 'the same by an id that is gone');

# ---------------------------------------------------------------------------------------------------------------------
# more than is counted: an estimate that says so

one($node, "SELECT mq.create_queue('big')");
# bodies that do not compress, cut out of one
one($node, "CREATE TABLE t.noise AS SELECT string_agg(decode(md5(i::text), 'hex'), '') AS b FROM generate_series(1, 40000) i");
sub big { my ($n, $bytes) = @_; return one($node, "SELECT mq.send_batch('big', bodies => (SELECT array_agg(substr(b, 1 + (i * 1000 + j) * 7 % 600000, $bytes)) FROM t.noise, generate_series(1, 1000) j)) IS NULL FROM generate_series(1, $n) i"); }
big(30, 1900);
my $pages = one($node, "SELECT max(pg_relation_size(segment_table)) / 8192 FROM mq.segments WHERE queue = 'big'");
cmp_ok($pages, '<', 16384, "up to the bound: $pages pages");
my $note = err($node, "SELECT mq.count_from('big', 'default', start => 'earliest')");
is($note, '', 'no word of an estimate');
is(count_from('big', "start => 'earliest'"), '30000', 'exact');
big(20, 100);
big(40, 1900);
big(20, 100);
$pages = one($node, "SELECT max(pg_relation_size(segment_table)) / 8192 FROM mq.segments WHERE queue = 'big'");
cmp_ok($pages, '>', 16384, "past the bound: $pages pages");
like(err($node, "SELECT mq.count_from('big', 'default', start => 'earliest')"), qr/NOTICE:  00000: the number of messages is an estimate/, 'it says so');
my $estimate = count_from('big', "start => 'earliest'");
cmp_ok(abs($estimate - 110000), '<', 1100, "within 1 %: $estimate of 110000");
my $late = one($node, 'SELECT id FROM mq.q_big ORDER BY id DESC OFFSET 999 LIMIT 1');
is(count_from('big', "start_id => $late"), '1000', 'a short part of it: exact');
$node->stop;
done_testing();
