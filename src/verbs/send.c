/*
 * send.c: mq.send and mq.send_batch.
 *
 * Makes heap tuples from the arguments, outside any lock, and hands them to the log, or to the schedule if they are not due yet. What has to be done per
 * message before the append lock is taken: fetch what is toasted elsewhere, and compress what is large, so that
 * under the lock only the writing is left.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/toast_internals.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "log/dedup.h"
#include "log/log.h"
#include "log/send_rate.h"
#include "log/schedule.h"
#include "log/segment_table.h"
#include "offset/bounds.h"
#include "offset/rebuild.h"
#include "verbs/due.h"
#include "verbs/verbs.h"
#include "window/transaction.h"

/* The parts of a message that a sender gives; null where NULL. */
typedef struct Parts
{
	Datum		payload;
	Datum		headers;
	Datum		body;
	bool		has_payload;
	bool		has_headers;
	bool		has_body;
	TimestampTz due;			/* 0: at once */
	text	   *dedup_id;		/* NULL: none */
} Parts;

/* A value that the append can store without reading another table or compressing. */
static Datum
ready_to_store(Datum value)
{
	struct varlena *attr = (struct varlena *) DatumGetPointer(value);

	if (VARATT_IS_EXTERNAL(attr))
		value = PointerGetDatum(attr = detoast_external_attr(attr));
	if (VARATT_IS_4B_U(attr) && VARSIZE(attr) > TOAST_TUPLE_THRESHOLD / 2)
	{
		Datum		compressed = toast_compress_datum(value, InvalidCompressionMethod);

		if (DatumGetPointer(compressed) != NULL)
			value = compressed;
	}
	return value;
}

static Size
part_size(Datum value, bool present)
{
	return present ? toast_raw_datum_size(value) - VARHDRSZ : 0;
}

static void
wrong_headers(const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 errhint("%s", hint)));
}

/*
 * An object; the names that begin with "mq." are kept, so that nobody can make a header look like the engine's. False: there are
 * none, for JSON null is what some drivers make of none.
 */
static bool
check_headers(Datum value)
{
	Jsonb	   *headers = DatumGetJsonbP(value);
	JsonbIterator *it;
	JsonbValue	key;
	JsonbIteratorToken token;

	if (JB_ROOT_IS_SCALAR(headers) && JBE_ISNULL(headers->root.children[0]))
		return false;
	if (!JB_ROOT_IS_OBJECT(headers))
		wrong_headers("headers must be a JSON object", "For example {\"type\": \"order\"}; leave them out if there are none.");
	it = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
		if (token == WJB_KEY && key.val.string.len >= 3 && memcmp(key.val.string.val, "mq.", 3) == 0)
			wrong_headers("headers with names that begin with \"mq.\" cannot be sent", "Use another name for the header.");
	if ((Pointer) headers != DatumGetPointer(value))
		pfree(headers);
	return true;
}

/*
 * Raises 22004 if there is neither payload nor body, 54000 or 22001 if the message is too large, 22023 for wrong headers. Headers that
 * are JSON null are none.
 */
static void
check_parts(const MqQueue *queue, Parts *parts)
{
	Size		size = part_size(parts->payload, parts->has_payload) +
		part_size(parts->headers, parts->has_headers) + part_size(parts->body, parts->has_body);

	if (!parts->has_payload && !parts->has_body)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a message needs a payload or a body"),
				 errhint("For an empty message send the JSON value null: 'null'::jsonb.")));
	if (size > (Size) mq_max_message_size)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("message of %zu bytes is too large", size),
				 errdetail("The limit mq.max_message_size is %d bytes.", mq_max_message_size),
				 errhint("Raise mq.max_message_size, or keep the content in a table and send its key.")));
	if (queue->max_message_bytes > 0 && size > (Size) queue->max_message_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("message of %zu bytes is too large for queue \"%s\"", size, NameStr(queue->name)),
				 errdetail("The limit max_message_bytes of the queue is %d bytes.", queue->max_message_bytes),
				 errhint("Keep the content in a table and send its key, or ask the owner of the queue to raise the limit.")));
	if (parts->has_headers)
		parts->has_headers = check_headers(parts->headers);
}

/* Of 1 to 255 bytes; the copy is not toasted, compressed or packed. */
static text *
check_dedup_id(Datum value)
{
	text	   *id = DatumGetTextPCopy(value);

	if (VARSIZE_ANY_EXHDR(id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a dedup_id must not be empty"),
				 errhint("Leave it out, or give null, for a message that is sent in any case.")));
	if (VARSIZE_ANY_EXHDR(id) > MQ_DEDUP_LENGTH_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("a dedup_id of %zu bytes is too long", VARSIZE_ANY_EXHDR(id)),
				 errhint("It has at most %d bytes; give a digest of what is longer, encode(sha256(...), 'hex') say.", MQ_DEDUP_LENGTH_MAX)));
	return id;
}

/* A row that has more than those of most messages. */
static HeapTuple
form_long_row(const Parts *parts, const Datum *plain, const bool *plain_isnull)
{
	Datum		v[MQ_COLUMNS] = {0};
	bool		isnull[MQ_COLUMNS];

	memset(isnull, true, sizeof(isnull));
	memcpy(v, plain, MQ_PLAIN_COLUMNS * sizeof(Datum));
	memcpy(isnull, plain_isnull, MQ_PLAIN_COLUMNS * sizeof(bool));
	v[MQ_COL_DEDUP_ID - 1] = PointerGetDatum(parts->dedup_id);
	isnull[MQ_COL_DEDUP_ID - 1] = false;
	return heap_form_tuple(mq_row_descriptor(), v, isnull);
}

/* The tuple is palloc'd, with room for id and enqueued_at, which the log fills in. */
static HeapTuple
form_row(const MqQueue *queue, Parts *parts)
{
	Datum		v[MQ_PLAIN_COLUMNS] = {0};
	bool		isnull[MQ_PLAIN_COLUMNS];

	check_parts(queue, parts);
	/* the log fills in these two */
	isnull[MQ_COL_ID - 1] = isnull[MQ_COL_ENQUEUED_AT - 1] = false;
	if ((isnull[MQ_COL_PAYLOAD - 1] = !parts->has_payload) == false)
		v[MQ_COL_PAYLOAD - 1] = ready_to_store(parts->payload);
	if ((isnull[MQ_COL_HEADERS - 1] = !parts->has_headers) == false)
		v[MQ_COL_HEADERS - 1] = ready_to_store(parts->headers);
	if ((isnull[MQ_COL_BODY - 1] = !parts->has_body) == false)
		v[MQ_COL_BODY - 1] = ready_to_store(parts->body);
	if (parts->dedup_id != NULL)
		return form_long_row(parts, v, isnull);
	return heap_form_tuple(mq_plain_row_descriptor(), v, isnull);
}

/* ---- messages that are not due yet ---- */

/* When the message is due; 0: at once, which the past is too. 22023 for both at a time, and what is further than 100 years ahead. */
static TimestampTz
due_time(bool has_delay, Datum delay, bool has_time, Datum time)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due;

	if (has_delay && has_time)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a message cannot have both a delay and a time of delivery"),
				 errhint("Give one of delay and deliver_at.")));
	if (has_delay)
		due = now + mq_interval_between(DatumGetIntervalP(delay), "delay", -MQ_DELAY_MAX_US, MQ_DELAY_MAX_US,
										"It must be at most 36525 days; a month counts 30, and what is not above zero is no delay.");
	else
		due = mq_check_due(DatumGetTimestampTz(time), now);
	return due <= now ? 0 : due;
}

/* Those of the messages that have a due time: they get their ids now. What is toasted elsewhere has been fetched (form_row). */
static void
schedule_all(const MqQueue *queue, HeapTuple *tuples, const TimestampTz *due, int count, int64 *ids)
{
	MqScheduleTables tables = {0};
	TimestampTz first = PG_INT64_MAX;

	mq_schedule_lock(queue, false);
	mq_log_take_ids(queue, 0, count, ids);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		mq_schedule_put(&tables, queue, tuples[i], MQ_SCHED_KIND_SEND, due[i], ids[i]);
		first = Min(first, due[i]);
	}
	mq_schedule_close(&tables);
	mq_transaction_schedules(queue, first, count);
}

/* ---- bounds ---- */

/* How many consumer groups there are is nothing for who may only send: no numbers but the bounds. */
static const char *
bounds_text(const MqQueue *queue)
{
	if (queue->max_bytes == 0)
		return psprintf("Its bound max_messages is %lld.", (long long) queue->max_messages);
	if (queue->max_messages == 0)
		return psprintf("Its bound max_bytes is %lld.", (long long) queue->max_bytes);
	return psprintf("Its bounds are max_messages %lld and max_bytes %lld.", (long long) queue->max_messages, (long long) queue->max_bytes);
}

/* Raises 53400. */
static void
check_rate(const MqQueue *queue, int count)
{
	int64		ms = mq_rate_admit(queue, count);

	if (ms > 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("queue \"%s\" gets too many messages", NameStr(queue->name)),
				 errdetail("The limit max_send_per_second of the queue is %d.", queue->max_send_per_second),
				 errhint("Send again in %lld ms.", (long long) ms)));
}

/* One look for all of them: most queues have none. */
static inline bool
has_limits(const MqQueue *queue)
{
	return (queue->max_messages | queue->max_bytes | queue->max_send_per_second) != 0;
}

/* Raises 53400 if the queue is full, or gets too many. Before anything is written, so that the transaction can go on after a savepoint. */
static void
check_bounds(const MqQueue *queue, HeapTuple *tuples, int count)
{
	int64		bytes = 0;

	if (queue->max_send_per_second > 0)
		check_rate(queue, count);
	for (int i = 0; i < count; i++)
		bytes += tuples[i]->t_len;
	if (mq_has_bounds(queue) && !mq_bounds_admit(queue, count, bytes))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("queue \"%s\" is full", NameStr(queue->name)),
				 errdetail("%s", bounds_text(queue)),
				 errhint("Send again when its consumers have finished more. After a rollback to a savepoint the transaction can go on.")));
}

/* What one call sends: the messages that are sent at once, and those that are scheduled. */
typedef struct Batch
{
	int			count;
	HeapTuple  *tuples;
	TimestampTz *due;			/* NULL: all are sent at once */
	text	  **dedup_ids;		/* NULL: none has one */
	int64	   *ids;
} Batch;

/* Those that are due at once are appended, the others scheduled; the ids come back in the order of the elements. */
static void
store_timed(const MqQueue *queue, Batch *batch)
{
	HeapTuple  *tuples = MemoryContextAllocHuge(CurrentMemoryContext, batch->count * sizeof(HeapTuple));
	TimestampTz *due = MemoryContextAllocHuge(CurrentMemoryContext, batch->count * sizeof(TimestampTz));
	int64	   *ids = MemoryContextAllocHuge(CurrentMemoryContext, batch->count * sizeof(int64));
	int			later = 0;
	int			now;

	for (int i = 0; i < batch->count; i++)
		if (batch->due[i] != 0)
		{
			due[later] = batch->due[i];
			tuples[later++] = batch->tuples[i];
		}
	now = later;
	for (int i = 0; i < batch->count; i++)
		if (batch->due[i] == 0)
			tuples[now++] = batch->tuples[i];
	if (later > 0)
		schedule_all(queue, tuples, due, later, ids);
	if (now > later)
	{
		mq_transaction_sent(queue);
		mq_log_append(queue, 0, tuples + later, now - later, ids + later);
	}
	now = later;
	later = 0;
	for (int i = 0; i < batch->count; i++)
		batch->ids[i] = batch->due[i] != 0 ? ids[later++] : ids[now++];
}

/* Sends all of them. */
static void
store_all(const MqQueue *queue, Batch *batch)
{
	if (batch->due != NULL)
		store_timed(queue, batch);
	else
	{
		mq_transaction_sent(queue);
		mq_log_append(queue, 0, batch->tuples, batch->count, batch->ids);
	}
}

/* ---- messages with a deduplication id ---- */

/* The ids of the batch, and in *element which of its messages each is of. */
static MqDedupId *
collect_dedup_ids(const Batch *batch, int *element, int *count)
{
	MqDedupId  *ids = MemoryContextAllocHuge(CurrentMemoryContext, batch->count * sizeof(MqDedupId));

	*count = 0;
	for (int i = 0; i < batch->count; i++)
		if (batch->dedup_ids[i] != NULL)
		{
			element[*count] = i;
			ids[(*count)++] = (MqDedupId) {batch->dedup_ids[i], batch->due != NULL ? batch->due[i] : 0};
		}
	return ids;
}

/* Sends those whose id is 0. */
static void
store_chosen(const MqQueue *queue, Batch *batch)
{
	Batch		chosen = *batch;
	int		   *element = MemoryContextAllocHuge(CurrentMemoryContext, batch->count * sizeof(int));

	chosen.count = 0;
	chosen.ids = MemoryContextAllocHuge(CurrentMemoryContext, batch->count * sizeof(int64));
	for (int i = 0; i < batch->count; i++)
		if (batch->ids[i] == 0)
		{
			chosen.tuples[chosen.count] = batch->tuples[i];
			if (batch->due != NULL)
				chosen.due[chosen.count] = batch->due[i];
			element[chosen.count++] = i;
		}
	if (chosen.count > 0 && has_limits(queue))
		check_bounds(queue, chosen.tuples, chosen.count);
	if (chosen.count > 0)
		store_all(queue, &chosen);
	for (int i = 0; i < chosen.count; i++)
		batch->ids[element[i]] = chosen.ids[i];
}

/*
 * Sends what has no id, and of each id that nobody has the first one; the others get the message that has theirs. What is found and what is
 * sent is under the same lock (dedup.h), so of several senders one sends.
 */
static void
store_once(const MqQueue *queue, Batch *batch)
{
	int		   *element = MemoryContextAllocHuge(CurrentMemoryContext, batch->count * sizeof(int));
	int			count;
	MqDedupId  *ids = collect_dedup_ids(batch, element, &count);
	MqDedup    *dedup = mq_dedup_claim(queue, ids, count);
	int			repeats = 0;

	memset(batch->ids, 0, batch->count * sizeof(int64));
	for (int i = 0; i < count; i++)
	{
		/* any but 0: not to be sent */
		batch->ids[element[i]] = ids[i].same_as != i ? -1 : ids[i].first;
		repeats += batch->ids[element[i]] != 0;
	}
	store_chosen(queue, batch);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (ids[i].same_as != i)
			batch->ids[element[i]] = batch->ids[element[ids[i].same_as]];
		else if (ids[i].first == 0)
			mq_dedup_note(dedup, &ids[i], batch->ids[element[i]]);
	}
	mq_dedup_end(dedup);
	pg_atomic_fetch_add_u64(&queue->chain->duplicates, repeats);
}

/* ---- functions ---- */

/* The queue that argument 0 names, for someone who may send; it is attached. */
static void
open_queue(FunctionCallInfo fcinfo, const char *function, MqQueue *queue)
{
	mq_check_writable(function);
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), queue);
	mq_check_right(queue, MQ_RIGHT_SEND);
	if (queue->dead_letter_of != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" is for dead letters", NameStr(queue->name)),
				 errhint("Send to the queue whose dead letters it has.")));
	if (queue->closed)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" is closed", NameStr(queue->name)),
				 errdetail("Nothing can be sent to it."),
				 errhint("Who may manage it opens it by mq.alter_queue with the option closed.")));
	mq_attach_queue(queue);
}

/* Raises 0A000 for arguments that are not supported yet: those from first to last. */
static void
check_not_supported(FunctionCallInfo fcinfo, const char *const *names, int first, int last)
{
	for (int arg = first; arg <= last; arg++)
		if (!PG_ARGISNULL(arg))
			mq_refuse_arg(fcinfo, arg, names[arg - first]);
}

MQ_FUNCTION(mq_send);
Datum
mq_send(PG_FUNCTION_ARGS)
{
	static const char *const later[] = {"key", "routing_key", "priority"};
	static const char *const expiry[] = {"expires_in"};
	MqQueue		queue;
	Parts		parts = {0};
	HeapTuple	tuple;
	int64		id;

	open_queue(fcinfo, "mq.send()", &queue);
	check_not_supported(fcinfo, later, 4, 6);
	check_not_supported(fcinfo, expiry, 10, 10);
	parts.has_payload = !PG_ARGISNULL(1);
	parts.has_headers = !PG_ARGISNULL(2);
	parts.has_body = !PG_ARGISNULL(3);
	parts.payload = PG_GETARG_DATUM(1);
	parts.headers = PG_GETARG_DATUM(2);
	parts.body = PG_GETARG_DATUM(3);
	if (!PG_ARGISNULL(8) || !PG_ARGISNULL(9))
		parts.due = due_time(!PG_ARGISNULL(8), PG_GETARG_DATUM(8), !PG_ARGISNULL(9), PG_GETARG_DATUM(9));
	if (!PG_ARGISNULL(7))
		parts.dedup_id = check_dedup_id(PG_GETARG_DATUM(7));
	tuple = form_row(&queue, &parts);
	if (has_limits(&queue) && parts.dedup_id == NULL)
		check_bounds(&queue, &tuple, 1);
	if (parts.dedup_id != NULL)
		store_once(&queue, &(Batch) {1, &tuple, &parts.due, &parts.dedup_id, &id});
	else if (parts.due != 0)
		schedule_all(&queue, &tuple, &parts.due, 1, &id);
	else
	{
		mq_transaction_sent(&queue);
		mq_log_append(&queue, 0, &tuple, 1, &id);
	}
	PG_RETURN_INT64(id);
}

/* One array argument of send_batch. */
typedef struct Column
{
	Datum	   *values;
	bool	   *nulls;
	int			length;			/* 1: the same for all elements */
	bool		given;
} Column;

/* The arguments of send_batch, by their number; those that are not supported yet stay empty. */
enum
{
	A_PAYLOADS = 1, A_HEADERS = 2, A_BODIES = 3, A_DEDUP_IDS = 7, A_DELAYS = 8, A_DELIVER_AT = 9, A_COUNT = 11
};

static const struct
{
	int			arg;
	const char *name;
	Oid			type;
}			batch_args[] = {
	{A_PAYLOADS, "payloads", JSONBOID}, {A_HEADERS, "headers", JSONBOID}, {A_BODIES, "bodies", BYTEAOID},
	{A_DEDUP_IDS, "dedup_ids", TEXTOID}, {A_DELAYS, "delays", INTERVALOID}, {A_DELIVER_AT, "deliver_at", TIMESTAMPTZOID}
};

/* Reads the arrays; all that are given have the same length or one element. Returns how many messages that are. */
static int
column_args(FunctionCallInfo fcinfo, Column *columns)
{
	int			count = -1;		/* only arrays of one element so far */
	int			ones = 0;

	for (int i = 0; i < lengthof(batch_args); i++)
	{
		Column	   *column = &columns[batch_args[i].arg];

		if (PG_ARGISNULL(batch_args[i].arg))
			continue;
		column->given = true;
		column->length = mq_array_arg(fcinfo, batch_args[i].arg, batch_args[i].name, batch_args[i].type, &column->values, &column->nulls);
		if ((column->length != 1 && count >= 0 && column->length != count) || (column->length == 0 && ones > 0) ||
			(column->length == 1 && count == 0))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s has %d elements, not %d", batch_args[i].name, column->length, Max(count, 1)),
					 errhint("Give arrays of the same length, with nulls where a message has no such part, or of one element for all messages.")));
		if (column->length != 1)
			count = column->length;
		else
			ones++;
	}
	return count < 0 ? 1 : count;
}

/* False: the message has no such part. */
static bool
column_value(const Column *column, int i, Datum *value)
{
	if (column->length == 1)
		i = 0;
	if (!column->given || column->nulls[i])
		return false;
	*value = column->values[i];
	return true;
}

/* Says which element an error is about, whoever raises it. */
typedef struct ElementContext
{
	const char *function;
	int			element;		/* counted from 1 */
} ElementContext;

static void
element_context(void *arg)
{
	const ElementContext *context = arg;

	errcontext("element %d of %s", context->element, context->function);
}

static void
batch_begin(Batch *batch, int count, bool timed, bool once)
{
	batch->count = count;
	batch->tuples = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(HeapTuple));
	batch->due = timed ? MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(TimestampTz)) : NULL;
	batch->dedup_ids = once ? MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(text *)) : NULL;
	batch->ids = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(int64));
}

/* All rows are made before the first is stored: a wrong element uses up no id. */
static void
form_rows(const MqQueue *queue, Batch *batch, const Column *columns)
{
	ElementContext named = {"mq.send_batch()", 0};
	ErrorContextCallback context = {error_context_stack, element_context, &named};
	bool		timed = batch->due != NULL;
	bool		once = batch->dedup_ids != NULL;

	error_context_stack = &context;
	for (int i = 0; i < batch->count; i++)
	{
		Parts		parts = {0};

		named.element = i + 1;
		parts.has_payload = column_value(&columns[A_PAYLOADS], i, &parts.payload);
		parts.has_headers = column_value(&columns[A_HEADERS], i, &parts.headers);
		parts.has_body = column_value(&columns[A_BODIES], i, &parts.body);
		if (once)
		{
			Datum		value;

			parts.dedup_id = column_value(&columns[A_DEDUP_IDS], i, &value) ? check_dedup_id(value) : NULL;
			batch->dedup_ids[i] = parts.dedup_id;
		}
		batch->tuples[i] = form_row(queue, &parts);
		if (timed)
		{
			Datum		delay = (Datum) 0;
			Datum		time = (Datum) 0;
			bool		has_delay = column_value(&columns[A_DELAYS], i, &delay);
			bool		has_time = column_value(&columns[A_DELIVER_AT], i, &time);

			batch->due[i] = has_delay || has_time ? due_time(has_delay, delay, has_time, time) : 0;
		}
	}
	error_context_stack = context.previous;
}

/* Stores the batch; an array of its ids. */
static ArrayType *
store(const MqQueue *queue, Batch *batch)
{
	if (has_limits(queue) && batch->dedup_ids == NULL)
		check_bounds(queue, batch->tuples, batch->count);
	if (batch->dedup_ids != NULL)
		store_once(queue, batch);
	else
		store_all(queue, batch);
	/* a Datum holds an int64 as it is (shmem.h asserts 64 bits) */
	return construct_array((Datum *) batch->ids, batch->count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
}

/* Returns ids in the order of the elements. */
MQ_FUNCTION(mq_send_batch);
Datum
mq_send_batch(PG_FUNCTION_ARGS)
{
	static const char *const later[] = {"keys", "routing_keys", "priorities"};
	static const char *const expiry[] = {"expires_in"};
	MqQueue		queue;
	Column		columns[A_COUNT] = {0};
	Batch		batch;
	int			count;

	open_queue(fcinfo, "mq.send_batch()", &queue);
	check_not_supported(fcinfo, later, 4, 6);
	check_not_supported(fcinfo, expiry, 10, 10);
	count = column_args(fcinfo, columns);
	if (!columns[A_PAYLOADS].given && !columns[A_BODIES].given)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payloads and bodies must not both be null"),
				 errhint("Give an array of payloads or of bodies; it may be empty.")));
	if (count == 0)
		PG_RETURN_POINTER(construct_empty_array(INT8OID));
	batch_begin(&batch, count, columns[A_DELAYS].given || columns[A_DELIVER_AT].given, columns[A_DEDUP_IDS].given);
	form_rows(&queue, &batch, columns);
	PG_RETURN_POINTER(store(&queue, &batch));
}

/* ---- send_list ---- */

/* The keys of an element. */
typedef enum ListKey
{
	L_PAYLOAD, L_HEADERS, L_BODY, L_DELAY, L_DELIVER_AT, L_DEDUP_ID, L_EXPECTED, L_KEY = L_EXPECTED, L_ROUTING_KEY, L_PRIORITY,
	L_EXPIRES_IN, L_KEYS
} ListKey;

/* In the order of ListKey; those from L_EXPECTED on are not supported yet. */
static const char *const list_keys[] = {
	"payload", "headers", "body", "delay", "deliver_at", "dedup_id", "key", "routing_key", "priority", "expires_in"
};

static void
wrong_element(const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 errhint("%s", hint)));
}

/* 22023 for an unknown key, 0A000 for one of a later version. */
static ListKey
list_key(const JsonbValue *key)
{
	for (int i = 0; i < L_KEYS; i++)
	{
		if (strlen(list_keys[i]) != key->val.string.len || memcmp(list_keys[i], key->val.string.val, key->val.string.len) != 0)
			continue;
		if (i >= L_EXPECTED)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("key \"%s\" of a message is not supported yet", list_keys[i]),
					 errhint("Leave it out.")));
		return (ListKey) i;
	}
	wrong_element(psprintf("a message has no key \"%.*s\"", Min(key->val.string.len, NAMEDATALEN), key->val.string.val),
				  "The keys are payload, headers, body, delay, deliver_at and dedup_id.");
	return L_KEYS;
}

/* 22023 if it is no string. */
static char *
list_string(const JsonbValue *value, const char *name)
{
	if (value->type != jbvString)
		wrong_element(psprintf("%s must be a string", name), "For example \"5 min\" as delay.");
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* One key of an element, and its value, which is not null. */
static void
set_part(Parts *parts, Datum *delay, Datum *time, ListKey key, const JsonbValue *value)
{
	switch (key)
	{
		case L_PAYLOAD:
			parts->has_payload = true;
			parts->payload = JsonbPGetDatum(JsonbValueToJsonb(unconstify(JsonbValue *, value)));
			break;
		case L_HEADERS:
			parts->has_headers = true;
			parts->headers = JsonbPGetDatum(JsonbValueToJsonb(unconstify(JsonbValue *, value)));
			break;
		case L_BODY:
			parts->has_body = true;
			parts->body = DirectFunctionCall2(binary_decode, CStringGetTextDatum(list_string(value, "body")), CStringGetTextDatum("base64"));
			break;
		case L_DELAY:
			*delay = DirectFunctionCall3(interval_in, CStringGetDatum(list_string(value, "delay")), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
			break;
		case L_DELIVER_AT:
			*time = DirectFunctionCall3(timestamptz_in, CStringGetDatum(list_string(value, "deliver_at")), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
			break;
		case L_DEDUP_ID:
			parts->dedup_id = check_dedup_id(CStringGetTextDatum(list_string(value, "dedup_id")));
			break;
		default:
			break;
	}
}

/* What an element says; its due time too. A payload that is JSON null is a payload, every other null is none. */
static void
read_element(const JsonbValue *element, Parts *parts)
{
	JsonbIterator *it;
	JsonbValue	key;
	JsonbValue	value;
	Datum		delay = (Datum) 0;
	Datum		time = (Datum) 0;
	JsonbIteratorToken token;

	if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
		wrong_element("a message must be a JSON object", "For example [{\"payload\": {\"order\": 1}, \"delay\": \"5 min\"}].");
	it = JsonbIteratorInit(element->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		ListKey		which;

		if (token != WJB_KEY)
			continue;
		which = list_key(&key);
		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type != jbvNull || which == L_PAYLOAD)
			set_part(parts, &delay, &time, which, &value);
	}
	if (delay != (Datum) 0 || time != (Datum) 0)
		parts->due = due_time(delay != (Datum) 0, delay, time != (Datum) 0, time);
}

/* The same as send_batch, for clients that have no arrays of their own. */
MQ_FUNCTION(mq_send_list);
Datum
mq_send_list(PG_FUNCTION_ARGS)
{
	MqQueue		queue;
	Batch		batch;
	Jsonb	   *list;
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	bool		any_once = false;
	ElementContext named = {"mq.send_list()", 0};
	ErrorContextCallback context = {error_context_stack, element_context, &named};

	open_queue(fcinfo, "mq.send_list()", &queue);
	mq_check_not_null(fcinfo, 1, "messages");
	list = PG_GETARG_JSONB_P(1);
	if (!JB_ROOT_IS_ARRAY(list) || JB_ROOT_IS_SCALAR(list))
		wrong_element("messages must be a JSON array", "For example [{\"payload\": {\"order\": 1}, \"delay\": \"5 min\"}].");
	if (JB_ROOT_COUNT(list) == 0)
		PG_RETURN_POINTER(construct_empty_array(INT8OID));
	batch_begin(&batch, JB_ROOT_COUNT(list), true, true);
	error_context_stack = &context;
	it = JsonbIteratorInit(&list->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		Parts		parts = {0};

		if (token != WJB_ELEM)
			continue;
		named.element++;
		read_element(&value, &parts);
		batch.due[named.element - 1] = parts.due;
		batch.dedup_ids[named.element - 1] = parts.dedup_id;
		any_once |= parts.dedup_id != NULL;
		batch.tuples[named.element - 1] = form_row(&queue, &parts);
	}
	error_context_stack = context.previous;
	if (!any_once)
		batch.dedup_ids = NULL;
	PG_RETURN_POINTER(store(&queue, &batch));
}
