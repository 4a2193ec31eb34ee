/*
 * due.c: mq.cancel, mq.reschedule and mq.make_due.
 *
 * They race the worker, who moves what is due, and each other: of two who take the same row out the later one waits for the earlier,
 * and then looks again. So the caller is told the truth, and no transaction fails for it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/stop_point.h"
#include "log/dedup.h"
#include "log/schedule.h"
#include "offset/rebuild.h"
#include "verbs/due.h"
#include "verbs/verbs.h"
#include "window/transaction.h"

TimestampTz
mq_check_due(TimestampTz time, TimestampTz now)
{
	if (TIMESTAMP_NOT_FINITE(time) || time > now + MQ_DELAY_MAX_US)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("deliver_at is out of range"),
				 errhint("It must be finite and at most 36525 days ahead; the past is now.")));
	return time;
}

/* The message is its sender's, by the name of the role that had sent it, or of who may manage the queue. */
static void
check_may_change(const MqQueue *queue, const MqScheduledRow *row)
{
	const char *me = GetUserNameFromId(GetUserId(), false);

	if (mq_has_right(queue, MQ_RIGHT_MANAGE))
		return;
	if (row->isnull[MQ_SCHED_SENDER - 1] || strcmp(TextDatumGetCString(row->v[MQ_SCHED_SENDER - 1]), me) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for message " INT64_FORMAT " of queue \"%s\"",
						DatumGetInt64(row->v[MQ_SCHED_ID - 1]), NameStr(queue->name)),
				 errdetail("It was sent by another role."),
				 errhint("Its sender can do this, or who has the right to manage the queue.")));
}

/* The queue that argument 0 names, for who may send to it or manage it. */
static void
open_queue(FunctionCallInfo fcinfo, const char *function, MqQueue *queue)
{
	mq_check_writable(function);
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), queue);
	if (!mq_has_right(queue, MQ_RIGHT_MANAGE))
		mq_check_right(queue, MQ_RIGHT_SEND);
	mq_check_not_null(fcinfo, 1, "id");
	mq_attach_queue(queue);
	mq_schedule_lock(queue, false);
}

/*
 * Takes the message out of the schedule; false: it is not there. What was sent for one group (a retry) is not the sender's to take.
 * If it is undone the worker looks again, for it may have passed over the row.
 */
static bool
take_out(const MqQueue *queue, MqScheduleTables *tables, int64 id, MqScheduledRow *row)
{
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (!mq_schedule_find(tables, queue->queue_no, id, row) || !row->isnull[MQ_SCHED_TARGET_GROUP - 1])
			return false;
		check_may_change(queue, row);
		MQ_STOP_POINT("cancel_found");
		/* before it is done: it may run out of memory */
		mq_transaction_schedules(queue, DatumGetTimestampTz(row->v[MQ_SCHED_DUE_AT - 1]), 0);
	} while (!mq_schedule_delete(tables, row));
	mq_transaction_schedules(queue, PG_INT64_MAX, -1);
	return true;
}

MQ_FUNCTION(mq_cancel);
Datum
mq_cancel(PG_FUNCTION_ARGS)
{
	MqQueue		queue;
	MqScheduleTables tables = {0};
	MqScheduledRow row;
	bool		found;

	open_queue(fcinfo, "mq.cancel()", &queue);
	found = take_out(&queue, &tables, PG_GETARG_INT64(1), &row);
	mq_schedule_close(&tables);
	/* it was never sent, as far as anybody can see */
	if (found && !row.isnull[MQ_SCHED_DEDUP_ID - 1])
		mq_dedup_cancelled(&queue, DatumGetTextPP(row.v[MQ_SCHED_DEDUP_ID - 1]), PG_GETARG_INT64(1));
	PG_RETURN_BOOL(found);
}

/* The row with the new due time is the next version of the message. */
MQ_FUNCTION(mq_reschedule);
Datum
mq_reschedule(PG_FUNCTION_ARGS)
{
	MqQueue		queue;
	MqScheduleTables tables = {0};
	MqScheduledRow row;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due;
	bool		found;

	open_queue(fcinfo, "mq.reschedule()", &queue);
	mq_check_not_null(fcinfo, 2, "deliver_at");
	/* what is due now has to be in the schedule all the same, for its order and its id */
	due = Max(mq_check_due(PG_GETARG_TIMESTAMPTZ(2), now), now);
	found = take_out(&queue, &tables, PG_GETARG_INT64(1), &row);
	if (found)
	{
		bool		later = due > DatumGetTimestampTz(row.v[MQ_SCHED_DUE_AT - 1]);

		row.v[MQ_SCHED_DUE_AT - 1] = TimestampTzGetDatum(due);
		row.v[MQ_SCHED_VERSION - 1] = Int32GetDatum(DatumGetInt32(row.v[MQ_SCHED_VERSION - 1]) + 1);
		mq_transaction_schedules(&queue, due, 1);
		mq_schedule_insert(&tables, &row);
		/* its window counts from when it is due */
		if (later && !row.isnull[MQ_SCHED_DEDUP_ID - 1])
			mq_dedup_rescheduled(&queue, DatumGetTextPP(row.v[MQ_SCHED_DEDUP_ID - 1]), PG_GETARG_INT64(1), due);
	}
	mq_schedule_close(&tables);
	PG_RETURN_BOOL(found);
}

/*
 * Gives all that is due within a time another one, from a moment on, a microsecond later each: so they keep their order. What is due
 * already, or somebody else's to change at this moment, is left alone. The scan is behind all rows that are made here.
 */
static int64
make_due(const MqQueue *queue, TimestampTz from, TimestampTz now, TimestampTz until)
{
	MqScheduleTables tables = {0};
	MqScheduleScan *scan = mq_schedule_scan_begin(queue->queue_no, (MqDuePlace) {now, PG_INT64_MAX}, MQ_SCHEDULE_ALL);
	MqDueRow	due;
	int64		count = 0;

	while (mq_schedule_scan_next(scan, &due) && due.place.due <= until)
	{
		MqScheduledRow row;
		TransactionId deleter;

		CHECK_FOR_INTERRUPTS();
		if (TransactionIdIsValid(due.sender))
			continue;
		if (mq_schedule_scan_take(scan, &deleter) != MQ_TAKEN)
			continue;
		mq_schedule_scan_values(scan, &row);
		row.v[MQ_SCHED_DUE_AT - 1] = TimestampTzGetDatum(Min(from + count, now));
		row.v[MQ_SCHED_VERSION - 1] = Int32GetDatum(DatumGetInt32(row.v[MQ_SCHED_VERSION - 1]) + 1);
		(void) mq_schedule_insert(&tables, &row);
		count++;
	}
	mq_schedule_scan_end(scan);
	mq_schedule_close(&tables);
	return count;
}

MQ_FUNCTION(mq_make_due);
Datum
mq_make_due(PG_FUNCTION_ARGS)
{
	MqQueue		queue;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = PG_INT64_MAX;

	mq_check_writable("mq.make_due()");
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), &queue);
	mq_check_right(&queue, MQ_RIGHT_MANAGE);
	if (!PG_ARGISNULL(1))
		until = now + mq_interval_between(PG_GETARG_INTERVAL_P(1), "within", 0, MQ_DELAY_MAX_US, "It must be at least zero and at most 36525 days.");
	mq_attach_queue(&queue);
	mq_schedule_lock(&queue, false);
	/* before it is done, for it may run out of memory; from the end of this transaction on, whatever it is, the worker looks again */
	mq_transaction_schedules(&queue, now - USECS_PER_SEC, 0);
	CommandCounterIncrement();
	/* the second before the call has room for a million */
	PG_RETURN_INT64(make_due(&queue, now - USECS_PER_SEC, now, until));
}
