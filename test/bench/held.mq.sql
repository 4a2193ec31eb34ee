SELECT mq.send('held', '{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb);
SELECT receipt FROM mq.receive('held') \gset
SELECT mq.ack(:receipt);
