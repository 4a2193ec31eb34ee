/*
 * rate.h: how many messages a group hands out in a second: a token bucket in its window.
 *
 * It holds what may be handed out in one second, at least one message, and fills evenly. tick: nanoseconds between two messages
 * (MqGroup.tick_ns). None of these allocates or throws.
 */
#ifndef MQ_RATE_H
#define MQ_RATE_H

#include "window/window.h"

/*
 * How many of max messages there is room for. If for none, the taker is told so, and the timekeeper of those who wait looks again
 * when there is. The caller holds the window lock exclusively, as for mq_rate_charge.
 */
extern int	mq_rate_room(MqWindow *window, MqTaker *taker, int max, TimestampTz now);

/* So many were handed out, for which there was room. */
extern void mq_rate_charge(MqWindow *window, int64 tick, int64 messages, TimestampTz now);

/* They were not handed out after all. Takes the window lock. */
extern void mq_rate_refund(const MqWindowRef *ref, int64 tick, int64 messages);

/* Whether there is room for a message now; else *when there will be, and the timekeeper looks then. Takes the window lock. */
extern bool mq_rate_has_room(const MqWindowRef *ref, int64 tick, TimestampTz *when);

#endif
