INSERT INTO bench.dedup (payload, dedup_id) VALUES ('{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb, gen_random_uuid()::text) ON CONFLICT (dedup_id) DO NOTHING;
