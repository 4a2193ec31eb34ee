/*
 * segment_table.h: the table of a segment: its columns, what nobody may have added to it, and its DDL.
 *
 * DDL runs as the extension's owner, and its locks are held to the end of the transaction. No LWLock may be held.
 */
#ifndef MQ_SEGMENT_TABLE_H
#define MQ_SEGMENT_TABLE_H

#include "access/tupdesc.h"

#include "base/catalog.h"

/*
 * Columns of a message row, in the order of the table. id and enqueued_at come first, at fixed offsets. What most messages do not use
 * comes last: their rows end before it, as those of a table do to which columns were added, and it costs them nothing.
 */
typedef enum MqColumn
{
	MQ_COL_ID = 1,
	MQ_COL_ENQUEUED_AT,
	MQ_COL_HEADERS,
	MQ_COL_PAYLOAD,
	MQ_COL_BODY,
	MQ_PLAIN_COLUMNS = MQ_COL_BODY,
	MQ_COL_SENT_AT,
	MQ_COL_DUE_AT,
	MQ_COL_EXPIRES_AT,
	MQ_COL_ORIGIN_ID,
	MQ_COL_ORIGIN_QUEUE,
	MQ_COL_TARGET_GROUP,
	MQ_COL_TARGET_EPOCH,
	MQ_COL_PRIORITY,
	MQ_COL_ATTEMPT,
	MQ_COL_FAILURES,
	MQ_COL_REPLY_TO,
	MQ_COL_KEY,
	MQ_COL_ROUTING_KEY,
	MQ_COL_DEDUP_ID,
	MQ_COL_REASON,
	MQ_COL_DEATH,
	MQ_COLUMNS = MQ_COL_DEATH
} MqColumn;

/* The columns of a message row, and those of one that uses no more than MQ_PLAIN_COLUMNS; live as long as the process. */
extern TupleDesc mq_row_descriptor(void);
extern TupleDesc mq_plain_row_descriptor(void);

/* The name of the table in mq_internal; name has room for NAMEDATALEN. */
extern void mq_segment_name(char *name, const MqQueue *queue, int level, int64 segment);

/* Raises 55000: the table has what is said, which mq does not maintain. Caller has opened it; no LWLock may be held. */
extern void mq_segment_refuse(Relation rel, const char *what);

/*
 * Rows are read and written by column number: 55000 unless the columns of the open table are those we made, or were dropped again.
 * No lock is taken.
 */
extern void mq_segment_check_columns(Relation rel, TupleDesc ours);

/* Whether the pages of the open table are those of a heap with our columns. No lock is taken. */
extern bool mq_segment_can_be_read(Relation rel);

/*
 * Of an open segment, or the table of a queue, that the caller has locked against such changes: 55000 if a superuser has added what an
 * append would bypass, or what would run somebody's code when we do DDL on it.
 */
extern void mq_segment_check_unaltered(const MqQueue *queue, Relation rel);

/*
 * Looks at a table that this transaction has made, and that we write to by column number and without the executor: somebody's
 * event trigger may have altered it. Takes off row security, and raises 55000 for the rest. Between mq_sql_begin and mq_sql_end.
 */
extern void mq_check_made(Oid relid, TupleDesc ours);

/* Whether the trigger is there, and fires always, that keeps others from writing rows. */
extern bool mq_segment_is_guarded(Relation rel);

/* Creates and attaches; runs SQL as the extension's owner, hence 55000 when somebody altered the queue's table. The caller holds, or may wait for, the parent's lock. */
extern void mq_segment_create(const MqQueue *queue, int level, int64 segment);

/* Puts partitions on record again that are there, when their records went; how many. Their order counts as unknown. */
extern int64 mq_segment_record_all(const MqQueue *queue);

/* Puts the guard of a segment, and of its parent, back; its order counts as unknown. The caller has locked both SHARE ROW EXCLUSIVE. */
extern void mq_segment_guard(const MqQueue *queue, int level, int64 segment);

/* Puts on record that the pages of this file of the segment are in order. */
extern void mq_segment_record_order(const MqQueue *queue, int level, int64 segment, RelFileNumber file);

/* Sealed: no more appends come; indexes for browsing are built. The caller has locked it SHARE. 55000 as above. */
extern void mq_segment_seal(const MqQueue *queue, int level, int64 segment);

/* Forgets the record of a segment and drops its table; the caller has locked leaf, toast and parent. */
extern void mq_segment_drop(const MqQueue *queue, int level, int64 segment);

/* Takes back what everybody may do with the row types of a queue's segments: a restore does not carry that. For the worker. */
extern void mq_segment_close_all(const MqQueue *queue);

/* Empties a segment whose table cannot be dropped now, for good even on rollback; the caller has locked leaf and toast. */
extern void mq_segment_truncate(const MqQueue *queue, int level, int64 segment);

#endif
