/*
 * ack.c: mq.ack, nack, release, dead_letter and extend.
 *
 * An ack marks messages settling in the window, then writes one row to the offset log; commit removes them, rollback
 * leases them again. nack, release, dead_letter and extend change the hand-out only, which lives outside transactions: they
 * take effect at once and no rollback undoes them.
 */
#include "postgres.h"

#include "verbs/ack.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/uuid.h"

#include "base/settings.h"
#include "base/stop_point.h"
#include "log/log.h"
#include "offset/rebuild.h"
#include "verbs/receipt.h"
#include "verbs/verbs.h"
#include "window/settle.h"
#include "window/transaction.h"

/* One receipt of a call, with its place in the argument. */
typedef struct Receipt
{
	MqReceipt	r;
	int			position;
	bool		refused;
	bool		known;			/* there is such a message, and the caller may know it */
} Receipt;

#define RECEIPTS_TO_LOG 20		/* of more the server log gets the number only */

/*
 * One call, also the ack that is part of a pop. due: when messages are ready again (nack), or the new end of leases (extend).
 * strict: MQ001 if any receipt is refused; without it the others are granted.
 */
typedef struct ClaimCall
{
	const char *function;
	MqClaimAction action;
	TimestampTz due;
	bool		strict;
	Receipt    *receipts;
	int			count;
	MqCause		cause;			/* nack: of the failure */
} ClaimCall;

static int
compare_receipts(const void *a, const void *b)
{
	const MqReceipt *x = &((const Receipt *) a)->r;
	const MqReceipt *y = &((const Receipt *) b)->r;

	if (x->group_no != y->group_no)
		return x->group_no < y->group_no ? -1 : 1;
	if (x->level != y->level)
		return x->level < y->level ? -1 : 1;
	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return (x->token > y->token) - (x->token < y->token);
}

static int
compare_positions(const void *a, const void *b)
{
	return ((const Receipt *) a)->position - ((const Receipt *) b)->position;
}

static char *
receipt_text(const MqReceipt *r)
{
	pg_uuid_t	uuid;

	mq_receipt_encode(r, uuid.data);
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&uuid)));
}

/* The refused receipts as a JSON array, for programs to read. */
static char *
refused_list(const Receipt *receipts, int count)
{
	StringInfoData list;

	initStringInfo(&list);
	appendStringInfoChar(&list, '[');
	for (int i = 0; i < count; i++)
		if (receipts[i].refused)
			appendStringInfo(&list, "%s\"%s\"", list.len > 1 ? ", " : "", receipt_text(&receipts[i].r));
	appendStringInfoChar(&list, ']');
	return list.data;
}

/* Raises MQ001 if any of the receipts was refused. */
static void
raise_if_lost(Receipt *receipts, int count)
{
	Receipt		lost = {0};
	int			n = 0;

	for (int i = 0; i < count; i++)
	{
		if (!receipts[i].refused)
			continue;
		lost = receipts[i];
		n++;
	}
	if (n == 0)
		return;
	qsort(receipts, count, sizeof(Receipt), compare_positions);
	ereport(ERROR,
			(errcode(ERRCODE_MQ_LEASE_LOST),
			 n > 1 ? errmsg("the leases of %d messages are lost", n)
			 : lost.known ? errmsg("the lease of message " INT64_FORMAT " is lost", lost.r.id)
			 : errmsg("the lease of an unknown message is lost"),
			 errdetail_internal("%s", refused_list(receipts, count)),
			 n > RECEIPTS_TO_LOG ? errdetail_log("Receipts refused: %d.", n) : 0,
			 errhint("It ended or was given up, or the message is finished: roll back what was done for it, another consumer may have it.")));
}

/* Somebody else's messages must find memory too. */
void
mq_over_share(const MqGroup *group)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("consumer group \"%s\" of queue \"%s\" has its share of mq's shared memory", NameStr(group->name),
					NameStr(group->queue.name)),
			 errdetail("Entries for unfinished messages in use: " INT64_FORMAT ".", group->window->nodes),
			 errhint("Give all messages of a hand-out the same fate, or finish them from the first one on; raise mq.shared_memory.")));
}

/* Raises 22023; the receipts are sorted. mq_window_claim judges all claims before it applies any, so none may be in there twice. */
static void
check_duplicates(const ClaimCall *call)
{
	for (int i = 1; i < call->count; i++)
		if (compare_receipts(&call->receipts[i - 1], &call->receipts[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("receipt %s is given twice", receipt_text(&call->receipts[i].r)),
					 errhint("Give each receipt once.")));
}

/* Receipts of one group, sorted by id, as claims: consecutive ids with one token are one. */
static int
make_claims(const Receipt *receipts, int count, MqClaim *claims)
{
	int			n = 0;

	for (int i = 0; i < count; i++)
	{
		const MqReceipt *r = &receipts[i].r;

		/* cppcheck-suppress uninitvar; while n is 0 it is not looked at */
		if (n > 0 && claims[n - 1].hi + 1 == r->id && claims[n - 1].token == r->token)
			claims[n - 1].hi = r->id;
		else
			claims[n++] = (MqClaim) {r->id, r->id, r->token, false};
	}
	return n;
}

void
mq_write_ack(const MqGroup *group, const MqWindowRef *ref, int32 epoch, const MqRange *ranges, int count)
{
	if (count == 0)
		return;
	MQ_STOP_POINT("ack_marked");
	mq_offset_log_wrote(ref->window, &ref->key, mq_offset_log_ack(group, 0, epoch, ranges, count));
	MQ_STOP_POINT("ack_written");
}

/* The row of the offset log for the claims that were granted, in the epoch that mq_window_claim returned. */
static void
write_claimed(const MqGroup *group, const MqWindowRef *ref, int32 epoch, const MqClaim *claims, int count)
{
	MqRange    *ranges = palloc(count * sizeof(MqRange));
	int			n = 0;

	for (int i = 0; i < count; i++)
		if (!claims[i].refused)
			ranges[n++] = (MqRange) {claims[i].lo, claims[i].hi};
	mq_write_ack(group, ref, epoch, ranges, n);
	pfree(ranges);
}

static bool
is_ack(MqClaimAction action)
{
	return action == MQ_CLAIM_SETTLE || action == MQ_CLAIM_POP;
}

/*
 * How many leases have to be cut is only known under the lock, and cells are to be had only before it: if there are too
 * few, ask for what it takes and try again. What cuts none goes on without any, and only what finishes messages may use the
 * reserve.
 */
static int64
claim_with_cells(const ClaimCall *call, const MqGroup *group, const MqWindowRef *ref, MqClaim *claims, int count,
				 uint64 xid, int32 *epoch)
{
	MqCellList	cells;
	int			needed = 2;
	int64		changed;

	(void) mq_cells_reserve(&cells, needed, is_ack(call->action));
	while ((changed = mq_window_claim(ref, claims, count, call->action, call->strict, xid, call->due, &call->cause, &cells, &needed,
									  epoch)) < 0)
	{
		mq_cells_return(&cells);
		CHECK_FOR_INTERRUPTS();
		if (needed == MQ_OVER_SHARE)
			mq_over_share(group);
		mq_need_cells(&cells, needed, is_ack(call->action));
	}
	mq_cells_return(&cells);
	return changed;
}

/* The ack that popped them is in the log already; this row takes it back. */
static void
write_left(const MqGroup *group, const MqWindowRef *ref, int32 epoch, const MqClaim *claims, int count)
{
	MqRange    *ranges = palloc(count * sizeof(MqRange));
	int			n = 0;

	for (int i = 0; i < count; i++)
		if (claims[i].left)
			ranges[n++] = (MqRange) {claims[i].lo, claims[i].hi};
	if (n > 0)
		mq_offset_log_wrote(ref->window, &ref->key, mq_offset_log_void(group, 0, epoch, ranges, n));
	pfree(ranges);
}

/* What has to be there before a mark is made; NULL: the action is not undone. */
static MqUndo **
prepare_undo(const ClaimCall *call, const MqWindowRef *ref, int count, uint64 xid)
{
	MqUndo	  **undo;

	if (xid == 0 || call->action == MQ_CLAIM_EXTEND)
		return NULL;
	undo = palloc(count * sizeof(MqUndo *));
	for (int i = 0; i < count; i++)
		undo[i] = is_ack(call->action) ? mq_undo_settle(ref) : mq_undo_leave(ref, call->action == MQ_CLAIM_FAIL ? &call->cause : NULL);
	return undo;
}

/*
 * Claims of one window; with strict all of them or none. Returns whether all were granted. What a transaction without an xid
 * nacks or releases it cannot have popped.
 */
static bool
claim_window(const ClaimCall *call, const MqGroup *group, MqClaim *claims, int count)
{
	MqWindowRef ref = {group->window, mq_window_key(group, 0)};
	uint64		xid = is_ack(call->action) ? mq_transaction_xid() : U64FromFullTransactionId(GetTopFullTransactionIdIfAny());
	MqUndo	  **undo = prepare_undo(call, &ref, count, xid);
	int64		changed;
	int32		epoch = 0;
	bool		granted = true;

	changed = claim_with_cells(call, group, &ref, claims, count, xid, &epoch);
	for (int i = 0; i < count; i++)
		granted &= !claims[i].refused;
	if (undo == NULL)
		return granted;
	for (int i = 0; i < count && changed > 0; i++)
		if (!claims[i].refused && (is_ack(call->action) || claims[i].left))
			mq_undo_widen(undo[i], claims[i].lo, claims[i].hi);
	if (changed > 0 && is_ack(call->action))
		write_claimed(group, &ref, epoch, claims, count);
	else if (changed > 0)
		write_left(group, &ref, epoch, claims, count);
	pfree(undo);
	return granted;
}

/* Only sees which claims would be refused; returns whether any. */
static bool
check_window(const ClaimCall *call, const MqGroup *group, MqClaim *claims, int count)
{
	MqWindowRef ref = {group->window, mq_window_key(group, 0)};
	bool		gives_up = call->action == MQ_CLAIM_FAIL || call->action == MQ_CLAIM_RELEASE;
	uint64		xid = gives_up ? U64FromFullTransactionId(GetTopFullTransactionIdIfAny()) : 0;
	bool		refused = false;
	int32		epoch;

	(void) mq_window_claim(&ref, claims, count, MQ_CLAIM_CHECK, true, xid, 0, NULL, NULL, NULL, &epoch);
	for (int i = 0; i < count; i++)
		refused |= claims[i].refused;
	return refused;
}

/*
 * With strict, a claim that was refused says nothing about each of its receipts: looks at them one by one. False: all of them
 * hold again (an ack by somebody else was rolled back), so that it is worth another try.
 */
static bool
find_refused(const ClaimCall *call, const MqGroup *group, Receipt *receipts, int count)
{
	MqClaim    *claims = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(MqClaim));
	bool		refused;

	for (int i = 0; i < count; i++)
		claims[i] = (MqClaim) {receipts[i].r.id, receipts[i].r.id, receipts[i].r.token, false};
	refused = check_window(call, group, claims, count);
	for (int i = 0; i < count; i++)
		receipts[i].refused = claims[i].refused;
	pfree(claims);
	return refused;
}

/* All the receipts or none: true, or false when some were refused. */
static bool
claim_strictly(const ClaimCall *call, const MqGroup *group, Receipt *receipts, int count, bool only_check)
{
	MqClaim    *claims = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(MqClaim));
	bool		refused;

	do
	{
		int			n = make_claims(receipts, count, claims);

		CHECK_FOR_INTERRUPTS();
		if (only_check)
			refused = check_window(call, group, claims, n);
		else
			refused = !claim_window(call, group, claims, n);
	} while (refused && !find_refused(call, group, receipts, count));
	pfree(claims);
	return !refused;
}

/* A claim covers several receipts: if it was refused as a whole, find out which of them were. */
static void
claim_singly(const ClaimCall *call, const MqGroup *group, Receipt *receipts, int count)
{
	for (int i = 0; i < count; i++)
	{
		MqClaim		claim;

		CHECK_FOR_INTERRUPTS();
		(void) make_claims(&receipts[i], 1, &claim);
		receipts[i].refused = !claim_window(call, group, &claim, 1);
	}
}

/* As many as hold. */
static void
claim_what_holds(const ClaimCall *call, const MqGroup *group, Receipt *receipts, int count)
{
	MqClaim    *claims = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(MqClaim));
	int			nclaims = make_claims(receipts, count, claims);
	int			at = 0;

	(void) claim_window(call, group, claims, nclaims);
	for (int i = 0; i < nclaims; i++)
	{
		int			n = (int) (claims[i].hi - claims[i].lo + 1);

		if (claims[i].refused && n > 1)
			claim_singly(call, group, receipts + at, n);
		else
			for (int j = 0; j < n; j++)
				receipts[at + j].refused = claims[i].refused;
		at += n;
	}
	pfree(claims);
}

/* Of the refused ones, those whose message the caller may know; any bytes make a receipt. */
static void
note_known(const MqGroup *group, Receipt *receipts, int count)
{
	MqTail		tail;

	if (!mq_log_tail(&group->queue, 0, &tail))
		return;
	for (int i = 0; i < count; i++)
		receipts[i].known = receipts[i].refused && receipts[i].r.id > 0 && receipts[i].r.id < tail.next_id;
}

void
mq_lease_too_long(const MqGroup *group, int64 left)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("visibility_timeout is longer than max_lease of consumer group \"%s\" allows", NameStr(group->name)),
			 errdetail("A message can be held for %.3f s from its hand-out on; %.3f s are left.", group->max_lease_us / 1e6,
					   Max(left, 0) / 1e6),
			 errhint("Give a shorter one; have the work done in smaller steps, or max_lease raised.")));
}

/*
 * An extension past the group's max_lease is refused as a whole, before anything is extended. What is lost is none: that is said
 * as ever.
 */
static void
check_max_lease(const ClaimCall *call, const MqGroup *group, Receipt *receipts, int count)
{
	TimestampTz first = PG_INT64_MAX;	/* hand-out of those that hold */

	for (int i = 0; i < count; i++)
		first = Min(first, mq_token_time(receipts[i].r.token));
	if (call->due - group->max_lease_us <= first)
		return;
	(void) find_refused(call, group, receipts, count);
	first = PG_INT64_MAX;
	for (int i = 0; i < count; i++)
	{
		if (!receipts[i].refused)
			first = Min(first, mq_token_time(receipts[i].r.token));
		receipts[i].refused = false;
	}
	if (call->due - group->max_lease_us > first)
		mq_lease_too_long(group, first + group->max_lease_us - GetCurrentTimestamp());
}

/* Receipts of one group, sorted. Sets `refused` in each of them, and with strict `known`; a refusal raises no error here. */
static void
claim_group(const ClaimCall *call, Receipt *receipts, int count, bool only_check)
{
	MqGroup		group;

	/* without the right the answer is as for a group that is not there: made-up receipts tell no names */
	if (receipts[0].r.group_no == 0 || receipts[0].r.level != 0 ||
		!mq_group_by_number(receipts[0].r.group_no, &group) || !mq_may_consume(&group))
	{
		for (int i = 0; i < count; i++)
			receipts[i].refused = true;
		return;
	}
	mq_attach_group(&group);
	if (call->action == MQ_CLAIM_EXTEND && group.max_lease_us > 0)
		check_max_lease(call, &group, receipts, count);
	if (!call->strict && !only_check)
		claim_what_holds(call, &group, receipts, count);
	else if (call->strict && !claim_strictly(call, &group, receipts, count, only_check))
		note_known(&group, receipts, count);
}

/* One group after the other; with strict, an error if any receipt was refused. */
static void
claim_groups(const ClaimCall *call, bool only_check)
{
	int			n;

	for (int at = 0; at < call->count; at += n)
	{
		for (n = 1; at + n < call->count && call->receipts[at + n].r.group_no == call->receipts[at].r.group_no &&
			 call->receipts[at + n].r.level == call->receipts[at].r.level; n++)
			;
		claim_group(call, call->receipts + at, n, only_check);
	}
	if (call->strict)
		raise_if_lost(call->receipts, call->count);
}

/* Sorts the receipts. Which of them were refused is said in them; with strict none was, or MQ001 is raised. */
static void
claim_all(ClaimCall *call)
{
	mq_check_writable(call->function);
	mq_catalog_catch_up();
	if (call->count > 1)
	{
		qsort(call->receipts, call->count, sizeof(Receipt), compare_receipts);
		check_duplicates(call);
	}
	/* with several groups a refusal in one must be known before another is changed: no rollback undoes a nack */
	if ((call->strict || call->action == MQ_CLAIM_EXTEND) && call->count > 1 &&
		call->receipts[0].r.group_no != call->receipts[call->count - 1].r.group_no)
		claim_groups(call, true);
	claim_groups(call, false);
}

/* The verb for one receipt: always strict. */
static Datum
claim_scalar(FunctionCallInfo fcinfo, const char *function, MqClaimAction action, TimestampTz due, const char *reason)
{
	Receipt		receipt = {0};
	ClaimCall	call = {function, action, due, true, &receipt, 1, {MQ_FAILED_NACK,.reason = reason}};

	mq_check_not_null(fcinfo, 0, "receipt");
	mq_receipt_decode(PG_GETARG_UUID_P(0)->data, &receipt.r);
	claim_all(&call);
	PG_RETURN_VOID();
}

/* The receipts that were refused, in the order of the argument: what the caller gets back without strict. */
static Datum
refused_array(const ClaimCall *call, const Datum *arguments)
{
	Datum	   *refused = palloc((call->count + 1) * sizeof(Datum));
	int			n = 0;

	if (call->count > 1)
		qsort(call->receipts, call->count, sizeof(Receipt), compare_positions);
	for (int i = 0; i < call->count; i++)
		if (call->receipts[i].refused)
			refused[n++] = arguments[call->receipts[i].position];
	return PointerGetDatum(construct_array(refused, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

/* The verb for an array of receipts; strict_arg: number of its argument `strict`. */
static Datum
claim_array(FunctionCallInfo fcinfo, const char *function, MqClaimAction action, TimestampTz due, int strict_arg, const char *reason)
{
	ClaimCall	call = {function, action, due,.cause = {MQ_FAILED_NACK,.reason = reason}};
	Datum	   *values;

	mq_check_not_null(fcinfo, 0, "receipts");
	mq_check_not_null(fcinfo, strict_arg, "strict");
	call.strict = PG_GETARG_BOOL(strict_arg);
	call.count = mq_array_arg(fcinfo, 0, "receipts", UUIDOID, &values, NULL);
	call.receipts = MemoryContextAllocHuge(CurrentMemoryContext, (call.count + 1) * sizeof(Receipt));
	for (int i = 0; i < call.count; i++)
	{
		call.receipts[i] = (Receipt) {.position = i};
		mq_receipt_decode(DatumGetUUIDP(values[i])->data, &call.receipts[i].r);
	}
	claim_all(&call);
	return refused_array(&call, values);
}

/*
 * When a message that was given up is ready again; 0: at once. Rounded up, by less than a hundredth of the delay, so that neighbours that
 * are given up one after the other take no more memory than one.
 */
static TimestampTz
delay_arg(FunctionCallInfo fcinfo, int arg, TimestampTz if_null)
{
	int64		us;
	int64		step;
	TimestampTz due;

	if (PG_ARGISNULL(arg))
		return if_null;
	us = mq_interval_us(PG_GETARG_INTERVAL_P(arg), "delay", 0);
	if (us == 0)
		return 0;
	step = Max(us / 128, 1);
	due = GetCurrentTimestamp() + us + step - 1;
	return due - due % step;
}

/* As much of it as is kept; NULL: none was given. */
static const char *
reason_arg(FunctionCallInfo fcinfo, int arg)
{
	text	   *reason;
	int			length;

	if (PG_ARGISNULL(arg))
		return NULL;
	reason = PG_GETARG_TEXT_PP(arg);
	length = (int) VARSIZE_ANY_EXHDR(reason);
	return pnstrdup(VARDATA_ANY(reason), pg_mbcliplen(VARDATA_ANY(reason), length, Min(length, MQ_REASON_MAX)));
}

/* The new end of a lease: from now on, not from the start of the transaction. */
static TimestampTz
timeout_arg(FunctionCallInfo fcinfo, int arg)
{
	mq_check_not_null(fcinfo, arg, "visibility_timeout");
	return GetCurrentTimestamp() + mq_interval_us(PG_GETARG_INTERVAL_P(arg), "visibility_timeout", 1);
}

MQ_FUNCTION(mq_ack);
Datum
mq_ack(PG_FUNCTION_ARGS)
{
	return claim_scalar(fcinfo, "mq.ack()", MQ_CLAIM_SETTLE, 0, NULL);
}

MQ_FUNCTION(mq_ack_batch);
Datum
mq_ack_batch(PG_FUNCTION_ARGS)
{
	return claim_array(fcinfo, "mq.ack_batch()", MQ_CLAIM_SETTLE, 0, 1, NULL);
}

MQ_FUNCTION(mq_nack);
Datum
mq_nack(PG_FUNCTION_ARGS)
{
	return claim_scalar(fcinfo, "mq.nack()", MQ_CLAIM_FAIL, delay_arg(fcinfo, 1, MQ_DUE_AFTER_PAUSE), reason_arg(fcinfo, 2));
}

MQ_FUNCTION(mq_nack_batch);
Datum
mq_nack_batch(PG_FUNCTION_ARGS)
{
	return claim_array(fcinfo, "mq.nack_batch()", MQ_CLAIM_FAIL, delay_arg(fcinfo, 1, MQ_DUE_AFTER_PAUSE), 3, reason_arg(fcinfo, 2));
}

MQ_FUNCTION(mq_release);
Datum
mq_release(PG_FUNCTION_ARGS)
{
	return claim_scalar(fcinfo, "mq.release()", MQ_CLAIM_RELEASE, delay_arg(fcinfo, 1, 0), NULL);
}

MQ_FUNCTION(mq_release_batch);
Datum
mq_release_batch(PG_FUNCTION_ARGS)
{
	return claim_array(fcinfo, "mq.release_batch()", MQ_CLAIM_RELEASE, delay_arg(fcinfo, 1, 0), 2, NULL);
}

MQ_FUNCTION(mq_dead_letter);
Datum
mq_dead_letter(PG_FUNCTION_ARGS)
{
	return claim_scalar(fcinfo, "mq.dead_letter()", MQ_CLAIM_FAIL, MQ_DUE_NEVER, reason_arg(fcinfo, 1));
}

MQ_FUNCTION(mq_dead_letter_batch);
Datum
mq_dead_letter_batch(PG_FUNCTION_ARGS)
{
	return claim_array(fcinfo, "mq.dead_letter_batch()", MQ_CLAIM_FAIL, MQ_DUE_NEVER, 2, reason_arg(fcinfo, 1));
}

MQ_FUNCTION(mq_extend);
Datum
mq_extend(PG_FUNCTION_ARGS)
{
	return claim_scalar(fcinfo, "mq.extend()", MQ_CLAIM_EXTEND, timeout_arg(fcinfo, 1), NULL);
}

MQ_FUNCTION(mq_extend_batch);
Datum
mq_extend_batch(PG_FUNCTION_ARGS)
{
	return claim_array(fcinfo, "mq.extend_batch()", MQ_CLAIM_EXTEND, timeout_arg(fcinfo, 1), 2, NULL);
}

/* The messages of the ranges as receipts. */
static Receipt *
receipts_of(const MqGroup *group, uint64 token, const MqRange *ranges, int nranges, int *count)
{
	Receipt    *receipts;
	int			n = 0;

	*count = 0;
	for (int i = 0; i < nranges; i++)
		*count += (int) (ranges[i].hi - ranges[i].lo + 1);
	receipts = MemoryContextAllocHuge(CurrentMemoryContext, (*count + 1) * sizeof(Receipt));
	for (int i = 0; i < nranges; i++)
		for (int64 id = ranges[i].lo; id <= ranges[i].hi; id++, n++)
			receipts[n] = (Receipt) {{group->group_no, 0, id, token}, n, false, false};
	return receipts;
}

/* Strict: a pop hands out nothing that it has not acked. Only after a refusal the messages are looked at one by one. */
void
mq_ack_popped(const MqGroup *group, uint64 token, const MqRange *ranges, int count)
{
	ClaimCall	call = {"mq.pop()", MQ_CLAIM_POP, 0, true, NULL, 0};
	MqClaim    *claims = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(MqClaim));

	for (int i = 0; i < count; i++)
		claims[i] = (MqClaim) {ranges[i].lo, ranges[i].hi, token, false};
	/* the owner may have discarded one in between, and rolled that back meanwhile */
	while (!claim_window(&call, group, claims, count))
	{
		int			n;
		Receipt    *receipts = receipts_of(group, token, ranges, count, &n);

		CHECK_FOR_INTERRUPTS();
		if (find_refused(&call, group, receipts, n))
			note_known(group, receipts, n);
		raise_if_lost(receipts, n);
		pfree(receipts);
	}
	pfree(claims);
}
