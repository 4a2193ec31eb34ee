/*
 * page.h: reading the message rows of a segment, page by page.
 *
 * The caller has opened the segment and holds the lock. A page is looked at under its content lock, SHARE, which is released before
 * a function returns. Errors: those of reading a page, and of a transaction log.
 */
#ifndef MQ_PAGE_H
#define MQ_PAGE_H

#include "access/htup.h"
#include "executor/tuptable.h"
#include "access/htup_details.h"
#include "storage/block.h"
#include "storage/buf.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"

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
	int32		only_for;		/* number of the group that it is for; 0: all */
	int32		only_epoch;		/* then: in this epoch of it */
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

/* The full form of a normal xid: the latest one with these 32 bits that is not ahead of the next xid. */
extern uint64 mq_full_xid(TransactionId xid);

/* So old that its 32-bit form means another transaction by now: decided, but its fate is on its rows only. */
extern bool mq_xid_is_ancient(uint64 full_xid);

/*
 * Whether a snapshot sees the row that a scan with SnapshotAny has come to. So read, rows count as not read where transactions are
 * serializable: none fails for that.
 */
extern bool mq_slot_is_visible(TupleTableSlot *slot, Snapshot snapshot);

#endif
