/*
 * moved.c: where messages are that have moved. See moved.h.
 *
 * Owns mq_internal.moved_*: rows of (queue_no, block, last_id, pairs) with an index on the first two. A block is ORIGINS_PER_BLOCK
 * origins that follow each other; pairs are an origin and an id in turn. So messages that are moved in the order in which they were sent
 * share rows. A block may have any number of rows, and an origin any number of ids: the greatest counts. Locks: ROW EXCLUSIVE on the table
 * that is written to, ACCESS SHARE on those that are read, until the transaction ends. A crash leaves what was committed; which table
 * rows go to is then open, and that is the first.
 */
#include "postgres.h"

#include "log/moved.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/owner.h"
#include "base/stop_point.h"
#include "log/own_table.h"
#include "log/page.h"

#define ORIGINS_PER_BLOCK	256
#define PAIRS_PER_ROW		100		/* 1.6 kB: nothing is toasted */
#define FEW_ROWS			5000	/* a part of what a large table holds */
#define LARGE				(16 * 1024 * 1024 / BLCKSZ)

/* Columns, by number. */
enum
{
	M_QUEUE_NO = 1, M_BLOCK, M_LAST_ID, M_PAIRS, M_COLUMNS = M_PAIRS
};

static const Oid column_types[M_COLUMNS] = {INT4OID, INT8OID, INT8OID, INT8ARRAYOID};

Oid
mq_moved_table(int table)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "moved_%d", table);
	return get_relname_relid(name, mq_extension(false)->internal);
}

static Relation
open_table(int table, LOCKMODE mode)
{
	return mq_own_table_open(mq_moved_table(table), mode, column_types, M_COLUMNS);
}

static int
current_table(const MqDatabase *db)
{
	return (int) (pg_atomic_read_u32(&unconstify(MqDatabase *, db)->moved_current) % MQ_MOVED_TABLES);
}

/* ---- writing ---- */

static int
compare_origins(const void *a, const void *b)
{
	int64		x = ((const MqMoved *) a)->origin_id;
	int64		y = ((const MqMoved *) b)->origin_id;

	return (x > y) - (x < y);
}

/* One row, of origins of one block. */
static void
insert_row(Relation rel, CatalogIndexState indexes, int32 queue_no, const MqMoved *moved, int count)
{
	Datum		pairs[2 * PAIRS_PER_ROW];
	Datum		v[M_COLUMNS];
	bool		isnull[M_COLUMNS] = {false};
	int64		last_id = 0;
	int			n = 0;
	HeapTuple	tuple;

	for (int i = 0; i < count; i++)
	{
		pairs[n++] = Int64GetDatum(moved[i].origin_id);
		pairs[n++] = Int64GetDatum(moved[i].id);
		last_id = Max(last_id, moved[i].id);
	}
	v[M_QUEUE_NO - 1] = Int32GetDatum(queue_no);
	v[M_BLOCK - 1] = Int64GetDatum(moved[0].origin_id / ORIGINS_PER_BLOCK);
	v[M_LAST_ID - 1] = Int64GetDatum(last_id);
	v[M_PAIRS - 1] = PointerGetDatum(construct_array(pairs, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	tuple = heap_form_tuple(RelationGetDescr(rel), v, isnull);
	CatalogTupleInsertWithInfo(rel, tuple, indexes);
	heap_freetuple(tuple);
}

void
mq_moved_note(const MqQueue *queue, MqMoved *moved, int count)
{
	Relation	rel = open_table(current_table(queue->db), RowExclusiveLock);
	CatalogIndexState indexes = CatalogOpenIndexes(rel);
	int			n;

	mq_own_table_check_indexes(rel, indexes);
	qsort(moved, count, sizeof(MqMoved), compare_origins);
	for (int at = 0; at < count; at += n)
	{
		n = 1;
		while (n < PAIRS_PER_ROW && at + n < count &&
			   moved[at + n].origin_id / ORIGINS_PER_BLOCK == moved[at].origin_id / ORIGINS_PER_BLOCK)
			n++;
		insert_row(rel, indexes, queue->queue_no, &moved[at], n);
	}
	CatalogCloseIndexes(indexes);
	table_close(rel, NoLock);
}

/* ---- reading ---- */

/* An id that is looked for: known is where its message is, as far as is known. */
typedef struct Wanted
{
	int64		id;
	int64		known;
	int			at;				/* in the caller's array */
} Wanted;

static int
compare_wanted(const void *a, const void *b)
{
	int64		x = ((const Wanted *) a)->id;
	int64		y = ((const Wanted *) b)->id;

	return (x > y) - (x < y);
}

/* Pairs of one row; what mq has not written is passed over. */
static void
compare_with_row(TupleTableSlot *slot, Wanted *wanted, int count)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, M_PAIRS, &isnull);
	ArrayType  *array;

	if (isnull)
		return;
	array = DatumGetArrayTypeP(value);
	if (ARR_NDIM(array) == 1 && !ARR_HASNULL(array) && ARR_ELEMTYPE(array) == INT8OID)
	{
		/* two int8 in turn */
		const MqMoved *pairs = (const MqMoved *) ARR_DATA_PTR(array);

		for (int i = 0; i < ARR_DIMS(array)[0] / 2; i++)
		{
			Wanted		key = {pairs[i].origin_id};
			Wanted	   *found = bsearch(&key, wanted, count, sizeof(Wanted), compare_wanted);

			if (found == NULL)
				continue;
			/* an id may be wanted twice */
			while (found > wanted && found[-1].id == key.id)
				found--;
			for (; found < wanted + count && found->id == key.id; found++)
				found->known = Max(found->known, pairs[i].id);
		}
	}
	if ((Pointer) array != DatumGetPointer(value))
		pfree(array);
}

/* Ids in wanted are ascending: each block is read once. */
static void
find_in_table(Relation rel, Relation index, int32 queue_no, Wanted *wanted, int count, Snapshot snapshot)
{
	IndexScanDesc scan = MqIndexBeginScan(rel, index, SnapshotAny, 2);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			n;

	for (int at = 0; at < count; at += n)
	{
		int64		block = wanted[at].id / ORIGINS_PER_BLOCK;
		ScanKeyData keys[2];

		for (n = 1; at + n < count && wanted[at + n].id / ORIGINS_PER_BLOCK == block; n++)
			 /* as many as are in it */ ;
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_no));
		ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(block));
		index_rescan(scan, keys, 2, NULL, 0);
		while (index_getnext_slot(scan, ForwardScanDirection, slot))
		{
			CHECK_FOR_INTERRUPTS();
			if (mq_slot_is_visible(slot, snapshot))
				compare_with_row(slot, wanted + at, n);
		}
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

void
mq_moved_find(const MqQueue *queue, int64 *ids, int count)
{
	Wanted	   *wanted = MemoryContextAllocHuge(CurrentMemoryContext, (count + 1) * sizeof(Wanted));
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	for (int i = 0; i < count; i++)
		wanted[i] = (Wanted) {ids[i], ids[i], i};
	qsort(wanted, count, sizeof(Wanted), compare_wanted);
	for (int table = 0; table < MQ_MOVED_TABLES; table++)
	{
		Relation	rel = open_table(table, AccessShareLock);

		if (RelationGetNumberOfBlocks(rel) > 0)
		{
			Relation	index = mq_own_index_open(rel, "block");

			find_in_table(rel, index, queue->queue_no, wanted, count, snapshot);
			index_close(index, NoLock);
		}
		table_close(rel, NoLock);
	}
	for (int i = 0; i < count; i++)
		ids[wanted[i].at] = wanted[i].known;
	UnregisterSnapshot(snapshot);
	pfree(wanted);
}

/* ---- the tables in turn ---- */

static BlockNumber
pages_of(int table)
{
	Relation	rel = open_table(table, AccessShareLock);
	BlockNumber pages = RelationGetNumberOfBlocks(rel);

	table_close(rel, AccessShareLock);
	return pages;
}

bool
mq_moved_move_on(MqDatabase *db)
{
	int			current = current_table(db);

	if (pages_of(current) < LARGE)
		return true;
	for (int i = 1; i < MQ_MOVED_TABLES; i++)
		if (pages_of((current + i) % MQ_MOVED_TABLES) == 0)
		{
			pg_atomic_write_u32(&db->moved_current, (uint32) (current + i) % MQ_MOVED_TABLES);
			return true;
		}
	return false;
}

/* A row is about something as long as the segment of one of its messages may be there. For a table's number. */
#define NEEDED_ROWS \
	"SELECT m.* FROM mq_internal.moved_%d m JOIN " \
	"(SELECT q.queue_no, q.segment_size * pg_catalog.min(s.segment) AS first_id FROM mq_internal.queue q " \
	"JOIN mq_internal.segment s USING (queue_no) GROUP BY q.queue_no) l USING (queue_no) WHERE m.last_id >= l.first_id"

static bool
is_needed(int table)
{
	MqSqlContext context;
	bool		needed;

	mq_sql_begin(&context);
	needed = mq_sql(NEEDED_ROWS " LIMIT 1", table) > 0;
	mq_sql_end(&context);
	return needed;
}

bool
mq_moved_squeeze(const MqDatabase *db, int table)
{
	int			current = current_table(db);
	MqSqlContext context;
	bool		few;

	if (table == current || pages_of(table) == 0)
		return false;
	mq_sql_begin(&context);
	few = mq_sql(NEEDED_ROWS " LIMIT %d", table, FEW_ROWS + 1) <= FEW_ROWS;
	if (few)
	{
		mq_sql("INSERT INTO mq_internal.moved_%d " NEEDED_ROWS, current, table);
		mq_sql("TRUNCATE mq_internal.moved_%d", table);
	}
	mq_sql_end(&context);
	return few;
}

bool
mq_moved_is_superfluous(const MqDatabase *db, int table)
{
	return table != current_table(db) && pages_of(table) > 0 && !is_needed(table);
}

bool
mq_moved_truncate(const MqDatabase *db, int table)
{
	MqSqlContext context;

	if (!mq_moved_is_superfluous(db, table))
		return false;
	MQ_STOP_POINT("moved_truncate");
	mq_sql_begin(&context);
	mq_sql("TRUNCATE mq_internal.moved_%d", table);
	mq_sql_end(&context);
	return true;
}
