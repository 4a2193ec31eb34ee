-- a nack's delay holds for what the transaction itself has sent, too
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
RESET client_min_messages;
SELECT mq.create_queue('own');

-- the delay of the first, of one in the middle, of the last; by nack with a delay, by text, by array
BEGIN;
SELECT mq.send('own', to_jsonb(i)) IS NOT NULL AS sent FROM generate_series(1, 5) i;
SELECT mq.nack(receipt, '1 hour') FROM mq.receive('own', max_messages => 5) WHERE payload IN ('1', '3', '5');
SELECT payload FROM mq.receive('own', max_messages => 10);
SELECT payload FROM mq.pop('own', max_messages => 10);
-- the clock: a delay that is short ends
SELECT mq.send('own', '"short"') IS NOT NULL AS sent;
SELECT mq.nack(receipt, '50 ms') FROM mq.receive('own', max_messages => 10);
SELECT payload, attempt, failures FROM mq.pop('own', max_messages => 10, wait => '30 s');
COMMIT;
-- the delays go on after the commit, for everybody
SELECT payload FROM mq.pop('own', max_messages => 10);
SELECT payload, failures FROM mq.browse('own', states => '{retrying}') ORDER BY id;
SELECT mq.purge('own');

-- discard finds what is delayed, and what it leaves alone keeps its delay
BEGIN;
SELECT mq.send('own', '"a"') AS a, mq.send('own', '"b"') AS b \gset
SELECT count(mq.nack(receipt, '1 hour')) FROM mq.receive('own', max_messages => 10);
SELECT mq.discard('own', 'default', ARRAY[:a]);
SELECT payload FROM mq.pop('own', max_messages => 10);
COMMIT;
SELECT payload FROM mq.pop('own', max_messages => 10);
SELECT mq.purge('own');

-- in a savepoint
BEGIN;
SELECT mq.send('own', '"s"') IS NOT NULL AS sent;
SAVEPOINT a;
SELECT mq.nack(receipt, '1 hour') FROM mq.receive('own', max_messages => 10);
ROLLBACK TO a;
-- the nack stays
SELECT payload FROM mq.pop('own', max_messages => 10);
COMMIT;
SELECT payload FROM mq.pop('own', max_messages => 10);
SELECT mq.drop_queue('own', force => true);
