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

#include "base/settings.h"
#include "base/stop_point.h"
#include "offset/fill.h"
#include "offset/offset_log.h"
#include "window/window.h"

/* Acks seen for one group; xid 0: committed. */
typedef struct Ack
{
	int64		n;
	int64		lo;
	int64		hi;
	uint64		xid;
} Ack;

/* A message that left the pop of a transaction: acks with a smaller n do not finish it. */
typedef struct Void
{
	int64		id;
	int64		n;
} Void;

typedef struct GroupLog
{
	MqGroup    *group;
	int64		checkpoint_n;	/* 0: none */
	int64		next_id;
	int64		replay_from;
	MqUnfinished *unfinished;	/* of the checkpoint */
	int64		nunfinished;
	int64		room_unfinished;
	Ack		   *acks;
	int64		nacks;
	int64		room_acks;
	Void	   *voids;
	int64		nvoids;
	int64		room_voids;
	MqRange    *hand_outs;		/* since the checkpoint */
	int64	   *hand_out_n;
	int64		nhand_outs;
	int64		room_hand_outs;
	int64		oldest_n;		/* smallest n of any row; 0: none */
} GroupLog;

typedef struct Replay
{
	GroupLog   *groups;			/* by number, until all is read */
	int			count;
	GroupLog   *last;			/* rows of one group often follow each other */
	int64		max_n;
	bool		stopped;		/* the row with max_n says so */
	int64		max_group;		/* greatest number of a group in any row */
	int64		table_max[MQ_MAX_OFFSET_TABLES];
	uint64	   *undecided;		/* xids of rows that are neither committed nor aborted, with their n */
	int64	   *undecided_n;
	int			nundecided;
} Replay;

/* ---- reading ---- */

static GroupLog *
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

static void
take_checkpoint(GroupLog *log, const MqOffsetRow *row)
{
	int64		n = row->nvalues / 4;

	if (row->xid != 0 || row->n < log->checkpoint_n)
		return;
	if (row->n > log->checkpoint_n)
		log->nunfinished = 0;
	log->checkpoint_n = row->n;
	log->next_id = row->hi;
	log->replay_from = row->replay_from;
	while (log->nunfinished + n > log->room_unfinished)
	{
		log->room_unfinished = Max(log->room_unfinished * 2, 64);
		log->unfinished = log->unfinished == NULL ? palloc(log->room_unfinished * sizeof(MqUnfinished))
			: repalloc_huge(log->unfinished, log->room_unfinished * sizeof(MqUnfinished));
	}
	if (n > 0)
		memcpy(log->unfinished + log->nunfinished, row->values, n * sizeof(MqUnfinished));
	log->nunfinished += n;
}

static void
take_ack(GroupLog *log, int64 n, int64 lo, int64 hi, uint64 xid)
{
	if (log->nacks == log->room_acks)
	{
		log->room_acks = Max(log->room_acks * 2, 64);
		log->acks = log->acks == NULL ? palloc(log->room_acks * sizeof(Ack))
			: repalloc_huge(log->acks, log->room_acks * sizeof(Ack));
	}
	log->acks[log->nacks++] = (Ack) {n, lo, hi, xid};
}

static void
take_void(GroupLog *log, int64 n, int64 lo, int64 hi)
{
	for (int64 id = lo; id <= hi; id++)
	{
		if (log->nvoids == log->room_voids)
		{
			log->room_voids = Max(log->room_voids * 2, 64);
			log->voids = log->voids == NULL ? palloc(log->room_voids * sizeof(Void))
				: repalloc_huge(log->voids, log->room_voids * sizeof(Void));
		}
		log->voids[log->nvoids++] = (Void) {id, n};
	}
}

static void
take_hand_out(GroupLog *log, int64 n, int64 lo, int64 hi)
{
	if (log->nhand_outs == log->room_hand_outs)
	{
		log->room_hand_outs = Max(log->room_hand_outs * 2, 64);
		log->hand_outs = log->hand_outs == NULL ? palloc(log->room_hand_outs * sizeof(MqRange))
			: repalloc_huge(log->hand_outs, log->room_hand_outs * sizeof(MqRange));
		log->hand_out_n = log->hand_out_n == NULL ? palloc(log->room_hand_outs * sizeof(int64))
			: repalloc_huge(log->hand_out_n, log->room_hand_outs * sizeof(int64));
	}
	log->hand_out_n[log->nhand_outs] = n;
	log->hand_outs[log->nhand_outs++] = (MqRange) {lo, hi};
}

static void
note_undecided(Replay *replay, const MqOffsetRow *row)
{
	/* rows of one transaction are often neighbours */
	for (int i = replay->nundecided - 1; i >= 0; i--)
	{
		if (replay->undecided[i] == row->xid)
		{
			replay->undecided_n[i] = Min(replay->undecided_n[i], row->n);
			return;
		}
	}
	/* grow by powers of two */
	if ((replay->nundecided & (replay->nundecided - 1)) == 0)
	{
		int			room = Max(replay->nundecided * 2, 1);

		replay->undecided = replay->undecided ? repalloc(replay->undecided, room * sizeof(uint64)) : palloc(room * sizeof(uint64));
		replay->undecided_n = replay->undecided_n ? repalloc(replay->undecided_n, room * sizeof(int64)) : palloc(room * sizeof(int64));
	}
	replay->undecided[replay->nundecided] = row->xid;
	replay->undecided_n[replay->nundecided++] = row->n;
}

static void
take_range(GroupLog *log, const MqOffsetRow *row, int64 lo, int64 hi)
{
	if (row->is_hand_out)
		take_hand_out(log, row->n, lo, hi);
	else if (row->is_void)
		take_void(log, row->n, lo, hi);
	else
		take_ack(log, row->n, lo, hi, row->xid);
}

static void
replay_row(const MqOffsetRow *row, void *arg)
{
	Replay	   *replay = arg;
	GroupLog   *log = log_of(replay, row);

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
	if (log->oldest_n == 0 || row->n < log->oldest_n)
		log->oldest_n = row->n;
	if (row->is_checkpoint)
		take_checkpoint(log, row);
	else if (row->nvalues == 0)
		take_range(log, row, row->lo, row->hi);
	else
		for (int i = 0; i < row->nvalues; i += 2)
			take_range(log, row, row->values[i], row->values[i + 1]);
}

/* ---- what is unfinished ---- */

static int
compare_acks(const void *a, const void *b)
{
	int64		x = ((const Ack *) a)->lo;
	int64		y = ((const Ack *) b)->lo;

	return (x > y) - (x < y);
}

static int
compare_voids(const void *a, const void *b)
{
	int64		x = ((const Void *) a)->id;
	int64		y = ((const Void *) b)->id;

	return (x > y) - (x < y);
}

/* The first void for this id or a greater one. */
static int64
first_void(const GroupLog *log, int64 id)
{
	int64		lo = 0;
	int64		hi = log->nvoids;

	while (lo < hi)
	{
		int64		middle = lo + (hi - lo) / 2;

		if (log->voids[middle].id < id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo;
}

/* Cuts out of the acks what was void later; an ack may be left with nothing. */
static void
apply_voids(GroupLog *log)
{
	int64		count = log->nvoids == 0 ? 0 : log->nacks;

	if (log->nvoids > 1)
		qsort(log->voids, log->nvoids, sizeof(Void), compare_voids);
	for (int64 i = 0; i < count; i++)
	{
		Ack			ack = log->acks[i];

		for (int64 v = first_void(log, ack.lo); v < log->nvoids && log->voids[v].id <= ack.hi; v++)
		{
			if (log->voids[v].n < ack.n || log->voids[v].id < ack.lo)
				continue;
			if (ack.lo < log->voids[v].id)
				take_ack(log, ack.n, ack.lo, log->voids[v].id - 1, ack.xid);
			ack.lo = log->voids[v].id + 1;
		}
		log->acks[i] = ack;
	}
}

/* The committed acks that count, ascending; and behind them, from *ncommitted on, the undecided ones. */
static int64
sort_acks(GroupLog *log)
{
	int64		kept = 0;
	int64		committed = 0;

	apply_voids(log);
	for (int64 i = 0; i < log->nacks; i++)
		if (log->acks[i].n >= log->replay_from && log->acks[i].lo <= log->acks[i].hi)
			log->acks[kept++] = log->acks[i];
	log->nacks = kept;
	for (int64 i = 0; i < kept; i++)
	{
		if (log->acks[i].xid == 0)
		{
			Ack			swap = log->acks[committed];

			log->acks[committed++] = log->acks[i];
			log->acks[i] = swap;
		}
	}
	if (committed > 0)
		qsort(log->acks, committed, sizeof(Ack), compare_acks);
	return committed;
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

static void
add_part(MqUnfinished **parts, int64 *count, int64 *room, const MqUnfinished *from, int64 lo, int64 hi)
{
	if (lo > hi)
		return;
	if (*count == *room)
	{
		*room = Max(*room * 2, 64);
		*parts = *parts == NULL ? palloc(*room * sizeof(MqUnfinished)) : repalloc_huge(*parts, *room * sizeof(MqUnfinished));
	}
	(*parts)[*count] = *from;
	(*parts)[*count].lo = lo;
	(*parts)[(*count)++].hi = hi;
}

/* The checkpoint's ranges and the endless rest, less the committed acks. */
static MqUnfinished *
subtract_acks(GroupLog *log, int64 ncommitted, int64 *count)
{
	MqUnfinished *parts = NULL;
	int64		room = 0;
	int64		a = 0;
	int64		end = 0;
	MqUnfinished rest = {log->checkpoint_n > 0 ? log->next_id : log->group->start_id, PG_INT64_MAX, 0, 0};

	*count = 0;
	/* the rows of a checkpoint need not have come in the order they were written */
	if (log->nunfinished > 1)
		qsort(log->unfinished, log->nunfinished, sizeof(MqUnfinished), mq_unfinished_compare);
	for (int64 i = 0; i <= log->nunfinished; i++)
	{
		const MqUnfinished *range = i < log->nunfinished ? &log->unfinished[i] : &rest;
		/* a log that somebody has changed may say things twice; the window must not */
		int64		lo = Max(range->lo, end);

		end = range->hi < PG_INT64_MAX ? Max(end, range->hi + 1) : end;
		while (a < ncommitted && log->acks[a].hi < lo)
			a++;
		for (int64 b = a; b < ncommitted && log->acks[b].lo <= range->hi; b++)
		{
			add_part(&parts, count, &room, range, lo, Min(range->hi, log->acks[b].lo - 1));
			lo = Max(lo, log->acks[b].hi + 1);
		}
		add_part(&parts, count, &room, range, lo, range->hi);
	}
	return parts;
}

/* ---- installing ---- */

static void
mark_settling(MqWindow *window, const Ack *ack, MqCellList *cells)
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
	int64		id = range->lo;

	while (id <= range->hi)
	{
		uint32		node = mq_tree_seek(window, id);

		if (node == 0 || MqNodeAt(node)->lo > range->hi)
			break;
		node = mq_tree_cut(window, node, range->lo, range->hi, cells);
		id = MqNodeAt(node)->hi + 1;
		if (MqNodeAt(node)->failures < PG_UINT16_MAX)
			MqNodeAt(node)->failures++;
		MqNodeAt(node)->attempts = Max(MqNodeAt(node)->attempts, MqNodeAt(node)->failures);
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
fill_window(const MqGroup *group, const MqWindowRef *ref, GroupLog *log, bool after_crash)
{
	int64		ncommitted = sort_acks(log);
	int64		count;
	MqUnfinished *parts = subtract_acks(log, ncommitted, &count);
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
			(void) mq_fill(window, parts, count, may_pack, &cells);
			if (after_crash && log->checkpoint_n > 0)
				mark_passed(window, log->next_id);
			for (int64 i = ncommitted; i < log->nacks; i++)
				mark_settling(window, &log->acks[i], &cells);
			for (int64 i = 0; i < log->nhand_outs && after_crash; i++)
				if (log->hand_out_n[i] > log->checkpoint_n)
					count_hand_out(window, &log->hand_outs[i], &cells);
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
install(MqGroup *group, GroupLog *log, bool after_crash)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {slot_if_there_is_room(&key), key};

	group->window = ref.window;
	if (ref.window != NULL)
		fill_window(group, &ref, log, after_crash);
}

void
mq_replay_nothing(MqGroup *group)
{
	GroupLog	empty = {group};

	install(group, &empty, false);
}

/* Prepared transactions that acked hold back the ring as if they were open. */
static void
remember_prepared(MqDatabase *db, const Replay *replay)
{
	MqCellList	cells;

	mq_need_cells(&cells, replay->nundecided);
	for (int i = 0; i < replay->nundecided; i++)
	{
		uint32		cell = mq_cell_take(&cells);

		MqPreparedAt(cell)->xid = replay->undecided[i];
		MqPreparedAt(cell)->first_n = replay->undecided_n[i];
		SpinLockAcquire(&db->mutex);
		MqPreparedAt(cell)->next = db->prepared;
		db->prepared = cell;
		SpinLockRelease(&db->mutex);
	}
}

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
	int32		x = ((const GroupLog *) a)->group->group_no;
	int32		y = ((const GroupLog *) b)->group->group_no;

	return (x > y) - (x < y);
}

/* By the memory that they take at most: so what does not fit is what takes most. */
static int
compare_need(const void *a, const void *b)
{
	const GroupLog *x = a;
	const GroupLog *y = b;
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

	replay.groups = palloc0(Max(count, 1) * sizeof(GroupLog));
	replay.count = count;
	for (int i = 0; i < count; i++)
		replay.groups[i].group = &groups[i];
	qsort(replay.groups, count, sizeof(GroupLog), compare_numbers);
	MQ_STOP_POINT("rebuild_before");
	mq_offset_log_scan(tables, replay_row, &replay);
	publish_ring(db, &replay, tables);
	(void) mq_database_last_group(db, replay.max_group);
	if (first)
		remember_prepared(db, &replay);
	qsort(replay.groups, count, sizeof(GroupLog), compare_need);
	for (int i = 0; i < count; i++)
	{
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
