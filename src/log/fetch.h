/*
 * fetch.h: messages of a log, by their ids.
 */
#ifndef MQ_FETCH_H
#define MQ_FETCH_H

#include "log/page.h"
#include "log/segment_table.h"

/* A message that was asked for. */
typedef struct MqFound
{
	MqSight		sight;			/* MQ_VANISHED also where there is no row, or its segment is gone */
	HeapTuple	tuple;			/* MQ_SEEN: a copy; else NULL */
} MqFound;

/*
 * Looks for the messages with these ids, ascending, as the snapshot sees them. With wait, locks on segments are waited for, ACCESS SHARE
 * while one is read; without, false says that somebody has one. Everything is allocated in the current memory context. No LWLock may be
 * held.
 */
extern bool mq_log_fetch(const MqQueue *queue, const int64 *ids, int count, Snapshot snapshot, bool wait, MqFound *found);

/* The values of a message's row, those from its TOAST table too; arrays of MQ_COLUMNS. They may point into the tuple. */
extern void mq_log_values(HeapTuple tuple, Datum *values, bool *isnull);

/* How large they are, without reading them. */
extern Size mq_log_size(HeapTuple tuple);

#endif
