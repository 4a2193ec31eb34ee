/*
 * page.c: reading the message rows of a segment, page by page.
 *
 * Keeps nothing but the top transaction of the last sender that was undecided, in this process. Locks: the caller has opened the
 * segment; each page is pinned and locked SHARE while its rows are looked at, one at a time, and under that only the commit log and
 * the list of running transactions are read. Writes nothing but hint bits, so a crash leaves nothing.
 */
#include "postgres.h"

#include "log/page.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/subtrans.h"
#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "executor/tuptable.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "log/segment_table.h"

/* The id of a message row, read in place: see stamp (log.c). */
static int64
row_id(HeapTupleHeader header)
{
	return *(int64 *) ((char *) header + header->t_hoff);
}

uint64
mq_full_xid(TransactionId xid)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
}

bool
mq_xid_is_ancient(uint64 full_xid)
{
	return U64FromFullTransactionId(ReadNextFullTransactionId()) - full_xid > (uint64) PG_INT32_MAX - 1000000;
}

/* 0 for a page that was never written, which ends loops at once. Never more than callers have room for. */
static OffsetNumber
last_offset(Page page)
{
	return PageIsNew(page) ? InvalidOffsetNumber : Min(PageGetMaxOffsetNumber(page), MaxHeapTuplesPerPage);
}

/* False for a null too. Our own rows always have id and enqueued_at (log.c); this is for what somebody else wrote. */
static bool
is_stored(HeapTupleHeader header, MqColumn column)
{
	return HeapTupleHeaderGetNatts(header) >= column &&
		((header->t_infomask & HEAP_HASNULL) == 0 || !att_isnull((int) column - 1, header->t_bits));
}

/* The id of the row at a line pointer; -1: there is none. What somebody else wrote need not have an id. */
static inline int64
id_at(Page page, OffsetNumber off)
{
	ItemId		item = PageGetItemId(page, off);
	HeapTupleHeader header;

	if (!ItemIdIsNormal(item))
		return -1;
	header = (HeapTupleHeader) PageGetItem(page, item);
	return is_stored(header, MQ_COL_ID) ? row_id(header) : -1;
}

/* That row, in place. */
static inline void
get_row(Relation rel, Page page, BlockNumber block, OffsetNumber off, HeapTuple tuple)
{
	ItemId		item = PageGetItemId(page, off);

	tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple->t_len = ItemIdGetLength(item);
	tuple->t_tableOid = RelationGetRelid(rel);
	ItemPointerSet(&tuple->t_self, block, off);
}

/* -1: it has none. */
static TimestampTz
row_time(HeapTupleHeader header)
{
	return is_stored(header, MQ_COL_ENQUEUED_AT) ? ((int64 *) ((char *) header + header->t_hoff))[1] : -1;
}

MqPageRange
mq_log_page_range(Relation rel, BlockNumber block, int64 lo, int64 hi, bool *others)
{
	Buffer		buffer = ReadBuffer(rel, block);
	Page		page;
	OffsetNumber last;
	MqPageRange range = {PG_INT64_MAX, -1, -1};

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	last = last_offset(page);
	for (OffsetNumber off = FirstOffsetNumber; off <= last; off++)
	{
		HeapTupleData tuple;
		int64		id = id_at(page, off);

		if (id < lo || id > hi)
		{
			*others |= id != -1;
			continue;
		}
		get_row(rel, page, block, off, &tuple);
		range.max_id = Max(range.max_id, id);
		range.min_id = Min(range.min_id, id);
		range.max_time = Max(range.max_time, row_time(tuple.t_data));
	}
	UnlockReleaseBuffer(buffer);
	return range;
}

static int
compare_rows(const void *a, const void *b)
{
	int64		x = ((const MqRow *) a)->id;
	int64		y = ((const MqRow *) b)->id;

	return (x > y) - (x < y);
}

/*
 * What became of the row's sender. The snapshot is fresh, so what it does not see and that is not in it aborted, or was
 * deleted.
 */
static MqVerdict
judge_row(HeapTuple tuple, Buffer buffer, Snapshot judge, uint64 *xid)
{
	HeapTupleHeader header = tuple->t_data;
	TransactionId xmin;

	if (HeapTupleHeaderXminCommitted(header))
	{
		/* nobody deletes or updates but a superuser who has switched the guard off */
		if ((header->t_infomask & HEAP_XMAX_INVALID) != 0 || HeapTupleSatisfiesVisibility(tuple, judge, buffer))
			return MQ_ROW_COMMITTED;
		return MQ_ROW_GONE;
	}
	if (HeapTupleHeaderXminInvalid(header))
		return MQ_ROW_GONE;
	xmin = HeapTupleHeaderGetRawXmin(header);
	if (TransactionIdIsCurrentTransactionId(xmin))
	{
		*xid = U64FromFullTransactionId(GetTopFullTransactionId());
		return MQ_ROW_UNDECIDED;
	}
	if (HeapTupleSatisfiesVisibility(tuple, judge, buffer))
		return MQ_ROW_COMMITTED;
	if (XidInMVCCSnapshot(xmin, judge))
	{
		/* rows of one sender lie together, and the look into pg_subtrans is costly */
		static TransactionId last_xmin = InvalidTransactionId;
		static uint64 last_top = 0;

		if (xmin != last_xmin)
		{
			last_top = mq_full_xid(SubTransGetTopmostTransaction(xmin));
			last_xmin = xmin;
		}
		*xid = last_top;
		return MQ_ROW_UNDECIDED;
	}
	return MQ_ROW_GONE;
}

/* A message that was sent back is for one group only. */
static void
read_target(HeapTuple tuple, MqRow *row)
{
	bool		isnull;
	Datum		epoch = heap_getattr(tuple, MQ_COL_TARGET_EPOCH, mq_row_descriptor(), &isnull);

	/* without an epoch it is a dead letter, for all who consume those */
	if (isnull)
		return;
	row->only_epoch = DatumGetInt32(epoch);
	row->only_for = DatumGetInt32(heap_getattr(tuple, MQ_COL_TARGET_GROUP, mq_row_descriptor(), &isnull));
}

int
mq_log_read_page(Relation rel, BlockNumber block, int64 lo, int64 hi, Snapshot judge, MqRow *rows, int64 *page_max)
{
	Buffer		buffer = ReadBuffer(rel, block);
	Page		page;
	OffsetNumber last;
	int			count = 0;
	bool		sorted = true;

	*page_max = -1;
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	last = last_offset(page);
	for (OffsetNumber off = FirstOffsetNumber; off <= last; off++)
	{
		HeapTupleData tuple;
		int64		id = id_at(page, off);

		*page_max = Max(*page_max, id);
		if (id < lo || id > hi)
			continue;
		get_row(rel, page, block, off, &tuple);
		rows[count].id = id;
		rows[count].block = block;
		rows[count].xid = 0;
		rows[count].verdict = judge_row(&tuple, buffer, judge, &rows[count].xid);
		if (rows[count].verdict == MQ_ROW_GONE)
			continue;
		rows[count].only_for = 0;
		if (HeapTupleHeaderGetNatts(tuple.t_data) > MQ_PLAIN_COLUMNS)
			read_target(&tuple, &rows[count]);
		if (count > 0 && rows[count - 1].id > id)
			sorted = false;
		count++;
	}
	UnlockReleaseBuffer(buffer);
	if (!sorted)
		qsort(rows, count, sizeof(MqRow), compare_rows);
	return count;
}

/*
 * By the statement's snapshot, however old it is: what judge_row finds committed may be too new for it. Caller has the page locked.
 */
static MqSight
sight(HeapTuple tuple, Buffer buffer, Snapshot snapshot)
{
	TransactionId xmin;

	if (HeapTupleSatisfiesVisibility(tuple, snapshot, buffer))
		return MQ_SEEN;
	if (HeapTupleHeaderXminInvalid(tuple->t_data))
		return MQ_VANISHED;
	if (HeapTupleHeaderXminFrozen(tuple->t_data))
		return MQ_DELETED;
	xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
	if (TransactionIdIsCurrentTransactionId(xmin) || XidInMVCCSnapshot(xmin, snapshot))
		return MQ_TOO_NEW;
	/* decided before the snapshot, yet not visible */
	return TransactionIdDidCommit(xmin) ? MQ_DELETED : MQ_VANISHED;
}

static int
compare_fetched(const void *a, const void *b)
{
	int64		x = ((const MqFetched *) a)->id;
	int64		y = ((const MqFetched *) b)->id;

	return (x > y) - (x < y);
}

/* The row with the same id as the one at `at`, among those before it; `at`: none. */
static int
same_id(const MqFetched *rows, int at)
{
	int			i = 0;

	while (rows[i].id != rows[at].id)
		i++;
	return i;
}

/* Ends as soon as the snapshot has seen every id of the range; *page_max is the greatest one until there. */
int
mq_log_fetch_page(Relation rel, BlockNumber block, int64 lo, int64 hi, Snapshot snapshot, MqFetched *rows,
				  Buffer *buffer, int64 *page_max)
{
	Page		page;
	OffsetNumber last;
	int			count = 0;
	int			seen = 0;
	int64		greatest = -1;	/* id in rows */
	bool		sorted = true;

	*buffer = ReadBuffer(rel, block);
	*page_max = -1;
	LockBuffer(*buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(*buffer);
	last = last_offset(page);
	for (OffsetNumber off = FirstOffsetNumber; off <= last && seen <= hi - lo; off++)
	{
		HeapTupleData *tuple = &rows[count].tuple;
		int64		id = id_at(page, off);

		*page_max = Max(*page_max, id);
		if (id < lo || id > hi)
			continue;
		get_row(rel, page, block, off, tuple);
		rows[count].id = id;
		rows[count].sight = sight(tuple, *buffer, snapshot);
		if (id <= greatest)
		{
			int			same = same_id(rows, count);

			sorted = false;
			/* another version of it, or a second row: the first that the snapshot sees counts */
			if (same < count)
			{
				if (rows[same].sight != MQ_SEEN && rows[count].sight < rows[same].sight)
				{
					rows[same] = rows[count];
					seen += rows[same].sight == MQ_SEEN;
				}
				continue;
			}
		}
		greatest = Max(greatest, id);
		seen += rows[count].sight == MQ_SEEN;
		count++;
	}
	LockBuffer(*buffer, BUFFER_LOCK_UNLOCK);
	if (!sorted)
		qsort(rows, count, sizeof(MqFetched), compare_fetched);
	return count;
}

/* Whether every row of a page is before the bound, an id or a time. */
typedef bool (*PageIsBefore) (MqPageRange range, int64 bound);

static bool
id_is_before(MqPageRange range, int64 id)
{
	return range.max_id < id;
}

static bool
time_is_before(MqPageRange range, int64 time)
{
	return range.max_time < time;
}

/*
 * The first page that is not before the bound, by binary search: ids and times grow together. Pages without rows tell
 * nothing: the next one with rows stands for them.
 */
static BlockNumber
locate(Relation rel, PageIsBefore is_before, int64 bound)
{
	BlockNumber lo = 0;
	BlockNumber hi = RelationGetNumberOfBlocks(rel);

	while (lo < hi)
	{
		BlockNumber mid = lo + (hi - lo) / 2;
		BlockNumber at = mid;
		MqPageRange range;
		bool		others = false;

		CHECK_FOR_INTERRUPTS();
		range = mq_log_page_range(rel, at, 0, PG_INT64_MAX, &others);
		while (range.max_id < 0 && ++at < hi)
			range = mq_log_page_range(rel, at, 0, PG_INT64_MAX, &others);
		if (at < hi && is_before(range, bound))
			lo = at + 1;
		else
			hi = mid;
	}
	return lo;
}

BlockNumber
mq_log_locate(Relation rel, int64 id)
{
	return locate(rel, id_is_before, id);
}

/* The smallest id on a page of a row that is not older, with lo <= id <= hi; -1: none. */
static int64
page_first_since(Relation rel, BlockNumber block, TimestampTz time, int64 lo, int64 hi)
{
	Buffer		buffer = ReadBuffer(rel, block);
	Page		page;
	OffsetNumber last;
	int64		first = -1;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	last = last_offset(page);
	for (OffsetNumber off = FirstOffsetNumber; off <= last; off++)
	{
		HeapTupleData tuple;
		int64		id = id_at(page, off);

		if (id < lo || id > hi || (first >= 0 && id >= first))
			continue;
		get_row(rel, page, block, off, &tuple);
		if (row_time(tuple.t_data) >= time)
			first = id;
	}
	UnlockReleaseBuffer(buffer);
	return first;
}

int64
mq_log_first_since(Relation rel, bool ordered, TimestampTz time, int64 lo, int64 hi)
{
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);
	int64		first = -1;

	/* in an ordered one the first page with such a row has the smallest id */
	for (BlockNumber block = ordered ? locate(rel, time_is_before, time) : 0; block < blocks; block++)
	{
		int64		id;

		CHECK_FOR_INTERRUPTS();
		id = page_first_since(rel, block, time, lo, hi);
		if (id >= 0 && (first < 0 || id < first))
			first = id;
		if (first >= 0 && ordered)
			break;
	}
	return first;
}

bool
mq_slot_is_visible(TupleTableSlot *slot, Snapshot snapshot)
{
	BufferHeapTupleTableSlot *heap = (BufferHeapTupleTableSlot *) slot;
	bool		visible;

	LockBuffer(heap->buffer, BUFFER_LOCK_SHARE);
	visible = HeapTupleSatisfiesVisibility(heap->base.tuple, snapshot, heap->buffer);
	LockBuffer(heap->buffer, BUFFER_LOCK_UNLOCK);
	return visible;
}
