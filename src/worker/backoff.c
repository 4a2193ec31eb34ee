/*
 * backoff.c: when to try again what has failed, and how often to say so. See backoff.h.
 */
#include "postgres.h"

#include "worker/backoff.h"

#define RETRY_FIRST		(1 * MQ_S)
#define RETRY_LAST		(60 * MQ_S)
#define REPORT_FIRST	(60 * MQ_S)
#define REPORT_LAST		(3600 * MQ_S)

bool
mq_backoff_is_over(const MqBackoff *backoff, bool urgent)
{
	return backoff->failures == 0 ||
		mq_monotonic_us() - backoff->failed_at >= (urgent ? RETRY_FIRST : backoff->pause);
}

bool
mq_backoff_failed(MqBackoff *backoff)
{
	int64		now = mq_monotonic_us();

	backoff->failures++;
	backoff->failed_at = now;
	backoff->pause = Min(Max(2 * backoff->pause, RETRY_FIRST), RETRY_LAST);
	if (backoff->failures > 1 && now < backoff->report_at)
		return false;
	backoff->report_pause = Min(Max(2 * backoff->report_pause, REPORT_FIRST), REPORT_LAST);
	backoff->report_at = now + backoff->report_pause;
	return true;
}

int64
mq_backoff_worked(MqBackoff *backoff)
{
	int64		failures = backoff->failures;

	memset(backoff, 0, sizeof(*backoff));
	return failures;
}
