/*
 * lease.h: leases of entries, given and put back. For the files of this folder: the caller holds the window lock.
 */
#ifndef MQ_LEASE_H
#define MQ_LEASE_H

#include "window/failure.h"
#include "window/window.h"

/* The cause when a lease has run out. */
extern const MqCause mq_lease_end;

/* Leases a ready entry, or one of own sends, to who takes it. consumer: cell of its name, 0: none. */
extern void mq_lease_give(MqWindow *window, uint32 node, const MqTaker *taker, uint32 consumer);

/* A lease is over at its deadline, unless the transaction that took it is still open. */
extern bool mq_lease_holds(const MqNode *n, TimestampTz now);

/*
 * Makes a leased entry ready again from due on (0: at once; MQ_DUE_AFTER_PAUSE), or dead, when it has failed often enough or due is
 * MQ_DUE_NEVER; what its receiver had sent itself is to be read again. cause NULL: it has not failed.
 */
extern void mq_lease_put_back(MqWindow *window, uint32 node, const MqCause *cause, TimestampTz due);

/* One failure more; returns whether the messages are dead now. */
extern bool mq_lease_count_failure(const MqWindow *window, MqNode *n, const MqCause *cause);

/* Makes it one to be read from the log again. */
extern void mq_lease_put_unread(MqWindow *window, uint32 node, TimestampTz due);

/* Puts back some of the leases that are over; returns whether more are left. */
extern bool mq_lease_expire_some(MqWindow *window, TimestampTz now);

#endif
