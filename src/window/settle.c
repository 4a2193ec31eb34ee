/*
 * settle.c: finishing messages: claims by receipt, discards by id, and the fate of the transaction that did it. See settle.h.
 */
#include "postgres.h"

#include "window/settle.h"

#include "utils/timestamp.h"

#include "window/lease.h"
#include "window/wake.h"

static bool
is_ack(MqClaimAction action)
{
	return action == MQ_CLAIM_SETTLE || action == MQ_CLAIM_POP;
}

/* What claims take: cells, and how many entries more there will be when all that is acked is finished. */
typedef struct Cuts
{
	int			cells;
	int			growth;
} Cuts;

/* An ack leaves one entry for each side of the node that it does not cover, instead of the node. */
static void
count_cut(Cuts *cuts, const MqNode *n, int64 lo, int64 hi, bool finishing)
{
	int			sides = (n->lo < lo) + (n->hi > hi);

	cuts->cells += sides;
	cuts->growth += finishing ? sides == 2 : sides;
}

/* Popped by the running transaction, and still in that pop. */
static bool
is_own_pop(const MqNode *n, uint64 xid)
{
	return n->state == MQ_SETTLING && n->owner == xid && (n->flags & (MQ_NODE_POPPED | MQ_NODE_LEFT)) == MQ_NODE_POPPED;
}

/*
 * Whether every id of the claim is leased with its token, and the leases hold (or, to give it up: popped by the very
 * transaction); adds to *cuts what it takes.
 */
static bool
claim_holds(const MqWindow *window, const MqClaim *claim, MqClaimAction action, uint64 xid, TimestampTz now, Cuts *cuts)
{
	int64		id = claim->lo;
	Cuts		own = *cuts;
	bool		finishing = is_ack(action);
	bool		may_leave = xid != 0 && (action == MQ_CLAIM_FAIL || action == MQ_CLAIM_RELEASE || action == MQ_CLAIM_CHECK);

	while (id <= claim->hi)
	{
		uint32		node = mq_tree_seek(window, id);
		const MqNode *n = MqNodeAt(node);

		if (node == 0 || n->lo > id || n->token != claim->token)
			return false;
		if (!(may_leave && is_own_pop(n, xid)) && (n->state != MQ_LEASED || !mq_lease_holds(n, now)))
			return false;
		count_cut(&own, n, id, claim->hi, finishing);
		id = n->hi + 1;
	}
	*cuts = own;
	return true;
}

/* A whole entry that is not SETTLING yet. After FAIL and RELEASE its number means nothing: it may have joined a neighbour. */
static void
claim_node(MqWindow *window, uint32 node, MqClaimAction action, uint64 xid, TimestampTz due, const MqCause *cause)
{
	MqNode	   *n = MqNodeAt(node);

	switch (action)
	{
		case MQ_CLAIM_POP:
		case MQ_CLAIM_SETTLE:
			/* a discard: so far the field is the file_tag */
			if (n->state == MQ_UNREAD)
				n->consumer = 0;
			n->flags &= ~MQ_NODE_OVERDUE;
			if (n->owner == mq_session_transaction())
				n->flags |= MQ_NODE_OWN_LEASE;
			if (action == MQ_CLAIM_POP)
				n->flags |= MQ_NODE_POPPED;
			n->owner = xid;
			mq_tree_set_state(window, node, MQ_SETTLING);
			break;
		case MQ_CLAIM_FAIL:
			mq_lease_put_back(window, node, cause, due);
			break;
		case MQ_CLAIM_RELEASE:
			mq_lease_put_back(window, node, NULL, due);
			break;
		case MQ_CLAIM_EXTEND:
			n->due = due;
			n->flags &= ~MQ_NODE_OVERDUE;
			mq_tree_refresh(window, node);
			mq_wake_note_time(window, due);
			break;
		case MQ_CLAIM_CHECK:
			break;
	}
}

/* It comes back when the transaction commits, not before: until then a savepoint may undo this. */
static void
leave_pop(MqNode *n, MqClaimAction action, TimestampTz due)
{
	n->flags |= action == MQ_CLAIM_FAIL ? MQ_NODE_NACKED : MQ_NODE_RELEASED;
	n->due = due;
}

/* A claim that holds; the list has the cells that claim_holds has counted. Returns how many messages it has. */
static int64
claim_apply(MqWindow *window, MqClaim *claim, MqClaimAction action, uint64 xid, TimestampTz due, const MqCause *cause,
			MqCellList *cells)
{
	int64		id = claim->lo;

	while (id <= claim->hi)
	{
		uint32		node = mq_tree_cut(window, mq_tree_seek(window, id), id, claim->hi, cells);

		id = MqNodeAt(node)->hi + 1;
		if (MqNodeAt(node)->state == MQ_SETTLING)
		{
			leave_pop(MqNodeAt(node), action, due);
			claim->left = true;
		}
		else
			claim_node(window, node, action, xid, due, cause);
	}
	return claim->hi - claim->lo + 1;
}

int64
mq_window_claim(const MqWindowRef *ref, MqClaim *claims, int count, MqClaimAction action, bool all_or_nothing,
				uint64 xid, TimestampTz due, const MqCause *cause, MqCellList *cells, int *needed, int32 *epoch)
{
	MqWindow   *window = ref->window;
	TimestampTz now = GetCurrentTimestamp();
	int64		changed = 0;
	bool		finishing = is_ack(action);
	Cuts		cuts = {0};
	bool		refused = false;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
	{
		for (int i = 0; i < count; i++)
			claims[i].refused = true;
		return 0;
	}
	*epoch = window->epoch;
	for (int i = 0; i < count; i++)
	{
		claims[i].left = false;
		claims[i].refused = !claim_holds(window, &claims[i], action, xid, now, &cuts);
		refused |= claims[i].refused;
	}
	/* who only checks has no cells, and needs none */
	if (cells != NULL && cuts.cells > 0 && !(refused && all_or_nothing))
	{
		bool		over = cuts.growth > 0 && !mq_window_may_grow(window, cells->count, finishing);

		if (over || cuts.cells > cells->count)
		{
			*needed = over ? MQ_OVER_SHARE : cuts.cells;
			mq_window_unlock(ref);
			return -1;
		}
	}
	for (int i = 0; i < count && action != MQ_CLAIM_CHECK && !(refused && all_or_nothing); i++)
		if (!claims[i].refused)
			changed += claim_apply(window, &claims[i], action, xid, due, cause, cells);
	mq_window_unlock(ref);
	if (changed > 0 && (action == MQ_CLAIM_FAIL || action == MQ_CLAIM_RELEASE))
		mq_wake_for_room(window);
	return changed;
}

/* Whether finishing the ids one by one leaves more entries than there are. */
static bool
discard_grows(const MqWindow *window, const int64 *ids, int count, uint8 states)
{
	Cuts		cuts = {0};

	for (int i = 0; i < count && cuts.growth == 0; i++)
	{
		uint32		node = mq_tree_seek(window, ids[i]);
		int64		first = ids[i];

		while (i + 1 < count && ids[i + 1] == ids[i] + 1)
			i++;
		if (node != 0 && MqNodeAt(node)->lo <= first && (MQ_IN(MqNodeAt(node)->state) & states) != 0)
			count_cut(&cuts, MqNodeAt(node), first, ids[i], true);
	}
	return cuts.growth > 0;
}

/*
 * ids[at] and those that follow it without a gap, as far as they are one entry: they stay one. Returns where the next ones
 * begin; 0: there is nothing to finish.
 */
static int
discard_stretch(MqWindow *window, const int64 *ids, int at, int count, uint8 states, uint64 xid, MqCellList *cells)
{
	uint32		node = mq_tree_seek(window, ids[at]);
	int			last = at;

	if (node == 0 || MqNodeAt(node)->lo > ids[at] || (MQ_IN(MqNodeAt(node)->state) & states) == 0)
		return 0;
	while (last + 1 < count && ids[last + 1] == ids[last] + 1 && ids[last + 1] <= MqNodeAt(node)->hi)
		last++;
	/* a walker that is reading it at this moment must not apply what it finds */
	if (MqNodeAt(node)->state == MQ_UNREAD)
		window->walk_seq++;
	node = mq_tree_cut(window, node, ids[at], ids[last], cells);
	claim_node(window, node, MQ_CLAIM_SETTLE, xid, 0, NULL);
	return last + 1;
}

/* discarded may be the array ids itself: it is never written further than ids was read. */
int64
mq_window_discard(const MqWindowRef *ref, const int64 *ids, int count, uint8 states, uint64 xid, MqCellList *cells,
				  int64 *discarded, int32 *epoch)
{
	MqWindow   *window = ref->window;
	int64		changed = 0;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return 0;
	*epoch = window->epoch;
	if (!mq_window_may_grow(window, cells->count, true) && discard_grows(window, ids, count, states))
	{
		mq_window_unlock(ref);
		return -1;
	}
	for (int i = 0; i < count;)
	{
		int			after = discard_stretch(window, ids, i, count, states, xid, cells);

		for (; after > 0 && i < after; i++)
			discarded[changed++] = ids[i];
		if (after == 0)
			i++;
	}
	mq_window_unlock(ref);
	return changed;
}

bool
mq_window_discard_range(const MqWindowRef *ref, int64 lo, int64 hi, uint64 xid, MqCellList *cells, int32 *epoch)
{
	MqWindow   *window = ref->window;
	bool		any = false;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return false;
	*epoch = window->epoch;
	while (lo <= hi)
	{
		uint32		node = mq_tree_seek(window, lo);

		if (node == 0 || MqNodeAt(node)->lo > hi)
			break;
		if (MqNodeAt(node)->state != MQ_SETTLING)
		{
			/* as in discard_stretch */
			if (MqNodeAt(node)->state == MQ_UNREAD)
				window->walk_seq++;
			node = mq_tree_cut(window, node, lo, hi, cells);
			claim_node(window, node, MQ_CLAIM_SETTLE, xid, 0, NULL);
			any = true;
		}
		lo = MqNodeAt(node)->hi + 1;
	}
	mq_window_unlock(ref);
	return any;
}

/* Whether it waits for a due time, or is dead. */
static bool
is_put_off(const MqNode *n, TimestampTz now)
{
	return (n->state == MQ_READY || n->state == MQ_UNREAD || n->state == MQ_DEAD) && n->due > now;
}

/* A whole entry that is put off. Where a dead one is need not be known: it is read again. */
static void
retry_node(MqWindow *window, uint32 node)
{
	MqNode	   *n = MqNodeAt(node);

	if (n->due == MQ_DUE_NEVER)
		n->failures = n->unexplained = 0;
	n->due = 0;
	if (n->state == MQ_DEAD)
	{
		mq_lease_put_unread(window, node, 0);
		return;
	}
	/* a walker that is reading it at this moment must not apply what it finds */
	if (n->state == MQ_UNREAD)
		window->walk_seq++;
	mq_tree_refresh(window, node);
}

int64
mq_window_retry(const MqWindowRef *ref, const int64 *ids, int count, MqCellList *cells)
{
	MqWindow   *window = ref->window;
	TimestampTz now = GetCurrentTimestamp();
	int64		changed = 0;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return 0;
	if (!mq_window_may_grow(window, cells->count, false))
	{
		mq_window_unlock(ref);
		return -1;
	}
	for (int i = 0; i < count; i++)
	{
		uint32		node = mq_tree_seek(window, ids[i]);

		if (node == 0 || MqNodeAt(node)->lo > ids[i] || !is_put_off(MqNodeAt(node), now))
			continue;
		retry_node(window, mq_tree_cut(window, node, ids[i], ids[i], cells));
		changed++;
	}
	if (changed > 0)
	{
		window->failures_changed = true;
		window->changes++;
	}
	mq_window_unlock(ref);
	if (changed > 0)
		mq_wake_for_room(window);
	return changed;
}

int
mq_window_peek(const MqWindowRef *ref, MqState state, int64 after, MqFared *fared, int max)
{
	int			count = 0;
	uint32		node;

	if (!mq_window_lock(ref, LW_SHARED))
		return 0;
	while (count < max && (node = mq_tree_first_in_state(ref->window, state, after + 1)) != 0)
	{
		const MqNode *n = MqNodeAt(node);

		for (after = Max(after, n->lo - 1); after < n->hi && count < max; after++)
			fared[count++] = (MqFared) {after + 1, n->attempts, n->failures};
	}
	mq_window_unlock(ref);
	return count;
}

int64
mq_window_discard_ready(const MqWindowRef *ref, int64 max, uint64 xid, MqCellList *cells, MqRange *ranges, int *count, int32 *epoch)
{
	MqWindow   *window = ref->window;
	int64		discarded = 0;
	int64		from = PG_INT64_MIN;

	*count = 0;
	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return 0;
	*epoch = window->epoch;
	while (*count < MQ_ENTRIES_PER_HOLD && discarded < max)
	{
		uint32		node = mq_tree_first_in_state(window, MQ_READY, from);
		const MqNode *n = MqNodeAt(node);
		int64		wanted;
		int64		last;

		if (node == 0)
			break;
		wanted = n->lo + (max - discarded) - 1;
		if (wanted < n->hi && cells->count == 0)
			break;
		last = Min(n->hi, wanted);
		node = mq_tree_cut(window, node, n->lo, last, cells);
		ranges[(*count)++] = (MqRange) {MqNodeAt(node)->lo, last};
		discarded += last - MqNodeAt(node)->lo + 1;
		claim_node(window, node, MQ_CLAIM_SETTLE, xid, 0, NULL);
		from = last + 1;
	}
	mq_window_unlock(ref);
	return discarded;
}

bool
mq_window_has_unfinished(const MqWindowRef *ref, int64 lo, int64 hi)
{
	bool		found = false;

	if (!mq_window_lock(ref, LW_SHARED))
		return false;
	while (!found && lo <= hi)
	{
		uint32		node = mq_tree_seek(ref->window, lo);

		if (node == 0 || MqNodeAt(node)->lo > hi)
			break;
		found = MqNodeAt(node)->state != MQ_SETTLING;
		lo = MqNodeAt(node)->hi + 1;
	}
	mq_window_unlock(ref);
	return found;
}

int
mq_window_count_unfinished(const MqWindowRef *ref, const int64 *ids, int count)
{
	int			unfinished = 0;

	if (!mq_window_lock(ref, LW_SHARED))
		return 0;
	for (int i = 0; i < count; i++)
	{
		uint32		node = mq_tree_seek(ref->window, ids[i]);

		unfinished += node != 0 && MqNodeAt(node)->lo <= ids[i] && MqNodeAt(node)->state != MQ_SETTLING;
	}
	mq_window_unlock(ref);
	return unfinished;
}

/* What left the pop of a transaction that is decided, either way. */
static void
come_back(MqWindow *window, uint32 node)
{
	/* who had it knows why, and says so (transaction.c) */
	static const MqCause nacked = {MQ_FAILED_NACK,.noted = true};
	const MqNode *n = MqNodeAt(node);

	mq_lease_put_back(window, node, (n->flags & MQ_NODE_NACKED) != 0 ? &nacked : NULL, n->due);
}

/*
 * An ack that did not happen: the lease goes on. If the same transaction had taken the lease, that did not happen
 * either: mine (a savepoint of the running transaction) it is still open and keeps it, else the message is ready again.
 */
static void
unsettle(MqWindow *window, uint32 node, bool mine)
{
	static const MqCause rolled_back = {MQ_FAILED_ROLLBACK};
	MqNode	   *n = MqNodeAt(node);
	bool		own_lease = (n->flags & MQ_NODE_OWN_LEASE) != 0;

	if (n->token == 0 && n->due == MQ_DUE_NEVER)
	{
		/* a dead one was discarded, or moved */
		n->owner = 0;
		n->flags = 0;
		mq_tree_set_state(window, node, MQ_DEAD);
		return;
	}
	if (n->token == 0)
	{
		/* discarded, or from before a restart: nobody had a lease; due is still what it was */
		mq_lease_put_unread(window, node, n->due);
		return;
	}
	if (n->flags & MQ_NODE_LEFT)
	{
		come_back(window, node);
		return;
	}
	n->flags &= ~(MQ_NODE_OWN_LEASE | MQ_NODE_POPPED);
	n->owner = mine && own_lease ? mq_session_transaction() : 0;
	mq_tree_set_state(window, node, MQ_LEASED);
	if (own_lease && !mine)
		mq_lease_put_back(window, node, &rolled_back, MQ_DUE_AFTER_PAUSE);
}

/* Some of it, from *lo on; returns whether there may be more. */
static bool
settle_some(MqWindow *window, int64 *lo, int64 hi, uint64 xid, bool committed, bool mine, bool *changed, bool *came_back)
{
	for (int i = 0; i < MQ_ENTRIES_PER_HOLD && *lo <= hi; i++)
	{
		uint32		node = mq_tree_first_in_state(window, MQ_SETTLING, *lo);
		MqNode	   *n = MqNodeAt(node);

		if (node == 0 || n->lo > hi)
			return false;
		*lo = n->hi + 1;
		if (n->owner != xid)
			continue;
		*changed = true;
		if (committed && (n->flags & MQ_NODE_LEFT) != 0)
		{
			come_back(window, node);
			*came_back = true;
		}
		else if (committed)
		{
			mq_consumer_leave(window, n);
			mq_tree_remove(window, node);
		}
		else
			unsettle(window, node, mine);
	}
	return *lo <= hi;
}

void
mq_window_settled(const MqWindowRef *ref, int64 lo, int64 hi, uint64 xid, bool committed, bool mine)
{
	MqWindow   *window = ref->window;
	bool		changed = false;
	bool		came_back = !committed;
	bool		wake = false;
	bool		more;

	do
	{
		if (!mq_window_lock(ref, LW_EXCLUSIVE))
			return;
		window->changes++;
		more = settle_some(window, &lo, hi, xid, committed, mine, &changed, &came_back);
		if (!more)
		{
			/* ready again, or room for another one */
			wake = changed && (came_back || window->limited);
			if (wake)
				window->limited = false;
		}
		mq_window_unlock(ref);
	} while (more);
	if (wake)
		mq_wake_for_room(window);
}

bool
mq_window_unleave(const MqWindowRef *ref, int64 lo, int64 hi, uint64 xid)
{
	bool		any = false;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return false;
	while (lo <= hi)
	{
		uint32		node = mq_tree_first_in_state(ref->window, MQ_SETTLING, lo);

		if (node == 0 || MqNodeAt(node)->lo > hi)
			break;
		if (MqNodeAt(node)->owner == xid)
		{
			any |= (MqNodeAt(node)->flags & MQ_NODE_LEFT) != 0;
			MqNodeAt(node)->flags &= ~MQ_NODE_LEFT;
		}
		lo = MqNodeAt(node)->hi + 1;
	}
	mq_window_unlock(ref);
	return any;
}

/* Adds settlers of some entries, from *id on, to those that are known; returns whether there may be more. */
static bool
some_settlers(const MqWindow *window, int64 *id, uint64 *xids, int *count, int max)
{
	int			same = 0;		/* neighbours often have the same one */

	for (int i = 0; i < MQ_ENTRIES_PER_HOLD; i++)
	{
		uint32		node = mq_tree_first_in_state(window, MQ_SETTLING, *id);

		if (node == 0 || *count == max)
			return false;
		*id = MqNodeAt(node)->hi + 1;
		if (same < *count && xids[same] == MqNodeAt(node)->owner)
			continue;
		for (same = 0; same < *count && xids[same] != MqNodeAt(node)->owner; same++)
			;
		if (same == *count)
			xids[(*count)++] = MqNodeAt(node)->owner;
	}
	return true;
}

int
mq_window_settlers(const MqWindowRef *ref, uint64 *xids, int max)
{
	int			count = 0;
	int64		id = PG_INT64_MIN;
	bool		more;

	do
	{
		if (!mq_window_lock(ref, LW_SHARED))
			return 0;
		more = some_settlers(ref->window, &id, xids, &count, max);
		mq_window_unlock(ref);
	} while (more);
	return count;
}

/* Of some entries, from *id on; *more: there may be more of them. */
static bool
some_may_come_back(const MqWindow *window, int64 *id, uint64 xid, bool *more)
{
	for (int i = 0; i < MQ_ENTRIES_PER_HOLD; i++)
	{
		uint32		node = mq_tree_first_in_state(window, MQ_SETTLING, *id);

		*more = node != 0;
		if (node == 0)
			return false;
		if (MqNodeAt(node)->owner != xid || (MqNodeAt(node)->flags & MQ_NODE_LEFT) != 0)
			return true;
		*id = MqNodeAt(node)->hi + 1;
	}
	return false;
}

bool
mq_window_may_come_back(const MqWindowRef *ref, uint64 xid)
{
	int64		id = PG_INT64_MIN;
	bool		more;
	bool		found;

	do
	{
		if (!mq_window_lock(ref, LW_SHARED))
			return false;
		found = some_may_come_back(ref->window, &id, xid, &more);
		mq_window_unlock(ref);
	} while (more && !found);
	return found;
}
