/*
 * views.c: the functions behind the views mq.queues, mq.groups and mq.segments.
 *
 * They show only queues on which the caller has some right, or all to roles for monitoring, and cost what they show, not the
 * backlog (of a group with messages that came back with a delay: the entries of those). They wait for nobody's lock on a queue's
 * tables: what cannot be known without is null, sizes are read from the files.
 * A standby shows what is on disk.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/definitions.h"
#include "base/owner.h"
#include "base/stop_point.h"
#include "log/dedup.h"
#include "log/log.h"
#include "log/order.h"
#include "log/page.h"
#include "log/schedule.h"
#include "log/segment_table.h"
#include "offset/bounds.h"
#include "offset/rebuild.h"
#include "verbs/sizes.h"
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

/* Any right on the queue will do, or the right to consume in any of its groups. */
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

/* For mq.queues and mq.segments. */
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
		Datum		v[8];
		bool		isnull[8] = {false};
		MqTail		tail;
		int64		scheduled;
		int64		dedup_ids;
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
		scheduled = isnull[3] ? -1 : mq_schedule_size(&queues[i]);
		isnull[4] = scheduled < 0;
		v[4] = Int64GetDatum(scheduled);
		isnull[7] = isnull[3];
		v[7] = isnull[3] ? (Datum) 0 : Int64GetDatum(mq_bounds_rejected(&queues[i]));
		dedup_ids = isnull[3] ? -1 : mq_dedup_size(&queues[i]);
		isnull[5] = dedup_ids < 0;
		v[5] = Int64GetDatum(dedup_ids);
		isnull[6] = isnull[3];
		v[6] = isnull[3] ? (Datum) 0 : Int64GetDatum((int64) pg_atomic_read_u64(&queues[i].chain->duplicates));
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

/* ---- how many rows there can be ---- */

/* A row of a message has at least a header, id, time, and something to say. */
#define MIN_ROW_BYTES (MAXALIGN(SizeofHeapTupleHeader) + 3 * sizeof(int64) + sizeof(ItemIdData))

/* How many rows there can be in the segments from that of an id on, by their size. */
static int64
rows_that_fit(const MqQueue *queue, int64 id, MqSizes *sizes)
{
	return mq_sizes_from(sizes, queue->queue_no, mq_segment_of(id, queue->segment_size)) / (int64) MIN_ROW_BYTES;
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

/* The window lock is held for some entries at a time: not all are of one moment. */
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

/* columns of mq_internal.group_state */
enum
{
	G_GROUP_NO, G_RIGHTS, G_EPOCH, G_LOW_WATERMARK, G_NEXT_ID, G_READY, G_RETRYING, G_LEASED, G_SETTLING, G_DEAD, G_PENDING, G_UNREAD,
	G_OLDEST_READY_AT, G_OLDEST_UNFINISHED_AT, G_OLDEST_DEAD_AT, G_NEXT_DUE_AT, G_HELD_BACK, G_WAITING, G_OVERFLOWED, G_COLUMNS
};

/*
 * Ids that were given and not looked at. Which of them a start passed over is known for the last starts of the segments' appends only;
 * what is left of a log from before this start can be no more than fits on its pages.
 */
static int64
unread_at_most(const MqGroup *group, const MqWindowCounts *counts, MqSizes *sizes)
{
	int64		unread = counts->ids[MQ_UNREAD] + mq_log_ids_from(&group->queue, 0, counts->next_id);

	if (unread == 0 || counts->low_watermark >= group->queue.chain->first_id)
		return unread;
	return Min(unread, rows_that_fit(&group->queue, counts->low_watermark, sizes));
}

/* What is known of a group whose window is in memory. */
static void
put_counts(const MqGroup *group, const MqWindowRef *ref, const MqWindowCounts *counts, MqSizes *sizes, Datum *v, bool *isnull)
{
	MqDelayed	delayed = delayed_of(ref);
	int64		unread = unread_at_most(group, counts, sizes);

	v[G_EPOCH] = Int32GetDatum(counts->epoch);
	v[G_LOW_WATERMARK] = Int64GetDatum(counts->low_watermark);
	v[G_NEXT_ID] = Int64GetDatum(counts->next_id);
	/* counted a moment later, and some may have come back meanwhile */
	v[G_READY] = Int64GetDatum(Max(counts->ids[MQ_READY] - delayed.count, 0));
	v[G_RETRYING] = Int64GetDatum(delayed.count);
	v[G_LEASED] = Int64GetDatum(counts->ids[MQ_LEASED]);
	v[G_SETTLING] = Int64GetDatum(counts->ids[MQ_SETTLING]);
	v[G_DEAD] = Int64GetDatum(counts->ids[MQ_DEAD]);
	v[G_PENDING] = Int64GetDatum(counts->pending);
	v[G_UNREAD] = Int64GetDatum(unread);
	put_oldest(&group->queue, counts, unread, &v[G_OLDEST_READY_AT], &isnull[G_OLDEST_READY_AT]);
	put_time(&v[G_OLDEST_DEAD_AT], &isnull[G_OLDEST_DEAD_AT], counts->ids[MQ_DEAD] > 0 ? time_of(&group->queue, counts->oldest_dead) : 0);
	put_time(&v[G_NEXT_DUE_AT], &isnull[G_NEXT_DUE_AT], delayed.count > 0 ? delayed.next_due : 0);
	v[G_HELD_BACK] = Int64GetDatum(counts->held_back);
	v[G_WAITING] = Int64GetDatum(counts->waiting);
	v[G_OVERFLOWED] = Int64GetDatum(counts->overflowed);
}

/* For mq.groups. Where the window cannot be shown all from low_watermark on is null. */
MQ_FUNCTION(mq_group_state);
Datum
mq_group_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		all = mq_view_sees_all();
	MqSizes    *sizes = mq_sizes_begin(CurrentMemoryContext, mq_main_bytes);
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
			put_counts(&groups[i], &ref, &counts, sizes, v, isnull);
		else
			memset(isnull + G_LOW_WATERMARK, true, (G_COLUMNS - G_LOW_WATERMARK) * sizeof(bool));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, isnull);
	}
	return (Datum) 0;
}

/* ---- segments ---- */

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

/* ---- failures ---- */

/* Null: the caller may not see the group. Whether reasons, too. */
MQ_FUNCTION(mq_group_sight);
Datum
mq_group_sight(PG_FUNCTION_ARGS)
{
	MqGroup		group;

	if (!mq_group_by_number(PG_GETARG_INT32(0), &group) || !mq_view_may_see(&group, mq_view_sees_all()))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(mq_has_right(&group.queue, MQ_RIGHT_BROWSE));
}
