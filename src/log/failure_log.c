/*
 * failure_log.c: why messages failed, on disk. See failure_log.h; the worker writes it (job_failures.c).
 *
 * Tables are read by their indexes, without SQL, whose plan over all of them would cost more than the look. A row counts if a snapshot of
 * now sees it: so read, no serializable transaction fails for it.
 */
#include "postgres.h"

#include "log/failure_log.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "log/own_table.h"
#include "log/page.h"

/* Columns of a row. */
enum
{
	F_GROUP_NO = 1, F_BLOCK, F_LO, F_HI, F_AT, F_DUE_AT, F_KIND, F_SQLSTATE, F_REASON, F_CONSUMER, F_ATTEMPT, F_FAILURES,
	F_COLUMNS = F_FAILURES
};

static const Oid column_types[F_COLUMNS] = {
	INT4OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID
};

/* What is looked for, and what is found so far. */
typedef struct ReasonSearch
{
	int32		group_no;
	const int64 *ids;			/* ascending */
	int			count;
	Snapshot	snapshot;
	TimestampTz *at;			/* of the failure that counts; 0: none yet */
	char	  **reasons;
} ReasonSearch;

int
mq_failure_table_of(TimestampTz time)
{
	return (int) (time / USECS_PER_DAY % MQ_FAILURE_TABLES);
}

Oid
mq_failure_table(int table)
{
	return get_relname_relid(psprintf("failure_%d", table), mq_extension(false)->internal);
}

/* Of the ids from..to - 1, which lie in the row's block, those that the row is about get its reason if it is the later one. */
static void
take_row(ReasonSearch *search, TupleTableSlot *slot, int from, int to)
{
	int64		lo;
	int64		hi;
	TimestampTz at;

	slot_getallattrs(slot);
	lo = DatumGetInt64(slot->tts_values[F_LO - 1]);
	hi = DatumGetInt64(slot->tts_values[F_HI - 1]);
	at = DatumGetTimestampTz(slot->tts_values[F_AT - 1]);
	for (int i = from; i < to; i++)
	{
		if (search->ids[i] < lo || search->ids[i] > hi || search->at[i] >= at)
			continue;
		search->at[i] = at;
		search->reasons[i] = slot->tts_isnull[F_REASON - 1] ? NULL : TextDatumGetCString(slot->tts_values[F_REASON - 1]);
	}
}

static void
search_block(ReasonSearch *search, IndexScanDesc scan, TupleTableSlot *slot, int from, int to)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(search->group_no));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(search->ids[from] / MQ_FAILURE_BLOCK));
	index_rescan(scan, keys, 2, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (mq_slot_is_visible(slot, search->snapshot))
			take_row(search, slot, from, to);
	}
}

/* The table has a page. */
static void
search_table(ReasonSearch *search, Relation rel)
{
	Relation	index = mq_own_index_open(rel, "block");
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = MqIndexBeginScan(rel, index, SnapshotAny, 2);
	int			to;

	for (int from = 0; from < search->count; from = to)
	{
		for (to = from + 1; to < search->count && search->ids[to] / MQ_FAILURE_BLOCK == search->ids[from] / MQ_FAILURE_BLOCK; to++)
			;
		search_block(search, scan, slot, from, to);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
}

char	  **
mq_failure_reasons(int32 group_no, const int64 *ids, int count)
{
	ReasonSearch search = {group_no, ids, count};

	search.at = palloc0(count * sizeof(TimestampTz));
	search.reasons = palloc0(count * sizeof(char *));
	search.snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < MQ_FAILURE_TABLES; i++)
	{
		Relation	rel = mq_own_table_open(mq_failure_table(i), AccessShareLock, column_types, F_COLUMNS);

		if (RelationGetNumberOfBlocks(rel) > 0)
			search_table(&search, rel);
		relation_close(rel, AccessShareLock);
	}
	UnregisterSnapshot(search.snapshot);
	pfree(search.at);
	return search.reasons;
}
