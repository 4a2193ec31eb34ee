/*
 * receive.c: mq.receive and mq.pop.
 *
 * Take from the window, then look at the rows with the calling statement's snapshot: only what that sees is handed
 * out, the rest goes back as if untouched. Between the two a message is leased by this transaction, so an error on the
 * way gives it back. A page may be pinned, but is not locked, while the window is.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/clock.h"
#include "base/settings.h"
#include "base/stop_point.h"
#include "log/failure_log.h"
#include "log/page.h"
#include "log/segment.h"
#include "log/segment_table.h"
#include "offset/rebuild.h"
#include "verbs/ack.h"
#include "verbs/receipt.h"
#include "verbs/verbs.h"
#include "verbs/wait.h"
#include "window/rate.h"
#include "window/statement.h"
#include "window/take.h"
#include "window/transaction.h"
#include "window/walk.h"

#define RUNS_PER_TAKE		64
/* a transaction with an old snapshot looks no further than this many newer messages for one that it may see */
#define PASS_OVER_MAX		1000
#define PAGES_PER_RUN		80	/* more than a chunk of pending messages spans */
#define REREADS_MAX			1000

/* attributes of mq.message */
enum
{
	M_QUEUE, M_GROUP, M_ID, M_RECEIPT, M_PAYLOAD, M_HEADERS, M_BODY, M_KEY, M_ROUTING_KEY, M_PRIORITY, M_ATTEMPT, M_FAILURES,
	M_LAST_REASON, M_SENT_AT, M_ENQUEUED_AT, M_DUE_AT, M_EXPIRES_AT, M_LEASE_UNTIL, M_ORIGIN_QUEUE, M_ORIGIN_ID, M_DEDUP_ID,
	M_DEATH, M_REPLY_WANTED, M_COLUMNS
};

/* One call of receive or pop. */
typedef struct ReceiveCall
{
	MqGroup		group;
	MqWindowRef ref;
	int			max;
	int			got;
	int64		max_bytes;		/* 0: no limit */
	int64		bytes;			/* of what is got */
	bool		full;			/* the next message would be too much */
	int64		lease_us;
	int64		wait_us;		/* 0: do not wait */
	MqTaker		taker;
	bool		pop;
	Snapshot	snapshot;
	MqUndo	   *undo;
	int64		after;			/* ids up to here were given back: not for this statement */
	bool		gave_back;		/* in this round */
	int64		passed_over;	/* newer than the snapshot, since the last one delivered */
	bool		too_old;		/* the transaction's snapshot, for some message seen while waiting */
	int64		reread;			/* ids up to here were not where they had been seen, since the last one delivered */
	int			again;			/* how often one of them was not there again */
	bool		give_up;		/* waiting: there is a message for the next statement, though not for this one */
	bool		as_of;			/* looks with the snapshot that the statement reads tables with */
	MqRange    *popped;			/* pop: what to ack, ascending stretches */
	int			npopped;
	int			room_popped;
	ReturnSetInfo *result;
	MemoryContext row_context;	/* what a row takes until it is in the result */
	int64		reasons_from;	/* id of the first of */
	char	  **reasons;		/* why messages of this run failed last; NULL: none did */
	Datum		out[M_COLUMNS]; /* the row being made; what is the same in all is filled in once */
	bool		isnull[M_COLUMNS];
} ReceiveCall;

/* The rows of one page; too large to clear with every call. */
static MqFetched page_rows[MQ_PAGE_ROWS];

static Datum
receipt_datum(const ReceiveCall *call, int64 id)
{
	MqReceipt	receipt = {call->group.group_no, 0, id, call->taker.token};
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	mq_receipt_encode(&receipt, uuid->data);
	return UUIDPGetDatum(uuid);
}

/* The row's values may point into the segment's TOAST table, which outlives the statement but not for sure more. */
static Datum
flat(Datum value, bool isnull)
{
	struct varlena *attr = (struct varlena *) DatumGetPointer(value);

	if (isnull || !VARATT_IS_EXTERNAL(attr))
		return value;
	return PointerGetDatum(detoast_external_attr(attr));
}

/* What is the same in all messages of a call. */
static void
fill_in_constants(ReceiveCall *call, Datum queue_name, Datum group_name)
{
	memset(call->isnull, true, sizeof(call->isnull));
#define SET(to, value) (call->out[to] = (value), call->isnull[to] = false)
	SET(M_QUEUE, queue_name);
	SET(M_GROUP, group_name);
	SET(M_PRIORITY, Int32GetDatum(0));
	/* that a message has moved is said by columns that are null in one that has not */
	SET(M_ORIGIN_QUEUE, queue_name);
	SET(M_REPLY_WANTED, BoolGetDatum(false));
	call->isnull[M_ID] = call->isnull[M_RECEIPT] = call->isnull[M_ATTEMPT] = call->isnull[M_FAILURES] = false;
	call->isnull[M_ENQUEUED_AT] = call->isnull[M_SENT_AT] = call->isnull[M_ORIGIN_ID] = false;
	call->isnull[M_LEASE_UNTIL] = call->pop;
#undef SET
}

static Datum
flat_if_long(Datum value, MqColumn column)
{
	return TupleDescAttr(mq_row_descriptor(), column - 1)->attlen == -1 ? flat(value, false) : value;
}

/* What only rows have that are longer than plain ones: those of messages that have moved. */
static void
fill_in_more(HeapTuple tuple, Datum *out, bool *isnull)
{
	static const struct
	{
		int			to;
		MqColumn	from;
	}			copied[] = {
		{M_SENT_AT, MQ_COL_SENT_AT}, {M_DUE_AT, MQ_COL_DUE_AT}, {M_EXPIRES_AT, MQ_COL_EXPIRES_AT}, {M_ORIGIN_ID, MQ_COL_ORIGIN_ID},
		{M_LAST_REASON, MQ_COL_REASON}, {M_DEATH, MQ_COL_DEATH},
		{M_DEDUP_ID, MQ_COL_DEDUP_ID}
	};
	Datum		v[MQ_COLUMNS];
	bool		n[MQ_COLUMNS];

	heap_deform_tuple(tuple, mq_row_descriptor(), v, n);
	for (int i = 0; i < lengthof(copied); i++)
		if (!n[copied[i].from - 1])
		{
			out[copied[i].to] = flat_if_long(v[copied[i].from - 1], copied[i].from);
			isnull[copied[i].to] = false;
		}
	if (!n[MQ_COL_ORIGIN_QUEUE - 1])
		out[M_ORIGIN_QUEUE] = mq_origin_queue(DatumGetInt32(v[MQ_COL_ORIGIN_QUEUE - 1]), &isnull[M_ORIGIN_QUEUE]);
}

/* Adds a row of which there is more to say than of a plain one to the result; what is the same in all messages stays as it is. */
static void
put_long_row(const ReceiveCall *call, HeapTuple tuple, int64 id)
{
	Datum		out[M_COLUMNS];
	bool		isnull[M_COLUMNS];

	memcpy(out, call->out, sizeof(out));
	memcpy(isnull, call->isnull, sizeof(isnull));
	fill_in_more(tuple, out, isnull);
	if (call->reasons != NULL && call->reasons[id - call->reasons_from] != NULL)
	{
		out[M_LAST_REASON] = CStringGetTextDatum(call->reasons[id - call->reasons_from]);
		isnull[M_LAST_REASON] = false;
	}
	tuplestore_putvalues(call->result->setResult, call->result->setDesc, out, isnull);
}

/* Adds a row to the result. tuple lies in a page that the caller has pinned. */
static void
emit(ReceiveCall *call, const MqRun *run, HeapTuple tuple, int64 id)
{
	Datum		v[MQ_PLAIN_COLUMNS];
	bool		n[MQ_PLAIN_COLUMNS];
	Datum	   *out = call->out;
	MemoryContext old = MemoryContextSwitchTo(call->row_context);

	heap_deform_tuple(tuple, mq_plain_row_descriptor(), v, n);
#define COPY(to, from) (out[to] = flat(v[(from) - 1], n[(from) - 1]), call->isnull[to] = n[(from) - 1])
	COPY(M_PAYLOAD, MQ_COL_PAYLOAD);
	COPY(M_HEADERS, MQ_COL_HEADERS);
	COPY(M_BODY, MQ_COL_BODY);
#undef COPY
	out[M_ENQUEUED_AT] = out[M_SENT_AT] = v[MQ_COL_ENQUEUED_AT - 1];
	out[M_ID] = out[M_ORIGIN_ID] = Int64GetDatum(id);
	out[M_RECEIPT] = receipt_datum(call, id);
	out[M_LEASE_UNTIL] = TimestampTzGetDatum(call->taker.deadline);
	out[M_ATTEMPT] = Int32GetDatum(run->attempts);
	out[M_FAILURES] = Int32GetDatum(run->failures);
	if (HeapTupleHeaderGetNatts(tuple->t_data) > MQ_PLAIN_COLUMNS || call->reasons != NULL)
		put_long_row(call, tuple, id);
	else
		tuplestore_putvalues(call->result->setResult, call->result->setDesc, out, call->isnull);
	MemoryContextSwitchTo(old);
	MemoryContextReset(call->row_context);
}

/* Joins ids that follow each other. Ids of a later round may be smaller, so the stretches are in the order of hand-out. */
static void
remember_popped(ReceiveCall *call, int64 id)
{
	MqRange    *last = call->npopped > 0 ? &call->popped[call->npopped - 1] : NULL;

	if (last != NULL && last->hi + 1 == id)
	{
		last->hi = id;
		return;
	}
	if (call->npopped == call->room_popped)
	{
		call->room_popped = Max(call->room_popped * 2, 16);
		call->popped = call->popped == NULL ? palloc(call->room_popped * sizeof(MqRange))
			: repalloc_huge(call->popped, call->room_popped * sizeof(MqRange));
	}
	Assert(call->popped != NULL);
	call->popped[call->npopped].lo = call->popped[call->npopped].hi = id;
	call->npopped++;
}

/* What is read again is found where it was seen then, unless a segment is rewritten just now: no call goes on for ever. */
static void
note_reread(ReceiveCall *call, int64 lo, int64 hi)
{
	if (lo <= call->reread && ++call->again > REREADS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("message " INT64_FORMAT " of queue \"%s\" is not where it was seen, again and again", lo,
						NameStr(call->group.queue.name)),
				 errhint("Look whether somebody is changing or rewriting the queue's tables.")));
	call->reread = Max(call->reread, hi);
}

/* Ends the lease on part of a run that is not handed out after all. */
static void
return_part(ReceiveCall *call, int64 lo, int64 hi, MqOutcome outcome)
{
	MqCellList	cells;

	if (lo > hi)
		return;
	mq_need_cells(&cells, 2, true);
	/* before others are woken for it */
	if (call->taker.tick_ns > 0)
		mq_rate_refund(&call->ref, call->taker.tick_ns, hi - lo + 1);
	(void) mq_window_end_lease(&call->ref, lo, hi, call->taker.token, outcome, 0, NULL, &cells);
	mq_cells_return(&cells);
	if (outcome == MQ_REREAD)
		note_reread(call, lo, hi);
	if (outcome == MQ_GIVE_BACK)
	{
		call->after = Max(call->after, hi);
		call->gave_back = true;
		call->passed_over += hi - lo + 1;
	}
}

/* Of payload, headers and body, as they were sent. */
static int64
row_bytes(HeapTuple tuple)
{
	static const int parts[] = {MQ_COL_PAYLOAD, MQ_COL_HEADERS, MQ_COL_BODY};
	int64		bytes = 0;

	for (int i = 0; i < lengthof(parts); i++)
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, parts[i], mq_plain_row_descriptor(), &isnull);

		if (!isnull)
			bytes += (int64) toast_raw_datum_size(value) - VARHDRSZ;
	}
	return bytes;
}

/* Whether the message still fits into what the caller wants; the first one always does. */
static bool
fits(ReceiveCall *call, HeapTuple tuple)
{
	if (call->max_bytes == 0)
		return true;
	call->bytes += row_bytes(tuple);
	call->full = call->got > 0 && call->bytes > call->max_bytes;
	return !call->full;
}

/* Hands out what the statement may see of the rows found on a page; [*next, ...] is still to be looked for. */
static void
deliver_page(ReceiveCall *call, const MqRun *run, int count, int64 *next)
{
	for (int i = 0; i < count && !call->full; i++)
	{
		MqFetched  *row = &page_rows[i];

		/* ids between are on no page up to here: the walker decides what that means */
		return_part(call, *next, row->id - 1, MQ_REREAD);
		*next = row->id + 1;
		if (row->sight == MQ_TOO_NEW)
			return_part(call, row->id, row->id, MQ_GIVE_BACK);
		else if (row->sight == MQ_DELETED)
			return_part(call, row->id, row->id, MQ_REREAD);
		else if (row->sight == MQ_VANISHED)
			return_part(call, row->id, row->id, MQ_FINISH);
		else if (!fits(call, &row->tuple))
			*next = row->id;
		else
		{
			emit(call, run, &row->tuple, row->id);
			if (call->pop)
				remember_popped(call, row->id);
			call->got++;
			call->passed_over = 0;
			call->again = 0;
		}
	}
}

/* Of each message of a run that has failed, NULL where nothing is known. */
static char **
reasons_of(ReceiveCall *call, const MqRun *run)
{
	int			count = (int) (run->hi - run->lo + 1);
	int64	   *ids = palloc(count * sizeof(int64));

	for (int i = 0; i < count; i++)
		ids[i] = run->lo + i;
	call->reasons_from = run->lo;
	return mq_failure_reasons(call->group.group_no, ids, count);
}

/* Each message of the run is in the result, or its lease is ended, when this returns. The segment is locked only as long. */
static void
deliver_run(ReceiveCall *call, const MqRun *run)
{
	const MqQueue *queue = &call->group.queue;
	Relation	rel = mq_segment_open(queue, 0, mq_segment_of(run->lo, queue->segment_size), AccessShareLock);
	int64		next = run->lo;

	call->reasons = run->failures == 0 ? NULL : reasons_of(call, run);
	if (rel != NULL)
	{
		BlockNumber blocks = RelationGetNumberOfBlocks(rel);

		for (BlockNumber block = run->block; block < blocks && block - run->block < PAGES_PER_RUN && next <= run->hi && !call->full;
			 block++)
		{
			Buffer		buffer;
			int64		page_max;
			int			count = mq_log_fetch_page(rel, block, next, run->hi, call->snapshot, page_rows, &buffer, &page_max);

			deliver_page(call, run, count, &next);
			ReleaseBuffer(buffer);
			/* nothing of it is behind this page, unless the segment is not in order: then the walker finds it */
			if (page_max > run->hi)
				break;
		}
		relation_close(rel, AccessShareLock);
	}
	return_part(call, next, run->hi, call->full ? MQ_LEAVE : MQ_REREAD);
}

/* What a crash left unfinished may have caused it: that it is handed out again is on disk before anybody sees it. */
static void
note_hand_out(const ReceiveCall *call, const MqRun *runs, int count)
{
	MqRange		ranges[RUNS_PER_TAKE];
	int			n = 0;

	for (int i = 0; i < count; i++)
		if (runs[i].lo < call->group.queue.chain->first_id)
			ranges[n++] = (MqRange) {runs[i].lo, runs[i].hi};
	if (n > 0)
		mq_offset_log_hand_out(&call->group, 0, call->ref.window->epoch, ranges, n);
}

/* One round: take and deliver. False: there was nothing to take. */
static bool
take_and_deliver(ReceiveCall *call, bool own, MqWalkFirst *walk_first)
{
	MqRun		runs[RUNS_PER_TAKE];
	int			count;

	/* before the marks are made: it may run out of memory */
	mq_undo_room(call->undo, Min(call->max - call->got, RUNS_PER_TAKE));
	if (own)
		count = mq_window_take_own(&call->ref, mq_transaction_xid(), call->max - call->got, &call->taker, runs,
								   RUNS_PER_TAKE);
	else
		count = mq_window_take(&call->ref, call->after, call->max - call->got, &call->taker, runs, RUNS_PER_TAKE,
							   walk_first);
	for (int i = 0; i < count; i++)
		mq_undo_widen(call->undo, runs[i].lo, runs[i].hi);
	if (call->ref.window->after_crash)
		note_hand_out(call, runs, count);
	if (count > 0)
		MQ_STOP_POINT("receive_marked");
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (call->full)
			return_part(call, runs[i].lo, runs[i].hi, MQ_LEAVE);
		else
			deliver_run(call, &runs[i]);
	}
	return count > 0;
}

/* Hands out what is ready, then what look-ahead finds, then what the transaction itself has sent. */
static void
receive_loop(ReceiveCall *call)
{
	bool		walk_stuck = false; /* what is in front of the ready ones cannot be read now: they go without it */
	bool		own_done = !TransactionIdIsValid(GetTopTransactionIdIfAny());

	while (call->got < call->max && !call->full)
	{
		MqWalkFirst walk_first = MQ_WALK_NOT;

		CHECK_FOR_INTERRUPTS();
		if (call->passed_over > PASS_OVER_MAX && (call->as_of || IsolationUsesXactSnapshot()))
			break;
		if (take_and_deliver(call, false, walk_stuck ? NULL : &walk_first))
			continue;
		if (call->taker.limited)
			break;
		if (walk_first == MQ_WALK_SETTLE)
			(void) mq_walk_settle(&call->ref);
		else if (mq_walk(&call->group, &call->ref, call->max - call->got))
			walk_stuck = false;
		else if (walk_first == MQ_WALK_READ)
			walk_stuck = true;
		else if (own_done)
			break;
		else
		{
			/* what this statement may not see of them would come again and again */
			call->gave_back = false;
			own_done = !take_and_deliver(call, true, NULL) || call->gave_back;
		}
	}
}

/* Looks once for messages. */
static void
look(ReceiveCall *call)
{
	TimestampTz now = GetCurrentTimestamp();

	call->taker.token = mq_new_token(now);
	mq_undo_token(call->undo, call->taker.token);
	call->taker.deadline = now + call->lease_us;
	call->taker.max_in_flight = call->group.max_in_flight;
	call->taker.max_per_consumer = call->group.max_per_consumer;
	call->taker.tick_ns = call->group.tick_ns;
	call->taker.limited = call->taker.blocked = false;
	call->taker.own_due = PG_INT64_MAX;
	call->after = -1;
	call->passed_over = 0;
	if ((call->group.expires_us | call->group.queue.expires_us) != 0)
		pg_atomic_write_u64(&call->ref.window->used_at, (uint64) mq_monotonic_us());
	if (!call->group.paused && !call->group.queue.paused)
		receive_loop(call);
}

/*
 * The statement reads tables with that snapshot: a newer message may belong to rows that it cannot see. Once there is one, the
 * call ends, for only the next statement can have it. (What the transaction itself sent is as visible as it was.)
 */
static void
look_as_of(ReceiveCall *call, const SnapshotData *snapshot)
{
	Snapshot	active = call->snapshot;
	SnapshotData limit = *snapshot;

	limit.curcid = active->curcid;
	call->snapshot = &limit;
	call->as_of = true;
	look(call);
	call->as_of = false;
	call->snapshot = active;
	call->give_up = call->passed_over > 0;
}

/*
 * The statement has waited: what was committed meanwhile is for it, as if it began now. Transactions with one snapshot for
 * all of their statements keep it, and so does a statement that reads tables.
 */
static void
look_again(ReceiveCall *call)
{
	Snapshot	reads_with = mq_statement_reads_with();

	if (IsolationUsesXactSnapshot())
		look(call);
	else if (reads_with != NULL)
		look_as_of(call, reads_with);
	else
	{
		Snapshot	active = call->snapshot;

		call->snapshot = RegisterSnapshot(GetLatestSnapshot());
		look(call);
		UnregisterSnapshot(call->snapshot);
		call->snapshot = active;
	}
}

/* Whatever there is: in a statement that reads tables what comes is too new. */
static MqBlocked
blocked_at_first(void)
{
	return !IsolationUsesXactSnapshot() && mq_statement_reads_with() != NULL ? MQ_BLOCKED_BY_STATEMENT : MQ_NOT_BLOCKED;
}

/* Whether, and why, there may be messages for others, though there is none for this call. */
static MqBlocked
why_blocked(ReceiveCall *call, MqBlocked at_first)
{
	/* once seen, else several of one name would wake each other whenever one has what another then finds too new */
	if (IsolationUsesXactSnapshot() && call->passed_over > 0)
		call->too_old = true;
	if (call->too_old && (call->passed_over > 0 || call->taker.blocked))
		return MQ_BLOCKED_BY_SNAPSHOT;
	return call->taker.blocked ? MQ_BLOCKED_BY_LIMIT : at_first;
}

/* The first look here is not superfluous: what came since the one before had nobody in line to wake. */
static void
wait_for_messages(ReceiveCall *call)
{
	MqWait		wait;

	mq_wait_begin(&wait, &call->group, &call->ref, call->wait_us, blocked_at_first(), call->taker.consumer);
	do
	{
		look_again(call);
		wait.own_due = call->taker.own_due;
	} while (call->got == 0 && !call->give_up && mq_wait_more(&wait, why_blocked(call, wait.at_first)));
	wait.keeps = call->give_up ? call->max : 0;
	mq_wait_end(&wait);
}

static void
check_limits(const ReceiveCall *call)
{
	if (call->max < 1 || call->max > 1000000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_messages must be between 1 and 1000000"),
				 errdetail("It is %d.", call->max),
				 call->max < 1 ? errhint("Ask for at least one message.") : errhint("Ask for fewer, again and again.")));
}

/* 0: no limit. */
static int64
max_bytes_arg(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return 0;
	if (PG_GETARG_INT32(arg) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_bytes must be at least 1"),
				 errhint("Leave it out for no limit.")));
	return PG_GETARG_INT32(arg);
}

/* Microseconds; 0: the call does not wait. */
static int64
wait_arg(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return 0;
	return mq_interval_between(PG_GETARG_INTERVAL_P(arg), "wait", 0, MQ_WAIT_MAX_S * USECS_PER_SEC,
							   "It must be at least zero and at most 60 seconds, for a waiting statement holds a snapshot; CALL mq.wait waits longer.");
}

/* NULL: it gives no name. */
static char *
consumer_arg(FunctionCallInfo fcinfo, int arg)
{
	char	   *name;

	if (PG_ARGISNULL(arg))
		return NULL;
	name = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	mq_check_name(name, "consumer name");
	return name;
}

/* The arguments that both functions have: queue, consumer_group, max_messages, wait, consumer, max_bytes. */
static void
read_args(FunctionCallInfo fcinfo, ReceiveCall *call, const char *what)
{
	char	   *queue = mq_text_arg(fcinfo, 0, "queue");
	char	   *group = mq_text_arg(fcinfo, 1, "consumer_group");

	call->max = mq_int32_arg(fcinfo, 2, "max_messages");
	check_limits(call);
	call->wait_us = wait_arg(fcinfo, 3);
	call->taker.consumer = consumer_arg(fcinfo, 4);
	call->max_bytes = max_bytes_arg(fcinfo, 5);
	mq_check_writable(what);
	mq_catalog_catch_up();
	mq_group_by_name(queue, group, &call->group);
	mq_check_consume(&call->group);
	mq_attach_group(&call->group);
	fill_in_constants(call, CStringGetTextDatum(queue), CStringGetTextDatum(group));
}

/* What is in the result is leased, and after a pop acked; after an error all of it is given back by the abort. */
static void
receive(FunctionCallInfo fcinfo, ReceiveCall *call)
{
	InitMaterializedSRF(fcinfo, 0);
	call->result = (ReturnSetInfo *) fcinfo->resultinfo;
	call->row_context = AllocSetContextCreate(CurrentMemoryContext, "mq message", ALLOCSET_SMALL_SIZES);
	call->ref.window = call->group.window;
	call->ref.key = mq_window_key(&call->group, 0);
	call->taker.owner = mq_session_transaction();
	call->snapshot = GetActiveSnapshot();
	call->undo = mq_undo_receive(&call->ref);
	look(call);
	if (call->got == 0 && call->wait_us > 0)
		wait_for_messages(call);
	/* because there is nothing, or because the queue went while this call waited for its lock? */
	if (call->got == 0)
		mq_queue_check_not_dropped(&call->group.queue);
	if (call->npopped > 0)
		mq_ack_popped(&call->group, call->taker.token, call->popped, call->npopped);
}

/* Microseconds. What a default gives is cut to what the group allows; what is asked for, and is more, is refused (22023). */
static int64
lease_arg(FunctionCallInfo fcinfo, int arg, const MqGroup *group)
{
	int64		us = group->lease_us > 0 ? group->lease_us : (int64) mq_visibility_timeout * 1000;

	if (!PG_ARGISNULL(arg))
		us = mq_interval_us(PG_GETARG_INTERVAL_P(arg), "visibility_timeout", 1);
	if (group->max_lease_us == 0 || us <= group->max_lease_us)
		return us;
	if (!PG_ARGISNULL(arg))
		mq_lease_too_long(group, group->max_lease_us);
	return group->max_lease_us;
}

MQ_FUNCTION(mq_receive);
Datum
mq_receive(PG_FUNCTION_ARGS)
{
	ReceiveCall *call = palloc0(sizeof(ReceiveCall));

	mq_refuse_arg(fcinfo, 7, "ack");
	read_args(fcinfo, call, "mq.receive()");
	call->lease_us = lease_arg(fcinfo, 6, &call->group);
	receive(fcinfo, call);
	pfree(call);
	return (Datum) 0;
}

MQ_FUNCTION(mq_pop);
Datum
mq_pop(PG_FUNCTION_ARGS)
{
	ReceiveCall *call = palloc0(sizeof(ReceiveCall));

	call->pop = true;
	read_args(fcinfo, call, "mq.pop()");
	/* acked before this call ends: the lease only has to last that long, and does while the transaction is open */
	call->lease_us = USECS_PER_DAY;
	receive(fcinfo, call);
	pfree(call);
	return (Datum) 0;
}
