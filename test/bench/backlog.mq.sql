SELECT mq.send('backlog_3m', '{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb);
SELECT receipt FROM mq.receive('backlog_3m') \gset
SELECT mq.ack(:receipt);
