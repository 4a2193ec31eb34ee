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
#include "window/rate.h"
#include "window/walk.h"
#include "worker/jobs.h"
#include "worker/memo.h"

#define LOOK_AGAIN_US (100 * INT64CONST(1000))
#define AT_ONCE 0				/* in look_at: whatever the clock says */
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

/* Outlives the watches, which are made anew whenever a definition has changed. */
typedef struct LastSent
{
	MqMemoHead	head;
	int64		sent;			/* of mq_monotonic_us */
} LastSent;

/* Watches are ascending by queue number. They live in this context, until the next plan. */
static MemoryContext watch_context = NULL;
static Watch *watches = NULL;
static int	nwatches = 0;
static MqMemo last_sent = {"mq notifications", sizeof(LastSent)};

/* Tells the senders of a queue whether to say that there is something new. False: there are none that could. */
static bool
tell_senders(MqQueue *queue)
{
	uint32		off = MQ_NOTIFY_OFF;

	if (mq_job_chain(queue) == NULL)
		return false;
	if (queue->notify_us == 0)
		pg_atomic_write_u32(&queue->chain->notify, MQ_NOTIFY_OFF);
	else
		(void) pg_atomic_compare_exchange_u32(&queue->chain->notify, &off, MQ_NOTIFY_IDLE);
	return true;
}

/* Caller has made the room, and switched to watch_context. An interval has to pass after the last notification. */
static void
watch(const MqQueueItem *item)
{
	Watch	   *w = &watches[nwatches++];
	const LastSent *last = mq_memo(&last_sent, item->queue.queue_no);

	w->queue = item->queue;
	w->groups = palloc((item->ngroups + 1) * sizeof(MqGroup));
	memcpy(w->groups, item->groups, item->ngroups * sizeof(MqGroup));
	w->count = item->ngroups;
	w->look_at = AT_ONCE;
	w->not_before = last->sent + item->queue.notify_us;
}

/* By number, as the list is. A queue without a chain waits for a visit. */
void
mq_job_notify_plan(MqQueueList *all)
{
	MemoryContext old;
	int			notifying = 0;

	if (watch_context == NULL)
		watch_context = AllocSetContextCreate(TopMemoryContext, "mq worker watches", ALLOCSET_SMALL_SIZES);
	nwatches = 0;
	MemoryContextReset(watch_context);
	for (int i = 0; i < all->count; i++)
	{
		(void) tell_senders(&all->items[i].queue);
		notifying += all->items[i].queue.notify_us > 0;
	}
	old = MemoryContextSwitchTo(watch_context);
	watches = MemoryContextAllocHuge(watch_context, (notifying + 1) * sizeof(Watch));
	for (int i = 0; i < all->count; i++)
		if (all->items[i].queue.notify_us > 0)
			watch(&all->items[i]);
	MemoryContextSwitchTo(old);
}

/* NULL: the queue does not notify, as of the last plan. */
static Watch *
find_watch(int32 queue_no)
{
	int			a = 0;
	int			b = nwatches;

	while (a < b)
	{
		int			mid = a + (b - a) / 2;

		if (watches[mid].queue.queue_no < queue_no)
			a = mid + 1;
		else
			b = mid;
	}
	return a < nwatches && watches[a].queue.queue_no == queue_no ? &watches[a] : NULL;
}

void
mq_job_notify_visited(const MqQueue *queue)
{
	Watch	   *w = queue->notify_us > 0 ? find_watch(queue->queue_no) : NULL;

	if (w != NULL && tell_senders(&w->queue))
		w->look_at = AT_ONCE;
}

/*
 * Walks until there is something, or nothing to read. Then *next_event is lowered to when to look again; not where the group is
 * paused or full, or has no window.
 */
static bool
has_something(MqGroup *group, TimestampTz *next_event)
{
	MqWindowRef ref;
	TimestampTz room_at = 0;

	if (!mq_attach_queue_at_once(&group->queue) || !mq_attach_group_if_it_fits(group) || !mq_group_refresh(group, true) || group->paused || group->queue.paused)
		return false;
	ref = (MqWindowRef) {group->window, mq_window_key(group, 0)};
	if (group->max_in_flight > 0 && mq_window_is_full(&ref, group->max_in_flight))
		return false;
	if (group->tick_ns > 0 && !mq_rate_has_room(&ref, group->tick_ns, &room_at))
	{
		*next_event = Min(*next_event, room_at);
		return false;
	}
	while (!mq_window_has_ready(&ref, NULL))
	{
		CHECK_FOR_INTERRUPTS();
		if (!mq_walk(group, &ref, 1))
		{
			*next_event = Min(*next_event, mq_window_next_event(&ref));
			/* there is no memory, or no segment yet */
			if (mq_window_has_work(&ref, group->queue.chain->next_id))
				*next_event = Min(*next_event, GetCurrentTimestamp() + MQ_S);
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
	w->look_at = any ? AT_ONCE : next_event;
	/* senders may be busy with what is taken at once: do not look after each of them */
	w->not_before = mq_monotonic_us() + Min(w->queue.notify_us, LOOK_AGAIN_US);
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

/* True: it took time. */
static bool
serve(Watch *w, int64 now, TimestampTz clock)
{
	uint32		pending = MQ_NOTIFY_PENDING;

	if (now < w->not_before)
		return false;
	/* before looking: what comes after that is pending again */
	if (pg_atomic_compare_exchange_u32(&w->queue.chain->notify, &pending, MQ_NOTIFY_IDLE))
		w->look_at = AT_ONCE;
	if (clock < w->look_at)
		return false;
	/* if the job fails, that is for the next second */
	w->look_at = AT_ONCE;
	w->not_before = now + MQ_S;
	if (!mq_job_run(look, w, MQ_JOB_FOR(w->queue.queue_no), "looking for something to notify"))
		return true;
	if (mq_job_run(notify, w, MQ_JOB_FOR_ALL_URGENT, "sending a notification"))
	{
		LastSent   *last = mq_memo(&last_sent, w->queue.queue_no);

		last->sent = now;
		w->not_before = now + w->queue.notify_us;
	}
	return true;
}

/* An event that is past, or pending, waits only for its interval. */
static int64
time_until(const Watch *w, int64 now, TimestampTz clock)
{
	int64		pause = Max(w->not_before - now, 0);

	if (pg_atomic_read_u32(&w->queue.chain->notify) == MQ_NOTIFY_PENDING)
		return pause;
	if (w->look_at == PG_INT64_MAX)
		return PG_INT64_MAX;
	return Max(pause, w->look_at - clock);
}

int64
mq_job_notify(void)
{
	int64		next = PG_INT64_MAX;
	int64		now = mq_monotonic_us();
	TimestampTz clock = GetCurrentTimestamp();

	for (int i = 0; i < nwatches; i++)
	{
		if (watches[i].queue.chain == NULL)
			continue;
		if (serve(&watches[i], now, clock))
		{
			now = mq_monotonic_us();
			clock = GetCurrentTimestamp();
		}
		next = Min(next, time_until(&watches[i], now, clock));
	}
	return next;
}
