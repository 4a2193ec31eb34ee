UPDATE bench.skip_locked SET visible_at = clock_timestamp() + interval '30 seconds', attempt = attempt + 1
 WHERE id = (SELECT id FROM bench.skip_locked WHERE visible_at <= clock_timestamp() ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, payload \gset
DELETE FROM bench.skip_locked WHERE id = :id;
