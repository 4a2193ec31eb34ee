INSERT INTO bench.skip_locked (payload) VALUES ('{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}'::jsonb);
UPDATE bench.skip_locked SET visible_at = clock_timestamp() + interval '30 seconds', attempt = attempt + 1
 WHERE id = (SELECT id FROM bench.skip_locked WHERE visible_at <= clock_timestamp() ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, payload \gset
DELETE FROM bench.skip_locked WHERE id = :id;
