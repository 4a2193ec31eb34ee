SELECT mq.send('notify_on', '{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb);
