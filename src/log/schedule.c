/*
 * schedule.c: messages that are not due yet: their tables and single rows. See schedule.h; schedule_scan.c reads them in order.
 *
 * Owns all writing to mq_internal.scheduled_*. Rows are written as those of catalogs are, by heap_insert with the two indexes of a
 * table. Locks: ROW EXCLUSIVE on the tables that are written to, ACCESS SHARE on those that are only read, until the transaction ends:
 * so a table that nobody has locked (the worker's ACCESS EXCLUSIVE, before it empties one) has no undecided row. Of two who delete one
 * row the later waits for the earlier. No LWLock may be held. A crash leaves what was committed.
 */
#include "postgres.h"

#include "log/schedule.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "base/stop_point.h"
#include "log/own_table.h"
#include "log/page.h"
#include "log/schedule_table.h"
#include "log/segment_table.h"

/* Of a tier's tables, which are used in turn: that of the time now, the next one, and one that is being emptied. */
#define TABLES_PER_TIER 3
#define FIRST_OF_DAYS	TABLES_PER_TIER
#define LATER			(2 * TABLES_PER_TIER)

static const char *const table_names[MQ_SCHEDULE_TABLES] = {
	"scheduled_hour_0", "scheduled_hour_1", "scheduled_hour_2", "scheduled_day_0", "scheduled_day_1", "scheduled_day_2", "scheduled_later"
};

/* Their types, as mq has made them. */
static const Oid column_types[MQ_SCHED_COLUMNS] = {
	INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, INT4OID, CHAROID, TEXTOID, JSONBOID, JSONBOID, BYTEAOID, INT8OID,
	INT8OID, INT4OID, INT4OID, INT4OID, INT4OID, INT4OID, INT4OID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID
};

/* ---- tables ---- */

TimestampTz
mq_schedule_begin_of_tier(MqScheduleTier tier, TimestampTz now)
{
	int64		period = tier == MQ_SCHEDULE_DAYS ? USECS_PER_HOUR : USECS_PER_DAY;

	return (now / period + 2) * period;
}

MqScheduleTier
mq_schedule_tier_of(int table)
{
	return table < FIRST_OF_DAYS ? MQ_SCHEDULE_HOURS : table < LATER ? MQ_SCHEDULE_DAYS : MQ_SCHEDULE_LATER;
}

/* What is overdue goes with what is due now. */
static int
table_for(TimestampTz due, TimestampTz now)
{
	if (due < mq_schedule_begin_of_tier(MQ_SCHEDULE_DAYS, now))
		return Max(due, now) / USECS_PER_HOUR % TABLES_PER_TIER;
	if (due < mq_schedule_begin_of_tier(MQ_SCHEDULE_LATER, now))
		return FIRST_OF_DAYS + due / USECS_PER_DAY % TABLES_PER_TIER;
	return LATER;
}

bool
mq_schedule_table_is_in_use(int table, TimestampTz now)
{
	int64		period = table < FIRST_OF_DAYS ? now / USECS_PER_HOUR : now / USECS_PER_DAY;

	return table == LATER || table % TABLES_PER_TIER == period % TABLES_PER_TIER ||
		table % TABLES_PER_TIER == (period + 1) % TABLES_PER_TIER;
}

Oid
mq_schedule_parent(void)
{
	return get_relname_relid("scheduled", mq_extension(false)->internal);
}

Oid
mq_schedule_table(int table)
{
	return get_relname_relid(table_names[table], mq_extension(false)->internal);
}

Relation
mq_schedule_open(int table, LOCKMODE mode)
{
	return mq_own_table_open(mq_schedule_table(table), mode, column_types, MQ_SCHED_COLUMNS);
}

/* To write. */
static Relation
open_once(MqScheduleTables *tables, int table)
{
	if (!tables->parent_locked)
		LockRelationOid(mq_schedule_parent(), RowExclusiveLock);
	tables->parent_locked = true;
	if (tables->rel[table] == NULL)
		tables->rel[table] = mq_schedule_open(table, RowExclusiveLock);
	return tables->rel[table];
}

bool
mq_schedule_lock_tables_at_once(void)
{
	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		if (!ConditionalLockRelationOid(mq_schedule_table(i), AccessShareLock))
			return false;
	return true;
}

/* By the number of the queue: an object of nobody else's. */
static LOCKTAG
schedule_tag(const MqQueue *queue)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, mq_extension(false)->queue_rel, (Oid) queue->queue_no, 0);
	return tag;
}

void
mq_schedule_lock(const MqQueue *queue, bool drop)
{
	LOCKTAG		tag = schedule_tag(queue);

	(void) LockAcquire(&tag, drop ? AccessExclusiveLock : RowExclusiveLock, false, false);
	AcceptInvalidationMessages();
	mq_queue_check_not_dropped(queue);
}

bool
mq_schedule_lock_at_once(const MqQueue *queue)
{
	LOCKTAG		tag = schedule_tag(queue);

	return LockAcquire(&tag, RowExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
mq_schedule_close(MqScheduleTables *tables)
{
	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
	{
		if (tables->indexes[i] != NULL)
			CatalogCloseIndexes(tables->indexes[i]);
		if (tables->rel[i] != NULL)
			relation_close(tables->rel[i], NoLock);
	}
	memset(tables, 0, sizeof(*tables));
}

/*
 * TRUNCATE does not ask for snapshots: not even one that is old, or of a dump that has not come to this table yet, may miss a row.
 */
static bool
is_visible_to_anybody(Relation rel)
{
	SnapshotData anybody;
	TableScanDesc scan;
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		seen;

	InitNonVacuumableSnapshot(anybody, GlobalVisTestFor(rel));
	scan = table_beginscan(rel, &anybody, 0, NULL);
	seen = table_scan_getnextslot(scan, ForwardScanDirection, slot);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return seen;
}

bool
mq_schedule_may_be_empty(int table)
{
	Relation	rel = mq_schedule_open(table, NoLock);
	bool		empty = RelationGetNumberOfBlocks(rel) > 0 && !is_visible_to_anybody(rel);

	relation_close(rel, NoLock);
	return empty;
}

bool
mq_schedule_truncate(int table)
{
	MqSqlContext context;

	if (!mq_schedule_may_be_empty(table))
		return false;
	MQ_STOP_POINT("schedule_truncate");
	mq_sql_begin(&context);
	mq_sql("TRUNCATE mq_internal.%s", table_names[table]);
	mq_sql_end(&context);
	return true;
}

/* ---- rows ---- */

Size
mq_schedule_insert(MqScheduleTables *tables, MqScheduledRow *row)
{
	int			table = table_for(DatumGetTimestampTz(row->v[MQ_SCHED_DUE_AT - 1]), GetCurrentTimestamp());
	Relation	rel = open_once(tables, table);
	HeapTuple	tuple;
	Size		size;

	if (tables->indexes[table] == NULL)
	{
		tables->indexes[table] = CatalogOpenIndexes(rel);
		mq_own_table_check_indexes(rel, tables->indexes[table]);
	}
	tuple = heap_form_tuple(RelationGetDescr(rel), row->v, row->isnull);
	/* as for a catalog: a heap with plain indexes, and nothing else to be done */
	CatalogTupleInsertWithInfo(rel, tuple, tables->indexes[table]);
	size = tuple->t_len;
	heap_freetuple(tuple);
	return size;
}

/* What a message and its row have in common. */
static const struct
{
	MqScheduleColumn scheduled;
	MqColumn	message;
}			common[] = {
	{MQ_SCHED_HEADERS, MQ_COL_HEADERS}, {MQ_SCHED_PAYLOAD, MQ_COL_PAYLOAD}, {MQ_SCHED_BODY, MQ_COL_BODY},
	{MQ_SCHED_SENT_AT, MQ_COL_SENT_AT}, {MQ_SCHED_ORIGIN_ID, MQ_COL_ORIGIN_ID}, {MQ_SCHED_ORIGIN_QUEUE, MQ_COL_ORIGIN_QUEUE},
	{MQ_SCHED_TARGET_GROUP, MQ_COL_TARGET_GROUP}, {MQ_SCHED_TARGET_EPOCH, MQ_COL_TARGET_EPOCH},
	{MQ_SCHED_PRIORITY, MQ_COL_PRIORITY}, {MQ_SCHED_KEY, MQ_COL_KEY}, {MQ_SCHED_ROUTING_KEY, MQ_COL_ROUTING_KEY},
	{MQ_SCHED_DEDUP_ID, MQ_COL_DEDUP_ID}, {MQ_SCHED_REASON, MQ_COL_REASON}, {MQ_SCHED_DEATH, MQ_COL_DEATH}
};

void
mq_schedule_put(MqScheduleTables *tables, const MqQueue *queue, HeapTuple message, char kind, TimestampTz due, int64 id)
{
	MqScheduledRow row;
	Datum		v[MQ_COLUMNS];
	bool		isnull[MQ_COLUMNS];

	heap_deform_tuple(message, mq_row_descriptor(), v, isnull);
	memset(row.isnull, true, sizeof(row.isnull));
	for (int i = 0; i < lengthof(common); i++)
	{
		row.v[common[i].scheduled - 1] = v[common[i].message - 1];
		row.isnull[common[i].scheduled - 1] = isnull[common[i].message - 1];
	}
#define SET(to, value) (row.v[(to) - 1] = (value), row.isnull[(to) - 1] = false)
	SET(MQ_SCHED_ID, Int64GetDatum(id));
	SET(MQ_SCHED_DUE_AT, TimestampTzGetDatum(due));
	SET(MQ_SCHED_QUEUE_NO, Int32GetDatum(queue->queue_no));
	SET(MQ_SCHED_VERSION, Int32GetDatum(1));
	SET(MQ_SCHED_KIND, CharGetDatum(kind));
	if (row.isnull[MQ_SCHED_SENT_AT - 1])
		SET(MQ_SCHED_SENT_AT, TimestampTzGetDatum(GetCurrentTimestamp()));
	if (kind == MQ_SCHED_KIND_SEND)
		SET(MQ_SCHED_SENDER, CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)));
#undef SET
	mq_schedule_insert(tables, &row);
}

HeapTuple
mq_schedule_message(const MqScheduledRow *row)
{
	Datum		v[MQ_COLUMNS] = {0};
	bool		isnull[MQ_COLUMNS];

	memset(isnull, true, sizeof(isnull));
	for (int i = 0; i < lengthof(common); i++)
	{
		v[common[i].message - 1] = row->v[common[i].scheduled - 1];
		isnull[common[i].message - 1] = row->isnull[common[i].scheduled - 1];
	}
	/* the log fills in these two */
	isnull[MQ_COL_ID - 1] = isnull[MQ_COL_ENQUEUED_AT - 1] = false;
	v[MQ_COL_DUE_AT - 1] = row->v[MQ_SCHED_DUE_AT - 1];
	isnull[MQ_COL_DUE_AT - 1] = row->isnull[MQ_SCHED_DUE_AT - 1];
	if (isnull[MQ_COL_ORIGIN_ID - 1])
	{
		v[MQ_COL_ORIGIN_ID - 1] = row->v[MQ_SCHED_ID - 1];
		isnull[MQ_COL_ORIGIN_ID - 1] = false;
	}
	return heap_form_tuple(mq_row_descriptor(), v, isnull);
}

void
mq_schedule_row_from(MqScheduledRow *row, TupleTableSlot *slot, int table)
{
	slot_getallattrs(slot);
	memcpy(row->v, slot->tts_values, sizeof(row->v));
	memcpy(row->isnull, slot->tts_isnull, sizeof(row->isnull));
	/* what a deleted row had in its TOAST table is deleted with it */
	for (int i = 0; i < MQ_SCHED_COLUMNS; i++)
		if (!row->isnull[i] && TupleDescAttr(slot->tts_tupleDescriptor, i)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(row->v[i])))
			row->v[i] = PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(row->v[i])));
	row->table = table;
	row->tid = slot->tts_tid;
}

static void
copy_values(MqScheduledRow *row, TupleDesc desc)
{
	for (int i = 0; i < MQ_SCHED_COLUMNS; i++)
		if (!row->isnull[i])
			row->v[i] = datumCopy(row->v[i], TupleDescAttr(desc, i)->attbyval, TupleDescAttr(desc, i)->attlen);
}

/* The versions of one message in one table, the newest first. */
typedef struct Versions
{
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	int32		version;		/* of the row that it is at; -1: there is no more */
} Versions;

static void
next_version(Versions *v)
{
	bool		isnull;

	v->version = index_getnext_slot(v->scan, BackwardScanDirection, v->slot) ?
		DatumGetInt32(slot_getattr(v->slot, MQ_SCHED_VERSION, &isnull)) : -1;
}

/* A table without a page has none. */
static void
begin_versions(Versions *v, Relation rel, int32 queue_no, int64 id)
{
	ScanKeyData keys[2];

	v->version = -1;
	v->scan = NULL;
	if (RelationGetNumberOfBlocks(rel) == 0)
		return;
	v->index = mq_own_index_open(rel, "id");
	v->slot = table_slot_create(rel, NULL);
	v->scan = MqIndexBeginScan(rel, v->index, SnapshotAny, 2);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_no));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	index_rescan(v->scan, keys, 2, NULL, 0);
	next_version(v);
}

static void
end_versions(Versions *v)
{
	if (v->scan == NULL)
		return;
	index_endscan(v->scan);
	ExecDropSingleTupleTableSlot(v->slot);
	index_close(v->index, NoLock);
}

/* The table with the newest version that was not looked at; -1: there is none. */
static int
newest(const Versions *versions)
{
	int			found = -1;

	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		if (versions[i].version >= 0 && (found < 0 || versions[i].version > versions[found].version))
			found = i;
	return found;
}

/*
 * One snapshot for all tables: a row that moves from one to another is seen in exactly one of them. The newest version comes first,
 * however many there were that a snapshot keeps. Rows are judged here, and not by the scans: that would be a read that a
 * serializable transaction can fail for.
 */
bool
mq_schedule_find(MqScheduleTables *tables, int32 queue_no, int64 id, MqScheduledRow *row)
{
	Versions	versions[MQ_SCHEDULE_TABLES];
	Snapshot	snapshot;
	bool		found = false;
	int			table;

	/* what this statement itself has sent counts too */
	CommandCounterIncrement();
	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		begin_versions(&versions[i], open_once(tables, i), queue_no, id);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	while (!found && (table = newest(versions)) >= 0)
	{
		CHECK_FOR_INTERRUPTS();
		found = mq_slot_is_visible(versions[table].slot, snapshot);
		if (found)
		{
			mq_schedule_row_from(row, versions[table].slot, table);
			copy_values(row, RelationGetDescr(tables->rel[table]));
		}
		else
			next_version(&versions[table]);
	}
	UnregisterSnapshot(snapshot);
	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		end_versions(&versions[i]);
	return found;
}

bool
mq_schedule_delete(MqScheduleTables *tables, const MqScheduledRow *row)
{
	ItemPointerData tid = row->tid;
	TM_FailureData failure;

	return heap_delete(tables->rel[row->table], &tid, GetCurrentCommandId(true), InvalidSnapshot, true, &failure, false) == TM_Ok;
}

/* What is asked of one table's rows of a queue, by its index of ids. */
typedef int64 (*AskTable) (IndexScanDesc scan, TupleTableSlot *slot);

static int64
max_id(IndexScanDesc scan, TupleTableSlot *slot)
{
	bool		isnull;

	return index_getnext_slot(scan, BackwardScanDirection, slot) ? DatumGetInt64(slot_getattr(slot, MQ_SCHED_ID, &isnull)) : -1;
}

static int64
count_rows(IndexScanDesc scan, TupleTableSlot *slot)
{
	int64		count = 0;

	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		count++;
	}
	return count;
}

/* What the worker has deleted meanwhile, to move it nearer, is for the next look. */
static int64
delete_rows(IndexScanDesc scan, TupleTableSlot *slot)
{
	int64		count = 0;

	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		ItemPointerData tid = slot->tts_tid;
		TM_FailureData failure;

		CHECK_FOR_INTERRUPTS();
		count += heap_delete(scan->heapRelation, &tid, GetCurrentCommandId(true), InvalidSnapshot, true, &failure, false) == TM_Ok;
	}
	return count;
}

/* The lock stays if it is one to write. */
static int64
ask_table(int table, LOCKMODE mode, int32 queue_no, Snapshot snapshot, AskTable ask, int64 none)
{
	Relation	rel = mq_schedule_open(table, mode);
	int64		answer = none;

	if (RelationGetNumberOfBlocks(rel) > 0)
	{
		Relation	index = mq_own_index_open(rel, "id");
		IndexScanDesc scan = MqIndexBeginScan(rel, index, snapshot, 1);
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		ScanKeyData key;

		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_no));
		index_rescan(scan, &key, 1, NULL, 0);
		answer = ask(scan, slot);
		index_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
		index_close(index, mode == AccessShareLock ? mode : NoLock);
	}
	relation_close(rel, mode == AccessShareLock ? mode : NoLock);
	return answer;
}

int64
mq_schedule_max_id(int32 queue_no)
{
	int64		max = -1;

	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		max = Max(max, ask_table(i, AccessShareLock, queue_no, SnapshotAny, max_id, -1));
	return max;
}

int64
mq_schedule_count(int32 queue_no)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		count = 0;

	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		count += ask_table(i, AccessShareLock, queue_no, snapshot, count_rows, 0);
	UnregisterSnapshot(snapshot);
	return count;
}

void
mq_schedule_delete_all(int32 queue_no)
{
	int64		deleted;

	do
	{
		Snapshot	snapshot;

		CommandCounterIncrement();
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		deleted = 0;
		for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
			deleted += ask_table(i, RowExclusiveLock, queue_no, snapshot, delete_rows, 0);
		UnregisterSnapshot(snapshot);
	} while (deleted > 0);
}

/* The slot's key is not asked: the queue has just been attached, and what a drop leaves is a number for a message. */
int64
mq_schedule_size(const MqQueue *queue)
{
	if (queue->chain != NULL && pg_atomic_read_u32(&queue->chain->scheduled_known) != 0)
		return Max((int64) pg_atomic_read_u64(&queue->chain->scheduled), 0);
	return mq_schedule_lock_tables_at_once() ? mq_schedule_count(queue->queue_no) : -1;
}

/* ---- for a look ---- */

static int
compare_ids(const void *a, const void *b)
{
	int64		x = DatumGetInt64(((const MqScheduledRow *) a)->v[MQ_SCHED_ID - 1]);
	int64		y = DatumGetInt64(((const MqScheduledRow *) b)->v[MQ_SCHED_ID - 1]);

	return (x > y) - (x < y);
}

/* Adds those of one table, at most max, to rows, which has room for so many more. */
static int
rows_after(int table, int32 queue_no, int64 after, int max, Snapshot snapshot, MqScheduledRow *rows)
{
	Relation	rel = mq_schedule_open(table, AccessShareLock);
	int			count = 0;

	if (RelationGetNumberOfBlocks(rel) > 0)
	{
		Relation	index = mq_own_index_open(rel, "id");
		IndexScanDesc scan = MqIndexBeginScan(rel, index, SnapshotAny, 2);
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		ScanKeyData keys[2];

		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_no));
		ScanKeyInit(&keys[1], 2, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(after));
		index_rescan(scan, keys, 2, NULL, 0);
		while (count < max && index_getnext_slot(scan, ForwardScanDirection, slot))
		{
			CHECK_FOR_INTERRUPTS();
			if (!mq_slot_is_visible(slot, snapshot))
				continue;
			mq_schedule_row_from(&rows[count], slot, table);
			copy_values(&rows[count++], RelationGetDescr(rel));
		}
		index_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
		index_close(index, AccessShareLock);
	}
	relation_close(rel, AccessShareLock);
	return count;
}

MqScheduledRow *
mq_schedule_after(int32 queue_no, int64 after, int max, Snapshot snapshot, int *count)
{
	/* there may be fewer by far */
	int			room = 64;
	MqScheduledRow *rows = palloc(room * sizeof(MqScheduledRow));

	*count = 0;
	for (int table = 0; table < MQ_SCHEDULE_TABLES; table++)
	{
		int64		behind = after;
		int			got = 0;
		int			n;

		/* a lot at a time, so that what is asked for does not say how much memory it takes */
		do
		{
			int			lot = Min(room, max - got);

			if (*count + lot > room)
				rows = repalloc_huge(rows, (room = *count + lot + room) * sizeof(MqScheduledRow));
			n = rows_after(table, queue_no, behind, lot, snapshot, rows + *count);
			*count += n;
			got += n;
			if (n > 0)
				behind = DatumGetInt64(rows[*count - 1].v[MQ_SCHED_ID - 1]);
			if (n < lot)
				break;
		} while (got < max);
	}
	qsort(rows, *count, sizeof(MqScheduledRow), compare_ids);
	*count = Min(*count, max);
	return rows;
}
