/*
 * discard.h: finishing messages by their ids, for the verbs that do.
 */
#ifndef MQ_DISCARD_H
#define MQ_DISCARD_H

#include "window/settle.h"
#include "window/transaction.h"

/*
 * Where the messages are now that the argument names for the group, as far as there are any below next_id, ascending; palloc'd. Its window is
 * read up to the greatest of them. 22023 when one is given twice.
 */
extern int64 *mq_ids_arg(FunctionCallInfo fcinfo, int arg, const MqGroup *group, int64 next_id, int *count);

/*
 * Finishes those of the ids (ascending, at most MQ_ENTRIES_PER_HOLD) that are in one of the states, by the transaction xid, and writes
 * that down; ids is left with those, and how many they are is returned. So what is reserved, and how long the lock is held, does not grow
 * with the number of ids. undo: of the caller's transaction. 53200 when the window has its share of the memory.
 */
extern int64 mq_discard_lot(const MqGroup *group, const MqWindowRef *ref, int64 *ids, int count, uint8 states, uint64 xid, MqUndo *undo);

#endif
