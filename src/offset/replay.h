/*
 * replay.h: the offset log replayed into delivery windows.
 */
#ifndef MQ_REPLAY_H
#define MQ_REPLAY_H

#include "base/catalog.h"

/* What to do about messages that do not fit. */
#define MQ_MEMORY_HINT "Raise mq.shared_memory and restart the server; mq.purge, mq.seek and mq.drop_group give the messages up."

/*
 * One pass over the ring for these groups, whose windows are in the struct after it; NULL: all slots are taken, which is a WARNING.
 * A window that another process has filled, or filled since, stays as it is; one whose content does not fit has no entries (left_out),
 * which is a WARNING too. first: of this server's start. The answer is the greatest number of a group in the ring. Caller holds SHARE
 * UPDATE EXCLUSIVE on the first ring table, and no other lock of ours. Locks all ring tables ACCESS SHARE to the end of the
 * transaction. What it palloc's, in the current context, is left to the caller. Errors: 53200 where prepared transactions do not fit.
 */
extern int64 mq_replay_groups(MqDatabase *db, MqGroup *groups, int count, bool first);

/* The same for a group that has no rows in the ring: it begins at its start. Caller as above; no error but of palloc. */
extern void mq_replay_nothing(MqGroup *group);

#endif
