/*
 * lease.c: leases of entries, given and put back. See lease.h.
 */
#include "postgres.h"

#include "window/lease.h"

#include "utils/timestamp.h"

#include "window/wake.h"

#define EXPIRE_AT_ONCE 256
#define PAUSE_MAX_US (30 * USECS_PER_SEC)

bool
mq_lease_holds(const MqNode *n, TimestampTz now)
{
	return n->due > now || mq_session_transaction_open(n->owner);
}

/*
 * When a message that comes back by itself may be handed out again: the first time at once, then after a pause that doubles,
 * else one that fails at once would be first in line for ever. What was nobody's failure waits longer, but later. Rounded
 * up, so that neighbours that come back one after the other stay one entry.
 */
static TimestampTz
pause_end(const MqNode *n, bool failed)
{
	int			times = failed ? n->failures - 1 : n->attempts - n->failures - 2;
	int64		first = failed ? INT64CONST(100000) : USECS_PER_SEC;
	int64		pause;
	TimestampTz end;

	if (times < 1)
		return 0;
	pause = Min(first << Min(times - 1, 9), PAUSE_MAX_US);
	end = GetCurrentTimestamp() + pause;
	return end + pause / 8 - end % (pause / 8);
}

/* The number of the node means nothing afterwards: it may have joined a neighbour (mq_tree_coalesce). */
void
mq_lease_put_back(MqWindow *window, uint32 node, bool failed, TimestampTz due)
{
	MqNode	   *n = MqNodeAt(node);

	mq_consumer_leave(window, n);
	n->token = 0;
	n->owner = 0;
	if (failed && n->failures < PG_UINT16_MAX)
		n->failures++;
	n->due = due == MQ_DUE_AFTER_PAUSE ? pause_end(n, failed) : due;
	if (n->due > 0)
		mq_wake_note_time(window, n->due);
	window->failures_changed |= failed;
	window->changes++;
	/* its sender may still be undecided: look-ahead finds out */
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

/* Attempts and failures stay: the messages inherit them when they are read. Where they are is forgotten. */
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
	mq_consumer_join(window, n, consumer);
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
			mq_lease_put_back(window, node, true, MQ_DUE_AFTER_PAUSE);
	}
	return true;
}
