/*
 * rate.c: how many messages a group hands out in a second: a token bucket in its window. See rate.h.
 *
 * The bucket is one number, rate_used: how far time is used up by messages, each of which takes a tick; what lies between it and now is
 * room, up to a second. It is in nanoseconds, for ticks may be short. A crash or a restart leaves a full bucket.
 */
#include "postgres.h"

#include "window/rate.h"

#include "utils/timestamp.h"

#include "window/wake.h"

#define NS_PER_US	INT64CONST(1000)
#define NS_PER_S	INT64CONST(1000000000)

/* What is used by now: what was not used for longer than a second is lost. A clock that was set back takes no more than that either. */
static int64
used(const MqWindow *window, int64 tick, TimestampTz now)
{
	int64		now_ns = now * NS_PER_US;

	return Min(Max(window->rate_used, now_ns - Max(tick, NS_PER_S)), now_ns);
}

static int64
room(const MqWindow *window, int64 tick, TimestampTz now)
{
	return (now * NS_PER_US - used(window, tick, now)) / tick;
}

/* There is no room: notes when there is some for one message. */
static void
note_room(MqWindow *window, int64 tick, TimestampTz now)
{
	window->room_at = (used(window, tick, now) + tick + NS_PER_US - 1) / NS_PER_US;
	mq_wake_note_time(window, window->room_at);
}

int
mq_rate_room(MqWindow *window, MqTaker *taker, int max, TimestampTz now)
{
	int64		free = room(window, taker->tick_ns, now);

	if (free > 0)
		return (int) Min(free, max);
	taker->limited = true;
	note_room(window, taker->tick_ns, now);
	return 0;
}

void
mq_rate_charge(MqWindow *window, int64 tick, int64 messages, TimestampTz now)
{
	window->rate_used = used(window, tick, now) + messages * tick;
}

void
mq_rate_refund(const MqWindowRef *ref, int64 tick, int64 messages)
{
	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return;
	ref->window->rate_used -= messages * tick;
	mq_window_unlock(ref);
}

bool
mq_rate_has_room(const MqWindowRef *ref, int64 tick, TimestampTz *when)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		has_room;

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return false;
	has_room = room(ref->window, tick, now) > 0;
	if (!has_room)
		note_room(ref->window, tick, now);
	*when = ref->window->room_at;
	mq_window_unlock(ref);
	return has_room;
}
