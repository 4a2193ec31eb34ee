/*
 * lease.c: leases of entries, given and put back. See lease.h.
 */
#include "postgres.h"

#include "window/lease.h"

#include "common/hashfn.h"
#include "utils/timestamp.h"

#include "window/wake.h"

#define EXPIRE_AT_ONCE 256
#define PAUSE_MAX_US (30 * USECS_PER_SEC)
#define STEPS 16				/* a delay is rounded up to a part of it, */
#define SPREAD 0.03				/* and this part of it is added: in all less than a tenth */

const MqCause mq_lease_end = {MQ_FAILED_LEASE_END};

bool
mq_lease_holds(const MqNode *n, TimestampTz now)
{
	return n->due > now || mq_session_transaction_open(n->owner);
}

/* Rounded up to a part of the pause, so that neighbours that come back one after the other stay one entry. */
static TimestampTz
rounded(TimestampTz end, int64 step)
{
	step = Max(step, 1);
	return end + step - end % step;
}

/*
 * When a message that comes back, and has not failed, may be handed out again: twice at once, then after a pause that doubles, else it
 * would be first in line for ever.
 */
static TimestampTz
pause_end(const MqNode *n)
{
	int			times = n->attempts - n->failures - 2;
	int64		pause;

	if (times < 1)
		return 0;
	pause = Min(USECS_PER_SEC << Min(times - 1, 9), PAUSE_MAX_US);
	return rounded(GetCurrentTimestamp() + pause, pause / 8);
}

/*
 * When a message that has failed may be handed out again. Up to a tenth later than the ladder says: rounded, so that neighbours stay one
 * entry and a batch comes back as one, and spread, so that groups which failed together do not all come back together.
 */
static TimestampTz
retry_at(const MqWindow *window, const MqNode *n)
{
	const MqRetryPolicy *policy = &window->retry;
	int64		delay;
	TimestampTz end;
	uint32		spread;

	if (policy->ndelays == 0)
		return 0;
	delay = policy->delays[Min(n->failures, policy->ndelays) - 1];
	if (delay == 0)
		return 0;
	end = rounded(GetCurrentTimestamp() + delay, delay / STEPS);
	spread = hash_combine(murmurhash32((uint32) (end / Max(delay / STEPS, 1))), murmurhash32((uint32) window->key.group_no));
	return end + (int64) ((double) delay * SPREAD * spread / PG_UINT32_MAX);
}

bool
mq_lease_count_failure(const MqWindow *window, MqNode *n, const MqCause *cause)
{
	if (n->failures < PG_UINT16_MAX)
		n->failures++;
	if (mq_is_unexplained(cause) && n->unexplained < PG_UINT8_MAX)
		n->unexplained++;
	return window->retry.max_failures > 0 && 2 * (int64) n->failures - n->unexplained >= 2 * (int64) window->retry.max_failures;
}

/* The number of the node means nothing afterwards: it may have joined a neighbour (mq_tree_coalesce). */
void
mq_lease_put_back(MqWindow *window, uint32 node, const MqCause *cause, TimestampTz due)
{
	MqNode	   *n = MqNodeAt(node);

	if (cause != NULL && mq_lease_count_failure(window, n, cause))
		due = MQ_DUE_NEVER;
	if (due == MQ_DUE_AFTER_PAUSE)
		due = cause == NULL ? pause_end(n) : retry_at(window, n);
	if (cause != NULL)
		mq_failure_note(window, n, due, cause);
	mq_consumer_leave(window, n);
	n->token = 0;
	n->owner = 0;
	n->due = due;
	if (due > 0 && due != MQ_DUE_NEVER)
		mq_wake_note_time(window, due);
	/* only a checkpoint remembers how often, and until when */
	window->failures_changed |= cause != NULL || due != 0;
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
	mq_tree_set_state(window, node, due == MQ_DUE_NEVER ? MQ_DEAD : MQ_READY);
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
			mq_lease_put_back(window, node, &mq_lease_end, MQ_DUE_AFTER_PAUSE);
	}
	return true;
}
