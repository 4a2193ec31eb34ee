/*
 * offset_log.c: what is finished, on disk.
 *
 * Owns the format of mq_internal.consumer_offset_* (offset_log.h). Rows are only ever inserted; the worker empties a table by
 * TRUNCATE when checkpoints have made all its rows superfluous (ring.c). Rows never exceed what fits on a page inline,
 * so nothing is toasted.
 */
#include "postgres.h"

#include "offset/offset_log.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "log/page.h"
#include "window/transaction.h"

#define VALUES_PER_ROW 200		/* of int8: 1.6 kB */
#define MAX_ID ((INT64CONST(1) << 48) - 1)	/* what a receipt has room for */
#define MAX_GROUP 0xFFFFFF			/* the same */
/* in replay_from */
#define HAND_OUT (-1)
#define VOID (-2)

/* The columns, by number: the tables are read and written without the executor, and no name is looked up. */
enum
{
	O_N = 1, O_GROUP, O_LEVEL, O_EPOCH, O_LO, O_HI, O_RANGES, O_REPLAY, O_COLUMNS = O_REPLAY
};

int
mq_unfinished_compare(const void *a, const void *b)
{
	int64		x = ((const MqUnfinished *) a)->lo;
	int64		y = ((const MqUnfinished *) b)->lo;

	return (x > y) - (x < y);
}

int
mq_unfinished_sort(MqUnfinished *u, int count)
{
	int			n = 0;

	if (count < 2)
		return count;
	qsort(u, count, sizeof(MqUnfinished), mq_unfinished_compare);
	for (int i = 1; i < count; i++)
	{
		bool		alike = u[n].failures == u[i].failures && u[n].due == u[i].due;

		/* an id that is in two of them, because somebody wrote it twice, is in the first */
		if (u[i].hi <= u[n].hi)
			continue;
		if (u[i].lo <= u[n].hi)
			u[i].lo = u[n].hi + 1;
		if (alike && u[i].lo == u[n].hi + 1)
			u[n].hi = u[i].hi;
		else
			u[++n] = u[i];
	}
	return n + 1;
}

Oid
mq_offset_log_table(int table)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "consumer_offset_%d", table);
	return get_relname_relid(name, mq_extension(false)->internal);
}

static ArrayType *
int8_array(const int64 *values, int count)
{
	Datum	   *datums = palloc(count * sizeof(Datum));

	for (int i = 0; i < count; i++)
		datums[i] = Int64GetDatum(values[i]);
	return construct_array(datums, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
}

/* Their types, as mq has made them; check_table compares. */
static const Oid column_types[O_COLUMNS] = {INT8OID, INT4OID, INT4OID, INT4OID, INT8OID, INT8OID, INT8ARRAYOID, INT8OID};

/* Of a row as it is written: columns that were added and dropped again need not be stored. Lives as long as the process. */
static TupleDesc
row_descriptor(void)
{
	static TupleDesc desc = NULL;
	MemoryContext old;
	TupleDesc	made;

	if (desc != NULL)
		return desc;
	old = MemoryContextSwitchTo(TopMemoryContext);
	made = CreateTemplateTupleDesc(O_COLUMNS);
	for (int i = 0; i < O_COLUMNS; i++)
		TupleDescInitEntry(made, (AttrNumber) (i + 1), NULL, column_types[i], -1, 0);
	MemoryContextSwitchTo(old);
	return desc = made;
}

/* Ranges with their ends the right way round; so many values each. */
static bool
ranges_are_sound(const MqOffsetRow *row, int step)
{
	if (row->nvalues % step != 0)
		return false;
	for (int i = 0; i < row->nvalues; i += step)
		if (row->values[i] < 0 || row->values[i] > row->values[i + 1] || row->values[i + 1] > MAX_ID)
			return false;
	return true;
}

/* Numbers that mq may have written. What somebody else did must not end in memory that is not ours. */
static bool
is_sound(const MqOffsetRow *row)
{
	if (row->n < 1 || row->n > PG_INT64_MAX / 2 || row->group_no < 0 || row->group_no > MAX_GROUP)
		return false;
	if (row->is_checkpoint)
		return row->hi >= 0 && row->hi <= MAX_ID && row->replay_from >= 0 && row->replay_from <= row->n && ranges_are_sound(row, 4);
	return row->lo >= 0 && row->lo <= row->hi && row->hi <= MAX_ID && ranges_are_sound(row, 2);
}

/* Inserts one row; returns its size. */
static int64
insert_row(Relation rel, const MqOffsetRow *row)
{
	Datum		v[MaxHeapAttributeNumber];
	bool		isnull[MaxHeapAttributeNumber];
	HeapTuple	tuple;
	int64		size;

	/* or it would be passed over when it is read */
	Assert(is_sound(row));
	memset(isnull, false, O_COLUMNS * sizeof(bool));
	v[O_N - 1] = Int64GetDatum(row->n);
	v[O_GROUP - 1] = Int32GetDatum(row->group_no);
	v[O_LEVEL - 1] = Int32GetDatum(row->level);
	v[O_EPOCH - 1] = Int32GetDatum(row->epoch);
	v[O_LO - 1] = Int64GetDatum(row->lo);
	v[O_HI - 1] = Int64GetDatum(row->hi);
	isnull[O_RANGES - 1] = row->nvalues == 0;
	v[O_RANGES - 1] = row->nvalues == 0 ? (Datum) 0 : PointerGetDatum(int8_array(row->values, row->nvalues));
	isnull[O_REPLAY - 1] = !row->is_checkpoint && !row->is_hand_out && !row->is_void;
	v[O_REPLAY - 1] = Int64GetDatum(row->replay_from);
	tuple = heap_form_tuple(row_descriptor(), v, isnull);
	size = tuple->t_len;
	heap_insert(rel, tuple, GetCurrentCommandId(true), 0, NULL);
	heap_freetuple(tuple);
	return size;
}

/* And no others: what each write asks. A column that was dropped has no type. */
static bool
has_our_columns(TupleDesc desc)
{
	bool		same = desc->natts == O_COLUMNS;

	for (int i = 0; i < O_COLUMNS && same; i++)
		same = TupleDescAttr(desc, i)->atttypid == column_types[i];
	return same;
}

/* Rows are read and written by column number. */
static void
check_table(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		good = rel->rd_tableam == GetHeapamTableAmRoutine() && desc->natts >= O_COLUMNS;

	for (int i = 0; i < desc->natts && good; i++)
		good = TupleDescAttr(desc, i)->attisdropped == (i >= O_COLUMNS) &&
			(i >= O_COLUMNS || TupleDescAttr(desc, i)->atttypid == column_types[i]);
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has other columns or another access method than mq has made", RelationGetRelationName(rel)),
				 errhint("It belongs to the offset log of mq: undo that.")));
}

/* 42704: the extension was dropped. 55000: it has other columns than mq has made. */
static Relation
open_table(int table, LOCKMODE mode)
{
	Oid			relid = mq_offset_log_table(table);
	Relation	rel;

	if (!OidIsValid(relid))
	{
		/* the worker may just have made it */
		AcceptInvalidationMessages();
		relid = mq_offset_log_table(table);
	}
	rel = mq_own_relation_open(relid, mode);
	if (!has_our_columns(RelationGetDescr(rel)))
		check_table(rel);
	return rel;
}

/* The table for rows of this queue's groups. */
static Relation
open_for(const MqQueue *queue, int table)
{
	Relation	rel = open_table(table, RowExclusiveLock);

	/* it may be the table of the next extension */
	if (!mq_queue_is_current(queue))
		mq_queue_dropped(queue);
	return rel;
}

/* Writes values as as many rows as they need, at least one. */
static int64
insert_rows(Relation rel, MqOffsetRow *row, int64 *values, int nvalues)
{
	int64		bytes = 0;
	int			at = 0;

	do
	{
		row->values = values + at;
		row->nvalues = Min(nvalues - at, VALUES_PER_ROW);
		bytes += insert_row(rel, row);
		at += row->nvalues;
	} while (at < nvalues);
	return bytes;
}

/* Ranges come in the order they were taken, which need not be ascending: the row says from where to where they reach. */
static void
set_bounds(MqOffsetRow *row, const MqRange *ranges, int count)
{
	row->lo = ranges[0].lo;
	row->hi = ranges[0].hi;
	for (int i = 1; i < count; i++)
	{
		row->lo = Min(row->lo, ranges[i].lo);
		row->hi = Max(row->hi, ranges[i].hi);
	}
}

/* n and its table are published before the row is written: the ring relies on it (ring.c). One range needs no array. */
static MqWritten
write_ranges(const MqGroup *group, MqOffsetRow row, const MqRange *ranges, int count)
{
	MqWritten	written;
	Relation	rel;
	int			table;

	written.n = row.n = mq_transaction_next_n(group->queue.db, &table);
	set_bounds(&row, ranges, count);
	rel = open_for(&group->queue, table);
	written.bytes = insert_rows(rel, &row, (int64 *) ranges, count == 1 ? 0 : count * 2);
	table_close(rel, NoLock);
	return written;
}

MqWritten
mq_offset_log_ack(const MqGroup *group, int level, int32 epoch, const MqRange *ranges, int count)
{
	MqOffsetRow row = {.group_no = group->group_no, .level = level, .epoch = epoch};

	return write_ranges(group, row, ranges, count);
}

MqWritten
mq_offset_log_void(const MqGroup *group, int level, int32 epoch, const MqRange *ranges, int count)
{
	MqOffsetRow row = {.group_no = group->group_no, .level = level, .epoch = epoch, .is_void = true, .replay_from = VOID};

	return write_ranges(group, row, ranges, count);
}

void
mq_offset_log_wrote(MqWindow *window, const MqWindowKey *key, MqWritten written)
{
	uint64		oldest = pg_atomic_read_u64(&window->oldest_needed);

	/* the queue may have been dropped; a slot that is reused in just this moment is the worse for one checkpoint */
	if (memcmp(&window->key, key, sizeof(*key)) != 0)
		return;
	(void) pg_atomic_fetch_add_u64(&window->log_bytes, written.bytes);
	while ((oldest == 0 || (uint64) written.n < oldest) &&
		   !pg_atomic_compare_exchange_u64(&window->oldest_needed, &oldest, written.n))
		;
}

MqWritten
mq_offset_log_checkpoint(const MqGroup *group, int level, int32 epoch, int64 low, int64 next_id, int64 replay_from,
						 const MqUnfinished *ranges, int count)
{
	MqOffsetRow row = {.group_no = group->group_no, .level = level, .epoch = epoch, .lo = low, .hi = next_id,
	.is_checkpoint = true, .replay_from = replay_from};
	MqWritten	written;
	Relation	rel;
	int			table;

	written.n = row.n = mq_transaction_next_n(group->queue.db, &table);
	rel = open_for(&group->queue, table);
	written.bytes = insert_rows(rel, &row, (int64 *) ranges, count * 4);
	table_close(rel, NoLock);
	return written;
}

void
mq_offset_log_hand_out(const MqGroup *group, int level, int32 epoch, const MqRange *ranges, int count)
{
	MqOffsetRow row = {.group_no = group->group_no, .level = level, .epoch = epoch, .is_hand_out = true, .replay_from = HAND_OUT};
	Relation	rel;
	int			table;

	row.n = mq_transaction_next_n(group->queue.db, &table);
	set_bounds(&row, ranges, count);
	rel = open_for(&group->queue, table);
	(void) insert_rows(rel, &row, (int64 *) ranges, count == 1 ? 0 : count * 2);
	table_close(rel, NoLock);
	/* it has to be there after a crash, whatever becomes of this transaction */
	XLogFlush(XactLastRecEnd);
}

void
mq_offset_log_mark(MqDatabase *db, bool stop)
{
	MqOffsetRow row = {.is_checkpoint = true, .hi = stop ? 0 : 1};
	Relation	rel;
	int			table;

	row.n = mq_transaction_next_n(db, &table);
	rel = open_table(table, RowExclusiveLock);
	(void) insert_row(rel, &row);
	table_close(rel, NoLock);
}

int
mq_offset_log_lock(void)
{
	int			tables = 0;
	Oid			relid;

	while (tables < MQ_MAX_OFFSET_TABLES && OidIsValid(relid = mq_offset_log_table(tables)))
	{
		LockRelationOid(relid, AccessShareLock);
		tables++;
	}
	return tables;
}

/* Nobody deletes or updates a row but a superuser by hand. */
static bool
is_deleted(HeapTupleHeader header)
{
	if ((header->t_infomask & HEAP_XMAX_INVALID) != 0 || HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask))
		return false;
	return TransactionIdDidCommit(HeapTupleHeaderGetUpdateXid(header));
}

/* False: aborted, or deleted. *xid: who is undecided, 0: committed. Looks in progress before committed, as procarray asks for. */
static bool
row_counts(HeapTupleHeader header, uint64 *xid)
{
	TransactionId xmin = HeapTupleHeaderGetRawXmin(header);

	*xid = 0;
	if (HeapTupleHeaderXminCommitted(header))
		return !is_deleted(header);
	if (HeapTupleHeaderXminInvalid(header))
		return false;
	if (TransactionIdIsCurrentTransactionId(xmin) || TransactionIdIsInProgress(xmin))
	{
		*xid = mq_full_xid(xmin);
		return true;
	}
	return TransactionIdDidCommit(xmin) && !is_deleted(header);
}

/* False: it holds what mq cannot have written. */
static bool
row_from_tuple(HeapTuple tuple, TupleDesc desc, MqOffsetRow *row)
{
	Datum		v[MaxHeapAttributeNumber];
	bool		isnull[MaxHeapAttributeNumber];

	for (int i = 0; i < O_COLUMNS; i++)
	{
		v[i] = heap_getattr(tuple, i + 1, desc, &isnull[i]);
		if (i < O_RANGES - 1 && isnull[i])
			return false;
	}
	row->n = DatumGetInt64(v[O_N - 1]);
	row->group_no = DatumGetInt32(v[O_GROUP - 1]);
	row->level = DatumGetInt32(v[O_LEVEL - 1]);
	row->epoch = DatumGetInt32(v[O_EPOCH - 1]);
	row->lo = DatumGetInt64(v[O_LO - 1]);
	row->hi = DatumGetInt64(v[O_HI - 1]);
	row->replay_from = isnull[O_REPLAY - 1] ? 0 : DatumGetInt64(v[O_REPLAY - 1]);
	row->is_hand_out = row->replay_from == HAND_OUT;
	row->is_void = row->replay_from == VOID;
	row->is_checkpoint = !isnull[O_REPLAY - 1] && !row->is_hand_out && !row->is_void;
	row->nvalues = 0;
	row->values = NULL;
	if (!isnull[O_RANGES - 1])
	{
		ArrayType  *array = DatumGetArrayTypePCopy(v[O_RANGES - 1]);

		if (ARR_HASNULL(array))
			return false;
		row->nvalues = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
		row->values = (int64 *) ARR_DATA_PTR(array);
	}
	return is_sound(row);
}

/* With SnapshotAny: undecided rows are wanted too. What mq cannot have written is passed over, with a WARNING. Keeps the lock. */
static void
scan_table(int table, MqOffsetRowHandler handler, void *arg)
{
	Relation	rel = mq_own_relation_open(mq_offset_log_table(table), AccessShareLock);
	TableScanDesc scan;
	HeapTuple	tuple;
	int64		unsound = 0;

	check_table(rel);
	scan = table_beginscan(rel, SnapshotAny, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		MqOffsetRow row = {.table = table};
		bool		counts;

		CHECK_FOR_INTERRUPTS();
		counts = row_counts(tuple->t_data, &row.xid);
		if (!row_from_tuple(tuple, RelationGetDescr(rel), &row))
			unsound += counts;
		else if (counts || row.is_hand_out)
			handler(&row, arg);
	}
	table_endscan(scan);
	table_close(rel, NoLock);
	if (unsound > 0)
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("offset log table %d of mq has " INT64_FORMAT " rows that mq cannot have written", table, unsound),
				 errdetail("They are passed over: what they say is finished may come again.")));
}

void
mq_offset_log_scan(int tables, MqOffsetRowHandler handler, void *arg)
{
	for (int table = 0; table < tables; table++)
		scan_table(table, handler, arg);
}
