# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154   # tools/bench sources this
# The rows of the benchmark.  Each has
#   <row>_about          what it is, its gate and target, the sides that can do it
#   <row>_setup          once, before its first round (optional)
#   <row>_before <side>  before each round, not measured (optional)
#   <row>_rate  <side>   one round: prints messages per second (for wal: bytes per message; for wake: two times; for idle: CPU)
#   <row>_done           after its last round (optional)
# Ratios are rate of mq / rate of limit, and of a peer / rate of limit, or of that peer's own limit where it has one
# (skip_locked_limit).  In rows about sizes, times and CPU lower is better.  A row may have parts: as many values per round, each
# with a gate and a target; and `also`: a side that has to pass the same gates.

all_rows=(send receive_ack send_batch fetch held backlog wal wake wake_100 notify idle idle_5000)
bench=$work/src/test/bench

# pgbench_rate <clients> <script> [database]: transactions per second
pgbench_rate() {
	pgbench_run "$@" | sed -n 's/^tps = \([0-9.]*\).*/\1/p'
}

# pgbench_run <clients> <script> [database] [options]: pgbench's report; an error of any client is an error
pgbench_run() {
	local clients=$1 script=$bench/$2 database=${3:-bench} threads=2; shift 2; shift || true
	[ "$clients" -ge 2 ] || threads=1
	pgbench -n -M prepared -c "$clients" -j "$threads" -T "$SECONDS_PER_ROUND" -f "$script" "$@" "$database" \
		>"$work/tmp/pgbench" 2>"$work/tmp/pgbench.err" && ! grep -q aborted "$work/tmp/pgbench.err" ||
		{ cat "$work/tmp/pgbench.err" >&2; return 1; }
	cat "$work/tmp/pgbench"
}

processed() { sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$work/tmp/pgbench"; }

# make_database <name>: with the tables of every side that takes part
make_database() {
	local side
	q -c "CREATE DATABASE $1" >/dev/null
	for side in limit mq skip_locked pgq; do
		if_side "$side" q -d "$1" -f "$bench/$side.sql" >/dev/null
	done
}
drop_database() { q -c "DROP DATABASE $1 WITH (FORCE)" >/dev/null; }

sql() { q -d bench -c "SET client_min_messages = warning" "$@" >/dev/null; }
# client <name>: compiles test/bench/<name>.c, to $work/<name>
client() { "${CC:-cc}" -std=gnu99 -O2 -I"$("$PG_CONFIG" --includedir)" "$bench/$1.c" -o "$work/$1" -L"$("$PG_CONFIG" --libdir)" -lpq; }
times() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f\n", a * b }'; }

# ---- send ------------------------------------------------------------------------------------------------------------

send_about() {
	title='send, 1 per transaction, 16 clients' limit_title='plain INSERT, table with a PK'
	gate=0.95 target=1.0 sides='limit mq skip_locked pgq'
}
send_setup() { if_side mq sql -c "SELECT mq.create_queue('send')"; }
send_rate()  { pgbench_rate 16 "send.$1.sql"; }
send_done()  { if_side mq sql -c "SELECT mq.drop_queue('send', force => true)"; if_side skip_locked sql -c 'TRUNCATE bench.skip_locked'; }

# ---- receive + ack ---------------------------------------------------------------------------------------------------

receive_ack_about() {
	title='receive 1 + ack 1, two transactions, 16 clients, backlog 1M' limit_title='plain INSERT, table with a PK'
	gate=0.60 target=0.70 sides='limit mq skip_locked'
}
receive_ack_setup() {
	if_side mq sql -c "SELECT mq.create_queue('receive_ack')"
	backlog_mq=0 backlog_skip_locked=0
}
# every round begins with a million waiting
receive_ack_before() {
	case $1 in
		mq)          sql -c "CALL bench.fill_mq('receive_ack', $((1000000 - backlog_mq)))"; backlog_mq=1000000 ;;
		skip_locked) sql -c "CALL bench.fill_skip_locked($((1000000 - backlog_skip_locked)))"; backlog_skip_locked=1000000
		             sql -c 'VACUUM ANALYZE bench.skip_locked' ;;
	esac
}
receive_ack_rate()  { pgbench_rate 16 "receive_ack.$1.sql"; }
receive_ack_after() {
	case $1 in
		mq)          backlog_mq=$((backlog_mq - $(processed))) ;;
		skip_locked) backlog_skip_locked=$((backlog_skip_locked - $(processed))) ;;
	esac
}
receive_ack_done()  { if_side mq sql -c "SELECT mq.drop_queue('receive_ack', force => true)"; if_side skip_locked sql -c 'TRUNCATE bench.skip_locked'; }

# ---- send_batch ------------------------------------------------------------------------------------------------------

send_batch_about() {
	title='send_batch of 1000, server side' limit_title='INSERT ... SELECT, bare heap'
	gate=0.80 target=0.95 sides='limit mq skip_locked pgq'
}
send_batch_before() {
	case $1 in
		limit)       sql -c 'TRUNCATE bench.bare' ;;
		mq)          sql -c "SELECT mq.drop_queue(queue, force => true) FROM mq.queues WHERE queue = 'send_batch'" -c "SELECT mq.create_queue('send_batch')" ;;
		skip_locked) sql -c 'TRUNCATE bench.skip_locked' ;;
	esac
}
send_batch_rate() { times "$(pgbench_rate 1 "send_batch.$1.sql")" 50000; }
send_batch_done() {
	sql -c 'TRUNCATE bench.bare'
	if_side mq sql -c "SELECT mq.drop_queue('send_batch', force => true)"
	if_side skip_locked sql -c 'TRUNCATE bench.skip_locked'
}

# ---- fetch -----------------------------------------------------------------------------------------------------------

fetch_about() {
	title='receive 1000 to the client + ack' limit_title='SELECT, same columns and rows'
	gate=0.55 target=0.80 sides='limit mq skip_locked pgq'
}
fetch_setup() {
	client fetch
	if_side pgq sql -c 'CALL bench.fill_pgq(200)'
}
fetch_before() {
	case $1 in
		mq)          sql -c "SELECT mq.drop_queue(queue, force => true) FROM mq.queues WHERE queue = 'fetch'" -c "SELECT mq.create_queue('fetch')"
		             sql -c "CALL bench.fill_mq('fetch', $((300000 * SECONDS_PER_ROUND)))" ;;
		skip_locked) sql -c 'TRUNCATE bench.skip_locked' -c "CALL bench.fill_skip_locked($((60000 * SECONDS_PER_ROUND)))"
		             sql -c 'VACUUM ANALYZE bench.skip_locked' ;;
		pgq)         sql -c "SELECT pgq.register_consumer_at('bench', 'reader', (SELECT min(tick_id) FROM pgq.tick))" ;;
	esac
}
fetch_rate() {
	case $1 in
		limit) fetch 'SELECT * FROM bench.messages' ;;
		mq)    fetch "SELECT * FROM mq.receive('fetch', max_messages => 1000)" receipt 'SELECT mq.ack_batch($1)' ;;
		skip_locked)
			fetch "UPDATE bench.skip_locked SET visible_at = clock_timestamp() + interval '30 seconds', attempt = attempt + 1
			        WHERE id = ANY (array(SELECT id FROM bench.skip_locked WHERE visible_at <= clock_timestamp()
			                               ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED))
			       RETURNING *" \
				id 'DELETE FROM bench.skip_locked WHERE id = ANY ($1::bigint[])' ;;
		pgq)
			fetch "WITH batch AS MATERIALIZED (SELECT pgq.next_batch('bench', 'reader') AS batch_id)
			       SELECT * FROM batch, pgq.get_batch_events(batch_id) WHERE batch_id IS NOT NULL" \
				batch_id 'SELECT pgq.finish_batch(($1::bigint[])[1])' ;;
	esac
}
fetch() { "$work/fetch" "host=$PGHOST dbname=bench" "$SECONDS_PER_ROUND" "$@"; }
fetch_done() { if_side mq sql -c "SELECT mq.drop_queue('fetch', force => true)"; if_side skip_locked sql -c 'TRUNCATE bench.skip_locked'; }

# ---- a snapshot held elsewhere ---------------------------------------------------------------------------------------

held_about() {
	title='send + receive + ack, a snapshot held for the whole run' limit_title='the same without it'
	gate=0.95 target=1.0 sides='limit mq skip_locked_limit skip_locked'
}
# A snapshot holds back vacuum in its own database only.  The holder sits in the database bench_held.
held_setup() {
	local d
	make_database bench_held
	for d in bench bench_held; do
		if_side mq q -d "$d" -c "SELECT mq.create_queue('held')" -c "CALL bench.fill_mq('held', 1000)" >/dev/null
		if_side skip_locked q -d "$d" -c 'CALL bench.fill_skip_locked(1000)' -c 'VACUUM ANALYZE bench.skip_locked' >/dev/null
	done
	coproc HOLDER { psql -XAtq -d bench_held; }
	printf '%s\n' 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class;' >&"${HOLDER[1]}"
	read -r _ <&"${HOLDER[0]}"
}
held_rate() {
	case $1 in
		limit)             pgbench_rate 16 held.mq.sql bench ;;
		mq)                pgbench_rate 16 held.mq.sql bench_held ;;
		skip_locked_limit) pgbench_rate 16 held.skip_locked.sql bench ;;
		skip_locked)       pgbench_rate 16 held.skip_locked.sql bench_held ;;
	esac
}
held_done() {
	local holder=$HOLDER_PID
	printf '%s\n' 'COMMIT;' '\q' >&"${HOLDER[1]}"
	wait "$holder" || true
	drop_database bench_held
	if_side mq sql -c "SELECT mq.drop_queue('held', force => true)"
	if_side skip_locked sql -c 'TRUNCATE bench.skip_locked'
}

# ---- a backlog, and a message leased at its head ---------------------------------------------------------------------

backlog_about() {
	title='receive, backlog 3M, one leased at the head' limit_title='receive, backlog 1k'
	gate=0.90 target=1.0 sides='limit mq skip_locked_limit skip_locked'
}
backlog_setup() {
	if_side mq sql -c "SELECT mq.create_queue('backlog_1k')" -c "SELECT mq.create_queue('backlog_3m')"
	if_side mq sql -c "CALL bench.fill_mq('backlog_1k', 1000)"
	if_side mq sql -c "CALL bench.fill_mq('backlog_3m', 3000000)"
	if_side mq sql -c "SELECT FROM mq.receive('backlog_3m', visibility_timeout => '1 day')"
	if_side skip_locked sql -c 'CREATE TABLE bench.skip_locked_1k (LIKE bench.skip_locked INCLUDING ALL)' \
		-c 'INSERT INTO bench.skip_locked_1k (payload) SELECT bench.payload() FROM generate_series(1, 1000)'
	if_side skip_locked sql -c 'CALL bench.fill_skip_locked(3000000)'
	if_side skip_locked sql -c "UPDATE bench.skip_locked SET visible_at = now() + interval '1 day' WHERE id = (SELECT min(id) FROM bench.skip_locked)"
	if_side skip_locked sql -c 'VACUUM ANALYZE bench.skip_locked, bench.skip_locked_1k'
}
# the second statement of the script is the receive: 16 clients / its latency
backlog_rate() {
	pgbench_run 16 "backlog.$1.sql" bench -r |
		awk '/RETURNING|mq\.receive|UPDATE bench/ && $1 + 0 > 0 { printf "%.1f\n", 16000 / $1; exit }'
}
backlog_done() {
	if_side mq sql -c "SELECT mq.drop_queue('backlog_1k', force => true), mq.drop_queue('backlog_3m', force => true)"
	if_side skip_locked sql -c 'TRUNCATE bench.skip_locked' -c 'DROP TABLE bench.skip_locked_1k'
}

# ---- WAL -------------------------------------------------------------------------------------------------------------

wal_about() {
	title='WAL bytes per message, batches of 1000' limit_title='COPY of the same rows, bare heap'
	gate=1.15 target=1.03 sides='limit mq skip_locked pgq narrow' unit=' B' lower_is_better=1
}
wal_setup() {
	sql -c "COPY bench.rows TO '$work/tmp/rows'" -c "COPY (SELECT id, enqueued_at, payload FROM bench.rows) TO '$work/tmp/narrow'"
}
wal_before() {
	case $1 in
		limit)       sql -c 'DROP TABLE bench.bare' -c 'CREATE TABLE bench.bare (LIKE bench.rows)' ;;
		narrow)      sql -c 'DROP TABLE IF EXISTS bench.narrow' -c 'CREATE TABLE bench.narrow AS SELECT id, enqueued_at, payload FROM bench.rows LIMIT 0' ;;
		mq)          sql -c "SELECT mq.drop_queue(queue, force => true) FROM mq.queues WHERE queue = 'wal'" -c "SELECT mq.create_queue('wal')" ;;
		skip_locked) sql -c 'TRUNCATE bench.skip_locked' ;;
		pgq)         sql -c 'TRUNCATE pgq.event_template CASCADE' ;;
	esac
}
# a hundred batches, each a transaction of its own
wal_rate() {
	local i
	for ((i = 0; i < 100; i++)); do
		case $1 in
			limit)       printf '%s\n' "COPY bench.bare FROM '$work/tmp/rows';" ;;
			narrow)      printf '%s\n' "COPY bench.narrow FROM '$work/tmp/narrow';" ;;
			mq)          printf '%s\n' "SELECT cardinality(mq.send_batch('wal', array(SELECT payload FROM bench.rows)));" ;;
			skip_locked) printf '%s\n' 'INSERT INTO bench.skip_locked (payload) SELECT payload FROM bench.rows;' ;;
			pgq)         printf '%s\n' "SELECT count(pgq.insert_event('bench', 'order', payload::text)) FROM bench.rows;" ;;
		esac
	done >"$work/tmp/wal.sql"
	local from to
	from=$(q -d bench -c 'SELECT pg_current_wal_insert_lsn()')
	q -d bench -f "$work/tmp/wal.sql" >/dev/null
	to=$(q -d bench -c 'SELECT pg_current_wal_insert_lsn()')
	q -d bench -c "SELECT round(pg_wal_lsn_diff('$to', '$from') / 100000, 1)"
}
wal_done() { if_side mq sql -c "SELECT mq.drop_queue('wal', force => true)"; sql -c 'DROP TABLE IF EXISTS bench.narrow'; }

# ---- waking a receiver -----------------------------------------------------------------------------------------------

wake_about()     { waking_about 1; }
wake_setup()     { waking_setup; }
wake_rate()      { waking_rate "$1" 1; }
wake_done()      { waking_done; }
wake_note()      { waking_note; }
wake_100_about() { waking_about 100; }
wake_100_setup() { waking_setup; }
wake_100_rate()  { waking_rate "$1" 100; }
wake_100_done()  { waking_done; }
wake_100_note()  { waking_note; }

waking_about() {
	title="from send issued to message at the client of a blocked receiver, $1 waiting: pop; lease: receive (ack after it)"
	limit_title='plain INSERT, table with a PK, issued to answered, p50'
	parts='p50 p99' gate='2.5 6' target='1.5 3' sides='limit mq lease' also=lease unit=' us' lower_is_better=1
}
waking_setup() {
	client wake
	if_side mq sql -c "SELECT mq.create_queue('wake')"
	: >"$work/tmp/wakes"
}
waking_rate() {
	local send="SELECT mq.send('wake', \$1)"
	case $1 in
		limit) wake 'INSERT INTO bench.plain (payload) VALUES ($1::jsonb)' ;;
		mq)    wake "$send" "$2" "SELECT payload FROM mq.pop('wake', wait => '60 s')" ;;
		lease) wake "$send" "$2" "SELECT payload, receipt FROM mq.receive('wake', wait => '60 s')" 'SELECT mq.ack($1)' ;;
	esac
	sed "s/^/$1 /" "$work/tmp/wake" >>"$work/tmp/wakes"
	# the limit of both parts is its p50
	awk -v side="$1" '$1 == "issued" { print $2, side == "limit" ? $2 : $3 }' "$work/tmp/wake"
}
wake() { "$work/wake" "host=$PGHOST dbname=bench" "$SECONDS_PER_ROUND" 200 "$@" >"$work/tmp/wake"; }
waking_done() { if_side mq sql -c "SELECT mq.drop_queue('wake', force => true)"; }
waking_note() {
	say "    from the send's answer, that is from its commit (p50, p99): pop $(wakes mq answered), $(wakes mq answered 4) us, lease $(wakes lease answered), $(wakes lease answered 4) us"
	say "    the send alone: $(wakes mq send), $(wakes mq send 4) us; the INSERT: $(wakes limit issued), $(wakes limit issued 4) us"
	say "    messages that took more than 0.5 s: $(awk '$2 == "late" { n += $3 } END { print n + 0 }' "$work/tmp/wakes"); sent while no receiver waited: $(awk '$2 == "busy" { n += $3 } END { print n + 0 }' "$work/tmp/wakes"), of $(awk '$2 == "send" { n += $6 } END { print n + 0 }' "$work/tmp/wakes")"
}
# wakes <side> <what> [column]: median of the rounds' p50 (4: p99)
wakes() { awk -v side="$1" -v what="$2" -v column="${3:-3}" '$1 == side && $2 == what { print "it", 0, $column }' "$work/tmp/wakes" >"$work/tmp/column"; median_of it "$work/tmp/column"; }

# ---- LISTEN ----------------------------------------------------------------------------------------------------------

notify_about() {
	title="send, 1 per transaction, 16 clients, notify_interval 100 ms, 50 sessions that LISTEN"
	limit_title='no notify_interval, 50 sessions idle'
	gate=0.98 target=1.0 sides='limit mq'
}
notify_setup() {
	client hold
	sql -c "SELECT mq.create_queue('notify_off')" -c "SELECT mq.create_queue('notify_on', options => '{\"notify_interval\": \"100 ms\"}')"
	notified=0
}
notify_before() {
	case $1 in
		limit) hold 50 ;;
		mq)    hold 50 'LISTEN mq_notify_on' ;;
	esac
}
notify_rate()  { pgbench_rate 16 "notify.$1.sql"; }
notify_after() {
	hold_end
	# a worker that says nothing must not pass for a cheap one
	if [ "$1" = mq ]; then notified=$((notified + held)); fi
}
notify_note()  { say "    notifications read by each session, per second of a round: $(awk -v n="$notified" -v s="$SECONDS_PER_ROUND" -v r="$ROUNDS" 'BEGIN { printf "%.1f", n / 50 / s / r }')"; }
notify_done()  {
	sql -c "SELECT mq.drop_queue('notify_off', force => true), mq.drop_queue('notify_on', force => true)"
	[ "$notified" -gt 0 ] || die 'notify: nobody was notified'
}

# hold <connections> [statement]: opens them, and runs the statement on each
hold() {
	coproc HOLDER { "$work/hold" "host=$PGHOST dbname=bench application_name=hold" "$@"; }
	read -r held <&"${HOLDER[0]}" && [ "$held" = ready ] || die 'hold: no connections'
	sleep 1
}
# ends them; held: how many notifications they got
hold_end() {
	local pid=$HOLDER_PID in=${HOLDER[1]} out=${HOLDER[0]}
	exec {in}>&-
	read -r held <&"$out"
	wait "$pid"
}

# ---- idle waiters ----------------------------------------------------------------------------------------------------

idle_about() {
	title='CPU of 200 idle waiters and of the worker, % of one core, over 10 s; the difference counts' limit_title='the same sessions idle'
	gate=0.5 target=0.1 sides='limit mq' unit=' %' lower_is_better=1 by_difference=1
}
idle_setup() { client hold; sql -c "SELECT mq.create_queue('idle')"; }
idle_before() {
	case $1 in
		limit) hold 200 ;;
		mq)    hold 200 "SELECT FROM mq.pop('idle', wait => '60 s')" ;;
	esac
}
idle_rate() {
	local from to waiting
	sleep 1
	from=$(cpu_ns)
	sleep 10
	to=$(cpu_ns)
	waiting=$(q -c "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hold' AND state = 'active'")
	[ "$waiting" = "$(if [ "$1" = mq ]; then echo 200; else echo 0; fi)" ] || die "idle, $1: $waiting sessions wait"
	awk -v ns=$((to - from)) 'BEGIN { printf "%.4f\n", ns / 10e9 * 100 }'
}
idle_after() { hold_end; }
idle_done()  { sql -c "SELECT mq.drop_queue('idle')"; }

# CPU time so far of the held sessions and of the database's worker, in nanoseconds: as the scheduler counts it (utime and stime
# are whole hundredths of a second, which each of 200 processes could stay below)
cpu_ns() {
	local pid ns total=0
	for pid in $(q -c "SELECT pid FROM pg_stat_activity WHERE application_name = 'hold' OR backend_type = 'mq worker' AND datname = 'bench'"); do
		read -r ns _ <"/proc/$pid/schedstat"
		total=$((total + ns))
	done
	say "$total"
}

# ---- idle queues -----------------------------------------------------------------------------------------------------

idle_5000_about() {
	title='CPU of the worker of a database with 5,000 idle queues, % of one core, over 10 s; the difference counts' limit_title='that of one with few'
	gate=2 target=1 sides='limit mq' unit=' %' lower_is_better=1 by_difference=1
}
idle_5000_setup() {
	local i
	q -c 'CREATE DATABASE bench_5000' >/dev/null
	q -d bench_5000 -c 'CREATE EXTENSION mq' >/dev/null
	for ((i = 0; i < 5000; i += 250)); do
		q -d bench_5000 -c "SELECT count(mq.create_queue('q' || i)) FROM generate_series($i, $i + 249) i" >/dev/null
	done
	# the worker has made its segments ahead, and been round
	for ((i = 0; i < 300; i++)); do
		[ "$(q -d bench_5000 -c 'SELECT count(*) FROM mq_internal.segment')" -lt 15000 ] || break
		sleep 1
	done
	sleep 10
}
idle_5000_rate() {
	local database=bench from to
	[ "$1" = limit ] || database=bench_5000
	from=$(worker_ns "$database")
	sleep 10
	to=$(worker_ns "$database")
	awk -v ns=$((to - from)) 'BEGIN { printf "%.4f\n", ns / 10e9 * 100 }'
}
idle_5000_done() {
	idle_5000_memory=$(awk '/^RssAnon/ { printf "%.0f", $2 / 1024 }' "/proc/$(worker_of bench_5000)/status")
	drop_database bench_5000
}
idle_5000_note() { say "    memory of that worker alone: $idle_5000_memory MB"; }

worker_of() { q -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = '$1'"; }
worker_ns() { cut -d' ' -f1 "/proc/$(worker_of "$1")/schedstat"; }
