/*
 * window.c: a delivery window as a whole: its lock, what is in it, clearing and replacing it.
 *
 * Entries change in take.c (handed out), settle.c (finished), lease.c (what both need) and walk.c (read from the log). One LWLock per window guards all of it. Under it there
 * is no heap, catalog, commit log or heavyweight lock, and nothing that throws: cells are reserved before. Lost in
 * a crash and made anew from the offset log (replay.c).
 */
#include "postgres.h"

#include "window/window.h"

#include "utils/timestamp.h"

#include "window/lease.h"
#include "window/pending.h"
#include "window/wake.h"

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
mq_window_may_grow(const MqWindow *window, int cells, bool finishing)
{
	uint32		free = mq_shared->free_cells + (uint32) cells;
	uint32		reserve = finishing ? 0 : mq_shared->total_cells / MQ_RESERVE_PART;

	return free > reserve && window->nodes < free - reserve;
}

#define FEW_AT_ONCE		8
#define FEW_IN_ALL		256

bool
mq_share_cells(MqCellList *cells, int64 count, int64 in_use)
{
	bool		few = count <= FEW_AT_ONCE && in_use + count <= FEW_IN_ALL;

	if (!few && in_use + count >= (int64) mq_shared->free_cells - mq_shared->total_cells / MQ_RESERVE_PART)
		return false;
	mq_need_cells(cells, count, few);
	return true;
}

/* Of the tree: what undecided senders sent is not in it (mq_pending_low). 0: no entries. Caller holds the lock. */
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

	/* the last one is UNREAD up to the end of all ids: it begins where look-ahead ends */
	return last == 0 ? 0 : MqNodeAt(last)->lo;
}

bool
mq_window_expire(const MqWindowRef *ref, TimestampTz now)
{
	bool		more;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return false;
	more = mq_lease_expire_some(ref->window, now);
	mq_window_unlock(ref);
	return more;
}

bool
mq_window_enlist(const MqWindowRef *ref, MqChain *chain, bool again, MqBlocked blocked)
{
	bool		dropped;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return false;
	dropped = ref->window->dropped;
	if (!dropped)
		mq_wait_enlist(chain, ref->window, again, blocked);
	mq_window_unlock(ref);
	return !dropped;
}

/* Where the window is gone the answer is now: the caller wakes at once, and finds that out when it gets into line again. */
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
			ready = TimestampTzPlusMilliseconds(now, MQ_HELD_BACK_RECHECK_MS);
		clock = Min(ready, MqNodeAt(window->root)->min_deadline);
	}
	/* there was no room, so that nobody knows whether there is a message */
	if (window->room_at > looked_at)
		clock = Min(clock, window->room_at);
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

/* What was not read yet counts as work, though there may be no message in it; what is pending does not. */
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
mq_window_has_ready(const MqWindowRef *ref, MqReady *first)
{
	TimestampTz now = GetCurrentTimestamp();
	uint32		ready;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return false;
	(void) mq_lease_expire_some(ref->window, now);
	ready = mq_tree_first_ready(ref->window, PG_INT64_MIN, now);
	if (ready != 0 && first != NULL)
		*first = (MqReady) {MqNodeAt(ready)->lo, MqNodeAt(ready)->attempts};
	mq_window_unlock(ref);
	return ready != 0;
}

bool
mq_window_is_full(const MqWindowRef *ref, int max_in_flight)
{
	bool		full;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return false;
	full = mq_consumer_in_flight(ref->window) >= max_in_flight;
	ref->window->limited |= full;
	mq_window_unlock(ref);
	return full;
}

/* The mark first, then the wake-ups: who gets into line later is refused (mq_window_enlist). */
void
mq_window_set_dropped(const MqWindowRef *ref)
{
	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return;
	ref->window->dropped = true;
	mq_window_unlock(ref);
	mq_wake_all(ref->window);
}

/* The first id in the tree that is due or not read yet, next_id at most; PG_INT64_MAX: no entries. Caller holds the lock. */
static int64
oldest_ready(const MqWindow *window)
{
	uint32		ready = mq_tree_first_ready(window, PG_INT64_MIN, GetCurrentTimestamp());
	uint32		unread = mq_tree_first_in_state(window, MQ_UNREAD, PG_INT64_MIN);

	return Min(ready == 0 ? PG_INT64_MAX : MqNodeAt(ready)->lo, unread == 0 ? PG_INT64_MAX : MqNodeAt(unread)->lo);
}

bool
mq_window_counts(const MqWindowRef *ref, MqWindowCounts *counts)
{
	MqWindow   *window = ref->window;
	uint32		dead;

	if (!mq_window_lock(ref, LW_SHARED))
		return false;
	counts->epoch = window->epoch;
	counts->low_watermark = mq_pending_low(window, low_watermark(window));
	counts->next_id = mq_window_next_id(window);
	memcpy(counts->ids, window->ids, sizeof(counts->ids));
	/* it did not fit at the rebuild: where it begins and ends is all that is known */
	if (window->root == 0 && window->left_out > 0)
	{
		counts->low_watermark = window->left_out_low;
		counts->next_id = window->left_out_next_id;
		counts->ids[MQ_UNREAD] = counts->next_id - counts->low_watermark;
	}
	counts->oldest_ready = oldest_ready(window);
	dead = mq_tree_first_in_state(window, MQ_DEAD, PG_INT64_MIN);
	counts->oldest_dead = dead == 0 ? PG_INT64_MAX : MqNodeAt(dead)->lo;
	counts->pending = window->pending_ids;
	counts->held_back = window->held_back;
	counts->overflowed = (int64) pg_atomic_read_u64(&window->overflowed);
	counts->waiting = (int32) pg_atomic_read_u32(&window->waiters);
	mq_window_unlock(ref);
	return true;
}

bool
mq_window_count_delayed(const MqWindowRef *ref, TimestampTz now, MqDelayed *delayed)
{
	uint32		node = 0;

	if (!mq_window_lock(ref, LW_SHARED))
		return false;
	for (int i = 0; i < MQ_ENTRIES_PER_HOLD; i++)
	{
		node = mq_tree_first_delayed(ref->window, delayed->from);
		if (node == 0)
			break;
		if (MqNodeAt(node)->due > now)
		{
			delayed->count += MqNodeAt(node)->hi - Max(MqNodeAt(node)->lo, delayed->from) + 1;
			delayed->next_due = Min(delayed->next_due, MqNodeAt(node)->due);
		}
		delayed->from = MqNodeAt(node)->hi + 1;
	}
	mq_window_unlock(ref);
	return node != 0;
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

void
mq_window_set_retry(const MqWindowRef *ref, const MqRetryPolicy *policy)
{
	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return;
	ref->window->retry = *policy;
	mq_window_unlock(ref);
}

#define SWAP(type, a, b) do { type swap_ = (a); (a) = (b); (b) = swap_; } while (0)

/* Entries, and the counts that go with them; the rest stays with the slot. Caller holds the lock of the one that others know. */
static void
swap_entries(MqWindow *a, MqWindow *b)
{
	SWAP(uint32, a->root, b->root);
	SWAP(uint32, a->pending, b->pending);
	SWAP(uint32, a->rewalk, b->rewalk);
	SWAP(int64, a->named, b->named);
	for (int i = 0; i < MQ_CONSUMER_LISTS; i++)
		SWAP(uint32, a->consumers[i], b->consumers[i]);
	SWAP(int64, a->pending_ids, b->pending_ids);
	SWAP(int64, a->nodes, b->nodes);
	for (int i = 0; i < MQ_STATES; i++)
		SWAP(int64, a->ids[i], b->ids[i]);
}

/* Who waits goes before the slot is anybody else's. */
static void
send_away_and_detach(MqWindow *window, MqWindow *content)
{
	mq_wake_all(window);
	swap_entries(window, content);
	window->walk_seq++;
}

void
mq_window_forget(const MqWindowKey *key)
{
	MqWindow	content = {0};

	mq_window_slot_free(key, send_away_and_detach, &content);
	/* nobody else knows what is in it */
	mq_window_clear(&content);
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
			window->left_out = 0;
			window->epoch = epoch;
			/* what walkers are reading at this moment is for the old content */
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
