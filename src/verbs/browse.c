/*
 * browse.c: mq.browse: a look at the messages of a group in some states, without taking any.
 *
 * Which ids are in which state is copied from the window a lot at a time, under its lock; the rows are read after it, with the
 * calling statement's snapshot. So a row may have moved on by the time it is shown, as with any look at a queue.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "log/failure_log.h"
#include "log/order.h"
#include "log/page.h"
#include "log/schedule.h"
#include "log/segment_table.h"
#include "offset/rebuild.h"
#include "verbs/verbs.h"
#include "window/settle.h"
#include "window/walk.h"

#define RANGES_PER_LOOK 256

/* The states of a message, the same list everywhere. No message is in some of them yet. */
typedef enum BrowseState
{
	BROWSE_SCHEDULED, BROWSE_READY, BROWSE_RETRYING, BROWSE_BLOCKED, BROWSE_LEASED, BROWSE_SETTLING, BROWSE_DEAD, BROWSE_EXPIRED,
	BROWSE_FILTERED, BROWSE_FINISHED
} BrowseState;

/* In the order of BrowseState. */
static const char *const state_names[] = {
	"scheduled", "ready", "retrying", "blocked", "leased", "settling", "dead", "expired", "filtered", "finished"
};

#define STATE_BIT(state) (1u << (state))
#define UNFINISHED (STATE_BIT(BROWSE_FINISHED) - 1)

/* attributes of mq.browsed */
enum
{
	B_QUEUE, B_GROUP, B_ID, B_PAYLOAD, B_HEADERS, B_BODY, B_KEY, B_ROUTING_KEY, B_PRIORITY, B_ATTEMPT, B_FAILURES,
	B_LAST_REASON, B_SENT_AT, B_ENQUEUED_AT, B_DUE_AT, B_EXPIRES_AT, B_LEASE_UNTIL, B_ORIGIN_QUEUE, B_ORIGIN_ID, B_DEDUP_ID,
	B_DEATH, B_REPLY_WANTED, B_STATE, B_CONSUMER, B_LEASED_AT, B_FIRST_RECEIVED_AT, B_COLUMNS
};

/* Ids that are in one of the states, and what the window knows of them. */
typedef struct BrowseRange
{
	int64		lo;
	int64		hi;
	BrowseState state;
	uint64		token;			/* LEASED, SETTLING; 0: was discarded */
	TimestampTz due;			/* or end of the lease; 0: none */
	uint16		attempts;
	uint16		failures;
	char		consumer[MQ_NAME_LENGTH_MAX + 1];
} BrowseRange;

/* Where a row is. */
typedef struct Place
{
	int64		id;
	BlockNumber block;
} Place;

/* One call of mq.browse. */
typedef struct Browse
{
	MqGroup		group;
	MqWindowRef ref;
	uint32		states;			/* bit mask of those wanted */
	TimestampTz now;
	int64		next_id;		/* of the log */
	int			left;			/* messages still wanted */
	Snapshot	snapshot;
	ReturnSetInfo *result;
	MemoryContext row_context;
	Oid			placed;			/* segment of which the places are known, for it is not in the order of ids; locked */
	Place	   *places;			/* of the rows that the snapshot sees, ascending */
	int64		nplaces;
	int64		room_places;
	MqScheduledRow *scheduled;	/* by id */
	int			nscheduled;
	int			next_scheduled;	/* that was not shown yet */
	Datum		queue_name;
	Datum		group_name;
} Browse;

/* ---- what the window says ---- */

/* An unread range counts as ready (or retrying, or dead): which of its ids are messages is seen when the rows are read. */
static BrowseState
state_of(const Browse *b, const MqNode *n)
{
	if (n->state == MQ_LEASED)
		return BROWSE_LEASED;
	if (n->state == MQ_SETTLING)
		return BROWSE_SETTLING;
	if (n->due == MQ_DUE_NEVER)
		return BROWSE_DEAD;
	return n->due > b->now ? BROWSE_RETRYING : BROWSE_READY;
}

/*
 * A copy of an entry from id `from` on, as far as the log reaches. The caller holds the window lock, which keeps the name's cell.
 */
static void
range_from_node(const Browse *b, BrowseRange *range, const MqNode *n, int64 from)
{
	memset(range, 0, sizeof(*range));
	range->lo = Max(n->lo, from);
	range->hi = Min(n->hi, b->next_id - 1);
	range->state = state_of(b, n);
	range->due = n->state == MQ_SETTLING && !mq_has_lease_end(n) ? 0 : n->due;
	range->attempts = n->attempts;
	range->failures = n->failures;
	if (n->state != MQ_LEASED && n->state != MQ_SETTLING)
		return;
	range->token = n->token;
	if (n->consumer != 0)
		strlcpy(range->consumer, MqConsumerAt(n->consumer)->name, sizeof(range->consumer));
}

/* The next ranges from id on; *id moves behind what was looked at, or to the end if the group was dropped meanwhile. */
static int
look(const Browse *b, int64 *id, BrowseRange *ranges)
{
	int			count = 0;

	if (!mq_window_lock(&b->ref, LW_SHARED))
	{
		*id = b->next_id;
		return 0;
	}
	/* entries in other states are not copied, but they take time under the lock too */
	for (int looked = 0; *id < b->next_id && count < RANGES_PER_LOOK && looked < 64 * RANGES_PER_LOOK; looked++)
	{
		uint32		node = mq_tree_seek(b->ref.window, *id);
		int64		lo = node == 0 ? b->next_id : Min(MqNodeAt(node)->lo, b->next_id);

		/* what is in no range is finished (or was sent by somebody who is undecided, and then not visible) */
		if (lo > *id && (b->states & STATE_BIT(BROWSE_FINISHED)) != 0)
			ranges[count++] = (BrowseRange) {.lo = *id,.hi = lo - 1,.state = BROWSE_FINISHED};
		else if (lo <= *id && (b->states & STATE_BIT(state_of(b, MqNodeAt(node)))) != 0)
			range_from_node(b, &ranges[count++], MqNodeAt(node), *id);
		*id = lo > *id ? lo : MqNodeAt(node)->hi == PG_INT64_MAX ? b->next_id : MqNodeAt(node)->hi + 1;
	}
	mq_window_unlock(&b->ref);
	return count;
}

/* What decided senders sent is kept apart until it is read again; and leases may be over. */
static void
settle(const Browse *b)
{
	while (mq_window_expire(&b->ref, b->now))
		CHECK_FOR_INTERRUPTS();
	(void) mq_walk_settle(&b->ref);
	while (b->ref.window->rewalk != 0 && mq_walk(&b->group, &b->ref, PG_INT32_MAX))
		CHECK_FOR_INTERRUPTS();
}

/* ---- rows ---- */

/* Adds a row to the result. Of a finished message the window knows neither attempts nor failures: null. */
static void
emit(Browse *b, const BrowseRange *range, HeapTuple tuple, int64 id)
{
	static const struct
	{
		int			to;
		MqColumn	from;
	}			copied[] = {
		{B_ENQUEUED_AT, MQ_COL_ENQUEUED_AT}, {B_SENT_AT, MQ_COL_ENQUEUED_AT}, {B_HEADERS, MQ_COL_HEADERS},
		{B_PAYLOAD, MQ_COL_PAYLOAD}, {B_BODY, MQ_COL_BODY}, {B_SENT_AT, MQ_COL_SENT_AT}, {B_DUE_AT, MQ_COL_DUE_AT},
		{B_EXPIRES_AT, MQ_COL_EXPIRES_AT}, {B_ORIGIN_ID, MQ_COL_ORIGIN_ID}, {B_LAST_REASON, MQ_COL_REASON}, {B_DEATH, MQ_COL_DEATH},
		{B_DEDUP_ID, MQ_COL_DEDUP_ID}
	};
	Datum		v[MQ_COLUMNS];
	bool		n[MQ_COLUMNS];
	Datum		out[B_COLUMNS] = {0};
	bool		isnull[B_COLUMNS];
	const char *reason;
	bool		in_flight = range->state == BROWSE_LEASED || range->state == BROWSE_SETTLING;
	MemoryContext old = MemoryContextSwitchTo(b->row_context);

	heap_deform_tuple(tuple, mq_row_descriptor(), v, n);
	memset(isnull, true, sizeof(isnull));
#define SET(to, value) (out[to] = (value), isnull[to] = false)
	SET(B_QUEUE, b->queue_name);
	SET(B_GROUP, b->group_name);
	SET(B_ID, Int64GetDatum(id));
	SET(B_STATE, CStringGetTextDatum(state_names[range->state]));
	SET(B_PRIORITY, Int32GetDatum(0));
	SET(B_ORIGIN_QUEUE, b->queue_name);
	SET(B_ORIGIN_ID, Int64GetDatum(id));
	SET(B_REPLY_WANTED, BoolGetDatum(false));
	/* of two that are for one column the later one counts, unless it is null */
	for (int i = 0; i < lengthof(copied); i++)
		if (!n[copied[i].from - 1])
			SET(copied[i].to, v[copied[i].from - 1]);
	if (!n[MQ_COL_ORIGIN_QUEUE - 1])
		out[B_ORIGIN_QUEUE] = mq_origin_queue(DatumGetInt32(v[MQ_COL_ORIGIN_QUEUE - 1]), &isnull[B_ORIGIN_QUEUE]);
	if (range->state != BROWSE_FINISHED)
	{
		SET(B_ATTEMPT, Int32GetDatum(range->attempts));
		SET(B_FAILURES, Int32GetDatum(range->failures));
	}
	if (range->failures > 0 && (reason = *mq_failure_reasons(b->group.group_no, &id, 1)) != NULL)
		SET(B_LAST_REASON, CStringGetTextDatum(reason));
	if (range->state == BROWSE_RETRYING)
		SET(B_DUE_AT, TimestampTzGetDatum(range->due));
	if (in_flight && range->due != 0)
		SET(B_LEASE_UNTIL, TimestampTzGetDatum(range->due));
	if (range->token != 0)
		SET(B_LEASED_AT, TimestampTzGetDatum(mq_token_time(range->token)));
	if (range->consumer[0] != '\0')
		SET(B_CONSUMER, CStringGetTextDatum(range->consumer));
#undef SET
	tuplestore_putvalues(b->result->setResult, b->result->setDesc, out, isnull);
	MemoryContextSwitchTo(old);
	MemoryContextReset(b->row_context);
	b->left--;
}

/* Adds a message that is not due yet to the result; it has no place in the log, and nobody has had it. */
static void
emit_scheduled(Browse *b, const MqScheduledRow *row)
{
	static const struct
	{
		int			to;
		MqScheduleColumn from;
	}			copied[] = {
		{B_ID, MQ_SCHED_ID}, {B_ORIGIN_ID, MQ_SCHED_ID}, {B_SENT_AT, MQ_SCHED_SENT_AT}, {B_DUE_AT, MQ_SCHED_DUE_AT},
		{B_HEADERS, MQ_SCHED_HEADERS}, {B_PAYLOAD, MQ_SCHED_PAYLOAD}, {B_BODY, MQ_SCHED_BODY},
		{B_DEDUP_ID, MQ_SCHED_DEDUP_ID}
	};
	Datum		out[B_COLUMNS] = {0};
	bool		isnull[B_COLUMNS];

	memset(isnull, true, sizeof(isnull));
	for (int i = 0; i < lengthof(copied); i++)
	{
		out[copied[i].to] = row->v[copied[i].from - 1];
		isnull[copied[i].to] = row->isnull[copied[i].from - 1];
	}
#define SET(to, value) (out[to] = (value), isnull[to] = false)
	SET(B_QUEUE, b->queue_name);
	SET(B_GROUP, b->group_name);
	SET(B_STATE, CStringGetTextDatum(state_names[BROWSE_SCHEDULED]));
	SET(B_PRIORITY, Int32GetDatum(0));
	SET(B_ORIGIN_QUEUE, b->queue_name);
	SET(B_REPLY_WANTED, BoolGetDatum(false));
	SET(B_ATTEMPT, Int32GetDatum(0));
	SET(B_FAILURES, Int32GetDatum(0));
#undef SET
	tuplestore_putvalues(b->result->setResult, b->result->setDesc, out, isnull);
	b->left--;
}

/* Those with an id below that one come before it. */
static void
show_scheduled(Browse *b, int64 below)
{
	while (b->left > 0 && b->next_scheduled < b->nscheduled &&
		   DatumGetInt64(b->scheduled[b->next_scheduled].v[MQ_SCHED_ID - 1]) < below)
		emit_scheduled(b, &b->scheduled[b->next_scheduled++]);
}

/* What was sent back to another group is none of this one's. */
static bool
is_for_group(const Browse *b, HeapTuple tuple)
{
	bool		isnull;

	if (HeapTupleHeaderGetNatts(tuple->t_data) <= MQ_PLAIN_COLUMNS)
		return true;
	(void) heap_getattr(tuple, MQ_COL_TARGET_EPOCH, mq_row_descriptor(), &isnull);
	return isnull || DatumGetInt32(heap_getattr(tuple, MQ_COL_TARGET_GROUP, mq_row_descriptor(), &isnull)) == b->group.group_no;
}

/* Shows the rows of a page with lo <= id <= hi; returns the greatest id on the page. */
static int64
show_page(Browse *b, const BrowseRange *range, Relation rel, BlockNumber block, int64 lo, int64 hi)
{
	static MqFetched rows[MQ_PAGE_ROWS];
	Buffer		buffer;
	int64		page_max;
	int			count = mq_log_fetch_page(rel, block, lo, hi, b->snapshot, rows, &buffer, &page_max);

	for (int i = 0; i < count && b->left > 0; i++)
	{
		if (rows[i].sight != MQ_SEEN || !is_for_group(b, &rows[i].tuple))
			continue;
		show_scheduled(b, rows[i].id);
		if (b->left > 0)
			emit(b, range, &rows[i].tuple, rows[i].id);
	}
	ReleaseBuffer(buffer);
	return page_max;
}

static void
show_in_order(Browse *b, const BrowseRange *range, Relation rel, int64 lo, int64 hi)
{
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	for (BlockNumber block = mq_log_locate(rel, lo); block < blocks && b->left > 0; block++)
	{
		CHECK_FOR_INTERRUPTS();
		if (show_page(b, range, rel, block, lo, hi) >= hi)
			break;
	}
}

static int
compare_places(const void *a, const void *b)
{
	const Place *x = a;
	const Place *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return (x->block > y->block) - (x->block < y->block);
}

/* A row with this id or a greater one; nplaces: there is none. */
static int64
first_place(const Browse *b, int64 id)
{
	int64		lo = 0;
	int64		hi = b->nplaces;

	while (lo < hi)
	{
		int64		middle = lo + (hi - lo) / 2;

		if (b->places[middle].id < id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo;
}

/* The rows of a page that the snapshot sees are put on the list. */
static void
note_places(Browse *b, Relation rel, BlockNumber block)
{
	static MqFetched rows[MQ_PAGE_ROWS];
	Buffer		buffer;
	int64		page_max;
	int			count = mq_log_fetch_page(rel, block, 1, PG_INT64_MAX, b->snapshot, rows, &buffer, &page_max);

	for (int i = 0; i < count; i++)
	{
		if (rows[i].sight != MQ_SEEN)
			continue;
		if (b->nplaces == b->room_places)
		{
			b->room_places = Max(b->room_places * 2, MQ_PAGE_ROWS);
			b->places = b->places == NULL ? palloc(b->room_places * sizeof(Place))
				: repalloc_huge(b->places, b->room_places * sizeof(Place));
		}
		b->places[b->nplaces++] = (Place) {rows[i].id, block};
	}
	ReleaseBuffer(buffer);
}

static void
forget_places(Browse *b)
{
	if (OidIsValid(b->placed))
		UnlockRelationOid(b->placed, AccessShareLock);
	b->placed = InvalidOid;
	b->nplaces = 0;
}

/* Reads a segment whole, once for all the ranges in it that follow each other: until then nobody may rewrite or empty it. */
static void
find_places(Browse *b, Relation rel)
{
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	forget_places(b);
	LockRelationOid(RelationGetRelid(rel), AccessShareLock);
	b->placed = RelationGetRelid(rel);
	for (BlockNumber block = 0; block < blocks; block++)
	{
		CHECK_FOR_INTERRUPTS();
		note_places(b, rel, block);
	}
	if (b->nplaces > 1)
		qsort(b->places, b->nplaces, sizeof(Place), compare_places);
}

/* Messages are shown by id all the same: who pages through them asks for what comes after the last one. */
static void
show_sorted(Browse *b, const BrowseRange *range, Relation rel, int64 lo, int64 hi)
{
	if (b->placed != RelationGetRelid(rel))
		find_places(b, rel);
	for (int64 i = first_place(b, lo); i < b->nplaces && b->places[i].id <= hi && b->left > 0; i++)
	{
		const Place *place = &b->places[i];

		CHECK_FOR_INTERRUPTS();
		/* in a damaged segment two rows may have one id */
		if (i == 0 || place->id != place[-1].id)
			(void) show_page(b, range, rel, place->block, place->id, place->id);
	}
}

/*
 * Shows the rows of a range, which may lie in several segments. Those that are gone by now are left out; the lock on the others is
 * waited for, and held while they are read.
 */
static void
show(Browse *b, const BrowseRange *range, const MqSegmentInfo *segments, int count)
{
	const MqQueue *queue = &b->group.queue;

	for (int i = 0; i < count && b->left > 0; i++)
	{
		int64		lo = Max(range->lo, segments[i].segment * queue->segment_size);
		int64		hi = Min(range->hi, (segments[i].segment + 1) * queue->segment_size - 1);
		Relation	rel;

		if (lo > hi || (rel = mq_segment_open(queue, 0, segments[i].segment, AccessShareLock)) == NULL)
			continue;
		if (mq_order_holds(queue, 0, segments[i].segment, rel))
			show_in_order(b, range, rel, lo, hi);
		else
			show_sorted(b, range, rel, lo, hi);
		relation_close(rel, AccessShareLock);
	}
}

static BrowseState
state_by_name(const char *name)
{
	for (int i = 0; i < lengthof(state_names); i++)
		if (strcmp(state_names[i], name) == 0)
			return (BrowseState) i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no state \"%s\"", name),
			 errhint("The states are scheduled, ready, retrying, blocked, leased, settling, dead, expired, filtered and finished.")));
	return BROWSE_READY;
}

/* A bit mask. */
static uint32
states_arg(FunctionCallInfo fcinfo, int arg)
{
	uint32		states = 0;
	Datum	   *names;
	int			count;

	if (PG_ARGISNULL(arg))
		return UNFINISHED;
	count = mq_array_arg(fcinfo, arg, "states", TEXTOID, &names, NULL);
	for (int i = 0; i < count; i++)
		states |= STATE_BIT(state_by_name(TextDatumGetCString(names[i])));
	return states;
}

/* One range after the other, up to the end that the log has when the call begins. */
static void
browse(Browse *b, int64 after_id)
{
	BrowseRange *ranges = palloc(RANGES_PER_LOOK * sizeof(BrowseRange));
	MqTail		tail;
	int			nsegments;
	MqSegmentInfo *segments = mq_segment_list(&b->group.queue, &nsegments);
	int64		id = Min(Max(after_id, 0), PG_INT64_MAX - 1) + 1;

	if (!mq_log_tail(&b->group.queue, 0, &tail))
		return;
	b->next_id = tail.next_id;
	settle(b);
	while (id < b->next_id && b->left > 0)
	{
		int			count = look(b, &id, ranges);

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < count && b->left > 0; i++)
			show(b, &ranges[i], segments, nsegments);
	}
	forget_places(b);
}

/*
 * Needs the right to browse, not the one to consume. Works in a read-only transaction, but not on a standby, which has no windows.
 */
MQ_FUNCTION(mq_browse);
Datum
mq_browse(PG_FUNCTION_ARGS)
{
	Browse	   *b = palloc0(sizeof(Browse));
	char	   *queue = mq_text_arg(fcinfo, 0, "queue");
	char	   *group = mq_text_arg(fcinfo, 1, "consumer_group");
	MqQueue		checked;

	mq_require_preload();
	mq_check_primary("mq.browse()");
	b->states = states_arg(fcinfo, 2);
	b->left = mq_int32_arg(fcinfo, 3, "max_messages");
	if (b->left < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_messages must be at least 1"),
				 errhint("Ask for the number of messages to be shown.")));
	mq_check_not_null(fcinfo, 4, "after_id");
	mq_refuse_arg(fcinfo, 5, "filter");
	mq_refuse_arg(fcinfo, 6, "key");
	mq_catalog_catch_up();
	mq_queue_by_name(queue, &checked);
	mq_check_right(&checked, MQ_RIGHT_BROWSE);
	mq_group_by_name(queue, group, &b->group);
	mq_attach_group(&b->group);
	InitMaterializedSRF(fcinfo, 0);
	b->result = (ReturnSetInfo *) fcinfo->resultinfo;
	b->row_context = AllocSetContextCreate(CurrentMemoryContext, "mq browse", ALLOCSET_SMALL_SIZES);
	b->ref = (MqWindowRef) {b->group.window, mq_window_key(&b->group, 0)};
	b->now = GetCurrentTimestamp();
	b->snapshot = GetActiveSnapshot();
	b->queue_name = CStringGetTextDatum(queue);
	b->group_name = CStringGetTextDatum(group);
	if ((b->states & STATE_BIT(BROWSE_SCHEDULED)) != 0)
		b->scheduled = mq_schedule_after(b->group.queue.queue_no, PG_GETARG_INT64(4), b->left, b->snapshot, &b->nscheduled);
	browse(b, PG_GETARG_INT64(4));
	show_scheduled(b, PG_INT64_MAX);
	return (Datum) 0;
}
