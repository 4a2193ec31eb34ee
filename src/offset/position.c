/*
 * position.c: where in the log a consumer group begins. See position.h.
 *
 * 'latest' has to find the messages with lower ids whose senders are still open: a group that began behind them would
 * never get them. They may be anywhere, so the log is read, but for the pages that VACUUM has marked all visible.
 */
#include "postgres.h"

#include "offset/position.h"

#include "access/relation.h"
#include "access/transam.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"

#include "log/order.h"
#include "log/page.h"

/* A part that begins right behind the last one is joined with it. No order is asked for. */
static void
add_part(MqPosition *position, int64 lo, int64 hi)
{
	MqUnfinished *last = position->count > 0 ? &position->parts[position->count - 1] : NULL;

	if (last != NULL && last->hi + 1 == lo)
	{
		last->hi = hi;
		return;
	}
	/* room grows by powers of two */
	if ((position->count & (position->count - 1)) == 0)
	{
		Size		size = Max(position->count * 2, 1) * sizeof(MqUnfinished);

		position->parts = position->parts == NULL ? palloc(size) : repalloc_huge(position->parts, size);
	}
	Assert(position->parts != NULL);
	position->parts[position->count++] = (MqUnfinished) {lo, hi, 0, 0};
}

/* Locks every segment that exists, to the end of the transaction, and lists those. */
static MqSegmentInfo *
lock_segments(const MqQueue *queue, int *count)
{
	MqSegmentInfo *list = mq_segment_list(queue, count);

	for (int i = 0; i < *count; i++)
		if (OidIsValid(list[i].relid))
			LockRelationOid(list[i].relid, AccessShareLock);
	/* one may have been dropped while this waited for it */
	pfree(list);
	return mq_segment_list(queue, count);
}

/* Adds the ids of the page's rows whose senders are undecided. */
static void
add_undecided(Relation rel, BlockNumber block, int64 below, Snapshot judge, MqPosition *position)
{
	static MqRow rows[MQ_PAGE_ROWS];
	int64		page_max;
	int			count = mq_log_read_page(rel, block, 0, below - 1, judge, rows, &page_max);

	for (int i = 0; i < count; i++)
		if (rows[i].verdict == MQ_ROW_UNDECIDED)
			add_part(position, rows[i].id, rows[i].id);
}

/*
 * No sender can be undecided: neither this transaction nor, at the time of the snapshot, any other has an xid, nor had one been
 * given that was not yet over (those from xmax on are not in the list of the running ones).
 */
static bool
nobody_writes(Snapshot snapshot)
{
	return snapshot->xcnt == 0 && snapshot->subxcnt == 0 && !snapshot->suboverflowed &&
		ReadNextTransactionId() == snapshot->xmax && !TransactionIdIsValid(GetTopTransactionIdIfAny());
}

/*
 * Adds the ids below next_id whose senders are undecided, ascending. They had an xid before they got an id, and next_id was read
 * before this is called.
 */
static void
find_undecided(const MqQueue *queue, const MqSegmentInfo *segments, int count, int64 next_id, MqPosition *position)
{
	Snapshot	judge = RegisterSnapshot(GetLatestSnapshot());

	if (nobody_writes(judge))
		count = 0;
	for (int i = 0; i < count && segments[i].segment * queue->segment_size < next_id; i++)
	{
		Relation	rel = mq_segment_open(queue, segments[i].level, segments[i].segment, AccessShareLock);
		Buffer		map = InvalidBuffer;
		BlockNumber blocks;

		if (rel == NULL)
			continue;
		blocks = RelationGetNumberOfBlocks(rel);
		for (BlockNumber block = 0; block < blocks; block++)
		{
			CHECK_FOR_INTERRUPTS();
			if ((visibilitymap_get_status(rel, block, &map) & VISIBILITYMAP_ALL_VISIBLE) == 0)
				add_undecided(rel, block, next_id, judge, position);
		}
		if (BufferIsValid(map))
			ReleaseBuffer(map);
		relation_close(rel, NoLock);
	}
	UnregisterSnapshot(judge);
	/* pages of a rewritten segment are in no order */
	position->count = mq_unfinished_sort(position->parts, position->count);
}

/* What is undecided below next_id, and everything from there on. */
static void
find_latest(const MqQueue *queue, const MqSegmentInfo *segments, int count, int64 next_id, MqPosition *position)
{
	find_undecided(queue, segments, count, next_id, position);
	add_part(position, next_id, PG_INT64_MAX);
}

/* Says how many messages with lower ids are passed over though they may still be committed. */
static void
warn_of_undecided(const MqQueue *queue, const MqSegmentInfo *segments, int count, int64 start)
{
	MqPosition	undecided = {NULL, 0};
	int64		messages = 0;

	find_undecided(queue, segments, count, start, &undecided);
	for (int64 i = 0; i < undecided.count; i++)
	{
		Assert(undecided.parts != NULL);
		messages += undecided.parts[i].hi - undecided.parts[i].lo + 1;
	}
	if (messages > 0)
		ereport(NOTICE,
				(errmsg("messages below id " INT64_FORMAT " that are not committed yet are passed over: " INT64_FORMAT, start, messages),
				 errhint("To miss nothing, start at 'latest', or at a lower id, or when their transactions have ended.")));
}

/* The first id appended at that time or later; next_id: none. Times never go back: the first segment with one has it. */
static int64
find_time(const MqQueue *queue, const MqSegmentInfo *segments, int count, int64 next_id, TimestampTz time)
{
	int64		first = next_id;

	for (int i = 0; i < count && first == next_id; i++)
	{
		Relation	rel = mq_segment_open(queue, segments[i].level, segments[i].segment, AccessShareLock);
		int64		lo = segments[i].segment * queue->segment_size;
		int64		id;

		if (rel == NULL)
			continue;
		id = mq_log_first_since(rel, mq_order_holds(queue, segments[i].level, segments[i].segment, rel), time, lo,
								lo + queue->segment_size - 1);
		relation_close(rel, NoLock);
		if (id >= 0)
			first = Min(first, id);
	}
	return first;
}

/* Where the first segment that still has a table begins; next_id: there is none. */
static int64
first_id(const MqQueue *queue, const MqSegmentInfo *segments, int count, int64 next_id)
{
	for (int i = 0; i < count; i++)
		if (OidIsValid(segments[i].relid))
			return Max(Min(segments[i].segment * queue->segment_size, next_id), 1);
	return next_id;
}

static void
check_id(int64 id, int64 next_id)
{
	if (id < 1 || id > next_id)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start_id must be between 1 and " INT64_FORMAT, next_id),
				 errdetail("It is " INT64_FORMAT ".", id),
				 errhint("The next message gets the greater one or one above it.")));
}

/*
 * Where the log that this transaction can see ends. Ids beyond may have been given already, in a segment that an open
 * transaction made: all of that is still to come.
 */
static int64
visible_end(const MqQueue *queue, const MqSegmentInfo *segments, int count, int64 next_id)
{
	if (count == 0)
		return 1;
	return Min(next_id, (segments[count - 1].segment + 1) * queue->segment_size);
}

/* Where the log ends. To be read before segments are listed: one that is made and filled in between lies behind it then. */
static int64
log_end(const MqQueue *queue)
{
	MqTail		tail;

	if (!mq_log_tail(queue, 0, &tail))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("queue \"%s\" was dropped", NameStr(queue->name)),
				 errhint("Use mq.create_queue to create it.")));
	return tail.next_id;
}

void
mq_position_find(const MqQueue *queue, const MqStart *start, MqPosition *position)
{
	int64		next_id = log_end(queue);
	int			count;
	MqSegmentInfo *segments = lock_segments(queue, &count);
	int64		end = visible_end(queue, segments, count, next_id);

	*position = (MqPosition) {NULL, 0};
	switch (start->kind)
	{
		case MQ_START_EARLIEST:
			add_part(position, first_id(queue, segments, count, end), PG_INT64_MAX);
			break;
		case MQ_START_LATEST:
			find_latest(queue, segments, count, end, position);
			break;
		case MQ_START_ID:
			check_id(start->id, next_id);
			add_part(position, start->id, PG_INT64_MAX);
			break;
		case MQ_START_TIME:
			add_part(position, find_time(queue, segments, count, end, start->time), PG_INT64_MAX);
			break;
	}
	if (start->kind == MQ_START_ID || start->kind == MQ_START_TIME)
		warn_of_undecided(queue, segments, count, position->parts[0].lo);
	pfree(segments);
}

/* ---- counting ---- */

/* Where to begin to count; PG_INT64_MAX: all that is committed is before it. */
static int64
first_counted(const MqQueue *queue, const MqStart *start, const MqSegmentInfo *segments, int count, int64 next_id)
{
	switch (start->kind)
	{
		case MQ_START_EARLIEST:
			return 1;
		case MQ_START_LATEST:
			return PG_INT64_MAX;
		case MQ_START_ID:
			check_id(start->id, next_id);
			return start->id;
		case MQ_START_TIME:
			return find_time(queue, segments, count, visible_end(queue, segments, count, next_id), start->time);
	}
	return PG_INT64_MAX;
}

/* The segment, if it may have ids from `first` on, and the first block with one; NULL: it has none, or is gone. */
static Relation
open_from(const MqQueue *queue, const MqSegmentInfo *segment, int64 first, BlockNumber *from)
{
	int64		lo = segment->segment * queue->segment_size;
	Relation	rel;

	*from = 0;
	if (lo + queue->segment_size <= first)
		return NULL;
	rel = mq_segment_open(queue, segment->level, segment->segment, AccessShareLock);
	if (rel != NULL && lo < first && mq_order_holds(queue, segment->level, segment->segment, rel))
		*from = mq_log_locate(rel, first);
	return rel;
}

/* The committed rows of a page from `first` on. */
static int
committed_rows(Relation rel, BlockNumber block, int64 first, Snapshot judge)
{
	static MqRow rows[MQ_PAGE_ROWS];
	int64		page_max;
	int			count = mq_log_read_page(rel, block, first, PG_INT64_MAX, judge, rows, &page_max);
	int			committed = 0;

	for (int i = 0; i < count; i++)
		committed += rows[i].verdict == MQ_ROW_COMMITTED;
	return committed;
}

/* Adds up the committed rows of each step-th page from `first` on; step 0: reads none. Returns how many pages there are. */
static int64
count_pages(const MqQueue *queue, const MqSegmentInfo *segments, int count, int64 first, int64 step, int64 *rows)
{
	Snapshot	judge = RegisterSnapshot(GetLatestSnapshot());
	int64		pages = 0;

	for (int i = 0; i < count; i++)
	{
		BlockNumber block;
		Relation	rel = open_from(queue, &segments[i], first, &block);
		BlockNumber blocks = rel == NULL ? 0 : RelationGetNumberOfBlocks(rel);

		if (rel == NULL)
			continue;
		if (step == 0 && blocks > block)
			pages += blocks - block;
		for (; step > 0 && block < blocks; block++)
		{
			CHECK_FOR_INTERRUPTS();
			if (pages++ % step == 0)
				*rows += committed_rows(rel, block, first, judge);
		}
		relation_close(rel, AccessShareLock);
	}
	UnregisterSnapshot(judge);
	return pages;
}

int64
mq_position_count(const MqQueue *queue, const MqStart *start, bool *estimated)
{
	int64		next_id = log_end(queue);
	int			count;
	MqSegmentInfo *segments = mq_segment_list(queue, &count);
	int64		first = first_counted(queue, start, segments, count, next_id);
	int64		rows = 0;
	int64		step = 1 + count_pages(queue, segments, count, first, 0, &rows) / MQ_COUNT_PAGES;

	/* what was appended meanwhile is counted too; a page more makes it no estimate */
	(void) count_pages(queue, segments, count, first, step, &rows);
	pfree(segments);
	*estimated = step > 1;
	return rows * step;
}
