/*
 * ack.h: finishing messages.
 */
#ifndef MQ_ACK_H
#define MQ_ACK_H

#include "offset/offset_log.h"
#include "window/window.h"

/* Acks what the same call has just received with this token; ranges in the order of hand-out. */
extern void mq_ack_popped(const MqGroup *group, uint64 token, const MqRange *ranges, int count);

#endif
