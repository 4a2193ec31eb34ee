/*
 * replay.c: the offset log replayed into delivery windows.
 *
 * The newest committed checkpoint of a group says what was unfinished; of the acks, those with an n from its
 * replay_from on are subtracted. Rows of undecided transactions (prepared ones) leave settling marks.
 *
 * Keeps nothing: what was read is in the caller's memory context, and after a crash the next start reads it again. An error leaves
 * each window either filled or without entries. Locks: the caller holds SHARE UPDATE EXCLUSIVE on the first ring table, so there is
 * one pass at a time; the ring is locked against truncation (ACCESS SHARE, to the end of the transaction) before anything is read.
 * After that the spinlock of the database, then for each group the registry lock, the arena spinlock and its window lock, one after
 * the other.
 */
#include "postgres.h"

#include "offset/replay.h"

#include "miscadmin.h"
#include "utils/hsearch.h"

#include "base/definitions.h"
#include "base/settings.h"
#include "base/stop_point.h"
#include "offset/fill.h"
#include "offset/group_log.h"
#include "offset/offset_log.h"
#include "window/lease.h"
#include "window/prepared.h"
#include "window/window.h"

/* What one pass over the ring has collected. */
typedef struct Replay
{
	MqGroupLog *groups;			/* by number, until all is read */
	int			count;
	MqGroupLog *last;			/* rows of one group often follow each other */
	int64		max_n;
	bool		stopped;		/* the row with max_n says so */
	int64		max_group;		/* greatest number of a group in any row */
	int64		table_max[MQ_MAX_OFFSET_TABLES];
	HTAB	   *undecided;		/* of Undecided */
} Replay;

/* A transaction with rows that are neither committed nor aborted. */
typedef struct Undecided
{
	uint64		xid;
	int64		first_n;
} Undecided;

/* ---- reading ---- */

/* NULL: the row is of no group of this pass. */
static MqGroupLog *
log_of(Replay *replay, const MqOffsetRow *row)
{
	if (replay->last != NULL && replay->last->group->group_no == row->group_no)
		return replay->last;
	for (int lo = 0, hi = replay->count; lo < hi;)
	{
		int			middle = (lo + hi) / 2;
		int32		group_no = replay->groups[middle].group->group_no;

		if (group_no == row->group_no)
			return replay->last = &replay->groups[middle];
		if (group_no < row->group_no)
			lo = middle + 1;
		else
			hi = middle;
	}
	return NULL;
}

/* By xid. Goes with the current memory context, as all that a pass allocates. */
static HTAB *
make_undecided(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(Undecided);
	ctl.hcxt = CurrentMemoryContext;
	return hash_create("mq undecided", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Of each transaction the smallest n: from there on it holds back the ring. */
static void
note_undecided(Replay *replay, const MqOffsetRow *row)
{
	bool		found;
	Undecided  *undecided = hash_search(replay->undecided, &row->xid, HASH_ENTER, &found);

	undecided->first_n = found ? Min(undecided->first_n, row->n) : row->n;
}

/* What a row says of the ring counts, whatever group it is of; what it says of the group, only in the present epoch of that. */
static void
replay_row(const MqOffsetRow *row, void *arg)
{
	Replay	   *replay = arg;
	MqGroupLog *log = log_of(replay, row);

	if (row->n >= replay->max_n)
	{
		replay->max_n = row->n;
		replay->stopped = row->group_no == 0 && row->hi == 0;
	}
	replay->table_max[row->table] = Max(replay->table_max[row->table], row->n);
	replay->max_group = Max(replay->max_group, row->group_no);
	if (row->xid != 0 && !row->is_checkpoint && !row->is_hand_out)
		note_undecided(replay, row);
	if (log == NULL || log->group->epoch != row->epoch)
		return;
	mq_group_log_take(log, row);
}

/* After a crash: what look-ahead had passed may have been handed out; the next hand-out of it is none of a first time. */
static void
mark_passed(MqWindow *window, int64 next_id)
{
	uint32		node = mq_tree_seek(window, PG_INT64_MIN);

	for (; node != 0 && MqNodeAt(node)->lo < next_id; node = mq_tree_seek(window, MqNodeAt(node)->hi + 1))
		MqNodeAt(node)->attempts = Max(MqNodeAt(node)->attempts, 1);
	for (uint32 c = window->rewalk; c != 0 && MqChunkAt(c)->lo < next_id; c = MqChunkAt(c)->next)
		MqChunkAt(c)->attempts = Max(MqChunkAt(c)->attempts, 1);
}

/* ---- installing ---- */

/* Marks what of the ack's range is in the window; the worker settles it once the transaction is decided. Takes up to two cells. */
static void
mark_settling(MqWindow *window, const MqAck *ack, MqCellList *cells)
{
	int64		id = ack->lo;

	while (id <= ack->hi)
	{
		uint32		node = mq_tree_seek(window, id);

		if (node == 0 || MqNodeAt(node)->lo > ack->hi)
			break;
		node = mq_tree_cut(window, node, ack->lo, ack->hi, cells);
		id = MqNodeAt(node)->hi + 1;
		MqNodeAt(node)->owner = ack->xid;
		mq_tree_set_state(window, node, MQ_SETTLING);
	}
}

/* A hand-out after a crash that was followed by another crash: the message is under suspicion. */
static void
count_hand_out(MqWindow *window, const MqRange *range, MqCellList *cells)
{
	static const MqCause crashed = {MQ_FAILED_CRASH};
	int64		id = range->lo;

	while (id <= range->hi)
	{
		uint32		node = mq_tree_seek(window, id);

		if (node == 0 || MqNodeAt(node)->lo > range->hi)
			break;
		node = mq_tree_cut(window, node, range->lo, range->hi, cells);
		id = MqNodeAt(node)->hi + 1;
		if (mq_lease_count_failure(window, MqNodeAt(node), &crashed) && MqNodeAt(node)->state == MQ_UNREAD)
		{
			MqNodeAt(node)->due = MQ_DUE_NEVER;
			mq_tree_set_state(window, node, MQ_DEAD);
		}
		MqNodeAt(node)->attempts = Max(MqNodeAt(node)->attempts, MqNodeAt(node)->failures);
		mq_failure_note(window, MqNodeAt(node), MqNodeAt(node)->due, &crashed);
		window->failures_changed = true;
	}
}

/* ---- what does not fit ---- */

/* The group has a window without entries: others' messages, and its queue's senders, go on without it. */
static void
leave_out(const MqWindowRef *ref, const MqGroup *group, int64 cells, const MqUnfinished *parts, int64 count,
		  int64 oldest_needed)
{
	bool		news = false;

	/* what is not read yet is one part, so there is one */
	Assert(parts != NULL && count > 0);
	if (mq_window_lock(ref, LW_EXCLUSIVE))
	{
		MqWindow   *window = ref->window;

		if (window->root == 0)
		{
			news = window->left_out == 0;
			window->queue_no = group->queue.queue_no;
			window->epoch = group->epoch;
			window->left_out = cells;
			window->left_out_low = parts[0].lo;
			window->left_out_next_id = parts[count - 1].lo;
			window->held_back++;
			/* what it needs of the offset log stays there */
			pg_atomic_write_u64(&window->oldest_needed, oldest_needed);
		}
		mq_window_unlock(ref);
	}
	if (news)
		ereport(WARNING,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("consumer group \"%s\" of queue \"%s\" is left out, its unfinished messages do not fit into mq's shared memory",
						NameStr(group->name), NameStr(group->queue.name)),
				 errdetail("Entries needed: " INT64_FORMAT ".", cells),
				 errhint(MQ_MEMORY_HINT)));
}

/* The window's slot, made if there is none; NULL: all are taken. */
static MqWindow *
slot_if_there_is_room(const MqWindowKey *key)
{
	MqWindow   *window = mq_window_slot(key, false, NULL);

	return window != NULL || mq_windows_are_full() ? window : mq_window_slot(key, true, NULL);
}

/* Fills the window, unless another process was first, or there are not enough cells: the reserve is for what goes on. */
static void
fill_window(const MqGroup *group, const MqWindowRef *ref, MqGroupLog *log, const MqRetryPolicy *policy, bool after_crash)
{
	int64		ncommitted = mq_group_log_sort_acks(log);
	int64		count;
	MqUnfinished *parts = mq_group_log_unfinished(log, ncommitted, &count);
	int64		marks = log->nacks - ncommitted + log->nhand_outs;
	bool		may_pack = marks == 0;	/* marks are made on the tree */
	int64		needed = mq_fill(NULL, parts, count, may_pack, NULL) + 3 * marks;
	int64		oldest_needed = log->checkpoint_n > 0 ? Min(log->replay_from, log->checkpoint_n) : log->oldest_n;
	MqCellList	cells = {0};
	bool		fits = needed <= PG_INT32_MAX && mq_cells_reserve(&cells, (int) needed, false);

	if (!fits)
		leave_out(ref, group, needed, parts, count, oldest_needed);
	else if (mq_window_lock(ref, LW_EXCLUSIVE))
	{
		MqWindow   *window = ref->window;

		if (window->root == 0)
		{
			window->queue_no = group->queue.queue_no;
			window->epoch = group->epoch;
			window->retry = *policy;
			(void) mq_fill(window, parts, count, may_pack, &cells);
			if (after_crash && log->checkpoint_n > 0)
				mark_passed(window, log->next_id);
			for (int64 i = ncommitted; i < log->nacks; i++)
				mark_settling(window, &log->acks[i], &cells);
			for (int64 i = 0; i < log->nhand_outs && after_crash; i++)
				if (log->hand_outs[i].n > log->checkpoint_n)
					count_hand_out(window, &log->hand_outs[i].range, &cells);
			window->after_crash = after_crash;
			window->left_out = 0;
			pg_atomic_write_u64(&window->oldest_needed, oldest_needed);
			window->walk_seq++;
			window->changes++;
		}
		mq_window_unlock(ref);
	}
	mq_cells_return(&cells);
	if (parts != NULL)
		pfree(parts);
}

/* A group without a slot is left alone: as long as it has none, the offset log is not emptied (mq_all_attached). */
static void
install(MqGroup *group, MqGroupLog *log, bool after_crash)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {slot_if_there_is_room(&key), key};
	MqRetryPolicy policy;

	group->window = ref.window;
	if (ref.window == NULL)
		return;
	/* of a group that has just been dropped it does not matter */
	memset(&policy, 0, sizeof(policy));
	(void) mq_read_retry_policy(group->group_no, &policy);
	fill_window(group, &ref, log, &policy, after_crash);
}

void
mq_replay_nothing(MqGroup *group)
{
	MqGroupLog	empty = {group};

	install(group, &empty, false);
}

/* Prepared transactions that acked hold back the ring as if they were open. */
static void
remember_prepared(MqDatabase *db, const Replay *replay)
{
	MqCellList	cells;
	HASH_SEQ_STATUS all;
	const Undecided *undecided;

	mq_need_cells(&cells, hash_get_num_entries(replay->undecided), true);
	hash_seq_init(&all, replay->undecided);
	while ((undecided = hash_seq_search(&all)) != NULL)
	{
		uint32		cell = mq_cell_take(&cells);

		MqPreparedAt(cell)->xid = undecided->xid;
		MqPreparedAt(cell)->first_n = undecided->first_n;
		mq_prepared_add(db, cell);
	}
}

/* Others may be writing to the ring already, if this is the pass of a single group: no number goes back. */
static void
publish_ring(MqDatabase *db, const Replay *replay, int tables)
{
	int			current = 0;

	for (int i = 1; i < tables; i++)
		if (replay->table_max[i] > replay->table_max[current])
			current = i;
	SpinLockAcquire(&db->mutex);
	db->counter = Max(db->counter, replay->max_n);
	for (int i = 0; i < tables; i++)
		db->max_n[i] = Max(db->max_n[i], replay->table_max[i]);
	db->ring_count = Max(db->ring_count, tables);
	if (!db->rebuilt)
		db->ring_current = current;
	SpinLockRelease(&db->mutex);
}

static int
compare_numbers(const void *a, const void *b)
{
	int32		x = ((const MqGroupLog *) a)->group->group_no;
	int32		y = ((const MqGroupLog *) b)->group->group_no;

	return (x > y) - (x < y);
}

/* By the memory that they take at most: so what does not fit is what takes most. */
static int
compare_need(const void *a, const void *b)
{
	const MqGroupLog *x = a;
	const MqGroupLog *y = b;
	int64		need_x = x->nunfinished + x->nacks + x->nhand_outs;
	int64		need_y = y->nunfinished + y->nacks + y->nhand_outs;

	return (need_x > need_y) - (need_x < need_y);
}

int64
mq_replay_groups(MqDatabase *db, MqGroup *groups, int count, bool first)
{
	Replay		replay = {0};
	int			tables = mq_offset_log_lock();
	int			without_slot = 0;

	replay.groups = palloc0(Max(count, 1) * sizeof(MqGroupLog));
	replay.count = count;
	replay.undecided = make_undecided();
	for (int i = 0; i < count; i++)
		replay.groups[i].group = &groups[i];
	qsort(replay.groups, count, sizeof(MqGroupLog), compare_numbers);
	MQ_STOP_POINT("rebuild_before");
	mq_offset_log_scan(tables, replay_row, &replay);
	publish_ring(db, &replay, tables);
	(void) mq_database_last_group(db, replay.max_group);
	if (first)
		remember_prepared(db, &replay);
	qsort(replay.groups, count, sizeof(MqGroupLog), compare_need);
	for (int i = 0; i < count; i++)
	{
		/* it was a crash, unless the last row says stopped, or there is none: then mq is new here */
		install(replay.groups[i].group, &replay.groups[i], first && replay.max_n > 0 && !replay.stopped);
		without_slot += replay.groups[i].group->window == NULL;
	}
	if (without_slot > 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d consumer groups of this database cannot be used: there is room for %d in all databases",
						without_slot, mq_max_groups),
				 errhint("Raise mq.max_groups and restart the server, or drop what is not needed.")));
	return replay.max_group;
}
