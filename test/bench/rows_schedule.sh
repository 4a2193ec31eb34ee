# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154   # tools/bench sources this
# The rows of the benchmark about messages with a delay. As rows.sh.

all_rows+=(delay due due_latency beside due_held)

# ---- send with delay -------------------------------------------------------------------------------------------------

delay_about() {
	title='send with delay, 1 per transaction, 16 clients' limit_title='INSERT of the same columns into a table with two indexes'
	gate=0.80 target=1.0 sides='limit mq'
}
delay_setup() {
	sql -f "$bench/schedule.limit.sql"
	if_side mq sql -c "SELECT mq.create_queue('delay')"
}
delay_rate() { pgbench_rate 16 "delay.$1.sql"; }
delay_done() {
	sql -c 'DROP TABLE bench.scheduled, bench.moved'
	if_side mq sql -c "SELECT mq.drop_queue('delay', force => true)"
}

# ---- many due at one moment ------------------------------------------------------------------------------------------

due_count() { say $((50000 * SECONDS_PER_ROUND)); }
due_about() {
	title="$(due_count) messages due at one moment, until all are moved"
	limit_title='INSERT ... SELECT and DELETE of as many rows with two indexes, batches of 1000, commits not flushed'
	gate=0.8 target=1.2 sides='limit mq'
}
due_setup() { sql -f "$bench/schedule.limit.sql"; }
# the moment is far enough for all to be sent before
due_before() {
	case $1 in
		limit) sql -c 'TRUNCATE bench.scheduled, bench.moved' -c "CALL bench.fill_scheduled($(due_count))" -c 'VACUUM ANALYZE bench.scheduled' ;;
		mq)    sql -c "SELECT mq.create_queue('due')"
		       sql -c "CALL bench.fill_due($(due_count), now() + make_interval(secs => $((4 + SECONDS_PER_ROUND * 2))))" ;;
	esac
}
due_rate() {
	case $1 in
		limit) q -d bench -c "SET synchronous_commit = off" -c "CALL bench.move_scheduled($(due_count))" -c 'SELECT rate FROM bench.moved_rate' | tail -1 ;;
		mq)    q -d bench -c 'CALL bench.wait_due()' -c 'SELECT rate FROM bench.due_rate' | tail -1 ;;
	esac
}
due_after() { [ "$1" = limit ] || sql -c "SELECT mq.drop_queue('due', force => true)"; }
due_done()  { sql -c 'DROP TABLE bench.scheduled, bench.moved'; }

# ---- a steady stream -------------------------------------------------------------------------------------------------

due_latency_about() {
	title='5,000 due per second for 20 s, 4 receivers: due to received' limit_title='plain INSERT, table with a PK, issued to answered, p50'
	parts='p50 p99' gate='10 40' target='4 15' sides='limit mq' unit=' us' lower_is_better=1
}
due_latency_setup() {
	client wake
	sql -f "$bench/schedule.limit.sql" -c 'CREATE TABLE bench.latency (us float8)'
	if_side mq sql -c "SELECT mq.create_queue('due_latency')"
}
due_latency_rate() {
	case $1 in
		limit)
			"$work/wake" "host=$PGHOST dbname=bench" "$SECONDS_PER_ROUND" 200 'INSERT INTO bench.plain (payload) VALUES ($1::jsonb)' >"$work/tmp/wake"
			awk '$1 == "issued" { print $2, $2 }' "$work/tmp/wake" ;;
		mq)
			sql -c 'TRUNCATE bench.latency' -c "CALL bench.fill_stream()"
			SECONDS_PER_ROUND=24 pgbench_run 4 due_latency.mq.sql >/dev/null
			q -d bench -c "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY us), percentile_cont(0.99) WITHIN GROUP (ORDER BY us) FROM bench.latency HAVING count(*) = 100000" | tr '|' ' ' ;;
	esac
}
due_latency_done() { sql -c 'DROP TABLE bench.latency, bench.scheduled, bench.moved'; if_side mq sql -c "SELECT mq.drop_queue('due_latency', force => true)"; }

# ---- a million scheduled messages beside -----------------------------------------------------------------------------

beside_about() {
	title='send + receive + ack beside 1M scheduled messages of the same queue, 16 clients' limit_title='the same without them'
	gate=0.97 target=1.0 sides='limit mq'
}
beside_before() {
	sql -c "SELECT mq.drop_queue(queue, force => true) FROM mq.queues WHERE queue = 'beside'" -c "SELECT mq.create_queue('beside')" -c "CALL bench.fill_mq('beside', 1000)"
	[ "$1" = limit ] || sql -c "SELECT count(mq.send_batch('beside', array_fill(bench.payload(), array[10000]), delays => '{1 hour}')) FROM generate_series(1, 100)"
}
beside_rate() { pgbench_rate 16 beside.mq.sql; }
beside_done() { sql -c "SELECT mq.drop_queue('beside', force => true)"; }

# ---- scheduled traffic, and a snapshot held elsewhere ----------------------------------------------------------------

due_held_about() {
	title='send with a delay of 5 ms + pop, 16 clients, a snapshot held for the whole run' limit_title='the same without it'
	gate=0.95 target=1.0 sides='limit mq'
}
due_held_setup() {
	local d
	make_database bench_held
	for d in bench bench_held; do q -d "$d" -c "SELECT mq.create_queue('due_held')" >/dev/null; done
	coproc HOLDER { psql -XAtq -d bench_held; }
	printf '%s\n' 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class;' >&"${HOLDER[1]}"
	read -r _ <&"${HOLDER[0]}"
}
due_held_rate() {
	case $1 in
		limit) pgbench_rate 16 due_held.mq.sql bench ;;
		mq)    pgbench_rate 16 due_held.mq.sql bench_held ;;
	esac
}
due_held_done() {
	local holder=$HOLDER_PID
	printf '%s\n' 'COMMIT;' '\q' >&"${HOLDER[1]}"
	wait "$holder" || true
	drop_database bench_held
	sql -c "SELECT mq.drop_queue('due_held', force => true)"
}
