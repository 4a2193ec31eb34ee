/*
 * lease.c: leases of entries, given and put back. See lease.h.
 */
#include "postgres.h"

#include "window/lease.h"

#include "utils/timestamp.h"

#include "window/wake.h"

#define EXPIRE_AT_ONCE 256
/* a lease that has run out while its transaction is still open is looked at again after this */
#define OPEN_LEASE_RECHECK_MS 50

bool
mq_lease_holds(const MqNode *n, TimestampTz now)
{
	return n->due > now || mq_session_transaction_open(n->owner);
}

void
mq_lease_put_back(MqWindow *window, uint32 node, bool failed, TimestampTz due)
{
	MqNode	   *n = MqNodeAt(node);

	mq_consumer_leave(window, n);
	n->token = 0;
	n->owner = 0;
	n->due = due;
	if (due > 0)
		mq_wake_note_time(window, due);
	if (failed && n->failures < PG_UINT16_MAX)
		n->failures++;
	window->failures_changed |= failed;
	window->changes++;
	if (n->flags & MQ_NODE_OWN_SENT)
	{
		n->flags = 0;
		n->block = InvalidBlockNumber;
		mq_tree_set_state(window, node, MQ_UNREAD);
		window->walk_seq++;
		return;
	}
	n->flags = 0;
	mq_tree_set_state(window, node, MQ_READY);
	mq_tree_coalesce(window, node);
}

void
mq_lease_put_unread(MqWindow *window, uint32 node, TimestampTz due)
{
	MqNode	   *n = MqNodeAt(node);

	mq_consumer_leave(window, n);
	n->token = 0;
	n->owner = 0;
	n->due = due;
	n->flags = 0;
	n->block = InvalidBlockNumber;
	mq_tree_set_state(window, node, MQ_UNREAD);
	window->walk_seq++;
}

void
mq_lease_give(MqWindow *window, uint32 node, const MqTaker *taker, uint32 consumer)
{
	MqNode	   *n = MqNodeAt(node);

	n->token = taker->token;
	n->owner = taker->owner;
	n->due = taker->deadline;
	mq_consumer_join(n, consumer);
	if (n->attempts < PG_UINT16_MAX)
		n->attempts++;
	mq_tree_set_state(window, node, MQ_LEASED);
	mq_wake_note_time(window, taker->deadline);
}

bool
mq_lease_expire_some(MqWindow *window, TimestampTz now)
{
	for (int i = 0; i < EXPIRE_AT_ONCE; i++)
	{
		uint32		node = mq_tree_first_expired(window, now);

		if (node == 0)
			return false;
		if (mq_session_transaction_open(MqNodeAt(node)->owner))
		{
			MqNodeAt(node)->due = TimestampTzPlusMilliseconds(now, OPEN_LEASE_RECHECK_MS);
			mq_tree_refresh(window, node);
		}
		else
			mq_lease_put_back(window, node, true, 0);
	}
	return true;
}
