/*
 * job_expire.c: the worker's jobs on expires_after: groups that nobody receives from, and queues that nobody uses, are dropped.
 *
 * Idle times are measured by the clock that nobody can set, and begin anew with each worker: nothing goes too early. A receiver notes
 * in the window when it looked last (used_at); what is in flight, or waits, is use too. The drop itself is that of mq.drop_group and
 * mq.drop_queue, called as the owner of the extension: with their checks, dependents and locks, for which it waits no longer than any job does.
 * A crash leaves it done or not.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "base/clock.h"
#include "base/owner.h"
#include "base/stop_point.h"
#include "log/schedule.h"
#include "offset/rebuild.h"
#include "window/walk.h"
#include "worker/jobs.h"
#include "worker/memo.h"
#include "worker/visit.h"

/* What is known of a group or queue that has the option. */
typedef struct Idle
{
	MqMemoHead	head;
	int64		since;			/* of mq_monotonic_us; 0: nothing is known yet */
	int64		expires_us;		/* the option when it was looked at last */
	int64		next_id;		/* of a queue, as then */
	bool		paused;			/* as then */
} Idle;

static MqMemo idle_groups = {"mq idle groups", sizeof(Idle)};
static MqMemo idle_queues = {"mq idle queues", sizeof(Idle)};

/* Whether somebody has messages of the group in hand, or waits for some; also if that is not known. *used_at: as in the window. */
static bool
is_in_use(const MqGroup *group, MqWindowCounts *counts, int64 *used_at)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, false, NULL), key};

	if (ref.window == NULL || !mq_window_counts(&ref, counts))
		return true;
	*used_at = (int64) pg_atomic_read_u64(&ref.window->used_at);
	return counts->ids[MQ_LEASED] + counts->ids[MQ_SETTLING] > 0 || counts->waiting > 0;
}

/*
 * Takes up what was seen at this visit; returns whether the time is over. A pause, or another value of the option, begins it anew.
 */
static bool
is_over(Idle *idle, int64 expires_us, bool paused, bool in_use, int64 used_at)
{
	int64		now = mq_monotonic_us();

	if (in_use || paused || idle->paused || idle->since == 0 || idle->expires_us != expires_us)
		idle->since = now;
	idle->since = Max(idle->since, used_at);
	idle->expires_us = expires_us;
	idle->paused = paused;
	if (paused)
		return false;
	mq_visit_again(idle->since + expires_us);
	return now - idle->since >= expires_us;
}

/* ---- groups ---- */

/* Locks the definition for a drop, without waiting; false: somebody else has it, or it is another one by now. */
static bool
lock_group(const MqGroup *group)
{
	MqSqlContext context;
	bool		locked;

	mq_sql_begin(&context);
	locked = mq_sql("SELECT FROM mq_internal.consumer_group g JOIN mq_internal.queue q ON q.queue_no = g.queue_no "
					"WHERE g.group_no = %d AND g.name = %s AND q.name = %s AND g.expires_after IS NOT NULL AND NOT g.paused AND NOT q.paused "
					"FOR UPDATE OF g SKIP LOCKED", group->group_no, quote_literal_cstr(NameStr(group->name)),
					quote_literal_cstr(NameStr(group->queue.name))) > 0;
	mq_sql_end(&context);
	return locked;
}

/* Job. Who has received since the visit keeps it. */
static bool
drop_group(void *arg)
{
	const MqGroup *group = arg;
	const Idle *idle = mq_memo(&idle_groups, group->group_no);
	MqSqlContext context;
	MqWindowCounts counts;
	int64		used_at = 0;

	if (!lock_group(group))
		return false;
	if (is_in_use(group, &counts, &used_at) || used_at > idle->since)
		return true;
	MQ_STOP_POINT("expire_before");
	mq_sql_begin(&context);
	mq_sql("SELECT mq.drop_group(%s, %s, force => true)", quote_literal_cstr(NameStr(group->queue.name)), quote_literal_cstr(NameStr(group->name)));
	mq_sql_end(&context);
	ereport(LOG,
			(errmsg("consumer group \"%s\" of queue \"%s\" expires: nobody has received from it for " INT64_FORMAT " s",
					NameStr(group->name), NameStr(group->queue.name), group->expires_us / USECS_PER_SEC),
			 errdetail("Messages that it has seen and not finished: " INT64_FORMAT ".", counts.ids[MQ_READY] + counts.ids[MQ_DEAD] + counts.pending)));
	return true;
}

static void
expire_group(MqGroup *group)
{
	MqWindowCounts counts;
	int64		used_at = 0;
	bool		in_use = is_in_use(group, &counts, &used_at);

	if (is_over(mq_memo(&idle_groups, group->group_no), group->expires_us, group->paused || group->queue.paused, in_use, used_at))
		(void) mq_job_run(drop_group, group, MQ_JOB_FOR(group->group_no), "dropping an expired group");
}

/* ---- queues ---- */

/* Job, before anybody is locked out: reads the group's log on, a part at a time; false: there may be more. */
static bool
look_ahead(void *arg)
{
	MqGroup    *group = arg;
	MqWindowRef ref;

	if (!mq_attach_group_if_it_fits(group))
		return false;
	ref = (MqWindowRef) {group->window, mq_window_key(group, 0)};
	return !mq_walk(group, &ref, 1);
}

/* Job. Senders are locked out first, as by mq.drop_queue, but without a wait. */
static bool
drop_queue(void *arg)
{
	MqQueue    *queue = arg;
	MqSqlContext context;

	if (!mq_job_lock(queue->table, AccessExclusiveLock) || !mq_job_reread_queue(queue))
		return false;
	if (queue->expires_us == 0 || queue->paused)
		return true;
	mq_sql_begin(&context);
	mq_sql("SELECT mq.drop_queue(%s, force => false)", quote_literal_cstr(NameStr(queue->name)));
	mq_sql_end(&context);
	ereport(LOG,
			(errmsg("queue \"%s\" expires: nobody has used it for " INT64_FORMAT " s", NameStr(queue->name),
					queue->expires_us / USECS_PER_SEC)));
	return true;
}

/* Whether a group of the queue is used, or has messages that are not finished; adds up `paused` and `used_at`. */
static bool
group_keeps_queue(const MqGroup *group, bool *paused, int64 *used_at)
{
	MqWindowCounts counts;
	int64		group_used_at = 0;
	bool		in_use = is_in_use(group, &counts, &group_used_at);

	*paused |= group->paused;
	*used_at = Max(*used_at, group_used_at);
	return in_use || counts.ids[MQ_READY] + counts.ids[MQ_DEAD] + counts.pending > 0;
}

static void
expire_queue(const MqQueueWork *work)
{
	Idle	   *idle = mq_memo(&idle_queues, work->queue->queue_no);
	bool		paused = work->queue->paused;
	bool		in_use = idle->next_id != work->tail.next_id || mq_schedule_size(work->queue) != 0;
	int64		used_at = 0;

	for (int i = 0; i < work->ngroups; i++)
		in_use |= group_keeps_queue(&work->groups[i], &paused, &used_at);
	idle->next_id = work->tail.next_id;
	if (!is_over(idle, work->queue->expires_us, paused, in_use, used_at))
		return;
	for (int i = 0; i < work->ngroups; i++)
		if (!mq_job_run(look_ahead, &work->groups[i], MQ_JOB_FOR(work->groups[i].group_no), "looking for unfinished messages"))
			return;
	(void) mq_job_run(drop_queue, work->queue, MQ_JOB_FOR(work->queue->queue_no), "dropping an expired queue");
}

void
mq_job_expire(const MqQueueWork *work)
{
	for (int i = 0; i < work->ngroups; i++)
		if (work->groups[i].expires_us > 0)
			expire_group(&work->groups[i]);
	if (work->queue->expires_us > 0)
		expire_queue(work);
}
