/*
 * prepared.h: the prepared transactions that acked. Until they are decided they hold back the offset log, as open ones do.
 *
 * They are cells in a list of the database. Others put new ones in front, only the worker takes some out, or mq_database_forget all
 * of them. The list is guarded by the database's spinlock, so it is looked at a slice at a time, and the smallest n of any of them is
 * kept beside it.
 */
#ifndef MQ_PREPARED_H
#define MQ_PREPARED_H

#include "base/shmem.h"

/* Some transactions, by full xid, ascending. */
typedef struct MqDecided
{
	uint64	   *xids;
	int			count;
	int			room;
} MqDecided;

/* A cell with its xid and first_n, which the list now owns. Takes the database's mutex. Never throws. */
extern void mq_prepared_add(MqDatabase *db, uint32 cell);

/* No prepared transaction has a row with a smaller n; PG_INT64_MAX: there is none. Caller holds the database's mutex. */
static inline int64
mq_prepared_first_n(const MqDatabase *db)
{
	return db->prepared_first_n;
}

/* Those that are open no more, in memory of the context. For the worker. */
extern MqDecided mq_prepared_decided(MqDatabase *db, bool (*is_open) (uint64 xid), MemoryContext context);

/* They hold back nothing any more. For the worker, once their marks are settled. */
extern void mq_prepared_forget(MqDatabase *db, const MqDecided *decided);

#endif
