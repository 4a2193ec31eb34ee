/*
 * failure_log.h: why messages failed, on disk: mq_internal.failure_0 to failure_7.
 *
 * A table for each day, used in turn; that of tomorrow is emptied today, so that what is written is kept for six days at least. Rows are
 * only inserted. One says that the messages of a group from lo to hi have failed together; they lie in one block of MQ_FAILURE_BLOCK ids,
 * by which they are found.
 */
#ifndef MQ_FAILURE_LOG_H
#define MQ_FAILURE_LOG_H

#include "base/catalog.h"

#define MQ_FAILURE_TABLES	8
#define MQ_FAILURE_BLOCK	256

/* Which table rows of that time go to, and its oid; InvalidOid: it is gone. */
extern int	mq_failure_table_of(TimestampTz time);
extern Oid	mq_failure_table(int table);

/*
 * The reasons of the last failures of these messages (ids ascending), NULL where none is known; palloc'd. Locks the tables ACCESS SHARE for
 * the look, and waits for who has one locked: a worker's job locks them before. What was noted a moment ago may not be written yet.
 */
extern char **mq_failure_reasons(int32 group_no, const int64 *ids, int count);

#endif
