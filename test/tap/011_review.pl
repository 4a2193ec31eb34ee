# What a reviewer broke, one after the other: each was a message lost or handed out twice.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('review');

# --- the walker must not go on from behind the page the tail is on -------------------------------------------------------
one($node, "SELECT mq.create_queue('tail')");
one($node, "SELECT mq.send_batch('tail', array(SELECT to_jsonb(i) FROM generate_series(1, 10) i))");
is(one($node, "SELECT count(*) FROM mq.pop('tail', max_messages => 10)"), '10', 'ten sent, ten popped');
$node->restart;
is(one($node, "SELECT count(*) FROM mq.receive('tail')"), '0', 'nothing is left');
one($node, "BEGIN; SELECT mq.send('tail', '0'); ROLLBACK");
one($node, 'VACUUM mq.q_tail');
is(one($node, "SELECT count(*) FROM mq.receive('tail')"), '0', 'a send that rolled back, vacuumed away');
one($node, "SELECT mq.send('tail', '11')");
is(one($node, "SELECT payload FROM mq.pop('tail', max_messages => 10)"), '11', 'the next one on that page arrives');

# --- a group that the rebuild could not see has rows in the offset log all the same ---------------------------------------
one($node, "SELECT mq.create_queue('unseen')");
one($node, "SELECT mq.send_batch('unseen', array(SELECT to_jsonb(i) FROM generate_series(1, 100) i))");
is(one($node, "SELECT count(*) FROM mq.pop('unseen', max_messages => 60)"), '60', 'sixty of a hundred popped');
one($node, "BEGIN; SELECT mq.create_queue('made'); SELECT mq.send_batch('made', array(SELECT to_jsonb(i) FROM generate_series(1, 100) i));
	SELECT count(*) FROM mq.pop('made', max_messages => 60); PREPARE TRANSACTION 'made'");
$node->kill9;
mq_start_again($node);
one($node, "BEGIN; SELECT mq.drop_queue('unseen', true); SELECT count(*) FROM mq.groups; ROLLBACK");
is(one($node, "SELECT count(*) FROM mq.receive('unseen', max_messages => 1000)"), '40', 'dropped and not dropped at the first touch after a crash: forty are left');
one($node, "COMMIT PREPARED 'made'");
is(one($node, "SELECT count(*) FROM mq.receive('made', max_messages => 1000)"), '40', 'made, sent and popped in a transaction that was prepared before the crash: forty are left');

# --- emptying a segment runs nobody's trigger ------------------------------------------------------------------------------
one($node, "CREATE ROLE evil; GRANT EXECUTE ON FUNCTION mq.create_queue TO evil; CREATE SCHEMA evil AUTHORIZATION evil;
	ALTER SYSTEM SET mq.drop_delay = 0; SELECT pg_reload_conf()");
one($node, "SET ROLE evil; SELECT mq.create_queue('evil', options => jsonb_build_object('segment_size', 1024));
	SELECT mq.send_batch('evil', array(SELECT to_jsonb(i) FROM generate_series(1, 1500) i));
	CREATE FUNCTION evil.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN EXECUTE ''ALTER ROLE evil SUPERUSER''; RETURN NULL; END'");
my $leaf = one($node, "SELECT min(segment_table::text) FROM mq.segments WHERE queue = 'evil' AND segment = 0");
is(sqlstate($node, "SET ROLE evil; CREATE TRIGGER t BEFORE TRUNCATE ON $leaf EXECUTE FUNCTION evil.f()"), '42501', 'the owner cannot make one');
one($node, "CREATE TRIGGER t BEFORE TRUNCATE ON $leaf EXECUTE FUNCTION evil.f()");
my $busy = session($node);
$busy->q("BEGIN; LOCK TABLE ONLY mq.q_evil IN ACCESS SHARE MODE");
is(one($node, "SELECT count(*) FROM mq.pop('evil', max_messages => 10000)"), '1500', 'all popped while the parent is in use');
ok(poll_until('the finished segment is emptied', sub { one($node, "SELECT pg_relation_size('$leaf')") eq '0' }), 'the finished segment is emptied');
is(one($node, "SELECT rolsuper FROM pg_roles WHERE rolname = 'evil'"), 'f', 'and its owner is what it was');
$busy->q('ROLLBACK');
$busy->close;
ok(poll_until('the segment is dropped', sub { one($node, "SELECT to_regclass('$leaf') IS NULL") eq 't' }), 'then it is dropped');

# --- the worker does not wait for locks of others --------------------------------------------------------------------------
one($node, "SELECT mq.create_queue('slow', options => jsonb_build_object('segment_size', 1024)); CREATE TABLE evil.d PARTITION OF mq.q_slow DEFAULT");
one($node, "SELECT mq.create_queue('fast', options => jsonb_build_object('segment_size', 1024))");
$busy = session($node);
$busy->q("BEGIN; LOCK TABLE evil.d IN ACCESS SHARE MODE");
one($node, "SELECT mq.send_batch('slow', array(SELECT to_jsonb(i) FROM generate_series(1, 1500) i))");
is(sqlstate($node, "SELECT mq.send_batch('fast', array(SELECT to_jsonb(i) FROM generate_series(1, 20000) i))"), '', 'segments of another queue are made meanwhile');
$busy->q('ROLLBACK');
$busy->close;

$node->stop;
done_testing();
