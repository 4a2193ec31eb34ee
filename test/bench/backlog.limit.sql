SELECT mq.send('backlog_1k', '{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb);
SELECT receipt FROM mq.receive('backlog_1k') \gset
SELECT mq.ack(:receipt);
