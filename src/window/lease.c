/*
 * lease.c: leases of entries, given and put back. See lease.h.
 */
#include "postgres.h"

#include "window/lease.h"

#include "utils/timestamp.h"

#include "window/wake.h"

#define EXPIRE_AT_ONCE 256

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

/*
 * A lease that has run out goes on while its transaction is open; its commit ends it (mq_window_end_overdue), so that nobody has to
 * look again. False: that transaction is over already. Who commits is seen to be over first, and then reads `overdue`; here
 * that is written first: one of the two sees the other.
 */
static bool
put_off(MqWindow *window, uint32 node)
{
	MqNode	   *n = MqNodeAt(node);

	if (!mq_session_transaction_open(n->owner))
		return false;
	window->overdue = true;
	pg_memory_barrier();
	if (!mq_session_transaction_open(n->owner))
		return false;
	n->flags |= MQ_NODE_OVERDUE;
	mq_tree_refresh(window, node);
	return true;
}

bool
mq_lease_expire_some(MqWindow *window, TimestampTz now)
{
	for (int i = 0; i < EXPIRE_AT_ONCE; i++)
	{
		uint32		node = mq_tree_first_expired(window, now);

		if (node == 0)
			return false;
		if (!put_off(window, node))
			mq_lease_put_back(window, node, true, 0);
	}
	return true;
}
