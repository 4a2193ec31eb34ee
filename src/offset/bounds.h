/*
 * bounds.h: how full a queue is, and whether it takes more: its options max_messages, max_bytes and overflow.
 *
 * What counts is what the slowest group has not finished (paused and idle ones too, before any filter, with what undecided senders
 * have sent), and what is scheduled. Rows are counted, not ids. A queue without groups has nothing unfinished.
 */
#ifndef MQ_BOUNDS_H
#define MQ_BOUNDS_H

#include "base/catalog.h"

#define MQ_MAX_MESSAGES_MAX	INT64CONST(1000000000000)
#define MQ_MAX_BYTES_MAX	(INT64CONST(1) << 50)

static inline bool
mq_has_bounds(const MqQueue *queue)
{
	return (queue->max_messages | queue->max_bytes) != 0;
}

/*
 * Whether the queue (attached, with bounds) takes so many messages more, of so many bytes together; the caller then appends or
 * schedules them. False: it is full, and that is counted. Most often it is known without counting; else each group is looked at, and
 * read ahead where what is unfinished is not known exactly. May read the log; no lock of ours may be held.
 *
 * Nobody is told that it is full when it is not. It may be given too much only by those who are between this call and their append: each
 * such call once.
 */
extern bool mq_bounds_admit(const MqQueue *queue, int64 messages, int64 bytes);

/* How many messages were refused since the start of the server. */
extern int64 mq_bounds_rejected(const MqQueue *queue);

/*
 * For the worker: how many messages of the group are to be dropped, for the queue (which drops the oldest) to be within its bounds; reads
 * ahead as above, but for no longer than some pages: *more says whether it has to be asked again.
 */
extern int64 mq_bounds_excess(MqGroup *group, bool *more);

#endif
