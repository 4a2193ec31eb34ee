/*
 * wait.c: how a verb waits for messages, and CALL mq.wait.
 *
 * The order is: into the line, look, sleep (wake.h). The definition is read past the cache at first, and when it has
 * changed since: who resumes a group wakes the receivers before the invalidations are sent.
 */
#include "postgres.h"

#include "verbs/wait.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "log/log.h"
#include "offset/rebuild.h"
#include "verbs/verbs.h"
#include "window/rate.h"
#include "window/wake.h"
#include "window/walk.h"

#define CLOCK_TRUSTED_US (10 * MQ_S)

static bool
is_paused(const MqGroup *group)
{
	return group->paused || group->queue.paused;
}

static void
dropped(const MqGroup *group)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("consumer group \"%s\" of queue \"%s\" was dropped", NameStr(group->name), NameStr(group->queue.name)),
			 errhint("Use mq.create_queue or mq.create_group to create it again.")));
}

/* From here on nothing that happens is missed. */
static void
get_into_line(MqWait *wait, bool again)
{
	uint32		definition;

	if (!mq_window_enlist(wait->ref, wait->group->queue.chain, again, wait->at_first))
		dropped(wait->group);
	mq_catalog_catch_up();
	definition = pg_atomic_read_u32(&wait->group->queue.chain->definition);
	if (!mq_group_refresh(wait->group, !again || definition != wait->definition))
		dropped(wait->group);
	/* the right may have been taken while it waited */
	if (again)
		mq_check_consume(wait->group);
	wait->definition = definition;
	if ((wait->group->expires_us | wait->group->queue.expires_us) != 0)
		pg_atomic_write_u64(&wait->ref->window->used_at, (uint64) mq_monotonic_us());
	wait->looked_at = GetCurrentTimestamp();
}

void
mq_wait_begin(MqWait *wait, MqGroup *group, const MqWindowRef *ref, int64 us, MqBlocked at_first, const char *consumer)
{
	*wait = (MqWait) {group, ref, mq_monotonic_us() + us, .own_due = PG_INT64_MAX, .at_first = at_first};
	get_into_line(wait, false);
	mq_wait_show(&ref->key, consumer);
}

/* What this process has to see to: the next end of a lease or delay, by the clock. */
static TimestampTz
next_event(const MqWait *wait)
{
	TimestampTz own_due = is_paused(wait->group) ? PG_INT64_MAX : wait->own_due;

	if (!mq_wait_is_timekeeper() || is_paused(wait->group))
		return own_due;
	return Min(own_due, mq_window_set_clock(wait->ref, wait->looked_at));
}

/* The clock may be set, back and forth again: how far away an event seems to be is asked now and then. */
static int64
time_until(TimestampTz event)
{
	if (event == PG_INT64_MAX)
		return PG_INT64_MAX;
	return Min(Max(event - GetCurrentTimestamp(), 0), CLOCK_TRUSTED_US);
}

bool
mq_wait_more(MqWait *wait, MqBlocked blocked)
{
	int64		left = wait->deadline - mq_monotonic_us();
	TimestampTz event;
	bool		changed;

	if (left <= 0)
		return false;
	changed = mq_wait_block(blocked);
	/* what woke this process, or what the clock has made ready, may be for another one */
	if (blocked != MQ_NOT_BLOCKED && (changed || mq_wait_is_timekeeper()))
		(blocked == MQ_BLOCKED_BY_STATEMENT ? mq_wake_able : mq_wake_group) (wait->ref->window);
	if (changed)
		return true;
	do
	{
		/* in mq.wait it may be the only snapshot there is, and would hold back VACUUM */
		InvalidateCatalogSnapshotConditionally();
		event = next_event(wait);
		if (mq_wait_sleep(Min(left, time_until(event))))
			break;
		left = wait->deadline - mq_monotonic_us();
	} while (left > 0 && GetCurrentTimestamp() < event);
	/* also when the time is over: there is one more look */
	get_into_line(wait, true);
	return true;
}

/* Whether there are no more messages than the next call of who waited will want. */
static bool
is_kept(const MqWait *wait, int64 next_id)
{
	MqWindowCounts counts;

	return wait->keeps > 0 && mq_window_counts(wait->ref, &counts) && counts.next_id >= next_id &&
		counts.ids[MQ_READY] <= wait->keeps;
}

/* Whoever made several messages available has woken one receiver: if something is left, it wakes the next. */
void
mq_wait_end(MqWait *wait)
{
	MqTail		tail;

	if (!mq_log_tail(&wait->group->queue, 0, &tail) || !mq_window_has_work(wait->ref, tail.next_id))
		mq_wait_leave(MQ_PASS_ON_NOT);
	else
		mq_wait_leave(is_kept(wait, tail.next_id) ? MQ_PASS_ON_TO_ABLE : MQ_PASS_ON);
}

/* ---- mq.wait ---- */

#define IN_VAIN			2		/* told so often of a message that nobody has taken, the client probably may not have it, */
#define IN_VAIN_US		MQ_S	/* and is told again after this */

/* What the last wait of this process has told its client of. */
static struct
{
	MqWindowKey key;
	MqReady		ready;
	int			times;
} told;

/* Whether the group has a message to hand out now; *first is then the first one. The limit of a consumer is not known here. */
static bool
something_to_take(const MqGroup *group, const MqWindowRef *ref, MqReady *first)
{
	TimestampTz room_at;

	if (is_paused(group) || (group->max_in_flight > 0 && mq_window_is_full(ref, group->max_in_flight)))
		return false;
	if (group->tick_ns > 0 && !mq_rate_has_room(ref, group->tick_ns, &room_at))
		return false;
	while (!mq_window_has_ready(ref, first))
	{
		CHECK_FOR_INTERRUPTS();
		if (!mq_walk(group, ref, 1))
			return false;
	}
	return true;
}

/* The client knows of it, and has not taken it since, whatever the reason, nor has anybody else. */
static bool
is_told(const MqWindowRef *ref, const MqReady *first)
{
	return memcmp(&told.key, &ref->key, sizeof(told.key)) == 0 && told.ready.id == first->id &&
		told.ready.attempts == first->attempts;
}

static void
tell(const MqWindowRef *ref, const MqReady *first)
{
	told.times = is_told(ref, first) ? Min(told.times + 1, IN_VAIN) : 1;
	told.key = ref->key;
	told.ready = *first;
}

/*
 * Until there is something. What the client was told of again and again it probably may not have (a limit of its consumer, memory,
 * its snapshot): that it is told only when there is room, or after a pause, else its loop would spin.
 */
static void
wait_for_something(MqWait *wait, const MqWindowRef *ref)
{
	MqBlocked	blocked = MQ_NOT_BLOCKED;
	MqReady		first;
	bool		found;
	int			pauses = 0;

	do
	{
		found = something_to_take(wait->group, ref, &first);
		if (found && (pauses == 2 || told.times < IN_VAIN || !is_told(ref, &first)))
			break;
		blocked = found ? MQ_BLOCKED_BY_LIMIT : MQ_NOT_BLOCKED;
		wait->own_due = found ? GetCurrentTimestamp() + IN_VAIN_US : PG_INT64_MAX;
		/* the first time it only gets into the other line, and looks again */
		pauses = found ? pauses + 1 : 0;
	} while (mq_wait_more(wait, blocked));
	if (found)
		tell(ref, &first);
}

/* Only a CALL outside of a transaction block, and not where one snapshot is for all statements. */
static bool
may_give_up_snapshot(FunctionCallInfo fcinfo)
{
	const CallContext *context = (const CallContext *) fcinfo->context;

	return context != NULL && IsA(context, CallContext) && !context->atomic && !IsolationUsesXactSnapshot();
}

/*
 * A procedure outside of a transaction block may give up its snapshot, so that it holds back no VACUUM. (It returns nothing:
 * the result of a CALL would have a snapshot of its own.)
 */
static int64
timeout_arg(FunctionCallInfo fcinfo)
{
	mq_check_not_null(fcinfo, 2, "timeout");
	if (may_give_up_snapshot(fcinfo))
		return mq_interval_us(PG_GETARG_INTERVAL_P(2), "timeout", 0);
	ereport(WARNING,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("mq.wait() holds back VACUUM while it waits here"),
			 errhint("Call it outside of a transaction block (drivers: autocommit), in READ COMMITTED, or use the argument \"wait\" of mq.receive.")));
	return mq_interval_between(PG_GETARG_INTERVAL_P(2), "timeout", 0, MQ_WAIT_MAX_S * USECS_PER_SEC,
							   "In a transaction block it must be at least zero and at most 60 seconds.");
}

/* Hands out nothing: the client calls mq.receive when it returns, and may find that another one was faster. */
MQ_FUNCTION(mq_wait);
Datum
mq_wait(PG_FUNCTION_ARGS)
{
	char	   *queue = mq_text_arg(fcinfo, 0, "queue");
	char	   *name = mq_text_arg(fcinfo, 1, "consumer_group");
	int64		timeout = timeout_arg(fcinfo);
	MqGroup		group;
	MqWindowRef ref;
	MqWait		wait;

	mq_check_writable("mq.wait()");
	mq_catalog_catch_up();
	mq_group_by_name(queue, name, &group);
	mq_check_consume(&group);
	mq_attach_group(&group);
	ref = (MqWindowRef) {group.window, mq_window_key(&group, 0)};
	if (may_give_up_snapshot(fcinfo))
		ForgetPortalSnapshots();

	mq_wait_begin(&wait, &group, &ref, timeout, MQ_NOT_BLOCKED, NULL);
	wait_for_something(&wait, &ref);
	mq_wait_end(&wait);
	if (!ActiveSnapshotSet())
		EnsurePortalSnapshotExists();
	PG_RETURN_NULL();
}
