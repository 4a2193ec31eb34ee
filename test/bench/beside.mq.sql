SELECT mq.send('beside', '{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb);
SELECT receipt FROM mq.receive('beside') \gset
SELECT mq.ack(:receipt);
