/*
 * walk.c: reading ahead: from the heap into a delivery window.
 *
 * There is no walker's lock. Whoever needs messages picks the first stretch to read under the window lock, reads and
 * judges it with no lock, and applies its findings only if nobody has changed the walkers' work in between (walk_seq);
 * else it throws them away, for somebody else has done the same. So nothing is left behind by an abort, and nobody
 * waits. What is to be read: chunks whose sender became decided, then UNREAD ranges, the last of which has no end.
 *
 * A stretch may only be left behind when everything in it was there to be seen: the tail is read first (log.h), and
 * the page the tail is on is kept as the place to go on from.
 */
#include "postgres.h"

#include "window/walk.h"

#include "access/relation.h"
#include "access/subtrans.h"
#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/stop_point.h"
#include "log/order.h"
#include "log/page.h"
#include "window/pending.h"
#include "window/wake.h"

#define PAGES_PER_WALK		16
#define UNORDERED_PER_WALK	65536

/* What one walker has taken on. */
typedef struct WalkJob
{
	uint64		seq;			/* walk_seq when it was picked */
	int32		epoch;			/* of the window then */
	bool		is_chunk;
	MqChunk		chunk;			/* is_chunk: copy of the first of rewalk */
	int64		lo;
	int64		hi;
	BlockNumber block;
	uint32		file_tag;
	uint16		attempts;		/* of an UNREAD range: its messages inherit them */
	uint16		failures;
	uint8		unexplained;
	TimestampTz due;			/* and this */
} WalkJob;

/* What it found: everything in [job.lo, done) is known. */
typedef struct Findings
{
	MqRow	   *rows;
	bool		allocated;
	int			count;
	int64		done;
	BlockNumber block;			/* where to go on; InvalidBlockNumber: unknown */
	uint32		file_tag;
} Findings;

/* ---- senders that were undecided ---- */

/* The xid is one of a top transaction. False for the running transaction, and for one whose end the snapshot does not see. */
static bool
is_decided(uint64 full_xid, Snapshot judge)
{
	TransactionId xid = XidFromFullTransactionId(FullTransactionIdFromU64(full_xid));

	if (mq_xid_is_ancient(full_xid))
		return true;
	return !TransactionIdIsCurrentTransactionId(xid) && !XidInMVCCSnapshot(xid, judge);
}

/* Copies them, for they are judged without the window lock, which this takes shared. At most room; returns how many. */
static int
pending_xids(const MqWindowRef *ref, uint64 *xids, int room)
{
	int			count = 0;

	if (!mq_window_lock(ref, LW_SHARED))
		return 0;
	for (uint32 p = ref->window->pending; p != 0 && count < room; p = MqPendingAt(p)->next)
		xids[count++] = MqPendingAt(p)->xid;
	mq_window_unlock(ref);
	return count;
}

bool
mq_walk_settle(const MqWindowRef *ref)
{
	int			room = MaxBackends + max_prepared_xacts + 1;
	uint64	   *xids;
	bool	   *aborted;
	int			count;
	int			decided = 0;
	Snapshot	judge;

	/* read without the lock: what is missed is seen the next time */
	if (ref->window->pending == 0)
		return false;
	xids = palloc(room * sizeof(uint64));
	aborted = palloc(room * sizeof(bool));
	count = pending_xids(ref, xids, room);
	judge = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < count; i++)
	{
		if (!is_decided(xids[i], judge))
			continue;
		/* who committed may have rolled back parts, and of an ancient one only the rows tell: those are read again */
		xids[decided] = xids[i];
		aborted[decided++] = !mq_xid_is_ancient(xids[i]) && !TransactionIdDidCommit(XidFromFullTransactionId(FullTransactionIdFromU64(xids[i])));
	}
	UnregisterSnapshot(judge);
	if (mq_window_lock(ref, LW_EXCLUSIVE))
	{
		for (int i = 0; i < decided; i++)
			mq_pending_resolve(ref->window, xids[i], aborted[i]);
		ref->window->pending_checked = GetCurrentTimestamp();
		mq_window_unlock(ref);
	}
	pfree(xids);
	pfree(aborted);
	return decided > 0;
}

void
mq_walk_again(const MqWindowRef *ref, uint64 xid)
{
	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return;
	mq_pending_resolve(ref->window, xid, false);
	mq_window_unlock(ref);
}

/* ---- picking ---- */

/* Takes the window lock, shared, and leaves no mark: others may pick the same. False: there is nothing to read, or no window. */
static bool
pick_job(const MqWindowRef *ref, WalkJob *job)
{
	MqWindow   *window = ref->window;
	uint32		node;

	memset(job, 0, sizeof(*job));
	if (!mq_window_lock(ref, LW_SHARED))
		return false;
	job->seq = window->walk_seq;
	job->epoch = window->epoch;
	node = mq_tree_first_in_state(window, MQ_UNREAD, PG_INT64_MIN);
	if (window->rewalk != 0)
	{
		job->is_chunk = true;
		job->chunk = *MqChunkAt(window->rewalk);
		job->lo = mq_chunk_first(&job->chunk);
		job->hi = job->chunk.hi;
		job->block = job->chunk.block;
		job->file_tag = job->chunk.file_tag;
		job->attempts = job->chunk.attempts;
		job->failures = job->chunk.failures;
		job->unexplained = job->chunk.unexplained;
		job->due = job->chunk.due;
	}
	else if (node != 0)
	{
		const MqNode *n = MqNodeAt(node);

		job->lo = n->lo;
		job->hi = n->hi;
		job->block = n->block;
		job->file_tag = n->file_tag;
		job->attempts = n->attempts;
		job->failures = n->failures;
		job->unexplained = n->unexplained;
		job->due = n->due;
	}
	mq_window_unlock(ref);
	return job->is_chunk || node != 0;
}

/* ---- reading ---- */

/* Follows the order of pages from `start`. last: the page the tail is on, or past the end of a finished segment. */
static void
read_ordered(Relation rel, BlockNumber start, BlockNumber last, bool last_grows, int64 lo, int64 hi, int want,
			 Snapshot judge, Findings *found)
{
	BlockNumber end;
	int			ready = 0;
	static MqRow room[PAGES_PER_WALK * MQ_PAGE_ROWS];	/* too large to allocate every time */

	/* the page the tail is on may get more rows: it is never left behind */
	if (last_grows)
		start = Min(start, last);
	end = Min(start + PAGES_PER_WALK, last_grows ? last + 1 : last);
	found->rows = room;
	found->done = lo;
	found->block = start;
	for (BlockNumber block = start; block < end && ready < want; block++)
	{
		MqRow	   *rows = found->rows + found->count;
		int64		page_max;
		int			n = mq_log_read_page(rel, block, lo, hi, judge, rows, &page_max);

		for (int i = 0; i < n; i++)
			ready += rows[i].verdict == MQ_ROW_COMMITTED;
		found->count += n;
		if (page_max >= hi || (last_grows && block == last))
		{
			found->done = hi + 1;
			found->block = block;
			return;
		}
		found->done = Max(found->done, page_max + 1);
		found->block = block + 1;
	}
	/* walked off the end of a finished segment, or the range was not on any page */
	if (found->block >= (last_grows ? last + 1 : last))
		found->done = hi + 1;
}

/* By id; of rows with one id, committed ones first, then those that are first on disk. */
static int
compare_rows(const void *a, const void *b)
{
	const MqRow *x = a;
	const MqRow *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	if (x->verdict != y->verdict)
		return x->verdict == MQ_ROW_COMMITTED ? -1 : 1;
	return (x->block > y->block) - (x->block < y->block);
}

/* The first row whose id is not greater than that of the row before; 0: there is none. */
static int
first_double(const Findings *found)
{
	for (int i = 1; i < found->count; i++)
		if (found->rows[i].id <= found->rows[i - 1].id)
			return i;
	return 0;
}

/*
 * Leaves one row of each id, ascending, whatever somebody else has written. Two versions of one row are as two rows: a
 * version that is replaced is gone, but a newer one may be undecided still.
 */
static void
drop_doubles(Relation rel, Findings *found)
{
	int			kept = 0;
	int64		twice = -1;

	if (first_double(found) == 0)
		return;
	qsort(found->rows, found->count, sizeof(MqRow), compare_rows);
	for (int i = 1; i < found->count; i++)
	{
		if (found->rows[i].id != found->rows[kept].id)
			found->rows[++kept] = found->rows[i];
		else if (found->rows[i].verdict == MQ_ROW_COMMITTED)
			twice = found->rows[i].id;
	}
	found->count = kept + 1;
	if (twice >= 0)
		mq_segment_complain(rel, psprintf("has several rows with id " INT64_FORMAT, twice),
							"The first of them on disk is delivered, the others are not.");
}

/* Reads a segment whose pages are in no order, whole, and keeps its lowest rows. */
static void
read_unordered(Relation rel, BlockNumber blocks, int64 lo, int64 hi, Snapshot judge, Findings *found)
{
	Size		room = 1024;

	found->rows = palloc(room * sizeof(MqRow));
	found->allocated = true;
	for (BlockNumber block = 0; block < blocks; block++)
	{
		int64		page_max;

		CHECK_FOR_INTERRUPTS();
		if (found->count + MQ_PAGE_ROWS > room)
			found->rows = repalloc_huge(found->rows, (room *= 2) * sizeof(MqRow));
		found->count += mq_log_read_page(rel, block, lo, hi, judge, found->rows + found->count, &page_max);
	}
	qsort(found->rows, found->count, sizeof(MqRow), compare_rows);
	found->done = hi + 1;
	if (found->count > UNORDERED_PER_WALK)
	{
		found->count = UNORDERED_PER_WALK;
		found->done = found->rows[found->count - 1].id + 1;
	}
}

/*
 * A place in a file is remembered together with this. It changes when the file is another one (VACUUM FULL, CLUSTER)
 * and when the end of the file was cut off, for then rows may come to places before it.
 */
static uint32
file_tag(Relation rel, const MqTail *tail)
{
	return (uint32) MqRelFileNumber(rel) ^ (tail->truncations * UINT32_C(0x9E3779B1));
}

/* Reads a stretch of the job's first segment. */
static void
read_segment(const MqGroup *group, Relation rel, bool still, int64 segment, const MqTail *tail, const WalkJob *job,
			 int want, Findings *found)
{
	const MqQueue *queue = &group->queue;
	bool		grows = segment == mq_segment_of(tail->next_id, queue->segment_size);
	uint32		tag = file_tag(rel, tail);
	/* nobody but mq writes to it now, nor has since the tail was read */
	bool		guarded = still && mq_segment_trust(queue, 0, segment, rel) != MQ_TRUST_NONE &&
		tail->truncations == queue->chain->truncations;
	bool		tail_known = tail->segment == segment && tail->file == MqRelFileNumber(rel);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);
	BlockNumber last = blocks;
	int64		hi = Min(job->hi, grows ? tail->next_id - 1 : (segment + 1) * queue->segment_size - 1);
	Snapshot	judge = RegisterSnapshot(GetLatestSnapshot());

	if (grows)
	{
		if (blocks > 0)
			last = tail_known ? Min(tail->block, blocks - 1) : blocks - 1;
		else
			grows = false;
	}
	if (guarded && job->block != InvalidBlockNumber && job->file_tag == tag)
		read_ordered(rel, job->block, last, grows, job->lo, hi, want, judge, found);
	else if (guarded && mq_order_holds(queue, 0, segment, rel))
		read_ordered(rel, mq_log_locate(rel, job->lo), last, grows, job->lo, hi, want, judge, found);
	else
	{
		read_unordered(rel, blocks, job->lo, hi, judge, found);
		/* from here on, what is appended is in order again */
		found->block = found->done == hi + 1 && grows ? last : InvalidBlockNumber;
	}
	drop_doubles(rel, found);
	found->file_tag = tag;
	/* a place to go on from is only one that the next append will not fall short of */
	if (!guarded || mq_segment_of(found->done, queue->segment_size) != segment ||
		(found->done == tail->next_id && !tail_known))
		found->block = InvalidBlockNumber;
	UnregisterSnapshot(judge);
}

/* False: nothing to read now. */
static bool
read_job(const MqGroup *group, const WalkJob *job, int want, Findings *found)
{
	const MqQueue *queue = &group->queue;
	int64		segment = mq_segment_of(job->lo, queue->segment_size);
	MqTail		tail;
	Relation	rel;
	LOCKMODE	mode;

	memset(found, 0, sizeof(*found));
	found->block = InvalidBlockNumber;
	/* before any page is read: all that there is below its next_id is on the pages then */
	if (!mq_log_tail(queue, 0, &tail) || job->lo >= tail.next_id)
		return false;
	rel = mq_segment_open_still(queue, 0, segment, &mode);
	if (rel == NULL)
	{
		/* an earlier segment that is gone has nothing to read; the one appends go to will be there soon */
		if (segment >= mq_segment_of(tail.next_id, queue->segment_size) || !mq_segment_is_gone(queue, 0, segment))
			return false;
		found->done = Min(job->hi, (segment + 1) * queue->segment_size - 1) + 1;
		return true;
	}
	read_segment(group, rel, mode == RowExclusiveLock, segment, &tail, job, want, found);
	relation_close(rel, mode);
	return true;
}

/* ---- applying ---- */

/* Length of the stretch of rows from `at` that becomes one entry: same fate, consecutive ids, same page if ready. */
static int
stretch(const MqRow *rows, int count, int at)
{
	int			n = 1;

	while (at + n < count && rows[at + n].id == rows[at].id + n && rows[at + n].verdict == rows[at].verdict &&
		   rows[at + n].xid == rows[at].xid &&
		   (rows[at].verdict == MQ_ROW_UNDECIDED || rows[at + n].block == rows[at].block))
		n++;
	return n;
}

/* Whether the row is what is looked for: of a chunk, only its own ids, and nothing that is for another group or an earlier epoch. */
static bool
is_wanted(const WalkJob *job, const MqRow *row, int32 group_no)
{
	if (row->only_for != 0 && (row->only_for != group_no || row->only_epoch != job->epoch))
		return false;
	return !job->is_chunk || mq_chunk_has(&job->chunk, row->id);
}

/* Rows that the job is not about are left out: for this group they are finished. */
static void
filter_rows(const WalkJob *job, Findings *found, int32 group_no)
{
	int			kept = 0;

	while (kept < found->count && is_wanted(job, &found->rows[kept], group_no))
		kept++;
	for (int i = kept + 1; i < found->count; i++)
		if (is_wanted(job, &found->rows[i], group_no))
			found->rows[kept++] = found->rows[i];
	found->count = Min(kept, found->count);
}

/* Upper bound of the cells that applying takes. */
static int
cells_needed(const Findings *found)
{
	int			cells = 0;

	for (int at = 0; at < found->count; at += stretch(found->rows, found->count, at))
		cells += found->rows[at].verdict == MQ_ROW_UNDECIDED ? 2 : 1;
	return cells;
}

/* Takes up to two cells. Attempts, failures and due time are those of what was read. */
static void
add_pending(MqWindow *window, const WalkJob *job, const MqRow *row, int64 n, uint32 file_tag, MqCellList *cells)
{
	MqChunk		range = {0};

	range.lo = row->id;
	range.hi = row->id + n - 1;
	range.block = row->block;
	range.file_tag = file_tag;
	range.attempts = job->attempts;
	range.failures = job->failures;
	range.unexplained = job->unexplained;
	range.due = job->due;
	mq_pending_add(window, row->xid, &range, cells);
}

/* Takes one cell. If somebody has written an id twice, and it is in the window already, nothing is added. */
static void
add_ready(MqWindow *window, const WalkJob *job, const MqRow *row, int64 n, MqCellList *cells)
{
	uint32		node = mq_cell_take(cells);

	MqNodeAt(node)->lo = row->id;
	MqNodeAt(node)->hi = row->id + n - 1;
	MqNodeAt(node)->block = row->block;
	MqNodeAt(node)->attempts = job->attempts;
	MqNodeAt(node)->failures = job->failures;
	MqNodeAt(node)->unexplained = job->unexplained;
	MqNodeAt(node)->due = job->due;
	MqNodeAt(node)->state = job->due == MQ_DUE_NEVER ? MQ_DEAD : MQ_READY;
	(void) mq_tree_insert(window, node);
	if (job->due > 0 && job->due != MQ_DUE_NEVER)
		mq_wake_note_time(window, job->due);
}

/* The UNREAD range begins behind what was read, or is no more. */
static void
advance_unread(MqWindow *window, const WalkJob *job, const Findings *found)
{
	uint32		node = mq_tree_seek(window, job->lo);
	MqNode	   *n = MqNodeAt(node);

	Assert(n->state == MQ_UNREAD && n->lo == job->lo);
	if (found->done > n->hi)
	{
		mq_tree_remove(window, node);
		return;
	}
	if (n->hi != PG_INT64_MAX)
		window->ids[MQ_UNREAD] -= found->done - n->lo;
	n->lo = found->done;
	n->block = found->block;
	n->file_tag = found->file_tag;
	mq_tree_refresh(window, node);
}

/* False: no memory. True also when another walker was first. */
static bool
apply(const MqWindowRef *ref, const WalkJob *job, const Findings *found)
{
	MqWindow   *window = ref->window;
	MqCellList	cells;
	bool		enough = mq_window_may_grow(window, 0, false) && mq_cells_reserve(&cells, cells_needed(found), false);

	if (!mq_window_lock(ref, LW_EXCLUSIVE))
	{
		if (enough)
			mq_cells_return(&cells);
		return false;
	}
	if (!enough)
		window->held_back++;
	else if (window->walk_seq == job->seq)
	{
		int			n;

		if (job->is_chunk)
			mq_rewalk_advance(window, found->done, found->block, found->file_tag);
		else
			advance_unread(window, job, found);
		for (int at = 0; at < found->count; at += n)
		{
			n = stretch(found->rows, found->count, at);
			if (found->rows[at].verdict == MQ_ROW_COMMITTED)
				add_ready(window, job, &found->rows[at], n, &cells);
			else
				add_pending(window, job, &found->rows[at], n, found->file_tag, &cells);
		}
		window->walk_seq++;
		window->changes++;
	}
	mq_window_unlock(ref);
	if (enough)
		mq_cells_return(&cells);
	return enough;
}

bool
mq_walk(const MqGroup *group, const MqWindowRef *ref, int want)
{
	WalkJob		job;
	Findings	found;
	bool		progress;

	if (mq_walk_settle(ref))
		return true;
	if (!pick_job(ref, &job))
		return false;
	CHECK_FOR_INTERRUPTS();
	if (!read_job(group, &job, want, &found))
		return false;
	MQ_STOP_POINT("walk_read");
	filter_rows(&job, &found, group->group_no);
	progress = apply(ref, &job, &found);
	if (found.allocated)
		pfree(found.rows);
	return progress;
}

void
mq_walk_to(const MqGroup *group, const MqWindowRef *ref, int64 id)
{
	MqWindowCounts counts;

	while (mq_walk_settle(ref) || ref->window->rewalk != 0 ||
		   (mq_window_counts(ref, &counts) && (counts.next_id <= id || counts.ids[MQ_UNREAD] > 0)))
	{
		CHECK_FOR_INTERRUPTS();
		if (!mq_walk(group, ref, PG_INT32_MAX))
			break;
	}
}
