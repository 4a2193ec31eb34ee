/*
 * ack.h: finishing messages.
 */
#ifndef MQ_ACK_H
#define MQ_ACK_H

#include "offset/offset_log.h"
#include "window/window.h"

/* Acks what the same call has just received with this token; ranges in the order of hand-out. */
extern void mq_ack_popped(const MqGroup *group, uint64 token, const MqRange *ranges, int count);

/*
 * Writes the row of the offset log for ranges that are marked settling in the window, with the epoch they were marked under.
 * Caller holds no lock. What it throws is undone by the transaction's abort, as the marks are.
 */
extern void mq_write_ack(const MqGroup *group, const MqWindowRef *ref, int32 epoch, const MqRange *ranges, int count);

/* Raises 53200: the group has as many entries as its share allows. */
extern void mq_over_share(const MqGroup *group);

/* Raises 22023: the lease would be longer than the group's max_lease allows; left: microseconds that it may have from now on. */
extern void mq_lease_too_long(const MqGroup *group, int64 left);

#endif
