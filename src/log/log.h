/*
 * log.h: the append-only log of one queue and priority level.
 *
 * The order that readers rely on: every id on a page is greater than every id on the pages before it, as long as the
 * segment's file is the one that appends wrote, or was found to be in order (order.h). Within a page there is no order: VACUUM frees
 * the places of aborted rows and an append uses them again.
 */
#ifndef MQ_LOG_H
#define MQ_LOG_H

#include "access/htup.h"
#include "access/htup_details.h"
#include "storage/buf.h"
#include "utils/snapshot.h"

#include "log/segment.h"

/* Makes the chain's append position known: above the sequence, the highest id on disk, and floor. */
extern void mq_log_attach(MqQueue *queue, int level, int64 floor);

/*
 * Appends tuples (columns as in MqColumn; id and enqueued_at are filled in here) and returns their ids, ascending.
 * The ids of one call need not be consecutive. Queue must be attached. Takes the append lock for at most 64 pages
 * at a time. Errors: what heap_insert raises, 55000 from opening the segment; the chain stays right in any case.
 */
extern void mq_log_append(const MqQueue *queue, int level, HeapTuple *tuples, int count, int64 *ids);

/* How far the log reaches: read before a page, so that what the page holds below next_id is all there is. */
typedef struct MqTail
{
	int64		next_id;
	int64		segment;		/* -1: not known */
	RelFileNumber file;
	BlockNumber block;
	uint32		truncations;
} MqTail;

/* False if the chain is gone (the queue was dropped). */
extern bool mq_log_tail(const MqQueue *queue, int level, MqTail *tail);

/*
 * The next message gets that id, and those in between are a gap. Where there were too many gaps the first is forgotten: its ids
 * count as given. Caller holds the append lock.
 */
extern void mq_log_pass_over(MqChain *chain, int64 next_id);

/* How many ids from this one on were given: an upper bound of the messages there. 0 if the chain is gone. */
extern int64 mq_log_ids_from(const MqQueue *queue, int level, int64 id);

/* Makes what readers remember of places in the log void, and lets the next message have at least this id. */
extern void mq_log_skip(const MqQueue *queue, int level, int64 next_id);

/* The same, above whatever is in the segments on record. */
extern void mq_log_skip_to_end(const MqQueue *queue, int level);

/* Ids and the greatest time on a page, whatever became of the rows. */
typedef struct MqPageRange
{
	int64		min_id;
	int64		max_id;			/* -1: no rows */
	TimestampTz max_time;
} MqPageRange;

/* Of the rows with lo <= id <= hi; *others is set if there are other ones. */
extern MqPageRange mq_log_page_range(Relation rel, BlockNumber block, int64 lo, int64 hi, bool *others);

typedef enum MqVerdict
{
	MQ_ROW_GONE,				/* aborted */
	MQ_ROW_COMMITTED,
	MQ_ROW_UNDECIDED
} MqVerdict;

typedef struct MqRow
{
	int64		id;
	uint64		xid;			/* UNDECIDED: full xid of the top transaction */
	BlockNumber block;
	MqVerdict	verdict;
} MqRow;

/* The rows of a page with lo <= id <= hi, aborted ones left out, judged by a fresh MVCC snapshot, sorted by id. *page_max: the
 * greatest id on the page, whatever became of it; -1: none. */
extern int	mq_log_read_page(Relation rel, BlockNumber block, int64 lo, int64 hi, Snapshot judge, MqRow *rows,
							 int64 *page_max);

/* What the calling statement may see of a row that was handed out to it. Of two rows with one id the smaller counts. */
typedef enum MqSight
{
	MQ_SEEN,					/* visible to the snapshot */
	MQ_TOO_NEW,					/* not yet: for others, or for later */
	MQ_DELETED,					/* or updated, behind our back: another row may have its id */
	MQ_VANISHED					/* aborted */
} MqSight;

typedef struct MqFetched
{
	int64		id;
	MqSight		sight;
	HeapTupleData tuple;		/* points into the page */
} MqFetched;

/* The rows of a page with lo <= id <= hi, sorted by id, each id once; the caller releases *buffer, which keeps them in place. */
extern int	mq_log_fetch_page(Relation rel, BlockNumber block, int64 lo, int64 hi, Snapshot snapshot,
							  MqFetched *rows, Buffer *buffer, int64 *page_max);

/* Room that mq_log_read_page and mq_log_fetch_page need. */
#define MQ_PAGE_ROWS MaxHeapTuplesPerPage

/* In an ordered segment: the first block that can hold id (or a greater one). */
extern BlockNumber mq_log_locate(Relation rel, int64 id);

/*
 * The first id of a segment, between lo and hi, whose row (whatever became of it) was appended at that time or later; -1:
 * none.
 */
extern int64 mq_log_first_since(Relation rel, bool ordered, TimestampTz time, int64 lo, int64 hi);

extern uint64 mq_full_xid(TransactionId xid);

/* So old that its 32-bit form means another transaction by now: decided, but its fate is on its rows only. */
extern bool mq_xid_is_ancient(uint64 full_xid);

#endif
