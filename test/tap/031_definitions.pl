# Definitions and sequences that somebody has set back, altered, emptied or dropped: numbers in use are skipped, what is on disk
# is delivered once, and what cannot go on says why.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('definitions', conf => "mq.drop_delay = 3600\nmq.segment_wait = '20s'\n");
my $in = one($node, "SELECT relnamespace::regnamespace FROM pg_class WHERE relname = 'consumer_offset_0'");	# where definitions are

sub number { my ($q) = @_; return one($node, "SELECT queue_no FROM $in.queue WHERE name = '$q'"); }
sub make { my ($q) = @_; return one($node, "SELECT mq.create_queue('$q', options => jsonb_build_object('segment_size', 1024))"); }
sub put { my ($q, $n) = @_; return one($node, "SELECT count(*) FROM (SELECT mq.send('$q', to_jsonb(i)) FROM generate_series(1, $n) i) s"); }
sub pop_all { my ($q) = @_; return one($node, "SELECT count(*) || ' ' || count(DISTINCT id) FROM mq.pop('$q', max_messages => 100000)"); }
sub all_different { my ($q, $n, $name) = @_; return is(one($node, "SELECT count(*) || ' ' || count(DISTINCT id) FROM mq.q_$q"), "$n $n", $name); }

# --- the sequence of ids ------------------------------------------------------------------------------------------------
make('s');
my $s = "$in.i_" . number('s');
put('s', 3000);
one($node, "SELECT setval('$s', 1)");
put('s', 1000);
all_different('s', 4000, 'set back: no id twice');
is(pop_all('s'), '4000 4000', 'set back: delivered');
one($node, "SELECT setval('$s', 1)");
$node->restart;
put('s', 100);
all_different('s', 4100, 'set back and restarted: no id twice');
is(pop_all('s'), '100 100', 'set back and restarted: delivered');
one($node, "ALTER SEQUENCE $s INCREMENT 1");
is(sqlstate($node, "SELECT mq.send_batch('s', array(SELECT to_jsonb(i) FROM generate_series(1, 100) i))"), '55000', 'INCREMENT 1: 55000');
like(err($node, "SELECT mq.send_batch('s', array(SELECT to_jsonb(i) FROM generate_series(1, 100) i))"), qr/the sequence that numbers the messages of queue "s" was altered or dropped.*INCREMENT 16.*HINT/s, 'and what to do');
one($node, "ALTER SEQUENCE $s INCREMENT 16 MAXVALUE 1000 RESTART 1 CYCLE");
is(sqlstate($node, "SELECT mq.send_batch('s', array(SELECT to_jsonb(i) FROM generate_series(1, 100) i))"), '55000', 'MAXVALUE and CYCLE: 55000');
one($node, "ALTER SEQUENCE $s INCREMENT -16 MINVALUE -9000 MAXVALUE 9000 RESTART 1 CYCLE");
is(sqlstate($node, "SELECT mq.send_batch('s', array(SELECT to_jsonb(i) FROM generate_series(1, 100) i))"), '55000', 'backwards: 55000');
one($node, "ALTER SEQUENCE $s INCREMENT 16 NO MINVALUE NO MAXVALUE RESTART 1 NO CYCLE");
put('s', 100);
is(pop_all('s'), '100 100', 'undone: it goes on');
one($node, "DROP SEQUENCE $s");
is(sqlstate($node, "SELECT mq.send_batch('s', array(SELECT to_jsonb(i) FROM generate_series(1, 100) i))"), '55000', 'dropped: 55000');
one($node, "CREATE SEQUENCE $s INCREMENT 16");
is(one($node, "SELECT count(*) FROM unnest(mq.send_batch('s', array(SELECT to_jsonb(i) FROM generate_series(1, 100) i)))"), '100', 'made again: it goes on');
is(pop_all('s'), '100 100', 'and all are delivered');

# --- numbers of queues and groups -------------------------------------------------------------------------------------------
make("n$_") for 1 .. 3;
one($node, "SELECT setval('$in.queue_no', 1); SELECT setval('$in.group_no', 1)");
make('after');
put('after', 10);
is(pop_all('after'), '10 10', 'the sequence of queues was set back: a new queue');
is(one($node, "SELECT count(*) - count(DISTINCT queue_no) FROM $in.queue"), '0', 'with a number of its own');
put('n1', 100);
one($node, "SELECT mq.create_group('n1', 'old', start => 'earliest'); SELECT count(*) FROM mq.pop('n1', 'old', 60); SELECT mq.drop_group('n1', 'old', force => true)");
one($node, "SELECT setval('$in.group_no', (SELECT max(group_no) FROM $in.consumer_group))");
$node->restart;
one($node, "SELECT mq.create_group('n1', 'new', start => 'earliest')");
$node->restart('immediate') if 0;
$node->stop('immediate');
$node->start;
is(one($node, "SELECT count(*) FROM mq.pop('n1', 'new', 1000)"), '100', 'a new group does not begin where a dropped one was');

# --- records of partitions gone ------------------------------------------------------------------------------------------------
make('r');
put('r', 2500);
is(one($node, "SELECT count(*) FROM mq.pop('r', max_messages => 100)"), '100', 'some before');
one($node, "DELETE FROM $in.segment WHERE queue_no = " . number('r'));
put('r', 3000);
is(pop_all('r'), '5400 5400', 'the records of partitions are gone: all is delivered, sends go on');
one($node, "SELECT mq.create_group('r', 'g', start => 'earliest')");
is(one($node, "SELECT count(*) FROM mq.pop('r', 'g', 100000)"), '5500', 'a new group finds them');
put('r', 1000);
one($node, "DELETE FROM $in.segment");
$node->restart;
ok(poll_until('all of them to come', sub { one($node, "SELECT count(*) FROM mq.pop('r', max_messages => 300)"); one($node, "SELECT count(*) FROM mq.pop('r', max_messages => 1)") eq '0' && one($node, "SELECT ready + retrying + leased + pending FROM mq.groups WHERE queue = 'r' AND consumer_group = 'default'") eq '0' }), 'the same with a restart');
ok(poll_until('records again', sub { one($node, "SELECT count(*) >= 6 FROM mq.segments WHERE queue = 'r'") eq 't' }), 'they are put on record again');
put('r', 100);
is(one($node, "SELECT count(DISTINCT id) || ' ' || count(*) FROM mq.pop('r', 'g', 100000)"), '1100 1100', 'nothing was missed by another group');
all_different('r', 6600, 'and no id is there twice');

# --- groups and queues gone ------------------------------------------------------------------------------------------------------
make('d');
put('d', 50);
one($node, "SELECT count(*) FROM mq.receive('d', max_messages => 10)");
one($node, "DELETE FROM $in.consumer_group WHERE queue_no = " . number('d'));
is(sqlstate($node, "SELECT * FROM mq.receive('d')"), '42704', 'definition of a group gone: 42704');
one($node, "SELECT mq.create_group('d', 'default', start => 'earliest')");
is(pop_all('d'), '50 50', 'made again: all of it');
one($node, "DELETE FROM $in.queue WHERE name = 'd'");
is(sqlstate($node, "SELECT mq.send('d', '1')"), '42704', 'definition of a queue gone: 42704 for a sender');
is(sqlstate($node, "SELECT * FROM mq.receive('d')"), '42704', 'and for a receiver');

# --- rows of the offset log that mq cannot have written -----------------------------------------------------------------------
{
	make('o');
	put('o', 500);
	is(one($node, "SELECT count(*) FROM mq.pop('o', max_messages => 100)"), '100', 'some finished');
	my $g = one($node, "SELECT group_no FROM $in.consumer_group WHERE queue_no = " . number('o'));
	my $big = '9223372036854775807';
	one($node, "ALTER TABLE $in.consumer_offset_0 ALTER n DROP NOT NULL, ALTER lo DROP NOT NULL, ALTER hi DROP NOT NULL, ALTER group_no DROP NOT NULL");
	one($node, "INSERT INTO $in.consumer_offset_0 (n, group_no, level, epoch, lo, hi, ranges, replay_from) VALUES $_")
		for "(NULL, $g, 0, 1, 1, 500, NULL, NULL)", "(900, $g, 0, 1, NULL, NULL, NULL, NULL)", "(901, NULL, 0, 1, 1, 500, NULL, NULL)",
		"(902, $g, 0, 1, 300, 200, NULL, NULL)", "(903, $g, 0, 1, 1, $big, NULL, NULL)", "(904, $g, 0, 1, -5, 500, NULL, NULL)",
		"($big, $g, 0, 1, 1, 500, NULL, NULL)", "(-1, $g, 0, 1, 1, 500, NULL, NULL)", "(905, $g, 0, 1, 1, 500, '{1,NULL}', NULL)",
		"(906, $g, 0, 1, 1, 500, '{1,2,3}', NULL)", "(907, $g, 0, 1, 1, 500, '{{1,500},{400,200}}', NULL)",
		"(908, $g, 0, 1, 1, 500, '{1,500}', 1)", "(909, $g, 0, 1, 1, $big, '{1,500,0,0}', 1)", "(910, $g, 0, 1, 1, 500, '{1,500,0}', -1)";
	$node->stop('immediate');
	$node->start;
	is(pop_all('o'), '400 400', 'rows that mq cannot have written are passed over');
	like(slurp_file($node->logfile), qr/WARNING:  offset log table 0 of mq has \d+ rows that mq cannot have written/, 'with a WARNING');

	# what it can have written, but says things twice
	one($node, "DELETE FROM $in.consumer_offset_0 WHERE n IS NULL OR n >= 900 OR n < 0 OR lo IS NULL OR group_no IS NULL");
	put('o', 500);
	my $next = one($node, "SELECT next_id FROM mq.queues WHERE queue = 'o'");
	one($node, "INSERT INTO $in.consumer_offset_0 VALUES (800000, $g, 0, 1, 1, $next, '{600,700,0,0, 600,700,3,0, 650,750,0,0, 1,400,0,0, 100,300,1,0, 700,700,0,0}', 800000), (800001, $g, 0, 1, 1, 100, '{1,100,50,200}', NULL), (800002, $g, 0, 1, 1, 100, NULL, -1)");
	$node->stop('immediate');
	$node->start;
	is(pop_all('o'), '351 351', 'ranges that overlap: each message once');
	one($node, "DELETE FROM $in.consumer_offset_0 WHERE n >= 800000");
	one($node, "ALTER TABLE $in.consumer_offset_0 ADD extra int");
	is(sqlstate($node, "SELECT count(*) FROM mq.pop('o')"), '55000', 'another column: 55000') if put('o', 1);
	one($node, "ALTER TABLE $in.consumer_offset_0 DROP extra");
	is(one($node, "SELECT count(*) FROM mq.pop('o')"), '1', 'dropped again: it goes on');
	# a session that has written to it before
	my $writer = session($node);
	put('o', 2);
	is($writer->q("SELECT count(*) FROM mq.pop('o')"), '1', 'a session that acks');
	one($node, "ALTER TABLE $in.consumer_offset_$_ ALTER COLUMN lo TYPE text") for 0 .. 3;
	is($writer->try("SELECT count(*) FROM mq.pop('o')"), '55000', 'another type: 55000');
	one($node, "ALTER TABLE $in.consumer_offset_$_ ALTER COLUMN lo TYPE bigint USING lo::bigint") for 0 .. 3;
	is($writer->q("SELECT count(*) FROM mq.pop('o')"), '1', 'and back');
	$writer->close;
}
unlike(slurp_file($node->logfile), qr/terminated by signal/, 'no process died');
my @errors = slurp_file($node->logfile) =~ /mq worker.*ERROR|ERROR.*already exists/g;
is(scalar @errors, 0, 'and the worker has no errors');

# --- a segment that is refused, and one that a session remembers in the same place --------------------------------------------------------
{
	make('near');
	my $far = number('near') + 32;
	one($node, "SELECT mq.create_queue('between' || i) FROM generate_series(1, 31) i");
	make('far');
	is(number('far'), $far, 'two queues whose first segments have one place in a session\'s memory');
	put('far', 1);
	one($node, 'ALTER TABLE mq.q_far ADD COLUMN x int');
	my $session = session($node);
	$session->q("SELECT mq.send('near', '1')");
	is($session->try("SELECT mq.$_"), '55000', "refused: $_")
	  for ("send('far', '2')") x 3, ("receive('far')") x 3;
	is($session->q("SELECT count(*) FROM mq.q_near"), '1', 'nothing is written to the other queue');
	is($session->q("SELECT count(*) FROM mq.receive('near')"), '1', 'which works');
	$session->close;
	one($node, 'ALTER TABLE mq.q_far DROP COLUMN x');
}

$node->stop;
done_testing();
