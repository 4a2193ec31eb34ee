SELECT mq.send('due_held', '{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb, delay => '5 ms');
SELECT count(*) FROM mq.pop('due_held', max_messages => 10);
