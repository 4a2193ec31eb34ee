#!/bin/sh
# Takes orders and writes their invoices, until SIGTERM.        worker.sh
#
# psql has no loop; here is one.  It connects anew for each turn, which a pooler makes cheap.

turn=$(dirname "$0")/worker.sql
stopping='' backoff=1
trap 'stopping=1' TERM INT

until [ "$stopping" ]; do
	if psql -XAtq -f "$turn"; then
		backoff=1
	else
		echo "no connection; again in $backoff s" >&2
		sleep "$backoff"
		[ "$backoff" -ge 30 ] || backoff=$((2 * backoff))
	fi
done
echo stopped
