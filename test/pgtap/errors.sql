-- contract: the error codes
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
SELECT mq.create_queue('tap');
SELECT mq.send('tap', '1');
CREATE TEMP TABLE wrong (code text, call text);
INSERT INTO wrong VALUES
	('42710', $$mq.create_queue('tap')$$),
	('22023', $$mq.create_queue('')$$),
	('22023', $$mq.create_queue(repeat('x', 49))$$),
	('22004', $$mq.create_queue(NULL)$$),
	('22023', $$mq.create_queue('x', options => '{"segment_size": 1023}')$$),
	('22023', $$mq.create_queue('x', options => '{"segment_size": 1073741825}')$$),
	('42704', $$mq.drop_queue('nothing')$$),
	('22004', $$mq.drop_queue(NULL)$$),
	('55000', $$mq.drop_queue('tap')$$),
	('42704', $$mq.send('nothing', '1')$$),
	('22004', $$mq.send(NULL, '1')$$),
	('22004', $$mq.send('tap', NULL)$$),
	('22004', $$mq.send('tap')$$),
	('22P02', $$mq.send('tap', 'not json')$$),
	('54000', $$mq.send('tap', to_jsonb(repeat('x', 17000000)))$$),
	('54000', $$mq.send('tap', body => decode(repeat('00', 17000000), 'hex'))$$),
	('42704', $$mq.send_batch('nothing', array['1']::jsonb[])$$),
	('22004', $$mq.send_batch('tap', NULL::jsonb[])$$),
	('22004', $$mq.send_batch('tap', array['1', NULL]::jsonb[])$$),
	('22023', $$mq.send_batch('tap', array['1']::jsonb[], array['1', '2']::jsonb[])$$),
	('22023', $$mq.send_batch('tap', array[['1'], ['2']]::jsonb[])$$),
	('22P02', $$mq.send_batch('tap', array['not json']::jsonb[])$$),
	('42704', $$mq.receive('nothing')$$),
	('42704', $$mq.receive('tap', consumer_group => 'strangers')$$),
	('22004', $$mq.receive(NULL)$$),
	('22004', $$mq.receive('tap', max_messages => NULL)$$),
	('22023', $$mq.receive('tap', max_messages => 0)$$),
	('22023', $$mq.receive('tap', max_messages => 1000001)$$),
	('22023', $$mq.receive('tap', max_messages => 1, visibility_timeout => '0')$$),
	('22023', $$mq.receive('tap', max_messages => 1, visibility_timeout => '366 days')$$),
	('42704', $$mq.pop('nothing')$$),
	('42704', $$mq.pop('tap', consumer_group => 'strangers')$$),
	('22023', $$mq.pop('tap', max_messages => -1)$$),
	('MQ001', $$mq.ack(gen_random_uuid())$$),
	('MQ001', $$mq.ack_batch(array[gen_random_uuid()])$$),
	('22004', $$mq.ack(NULL::uuid)$$),
	('22004', $$mq.ack_batch(NULL::uuid[])$$),
	('22023', $$mq.ack_batch(array['00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000']::uuid[])$$),
	('MQ001', $$mq.nack(gen_random_uuid())$$),
	('22023', $$mq.nack(gen_random_uuid(), '-1 s')$$),
	('22023', $$mq.nack(gen_random_uuid(), '366 days')$$),
	('MQ001', $$mq.release(gen_random_uuid())$$),
	('MQ001', $$mq.extend(gen_random_uuid(), '1 s')$$),
	('22023', $$mq.extend(gen_random_uuid(), '0')$$),
	('22004', $$mq.extend(gen_random_uuid(), NULL)$$),
	('42704', $$mq.discard('nothing', 'default', array[1])$$),
	('22004', $$mq.discard('tap', 'default', NULL)$$),
	('22023', $$mq.discard('tap', 'default', array[1, 1])$$);
SELECT plan((SELECT count(*)::int FROM wrong) + 3);
SELECT throws_ok('SELECT ' || call, code, NULL, call || ' raises ' || code) FROM wrong;
SELECT lives_ok($$SELECT mq.ack_batch(array[gen_random_uuid()], strict => false)$$, 'with strict => false a refused receipt is no error');
SELECT lives_ok($$SELECT mq.create_queue('tap', if_not_exists => true)$$, 'if_not_exists');
SELECT is((SELECT count(*)::int FROM mq.receive('tap', max_messages => 10)), 1, 'after all of these the one message is there');
SELECT * FROM finish();
ROLLBACK;
