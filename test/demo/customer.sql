-- A customer (pgbench).  One in ten gives up; one in ten adds a second order and puts only that one back.
\set customer random(1, 1000)
\set amount random(100, 20000)
\set mood random(1, 10)
BEGIN;
SELECT place_order(:customer, :amount);
\if :mood = 1
	SELECT nextval('given_up');
	ROLLBACK;
\elif :mood = 2
	SAVEPOINT second_thoughts;
	SELECT place_order(:customer, :amount);
	SELECT nextval('put_back');
	ROLLBACK TO SAVEPOINT second_thoughts;
	COMMIT;
\else
	COMMIT;
\endif
