/*
 * redrive.c: mq.redrive: dead letters sent back to the groups that they died in.
 *
 * In the caller's transaction a dead letter is finished and appended to the log that it came from, for that group only. Where it came
 * from is told by columns that only mq writes. Locks: as those of a send, for each queue that gets some.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "log/dead_letter.h"
#include "log/fetch.h"
#include "log/log.h"
#include "log/moved.h"
#include "log/schedule.h"
#include "offset/bounds.h"
#include "offset/rebuild.h"
#include "verbs/discard.h"
#include "verbs/due.h"
#include "verbs/verbs.h"
#include "window/walk.h"

#define LETTERS_PER_LOT	64		/* read at once */
#define BYTES_PER_LOT	((Size) 4 * 1024 * 1024)

/* A group that gets some back. */
typedef struct Home
{
	int32		group_no;
	bool		is_there;
	bool		is_open;		/* the caller may send there, and it is not closed */
	MqGroup		group;
} Home;

/* One call of mq.redrive. */
typedef struct Redrive
{
	MqGroup		group;			/* of the dead-letter queue */
	MqWindowRef ref;
	uint64		xid;
	MqUndo	   *undo;
	MemoryContext context;		/* of the call */
	List	   *homes;			/* of Home */
	int64		left;			/* messages still wanted */
	int64		sent;
	int64		orphans;		/* from groups that are gone */
	int64		refused;		/* the caller may not send to where they go, or nobody can */
	int64		strangers;		/* that are no dead letters */
	TimestampTz begin;
	int64		spread_us;		/* between the first and the last; 0: all at once */
	int64		expected;		/* how many these are */
} Redrive;

/* What of a lot goes to one group. */
typedef struct Parcel
{
	const Home *home;
	int			count;
	HeapTuple	tuples[LETTERS_PER_LOT];
	MqMoved		moved[LETTERS_PER_LOT]; /* origin 0: the message is not from that queue */
	TimestampTz due[LETTERS_PER_LOT];
} Parcel;

/* ---- where to ---- */

/*
 * Locks the group's row against seeks, drops and other changes to the end of the transaction, so that it is in this epoch when what is sent
 * back is committed; false: it is gone.
 */
static bool
lock_group(Home *home)
{
	MqSqlContext context;
	bool		there;

	mq_sql_begin(&context);
	there = mq_sql("SELECT FROM mq_internal.consumer_group WHERE group_no = %d FOR SHARE", home->group_no) > 0;
	mq_sql_end(&context);
	return there && mq_group_refresh(&home->group, true);
}

/* Allocated for the call. Whoever has put a letter here may have named a queue that the caller knows nothing of: that is no error. */
static Home *
find_home(Redrive *call, int32 group_no)
{
	MemoryContext old;
	ListCell   *cell;
	Home	   *home;

	foreach(cell, call->homes)
		if (((Home *) lfirst(cell))->group_no == group_no)
			return lfirst(cell);
	home = MemoryContextAllocZero(call->context, sizeof(Home));
	home->group_no = group_no;
	home->is_there = group_no > 0 && mq_group_by_number(group_no, &home->group);
	home->is_open = home->is_there && mq_has_right(&home->group.queue, MQ_RIGHT_SEND) && !home->group.queue.closed;
	if (home->is_open)
	{
		home->is_there = lock_group(home);
		if (home->is_there)
			mq_attach_queue(&home->group.queue);
	}
	old = MemoryContextSwitchTo(call->context);
	call->homes = lappend(call->homes, home);
	MemoryContextSwitchTo(old);
	return home;
}

/* ---- sending ---- */

static void
schedule_parcel(const Parcel *parcel, int64 *ids)
{
	const MqQueue *queue = &parcel->home->group.queue;
	MqScheduleTables tables = {0};

	mq_schedule_lock(queue, false);
	mq_log_take_ids(queue, 0, parcel->count, ids);
	for (int i = 0; i < parcel->count; i++)
		mq_schedule_put(&tables, queue, parcel->tuples[i], MQ_SCHED_KIND_REDRIVE, parcel->due[i], ids[i]);
	mq_schedule_close(&tables);
	mq_transaction_schedules(queue, parcel->due[0], parcel->count);
}

static void
append_parcel(Parcel *parcel, int64 *ids)
{
	const MqQueue *queue = &parcel->home->group.queue;
	int			count = 0;

	mq_transaction_sent(queue);
	mq_log_append(queue, 0, parcel->tuples, parcel->count, ids);
	/* who has the id that mq.send returned finds it */
	for (int i = 0; i < parcel->count; i++)
		if (parcel->moved[i].origin_id != 0)
			parcel->moved[count++] = (MqMoved) {parcel->moved[i].origin_id, ids[i]};
	if (count > 0)
		mq_moved_note(queue, parcel->moved, count);
}

/* ---- a lot ---- */

/* 0: it was sent to another queue first. */
static int64
origin_in(const MqQueue *queue, const Datum *v, const bool *isnull)
{
	if (isnull[MQ_COL_ORIGIN_QUEUE - 1] || isnull[MQ_COL_ORIGIN_ID - 1] || DatumGetInt32(v[MQ_COL_ORIGIN_QUEUE - 1]) != queue->queue_no)
		return 0;
	return DatumGetInt64(v[MQ_COL_ORIGIN_ID - 1]);
}

static void
add_to_parcel(const Redrive *call, Parcel *parcel, const Datum *v, const bool *isnull)
{
	const MqGroup *group = &parcel->home->group;
	int64		step = call->spread_us / Max(call->expected - 1, 1);

	parcel->tuples[parcel->count] = mq_dead_letter_revive(v, isnull, group->group_no, group->epoch);
	parcel->moved[parcel->count].origin_id = origin_in(&group->queue, v, isnull);
	parcel->due[parcel->count] = call->begin + step * (call->sent + parcel->count);
	parcel->count++;
}

/* Leaves in ids those that can be sent back, and counts the others; returns how many. homes: of each of those. */
static int
choose(Redrive *call, int64 *ids, const MqFound *found, int count, Home **homes)
{
	int			kept = 0;

	for (int i = 0; i < count; i++)
	{
		Datum		v[MQ_COLUMNS];
		bool		n[MQ_COLUMNS];
		int32		group_no;

		if (found[i].sight != MQ_SEEN)
			continue;
		heap_deform_tuple(found[i].tuple, mq_row_descriptor(), v, n);
		group_no = mq_dead_letter_group(v, n);
		homes[kept] = find_home(call, group_no);
		if (group_no == 0)
			call->strangers++;
		else if (!homes[kept]->is_there)
			call->orphans++;
		else if (!homes[kept]->is_open)
			call->refused++;
		else
			ids[kept++] = ids[i];
	}
	return kept;
}

/* Raises 53400: a queue that is full takes none back, and none of the call is. */
static void
check_bounds(const Parcel *parcel)
{
	const MqQueue *queue = &parcel->home->group.queue;
	int64		bytes = 0;

	if (!mq_has_bounds(queue))
		return;
	for (int i = 0; i < parcel->count; i++)
		bytes += parcel->tuples[i]->t_len;
	if (!mq_bounds_admit(queue, parcel->count, bytes))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("queue \"%s\" is full", NameStr(queue->name)),
				 errhint("Send back fewer dead letters, or do so when its consumers have finished more.")));
}

/* Sends back those of the letters that go to one home, and marks them as done. */
static void
send_parcel(Redrive *call, const MqFound *found, Home **homes, int count, int first)
{
	Parcel	   *parcel = palloc(sizeof(Parcel));
	int64		new_ids[LETTERS_PER_LOT];

	parcel->home = homes[first];
	parcel->count = 0;
	for (int i = first; i < count; i++)
	{
		Datum		v[MQ_COLUMNS];
		bool		n[MQ_COLUMNS];

		if (homes[i] != parcel->home)
			continue;
		mq_log_values(found[i].tuple, v, n);
		add_to_parcel(call, parcel, v, n);
		homes[i] = NULL;
	}
	check_bounds(parcel);
	if (call->spread_us > 0)
		schedule_parcel(parcel, new_ids);
	else
		append_parcel(parcel, new_ids);
	call->sent += parcel->count;
}

/* A letter may be large, and is read whole. One is, at least. */
static int
as_many_as_fit(const MqFound *found, int count)
{
	Size		bytes = 0;

	for (int i = 0; i < count; i++)
	{
		if (found[i].tuple != NULL)
			bytes += mq_log_size(found[i].tuple);
		if (i > 0 && bytes > BYTES_PER_LOT)
			return i;
	}
	return count;
}

/* Of up to LETTERS_PER_LOT letters, those that are still there to be had. Returns how many were looked at. */
static int
redrive_lot(Redrive *call, int64 *ids, int count)
{
	MqFound		found[LETTERS_PER_LOT];
	MqFound		kept[LETTERS_PER_LOT];
	Home	   *homes[LETTERS_PER_LOT];
	Home	   *kept_homes[LETTERS_PER_LOT];
	int64		chosen[LETTERS_PER_LOT];
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			nchosen;
	int			looked_at;
	int			n = 0;

	(void) mq_log_fetch(&call->group.queue, ids, count, snapshot, true, found);
	UnregisterSnapshot(snapshot);
	count = looked_at = as_many_as_fit(found, count);
	memcpy(chosen, ids, count * sizeof(int64));
	nchosen = choose(call, chosen, found, count, homes);
	if (nchosen > call->left)
		nchosen = (int) call->left;
	if (nchosen == 0)
		return looked_at;
	/* found and homes by what is had: somebody may have taken one meanwhile */
	for (int i = 0, at = 0; i < count && at < nchosen; i++)
	{
		if (ids[i] != chosen[at])
			continue;
		found[at] = found[i];
		at++;
	}
	memcpy(ids, chosen, nchosen * sizeof(int64));
	count = (int) mq_discard_lot(&call->group, &call->ref, chosen, nchosen, MQ_NOT_HANDED_OUT, call->xid, call->undo);
	for (int i = 0; i < nchosen && n < count; i++)
	{
		if (ids[i] != chosen[n])
			continue;
		kept[n] = found[i];
		kept_homes[n] = homes[i];
		n++;
	}
	for (int i = 0; i < n; i++)
		if (kept_homes[i] != NULL)
			send_parcel(call, kept, kept_homes, n, i);
	call->left -= n;
	return looked_at;
}

/* In a memory context of its own: letters may be large, and many. */
static int
redrive_in_context(Redrive *call, int64 *ids, int count)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mq redrive", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	count = redrive_lot(call, ids, count);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return count;
}

static void
redrive_all(Redrive *call)
{
	MqFared		ready[LETTERS_PER_LOT];
	int64		ids[LETTERS_PER_LOT];
	int64		after = 0;
	int			count;

	while (call->left > 0 && (count = mq_window_peek(&call->ref, MQ_READY, after, ready, LETTERS_PER_LOT)) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < count; i++)
			ids[i] = ready[i].id;
		after = ready[redrive_in_context(call, ids, count) - 1].id;
	}
}

static void
redrive_these(Redrive *call, int64 *ids, int count)
{
	int			n;

	for (int at = 0; at < count && call->left > 0; at += n)
	{
		CHECK_FOR_INTERRUPTS();
		n = redrive_in_context(call, ids + at, Min(count - at, LETTERS_PER_LOT));
	}
}

/* ---- function ---- */

static void
tell_of_others(const Redrive *call)
{
	if (call->orphans > 0)
		ereport(NOTICE,
				(errmsg("%lld dead letters stay, for the consumer groups they died in are gone", (long long) call->orphans),
				 errhint("mq.discard finishes them.")));
	if (call->refused > 0)
		ereport(NOTICE,
				(errmsg("%lld dead letters stay, for you may not send to where they died, or it is closed", (long long) call->refused),
				 errhint("Ask who may; mq.discard finishes them.")));
	if (call->strangers > 0)
		ereport(NOTICE,
				(errmsg("%lld messages stay, for they are no dead letters", (long long) call->strangers),
				 errhint("They were sent to this queue.")));
}

/* Arguments: queue, ids, max_messages, spread. Returns how many were sent back. */
MQ_FUNCTION(mq_redrive);
Datum
mq_redrive(PG_FUNCTION_ARGS)
{
	Redrive		call = {.left = PG_INT64_MAX,.context = CurrentMemoryContext};
	MqQueue		queue;
	MqWindowCounts counts;
	MqTail		tail;

	mq_check_writable("mq.redrive()");
	mq_catalog_catch_up();
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), &queue);
	mq_check_right(&queue, MQ_RIGHT_MANAGE);
	if (!PG_ARGISNULL(2) && (call.left = PG_GETARG_INT64(2)) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_messages must be at least 1"),
				 errhint("Leave it out to send all of them back.")));
	if (!PG_ARGISNULL(3))
		call.spread_us = mq_interval_us(PG_GETARG_INTERVAL_P(3), "spread", 0);
	mq_group_by_name(NameStr(queue.name), MQ_DEFAULT_GROUP, &call.group);
	mq_attach_group(&call.group);
	if (!mq_log_tail(&call.group.queue, 0, &tail))
		PG_RETURN_INT64(0);
	call.ref = (MqWindowRef) {call.group.window, mq_window_key(&call.group, 0)};
	call.begin = GetCurrentTimestamp();
	mq_walk_to(&call.group, &call.ref, tail.next_id - 1);
	call.xid = mq_transaction_xid();
	call.undo = mq_undo_settle(&call.ref);
	if (PG_ARGISNULL(1))
	{
		call.expected = mq_window_counts(&call.ref, &counts) ? Min(counts.ids[MQ_READY], call.left) : 0;
		redrive_all(&call);
	}
	else
	{
		int			count;
		int64	   *ids = mq_ids_arg(fcinfo, 1, &call.group, tail.next_id, &count);

		call.expected = Min(count, call.left);
		redrive_these(&call, ids, count);
	}
	tell_of_others(&call);
	PG_RETURN_INT64(call.sent);
}
