#!/bin/sh
# As worker.sh, in one statement, for work that needs no decision.  Until SIGTERM.        worker_pop.sh

# When a message comes during the wait the statement takes nothing, for it could not see the order; the next one does
turn="
	WITH job AS (SELECT (payload->>'order')::bigint AS order_id FROM mq.pop('orders', wait => '20 s'))
	INSERT INTO invoices SELECT id, amount FROM job JOIN orders ON id = order_id"
stopping='' backoff=1

# a shell looks at signals only while it waits for what runs in the background
run() { "$@" & child=$!; [ -z "$stopping" ] || kill "$child"; wait "$child"; }
trap 'stopping=1; kill "$child" 2>/dev/null' TERM INT

until [ "$stopping" ]; do
	if run psql -XAtq -v SHOW_CONTEXT=never -c "$turn"; then
		backoff=1
	elif [ -z "$stopping" ]; then
		echo "failed; once more in $backoff s" >&2
		run sleep "$backoff"
		[ "$backoff" -ge 5 ] || backoff=$((2 * backoff))
	fi
done
echo stopped
