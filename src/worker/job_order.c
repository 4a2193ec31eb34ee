/*
 * job_order.c: the worker's jobs on what others may have done to segments: the guard is put back, the order of pages that
 * were restored or rewritten is looked at once and put on record.
 *
 * Owns what this worker knows of each segment; a relcache invalidation says that it is to be looked at again. That is lost
 * with the process, and found out again. Locks: ACCESS SHARE for a look, SHARE ROW EXCLUSIVE to put a guard back, both
 * conditional. A look goes on for a while in each turn, so that one at a large segment holds up nothing else.
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "log/order.h"
#include "log/page.h"
#include "log/segment_table.h"
#include "worker/jobs.h"
#include "worker/memo.h"
#include "worker/visit.h"

#define PAGES_PER_JOB	1024
#define MS_PER_TURN		100

/* A segment, by the oid of its table. */
typedef struct SegmentMemo
{
	MqMemoHead	head;
	int32		queue_no;
	uint32		settled;		/* generation in which there was no more to do; 0: there is, or it has changed */
	MqOrderCheck check;
} SegmentMemo;

static MqMemo segments = {"mq order of segments", sizeof(SegmentMemo)};
static uint32 generation = 0;	/* goes up when anything may have changed; 0: not begun */
static int64 turn_until;		/* of mq_monotonic_us */
static bool unfinished;

/* A segment for the two jobs, and what they have found. */
typedef struct OrderJob
{
	MqQueue		queue;
	MqSegmentInfo *info;
	SegmentMemo *memo;
	bool		active;			/* ids in it may still have to be given out */
	bool		guard_is_off;
	bool		more;			/* pages to look at */
} OrderJob;

/* May run at any time; never throws, never allocates. Where invalidations were lost all segments are looked at again. */
static void
relcache_callback(Datum arg, Oid relid)
{
	SegmentMemo *memo = OidIsValid(relid) ? mq_memo_find(&segments, (int32) relid) : NULL;

	if (!OidIsValid(relid))
		generation = Max(generation + 1, 1);
	else if (memo != NULL)
	{
		memo->settled = 0;
		mq_visit_touch(memo->queue_no);
	}
}

void
mq_job_order_begin(void)
{
	if (generation == 0)
	{
		generation = 1;
		CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	}
	turn_until = mq_monotonic_us() + MS_PER_TURN * MQ_MS;
	unfinished = false;
}

bool
mq_job_order_is_unfinished(void)
{
	return unfinished;
}

static void
say_what_was_found(const OrderJob *job, Relation rel)
{
	if (job->memo->check.has_others)
		mq_segment_complain(rel, "has rows whose ids do not belong into it", "They are not delivered.");
	ereport(LOG,
			(errmsg("the pages of segment \"%s\" of queue \"%s\" are not in the order of ids",
					RelationGetRelationName(rel), NameStr(job->queue.name)),
			 errdetail("No message is lost; to find those that are left it is read whole.")));
}

/* True: there is no more to do. */
static bool
look_at_order(OrderJob *job, Relation rel)
{
	MqOrderCheck *check = &job->memo->check;

	if (job->info->file == MqRelFileNumber(rel) || (check->file == MqRelFileNumber(rel) && !check->in_order))
		return true;
	if (!mq_order_check(&job->queue, job->info->segment, rel, check, PAGES_PER_JOB))
		return false;
	if (check->in_order)
		mq_segment_record_order(&job->queue, job->info->level, job->info->segment, check->file);
	else
		say_what_was_found(job, rel);
	return true;
}

/* Job: false if the segment is locked, its guard is off, or more pages are left; guard_is_off and more tell which. */
static bool
look_at_segment(void *arg)
{
	OrderJob   *job = arg;
	uint32		now = generation;
	Relation	rel;
	bool		done;

	if (!ConditionalLockRelationOid(job->info->relid, AccessShareLock) ||
		(rel = try_relation_open(job->info->relid, NoLock)) == NULL)
		return false;
	job->guard_is_off = !mq_segment_is_guarded(rel);
	done = !job->guard_is_off && look_at_order(job, rel);
	job->more = !job->guard_is_off && !done;
	relation_close(rel, NoLock);
	/* what comes in between says so */
	job->memo->settled = done ? now : 0;
	return done;
}

/* The greatest id in the segment, whoever wrote it; -1: none. */
static int64
greatest_id(const OrderJob *job)
{
	Relation	rel = relation_open(job->info->relid, NoLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);
	int64		lo = job->info->segment * job->queue.segment_size;
	int64		max = -1;
	bool		others = false;

	for (BlockNumber block = 0; block < blocks; block++)
	{
		CHECK_FOR_INTERRUPTS();
		max = Max(max, mq_log_page_range(rel, block, lo, lo + job->queue.segment_size - 1, &others).max_id);
	}
	relation_close(rel, NoLock);
	return max;
}

/* Nobody writes to the segment meanwhile. Ids that somebody else has used ahead of us are not given out again. */
static bool
put_guard_back(void *arg)
{
	OrderJob   *job = arg;

	if (!ConditionalLockRelationOid(job->info->relid, ShareRowExclusiveLock) ||
		!ConditionalLockRelationOid(job->queue.table, ShareRowExclusiveLock) ||
		!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(job->info->relid)))
		return false;
	mq_log_skip(&job->queue, job->info->level, job->active ? greatest_id(job) + 1 : 0);
	mq_segment_guard(&job->queue, job->info->level, job->info->segment);
	memset(&job->memo->check, 0, sizeof(job->memo->check));
	ereport(LOG,
			(errmsg("the guard trigger of segment \"%s\" of queue \"%s\" was off, and is put back",
					get_rel_name(job->info->relid), NameStr(job->queue.name))));
	return true;
}

/* Pages that a turn has no time for are left to the next one (unfinished). */
static void
care_for_segment(const MqQueueWork *work, MqSegmentInfo *info)
{
	OrderJob	job = {*work->queue, info, mq_memo(&segments, (int32) info->relid)};
	MqJobFor	object = {info->segment, work->queue->queue_no, mq_job_is_waited_for(work->queue)};
	char	   *name = NameStr(work->queue->name);

	job.memo->queue_no = work->queue->queue_no;
	if (job.memo->settled == generation)
		return;
	job.active = info->segment >= mq_segment_of(work->tail.next_id, work->queue->segment_size);
	do
	{
		job.guard_is_off = job.more = false;
		(void) mq_job_run(look_at_segment, &job, object, psprintf("looking at a segment of queue \"%s\"", name));
		if (job.guard_is_off)
		{
			info->file = InvalidOid;
			job.more = mq_job_run(put_guard_back, &job, object,
								  psprintf("putting back the guard of a segment of queue \"%s\"", name));
		}
	} while (job.more && mq_monotonic_us() < turn_until);
	unfinished |= job.more;
}

void
mq_job_care_for_order(const MqQueueWork *work)
{
	if (work->queue->foreign)
		return;
	for (int i = 0; i < work->nsegments; i++)
		if (OidIsValid(work->segments[i].relid))
			care_for_segment(work, &work->segments[i]);
}
