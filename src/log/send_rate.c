/*
 * send_rate.c: how fast messages may be sent to a queue. See send_rate.h.
 *
 * All that is kept is a time, MqBounds.paid_until: what was sent until now is paid for by then, each message with its part of a second.
 * That may be a second ahead, and is forgotten with another rate. Lock: the chain's spinlock of its bounds. A crash leaves nothing, and a second's messages may be sent.
 */
#include "postgres.h"

#include "log/send_rate.h"

#include "base/clock.h"

#define NS_PER_S	INT64CONST(1000000000)
#define NS_PER_MS	INT64CONST(1000000)
#define AT_ONCE		INT64CONST(1000000000)	/* messages of a call beyond that are free: no overflow */

/* How long so many messages take at the queue's rate. */
static int64
price(const MqQueue *queue, int64 messages)
{
	return Min(messages, AT_ONCE) * NS_PER_S / queue->max_send_per_second;
}

int64
mq_rate_admit(const MqQueue *queue, int64 messages)
{
	MqBounds   *bounds = &queue->chain->bounds;
	int64		now = mq_monotonic_us() * (NS_PER_S / MQ_S);
	int64		begin;
	int64		early;

	SpinLockAcquire(&bounds->mutex);
	begin = bounds->rate == queue->max_send_per_second ? Max(bounds->paid_until, now) : now;
	bounds->rate = queue->max_send_per_second;
	early = begin + Min(price(queue, messages), NS_PER_S) - (now + NS_PER_S);
	if (early <= 0)
		begin += price(queue, messages);
	else
		bounds->rejected += messages;
	bounds->paid_until = begin;
	SpinLockRelease(&bounds->mutex);
	return early <= 0 ? 0 : (early + NS_PER_MS - 1) / NS_PER_MS;
}
