SELECT mq.send('delay', '{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb, delay => '1 hour');
