/*
 * job_groups.c: the worker's jobs on delivery windows: leases that end, transactions that are decided, checkpoints.
 *
 * Owns what this worker knows of finished segments: since when a committed checkpoint says so. That is lost with the
 * process; the first checkpoint of the next one finds it out again.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/definitions.h"
#include "base/settings.h"
#include "base/stop_point.h"
#include "offset/rebuild.h"
#include "window/settle.h"
#include "window/wake.h"
#include "window/walk.h"
#include "worker/jobs.h"
#include "worker/memo.h"
#include "worker/visit.h"

#define SEGMENTS_AT_REST	3	/* a queue that has no more has nothing to drop */
#define LARGE_CHECKPOINT_S	600

/* A segment that a group has finished, and since when a committed checkpoint says so. */
typedef struct Finished
{
	int32		level;
	int64		segment;
	int64		since;			/* of mq_monotonic_us, as below */
} Finished;

typedef struct GroupMemo
{
	MqMemoHead	head;			/* data: array of Finished, by level and segment */
	int			count;
	int32		epoch;			/* in which that was so: a seek makes it void */
	int64		checkpoint;		/* when the last one was; 0: none yet */
} GroupMemo;

static MqMemo groups = {"mq groups", sizeof(GroupMemo)};

/* ---- windows ---- */

/* Needs no transaction. Lets others into the window after some leases each time (mq_window_expire). */
static void
expire_leases(const MqWindowRef *ref)
{
	TimestampTz now = GetCurrentTimestamp();

	while (mq_window_expire(ref, now))
		CHECK_FOR_INTERRUPTS();
}

/* Settles what transactions without callbacks (prepared, or from before a restart) left behind. False: there may be more of them. */
static bool
settle_decided(void *arg)
{
	const MqWindowRef *ref = arg;
	int			room = MaxBackends + max_prepared_xacts + 1;
	uint64	   *xids = palloc(room * sizeof(uint64));
	int			count = mq_window_settlers(ref, xids, room);

	for (int i = 0; i < count; i++)
		if (!mq_job_xid_is_open(xids[i]))
			mq_window_settled(ref, PG_INT64_MIN, PG_INT64_MAX, xids[i],
							  TransactionIdDidCommit(XidFromFullTransactionId(FullTransactionIdFromU64(xids[i]))), false);
	/* senders too: a receive looks at them as well, but there may be none for long */
	if (mq_walk_settle(ref))
		mq_wake_group(ref->window);
	return count < room;
}

/* A prepared transaction that changes the definition runs no callback at its commit. */
static bool
adopt_retry_policy(void *arg)
{
	const MqGroup *group = arg;
	MqWindowRef ref = {group->window, mq_window_key(group, 0)};
	MqRetryPolicy policy;

	if (mq_read_retry_policy(group->group_no, &policy) && policy.hash != ref.window->retry.hash)
		mq_window_set_retry(&ref, &policy);
	return true;
}

/* ---- checkpoints ---- */

/*
 * Checkpoints are also written now and then, so that finished segments can go. The first one after a start of
 * this worker also when nothing has changed: only a checkpoint tells it which segments are finished.
 */
static bool
is_time_for_checkpoint(const MqWindowRef *ref, int32 group_no, const MqQueueWork *work)
{
	int64		interval = ref->window->nodes < MQ_SMALL_CHECKPOINT ? Max(Min(mq_drop_delay, 60), 1) : LARGE_CHECKPOINT_S;
	const GroupMemo *memo = mq_memo(&groups, group_no);
	int64		due = memo->checkpoint + interval * MQ_S;

	if (memo->checkpoint == 0 && work->known && work->nsegments > SEGMENTS_AT_REST)
		return true;
	if (ref->window->changes == ref->window->checkpointed)
		return false;
	mq_visit_again(due);
	return mq_monotonic_us() >= due;
}

/* Job; false: the window is gone. The group is copied because mq_checkpoint_write clears the struct that it is in. */
static bool
write_checkpoint(void *arg)
{
	MqCheckpoint *checkpoint = arg;
	MqGroup		group = checkpoint->group;
	bool		written = mq_checkpoint_write(&group, checkpoint);

	if (written)
		MQ_STOP_POINT("checkpoint_written");
	return written;
}

/* Whether something in [lo, hi] is unfinished by the checkpoint, whose ranges are sorted and do not overlap. */
static bool
intersects(const MqCheckpoint *checkpoint, int64 lo, int64 hi)
{
	int			a = 0;
	int			b = checkpoint->count;

	while (a < b)
	{
		int			mid = a + (b - a) / 2;

		if (checkpoint->unfinished[mid].hi < lo)
			a = mid + 1;
		else
			b = mid;
	}
	return a < checkpoint->count && checkpoint->unfinished[a].lo <= hi;
}

static int
compare_finished(const void *a, const void *b)
{
	const Finished *x = a;
	const Finished *y = b;

	if (x->level != y->level)
		return x->level < y->level ? -1 : 1;
	return (x->segment > y->segment) - (x->segment < y->segment);
}

/* 0: not known to be finished. The caller sees to it that the epoch is still the same. */
static int64
finished_since(const GroupMemo *memo, int32 level, int64 segment)
{
	Finished	key = {level, segment, 0};
	const Finished *found = NULL;

	if (memo->count > 0)
		found = bsearch(&key, memo->head.data, memo->count, sizeof(Finished), compare_finished);
	return found == NULL ? 0 : found->since;
}

/* Of the segments there are; what was known of those that went is forgotten. */
static void
note_finished_segments(GroupMemo *memo, const MqCheckpoint *checkpoint, const MqQueueWork *work)
{
	int64		size = work->queue->segment_size;
	Finished   *now = MemoryContextAlloc(TopMemoryContext, (work->nsegments + 1) * sizeof(Finished));
	int			count = 0;

	for (int i = 0; i < work->nsegments; i++)
	{
		int64		segment = work->segments[i].segment;
		int32		level = work->segments[i].level;
		int64		since = memo->epoch == checkpoint->epoch ? finished_since(memo, level, segment) : 0;

		if ((segment + 1) * size <= checkpoint->next_id &&
			!intersects(checkpoint, segment * size, (segment + 1) * size - 1))
			now[count++] = (Finished) {level, segment, since != 0 ? since : mq_monotonic_us()};
	}
	if (memo->head.data != NULL)
		pfree(memo->head.data);
	memo->head.data = now;
	memo->count = count;
	memo->epoch = checkpoint->epoch;
}

/* The window is told after the commit; if there is none, failures that were counted still want a checkpoint. */
void
mq_job_checkpoint(const MqGroup *group, const MqQueueWork *work)
{
	MqCheckpoint checkpoint = {*group};
	GroupMemo  *memo;

	if (!mq_job_run(write_checkpoint, &checkpoint, MQ_JOB_FOR(group->group_no), "writing a checkpoint"))
	{
		mq_checkpoint_failed(&checkpoint);
		return;
	}
	MQ_STOP_POINT("checkpoint_committed");
	mq_checkpoint_committed(&checkpoint);
	memo = mq_memo(&groups, group->group_no);
	memo->checkpoint = mq_monotonic_us();
	if (work->known)
		note_finished_segments(memo, &checkpoint, work);
}

/*
 * COMMIT PREPARED of a sender runs no callback, and who looked before it saw nothing that will be settled: a receiver that
 * waits looks again when there may be something.
 */
static void
sweep_waiters(const MqWindowRef *ref, const MqQueueWork *work)
{
	if (mq_wake_sweep && work->known && pg_atomic_read_u32(&ref->window->waiters) > 0 &&
		mq_window_has_work(ref, work->tail.next_id))
		mq_wake_for_room(ref->window);
}

/*
 * A group that has finished all it has seen, and is asked by nobody, does not come to see that the rest of a segment is
 * empty: then the segment could not go.
 */
static bool
look_past_segment(void *arg)
{
	MqGroup    *group = arg;
	MqWindowRef ref = {group->window, mq_window_key(group, 0)};

	mq_attach_group(group);
	return mq_walk(group, &ref, 1);
}

/* Whether everything below next id is finished, and the log has gone on to a later segment. */
static bool
is_stuck_behind(const MqWindowRef *ref, const MqQueueWork *work)
{
	MqWindowCounts counts;
	int64		size = work->queue->segment_size;

	return work->known && mq_window_counts(ref, &counts) && counts.low_watermark == counts.next_id &&
		mq_segment_of(counts.next_id, size) < mq_segment_of(work->tail.next_id, size);
}

/* False: transactions may be decided that have marks in the group still. */
bool
mq_job_care_for_group(MqGroup *group, MqQueueWork *work)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, false, NULL), key};
	int64		needed;
	bool		settled;

	if (ref.window == NULL || ref.window->root == 0)
		return true;
	group->window = ref.window;
	expire_leases(&ref);
	settled = mq_job_run(settle_decided, &ref, MQ_JOB_FOR(group->group_no), "settling decided transactions");
	if (group->retry_hash != ref.window->retry.hash)
		(void) mq_job_run(adopt_retry_policy, group, MQ_JOB_FOR(group->group_no), "reading what becomes of failed messages");
	sweep_waiters(&ref, work);
	if (is_stuck_behind(&ref, work))
	{
		(void) mq_job_run(look_past_segment, group, MQ_JOB_FOR(group->group_no), "looking ahead");
		mq_visit_again(0);
	}
	if (ref.window->ids[MQ_DEAD] > 0)
		mq_job_move_dead(group, &work->bury_until);
	needed = (int64) pg_atomic_read_u64(&ref.window->oldest_needed);
	if (mq_checkpoint_is_due(&ref) || is_time_for_checkpoint(&ref, group->group_no, work) ||
		(needed != 0 && needed <= work->all->blocked_by))
		mq_job_checkpoint(group, work);
	return settled;
}

/* The epoch is that of the window now, for a seek may have come since the checkpoint was noted. */
int64
mq_job_finished_since(const MqGroup *group, int32 level, int64 segment)
{
	const GroupMemo *memo = mq_memo(&groups, group->group_no);
	MqWindowKey window_key = mq_window_key(group, level);
	MqWindowRef ref = {mq_window_slot(&window_key, false, NULL), window_key};
	int32		epoch;

	if (ref.window == NULL || !mq_window_lock(&ref, LW_SHARED))
		return 0;
	epoch = ref.window->epoch;
	mq_window_unlock(&ref);
	return memo->epoch == epoch ? finished_since(memo, level, segment) : 0;
}
