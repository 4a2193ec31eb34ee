/*
 * wait.h: how a verb waits for messages.
 */
#ifndef MQ_WAIT_H
#define MQ_WAIT_H

#include "window/window.h"

/* A statement holds a snapshot: it waits no longer than this. */
#define MQ_WAIT_MAX_S 60

typedef struct MqWait
{
	MqGroup    *group;			/* its definition is read again as it changes */
	const MqWindowRef *ref;
	int64		deadline;		/* of mq_monotonic_us: the clock may be set while it waits */
	TimestampTz looked_at;
	TimestampTz own_due;		/* set after a look: when something that nobody else sees is due */
	MqBlocked	at_first;		/* before each look: by its statement, or not */
	int			keeps;			/* so many messages are left for the next call of who waited */
	uint32		definition;		/* of the chain, before the group's definition was read */
} MqWait;

/*
 *	mq_wait_begin(&wait, ...);
 *	do { look } while (nothing found && mq_wait_more(&wait, blocked));
 *	mq_wait_end(&wait);
 *
 * consumer: its name for the views, or NULL. blocked: why nothing was found that this caller may have, though others might. mq_wait_more sleeps until there may be
 * something. False: the time is over, and the caller has looked once more since. Errors: 42704 when queue or group are dropped, and what a cancel or shutdown
 * raises; the abort does what mq_wait_end does. No lock may be held.
 */
extern void mq_wait_begin(MqWait *wait, MqGroup *group, const MqWindowRef *ref, int64 us, MqBlocked at_first, const char *consumer);
extern bool mq_wait_more(MqWait *wait, MqBlocked blocked);
extern void mq_wait_end(MqWait *wait);

#endif
