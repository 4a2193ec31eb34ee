/*
 * send_rate.h: how fast messages may be sent to a queue: its option max_send_per_second.
 */
#ifndef MQ_SEND_RATE_H
#define MQ_SEND_RATE_H

#include "base/catalog.h"

#define MQ_MAX_SEND_PER_SECOND	1000000

/*
 * Takes so many messages off what may be sent now to the queue (attached, with that option): on the average so many in a second, and those
 * of one second at once. A call with more than these is admitted when nothing was sent for a second, and is paid for afterwards. What
 * rolls back is not given back. Returns 0, or after how many milliseconds the call may be made; then the messages count as rejected.
 */
extern int64 mq_rate_admit(const MqQueue *queue, int64 messages);

#endif
