/*
 * visit.c: which queues a turn of the worker cares for. See visit.h.
 *
 * Owns what this worker has seen of each queue and window when it cared for it last. Lost with the process: the first turn visits
 * all. Locks: registry lock, to find slots that are not known; window locks (shared) as visit.h says.
 */
#include "postgres.h"

#include "worker/visit.h"

#include "utils/timestamp.h"

#include "base/stop_point.h"
#include "window/window.h"
#include "worker/job.h"
#include "worker/memo.h"

/* What the last look at a queue saw, and what its last visit left. */
typedef struct SeenQueue
{
	MqMemoHead	head;
	uint32		definition;
	int64		next_id;
	int64		visited;		/* of mq_monotonic_us, as below */
	int64		again_at;		/* 0: it was never visited */
	uint64		touched_with_all;
	bool		touched;
} SeenQueue;

/* What a look at a window saw. `window`: another slot is a change, too. */
typedef struct SeenWindow
{
	MqMemoHead	head;
	const MqWindow *window;
	uint64		changes;
	uint64		walk_seq;
} SeenWindow;

static MqMemo seen_queues = {"mq queues seen", sizeof(SeenQueue)};
static MqMemo seen_windows = {"mq windows seen", sizeof(SeenWindow)};
static uint64 all_touched = 1;	/* goes up each time */
static int64 again_at;			/* of the visit that is under way */

void
mq_visit_touch(int32 queue_no)
{
	SeenQueue  *seen = mq_memo_find(&seen_queues, queue_no);

	if (seen != NULL)
		seen->touched = true;
}

void
mq_visit_touch_all(void)
{
	all_touched++;
}

void
mq_visit_begin(void)
{
	again_at = PG_INT64_MAX;
}

void
mq_visit_again(int64 when)
{
	again_at = Min(again_at, when);
}

void
mq_visit_end(const MqQueueItem *item)
{
	SeenQueue  *seen = mq_memo(&seen_queues, item->queue.queue_no);

	seen->again_at = again_at;
	seen->visited = mq_monotonic_us();
}

/* ---- slots; a place that was known is looked at without a lock ---- */

static MqWindow *
window_of(MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);

	if (group->window == NULL || memcmp(&group->window->key, &key, sizeof(key)) != 0)
		group->window = mq_window_slot(&key, false, NULL);
	return group->window;
}

/* ---- what there is to do ---- */

/* With its lock: a mark that is overlooked would be taken for settled. */
static bool
has_marks(const MqGroup *group)
{
	MqWindowRef ref = {group->window, mq_window_key(group, 0)};
	MqWindowCounts counts;

	return mq_window_counts(&ref, &counts) && counts.ids[MQ_SETTLING] > 0;
}

/* For who looked before a sender committed without a callback. */
static bool
has_work_for_waiters(const MqGroup *group, int64 next_id)
{
	MqWindowRef ref = {group->window, mq_window_key(group, 0)};

	return mq_wake_sweep && pg_atomic_read_u32(&group->window->waiters) > 0 && mq_window_has_work(&ref, next_id);
}

/* Whether the group needs rows of a table of the offset log that could be emptied otherwise (mq_ring_blocked_by). */
static bool
blocks_ring(MqWindow *window, const MqQueueList *list)
{
	int64		needed = (int64) pg_atomic_read_u64(&window->oldest_needed);

	return needed != 0 && needed <= list->blocked_by;
}

/* Since it was asked last: it remembers what it sees. */
static bool
has_changed(const MqGroup *group)
{
	const MqWindow *window = group->window;
	SeenWindow *seen = mq_memo(&seen_windows, group->group_no);
	SeenWindow	now = {seen->head, window, window->changes, window->walk_seq};
	bool		same = seen->window == now.window && seen->changes == now.changes && seen->walk_seq == now.walk_seq;

	*seen = now;
	return !same;
}

/* Reads the window without its lock, but for has_marks and has_work_for_waiters. */
static bool
group_is_due(MqGroup *group, const MqQueueList *list, int64 next_id)
{
	MqWindow   *window = window_of(group);
	bool		due;

	if (window == NULL || window->root == 0)
		return false;
	due = has_changed(group);
	return due || window->pending != 0 || window->ids[MQ_SETTLING] > 0 ||
		MqNodeAt(window->root)->min_deadline <= GetCurrentTimestamp() || blocks_ring(window, list) ||
		(list->decided && has_marks(group)) || has_work_for_waiters(group, next_id);
}

/* Each queue has a moment of its own in MQ_VISIT_EVERY. */
static bool
is_its_moment(const SeenQueue *seen, int64 now)
{
	int64		offset = seen->head.number * MQ_S;

	return (now + offset) / MQ_VISIT_EVERY != (seen->visited + offset) / MQ_VISIT_EVERY;
}

/* A table that was replaced is taken over; a queue from elsewhere is adopted once it is used, another one is attached if there is room. */
static bool
is_to_be_taken_on(const MqQueue *queue, const MqChain *chain)
{
	if (queue->replaced)
		return true;
	return queue->foreign ? chain != NULL : chain == NULL && !mq_chains_are_full();
}

/* Remembers what it finds, for the visit that looks at it. */
static bool
queue_is_due(const MqQueueItem *item, const MqChain *chain)
{
	SeenQueue  *seen = mq_memo(&seen_queues, item->queue.queue_no);
	int64		now = mq_monotonic_us();
	int64		next_id = chain == NULL ? 0 : chain->next_id;
	bool		due = seen->touched || seen->touched_with_all != all_touched || seen->definition != item->definition ||
		seen->next_id != next_id || seen->again_at <= now || is_to_be_taken_on(&item->queue, chain) || is_its_moment(seen, now);

	seen->touched = false;
	seen->touched_with_all = all_touched;
	seen->definition = item->definition;
	seen->next_id = next_id;
	return due;
}

bool
mq_visit_is_due(MqQueueItem *item, const MqQueueList *list)
{
	const MqChain *chain = mq_job_chain(&item->queue);
	bool		due = queue_is_due(item, chain) || (chain != NULL && chain->wanted_segment >= 0);

	/* all of them, due or not, for each remembers what was seen */
	for (int i = 0; i < item->ngroups; i++)
		due |= group_is_due(&item->groups[i], list, chain == NULL ? 0 : chain->next_id);
	return due;
}
