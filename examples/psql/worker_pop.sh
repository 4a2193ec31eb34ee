#!/bin/sh
# The other way to consume: mq.pop receives and acks in the transaction that does the work, here in one statement.
# Until SIGTERM.        worker_pop.sh
#
# There is no lease to lose and no receipt to keep: the commit finishes the messages together with the invoices, a rollback
# gives them back at once.

# what comes while a statement waits is newer than its snapshot, so a statement of its own does the waiting
wait="CALL mq.wait('orders', '1 s')"
turn="
	WITH job AS (SELECT (payload->>'order')::bigint AS order_id FROM mq.pop('orders', 10))
	INSERT INTO invoices SELECT id, amount FROM job JOIN orders ON id = order_id"
stopping='' backoff=1
trap 'stopping=1' TERM INT

until [ "$stopping" ]; do
	case $(psql -XAt -v SHOW_CONTEXT=never -c "$wait" -c "$turn") in
	*'INSERT '*)  backoff=1 ;;
	*)            echo "failed; again in $backoff s" >&2
	              sleep "$backoff"
	              [ "$backoff" -ge 30 ] || backoff=$((2 * backoff)) ;;
	esac
done
echo stopped
