# Why messages failed: written down with kind, error and reason, shown by mq.failures, handed out with the message, kept by the dead letter.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('failures', ladder => 1, conf => "autovacuum = off\nlog_min_messages = fatal\n");
sub failures { my ($q, $n) = @_; poll_until("$n failures of $q", sub { one($node, "SELECT count(*) FROM mq.failures WHERE queue = '$q'") eq $n }); return one($node, "SELECT string_agg(concat_ws('/', kind, sqlstate, reason, consumer, attempt), ',' ORDER BY failed_at) FROM mq.failures WHERE queue = '$q'"); }

one($node, q{SELECT mq.create_queue('f'); SELECT mq.alter_group('f', 'default', '{"retry_delays": null}')});
one($node, "SELECT mq.send('f', '1')");
one($node, "SELECT mq.nack(receipt, reason => 'no stock') FROM mq.receive('f', consumer => 'c1')");
is(failures('f', 1), 'nack/no stock/c1/1', 'a nack with its reason');
is(one($node, "SELECT last_reason FROM mq.browse('f')"), 'no stock', 'browse shows the last one');
is(one($node, "SELECT last_reason, failures FROM mq.receive('f')"), 'no stock|1', 'the consumer gets it with the message');
one($node, "SELECT mq.purge('f'); SELECT mq.send('f', '2')");
sqlstate($node, "SELECT 1 / (failures * 0) FROM mq.receive('f')");
is(failures('f', 2), 'nack/no stock/c1/1,error/22012/division by zero/1', 'an error with its state and message, whatever the log has');
sqlstate($node, "DO \$\$ BEGIN PERFORM mq.receive('f'); RAISE EXCEPTION 'oh: %', repeat(U&'\\00e4', 4000) USING ERRCODE = 'P4242'; END \$\$");
failures('f', 3);
is(one($node, "SELECT sqlstate, octet_length(reason), right(reason, 1) = U&'\\00e4' FROM mq.failures WHERE kind = 'error' ORDER BY failed_at DESC LIMIT 1"), "P4242|2048|t", 'a long one is cut at a character');
sqlstate($node, "SET statement_timeout = 50; SELECT mq.receive('f'), pg_sleep(10)");
one($node, "BEGIN; SELECT mq.receive('f'); ROLLBACK");
failures('f', 5);
is(one($node, "SELECT string_agg(kind, ',' ORDER BY failed_at) FROM mq.failures WHERE queue = 'f'"), 'nack,error,error,timeout,rollback', 'a timeout, and a rollback');
one($node, "SELECT mq.receive('f', visibility_timeout => '1 ms')");
failures('f', 6);
my $s = session($node);
$s->q("BEGIN");
$s->q("SELECT mq.receive('f')");
$s->vanish;
failures('f', 7);
is(one($node, "SELECT string_agg(kind, ',' ORDER BY failed_at) FROM (SELECT * FROM mq.failures WHERE queue = 'f' ORDER BY failed_at OFFSET 5) x"), 'lease_end,lost', 'the end of a lease, and a client that is gone');

# popped, and then nacked: with the reason, when the transaction ends, either way
one($node, q{SELECT mq.create_queue('p'); SELECT mq.alter_group('p', 'default', '{"retry_delays": null}'); SELECT mq.send('p', '1')});
one($node, "BEGIN; SELECT mq.nack(receipt, reason => 'popped') FROM mq.pop('p'); COMMIT");
is(failures('p', 1), 'nack/popped', 'of a pop that commits');
one($node, "BEGIN; SELECT mq.nack(receipt, reason => 'rolled back') FROM mq.pop('p'); ROLLBACK");
is(failures('p', 2), 'nack/popped,nack/rolled back', '... and of one that does not');
one($node, "BEGIN; SELECT receipt AS r FROM mq.pop('p') \\gset\nSAVEPOINT s; SELECT mq.nack(:'r', reason => 'undone'); ROLLBACK TO s; COMMIT");
one($node, "SELECT mq.send('p', '2'); SELECT mq.dead_letter(receipt, reason => 'hopeless') FROM mq.receive('p')");
is(failures('p', 3), 'nack/popped,nack/rolled back,nack/hopeless/1', 'a nack that a savepoint undoes is none');
poll_until('the dead letter', sub { one($node, "SELECT count(*) FROM mq.queues WHERE queue = 'p.dead'") eq '1' && one($node, "SELECT count(*) FROM mq.browse('p.dead')") eq '1' });
is(one($node, "SELECT last_reason, death->0->>'reason', mq.release(receipt) IS NOT NULL FROM mq.receive('p.dead')"), 'hopeless|hopeless|t', 'a dead letter has its reason');

# the story of one message
is(one($node, "SELECT string_agg(concat_ws('/', kind, consumer_group, attempt, reason), ',' ORDER BY at) FROM mq.history('p', 2)"), 'sent,nack/default/1/hopeless', 'mq.history tells of a message');
one($node, "SELECT mq.redrive('p.dead')");
my ($again) = one($node, "SELECT id FROM mq.receive('p')");
is(one($node, "SELECT string_agg(concat_ws('/', kind, consumer_group, attempt, reason), ',' ORDER BY at) FROM mq.history('p', 2)"), 'sent,nack/default/1/hopeless,dead/default/1/hopeless,enqueued', '... also that it died and was sent back, by the id that mq.send returned');
is(one($node, "SELECT string_agg(kind, ',' ORDER BY at) FROM mq.history('p', mq.send('p', '3', delay => '1 h'))"), 'sent,due', '... and of one that is scheduled');
is(one($node, "SELECT count(*) FROM mq.history('p', 999999)"), '0', '... and nothing of one that is not there');
one($node, "CREATE ROLE curious LOGIN; SELECT mq.grant('p', 'consume', 'curious')");
is(sqlstate($node, "SET SESSION AUTHORIZATION curious; SELECT * FROM mq.history('p', 2)"), '42501', 'it needs the right to browse');

# a batch is one note, and a row for each block
one($node, q{SELECT mq.create_queue('b'); SELECT mq.alter_group('b', 'default', '{"retry_delays": ["1 h"]}')});
one($node, "SELECT count(mq.send_batch('b', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 3000) i)))");
sqlstate($node, "SELECT count(*), 1 / (count(*) - 3000) FROM mq.receive('b', max_messages => 3000)");
failures('b', 3000);
ok(one($node, "SELECT count(*) FROM mq_internal.failure f JOIN mq_internal.consumer_group g USING (group_no) JOIN mq_internal.queue q USING (queue_no) WHERE q.name = 'b'") < 300, 'three thousand that fail together are few rows');
is(one($node, "SELECT count(*) FROM mq.failures WHERE queue = 'b' AND next_due_at BETWEEN now() + interval '50 min' AND now() + interval '70 min'"), '3000', 'which say when they come back');

# somebody who floods it fills his share only
one($node, q{SELECT mq.create_queue('flood'); SELECT mq.alter_group('flood', 'default', '{"retry_delays": null, "max_failures": null}'); SELECT mq.send('flood', '1')});
my $worker = backend_pid($node, 'mq worker');
kill 'STOP', $worker;
one($node, q{DO $$ BEGIN FOR i IN 1 .. 1000 LOOP PERFORM mq.nack(receipt, reason => repeat('x', 3000)) FROM mq.receive('flood'); END LOOP; END $$});
one($node, "SELECT mq.send('f', '9'); SELECT mq.nack(receipt, reason => 'beside it') FROM mq.receive('f', max_messages => 10)");
kill 'CONT', $worker;
is(one($node, "SELECT failures FROM mq.browse('flood')"), '1000', 'every failure counts');
poll_until('notes', sub { one($node, "SELECT count(*) FROM mq.failures WHERE queue = 'f' AND reason = 'beside it'") > 0 });
ok(one($node, "SELECT count(*) BETWEEN 256 AND 512 FROM mq.failures WHERE queue = 'flood'") eq 't', '... though no more is written down than a share, and others have theirs');

# who sees what
one($node, "CREATE ROLE watch LOGIN; GRANT pg_read_all_stats TO watch; CREATE ROLE eats LOGIN; CREATE ROLE nobody LOGIN; SELECT mq.grant('p', 'consume', 'eats')");
is(one($node, "SET SESSION AUTHORIZATION watch; SELECT count(*) > 3000, count(reason) FROM mq.failures"), 't|0', 'who monitors sees that there are failures, no reasons');
is(one($node, "SET SESSION AUTHORIZATION eats; SELECT count(DISTINCT queue), count(reason) FROM mq.failures"), '1|0', 'who consumes those of its group');
is(one($node, "SET SESSION AUTHORIZATION nobody; SELECT count(*) FROM mq.failures"), '0', 'others nothing');

# over restarts
$node->restart;
is(one($node, "SELECT count(*) FROM mq.failures WHERE queue = 'flood' AND length(reason) = 2048") > 0 ? 'x' x 2048 : '', 'x' x 2048, 'what was written stays');
done_testing();
