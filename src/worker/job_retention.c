/*
 * job_retention.c: the worker's jobs on what is kept: limits by time and size, and dropping what nobody has read.
 *
 * A segment is the unit: it may go when it is past one of the limits of its queue, and all groups have finished it. Unread
 * messages go only from a queue that has drop_unread: they are acked for the groups, by an ordinary row of the offset log,
 * under a lock on the segment that no sender shares; the segment then goes as any finished one. The age of a segment
 * counts from its sealing, so nothing is dropped too early. A crash loses only since when the active segment is in use.
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/definitions.h"
#include "base/owner.h"
#include "log/page.h"
#include "offset/rebuild.h"
#include "window/settle.h"
#include "window/transaction.h"
#include "window/walk.h"
#include "worker/jobs.h"
#include "worker/memo.h"
#include "worker/visit.h"

/* the active segment is left after this part of the time that messages are kept, so that they go in steps */
#define STEPS_PER_RETENTION 4

/* The active segment of a queue, and since when it is known to hold messages. */
typedef struct Active
{
	MqMemoHead	head;
	int64		segment;
	int64		since;			/* of mq_monotonic_us */
} Active;

static MqMemo actives = {"mq active segments", sizeof(Active)};

bool
mq_job_segment_is_old(const MqQueueWork *work)
{
	int64		segment = mq_segment_of(work->tail.next_id, work->queue->segment_size);
	int64		now = mq_monotonic_us();
	Active	   *active;

	if (work->queue->retention_us == 0 || work->tail.next_id <= Max(segment * work->queue->segment_size, 1))
		return false;
	active = mq_memo(&actives, work->queue->queue_no);
	if (active->since == 0 || active->segment != segment)
	{
		active->segment = segment;
		active->since = now;
	}
	mq_visit_again(active->since + work->queue->retention_us / STEPS_PER_RETENTION);
	return now - active->since >= work->queue->retention_us / STEPS_PER_RETENTION;
}

/* Asks for another visit where time alone will let it go. */
bool
mq_job_retention_lets_go(const MqQueue *queue, const MqSegmentInfo *segment, int64 kept)
{
	if (queue->retention_us == 0 && queue->retention_bytes < 0)
		return true;
	if (queue->retention_us > 0 && segment->sealed_at != 0)
	{
		int64		left = queue->retention_us - (GetCurrentTimestamp() - segment->sealed_at);

		if (left <= 0)
			return true;
		mq_visit_again(mq_monotonic_us() + Min(left, MQ_VISIT_EVERY));
	}
	return queue->retention_bytes >= 0 && kept > queue->retention_bytes;
}

/* bytes: one for each segment of the list, 0 to begin with. */
typedef struct BytesJob
{
	const MqQueueWork *work;
	int64	   *bytes;
} BytesJob;

/* One that is locked by somebody counts as nothing this time; false: there was one. */
static bool
measure(void *arg)
{
	BytesJob   *job = arg;
	bool		all = true;

	for (int i = 0; i < job->work->nsegments; i++)
	{
		Oid			relid = job->work->segments[i].relid;
		Relation	rel;

		if (!OidIsValid(relid))
			continue;
		if (!ConditionalLockRelationOid(relid, AccessShareLock) || (rel = try_relation_open(relid, NoLock)) == NULL)
		{
			all = false;
			continue;
		}
		job->bytes[i] = DatumGetInt64(DirectFunctionCall1(pg_total_relation_size, ObjectIdGetDatum(relid)));
		relation_close(rel, NoLock);
	}
	return all;
}

int64 *
mq_job_segment_bytes(const MqQueueWork *work)
{
	BytesJob	job = {work};

	if (work->queue->retention_bytes < 0)
		return NULL;
	job.bytes = palloc0((work->nsegments + 1) * sizeof(int64));
	(void) mq_job_run(measure, &job, MQ_JOB_FOR(work->queue->queue_no), "measuring segments");
	return job.bytes;
}

/* ---- unread messages ---- */

typedef struct DropJob
{
	MqQueue		queue;
	const MqSegmentInfo *segment;
	int64		kept;
} DropJob;

/* Messages in the segment that the group has not finished. */
static int64
count_unread(const MqWindowRef *ref, Relation rel, int64 lo, int64 hi)
{
	static MqRow rows[MQ_PAGE_ROWS];
	int64		ids[MQ_PAGE_ROWS];
	Snapshot	judge = RegisterSnapshot(GetLatestSnapshot());
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);
	int64		unread = 0;

	for (BlockNumber block = 0; block < blocks; block++)
	{
		int64		page_max;
		int			count = mq_log_read_page(rel, block, lo, hi, judge, rows, &page_max);

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < count; i++)
			ids[i] = rows[i].id;
		unread += mq_window_count_unfinished(ref, ids, count);
	}
	UnregisterSnapshot(judge);
	return unread;
}

/* Waits for nobody: lock_definition has locked the row. */
static void
count_as_dropped(const MqGroup *group, int64 unread)
{
	MqSqlContext context;

	mq_sql_begin(&context);
	mq_sql("UPDATE mq_internal.consumer_group SET dropped = dropped + " INT64_FORMAT " WHERE group_no = %d", unread, group->group_no);
	mq_sql_end(&context);
	ereport(LOG,
			(errmsg("retention of queue \"%s\" drops " INT64_FORMAT " messages that consumer group \"%s\" has not finished",
					NameStr(group->queue.name), unread, NameStr(group->name))));
}

/* Before anything is marked; somebody who alters the group is not waited for. */
static bool
lock_definition(const MqGroup *group)
{
	MqSqlContext context;
	bool		locked;

	mq_sql_begin(&context);
	locked = mq_sql("SELECT FROM mq_internal.consumer_group WHERE group_no = %d FOR NO KEY UPDATE SKIP LOCKED", group->group_no) > 0;
	mq_sql_end(&context);
	return locked;
}

/*
 * The caller holds ACCESS EXCLUSIVE on the segment. Where something is in the way nothing is done: for that group it stays
 * unfinished, and so the segment stays.
 */
static void
finish_for_group(MqGroup *group, Relation rel, int64 lo, int64 hi)
{
	MqRange		range = {lo, hi};
	MqWindowRef ref;
	MqCellList	cells;
	MqUndo	   *undo;
	int64		unread;
	uint64		xid;
	int32		epoch;
	bool		any;

	if (!mq_attach_group_if_it_fits(group))
		return;
	ref = (MqWindowRef) {group->window, mq_window_key(group, 0)};
	(void) mq_walk_settle(&ref);
	while (ref.window->rewalk != 0 && mq_walk(group, &ref, PG_INT32_MAX))
		CHECK_FOR_INTERRUPTS();
	if (!mq_window_has_unfinished(&ref, lo, hi))
		return;
	if (!lock_definition(group))
		return;
	unread = count_unread(&ref, rel, lo, hi);
	undo = mq_undo_settle(&ref);
	xid = mq_transaction_xid();
	if (!mq_cells_reserve(&cells, 2, true))
		return;
	any = mq_window_discard_range(&ref, lo, hi, xid, &cells, &epoch);
	/* at once: what comes may raise an error, and cells are no memory of the transaction's */
	mq_cells_return(&cells);
	if (!any)
		return;
	mq_undo_widen(undo, lo, hi);
	mq_offset_log_wrote(ref.window, &ref.key, mq_offset_log_ack(group, 0, epoch, &range, 1));
	if (unread > 0)
		count_as_dropped(group, unread);
}

/* Job: all groups in one transaction. True also if one was passed over; a later visit tries again. */
static bool
drop_unread(void *arg)
{
	DropJob    *job = arg;
	int64		size = job->queue.segment_size;
	int64		lo = job->segment->segment * size;
	int			count;
	MqGroup    *groups;
	Relation	rel;

	/* nobody who sent to it is undecided then */
	if (!mq_lock_table_conditionally(job->segment->relid, AccessExclusiveLock))
		return false;
	/* the owner may have thought better of it */
	if (!mq_job_reread_queue(&job->queue) || !job->queue.drop_unread ||
		!mq_job_retention_lets_go(&job->queue, job->segment, job->kept))
		return false;
	groups = mq_groups_of(&job->queue, &count);
	rel = relation_open(job->segment->relid, NoLock);
	for (int i = 0; i < count; i++)
		finish_for_group(&groups[i], rel, lo, lo + size - 1);
	relation_close(rel, NoLock);
	return true;
}

void
mq_job_drop_unread(const MqQueue *queue, const MqSegmentInfo *segment, int64 kept)
{
	DropJob		job = {*queue, segment, kept};

	(void) mq_job_run(drop_unread, &job, (MqJobFor) {segment->segment, queue->queue_no},
					  psprintf("dropping unread messages of queue \"%s\"", NameStr(queue->name)));
}
