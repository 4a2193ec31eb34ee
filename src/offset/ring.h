/*
 * ring.h: moving on in the offset log, and emptying what is superfluous. For the worker.
 */
#ifndef MQ_RING_H
#define MQ_RING_H

#include "offset/offset_log.h"

/*
 * When the current table is full, moves on to an empty one. If there is none it makes one and returns true: to be taken
 * into use by mq_ring_grown once that has committed.
 */
extern bool mq_ring_move_on(MqDatabase *db);
extern void mq_ring_grown(MqDatabase *db);

/* A table that could be emptied but for groups without a new enough checkpoint; returns the n they must pass, or 0. */
extern int64 mq_ring_blocked_by(MqDatabase *db);

/*
 * The next table whose rows have all been superfluous for mq.drop_delay; -1: none. since: one entry per table, kept by
 * the caller between calls.
 */
extern int	mq_ring_superfluous(MqDatabase *db, int64 *since);

/* Truncates it; false: somebody uses it. Call mq_ring_emptied once that has committed. */
extern bool mq_ring_truncate(MqDatabase *db, int table);
extern void mq_ring_emptied(MqDatabase *db, int table);

/* In a database that was restored: makes the tables that are no members of the extension go with it again. */
extern void mq_ring_own_tables(void);

#endif
