/*
 * window.c: who holds what: transitions of messages in a delivery window.
 *
 * Owns the changes of MqWindow's tree but the walker's (walk.c). One LWLock per window guards all of it. Under it there
 * is no heap, catalog, commit log or heavyweight lock, and nothing that throws: cells are reserved before. Lost in
 * a crash and made anew from the offset log (rebuild.c).
 */
#include "window.h"

#include "pending.h"
#include "utils/timestamp.h"
#include "wake.h"

#define EXPIRE_AT_ONCE 256
/* a lease that has run out while its transaction is still open is looked at again after this */
#define OPEN_LEASE_RECHECK_MS 50
/* messages that are ready and could not be handed out to who waits are tried again after this */
#define HELD_BACK_RECHECK_MS 1000
/* while there is plenty to hand out, undecided senders are looked at no more often than this */
#define PENDING_RECHECK_US 10000

bool
mq_window_lock(const MqWindowRef *ref, LWLockMode mode)
{
	LWLockAcquire(MqWindowLock(ref->window), mode);
	if (memcmp(&ref->window->key, &ref->key, sizeof(MqWindowKey)) == 0)
		return true;
	LWLockRelease(MqWindowLock(ref->window));
	return false;
}

void
mq_window_unlock(const MqWindowRef *ref)
{
	LWLockRelease(MqWindowLock(ref->window));
}

bool
mq_window_may_grow(const MqWindow *window)
{
	/* half of what is there for the first, half of the rest for the next, ...: read without a lock, a guess is enough */
	uint32		free = mq_shared->free_cells;
	uint32		reserve = mq_shared->total_cells / MQ_RESERVE_PART;

	return free > reserve && window->nodes < free - reserve;
}

static int64
low_watermark(const MqWindow *window)
{
	uint32		first = mq_tree_seek(window, PG_INT64_MIN);

	return first == 0 ? 0 : MqNodeAt(first)->lo;
}

int64
mq_window_next_id(const MqWindow *window)
{
	uint32		last = mq_tree_seek(window, PG_INT64_MAX);

	return last == 0 ? 0 : MqNodeAt(last)->lo;
}

/* A lease is over at its deadline, unless the transaction that took it is still open. */
static bool
lease_holds(const MqNode *n, TimestampTz now)
{
	return n->due > now || mq_session_transaction_open(n->owner);
}

/* Puts a leased node back. */
static void
put_back(MqWindow *window, uint32 node, bool failed, TimestampTz due)
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

static void
put_unread(MqWindow *window, uint32 node, TimestampTz due)
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

static void
apply_outcome(MqWindow *window, uint32 node, MqOutcome outcome, TimestampTz due)
{
	MqNode	   *n = MqNodeAt(node);

	switch (outcome)
	{
		case MQ_GIVE_BACK:
		case MQ_LEAVE:
			n->attempts--;
			put_back(window, node, false, 0);
			break;
		case MQ_RELEASE:
			put_back(window, node, false, due);
			break;
		case MQ_FAIL:
			put_back(window, node, true, due);
			break;
		case MQ_REREAD:
			n->attempts--;
			put_unread(window, node, 0);
			break;
		case MQ_FINISH:
			mq_consumer_leave(window, n);
			mq_tree_remove(window, node);
			window->changes++;
			break;
	}
}

static void
lease_node(MqWindow *window, uint32 node, const MqTaker *taker, uint32 consumer)
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

static void
run_from_node(MqRun *run, uint32 node)
{
	const MqNode *n = MqNodeAt(node);

	run->lo = n->lo;
	run->hi = n->hi;
	run->block = n->block;
	run->attempts = n->attempts;
	run->failures = n->failures;
}

static bool
expire_some(MqWindow *window, TimestampTz now)
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
			put_back(window, node, true, 0);
	}
	return true;
}

/* Whether the walker should go before messages are handed out: order, and senders that became decided. */
static MqWalkFirst
walk_comes_first(const MqWindow *window, int64 after, TimestampTz now)
{
	uint32		ready = mq_tree_first_ready(window, after, now);
	uint32		unread;

	if (ready == 0)
		return MQ_WALK_NOT;
	if (window->rewalk != 0 && mq_chunk_first(MqChunkAt(window->rewalk)) < MqNodeAt(ready)->lo)
		return MQ_WALK_READ;
	if (window->pending != 0 && now - window->pending_checked > PENDING_RECHECK_US)
		return MQ_WALK_SETTLE;
	unread = mq_tree_first_in_state(window, MQ_UNREAD, PG_INT64_MIN);
	return unread != 0 && MqNodeAt(unread)->lo < MqNodeAt(ready)->lo ? MQ_WALK_READ : MQ_WALK_NOT;
}

/* One call that hands out: what it has reserved. */
typedef struct Taking
{
	MqCellList	cells;			/* for entries */
	MqCellList	for_name;
	uint32		consumer;
	TimestampTz now;
	int			max;			/* messages it may still have */
} Taking;

/*
 * Locks the window; false (and no lock): it is gone. A name may take its cell from the reserve: else, with memory full,
 * nobody with a name could take anything.
 */
static bool
taking_begin(Taking *t, const MqWindowRef *ref, MqTaker *taker, int max, int cells)
{
	t->now = GetCurrentTimestamp();
	(void) mq_cells_reserve(&t->cells, cells, false);
	(void) mq_cells_reserve(&t->for_name, taker->consumer != NULL, true);
	if (!mq_window_lock(ref, LW_EXCLUSIVE))
	{
		mq_cells_return(&t->cells);
		mq_cells_return(&t->for_name);
		return false;
	}
	(void) expire_some(ref->window, t->now);
	t->max = mq_consumer_room(ref->window, taker, max);
	t->consumer = mq_consumer_of(ref->window, taker, &t->for_name);
	return true;
}

static void
taking_end(Taking *t, const MqWindowRef *ref)
{
	mq_consumer_remove_if_idle(ref->window, t->consumer);
	mq_window_unlock(ref);
	mq_cells_return(&t->cells);
	mq_cells_return(&t->for_name);
}

static void
take_node(Taking *t, MqWindow *window, uint32 node, const MqTaker *taker, MqRun *run)
{
	lease_node(window, node, taker, t->consumer);
	run_from_node(run, node);
	t->max -= (int) (run->hi - run->lo + 1);
}

/* Makes a node of what of it is behind `after` and no more than may be had; 0: no memory for that. */
static uint32
cut_to_size(Taking *t, MqWindow *window, uint32 node, int64 after)
{
	int64		lo = Max(MqNodeAt(node)->lo, after + 1);
	int			cuts = (lo != MqNodeAt(node)->lo) + (MqNodeAt(node)->hi - lo >= t->max);

	if (cuts == 0)
		return node;
	if (t->cells.count < cuts || !mq_window_may_grow(window))
		return 0;
	return mq_tree_cut(window, node, lo, Min(MqNodeAt(node)->hi, lo + t->max - 1), &t->cells);
}

int
mq_window_take(const MqWindowRef *ref, int64 after, int max, MqTaker *taker, MqRun *runs, int max_runs,
			   MqWalkFirst *walk_first)
{
	MqWindow   *window = ref->window;
	Taking		t;
	int			count = 0;

	/* at most one cut behind `after` and one at max: both ends of the call */
	if (!taking_begin(&t, ref, taker, max, 2))
		return 0;
	if (walk_first != NULL)
	{
		*walk_first = t.max > 0 ? walk_comes_first(window, after, t.now) : MQ_WALK_NOT;
		if (*walk_first != MQ_WALK_NOT)
			t.max = 0;
	}
	while (count < max_runs && t.max > 0)
	{
		uint32		node = mq_tree_first_ready(window, after, t.now);

		if (node == 0)
			break;
		node = cut_to_size(&t, window, node, after);
		if (node == 0)
		{
			window->held_back++;
			break;
		}
		take_node(&t, window, node, taker, &runs[count]);
		after = runs[count++].hi;
	}
	taking_end(&t, ref);
	return count;
}

/* An entry for a part of what the running transaction has sent itself. */
static uint32
add_own_sent(MqWindow *window, const MqChunk *part, MqCellList *cells)
{
	uint32		node = mq_cell_take(cells);

	MqNodeAt(node)->lo = part->lo;
	MqNodeAt(node)->hi = part->hi;
	MqNodeAt(node)->block = part->block;
	MqNodeAt(node)->attempts = part->attempts;
	MqNodeAt(node)->failures = part->failures;
	MqNodeAt(node)->flags = MQ_NODE_OWN_SENT;
	MqNodeAt(node)->state = MQ_UNREAD;
	mq_tree_insert(window, node);
	return node;
}

int
mq_window_take_own(const MqWindowRef *ref, uint64 xid, int max, MqTaker *taker, MqRun *runs, int max_runs)
{
	MqWindow   *window = ref->window;
	MqChunk		part;
	Taking		t;
	int			count = 0;

	if (!taking_begin(&t, ref, taker, max, max_runs))
		return 0;
	/* a cell for each run, or none at all */
	while (t.cells.count > 0 && t.max > 0 && mq_pending_take(window, xid, t.max, &part))
		take_node(&t, window, add_own_sent(window, &part, &t.cells), taker, &runs[count++]);
	if (count > 0)
		window->walk_seq++;
	taking_end(&t, ref);
	return count;
}

int64
mq_window_end_lease(const MqWindowRef *ref, int64 lo, int64 hi, uint64 token, MqOutcome outcome, TimestampTz due,
					MqCellList *cells)
{
	MqWindow   *window = ref->window;
	int64		changed = 0;
	bool		for_others = false;
	bool		wake;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return 0;
	while (lo <= hi)
	{
		uint32		node = mq_tree_seek(window, lo);

		if (node == 0 || MqNodeAt(node)->lo > hi)
			break;
		if (MqNodeAt(node)->state == MQ_LEASED && MqNodeAt(node)->token == token)
		{
			if (cells != NULL)
				node = mq_tree_cut(window, node, lo, hi, cells);
			lo = MqNodeAt(node)->hi + 1;
			changed += MqNodeAt(node)->hi - MqNodeAt(node)->lo + 1;
			for_others |= (MqNodeAt(node)->flags & MQ_NODE_OWN_SENT) == 0;
			apply_outcome(window, node, outcome, due);
		}
		else if (MqNodeAt(node)->hi == PG_INT64_MAX)
			break;
		else
			lo = MqNodeAt(node)->hi + 1;
	}
	/* what a transaction sent and may not see yet itself is for nobody before it commits, but it took room */
	wake = changed > 0 && (for_others || outcome != MQ_GIVE_BACK || window->limited);
	if (wake)
		window->limited = false;
	mq_window_unlock(ref);
	if (wake && outcome == MQ_GIVE_BACK)
		mq_wake_for_given_back(window);
	else if (wake)
		mq_wake_for_room(window);
	return changed;
}

/* Whether every id of the claim is leased with its token, and the leases hold; *cuts grows by the cells it takes. */
static bool
claim_holds(const MqWindow *window, const MqClaim *claim, TimestampTz now, int *cuts)
{
	int64		id = claim->lo;
	int			own_cuts = 0;

	while (id <= claim->hi)
	{
		uint32		node = mq_tree_seek(window, id);
		const MqNode *n = MqNodeAt(node);

		if (node == 0 || n->lo > id || n->state != MQ_LEASED || n->token != claim->token || !lease_holds(n, now))
			return false;
		own_cuts += (n->lo < id) + (n->hi > claim->hi);
		id = n->hi + 1;
	}
	*cuts += own_cuts;
	return true;
}

static void
claim_node(MqWindow *window, uint32 node, MqClaimAction action, uint64 xid, TimestampTz due)
{
	MqNode	   *n = MqNodeAt(node);

	switch (action)
	{
		case MQ_CLAIM_SETTLE:
			if (n->state == MQ_UNREAD)
				n->consumer = 0;
			if (n->owner == mq_session_transaction())
				n->flags |= MQ_NODE_OWN_LEASE;
			n->owner = xid;
			mq_tree_set_state(window, node, MQ_SETTLING);
			break;
		case MQ_CLAIM_FAIL:
			put_back(window, node, true, due);
			break;
		case MQ_CLAIM_RELEASE:
			put_back(window, node, false, due);
			break;
		case MQ_CLAIM_EXTEND:
			n->due = due;
			mq_tree_refresh(window, node);
			mq_wake_note_time(window, due);
			break;
		case MQ_CLAIM_CHECK:
			break;
	}
}

static int64
claim_apply(MqWindow *window, const MqClaim *claim, MqClaimAction action, uint64 xid, TimestampTz due,
			MqCellList *cells)
{
	int64		id = claim->lo;

	while (id <= claim->hi)
	{
		uint32		node = mq_tree_cut(window, mq_tree_seek(window, id), id, claim->hi, cells);

		id = MqNodeAt(node)->hi + 1;
		claim_node(window, node, action, xid, due);
	}
	return claim->hi - claim->lo + 1;
}

int64
mq_window_claim(const MqWindowRef *ref, MqClaim *claims, int count, MqClaimAction action, bool all_or_nothing,
				uint64 xid, TimestampTz due, MqCellList *cells, int *needed, int32 *epoch)
{
	MqWindow   *window = ref->window;
	TimestampTz now = GetCurrentTimestamp();
	int64		changed = 0;
	int			cuts = 0;
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
		claims[i].refused = !claim_holds(window, &claims[i], now, &cuts);
		refused |= claims[i].refused;
	}
	if (cells != NULL && cuts > cells->count && !(refused && all_or_nothing))
	{
		*needed = cuts;
		mq_window_unlock(ref);
		return -1;
	}
	for (int i = 0; i < count && action != MQ_CLAIM_CHECK && !(refused && all_or_nothing); i++)
		if (!claims[i].refused)
			changed += claim_apply(window, &claims[i], action, xid, due, cells);
	mq_window_unlock(ref);
	if (changed > 0 && (action == MQ_CLAIM_FAIL || action == MQ_CLAIM_RELEASE))
		mq_wake_for_room(window);
	return changed;
}

int64
mq_window_discard(const MqWindowRef *ref, const int64 *ids, int count, uint64 xid, MqCellList *cells,
				  int64 *discarded, int32 *epoch)
{
	MqWindow   *window = ref->window;
	int64		changed = 0;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return 0;
	*epoch = window->epoch;
	for (int i = 0; i < count; i++)
	{
		uint32		node = mq_tree_seek(window, ids[i]);

		if (node == 0 || MqNodeAt(node)->lo > ids[i] || MqNodeAt(node)->state == MQ_SETTLING)
			continue;
		if (MqNodeAt(node)->state == MQ_UNREAD)
			window->walk_seq++;
		node = mq_tree_cut(window, node, ids[i], ids[i], cells);
		claim_node(window, node, MQ_CLAIM_SETTLE, xid, 0);
		discarded[changed++] = ids[i];
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
			if (MqNodeAt(node)->state == MQ_UNREAD)
				window->walk_seq++;
			node = mq_tree_cut(window, node, lo, hi, cells);
			claim_node(window, node, MQ_CLAIM_SETTLE, xid, 0);
			any = true;
		}
		lo = MqNodeAt(node)->hi + 1;
	}
	mq_window_unlock(ref);
	return any;
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

/*
 * An ack that did not happen: the lease goes on. If the same transaction had taken the lease, that did not happen
 * either: mine (a savepoint of the running transaction) it is still open and keeps it, else the message is ready again.
 */
static void
unsettle(MqWindow *window, uint32 node, bool mine)
{
	MqNode	   *n = MqNodeAt(node);
	bool		own_lease = (n->flags & MQ_NODE_OWN_LEASE) != 0;

	if (n->token == 0)
	{
		/* discarded, or from before a restart: nobody had a lease; due is still what it was */
		put_unread(window, node, n->due);
		return;
	}
	n->flags &= ~MQ_NODE_OWN_LEASE;
	n->owner = mine && own_lease ? mq_session_transaction() : 0;
	mq_tree_set_state(window, node, MQ_LEASED);
	if (own_lease && !mine)
		put_back(window, node, true, 0);
}

void
mq_window_settled(const MqWindowRef *ref, int64 lo, int64 hi, uint64 xid, bool committed, bool mine)
{
	MqWindow   *window = ref->window;
	bool		changed = false;
	bool		wake;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return;
	window->changes++;
	while (lo <= hi)
	{
		uint32		node = mq_tree_first_in_state(window, MQ_SETTLING, lo);
		MqNode	   *n = MqNodeAt(node);

		if (node == 0 || n->lo > hi)
			break;
		lo = n->hi + 1;
		if (n->owner != xid)
			continue;
		changed = true;
		if (committed)
		{
			mq_consumer_leave(window, n);
			mq_tree_remove(window, node);
		}
		else
			unsettle(window, node, mine);
	}
	/* ready again, or room for another one */
	wake = changed && (!committed || window->limited);
	if (wake)
		window->limited = false;
	mq_window_unlock(ref);
	if (wake)
		mq_wake_for_room(window);
}

bool
mq_window_expire(const MqWindowRef *ref, TimestampTz now)
{
	bool		more;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return false;
	more = expire_some(ref->window, now);
	mq_window_unlock(ref);
	return more;
}

bool
mq_window_enlist(const MqWindowRef *ref, MqChain *chain, bool again)
{
	bool		dropped;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return false;
	dropped = ref->window->dropped;
	if (!dropped)
		mq_wait_enlist(chain, ref->window, again);
	mq_window_unlock(ref);
	return !dropped;
}

TimestampTz
mq_window_set_clock(const MqWindowRef *ref, TimestampTz looked_at)
{
	MqWindow   *window = ref->window;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz clock = PG_INT64_MAX;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return now;
	if (window->root != 0)
	{
		TimestampTz ready = MqNodeAt(window->root)->min_ready;

		/* it was there and could not be had: memory, a limit, the snapshot */
		if (ready <= looked_at)
			ready = TimestampTzPlusMilliseconds(now, HELD_BACK_RECHECK_MS);
		clock = Min(ready, MqNodeAt(window->root)->min_deadline);
	}
	window->clock = clock;
	mq_window_unlock(ref);
	return clock;
}

TimestampTz
mq_window_next_event(const MqWindowRef *ref)
{
	TimestampTz next = PG_INT64_MAX;

	if (!mq_window_lock(ref, LW_SHARED))
		return next;
	if (ref->window->root != 0)
		next = Min(MqNodeAt(ref->window->root)->min_ready, MqNodeAt(ref->window->root)->min_deadline);
	mq_window_unlock(ref);
	return next;
}

bool
mq_window_has_work(const MqWindowRef *ref, int64 next_id)
{
	MqWindow   *window = ref->window;
	bool		work;

	if (!mq_window_lock(ref, LW_SHARED))
		return false;
	work = window->rewalk != 0 || mq_window_next_id(window) < next_id || window->ids[MQ_UNREAD] > 0 ||
		mq_tree_first_ready(window, PG_INT64_MIN, GetCurrentTimestamp()) != 0;
	mq_window_unlock(ref);
	return work;
}

bool
mq_window_has_ready(const MqWindowRef *ref)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		ready;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return false;
	(void) expire_some(ref->window, now);
	ready = mq_tree_first_ready(ref->window, PG_INT64_MIN, now) != 0;
	mq_window_unlock(ref);
	return ready;
}

bool
mq_window_is_full(const MqWindowRef *ref, int max_in_flight)
{
	bool		full;

	if (!mq_window_lock(ref, LW_SHARED))
		return false;
	full = mq_consumer_in_flight(ref->window) >= max_in_flight;
	mq_window_unlock(ref);
	return full;
}

void
mq_window_set_dropped(const MqWindowRef *ref)
{
	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return;
	ref->window->dropped = true;
	mq_window_unlock(ref);
	mq_wake_all(ref->window);
}

int
mq_window_settlers(const MqWindowRef *ref, uint64 *xids, int max)
{
	MqWindow   *window = ref->window;
	int			count = 0;
	int64		id = PG_INT64_MIN;

	if (!mq_window_lock(ref, LW_SHARED))
		return 0;
	while (count < max)
	{
		uint32		node = mq_tree_first_in_state(window, MQ_SETTLING, id);
		int			i = 0;

		if (node == 0)
			break;
		id = MqNodeAt(node)->hi + 1;
		while (i < count && xids[i] != MqNodeAt(node)->owner)
			i++;
		if (i == count)
			xids[count++] = MqNodeAt(node)->owner;
	}
	mq_window_unlock(ref);
	return count;
}

bool
mq_window_counts(const MqWindowRef *ref, MqWindowCounts *counts)
{
	MqWindow   *window = ref->window;

	if (!mq_window_lock(ref, LW_SHARED))
		return false;
	counts->epoch = window->epoch;
	counts->low_watermark = mq_pending_low(window, low_watermark(window));
	counts->next_id = mq_window_next_id(window);
	memcpy(counts->ids, window->ids, sizeof(counts->ids));
	counts->pending = window->pending_ids;
	counts->held_back = window->held_back;
	counts->waiting = (int32) pg_atomic_read_u32(&window->waiters);
	mq_window_unlock(ref);
	return true;
}

void
mq_window_clear(MqWindow *window)
{
	mq_tree_clear(window);
	mq_pending_clear(window);
	mq_consumer_clear(window);
	window->nodes = 0;
	window->walk_seq++;
}

static void
send_away_and_clear(MqWindow *window)
{
	mq_wake_all(window);
	mq_window_clear(window);
}

void
mq_window_forget(const MqWindowKey *key)
{
	mq_window_slot_free(key, send_away_and_clear);
}

#define SWAP(type, a, b) do { type swap_ = (a); (a) = (b); (b) = swap_; } while (0)

static void
swap_entries(MqWindow *a, MqWindow *b)
{
	SWAP(uint32, a->root, b->root);
	SWAP(uint32, a->pending, b->pending);
	SWAP(uint32, a->rewalk, b->rewalk);
	SWAP(uint32, a->consumers, b->consumers);
	SWAP(int64, a->pending_ids, b->pending_ids);
	SWAP(int64, a->nodes, b->nodes);
	for (int i = 0; i < MQ_STATES; i++)
		SWAP(int64, a->ids[i], b->ids[i]);
}

void
mq_window_replace(const MqWindowRef *ref, MqWindow *content, int32 epoch, int64 oldest_needed)
{
	MqWindow   *window = ref->window;

	if (mq_window_lock(ref, LW_EXCLUSIVE))
	{
		if (window->epoch < epoch)
		{
			swap_entries(window, content);
			window->epoch = epoch;
			window->walk_seq++;
			window->changes++;
			window->failures_changed = false;
			pg_atomic_write_u64(&window->log_bytes, 0);
			pg_atomic_write_u64(&window->oldest_needed, oldest_needed);
		}
		mq_window_unlock(ref);
		mq_wake_for_room(window);
	}
	/* nobody else knows what is in it, so the lock is not needed however much it is */
	mq_window_clear(content);
}
