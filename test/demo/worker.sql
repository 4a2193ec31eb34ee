-- A worker (pgbench): up to three orders a turn.
SELECT orders AS jobs FROM write_invoices(3)
\gset
\if :jobs = 0
	\sleep 20 ms
\endif
