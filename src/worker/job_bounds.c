/*
 * job_bounds.c: the worker's job on queues that drop the oldest messages when they are over their bounds (bounds.h).
 *
 * What is ready, the oldest first, is acked for the group by ordinary rows of the offset log, until the queue is within its bounds; what
 * is leased or settling is left to who has it. How many went is in the window at once (MqWindow.overflowed), and is written to the
 * group's definition and logged once a minute: a row that was updated each time would be one more dead row each time. A crash loses
 * what has not been written; this worker's memory has when it was written last.
 *
 * Locks: window locks; the group's row, without waiting, to write the count.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "base/clock.h"
#include "base/owner.h"
#include "base/stop_point.h"
#include "offset/bounds.h"
#include "offset/rebuild.h"
#include "window/settle.h"
#include "window/transaction.h"
#include "worker/jobs.h"
#include "worker/memo.h"
#include "worker/visit.h"

#define LOTS_AT_ONCE	64			/* of MQ_ENTRIES_PER_HOLD entries each */
#define WRITE_EVERY		(60 * MQ_S)
#define KEEPING_US		(100 * MQ_MS)	/* of a visit, and one group: there are other queues */

/* A group, and when the count of what was dropped was written last. */
typedef struct Written
{
	MqMemoHead	head;
	int64		at;				/* of mq_monotonic_us; 0: never */
} Written;

static MqMemo written = {"mq drops written", sizeof(Written)};

typedef struct Drop
{
	MqGroup    *group;
	int64		dropped;		/* by this job, if it commits */
	bool		counted;		/* these are in MqWindow.overflowed */
	bool		more;			/* there is more to drop, or may be */
} Drop;

/* Some of what is ready, at most so many messages; 0: there is nothing, or no memory. */
static int64
drop_lot(const MqGroup *group, const MqWindowRef *ref, int64 max, uint64 xid, MqUndo *undo)
{
	MqRange		ranges[MQ_ENTRIES_PER_HOLD];
	MqCellList	cells;
	int			count = 0;
	int32		epoch = 0;
	int64		dropped;

	mq_undo_room(undo, MQ_ENTRIES_PER_HOLD);
	(void) mq_cells_reserve(&cells, 1, true);
	dropped = mq_window_discard_ready(ref, max, xid, &cells, ranges, &count, &epoch);
	mq_cells_return(&cells);
	for (int i = 0; i < count; i++)
		mq_undo_widen(undo, ranges[i].lo, ranges[i].hi);
	if (count > 0)
		mq_offset_log_wrote(ref->window, &ref->key, mq_offset_log_ack(group, 0, epoch, ranges, count));
	return dropped;
}

/* Job. */
static bool
drop_oldest(void *arg)
{
	Drop	   *drop = arg;
	int64		excess = mq_bounds_excess(drop->group, &drop->more);
	MqWindowRef ref;
	MqUndo	   *undo;
	uint64		xid;

	if (excess <= 0)
		return true;
	ref = (MqWindowRef) {drop->group->window, mq_window_key(drop->group, 0)};
	xid = mq_transaction_xid();
	undo = mq_undo_settle(&ref);
	for (int i = 0; i < LOTS_AT_ONCE && drop->dropped < excess; i++)
	{
		int64		dropped = drop_lot(drop->group, &ref, excess - drop->dropped, xid, undo);

		CHECK_FOR_INTERRUPTS();
		if (dropped == 0)
			break;
		drop->dropped += dropped;
	}
	drop->more |= drop->dropped < excess;
	/* before they are seen to be gone */
	drop->counted = true;
	(void) pg_atomic_fetch_add_u64(&ref.window->overflowed, drop->dropped);
	MQ_STOP_POINT("bounds_dropped");
	return true;
}

/* Job; somebody who alters the group is not waited for. */
static bool
write_count(void *arg)
{
	const MqGroup *group = arg;
	int64		dropped = (int64) pg_atomic_read_u64(&group->window->overflowed);
	MqSqlContext context;
	bool		locked;

	mq_sql_begin(&context);
	locked = mq_sql("SELECT FROM mq_internal.consumer_group WHERE group_no = %d FOR NO KEY UPDATE SKIP LOCKED", group->group_no) > 0;
	if (locked)
		mq_sql("UPDATE mq_internal.consumer_group SET dropped = dropped + " INT64_FORMAT " WHERE group_no = %d", dropped, group->group_no);
	mq_sql_end(&context);
	if (locked)
		ereport(LOG,
				(errmsg("queue \"%s\" was over its bounds: " INT64_FORMAT " messages that consumer group \"%s\" has not finished were dropped",
						NameStr(group->queue.name), dropped, NameStr(group->name))));
	return locked;
}

void
mq_job_write_dropped(MqGroup *group, bool at_once)
{
	MqWindowKey key = mq_window_key(group, 0);
	Written    *memo = mq_memo(&written, group->group_no);
	int64		dropped;

	group->window = mq_window_slot(&key, false, NULL);
	if (group->window == NULL || (dropped = (int64) pg_atomic_read_u64(&group->window->overflowed)) == 0)
		return;
	if (!at_once && memo->at != 0 && mq_monotonic_us() < memo->at + WRITE_EVERY)
	{
		mq_visit_again(memo->at + WRITE_EVERY);
		return;
	}
	/* nobody but this process adds to it */
	if (!mq_job_run(write_count, group, MQ_JOB_FOR(group->group_no), "writing how many messages were dropped"))
		return;
	(void) pg_atomic_fetch_sub_u64(&group->window->overflowed, dropped);
	memo = mq_memo(&written, group->group_no);
	memo->at = mq_monotonic_us();
}

/* Where something is left for lack of time it goes on in the next turn, at once; for other reasons, in the next turn. */
static void
keep_group(MqGroup *group)
{
	Drop		drop = {group};

	if (!mq_job_run(drop_oldest, &drop, MQ_JOB_FOR(group->group_no), "dropping the oldest messages"))
	{
		if (drop.counted)
			(void) pg_atomic_fetch_sub_u64(&group->window->overflowed, drop.dropped);
		return;
	}
	if (drop.more)
		mq_visit_again(0);
	if (drop.more && drop.dropped > 0)
		mq_worker_wake(mq_worker_database);
}

/* Some groups: of many, the next visit begins where this one has stopped. */
static void
keep_groups(const MqQueueWork *work)
{
	static uint32 first = 0;
	int64		until = mq_monotonic_us() + KEEPING_US;

	for (int i = 0; i < work->ngroups; i++)
	{
		if (mq_monotonic_us() >= until)
		{
			mq_visit_again(0);
			mq_worker_wake(mq_worker_database);
			return;
		}
		keep_group(&work->groups[first++ % work->ngroups]);
	}
}

void
mq_job_keep_bounds(const MqQueueWork *work)
{
	if (work->queue->drop_oldest)
		keep_groups(work);
	for (int i = 0; i < work->ngroups; i++)
		mq_job_write_dropped(&work->groups[i], false);
}
