/*
 * moved.h: where messages are that have moved.
 *
 * mq.send returns an id at once; a message that was scheduled gets another one, its place in the log, when it is appended. Who has the
 * first can find the second: mq_internal.moved_* have both, as long as the message's segment is there. Rows are only ever inserted. A
 * table is emptied when all messages in it are gone from their logs; rows go to one table at a time.
 */
#ifndef MQ_MOVED_H
#define MQ_MOVED_H

#include "base/catalog.h"

#define MQ_MOVED_TABLES 8

/* Notes that messages with these origins were appended under these ids, in the running transaction. The order of both is lost. */
typedef struct MqMoved
{
	int64		origin_id;
	int64		id;
} MqMoved;

extern void mq_moved_note(const MqQueue *queue, MqMoved *moved, int count);

/* Replaces those of the ids that are origins of messages that have moved, as far as that is committed, by where they are now. */
extern void mq_moved_find(const MqQueue *queue, int64 *ids, int count);

/* ---- for the worker ---- */

extern Oid	mq_moved_table(int table);

/*
 * If the table that rows go to has become large, and another one is empty, rows go to that one from now on. They are locked ACCESS
 * SHARE by the caller. False: there should be an empty one, and is not.
 */
extern bool mq_moved_move_on(MqDatabase *db);

/* Whether there are rows in it, and all are about messages that are gone; not the one that rows go to. Locked as above. */
extern bool mq_moved_is_superfluous(const MqDatabase *db, int table);

/*
 * Empties a table of which few rows are needed, after it has copied those to the one that rows go to: a queue that keeps its messages for
 * long does not keep what is known of all others'. False: they are too many, or it is that table. The caller has locked it ACCESS EXCLUSIVE.
 */
extern bool mq_moved_squeeze(const MqDatabase *db, int table);

/* Empties it if it is still so; the caller has locked it ACCESS EXCLUSIVE. */
extern bool mq_moved_truncate(const MqDatabase *db, int table);

#endif
