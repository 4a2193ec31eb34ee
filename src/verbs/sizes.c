/*
 * sizes.c: how large the tables of queues are, for the views.
 *
 * From the files alone: PostgreSQL's own functions wait for who has locked the table.
 */
#include "postgres.h"

#include "verbs/sizes.h"

#include <sys/stat.h>

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "common/relpath.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "log/segment.h"
#include "verbs/verbs.h"

/* ---- files ---- */

/* Of all files of the fork; path: that of the main fork. Raises any error of stat but that the file is not there. */
static int64
fork_bytes(const char *path, ForkNumber fork)
{
	const char *suffix = fork == MAIN_FORKNUM ? "" : psprintf("_%s", forkNames[fork]);
	struct stat file;
	int64		bytes = 0;

	for (int part = 0;; part++)
	{
		const char *name = part == 0 ? psprintf("%s%s", path, suffix) : psprintf("%s%s.%d", path, suffix, part);

		if (stat(name, &file) < 0)
		{
			/* it was dropped, rewritten or emptied meanwhile, or there is no more of it */
			if (errno == ENOENT)
				return bytes;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not stat file \"%s\": %m", name)));
		}
		bytes += file.st_size;
		if (file.st_size < (int64) RELSEG_SIZE * BLCKSZ)
			return bytes;
	}
}

/* Where its files are; NULL: it was dropped meanwhile. */
static const char *
path_of(Oid relid)
{
	/* cppcheck-suppress unusedStructMember; a member of PostgreSQL's macro */
	LOCAL_FCINFO(fcinfo, 1);
	Datum		path;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0] = (NullableDatum) {ObjectIdGetDatum(relid), false};
	path = pg_relation_filepath(fcinfo);
	return fcinfo->isnull ? NULL : text_to_cstring(DatumGetTextPP(path));
}

int64
mq_main_bytes(Oid relid)
{
	const char *path = path_of(relid);

	return path == NULL ? 0 : fork_bytes(path, MAIN_FORKNUM);
}

/* 0: it was dropped meanwhile. */
static int64
all_forks_bytes(Oid relid)
{
	const char *path = path_of(relid);
	int64		bytes = 0;

	for (ForkNumber fork = MAIN_FORKNUM; path != NULL && fork <= MAX_FORKNUM; fork++)
		bytes += fork_bytes(path, fork);
	return bytes;
}

/* pg_indexes_size would lock the table: its indexes are looked up in pg_index. */
static int64
with_indexes_bytes(Oid relid)
{
	Relation	rel = table_open(IndexRelationId, AccessShareLock);
	int64		bytes = all_forks_bytes(relid);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_index_indrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, IndexIndrelidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		bytes += all_forks_bytes(((Form_pg_index) GETSTRUCT(tuple))->indexrelid);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return bytes;
}

/* InvalidOid: it has none, or was dropped meanwhile. */
static Oid
toast_of(Oid relid, bool *has_indexes)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			toast;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	toast = ((Form_pg_class) GETSTRUCT(tuple))->reltoastrelid;
	*has_indexes = ((Form_pg_class) GETSTRUCT(tuple))->relhasindex;
	ReleaseSysCache(tuple);
	return toast;
}

/* Most partitions of idle queues are made ahead and empty: all that there is of one is a page of the TOAST table's index. */
static int64
bytes_of(Oid relid)
{
	bool		has_indexes = false;
	Oid			toast = toast_of(relid, &has_indexes);

	if (OidIsValid(toast) && !has_indexes && mq_main_bytes(relid) == 0 && mq_main_bytes(toast) == 0)
		return BLCKSZ;
	return with_indexes_bytes(relid) + (OidIsValid(toast) ? with_indexes_bytes(toast) : 0);
}

/* Names of files are many, and the statement may be long. */
static int64
size_of(Oid relid)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mq size", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64		bytes = bytes_of(relid);

	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return bytes;
}

MQ_FUNCTION(mq_table_bytes);
Datum
mq_table_bytes(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(size_of(PG_GETARG_OID(0)));
}

/* ---- segments ---- */

/* Segments of one queue, ascending, with the bytes of each and all after it. */
typedef struct QueueSizes
{
	int32		queue_no;
	int			count;
	int64	   *segments;
	int64	   *bytes;
} QueueSizes;

struct MqSizes
{
	HTAB	   *queues;			/* of QueueSizes */
	MemoryContext context;
	int64		(*measure) (Oid relid);
};

MqSizes *
mq_sizes_begin(MemoryContext context, int64 (*measure) (Oid relid))
{
	MqSizes    *sizes = MemoryContextAlloc(context, sizeof(MqSizes));
	HASHCTL		ctl;

	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(QueueSizes);
	ctl.hcxt = context;
	sizes->queues = hash_create("mq sizes", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	sizes->context = context;
	sizes->measure = measure;
	return sizes;
}

/* The arrays are in the context of the sizes, and last as long. */
static void
measure_queue(const MqSizes *sizes, QueueSizes *queue)
{
	MqQueue		key = {.queue_no = queue->queue_no};
	int			count;
	MqSegmentInfo *list = mq_segment_list(&key, &count);
	int64		sum = 0;

	queue->segments = MemoryContextAllocHuge(sizes->context, (count + 1) * sizeof(int64));
	queue->bytes = MemoryContextAllocHuge(sizes->context, (count + 1) * sizeof(int64));
	for (int i = count - 1; i >= 0; i--)
	{
		CHECK_FOR_INTERRUPTS();
		if (OidIsValid(list[i].relid))
			sum += sizes->measure(list[i].relid);
		queue->segments[i] = list[i].segment;
		queue->bytes[i] = sum;
	}
	queue->count = count;
	pfree(list);
}

int64
mq_sizes_from(MqSizes *sizes, int32 queue_no, int64 segment)
{
	bool		found;
	QueueSizes *queue = hash_search(sizes->queues, &queue_no, HASH_ENTER, &found);
	int			lo = 0;

	if (!found)
		measure_queue(sizes, queue);
	for (int hi = queue->count; lo < hi;)
	{
		int			middle = (lo + hi) / 2;

		if (queue->segments[middle] < segment)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo < queue->count ? queue->bytes[lo] : 0;
}

/* A queue's groups ask for the same partitions, each in a call of its own. */
MQ_FUNCTION(mq_segment_bytes);
Datum
mq_segment_bytes(PG_FUNCTION_ARGS)
{
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = mq_sizes_begin(fcinfo->flinfo->fn_mcxt, size_of);
	PG_RETURN_INT64(mq_sizes_from(fcinfo->flinfo->fn_extra, PG_GETARG_INT32(0), PG_GETARG_INT64(1)));
}
