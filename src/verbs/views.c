/*
 * views.c: the functions behind the views mq.queues, mq.groups and mq.segments.
 *
 * They show only queues on which the caller has some right, or all to roles for monitoring, and cost what they show, not the
 * backlog (of a group with messages that came back with a delay: the entries of those). They wait for nobody's lock on a queue's
 * tables: what cannot be known without is null, sizes are read from the files.
 * A standby shows what is on disk.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "common/relpath.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/definitions.h"
#include "base/owner.h"
#include "base/stop_point.h"
#include "log/log.h"
#include "log/order.h"
#include "log/page.h"
#include "log/segment_table.h"
#include "offset/rebuild.h"
#include "verbs/verbs.h"
#include "verbs/views.h"



/* A role for monitoring sees that there is something and how much of it, never what is in a message. */
bool
mq_view_sees_all(void)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

bool
mq_view_may_see(const MqGroup *group, bool all)
{
	return all || mq_has_right(&group->queue, MQ_RIGHT_BROWSE | MQ_RIGHT_MANAGE) || mq_may_consume(group);
}

static bool
may_see_queue(const MqQueue *queue, bool all)
{
	int			count;
	MqGroup    *groups;

	if (all || mq_has_right(queue, MQ_RIGHT_SEND | MQ_RIGHT_BROWSE | MQ_RIGHT_MANAGE))
		return true;
	groups = mq_groups_of(queue, &count);
	for (int i = 0; i < count; i++)
		if (mq_may_consume(&groups[i]))
			return true;
	return false;
}

/*
 * Whether what is in shared memory of the queue can be shown: not on a standby, nor where there is no room for it, nor while
 * the worker takes over another table, nor, when nobody has used the queue since the start, while somebody has locked its
 * tables. The view then has nulls: that it is not known is not that it is nothing.
 */
static bool
attach_to_show(MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	if (RecoveryInProgress() || queue->replaced || (mq_chain_slot(&key, false, NULL) == NULL && mq_chains_are_full()))
		return false;
	return mq_attach_queue_at_once(queue);
}

MQ_FUNCTION(mq_queue_state);
Datum
mq_queue_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		all = mq_view_sees_all();
	int			count;
	MqQueue    *queues;

	InitMaterializedSRF(fcinfo, 0);
	queues = mq_queues_all(&count);
	MQ_STOP_POINT("queues_listed");
	for (int i = 0; i < count; i++)
	{
		Datum		v[4];
		bool		isnull[4] = {false};
		MqTail		tail;
		Oid			owner;

		CHECK_FOR_INTERRUPTS();
		if (!may_see_queue(&queues[i], all))
			continue;
		owner = mq_queue_owner_if_there(&queues[i]);
		/* dropped a moment ago */
		if (!OidIsValid(owner))
			continue;
		v[0] = Int32GetDatum(queues[i].queue_no);
		v[1] = ObjectIdGetDatum(queues[i].table);
		v[2] = ObjectIdGetDatum(owner);
		isnull[3] = !attach_to_show(&queues[i]) || !mq_log_tail(&queues[i], 0, &tail);
		v[3] = isnull[3] ? (Datum) 0 : Int64GetDatum(tail.next_id);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, isnull);
	}
	return (Datum) 0;
}

bool
mq_view_attach(MqGroup *group, MqWindowRef *ref, bool *fits)
{
	MqWindowKey key = mq_window_key(group, 0);

	if (!attach_to_show(&group->queue) || (mq_window_slot(&key, false, NULL) == NULL && mq_windows_are_full()))
		return false;
	*fits = mq_attach_group_if_it_fits(group);
	*ref = (MqWindowRef) {group->window, key};
	return group->window != NULL;
}

/* ---- sizes of files ---- */

/* What PostgreSQL's functions say, but from the files alone: those functions wait for who has locked the table. */
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

static int64
main_bytes(Oid relid)
{
	const char *path = path_of(relid);

	return path == NULL ? 0 : fork_bytes(path, MAIN_FORKNUM);
}

/* A row of a message has at least a header, id, time, and something to say. */
#define MIN_ROW_BYTES (MAXALIGN(SizeofHeapTupleHeader) + 3 * sizeof(int64) + sizeof(ItemIdData))

/* How many rows there can be in the segments from that of an id on, by their size. */
static int64
rows_that_fit(const MqQueue *queue, int64 id)
{
	int			count;
	MqSegmentInfo *segments = mq_segment_list(queue, &count);
	int64		bytes = 0;

	for (int i = 0; i < count; i++)
		if (OidIsValid(segments[i].relid) && segments[i].segment >= mq_segment_of(id, queue->segment_size))
			bytes += main_bytes(segments[i].relid);
	pfree(segments);
	return bytes / (int64) MIN_ROW_BYTES;
}

/* ---- when a message came ---- */

#define PAGES_TO_LOOK_AT 8

/* When the first message that the statement sees from an id on was appended to the segment; 0: none is near. */
static TimestampTz
time_in_segment(Relation rel, bool ordered, int64 id)
{
	static MqFetched rows[MQ_PAGE_ROWS];
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);
	BlockNumber first = ordered ? mq_log_locate(rel, id) : 0;
	TimestampTz time = 0;

	for (BlockNumber block = first; block < blocks && block - first < PAGES_TO_LOOK_AT && time == 0; block++)
	{
		Buffer		buffer;
		int64		page_max;
		int			count = mq_log_fetch_page(rel, block, id, PG_INT64_MAX, GetActiveSnapshot(), rows, &buffer, &page_max);

		for (int i = 0; i < count && time == 0; i++)
		{
			bool		isnull;

			if (rows[i].sight == MQ_SEEN)
				time = DatumGetTimestampTz(heap_getattr(&rows[i].tuple, MQ_COL_ENQUEUED_AT, mq_plain_row_descriptor(), &isnull));
		}
		ReleaseBuffer(buffer);
	}
	return time;
}

/* When the message with that id, or else the next one, came. Costs a few pages, however long the log is. 0: not known, or locked. */
static TimestampTz
time_of(const MqQueue *queue, int64 id)
{
	int64		segment = mq_segment_of(id, queue->segment_size);
	Relation	rel = mq_segment_open_at_once(queue, 0, segment);
	TimestampTz time;

	if (rel == NULL)
		return 0;
	time = time_in_segment(rel, mq_order_holds(queue, 0, segment, rel), id);
	relation_close(rel, AccessShareLock);
	return time;
}

static void
put_time(Datum *value, bool *isnull, TimestampTz time)
{
	*value = TimestampTzGetDatum(time);
	*isnull = time == 0;
}

/* ---- groups ---- */

static MqDelayed
delayed_of(const MqWindowRef *ref)
{
	TimestampTz now = GetCurrentTimestamp();
	MqDelayed	delayed = {.from = PG_INT64_MIN,.next_due = PG_INT64_MAX};

	while (mq_window_count_delayed(ref, now, &delayed))
		CHECK_FOR_INTERRUPTS();
	return delayed;
}

/* The times of the oldest messages: of that which is ready, and of that which is unfinished. */
static void
put_oldest(const MqQueue *queue, const MqWindowCounts *counts, int64 unread, Datum *v, bool *isnull)
{
	bool		unfinished = counts->low_watermark < counts->next_id || unread > 0;
	TimestampTz first = unfinished ? time_of(queue, counts->low_watermark) : 0;
	TimestampTz ready = first;

	if (counts->oldest_ready >= counts->next_id && unread == 0)
		ready = 0;
	else if (counts->oldest_ready != counts->low_watermark)
		ready = time_of(queue, counts->oldest_ready);
	put_time(&v[0], &isnull[0], ready);
	put_time(&v[1], &isnull[1], first);
}

enum
{
	G_GROUP_NO, G_RIGHTS, G_EPOCH, G_LOW_WATERMARK, G_NEXT_ID, G_READY, G_RETRYING, G_LEASED, G_SETTLING, G_PENDING, G_UNREAD,
	G_OLDEST_READY_AT, G_OLDEST_UNFINISHED_AT, G_NEXT_DUE_AT, G_HELD_BACK, G_WAITING, G_COLUMNS
};

/*
 * Ids that were given and not looked at. Which of them a start passed over is known for the last starts of the segments' appends only;
 * what is left of a log from before this start can be no more than fits on its pages.
 */
static int64
unread_at_most(const MqGroup *group, const MqWindowCounts *counts)
{
	int64		unread = counts->ids[MQ_UNREAD] + mq_log_ids_from(&group->queue, 0, counts->next_id);

	if (unread == 0 || counts->low_watermark >= group->queue.chain->first_id)
		return unread;
	return Min(unread, rows_that_fit(&group->queue, counts->low_watermark));
}

/* What is known of a group whose window is in memory. */
static void
put_counts(const MqGroup *group, const MqWindowRef *ref, const MqWindowCounts *counts, Datum *v, bool *isnull)
{
	MqDelayed	delayed = delayed_of(ref);
	int64		unread = unread_at_most(group, counts);

	v[G_EPOCH] = Int32GetDatum(counts->epoch);
	v[G_LOW_WATERMARK] = Int64GetDatum(counts->low_watermark);
	v[G_NEXT_ID] = Int64GetDatum(counts->next_id);
	/* counted a moment later, and some may have come back meanwhile */
	v[G_READY] = Int64GetDatum(Max(counts->ids[MQ_READY] - delayed.count, 0));
	v[G_RETRYING] = Int64GetDatum(delayed.count);
	v[G_LEASED] = Int64GetDatum(counts->ids[MQ_LEASED]);
	v[G_SETTLING] = Int64GetDatum(counts->ids[MQ_SETTLING]);
	v[G_PENDING] = Int64GetDatum(counts->pending);
	v[G_UNREAD] = Int64GetDatum(unread);
	put_oldest(&group->queue, counts, unread, &v[G_OLDEST_READY_AT], &isnull[G_OLDEST_READY_AT]);
	put_time(&v[G_NEXT_DUE_AT], &isnull[G_NEXT_DUE_AT], delayed.count > 0 ? delayed.next_due : 0);
	v[G_HELD_BACK] = Int64GetDatum(counts->held_back);
	v[G_WAITING] = Int64GetDatum(counts->waiting);
}

MQ_FUNCTION(mq_group_state);
Datum
mq_group_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		all = mq_view_sees_all();
	int			count;
	MqGroup    *groups;

	InitMaterializedSRF(fcinfo, 0);
	groups = mq_groups_all(&count);
	for (int i = 0; i < count; i++)
	{
		Datum		v[G_COLUMNS] = {0};
		bool		isnull[G_COLUMNS] = {false};
		MqWindowCounts counts;
		MqWindowRef ref;
		bool		fits;

		CHECK_FOR_INTERRUPTS();
		if (!mq_view_may_see(&groups[i], all))
			continue;
		v[G_GROUP_NO] = Int32GetDatum(groups[i].group_no);
		v[G_RIGHTS] = ObjectIdGetDatum(groups[i].rights);
		v[G_EPOCH] = Int32GetDatum(groups[i].epoch);
		if (mq_view_attach(&groups[i], &ref, &fits) && mq_window_counts(&ref, &counts))
			put_counts(&groups[i], &ref, &counts, v, isnull);
		else
			memset(isnull + G_LOW_WATERMARK, true, (G_COLUMNS - G_LOW_WATERMARK) * sizeof(bool));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, isnull);
	}
	return (Datum) 0;
}

/* ---- sizes ---- */

/* Segments of one queue, ascending, with the bytes of each and all after it. For one statement. */
typedef struct Sizes
{
	int32		queue_no;
	int			count;
	int64	   *segments;
	int64	   *bytes;
} Sizes;

static int64
all_forks_bytes(Oid relid)
{
	const char *path = path_of(relid);
	int64		bytes = 0;

	for (ForkNumber fork = MAIN_FORKNUM; path != NULL && fork <= MAX_FORKNUM; fork++)
		bytes += fork_bytes(path, fork);
	return bytes;
}

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

static Oid
toast_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			toast;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	toast = ((Form_pg_class) GETSTRUCT(tuple))->reltoastrelid;
	ReleaseSysCache(tuple);
	return toast;
}

/* Most partitions of idle queues are made ahead and empty: all that there is of one is a page of the TOAST table's index. */
static int64
bytes_of(Oid relid)
{
	Oid			toast = toast_of(relid);

	if (OidIsValid(toast) && main_bytes(relid) == 0 && main_bytes(toast) == 0)
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

static void
measure(Sizes *sizes, MemoryContext context)
{
	MqQueue		queue = {.queue_no = sizes->queue_no};
	int			count;
	MqSegmentInfo *list = mq_segment_list(&queue, &count);
	int64		sum = 0;

	sizes->count = count;
	sizes->segments = MemoryContextAlloc(context, (count + 1) * sizeof(int64));
	sizes->bytes = MemoryContextAlloc(context, (count + 1) * sizeof(int64));
	for (int i = count - 1; i >= 0; i--)
	{
		CHECK_FOR_INTERRUPTS();
		if (OidIsValid(list[i].relid))
			sum += size_of(list[i].relid);
		sizes->segments[i] = list[i].segment;
		sizes->bytes[i] = sum;
	}
	pfree(list);
}

static HTAB *
sizes_of_statement(FmgrInfo *flinfo)
{
	HASHCTL		ctl;

	if (flinfo->fn_extra == NULL)
	{
		ctl.keysize = sizeof(int32);
		ctl.entrysize = sizeof(Sizes);
		ctl.hcxt = flinfo->fn_mcxt;
		flinfo->fn_extra = hash_create("mq sizes", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	return flinfo->fn_extra;
}

/* A queue's groups ask for the same partitions: each is measured once in a statement. */
MQ_FUNCTION(mq_segment_bytes);
Datum
mq_segment_bytes(PG_FUNCTION_ARGS)
{
	int32		queue_no = PG_GETARG_INT32(0);
	int64		from = PG_GETARG_INT64(1);
	bool		found;
	Sizes	   *sizes = hash_search(sizes_of_statement(fcinfo->flinfo), &queue_no, HASH_ENTER, &found);
	int			lo = 0;

	if (!found)
		measure(sizes, fcinfo->flinfo->fn_mcxt);
	for (int hi = sizes->count; lo < hi;)
	{
		int			middle = (lo + hi) / 2;

		if (sizes->segments[middle] < from)
			lo = middle + 1;
		else
			hi = middle;
	}
	PG_RETURN_INT64(lo < sizes->count ? sizes->bytes[lo] : 0);
}

/* By name, as everything that uses it. */
MQ_FUNCTION(mq_segment_table);
Datum
mq_segment_table(PG_FUNCTION_ARGS)
{
	MqQueue		queue = {.queue_no = PG_GETARG_INT32(0)};
	char		name[NAMEDATALEN];
	Oid			relid;

	mq_segment_name(name, &queue, PG_GETARG_INT32(1), PG_GETARG_INT64(2));
	relid = get_relname_relid(name, mq_extension(false)->internal);

	if (!OidIsValid(relid))
		PG_RETURN_NULL();
	PG_RETURN_OID(relid);
}

MQ_FUNCTION(mq_table_bytes);
Datum
mq_table_bytes(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(size_of(PG_GETARG_OID(0)));
}
