/*
 * segment.h: the partitions of a queue's log.
 */
#ifndef MQ_SEGMENT_H
#define MQ_SEGMENT_H

#include "access/tupdesc.h"

#include "base/catalog.h"
#include "base/owner.h"

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

extern void mq_segment_init(void);	/* once per process, from _PG_init */

/* Number of the segment that holds id. */
static inline int64
mq_segment_of(int64 id, int64 segment_size)
{
	return id / segment_size;
}

/* Opens a segment, or returns NULL when it does not exist (for this transaction). */
extern Relation mq_segment_open(const MqQueue *queue, int level, int64 segment, LOCKMODE mode);

/* The same with ACCESS SHARE, for who does not wait: NULL also when somebody is in the way. */
extern Relation mq_segment_open_at_once(const MqQueue *queue, int level, int64 segment);

/*
 * Opens a segment for appending, and locks what an append touches. If it is missing, makes it when no other process
 * could (the queue is this transaction's own), else asks the worker and waits up to mq.segment_wait; no LWLock may be
 * held. Errors: 55000 when it does not appear, or when somebody added what an append would bypass.
 */
extern Relation mq_segment_open_to_append(const MqQueue *queue, int level, int64 segment);

/* Locks and opens the TOAST table and its index, so that an append can toast under an LWLock without waiting. */
extern void mq_segment_lock_toast(Relation rel);

/*
 * Says in a WARNING what is wrong with the rows of a segment: what completes a sentence that begins with its name. At most
 * once a minute for each segment and process. No LWLock may be held.
 */
extern void mq_segment_complain(Relation rel, const char *what, const char *detail);

/* What is known of the order of a segment's pages. */
typedef enum MqTrust
{
	MQ_TRUST_NONE,				/* others may write to it, for its guard is off: places in it mean nothing */
	MQ_TRUST_UNKNOWN,			/* not the file on record: restored, or rewritten */
	MQ_TRUST_IN_ORDER,
	MQ_TRUST_OUT_OF_ORDER		/* but for what is appended from now on */
} MqTrust;

extern MqTrust mq_segment_trust(const MqQueue *queue, int level, int64 segment, Relation rel);

/* Remembers, for this process, what a look at all pages has shown. */
extern void mq_segment_found_order(const MqQueue *queue, int level, int64 segment, Relation rel, bool in_order);

/*
 * As mq_segment_open, for whoever relies on the order of pages: ROW EXCLUSIVE, if that can be had at once, for then nobody
 * has switched the guard off in a transaction that is still open; else ACCESS SHARE. *mode says which. A process that does not
 * wait gets NULL also for what somebody has locked; for mq_segment_is_gone that is not gone.
 */
extern bool mq_segment_waits;	/* false in the worker, who has others to care for */
extern Relation mq_segment_open_still(const MqQueue *queue, int level, int64 segment, LOCKMODE *mode);

/* Whether the trigger is there, and fires always, that keeps others from writing rows. */
extern bool mq_segment_is_guarded(Relation rel);

/* Puts the guard of a segment, and of its parent, back; its order counts as unknown. The caller has locked both SHARE ROW EXCLUSIVE. */
extern void mq_segment_guard(const MqQueue *queue, int level, int64 segment);

/* Puts on record that the pages of this file of the segment are in order. */
extern void mq_segment_record_order(const MqQueue *queue, int level, int64 segment, RelFileNumber file);

/*
 * Whether a segment that could not be opened is gone for good (true), or perhaps made by a transaction that is still
 * open (false). The caller has read a tail that lies in a later segment before. Takes no lock that waits.
 */
extern bool mq_segment_is_gone(const MqQueue *queue, int level, int64 segment);

/* Creates and attaches; runs SQL as the extension's owner, hence 55000 when somebody altered the queue's table. The caller holds, or may wait for, the parent's lock. */
extern void mq_segment_create(const MqQueue *queue, int level, int64 segment);

/* Puts partitions on record again that are there, when their records went; how many. Their order counts as unknown. */
extern int64 mq_segment_record_all(const MqQueue *queue);

/* Sealed: no more appends come; indexes for browsing are built. The caller has locked it SHARE. 55000 as above. */
extern void mq_segment_seal(const MqQueue *queue, int level, int64 segment);

/* The segments on record, ascending; palloc'd. */
typedef struct MqSegmentInfo
{
	int32		level;
	int64		segment;
	Oid			file;			/* the file it was made with; InvalidOid: not in order */
	bool		sealed;
	TimestampTz sealed_at;		/* all messages in it are older; 0: not known */
	Oid			relid;			/* InvalidOid: no such table */
} MqSegmentInfo;

extern MqSegmentInfo *mq_segment_list(const MqQueue *queue, int *count);

/* Forgets the record of a segment and drops its table; the caller has locked leaf, toast and parent. */
extern void mq_segment_drop(const MqQueue *queue, int level, int64 segment);

/* Empties a segment whose table cannot be dropped now, for good even on rollback; the caller has locked leaf and toast. */
extern void mq_segment_truncate(const MqQueue *queue, int level, int64 segment);

/* Takes a lock on a table and its TOAST table only if nobody is in the way; a part of it may stay locked. */
extern bool mq_lock_table_conditionally(Oid relid, LOCKMODE mode);


/*
 * Looks at a table that this transaction has made, and that we write to by column number and without the executor: somebody's
 * event trigger may have altered it. Takes off row security, and raises 55000 for the rest. Between mq_sql_begin and mq_sql_end.
 */
extern void mq_check_made(Oid relid, TupleDesc ours);

#endif
