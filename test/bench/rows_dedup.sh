# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154   # tools/bench sources this
# The row of the benchmark about messages with a deduplication id. As rows.sh.

all_rows+=(dedup)

dedup_about() {
	title='send with dedup_id, 1 per transaction, 16 clients' limit_title='INSERT ... ON CONFLICT DO NOTHING of the same row with a unique key'
	gate=0.80 target=1.0 sides='limit mq'
}
dedup_setup() {
	sql -c 'CREATE TABLE bench.dedup (id bigint GENERATED ALWAYS AS IDENTITY, enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(), payload jsonb, dedup_id text NOT NULL UNIQUE)'
	if_side mq sql -c "SELECT mq.create_queue('dedup')"
}
dedup_rate() { pgbench_rate 16 "dedup.$1.sql"; }
dedup_done() {
	sql -c 'DROP TABLE bench.dedup'
	if_side mq sql -c "SELECT mq.drop_queue('dedup', force => true)"
}
