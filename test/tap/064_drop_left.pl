# drop_queue without force: what this very transaction has popped is finished, unless it has given it back.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('left');
my $s = session($node);
my $o = session($node);

for my $how ('nack', 'release')
{
	my $call = "mq.$how(receipt)";
	$s->q("SELECT mq.create_queue('$how')");
	$s->q("SELECT mq.send_batch('$how', array_fill('1'::jsonb, ARRAY[3])) LIMIT 1");
	$s->q("BEGIN; CREATE TEMP TABLE p ON COMMIT DROP AS SELECT receipt FROM mq.pop('$how', max_messages => 3)");
	is($s->try("SAVEPOINT a; SELECT mq.drop_queue('$how')"), '', "$how: all was popped by this transaction");
	$s->q('ROLLBACK TO a');
	$s->q("SAVEPOINT b; SELECT $call FROM p LIMIT 1");
	is($s->try("SELECT mq.drop_queue('$how')"), '55000', "$how: one is given back, and comes back when it commits");
	$s->q('ROLLBACK TO b');
	is($s->try("SAVEPOINT c; SELECT mq.drop_queue('$how')"), '', "$how: that was undone");
	$s->q('ROLLBACK TO c');
	$s->q("SELECT $call FROM p");
	is($s->try("SELECT mq.drop_queue('$how')"), '55000', "$how: all are given back");
	$s->q('ROLLBACK');
	$s->q("SELECT count(*) FROM mq.pop('$how', max_messages => 3)");
	is($s->try("SELECT mq.drop_queue('$how')"), '', "$how: an empty queue");
}

# many entries: each a message of its own
$s->q("SELECT mq.create_queue('many')");
$s->q("SELECT mq.send_batch('many', array_fill('1'::jsonb, ARRAY[2000])) LIMIT 1");
$s->q("BEGIN; CREATE TEMP TABLE p ON COMMIT DROP AS SELECT receipt, row_number() OVER (ORDER BY id) AS n FROM mq.pop('many', max_messages => 2000)");
$s->q('SELECT mq.release(receipt) FROM p WHERE n = 2000');
is($s->try("SELECT mq.drop_queue('many')"), '55000', 'the last of many');
$s->q('ROLLBACK');

# what others have popped may come back, whatever they have done with it
$s->q("BEGIN; SELECT count(*) FROM mq.pop('many', max_messages => 2000)");
is($o->try("SET lock_timeout = '100ms'; SELECT mq.drop_queue('many')"), '55000', 'popped by somebody else');
$s->q('ROLLBACK');
$_->close for $s, $o;
$node->stop;
done_testing();
