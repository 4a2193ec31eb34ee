/*
 * dedup.h: ids that senders give to messages so that none is sent twice.
 *
 * A row in mq_internal.dedup_* says which message of a queue has a deduplication id, and from when its window counts. The newest row of
 * an id decides. Rows are only ever inserted: also where an id is freed. Tables are used in turn, by when the row's window ends, and
 * emptied when no row is needed any more. Where a row is says nothing: whoever looks for one looks in all tables.
 */
#ifndef MQ_DEDUP_H
#define MQ_DEDUP_H

#include "utils/timestamp.h"

#include "base/catalog.h"

/* Of a deduplication id, in bytes. */
#define MQ_DEDUP_LENGTH_MAX 255

/* One that a message is to be sent with. */
typedef struct MqDedupId
{
	text	   *dedup_id;
	TimestampTz due;			/* 0: at once */
	int64		first;			/* out: the message that has it already; 0: none */
	int			same_as;		/* out: the first of the array with this id */
} MqDedupId;

typedef struct MqDedup MqDedup;

/*
 * Looks the ids up, and keeps everybody else from doing so until mq_dedup_end: so one that nobody has is the caller's, who sends the
 * message and calls mq_dedup_note; the window counts from then, or from when it is due. Waits for transactions that have not decided about one of the ids, and holds nothing while it waits.
 * 55P03 after some seconds if that is a prepared one.
 */
extern MqDedup *mq_dedup_claim(const MqQueue *queue, MqDedupId *ids, int count);
extern void mq_dedup_note(MqDedup *dedup, const MqDedupId *id, int64 message);
extern void mq_dedup_end(MqDedup *dedup);

/* The message that has the id, as far as is committed; 0: none. */
extern int64 mq_dedup_find(const MqQueue *queue, text *dedup_id);

/* Frees it; false: nobody has it. Waits as mq_dedup_claim. The caller has locked the queue against a drop (mq_schedule_lock). */
extern bool mq_dedup_forget(const MqQueue *queue, text *dedup_id);

/* The same for a message that is cancelled; and for one that is due later than it was. */
extern void mq_dedup_cancelled(const MqQueue *queue, text *dedup_id, int64 message);
extern void mq_dedup_rescheduled(const MqQueue *queue, text *dedup_id, int64 message, TimestampTz due);

/* The greatest message that has one, whatever became of it; -1: none. Reads all of the queue's rows. */
extern int64 mq_dedup_max_id(int32 queue_no);

/* The queue is dropped: its rows in the table that is not used in turn go now, the others with their tables. */
extern void mq_dedup_dropped(int32 queue_no);

/* ---- for the worker ---- */

/* InvalidOid: it is gone. */
extern Oid	mq_dedup_table(int table);

/* Whether rows whose window ends now or later can come to the table. */
extern bool mq_dedup_table_is_in_use(int table, TimestampTz now);

/* Whether it has rows, and none is needed: their windows are over, as their queues have them now. The caller has it locked ACCESS SHARE. */
extern bool mq_dedup_is_superfluous(int table);

/* Empties it if it is still so; the caller has it locked ACCESS EXCLUSIVE. */
extern bool mq_dedup_truncate(int table);

/* How many ids the queue has in a table, freed ones left out. Locked as above. */
extern int64 mq_dedup_count(int table, int32 queue_no);

/* About how many in all tables, by what is known of it in shared memory; -1: nothing. */
extern int64 mq_dedup_size(const MqQueue *queue);

#endif
