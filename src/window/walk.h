/*
 * walk.h: reading ahead: from the heap into a delivery window.
 */
#ifndef MQ_WALK_H
#define MQ_WALK_H

#include "window/window.h"

/*
 * Reads a stretch of the log (the first there is to read) and applies what it finds: committed messages become
 * ready, undecided ones pending, aborted ones are finished. Also has senders looked at that were undecided. Stops when
 * about `want` messages became ready. Returns false when there was nothing to do, or nothing could be done (no memory:
 * held_back is counted). May throw; holds no lock of the window while it reads.
 */
extern bool mq_walk(const MqGroup *group, const MqWindowRef *ref, int want);

/* Reads until it is known which ids up to this one are messages; not what undecided senders sent. */
extern void mq_walk_to(const MqGroup *group, const MqWindowRef *ref, int64 id);
/* Has what an undecided sender has sent read again: for one that has rolled back to a savepoint, and would know what is left. */
extern void mq_walk_again(const MqWindowRef *ref, uint64 xid);

/* Only looks at the undecided senders; true if one turned out to be decided. */
extern bool mq_walk_settle(const MqWindowRef *ref);

#endif
