/*
 * rebuild.h: making a queue's shared state when it is first used.
 */
#ifndef MQ_REBUILD_H
#define MQ_REBUILD_H

#include "offset/offset_log.h"
#include "window/window.h"

/*
 * After these the queue's append position (and the group's window) are in shared memory and in the struct. Cheap when
 * they are there already. May read the offset log and the segments; no lock may be held. mq_attach_database builds the
 * windows of all groups that were last used here, if nobody has done so since the start of the server.
 */
extern void mq_attach_database(MqDatabase *db);
extern void mq_attach_queue(MqQueue *queue);
extern void mq_attach_group(MqGroup *group);
extern bool mq_queue_is_attached(MqQueue *queue);

/* mq_attach_queue without waiting for other people's locks on segments; false: somebody has one. */
extern bool mq_attach_queue_at_once(MqQueue *queue);

/*
 * The same without an error where the group cannot be used. False, and its window has no entries: what is unfinished for it does
 * not fit into the memory (counts say what that may be). False, and its window is NULL: there is no room for one more.
 */
extern bool mq_attach_group_if_it_fits(MqGroup *group);

/*
 * Whether every group that had rows in the offset log at the start of the server has its window: a group that was being
 * made by a prepared transaction then was not seen, and no window says which rows it needs. To be asked when nobody can
 * become visible that needs a row which is looked at (ring.c).
 */
extern bool mq_all_attached(MqDatabase *db);

/* Makes the windows that mq_all_attached misses, of these groups; false: there was no room for one, or a lock in the way. */
extern bool mq_attach_missing(MqDatabase *db, MqGroup *groups, int count);

/*
 * Makes the window of a group that this transaction has just created, with what it is to begin with (as mq_fill takes it).
 * oldest_needed: rows of the offset log below are superfluous for it.
 */
extern void mq_attach_new_group(MqGroup *group, const MqUnfinished *parts, int64 count, int64 oldest_needed);

/*
 * Frees what is in shared memory of a database, or of one extension (oid) in it. For a database that was dropped, or
 * an extension that no transaction can see any more.
 */
extern void mq_forget_database(Oid database, Oid extension);

#endif
