/*
 * dedup.c: ids that senders give to messages so that none is sent twice. See dedup.h.
 *
 * Owns mq_internal.dedup_*: rows of (id, counted_from, queue_no, dedup_id), with an index on (queue_no, dedup_id, id, counted_from). An id
 * that is freed has a row more, whose counted_from is infinity. Ids of messages ascend, so the last row in the order of the index is the
 * newest; it is judged as it is, not by a snapshot: none fails for what is newer than its own.
 *
 * Locks: from the look to the insert, a lock on a part of the queue's ids, by their hash; at most PARTS of them in a call, ascending. None is
 * held while a transaction is waited for, so two batches with the same ids never wait for each other. The table that a row goes to is
 * locked ROW EXCLUSIVE to the end of the transaction, so one that nobody has locked (the worker's ACCESS EXCLUSIVE, before it empties
 * one) has no undecided row. The others are ACCESS SHARE for the look only: what is found there is needed, and is not emptied. A crash
 * leaves what was committed.
 */
#include "postgres.h"

#include "log/dedup.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/subtrans.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/owner.h"
#include "base/stop_point.h"
#include "log/own_table.h"
#include "log/page.h"

/* Columns, by number. */
enum
{
	D_ID = 1, D_COUNTED_FROM, D_QUEUE_NO, D_DEDUP_ID, D_COLUMNS = D_DEDUP_ID
};

#define FREED			DT_NOEND	/* as counted_from */
#define PARTS			64
#define TABLES_PER_TIER	3			/* of a tier: that of the period now, the next one, and one that is being emptied */
#define LATER			(MQ_DEDUP_TABLES - 1)
#define PREPARED_WAIT	(5 * USECS_PER_SEC)
#define PREPARED_LOOK_MS 20

static const char *const table_names[MQ_DEDUP_TABLES] = {
	"dedup_hour_0", "dedup_hour_1", "dedup_hour_2", "dedup_day_0", "dedup_day_1", "dedup_day_2",
	"dedup_month_0", "dedup_month_1", "dedup_month_2", "dedup_later"
};

static const int64 periods[] = {USECS_PER_HOUR, USECS_PER_DAY, 30 * USECS_PER_DAY};

static const Oid column_types[D_COLUMNS] = {INT8OID, TIMESTAMPTZOID, INT4OID, TEXTOID};

/* One table in a call, for a look, or to insert. */
typedef struct DedupTable
{
	Relation	rel;			/* NULL: not open, or without a page */
	Relation	index;
	IndexScanDesc scan;
	SnapshotData dirty;			/* tells, of each row, who is undecided */
	TupleTableSlot *slot;
	CatalogIndexState indexes;	/* to insert */
} DedupTable;

struct MqDedup
{
	const MqQueue *queue;
	uint64		parts;			/* a bit for each part of the queue's ids that is locked, or is to be */
	DedupTable	to_insert[MQ_DEDUP_TABLES];
};

/* A row that was found. */
typedef struct DedupRow
{
	int64		id;				/* 0: none */
	TimestampTz from;
	TransactionId undecided;	/* who has inserted it; InvalidTransactionId: committed, or our own */
} DedupRow;

/* ---- tables ---- */

Oid
mq_dedup_table(int table)
{
	return get_relname_relid(table_names[table], mq_extension(false)->internal);
}

static Relation
open_table(int table, LOCKMODE mode)
{
	return mq_own_table_open(mq_dedup_table(table), mode, column_types, D_COLUMNS);
}

/* By when the window ends: into the tier whose periods are no shorter than what is left of it. */
static int
table_for(TimestampTz until, TimestampTz now)
{
	for (int tier = 0; tier < lengthof(periods); tier++)
		if (until <= now + periods[tier])
			return tier * TABLES_PER_TIER + (int) (Max(until, now) / periods[tier] % TABLES_PER_TIER);
	return LATER;
}

bool
mq_dedup_table_is_in_use(int table, TimestampTz now)
{
	int64		period = now / periods[Min(table, LATER - 1) / TABLES_PER_TIER];

	return table != LATER && (table % TABLES_PER_TIER == period % TABLES_PER_TIER || table % TABLES_PER_TIER == (period + 1) % TABLES_PER_TIER);
}

/* When the window ends. The queue's may have been changed since the row was written. */
static TimestampTz
end_of_window(const MqQueue *queue, TimestampTz from)
{
	return queue->dedup_us == 0 ? DT_NOEND : from + queue->dedup_us;
}

/* ---- looking ---- */

/* Rows are looked for by a queue, an id, and the message, as far as keys are given. False: the table has no page. */
static bool
begin_look(DedupTable *t, int table, LOCKMODE mode, Snapshot snapshot, int keys)
{
	t->rel = open_table(table, mode);
	if (RelationGetNumberOfBlocks(t->rel) == 0)
	{
		relation_close(t->rel, mode == AccessShareLock ? mode : NoLock);
		t->rel = NULL;
		return false;
	}
	t->index = mq_own_index_open(t->rel, "id");
	t->slot = table_slot_create(t->rel, NULL);
	t->scan = MqIndexBeginScan(t->rel, t->index, snapshot, keys);
	return true;
}

static void
end_look(DedupTable *t, LOCKMODE mode)
{
	LOCKMODE	unlock = mode == AccessShareLock ? mode : NoLock;

	if (t->rel == NULL)
		return;
	index_endscan(t->scan);
	ExecDropSingleTupleTableSlot(t->slot);
	index_close(t->index, AccessShareLock);
	relation_close(t->rel, unlock);
	t->rel = NULL;
}

static void
look_for(const DedupTable *t, int32 queue_no, text *dedup_id, int64 message, int nkeys)
{
	ScanKeyData keys[3];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_no));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(dedup_id));
	ScanKeyInit(&keys[2], 3, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(message));
	index_rescan(t->scan, keys, nkeys, NULL, 0);
}

static DedupRow
row_of(const DedupTable *t)
{
	bool		isnull;

	return (DedupRow) {
		DatumGetInt64(slot_getattr(t->slot, D_ID, &isnull)), DatumGetTimestampTz(slot_getattr(t->slot, D_COUNTED_FROM, &isnull)),
		InvalidTransactionId
	};
}

static bool
is_newer(const DedupRow *a, const DedupRow *b)
{
	return a->id != b->id ? a->id > b->id : a->from > b->from;
}

/* The newest row of an id, also one that is undecided. */
static DedupRow
newest_row(DedupTable *tables, int32 queue_no, text *dedup_id)
{
	DedupRow	newest = {0};

	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
	{
		DedupRow	row;

		if (tables[i].rel == NULL)
			continue;
		look_for(&tables[i], queue_no, dedup_id, 0, 2);
		if (!index_getnext_slot(tables[i].scan, BackwardScanDirection, tables[i].slot))
			continue;
		row = row_of(&tables[i]);
		row.undecided = tables[i].dirty.xmin;
		if (is_newer(&row, &newest))
			newest = row;
	}
	return newest;
}

/* The message that has the id by this row; 0: none. */
static int64
holder(const MqQueue *queue, const DedupRow *row, TimestampTz now)
{
	return row->id != 0 && row->from != FREED && end_of_window(queue, row->from) > now ? row->id : 0;
}

/* Looks all of them up; stops at one that is undecided, and returns by whom. */
static TransactionId
look_up(const MqQueue *queue, MqDedupId **sorted, int count)
{
	DedupTable	tables[MQ_DEDUP_TABLES] = {0};
	TimestampTz now = GetCurrentTimestamp();
	TransactionId undecided = InvalidTransactionId;

	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
	{
		InitDirtySnapshot(tables[i].dirty);
		(void) begin_look(&tables[i], i, AccessShareLock, &tables[i].dirty, 2);
	}
	for (int i = 0; i < count && !TransactionIdIsValid(undecided); i++)
	{
		DedupRow	row;

		CHECK_FOR_INTERRUPTS();
		row = newest_row(tables, queue->queue_no, sorted[i]->dedup_id);
		undecided = row.undecided;
		sorted[i]->first = holder(queue, &row, now);
	}
	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
		end_look(&tables[i], AccessShareLock);
	return undecided;
}

/* ---- waiting ---- */

/* A prepared transaction has no process. One that has just ended is taken for one, and then found to be over. */
static bool
is_prepared(TransactionId top)
{
	return BackendXidGetPid(top) == 0;
}

/* Nobody knows how long that takes. */
static void
wait_for_prepared(const MqQueue *queue, TransactionId top)
{
	TimestampTz give_up = GetCurrentTimestamp() + PREPARED_WAIT;

	while (TransactionIdIsInProgress(top))
	{
		CHECK_FOR_INTERRUPTS();
		if (GetCurrentTimestamp() >= give_up)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("a prepared transaction has a deduplication id of queue \"%s\"", NameStr(queue->name)),
					 errdetail("It is transaction %u, and has sent a message with this id, or freed it.", top),
					 errhint("End it by COMMIT PREPARED or ROLLBACK PREPARED (pg_prepared_xacts), and send again.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, PREPARED_LOOK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

static void
wait_for(const MqQueue *queue, TransactionId xid)
{
	TransactionId top;

	if (!TransactionIdIsInProgress(xid))
		return;
	top = SubTransGetTopmostTransaction(xid);
	/* a savepoint may be rolled back before its transaction ends */
	if (is_prepared(top))
		wait_for_prepared(queue, top);
	else
		XactLockTableWait(xid, NULL, NULL, XLTW_None);
}

/* ---- parts of a queue's ids ---- */

/* An object of nobody else's: that of the queue, as mq_schedule_lock, with a number below it. */
static LOCKTAG
part_tag(const MqQueue *queue, int part)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, mq_extension(false)->queue_rel, (Oid) queue->queue_no, (uint16) (part + 1));
	return tag;
}

static int
part_of(text *dedup_id)
{
	return (int) (hash_bytes((const unsigned char *) VARDATA_ANY(dedup_id), VARSIZE_ANY_EXHDR(dedup_id)) % PARTS);
}

static void
lock_parts(const MqDedup *dedup)
{
	for (int part = 0; part < PARTS; part++)
		if ((dedup->parts & (UINT64CONST(1) << part)) != 0)
		{
			LOCKTAG		tag = part_tag(dedup->queue, part);

			(void) LockAcquire(&tag, ExclusiveLock, false, false);
		}
}

static void
unlock_parts(const MqDedup *dedup)
{
	for (int part = 0; part < PARTS; part++)
		if ((dedup->parts & (UINT64CONST(1) << part)) != 0)
		{
			LOCKTAG		tag = part_tag(dedup->queue, part);

			(void) LockRelease(&tag, ExclusiveLock, false);
		}
}

/* ---- sending ---- */

static int
compare_texts(text *a, text *b)
{
	int			na = (int) VARSIZE_ANY_EXHDR(a);
	int			nb = (int) VARSIZE_ANY_EXHDR(b);
	int			c = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(na, nb));

	return c != 0 ? c : na - nb;
}

/* By id, and then by place. */
static int
compare_ids(const void *a, const void *b)
{
	const MqDedupId *x = *(MqDedupId *const *) a;
	const MqDedupId *y = *(MqDedupId *const *) b;
	int			c = compare_texts(x->dedup_id, y->dedup_id);

	return c != 0 ? c : (x > y) - (x < y);
}

/* Each id once, in order; tells the others which one they repeat. */
static MqDedupId **
sort_ids(MqDedupId *ids, int count, int *different)
{
	MqDedupId **sorted = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(MqDedupId *));
	int			n = 0;

	for (int i = 0; i < count; i++)
		sorted[i] = &ids[i];
	qsort(sorted, count, sizeof(MqDedupId *), compare_ids);
	for (int i = 0; i < count; i++)
	{
		if (n == 0 || compare_texts(sorted[n - 1]->dedup_id, sorted[i]->dedup_id) != 0)
			sorted[n++] = sorted[i];
		sorted[i]->first = 0;
		ids[sorted[i] - ids].same_as = (int) (sorted[n - 1] - ids);
	}
	*different = n;
	return sorted;
}

MqDedup *
mq_dedup_claim(const MqQueue *queue, MqDedupId *ids, int count)
{
	MqDedup    *dedup = palloc0(sizeof(MqDedup));
	TransactionId undecided;
	int			different;
	MqDedupId **sorted = sort_ids(ids, count, &different);

	dedup->queue = queue;
	for (int i = 0; i < different; i++)
		dedup->parts |= UINT64CONST(1) << part_of(sorted[i]->dedup_id);
	for (;;)
	{
		lock_parts(dedup);
		undecided = look_up(queue, sorted, different);
		if (!TransactionIdIsValid(undecided))
			break;
		unlock_parts(dedup);
		wait_for(queue, undecided);
	}
	pfree(sorted);
	MQ_STOP_POINT("dedup_claimed");
	return dedup;
}

/* Into one table, which is opened at the first row of a call. */
static void
insert_row(DedupTable *t, int table, const MqQueue *queue, text *dedup_id, int64 message, TimestampTz from)
{
	Datum		v[D_COLUMNS] = {Int64GetDatum(message), TimestampTzGetDatum(from), Int32GetDatum(queue->queue_no), PointerGetDatum(dedup_id)};
	bool		isnull[D_COLUMNS] = {false};
	HeapTuple	tuple;

	if (t->rel == NULL)
		t->rel = open_table(table, RowExclusiveLock);
	if (t->indexes == NULL)
	{
		t->indexes = CatalogOpenIndexes(t->rel);
		mq_own_table_check_indexes(t->rel, t->indexes);
	}
	tuple = heap_form_tuple(RelationGetDescr(t->rel), v, isnull);
	/* as for a catalog: a heap with a plain index, and nothing else to be done */
	CatalogTupleInsertWithInfo(t->rel, tuple, t->indexes);
	heap_freetuple(tuple);
	/* not undone by a rollback: about how many */
	pg_atomic_fetch_add_u64(&queue->chain->dedup_ids[table], from == FREED ? -1 : 1);
}

static void
end_inserts(DedupTable *t)
{
	if (t->indexes != NULL)
		CatalogCloseIndexes(t->indexes);
	t->indexes = NULL;
}

void
mq_dedup_note(MqDedup *dedup, const MqDedupId *id, int64 message)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz from = Max(id->due, now);
	int			table = table_for(end_of_window(dedup->queue, from), now);

	insert_row(&dedup->to_insert[table], table, dedup->queue, id->dedup_id, message, from);
}

void
mq_dedup_end(MqDedup *dedup)
{
	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
		if (dedup->to_insert[i].rel != NULL)
		{
			end_inserts(&dedup->to_insert[i]);
			relation_close(dedup->to_insert[i].rel, NoLock);
		}
	unlock_parts(dedup);
	pfree(dedup);
}

/* ---- freeing ---- */

/*
 * Adds a row wherever there is one of the message: a row that frees an id goes with those that it frees, whichever table is emptied first.
 */
static void
add_beside(const MqQueue *queue, text *dedup_id, int64 message, TimestampTz from)
{
	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
	{
		DedupTable	t = {0};
		bool		found;

		InitDirtySnapshot(t.dirty);
		if (!begin_look(&t, i, RowExclusiveLock, &t.dirty, 3))
			continue;
		look_for(&t, queue->queue_no, dedup_id, message, 3);
		found = index_getnext_slot(t.scan, BackwardScanDirection, t.slot);
		if (found)
			insert_row(&t, i, queue, dedup_id, message, from);
		end_inserts(&t);
		end_look(&t, RowExclusiveLock);
	}
}

void
mq_dedup_cancelled(const MqQueue *queue, text *dedup_id, int64 message)
{
	add_beside(queue, dedup_id, message, FREED);
}

/* The first row stays, so the window never becomes shorter. An id that was freed meanwhile, or is another one's, is left alone. */
void
mq_dedup_rescheduled(const MqQueue *queue, text *dedup_id, int64 message, TimestampTz due)
{
	MqDedupId	id = {dedup_id, due};
	MqDedup    *dedup = mq_dedup_claim(queue, &id, 1);

	if (id.first == message)
		mq_dedup_note(dedup, &id, message);
	mq_dedup_end(dedup);
}

bool
mq_dedup_forget(const MqQueue *queue, text *dedup_id)
{
	MqDedupId	id = {dedup_id};
	MqDedup    *dedup = mq_dedup_claim(queue, &id, 1);

	if (id.first != 0)
		add_beside(queue, dedup_id, id.first, FREED);
	mq_dedup_end(dedup);
	return id.first != 0;
}

/* ---- asking ---- */

/* Rows are judged here, and not by the scans: that would be a read that a serializable transaction can fail for. */
int64
mq_dedup_find(const MqQueue *queue, text *dedup_id)
{
	Snapshot	snapshot;
	DedupRow	newest = {0};

	/* what this statement itself has sent counts too */
	if (!RecoveryInProgress())
		CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
	{
		DedupTable	t = {0};

		if (!begin_look(&t, i, AccessShareLock, SnapshotAny, 2))
			continue;
		look_for(&t, queue->queue_no, dedup_id, 0, 2);
		while (index_getnext_slot(t.scan, BackwardScanDirection, t.slot))
		{
			DedupRow	row = row_of(&t);

			CHECK_FOR_INTERRUPTS();
			if (!mq_slot_is_visible(t.slot, snapshot))
				continue;
			if (is_newer(&row, &newest))
				newest = row;
			break;
		}
		end_look(&t, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return holder(queue, &newest, GetCurrentTimestamp());
}

/* What is asked of one table's rows of a queue, one after the other. */
typedef void (*AskRow) (const DedupTable *t, int64 *answer);

static void
ask_rows(int table, LOCKMODE mode, Snapshot snapshot, int32 queue_no, AskRow ask, int64 *answer)
{
	DedupTable	t = {0};

	if (!begin_look(&t, table, mode, snapshot, 1))
		return;
	look_for(&t, queue_no, NULL, 0, 1);
	while (index_getnext_slot(t.scan, ForwardScanDirection, t.slot))
	{
		CHECK_FOR_INTERRUPTS();
		ask(&t, answer);
	}
	end_look(&t, mode);
}

static void
max_id(const DedupTable *t, int64 *answer)
{
	*answer = Max(*answer, row_of(t).id);
}

static void
count_row(const DedupTable *t, int64 *answer)
{
	*answer += row_of(t).from == FREED ? -1 : 1;
}

static void
delete_row(const DedupTable *t, int64 *answer)
{
	ItemPointerData tid = t->slot->tts_tid;
	TM_FailureData failure;

	*answer += heap_delete(t->rel, &tid, GetCurrentCommandId(true), InvalidSnapshot, true, &failure, false) == TM_Ok;
}

int64
mq_dedup_max_id(int32 queue_no)
{
	int64		max = -1;

	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
		ask_rows(i, AccessShareLock, SnapshotAny, queue_no, max_id, &max);
	return max;
}

int64
mq_dedup_count(int table, int32 queue_no)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		count = 0;

	ask_rows(table, AccessShareLock, snapshot, queue_no, count_row, &count);
	UnregisterSnapshot(snapshot);
	return count;
}

/* Nobody is writing any more: the caller has locked the queue's table, and its schedule. */
void
mq_dedup_dropped(int32 queue_no)
{
	Snapshot	snapshot;
	int64		deleted = 0;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ask_rows(LATER, RowExclusiveLock, snapshot, queue_no, delete_row, &deleted);
	UnregisterSnapshot(snapshot);
}

/* As mq_schedule_size. */
int64
mq_dedup_size(const MqQueue *queue)
{
	int64		size = 0;

	if (queue->chain == NULL || pg_atomic_read_u32(&queue->chain->dedup_known) == 0)
		return -1;
	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
		size += (int64) pg_atomic_read_u64(&queue->chain->dedup_ids[i]);
	return Max(size, 0);
}

/* ---- emptying ---- */

/* A month counts 30 days, as everywhere; a row that frees an id is needed as long as those that it frees are. */
bool
mq_dedup_is_superfluous(int table)
{
	Relation	rel = open_table(table, NoLock);
	bool		has_rows = RelationGetNumberOfBlocks(rel) > 0;
	MqSqlContext context;
	bool		needed;

	relation_close(rel, NoLock);
	if (!has_rows)
		return false;
	mq_sql_begin(&context);
	needed = mq_sql("SELECT FROM mq_internal.%s d JOIN mq_internal.queue q USING (queue_no) WHERE d.counted_from < 'infinity' AND "
					"(q.dedup_window IS NULL OR d.counted_from + make_interval(secs => extract(epoch FROM q.dedup_window)::float8) > clock_timestamp()) "
					"LIMIT 1", table_names[table]) > 0;
	mq_sql_end(&context);
	return !needed;
}

bool
mq_dedup_truncate(int table)
{
	MqSqlContext context;

	if (!mq_dedup_is_superfluous(table))
		return false;
	MQ_STOP_POINT("dedup_truncate");
	mq_sql_begin(&context);
	mq_sql("TRUNCATE mq_internal.%s", table_names[table]);
	mq_sql_end(&context);
	return true;
}
