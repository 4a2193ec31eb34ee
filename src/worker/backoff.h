/*
 * backoff.h: when to try again what has failed, and how often to say so.
 *
 * Said at once, after a minute, and then ever more rarely, down to once an hour. Tried again after a second, and then ever
 * more rarely, down to once a minute; what somebody waits for is tried each second.
 */
#ifndef MQ_BACKOFF_H
#define MQ_BACKOFF_H

#include "base/clock.h"

/* All zero: it works. */
typedef struct MqBackoff
{
	int64		failures;		/* one after the other */
	int64		failed_at;		/* times are those of mq_monotonic_us */
	int64		pause;
	int64		report_at;
	int64		report_pause;
} MqBackoff;

/* Whether it is time to try. */
extern bool mq_backoff_is_over(const MqBackoff *backoff, bool urgent);

/* It has failed; true: say so. */
extern bool mq_backoff_failed(MqBackoff *backoff);

/* It has worked; returns how often it had failed before. */
extern int64 mq_backoff_worked(MqBackoff *backoff);

#endif
