SELECT mq.send('dedup', '{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb, dedup_id => gen_random_uuid()::text);
