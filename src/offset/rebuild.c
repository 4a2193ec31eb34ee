/*
 * rebuild.c: making a queue's shared state when it is first used: delivery windows from the offset log.
 *
 * One pass over the ring builds the windows of all groups of the database that were last used in it, once after each
 * start of the server. Groups made since (with greater numbers) have no rows there and begin empty. A queue that came from elsewhere
 * (restore, template copy) is built by a pass of its own at its first use.
 *
 * Replay: the newest committed checkpoint of a group says what was unfinished; of the acks, those with an n from its
 * replay_from on are subtracted. Rows of undecided transactions (prepared ones) leave settling marks. The pass is
 * serialised by SHARE UPDATE EXCLUSIVE on the first ring table, and the ring is locked against truncation before
 * anything is read.
 */
#include "postgres.h"

#include "offset/rebuild.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"

#include "base/settings.h"
#include "base/stop_point.h"
#include "log/log.h"
#include "log/segment.h"
#include "offset/fill.h"
#include "offset/offset_log.h"

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

#define MEMORY_HINT "Raise mq.shared_memory and restart the server; mq.purge, mq.seek and mq.drop_group give the messages up."

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
				 errhint(MEMORY_HINT)));
}

/* Of a window without entries: how many it takes; 0: it was not left out. */
static int64
left_out(const MqWindowRef *ref)
{
	int64		cells;

	if (ref->window == NULL || !mq_window_lock(ref, LW_SHARED))
		return 0;
	cells = ref->window->root == 0 ? ref->window->left_out : 0;
	mq_window_unlock(ref);
	return cells;
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

/* One pass over the ring for these groups; the greatest number of a group in it. */
static int64
replay_groups(MqDatabase *db, MqGroup *groups, int count, bool first)
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

static bool
is_rebuilt(MqDatabase *db)
{
	bool		rebuilt;

	SpinLockAcquire(&db->mutex);
	rebuilt = db->rebuilt;
	SpinLockRelease(&db->mutex);
	return rebuilt;
}

/* Everything palloc'd goes with the context: a replay may hold all unfinished messages twice. */
static MemoryContext
begin_rebuild(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mq rebuild", ALLOCSET_DEFAULT_SIZES);

	LockRelationOid(mq_offset_log_table(0), ShareUpdateExclusiveLock);
	return MemoryContextSwitchTo(context);
}

static void
end_rebuild(MemoryContext old)
{
	MemoryContext context = MemoryContextSwitchTo(old);

	UnlockRelationOid(mq_offset_log_table(0), ShareUpdateExclusiveLock);
	MemoryContextDelete(context);
}

void
mq_attach_database(MqDatabase *db)
{
	MemoryContext old;

	if (db->rebuilt)
		return;
	old = begin_rebuild();
	if (!is_rebuilt(db))
	{
		int			count;
		int64		known = mq_catalog_last_group();
		MqGroup    *groups = mq_groups_all(&count);
		int			native = 0;

		for (int i = 0; i < count; i++)
		{
			known = Max(known, groups[i].group_no);
			if (!groups[i].queue.foreign)
				groups[native++] = groups[i];
		}
		known = Max(known, replay_groups(db, groups, native, true));
		SpinLockAcquire(&db->mutex);
		db->known_groups = known;
		db->rebuilt = true;
		SpinLockRelease(&db->mutex);
	}
	end_rebuild(old);
}

static bool
window_is_filled(const MqWindowRef *ref)
{
	bool		filled;

	if (ref->window == NULL || !mq_window_lock(ref, LW_SHARED))
		return false;
	filled = ref->window->root != 0;
	mq_window_unlock(ref);
	return filled;
}

/* False: it does not fit; that costs no replay as long as there is not more memory. */
static bool
attach_window(MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, false, NULL), key};
	int64		needed = left_out(&ref);
	MemoryContext old;

	group->window = ref.window;
	if (window_is_filled(&ref))
		return true;
	if (ref.window == NULL && mq_windows_are_full())
		return false;
	if (needed > 0 && needed + mq_shared->total_cells / MQ_RESERVE_PART > mq_shared->free_cells)
		return false;
	old = begin_rebuild();
	/* one that the rebuild could not see may have rows too: its transaction was prepared, or somebody was dropping it */
	if (group->queue.foreign || group->group_no <= group->queue.db->known_groups)
		(void) replay_groups(group->queue.db, group, 1, false);
	else
	{
		GroupLog	empty = {group};

		install(group, &empty, false);
	}
	end_rebuild(old);
	ref.window = group->window;
	return ref.window != NULL && left_out(&ref) == 0;
}

void
mq_attach_new_group(MqGroup *group, const MqUnfinished *parts, int64 count, int64 oldest_needed)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, true, NULL), key};
	MqCellList	cells;

	mq_need_cells(&cells, mq_fill(NULL, parts, count, true, NULL));
	if (mq_window_lock(&ref, LW_EXCLUSIVE))
	{
		ref.window->queue_no = group->queue.queue_no;
		ref.window->epoch = group->epoch;
		(void) mq_fill(ref.window, parts, count, true, &cells);
		pg_atomic_write_u64(&ref.window->oldest_needed, oldest_needed);
		ref.window->changes++;
		mq_window_unlock(&ref);
	}
	mq_cells_return(&cells);
	group->window = ref.window;
	mq_catalog_remember(group);
}

/* The append position begins above whatever a group has seen. */
static int64
groups_next_id(const MqQueue *queue)
{
	int			count;
	MqGroup    *groups = mq_groups_of(queue, &count);
	int64		next = 0;

	for (int i = 0; i < count; i++)
	{
		MqWindowCounts counts;
		MqWindowRef ref;

		(void) attach_window(&groups[i]);
		ref = (MqWindowRef) {groups[i].window, mq_window_key(&groups[i], 0)};
		if (ref.window != NULL && mq_window_counts(&ref, &counts))
			next = Max(next, counts.next_id);
	}
	pfree(groups);
	return next;
}

/* Looked at without a lock: a key never changes while the queue exists, and ready stays true. */
static bool
chain_is_attached(const MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	return queue->chain != NULL && memcmp(&queue->chain->key, &key, sizeof(key)) == 0 && queue->chain->ready;
}

bool
mq_queue_is_attached(MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	queue->chain = mq_chain_slot(&key, false, NULL);
	return queue->db->rebuilt && chain_is_attached(queue);
}

/* What groups have finished was in another table; the worker lets them begin anew (job_adopt.c). */
static void
refuse_replaced(const MqQueue *queue)
{
	mq_worker_wake(queue->db);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the table of queue \"%s\" was replaced by another one", NameStr(queue->name)),
			 errhint("Try again in a second: the worker of mq takes the table over, and the groups begin at its start.")));
}

void
mq_attach_queue(MqQueue *queue)
{
	mq_attach_database(queue->db);
	if (chain_is_attached(queue))
		return;
	if (queue->replaced)
		refuse_replaced(queue);
	/* all groups are asked how far they have come, but only once after a start */
	if (!mq_queue_is_attached(queue))
		mq_log_attach(queue, 0, groups_next_id(queue));
	mq_catalog_remember_chain(queue);
}

/* Attaching reads segments: somebody may be rewriting or dropping one, or keep it locked. */
bool
mq_attach_queue_at_once(MqQueue *queue)
{
	MqSegmentInfo *list;
	int			count;
	int			locked = 0;
	bool		all;

	/* before there is a lock on a segment */
	mq_attach_database(queue->db);
	if (mq_queue_is_attached(queue))
		return true;
	list = mq_segment_list(queue, &count);
	while (locked < count && (!OidIsValid(list[locked].relid) || ConditionalLockRelationOid(list[locked].relid, AccessShareLock)))
		locked++;
	all = locked == count;
	if (all)
		mq_attach_queue(queue);
	while (--locked >= 0)
		if (OidIsValid(list[locked].relid))
			UnlockRelationOid(list[locked].relid, AccessShareLock);
	pfree(list);
	return all;
}

bool
mq_attach_group_if_it_fits(MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);

	mq_attach_queue(&group->queue);
	if (group->window != NULL && memcmp(&group->window->key, &key, sizeof(key)) == 0 && group->window->left_out == 0)
		return true;
	if (!attach_window(group))
		return false;
	mq_catalog_remember(group);
	return true;
}

void
mq_attach_group(MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);

	if (mq_attach_group_if_it_fits(group))
		return;
	/* says so when all slots are taken */
	if (group->window == NULL)
	{
		(void) mq_window_slot(&key, true, NULL);
		if (mq_attach_group_if_it_fits(group))
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("the unfinished messages of consumer group \"%s\" of queue \"%s\" do not fit into mq's shared memory",
					NameStr(group->name), NameStr(group->queue.name)),
			 errdetail("Entries needed: " INT64_FORMAT ".", group->window == NULL ? 0 : group->window->left_out),
			 errhint(MEMORY_HINT)));
}

static bool
needs_window(const MqDatabase *db, const MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, false, NULL), key};

	return !group->queue.foreign && group->group_no <= db->known_groups && !window_is_filled(&ref) && left_out(&ref) == 0;
}

/* Where all slots are taken nothing is tried: that would take one for the queue all the same, or raise an error. */
static bool
can_have_window(const MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqChainKey	chain = mq_chain_key(&group->queue, 0);

	return !group->queue.replaced && (mq_window_slot(&key, false, NULL) != NULL || !mq_windows_are_full()) &&
		(mq_chain_slot(&chain, false, NULL) != NULL || !mq_chains_are_full());
}

bool
mq_all_attached(MqDatabase *db)
{
	int			count;
	MqGroup    *groups = mq_groups_all(&count);

	for (int i = 0; i < count; i++)
		if (needs_window(db, &groups[i]))
			return false;
	return true;
}

bool
mq_attach_missing(MqDatabase *db, MqGroup *groups, int count)
{
	bool		all = true;

	for (int i = 0; i < count; i++)
		if (needs_window(db, &groups[i]))
			all &= can_have_window(&groups[i]) && mq_attach_queue_at_once(&groups[i].queue) &&
				mq_attach_group_if_it_fits(&groups[i]);
	return all;
}

static bool
is_of(const MqDatabaseKey *key, Oid database, Oid extension)
{
	return key->database == database && (extension == InvalidOid || key->extension == extension);
}

void
mq_forget_database(Oid database, Oid extension)
{
	for (int i = 0; i < mq_max_groups; i++)
	{
		MqWindowKey key = mq_windows[i].key;

		if (key.level >= 0 && is_of(&key.db, database, extension))
			mq_window_forget(&key);
	}
	for (int i = 0; i < mq_max_queues; i++)
	{
		MqChainKey	key = mq_chains[i].key;

		if (key.level >= 0 && is_of(&key.db, database, extension))
			mq_chain_forget(&key);
	}
	for (int i = 0; i < MQ_MAX_DATABASES; i++)
		if (is_of(&mq_databases[i].key, database, extension))
			mq_database_forget(&mq_databases[i]);
}
