/*
 * schedule_scan.c: the schedule in the order of due times. See schedule.h.
 *
 * A scan merges the tables, each read by its index (queue_no, due_at, id) from a place on: what was moved or cancelled before that place
 * is not passed again, though its entries stay in the index as long as somebody's snapshot does. Rows are judged as they are, not by a
 * snapshot, so a scan learns of those that are undecided. Locks: those that the caller has taken on the tables; here ROW EXCLUSIVE,
 * which it must hold if it shall not wait.
 */
#include "postgres.h"

#include "log/schedule.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/skey.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "log/own_table.h"
#include "log/schedule_table.h"

/* One table's next row. */
typedef struct Head
{
	int			table;
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	SnapshotData dirty;			/* tells, of each row, who is undecided */
	TupleTableSlot *slot;
	bool		ended;
	MqDueRow	row;
} Head;

struct MqScheduleScan
{
	int			count;
	int			current;		/* -1: none yet */
	MqDuePlace	behind;
	ScanKeyData place[2];		/* (due_at, id) > behind */
	ScanKeyData keys[2];
	Head		heads[MQ_SCHEDULE_TABLES];
};

/* The keys point into the scan. */
static void
make_keys(MqScheduleScan *scan, int32 queue_no)
{
	ScanKeyInit(&scan->keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_no));
	ScanKeyEntryInitialize(&scan->place[0], SK_ROW_MEMBER, 2, BTGreaterStrategyNumber, InvalidOid, InvalidOid,
						   F_TIMESTAMPTZ_CMP, TimestampTzGetDatum(scan->behind.due));
	ScanKeyEntryInitialize(&scan->place[1], SK_ROW_MEMBER | SK_ROW_END, 3, BTGreaterStrategyNumber, InvalidOid, InvalidOid,
						   F_BTINT8CMP, Int64GetDatum(scan->behind.id));
	memset(&scan->keys[1], 0, sizeof(ScanKeyData));
	scan->keys[1].sk_flags = SK_ROW_HEADER;
	scan->keys[1].sk_attno = 2;
	scan->keys[1].sk_strategy = BTGreaterStrategyNumber;
	scan->keys[1].sk_argument = PointerGetDatum(scan->place);
}

static void
advance(Head *head)
{
	bool		isnull;

	head->ended = !index_getnext_slot(head->scan, ForwardScanDirection, head->slot);
	if (head->ended)
		return;
	head->row.place.due = DatumGetTimestampTz(slot_getattr(head->slot, MQ_SCHED_DUE_AT, &isnull));
	head->row.place.id = DatumGetInt64(slot_getattr(head->slot, MQ_SCHED_ID, &isnull));
	head->row.sender = head->dirty.xmin;
	head->row.table = head->table;
}

/* Tables without a page are left out. */
static void
add_table(MqScheduleScan *scan, int table)
{
	Head	   *head = &scan->heads[scan->count];

	head->table = table;
	head->rel = mq_schedule_open(table, RowExclusiveLock);
	if (RelationGetNumberOfBlocks(head->rel) == 0)
	{
		relation_close(head->rel, NoLock);
		return;
	}
	scan->count++;
	head->index = mq_own_index_open(head->rel, "due");
	head->slot = table_slot_create(head->rel, NULL);
	InitDirtySnapshot(head->dirty);
	head->scan = MqIndexBeginScan(head->rel, head->index, &head->dirty, 2);
	index_rescan(head->scan, scan->keys, 2, NULL, 0);
	advance(head);
}

MqScheduleScan *
mq_schedule_scan_begin(int32 queue_no, MqDuePlace behind, MqScheduleTier tier)
{
	MqScheduleScan *scan = palloc0(sizeof(MqScheduleScan));

	scan->current = -1;
	scan->behind = behind;
	make_keys(scan, queue_no);
	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		if (tier == MQ_SCHEDULE_ALL || mq_schedule_tier_of(i) == tier)
			add_table(scan, i);
	return scan;
}

static bool
comes_before(const MqDuePlace *a, const MqDuePlace *b)
{
	return a->due != b->due ? a->due < b->due : a->id < b->id;
}

bool
mq_schedule_scan_next(MqScheduleScan *scan, MqDueRow *row)
{
	if (scan->current >= 0)
		advance(&scan->heads[scan->current]);
	scan->current = -1;
	for (int i = 0; i < scan->count; i++)
		if (!scan->heads[i].ended &&
			(scan->current < 0 || comes_before(&scan->heads[i].row.place, &scan->heads[scan->current].row.place)))
			scan->current = i;
	if (scan->current < 0)
		return false;
	*row = scan->heads[scan->current].row;
	return true;
}

void
mq_schedule_scan_values(MqScheduleScan *scan, MqScheduledRow *row)
{
	const Head *head = &scan->heads[scan->current];

	mq_schedule_row_from(row, head->slot, head->table);
}

MqTaken
mq_schedule_scan_take(MqScheduleScan *scan, TransactionId *deleter)
{
	const Head *head = &scan->heads[scan->current];
	ItemPointerData tid = head->slot->tts_tid;
	TM_FailureData failure;
	TM_Result	result = heap_delete(head->rel, &tid, GetCurrentCommandId(true), InvalidSnapshot, false, &failure, false);

	/* what the failure says may be the number of several that have only locked the row */
	*deleter = head->dirty.xmax;
	return result == TM_Ok ? MQ_TAKEN : result == TM_BeingModified ? MQ_BUSY : MQ_TAKEN_BY_OTHERS;
}

void
mq_schedule_scan_end(MqScheduleScan *scan)
{
	for (int i = 0; i < scan->count; i++)
	{
		Head	   *head = &scan->heads[i];

		index_endscan(head->scan);
		ExecDropSingleTupleTableSlot(head->slot);
		index_close(head->index, NoLock);
		relation_close(head->rel, NoLock);
	}
	pfree(scan);
}
