#!/bin/sh
# Takes orders and writes their invoices, until SIGTERM.        worker.sh
#
# psql has no loop; here is one.  It connects anew for each turn, which a pooler makes cheap.

turn=$(dirname "$0")/worker.sql
stopping='' backoff=1

# a shell looks at signals only while it waits for what runs in the background
run() { "$@" & child=$!; [ -z "$stopping" ] || kill "$child"; wait "$child"; }
trap 'stopping=1; kill "$child" 2>/dev/null' TERM INT

until [ "$stopping" ]; do
	if run psql -XAtq -f "$turn"; then
		backoff=1
	elif [ -z "$stopping" ]; then
		echo "failed; once more in $backoff s" >&2
		run sleep "$backoff"
		[ "$backoff" -ge 5 ] || backoff=$((2 * backoff))
	fi
done
echo stopped
