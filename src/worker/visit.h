/*
 * visit.h: which queues a turn of the worker cares for.
 *
 * A visit costs transactions, so a queue gets one only when there is something to do. It is due when, since the last one,
 * - its definition, or that of a group of it, has changed, or something has happened to its table or to a segment,
 * - ids of it were given out, or a window of it has changed (`changes`, `walk_seq`);
 * or when there is now
 * - a sender that waits for a segment, or something to adopt or take over,
 * - a lease in a window that is over, a mark of a transaction that may be decided (settling, pending), a receiver in line
 *   that may have missed something, or rows in the offset log that keep a table of it from being emptied;
 * or when the last visit has said so (mq_visit_again): something could not be done, or is to be done later.
 * In any case each queue gets one once in MQ_VISIT_EVERY, spread over the turns: for what cannot be seen without a look
 * (the records of segments changed by hand, a clock that was set forth).
 *
 * All of that is read without locks: what is missed in one turn is seen in the next. Only where marks of prepared
 * transactions must not be missed, and where somebody waits, the window is locked.
 */
#ifndef MQ_VISIT_H
#define MQ_VISIT_H

#include "base/clock.h"
#include "worker/list.h"

#define MQ_VISIT_EVERY	(60 * MQ_S)

/* Whether a visit of the queue is due, which has to follow then: what was seen is not asked for again. */
extern bool mq_visit_is_due(MqQueueItem *item, const MqQueueList *list);

/* A visit begins, and ends. In between: another one is due at that time of clock.h; 0: in the next turn. */
extern void mq_visit_begin(void);
extern void mq_visit_again(int64 when);
extern void mq_visit_end(const MqQueueItem *item);

/* Something has happened that a visit has to look at, to one queue or perhaps to all. Never throw: for callbacks. */
extern void mq_visit_touch(int32 queue_no);
extern void mq_visit_touch_all(void);

#endif
