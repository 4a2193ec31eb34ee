/*
 * discard.c: mq.discard and mq.retry: messages finished for a group by its operator, without a lease, or made ready again.
 *
 * Who has one of them on lease finds it lost when the discard has committed. A rollback gives them back. A retry changes the window only,
 * at once.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"

#include "log/log.h"
#include "log/moved.h"
#include "offset/rebuild.h"
#include "verbs/ack.h"
#include "verbs/discard.h"
#include "verbs/verbs.h"
#include "window/settle.h"
#include "window/take.h"
#include "window/transaction.h"
#include "window/walk.h"

static int
compare_ids(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

/*
 * Of the ids, those that are not unfinished themselves are replaced by where their messages are now. A message that was sent back to one
 * group has moved for that group only.
 */
static void
find_moved(const MqGroup *group, int64 *ids, int count)
{
	MqWindowRef ref = {group->window, mq_window_key(group, 0)};
	int64	   *moved = palloc((count + 1) * sizeof(int64));
	int64		greatest = 0;

	for (int i = 0; i < count; i++)
		greatest = Max(greatest, ids[i]);
	mq_walk_to(group, &ref, greatest);
	memcpy(moved, ids, count * sizeof(int64));
	mq_moved_find(&group->queue, moved, count);
	for (int i = 0; i < count; i++)
		if (moved[i] != ids[i] && mq_window_count_unfinished(&ref, &ids[i], 1) == 0)
			ids[i] = moved[i];
}

int64 *
mq_ids_arg(FunctionCallInfo fcinfo, int arg, const MqGroup *group, int64 next_id, int *count)
{
	Datum	   *values;
	int			n = mq_array_arg(fcinfo, arg, "ids", INT8OID, &values, NULL);
	int64	   *ids = palloc((n + 1) * sizeof(int64));

	for (int i = 0; i < n; i++)
		ids[i] = DatumGetInt64(values[i]);
	find_moved(group, ids, n);
	*count = 0;
	for (int i = 0; i < n; i++)
		if (ids[i] > 0 && ids[i] < next_id)
			ids[(*count)++] = ids[i];
	qsort(ids, *count, sizeof(int64), compare_ids);
	for (int i = 1; i < *count; i++)
		if (ids[i] == ids[i - 1])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("message " INT64_FORMAT " is given twice", ids[i]),
					 errhint("Give each id once.")));
	return ids;
}

/*
 * What this transaction sent itself is kept apart until it is decided. Leases it, with a token of this call, so that it
 * can be discarded; what is left over is given back by give_back_own.
 */
typedef struct OwnLease
{
	uint64		token;
	MqRun	   *runs;
	int			count;
} OwnLease;

/* own->runs is palloc'd; give_back_own frees it. After an error the abort gives the leases back (mq_undo_borrow). */
static void
lease_own(const MqWindowRef *ref, uint64 xid, OwnLease *own)
{
	TimestampTz now = GetCurrentTimestamp();
	MqTaker		taker = {mq_new_token(now), mq_session_transaction(), now + USECS_PER_DAY, .early = true};
	int			room = 64;
	int			count;
	MqUndo	   *undo;

	*own = (OwnLease) {taker.token, palloc(room * sizeof(MqRun)), 0};
	undo = mq_undo_borrow(ref, own->token);
	for (;;)
	{
		mq_undo_room(undo, room - own->count);
		count = mq_window_take_own(ref, xid, PG_INT32_MAX, &taker, own->runs + own->count, room - own->count);
		if (count == 0 && !taker.starved)
			break;
		if (count == 0)
		{
			MqCellList	cells;

			/* an error, unless there are some by now */
			mq_need_cells(&cells, 1, true);
			mq_cells_return(&cells);
			CHECK_FOR_INTERRUPTS();
		}
		for (int i = own->count; i < own->count + count; i++)
			mq_undo_widen(undo, own->runs[i].lo, own->runs[i].hi);
		own->count += count;
		if (own->count == room)
			own->runs = repalloc_huge(own->runs, (room *= 2) * sizeof(MqRun));
	}
}

/* What is still leased with this token, with the due time that it had; what was discarded is settling now, and is not touched. */
static void
give_back_own(const MqWindowRef *ref, const OwnLease *own)
{
	for (int i = 0; i < own->count; i++)
		(void) mq_window_end_lease(ref, own->runs[i].lo, own->runs[i].hi, own->token, MQ_GIVE_BACK, own->runs[i].due, NULL, NULL);
	pfree(own->runs);
}

int64
mq_discard_lot(const MqGroup *group, const MqWindowRef *ref, int64 *ids, int count, uint8 states, uint64 xid, MqUndo *undo)
{
	MqRange		ranges[MQ_ENTRIES_PER_HOLD];
	MqCellList	cells;
	int64		discarded;
	int32		epoch = 0;

	mq_undo_room(undo, count);
	mq_need_cells(&cells, 2 * (int64) count, true);
	discarded = mq_window_discard(ref, ids, count, states, xid, &cells, ids, &epoch);
	for (int64 i = 0; i < discarded; i++)
		mq_undo_widen(undo, ids[i], ids[i]);
	mq_cells_return(&cells);
	if (discarded < 0)
		mq_over_share(group);
	for (int64 i = 0; i < discarded; i++)
		ranges[i] = (MqRange) {ids[i], ids[i]};
	mq_write_ack(group, ref, epoch, ranges, (int) Max(discarded, 0));
	return Max(discarded, 0);
}

/* All of the ids, or an error. */
static int64
discard_ids(const MqGroup *group, const MqWindowRef *ref, int64 *ids, int count, uint64 xid)
{
	MqUndo	   *undo = mq_undo_settle(ref);
	int64		discarded = 0;
	int			n;

	for (int at = 0; at < count; at += n)
	{
		CHECK_FOR_INTERRUPTS();
		n = Min(count - at, MQ_ENTRIES_PER_HOLD);
		discarded += mq_discard_lot(group, ref, ids + at, n, MQ_UNFINISHED, xid, undo);
	}
	return discarded;
}

/* The group that arguments 0 and 1 name, for who may manage the queue; argument 2 must be given. */
static void
managed_group(FunctionCallInfo fcinfo, const char *function, MqGroup *group)
{
	MqQueue		queue;

	mq_check_writable(function);
	/* who may not is told the same whether there is such a group or not */
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), &queue);
	mq_check_right(&queue, MQ_RIGHT_MANAGE);
	mq_group_by_name(NameStr(queue.name), mq_text_arg(fcinfo, 1, "consumer_group"), group);
	mq_check_not_null(fcinfo, 2, "ids");
	mq_attach_group(group);
}

/* Returns how many of the ids were unfinished. What is settling already, by whomever, is left alone and not counted. */
MQ_FUNCTION(mq_discard);
Datum
mq_discard(PG_FUNCTION_ARGS)
{
	MqGroup		group;
	MqWindowRef ref;
	MqTail		tail;
	OwnLease	own;
	int64	   *ids;
	int			count;
	int64		discarded;
	uint64		xid;

	managed_group(fcinfo, "mq.discard()", &group);
	mq_refuse_arg(fcinfo, 3, "reason");
	if (!mq_log_tail(&group.queue, 0, &tail))
		PG_RETURN_INT64(0);
	ids = mq_ids_arg(fcinfo, 2, &group, tail.next_id, &count);

	ref = (MqWindowRef) {group.window, mq_window_key(&group, 0)};
	mq_walk_to(&group, &ref, count > 0 ? ids[count - 1] : 0);
	xid = mq_transaction_xid();
	/* undone in the other order: first the marks, then the leases they lie on */
	lease_own(&ref, xid, &own);
	discarded = discard_ids(&group, &ref, ids, count, xid);
	give_back_own(&ref, &own);
	PG_RETURN_INT64(discarded);
}

/* Messages that wait for a retry, or are dead, made ready. Returns how many of the ids were so. */
MQ_FUNCTION(mq_retry);
Datum
mq_retry(PG_FUNCTION_ARGS)
{
	MqGroup		group;
	MqWindowRef ref;
	MqTail		tail;
	int64	   *ids;
	int			count;
	int			n;
	int64		retried = 0;

	managed_group(fcinfo, "mq.retry()", &group);
	if (!mq_log_tail(&group.queue, 0, &tail))
		PG_RETURN_INT64(0);
	ids = mq_ids_arg(fcinfo, 2, &group, tail.next_id, &count);
	ref = (MqWindowRef) {group.window, mq_window_key(&group, 0)};
	for (int at = 0; at < count; at += n)
	{
		MqCellList	cells;
		int64		changed;

		CHECK_FOR_INTERRUPTS();
		n = Min(count - at, MQ_ENTRIES_PER_HOLD);
		mq_need_cells(&cells, 2 * (int64) n, false);
		changed = mq_window_retry(&ref, ids + at, n, &cells);
		mq_cells_return(&cells);
		if (changed < 0)
			mq_over_share(&group);
		retried += changed;
	}
	PG_RETURN_INT64(retried);
}
