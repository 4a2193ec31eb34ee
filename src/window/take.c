/*
 * take.c: handing messages out, and what becomes of them when the hand-out is undone. See take.h.
 */
#include "postgres.h"

#include "window/take.h"

#include "utils/timestamp.h"

#include "window/lease.h"
#include "window/pending.h"
#include "window/rate.h"
#include "window/wake.h"

/* while there is plenty to hand out, undecided senders are looked at no more often than this */
#define PENDING_RECHECK_US 10000

/* Ends one lease, as MqOutcome says. Afterwards the entry may be gone, or have joined a neighbour. */
static void
apply_outcome(MqWindow *window, uint32 node, MqOutcome outcome, TimestampTz due, const MqCause *cause)
{
	MqNode	   *n = MqNodeAt(node);

	switch (outcome)
	{
		case MQ_GIVE_BACK:
		case MQ_LEAVE:
			n->attempts--;
			mq_lease_put_back(window, node, NULL, due);
			break;
		case MQ_RELEASE:
			mq_lease_put_back(window, node, NULL, due);
			break;
		case MQ_FAIL:
			mq_lease_put_back(window, node, cause, due);
			break;
		case MQ_REREAD:
			n->attempts--;
			mq_lease_put_unread(window, node, 0);
			break;
		case MQ_FINISH:
			mq_consumer_leave(window, n);
			mq_tree_remove(window, node);
			window->changes++;
			break;
	}
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
	/* that of the entry is the end of the lease by now; for own sends the caller fills it in */
	run->due = 0;
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
	if (window->pending != 0 && (uint64) (now - window->pending_checked) > PENDING_RECHECK_US)
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
 * Locks the window; false (and no lock): it is gone. A name may take its cell from the reserve, as long as the window has
 * no more than its share: else, with memory full, nobody with a name could take anything.
 */
static bool
taking_begin(Taking *t, const MqWindowRef *ref, MqTaker *taker, int max, int cells)
{
	t->now = GetCurrentTimestamp();
	if (!mq_cells_reserve(&t->cells, cells, taker->early))
		(void) mq_cells_reserve(&t->cells, 1, taker->early);
	(void) mq_cells_reserve(&t->for_name, taker->consumer != NULL, mq_window_may_grow(ref->window, 0, true));
	if (!mq_window_lock(ref, LW_EXCLUSIVE))
	{
		mq_cells_return(&t->cells);
		mq_cells_return(&t->for_name);
		return false;
	}
	(void) mq_lease_expire_some(ref->window, t->now);
	t->max = mq_consumer_room(ref->window, taker, max);
	if (taker->tick_ns > 0 && t->max > 0)
		t->max = mq_rate_room(ref->window, taker, t->max, t->now);
	t->consumer = mq_consumer_of(ref->window, taker, &t->for_name);
	return true;
}

/* Gives back the lock and the cells that are left. A name that has nothing in flight goes again. */
static void
taking_end(Taking *t, const MqWindowRef *ref)
{
	mq_consumer_remove_if_idle(ref->window, t->consumer);
	mq_window_unlock(ref);
	mq_cells_return(&t->cells);
	mq_cells_return(&t->for_name);
}

/* The entry may have no more messages than the call may still have (cut_to_size). */
static void
take_node(Taking *t, MqWindow *window, uint32 node, const MqTaker *taker, MqRun *run)
{
	mq_lease_give(window, node, taker, t->consumer);
	run_from_node(run, node);
	t->max -= (int) (run->hi - run->lo + 1);
	if (taker->tick_ns > 0)
		mq_rate_charge(window, taker->tick_ns, run->hi - run->lo + 1, t->now);
}

/* Makes a node of what of it is behind `after` and no more than may be had; 0: no memory for that. */
static uint32
cut_to_size(Taking *t, MqWindow *window, uint32 node, int64 after)
{
	int64		lo = Max(MqNodeAt(node)->lo, after + 1);
	int			cuts = (lo != MqNodeAt(node)->lo) + (MqNodeAt(node)->hi - lo >= t->max);

	if (cuts == 0)
		return node;
	if (t->cells.count < cuts || !mq_window_may_grow(window, t->cells.count, false))
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

/* An entry for a part of what the running transaction has sent itself; 0: there is one already. */
static uint32
add_own_sent(MqWindow *window, const MqChunk *part, MqCellList *cells)
{
	uint32		node = mq_cell_take(cells);

	MqNodeAt(node)->lo = part->lo;
	MqNodeAt(node)->hi = part->hi;
	MqNodeAt(node)->block = part->block;
	MqNodeAt(node)->attempts = part->attempts;
	MqNodeAt(node)->failures = part->failures;
	MqNodeAt(node)->unexplained = part->unexplained;
	MqNodeAt(node)->flags = MQ_NODE_OWN_SENT;
	MqNodeAt(node)->state = MQ_UNREAD;
	return mq_tree_insert(window, node) ? node : 0;
}

/* Why nothing was taken of what the transaction has sent itself, and when to look again. */
static void
note_own_due(const Taking *t, MqWindow *window, uint64 xid, MqTaker *taker)
{
	taker->own_due = mq_pending_due(window, xid);
	taker->starved = t->cells.count == 0 && t->max > 0 && taker->own_due < PG_INT64_MAX &&
		(taker->early || taker->own_due <= t->now);
	if (!taker->starved)
		return;
	taker->own_due = TimestampTzPlusMilliseconds(t->now, MQ_HELD_BACK_RECHECK_MS);
	window->held_back++;
}

int
mq_window_take_own(const MqWindowRef *ref, uint64 xid, int max, MqTaker *taker, MqRun *runs, int max_runs)
{
	MqWindow   *window = ref->window;
	MqChunk		part;
	Taking		t;
	int			count = 0;

	taker->starved = false;
	if (!taking_begin(&t, ref, taker, max, max_runs))
		return 0;
	while (t.cells.count > 0 && t.max > 0 && mq_pending_take(window, xid, taker->early ? PG_INT64_MAX : t.now, t.max, &part))
	{
		uint32		node = add_own_sent(window, &part, &t.cells);

		if (node == 0)
			continue;
		take_node(&t, window, node, taker, &runs[count]);
		runs[count++].due = part.due;
	}
	if (count > 0)
		window->walk_seq++;
	else
		note_own_due(&t, window, xid, taker);
	taking_end(&t, ref);
	return count;
}

/* The end of leases: what is still to do, and what was done. */
typedef struct Ending
{
	int64		lo;
	int64		hi;
	uint64		token;
	MqOutcome	outcome;
	TimestampTz due;
	const MqCause *cause;
	MqCellList *cells;
	int64		changed;
	bool		for_others;		/* not only for who sent it itself */
} Ending;

/* Ends some; returns whether there may be more. */
static bool
end_some(MqWindow *window, Ending *e)
{
	for (int i = 0; i < MQ_ENTRIES_PER_HOLD && e->lo <= e->hi; i++)
	{
		uint32		node = mq_tree_seek(window, e->lo);

		if (node == 0 || MqNodeAt(node)->lo > e->hi)
			return false;
		if (MqNodeAt(node)->state == MQ_LEASED && MqNodeAt(node)->token == e->token)
		{
			if (e->cells != NULL)
				node = mq_tree_cut(window, node, e->lo, e->hi, e->cells);
			e->lo = MqNodeAt(node)->hi + 1;
			e->changed += MqNodeAt(node)->hi - MqNodeAt(node)->lo + 1;
			e->for_others |= (MqNodeAt(node)->flags & MQ_NODE_OWN_SENT) == 0;
			apply_outcome(window, node, e->outcome, e->due, e->cause);
		}
		else if (MqNodeAt(node)->hi == PG_INT64_MAX)
			return false;
		else
			e->lo = MqNodeAt(node)->hi + 1;
	}
	return e->lo <= e->hi;
}

int64
mq_window_end_lease(const MqWindowRef *ref, int64 lo, int64 hi, uint64 token, MqOutcome outcome, TimestampTz due,
					const MqCause *cause, MqCellList *cells)
{
	MqWindow   *window = ref->window;
	Ending		e = {lo, hi, token, outcome, due, cause, cells};
	bool		wake = false;
	bool		more;

	do
	{
		if (!mq_window_lock(ref, LW_EXCLUSIVE))
			return e.changed;
		more = end_some(window, &e);
		/* what a transaction sent and may not see yet itself is for nobody before it commits, but it took room */
		if (!more)
			wake = e.changed > 0 && (e.for_others || outcome != MQ_GIVE_BACK || window->limited);
		if (wake)
			window->limited = false;
		mq_window_unlock(ref);
	} while (more);
	if (wake && outcome == MQ_GIVE_BACK)
		mq_wake_for_given_back(window);
	else if (wake)
		mq_wake_for_room(window);
	return e.changed;
}

/* Each counts as a failure, as a lease that ends by the clock does. */
void
mq_window_end_overdue(const MqWindowRef *ref, int64 lo, int64 hi, uint64 token)
{
	MqWindow   *window = ref->window;
	bool		ended = false;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return;
	while (lo <= hi)
	{
		uint32		node = mq_tree_first_overdue(window, lo);

		if (node == 0 || MqNodeAt(node)->lo > hi)
			break;
		lo = MqNodeAt(node)->hi + 1;
		if (MqNodeAt(node)->token != token)
			continue;
		mq_lease_put_back(window, node, &mq_lease_end, MQ_DUE_AFTER_PAUSE);
		ended = true;
	}
	window->overdue = mq_tree_first_overdue(window, PG_INT64_MIN) != 0;
	mq_window_unlock(ref);
	if (ended)
		mq_wake_for_room(window);
}
