# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154   # tools/bench sources this
# The rows of the benchmark about dead letters. As rows.sh.

all_rows+=(dead)

# ---- many dead letters, until all are moved --------------------------------------------------------------------------

dead_count() { say 100000; }
dead_about() {
	title="$(dead_count) dead letters, until all are moved" limit_title='INSERT ... SELECT of as many rows, batches of 1000, commits not flushed'
	gate=0.4 target=0.6 sides='limit mq'
}
dead_setup() { sql -f "$bench/dead.limit.sql"; }
dead_before() {
	case $1 in
		limit) sql -c 'TRUNCATE bench.letters, bench.graves' -c "CALL bench.fill_letters($(dead_count))" -c 'VACUUM ANALYZE bench.letters' ;;
		mq)    sql -c "SELECT mq.create_queue('dead')" -c "CALL bench.fill_dead($(dead_count))" ;;
	esac
}
dead_rate() {
	case $1 in
		limit) q -d bench -c 'SET synchronous_commit = off' -c "CALL bench.bury_letters($(dead_count))" -c 'SELECT rate FROM bench.dead_rate' | tail -1 ;;
		mq)    q -d bench -c "CALL bench.bury_dead($(dead_count))" -c 'SELECT rate FROM bench.dead_rate' | tail -1 ;;
	esac
}
dead_after() { [ "$1" = limit ] || sql -c "SELECT mq.drop_queue('dead', force => true)"; }
dead_done()  { sql -c 'DROP TABLE bench.letters, bench.graves'; }
