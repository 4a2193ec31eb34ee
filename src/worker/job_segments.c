/*
 * job_segments.c: the worker's jobs on segments: made ahead, cut when too large, sealed, dropped.
 *
 * Making one needs the parent's lock only, for senders that wait for it may hold locks on the others, and somebody
 * else may be queued behind them. Locks are taken conditionally, from the leaf up; only for the parent's lock to make one
 * the worker stands in line when it has to, holding nothing else (mq_job_stand_in_line): at the end of a turn, when all queues
 * have been cared for. A crash leaves a segment whole or not at all.
 */
#include "postgres.h"

#include "access/relation.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/syscache.h"

#include "base/clock.h"
#include "base/definitions.h"
#include "base/dependents.h"
#include "base/settings.h"
#include "base/stop_point.h"
#include "log/segment_table.h"
#include "offset/rebuild.h"
#include "worker/backoff.h"
#include "worker/jobs.h"
#include "worker/memo.h"
#include "worker/visit.h"

#define SEGMENTS_AHEAD	2
#define DEPENDENTS_PER_TURN ((MqDependentsBudget) {2000, INT64CONST(8) * 1024 * 1024})

static MqDependentsBudget dependents_left;	/* of this turn */

/* A segment for a job; for one that is to be made only the first two are set. */
typedef struct SegmentJob
{
	MqQueue		queue;
	int64		segment;
	Oid			relid;
	const MqSegmentInfo *info;
	int64		kept;			/* bytes of it and all after it */
} SegmentJob;

/* Asked once it is locked: the queue may have been dropped since it was listed. */
static bool
table_exists(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
}

/* A record without a table does not count. */
static bool
has_segment(const MqSegmentInfo *list, int count, int64 segment)
{
	for (int i = 0; i < count; i++)
		if (list[i].segment == segment && OidIsValid(list[i].relid))
			return true;
	return false;
}

/* Job; true: it is there, whoever made it. Takes the lock that ATTACH needs, without waiting. */
static bool
make_segment(void *arg)
{
	SegmentJob *job = arg;
	MqSegmentInfo *list;
	int			count;

	if (!mq_job_lock(job->queue.table, ShareUpdateExclusiveLock) || !table_exists(job->queue.table))
		return false;
	/* it may be there, but its record was deleted, with others */
	if (mq_segment_record_all(&job->queue) > 0)
		mq_log_skip_to_end(&job->queue, 0);
	list = mq_segment_list(&job->queue, &count);
	if (!has_segment(list, count, job->segment))
		mq_segment_create(&job->queue, 0, job->segment);
	return true;
}

/* Job; false: somebody has it locked, or it is gone. */
static bool
seal_segment(void *arg)
{
	SegmentJob *job = arg;

	/* what building an index takes, and what changing the options takes */
	if (!ConditionalLockRelationOid(job->relid, ShareLock) ||
		!ConditionalLockRelationOid(job->relid, ShareUpdateExclusiveLock) || !table_exists(job->relid))
		return false;
	mq_segment_seal(&job->queue, 0, job->segment);
	return true;
}

static bool
is_empty(Oid relid)
{
	Relation	rel = relation_open(relid, NoLock);
	bool		empty = RelationGetNumberOfBlocks(rel) == 0;

	relation_close(rel, NoLock);
	return empty;
}

/*
 * By all groups, long enough ago. A queue without groups drops nothing but by its retention. *lagging: who had not finished it,
 * to be asked first: of many segments that is mostly the same one.
 */
static bool
is_finished(const MqQueue *queue, const MqGroup *groups, int count, int *lagging, int64 segment)
{
	int64		now = mq_monotonic_us();
	int			first = *lagging;

	for (int i = 0; i < count; i++)
	{
		int			group = (first + i) % count;
		int64		since = mq_job_finished_since(&groups[group], 0, segment);

		if (since != 0 && now - since >= mq_drop_delay * MQ_S)
			continue;
		*lagging = group;
		if (since != 0)
			mq_visit_again(since + mq_drop_delay * MQ_S);
		return false;
	}
	return count > 0 || queue->retention_us > 0 || queue->retention_bytes >= 0;
}

/*
 * Once the segment is locked: a group that was made or moved meanwhile held a lock on it until that could be seen; and the
 * retention may have been changed.
 */
static bool
may_still_go(SegmentJob *job)
{
	int			count;
	int			lagging = 0;
	MqGroup    *groups;

	if (!mq_job_reread_queue(&job->queue) || !mq_job_retention_lets_go(&job->queue, job->info, job->kept))
		return false;
	groups = mq_groups_of(&job->queue, &count);
	return is_finished(&job->queue, groups, count, &lagging, job->segment);
}

/*
 * Locks from the leaf up; a parent in use, or a dependent that somebody is dropping, leaves an empty leaf to be dropped another
 * time, and so do more dependents than are for this turn. They are read before anybody is locked out; those that came since then,
 * after.
 */
static bool
drop_segment(void *arg)
{
	SegmentJob *job = arg;
	bool		forgotten = mq_forget_dependents(job->relid, &dependents_left);

	if (!mq_lock_table_conditionally(job->relid, AccessExclusiveLock) || !may_still_go(job))
		return false;
	if (forgotten && ConditionalLockRelationOid(job->queue.table, AccessExclusiveLock) && table_exists(job->queue.table) &&
		mq_forget_dependents(job->relid, &dependents_left))
	{
		mq_segment_drop(&job->queue, 0, job->segment);
		return true;
	}
	if (!is_empty(job->relid))
		mq_segment_truncate(&job->queue, 0, job->segment);
	return false;
}

/* Wakes senders; also for a segment that was there before, for one may wait until its guard is back. Takes the append lock. */
static void
segment_made(const MqQueue *queue, int64 segment)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	LWLockAcquire(MqAppendLock(queue->chain), LW_EXCLUSIVE);
	/* the queue may have been dropped meanwhile, and the slot be another one's */
	if (memcmp(&queue->chain->key, &key, sizeof(key)) == 0 && queue->chain->wanted_segment <= segment)
		queue->chain->wanted_segment = -1;
	LWLockRelease(MqAppendLock(queue->chain));
	ConditionVariableBroadcast(&queue->chain->segment_made);
}

/* The next segment exists already. */
void
mq_job_cut_segment(const MqQueueWork *work)
{
	const MqQueue *queue = work->queue;
	MqChainKey	key = mq_chain_key(queue, 0);
	MqChain    *chain = queue->chain;
	int64		segment = mq_segment_of(work->tail.next_id, queue->segment_size);
	int64		next = (segment + 1) * queue->segment_size;

	if (work->tail_blocks * BLCKSZ < (uint64) mq_segment_max_size * 1024 * 1024 && !mq_job_segment_is_old(work))
		return;
	LWLockAcquire(MqAppendLock(chain), LW_EXCLUSIVE);
	if (memcmp(&chain->key, &key, sizeof(key)) == 0 && mq_segment_of(chain->next_id, queue->segment_size) == segment)
	{
		mq_log_pass_over(chain, next);
		chain->reserved_end = Max(chain->reserved_end, next);
	}
	LWLockRelease(MqAppendLock(chain));
}

/* Pages of a segment; 0 also when it cannot be locked now. */
static uint64
segment_blocks(const MqQueueWork *work, int64 segment)
{
	for (int i = 0; i < work->nsegments; i++)
	{
		Oid			relid = work->segments[i].relid;
		Relation	rel;
		uint64		blocks;

		if (work->segments[i].segment != segment || !OidIsValid(relid) ||
			!ConditionalLockRelationOid(relid, AccessShareLock) || (rel = try_relation_open(relid, NoLock)) == NULL)
			continue;
		blocks = RelationGetNumberOfBlocks(rel);
		relation_close(rel, NoLock);
		return blocks;
	}
	return 0;
}

bool
mq_job_look_at_queue(void *arg)
{
	MqQueueWork *work = arg;

	if (!mq_job_is_ours(work->queue))
		return false;
	work->segments = mq_segment_list(work->queue, &work->nsegments);
	if (!mq_attach_queue_at_once(work->queue) || !mq_log_tail(work->queue, 0, &work->tail))
		return false;
	work->wanted = work->queue->chain->wanted_segment;
	work->tail_blocks = segment_blocks(work, mq_segment_of(work->tail.next_id, work->queue->segment_size));
	return true;
}

/* From first to last; returns the first that could not be made now, or that after the last. */
static int64
make_missing(const MqQueueWork *work, int64 first, int64 last)
{
	char	   *what = psprintf("creating a segment of queue \"%s\"", NameStr(work->queue->name));

	for (int64 segment = first; segment <= last; segment++)
	{
		SegmentJob	job = {*work->queue, segment};
		/* not by segment: what keeps one from being made keeps the next one too */
		MqJobFor	object = {0, work->queue->queue_no, segment <= work->wanted};

		if (!has_segment(work->segments, work->nsegments, segment))
		{
			if (!mq_job_run(make_segment, &job, object, what))
				return segment;
			MQ_STOP_POINT("segment_committed");
		}
		segment_made(work->queue, segment);
	}
	return last + 1;
}

/* ---- queues whose table was locked ---- */

/* A queue that lacks segments because somebody was in the way; for one turn, in mq_job_context. */
typedef struct Missed
{
	MqQueueWork work;
	int64		first;
	int64		last;
	MqMissedLock lock;
} Missed;

/* Who has stood in line in vain does so ever more rarely: what is locked for good is one tenant's trouble, not everybody's. */
typedef struct InLine
{
	MqMemoHead	head;
	MqBackoff	backoff;
} InLine;

static MqMemo lines = {"mq queues in line", sizeof(InLine)};
static List *missed;			/* of this turn */

void
mq_job_segments_begin(void)
{
	missed = NIL;
	dependents_left = DEPENDENTS_PER_TURN;
}

static bool
is_waited_for(const Missed *m)
{
	return m->work.wanted >= m->first;
}

/* Only if it was a lock that was missing, and not if the queue stood in line in vain lately. */
static void
note_missed(const MqQueueWork *work, int64 first, int64 last)
{
	const InLine *line = mq_memo(&lines, work->queue->queue_no);
	Missed	   *m;

	if (!mq_job_missed_lock(NULL) || !mq_backoff_is_over(&line->backoff, false))
		return;
	m = palloc(sizeof(Missed));
	*m = (Missed) {*work, first, last};
	(void) mq_job_missed_lock(&m->lock);
	/* those for whom a sender waits come first */
	missed = is_waited_for(m) ? lcons(m, missed) : lappend(missed, m);
}

bool
mq_job_make_segments(MqQueueWork *work)
{
	int64		active = mq_segment_of(work->tail.next_id, work->queue->segment_size);
	int64		last = Max(active + SEGMENTS_AHEAD, work->wanted);
	int64		missing = make_missing(work, active, last);

	if (missing <= last)
		note_missed(work, missing, last);
	else
		(void) mq_backoff_worked(&((InLine *) mq_memo(&lines, work->queue->queue_no))->backoff);
	return missing > last;
}

/* While the session has the lock, the jobs get it at once when they ask for it. */
static void
make_in_line(Missed *m, int sharers)
{
	InLine	   *line = mq_memo(&lines, m->work.queue->queue_no);

	if (!mq_job_stand_in_line(&m->lock, sharers, "waiting for the lock on a queue's table"))
	{
		(void) mq_backoff_failed(&line->backoff);
		return;
	}
	(void) mq_backoff_worked(&line->backoff);
	(void) make_missing(&m->work, m->first, m->last);
	mq_job_leave_line();
}

void
mq_job_make_missed_segments(void)
{
	ListCell   *cell;
	int			left = 0;

	foreach(cell, missed)
		left += is_waited_for(lfirst(cell));
	foreach(cell, missed)
	{
		/* those for which a sender waits share the time, the others what that leaves */
		int			sharers = is_waited_for(lfirst(cell)) ? left-- : list_length(missed) - foreach_current_index(cell);

		if (!mq_job_may_wait())
			break;
		make_in_line(lfirst(cell), sharers);
	}
	missed = NIL;
}

/* Where DROP raises an error, for an event trigger say: at least the disk is free, until it works again. */
static bool
empty_segment(void *arg)
{
	SegmentJob *job = arg;

	if (!mq_lock_table_conditionally(job->relid, AccessExclusiveLock) || !may_still_go(job))
		return false;
	if (!is_empty(job->relid))
		mq_segment_truncate(&job->queue, 0, job->segment);
	return true;
}

/* One step in each visit, which asks for the next one. What is finished goes even if it was never sealed. */
static void
clear_segment(MqQueueWork *work, const MqSegmentInfo *segment, int64 kept)
{
	SegmentJob	job = {*work->queue, segment->segment, segment->relid, segment, kept};
	MqJobFor	object = {segment->segment, work->queue->queue_no};
	char	   *name = NameStr(work->queue->name);
	bool		may_go = mq_job_retention_lets_go(work->queue, segment, kept);

	if (may_go && is_finished(work->queue, work->groups, work->ngroups, &work->lagging, job.segment))
	{
		if (!mq_job_run(drop_segment, &job, object, psprintf("dropping a segment of queue \"%s\"", name)) &&
			mq_job_is_failing(drop_segment, object))
			(void) mq_job_run(empty_segment, &job, object, psprintf("emptying a segment of queue \"%s\"", name));
	}
	else if (!segment->sealed)
		(void) mq_job_run(seal_segment, &job, object, psprintf("sealing a segment of queue \"%s\"", name));
	else if (may_go && work->queue->drop_unread)
		mq_job_drop_unread(work->queue, segment, kept);
	else
		return;
	/* what comes next, after it was sealed, say */
	mq_visit_again(0);
}

/* Old segments: dropped if finished by all and the retention lets them go, else sealed. */
void
mq_job_clear_segments(MqQueueWork *work)
{
	int64		active = mq_segment_of(work->tail.next_id, work->queue->segment_size);
	int64	   *bytes = mq_job_segment_bytes(work);
	int64		kept = 0;

	for (int i = 0; i < work->nsegments && bytes != NULL; i++)
		kept += bytes[i];
	for (int i = 0; i < work->nsegments; i++)
	{
		if (work->segments[i].segment < active && OidIsValid(work->segments[i].relid))
			clear_segment(work, &work->segments[i], kept);
		kept -= bytes != NULL ? bytes[i] : 0;
	}
}

bool
mq_job_lock_log(const MqQueue *queue, int rows)
{
	MqTail		tail;
	int64		last;

	if (!mq_log_tail(queue, 0, &tail))
		return false;
	last = mq_segment_of(tail.next_id + rows, queue->segment_size);
	for (int64 segment = mq_segment_of(tail.next_id, queue->segment_size); segment <= last; segment++)
	{
		Relation	rel = mq_segment_open_at_once(queue, 0, segment);
		bool		good = rel != NULL && mq_segment_is_guarded(rel);

		if (!good)
			mq_segment_ask_for(queue, 0, segment);
		else
			good = mq_lock_table_conditionally(RelationGetRelid(rel), RowExclusiveLock);
		if (rel != NULL)
			relation_close(rel, NoLock);
		if (!good)
			return false;
	}
	return true;
}
