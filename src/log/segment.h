/*
 * segment.h: the partitions of a queue's log.
 */
#ifndef MQ_SEGMENT_H
#define MQ_SEGMENT_H

#include "base/catalog.h"

extern void mq_segment_init(void);	/* once per process, from _PG_init */

/* Number of the segment that holds id. */
static inline int64
mq_segment_of(int64 id, int64 segment_size)
{
	return id / segment_size;
}

/* Opens a segment, or returns NULL when it does not exist (for this transaction). 55000: it is no heap, or has other columns. */
extern Relation mq_segment_open(const MqQueue *queue, int level, int64 segment, LOCKMODE mode);

/* The same with ACCESS SHARE, for a look that neither waits nor fails: NULL also when somebody is in the way, or has altered it. */
extern Relation mq_segment_open_at_once(const MqQueue *queue, int level, int64 segment);

/*
 * Opens a segment for appending, and locks what an append touches. If it is missing, makes it when no other process
 * could (the queue is this transaction's own), else asks the worker and waits up to mq.segment_wait; no LWLock may be
 * held. Errors: 55000 when it does not appear, or when somebody added what an append would bypass.
 */
extern Relation mq_segment_open_to_append(const MqQueue *queue, int level, int64 segment);

/* Asks the worker to make a segment in its next turn, which comes at once. */
extern void mq_segment_ask_for(const MqQueue *queue, int level, int64 segment);

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

/*
 * Whether a segment that could not be opened is gone for good (true), or perhaps made by a transaction that is still
 * open (false). The caller has read a tail that lies in a later segment before. Takes no lock that waits.
 */
extern bool mq_segment_is_gone(const MqQueue *queue, int level, int64 segment);

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

/* Takes a lock on a table and its TOAST table only if nobody is in the way; a part of it may stay locked. */
extern bool mq_lock_table_conditionally(Oid relid, LOCKMODE mode);

#endif
