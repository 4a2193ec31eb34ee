/*
 * job_notify.c: the worker's NOTIFY for clients that cannot block in a receive.
 *
 * A sender never sends NOTIFY: it takes a lock of the whole server until its commit is on disk. It tells the worker, once,
 * that there is something new; due times, ends of leases and what came back are found by looking. Of each queue at most one
 * notification goes out per interval, while some group has something to take. Lost with the process: when the last one
 * went out.
 */
#include "postgres.h"

#include "commands/async.h"
#include "miscadmin.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/stop_point.h"
#include "offset/rebuild.h"
#include "window/walk.h"
#include "worker/jobs.h"
#include "worker/memo.h"

#define LOOK_AGAIN_US (100 * INT64CONST(1000))
#define PAYLOAD_MAX 7000		/* PostgreSQL takes less than 8000 */

/* A queue that notifies. */
typedef struct Watch
{
	MqQueue		queue;
	MqGroup    *groups;
	int			count;
	TimestampTz look_at;		/* there may be something by then */
	int64		not_before;		/* of mq_monotonic_us: one interval after the last one */
	char	   *payload;		/* of the next one */
} Watch;

typedef struct LastSent
{
	MqMemoHead	head;
	int64		sent;			/* of mq_monotonic_us */
} LastSent;

static MemoryContext watch_context = NULL;
static Watch *watches = NULL;
static int	nwatches = 0;
static MqMemo last_sent = {"mq notifications", sizeof(LastSent)};

/* Tells the senders of a queue whether to say that there is something new. */
static void
tell_senders(MqQueue *queue, bool notifies)
{
	MqChainKey	key = mq_chain_key(queue, 0);
	uint32		off = MQ_NOTIFY_OFF;

	queue->chain = mq_chain_slot(&key, false, NULL);
	if (queue->chain == NULL)
		return;
	if (!notifies)
		pg_atomic_write_u32(&queue->chain->notify, MQ_NOTIFY_OFF);
	else
		(void) pg_atomic_compare_exchange_u32(&queue->chain->notify, &off, MQ_NOTIFY_IDLE);
}

static void
watch(const MqQueueList *all, const MqQueue *queue)
{
	Watch	   *w = &watches[nwatches++];
	const LastSent *last = mq_memo(&last_sent, queue->queue_no);

	w->queue = *queue;
	w->groups = palloc((all->ngroups + 1) * sizeof(MqGroup));
	w->count = 0;
	for (int i = 0; i < all->ngroups; i++)
		if (all->groups[i].queue.queue_no == queue->queue_no)
			w->groups[w->count++] = all->groups[i];
	w->look_at = GetCurrentTimestamp();
	w->not_before = last->sent + queue->notify_us;
}

void
mq_job_notify_plan(const MqQueueList *all)
{
	MemoryContext old;

	if (watch_context == NULL)
		watch_context = AllocSetContextCreate(TopMemoryContext, "mq worker watches", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(watch_context);
	old = MemoryContextSwitchTo(watch_context);
	watches = palloc((all->count + 1) * sizeof(Watch));
	nwatches = 0;
	for (int i = 0; i < all->count; i++)
	{
		tell_senders(&all->queues[i], all->queues[i].notify_us > 0);
		if (all->queues[i].notify_us > 0 && all->queues[i].chain != NULL)
			watch(all, &all->queues[i]);
	}
	MemoryContextSwitchTo(old);
}

static bool
has_something(MqGroup *group, TimestampTz *next_event)
{
	MqWindowRef ref;

	if (!mq_attach_group_if_it_fits(group) || !mq_group_refresh(group, true) || group->paused || group->queue.paused)
		return false;
	ref = (MqWindowRef) {group->window, mq_window_key(group, 0)};
	if (group->max_in_flight > 0 && mq_window_is_full(&ref, group->max_in_flight))
		return false;
	while (!mq_window_has_ready(&ref))
	{
		CHECK_FOR_INTERRUPTS();
		if (!mq_walk(group, &ref, 1))
		{
			*next_event = Min(*next_event, mq_window_next_event(&ref));
			return false;
		}
	}
	return true;
}

/* Job: looks at all groups of a queue; true: there is something in one of them. */
static bool
look(void *arg)
{
	Watch	   *w = arg;
	StringInfoData payload;
	bool		any = false;
	TimestampTz next_event = PG_INT64_MAX;

	initStringInfo(&payload);
	for (int i = 0; i < w->count; i++)
	{
		if (!has_something(&w->groups[i], &next_event))
			continue;
		appendStringInfoChar(&payload, any ? ',' : '[');
		escape_json(&payload, NameStr(w->groups[i].name));
		any = true;
	}
	appendStringInfoChar(&payload, ']');
	w->look_at = any ? GetCurrentTimestamp() : next_event;
	w->payload = payload.len <= PAYLOAD_MAX ? payload.data : "[]";
	return any;
}

/* Job of its own: what keeps one queue from notifying, a full NOTIFY queue, keeps all. */
static bool
notify(void *arg)
{
	const Watch *w = arg;
	char		channel[NAMEDATALEN];

	snprintf(channel, sizeof(channel), "mq_%s", NameStr(w->queue.name));
	MQ_STOP_POINT("notify_before");
	Async_Notify(channel, w->payload);
	return true;
}

static void
serve(Watch *w)
{
	uint32		pending = MQ_NOTIFY_PENDING;
	TimestampTz clock = GetCurrentTimestamp();
	int64		now = mq_monotonic_us();

	if (now < w->not_before)
		return;
	/* before looking: what comes after that is pending again */
	if (pg_atomic_compare_exchange_u32(&w->queue.chain->notify, &pending, MQ_NOTIFY_IDLE))
		w->look_at = clock;
	if (clock < w->look_at)
		return;
	/* if the job fails, the next turn will say when to look */
	w->look_at = PG_INT64_MAX;
	/* senders may be busy with what is taken at once: do not look after each of them */
	w->not_before = now + Min(w->queue.notify_us, LOOK_AGAIN_US);
	if (!mq_job_run(look, w, MQ_JOB_FOR(w->queue.queue_no), "looking for something to notify"))
		return;
	if (mq_job_run(notify, w, MQ_JOB_FOR_ALL_URGENT, "sending a notification"))
	{
		LastSent   *last = mq_memo(&last_sent, w->queue.queue_no);

		last->sent = now;
		w->not_before = now + w->queue.notify_us;
	}
	else
		w->not_before = now + MQ_S;
}

/* An event that is past, or pending, waits only for its interval. */
static int64
time_until(const Watch *w)
{
	int64		pause = Max(w->not_before - mq_monotonic_us(), 0);

	if (pg_atomic_read_u32(&w->queue.chain->notify) == MQ_NOTIFY_PENDING)
		return pause;
	if (w->look_at == PG_INT64_MAX)
		return PG_INT64_MAX;
	return Max(pause, w->look_at - GetCurrentTimestamp());
}

int64
mq_job_notify(void)
{
	int64		next = PG_INT64_MAX;

	for (int i = 0; i < nwatches; i++)
	{
		serve(&watches[i]);
		next = Min(next, time_until(&watches[i]));
	}
	return next;
}
