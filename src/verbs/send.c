/*
 * send.c: mq.send and mq.send_batch.
 *
 * Makes heap tuples from the arguments, outside any lock, and hands them to the log. What has to be done per
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

#include "base/settings.h"
#include "log/log.h"
#include "log/segment_table.h"
#include "offset/rebuild.h"
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
 * Raises 22004 if there is neither payload nor body, 54000 if the message is too large, 22023 for wrong headers. Headers that are
 * JSON null are none.
 */
static void
check_parts(Parts *parts)
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
	if (parts->has_headers)
		parts->has_headers = check_headers(parts->headers);
}

/* The tuple is palloc'd, with room for id and enqueued_at, which the log fills in. */
static HeapTuple
form_row(Parts *parts)
{
	Datum		v[MQ_PLAIN_COLUMNS] = {0};
	bool		isnull[MQ_PLAIN_COLUMNS];

	check_parts(parts);
	/* the log fills in these two */
	isnull[MQ_COL_ID - 1] = isnull[MQ_COL_ENQUEUED_AT - 1] = false;
	if ((isnull[MQ_COL_PAYLOAD - 1] = !parts->has_payload) == false)
		v[MQ_COL_PAYLOAD - 1] = ready_to_store(parts->payload);
	if ((isnull[MQ_COL_HEADERS - 1] = !parts->has_headers) == false)
		v[MQ_COL_HEADERS - 1] = ready_to_store(parts->headers);
	if ((isnull[MQ_COL_BODY - 1] = !parts->has_body) == false)
		v[MQ_COL_BODY - 1] = ready_to_store(parts->body);
	return heap_form_tuple(mq_plain_row_descriptor(), v, isnull);
}

/* The queue that argument 0 names, for someone who may send; it is attached. */
static void
open_queue(FunctionCallInfo fcinfo, const char *function, MqQueue *queue)
{
	mq_check_writable(function);
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), queue);
	mq_check_right(queue, MQ_RIGHT_SEND);
	mq_attach_queue(queue);
}

/* What is not there yet is refused; in the order of the arguments, from the fifth on. */
static void
check_not_supported(FunctionCallInfo fcinfo, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
		if (!PG_ARGISNULL(4 + i))
			mq_refuse_arg(fcinfo, 4 + i, names[i]);
}

MQ_FUNCTION(mq_send);
Datum
mq_send(PG_FUNCTION_ARGS)
{
	static const char *const later[] = {
		"key", "routing_key", "priority", "dedup_id", "delay", "deliver_at", "expires_in"
	};
	MqQueue		queue;
	Parts		parts = {0};
	HeapTuple	tuple;
	int64		id;

	open_queue(fcinfo, "mq.send()", &queue);
	check_not_supported(fcinfo, later, lengthof(later));
	parts.has_payload = !PG_ARGISNULL(1);
	parts.has_headers = !PG_ARGISNULL(2);
	parts.has_body = !PG_ARGISNULL(3);
	parts.payload = PG_GETARG_DATUM(1);
	parts.headers = PG_GETARG_DATUM(2);
	parts.body = PG_GETARG_DATUM(3);
	tuple = form_row(&parts);
	mq_transaction_sent(&queue);
	mq_log_append(&queue, 0, &tuple, 1, &id);
	PG_RETURN_INT64(id);
}

/* One array argument of send_batch. */
typedef struct Column
{
	Datum	   *values;
	bool	   *nulls;
	bool		given;
} Column;

/* Reads an array; all that are given must have the same length. */
static void
column_arg(FunctionCallInfo fcinfo, int arg, const char *name, Oid type, Column *column, int *count)
{
	int			n;

	column->given = !PG_ARGISNULL(arg);
	if (!column->given)
		return;
	n = mq_array_arg(fcinfo, arg, name, type, &column->values, &column->nulls);
	if (*count >= 0 && n != *count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has %d elements, not %d", name, n, *count),
				 errhint("Give arrays of the same length, with nulls where a message has no such part.")));
	*count = n;
}

/* False: the message has no such part. */
static bool
column_value(const Column *column, int i, Datum *value)
{
	if (!column->given || column->nulls[i])
		return false;
	*value = column->values[i];
	return true;
}

/* Says which element an error is about, whoever raises it. */
static void
element_context(void *element)
{
	errcontext("element %d of mq.send_batch()", *(int *) element);
}

/* Returns ids in the order of the elements. All rows are made before the first is appended: a wrong element uses up no id. */
MQ_FUNCTION(mq_send_batch);
Datum
mq_send_batch(PG_FUNCTION_ARGS)
{
	static const char *const later[] = {
		"keys", "routing_keys", "priorities", "dedup_ids", "delays", "deliver_at", "expires_in"
	};
	MqQueue		queue;
	Column		payloads;
	Column		headers;
	Column		bodies;
	int			count = -1;
	HeapTuple  *tuples;
	int64	   *ids;
	Datum	   *result;
	int			element;
	ErrorContextCallback context = {.callback = element_context,.arg = &element};

	open_queue(fcinfo, "mq.send_batch()", &queue);
	check_not_supported(fcinfo, later, lengthof(later));
	column_arg(fcinfo, 1, "payloads", JSONBOID, &payloads, &count);
	column_arg(fcinfo, 2, "headers", JSONBOID, &headers, &count);
	column_arg(fcinfo, 3, "bodies", BYTEAOID, &bodies, &count);
	if (!payloads.given && !bodies.given)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payloads and bodies must not both be null"),
				 errhint("Give an array of payloads or of bodies; it may be empty.")));
	if (count == 0)
		PG_RETURN_POINTER(construct_empty_array(INT8OID));

	tuples = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(HeapTuple));
	context.previous = error_context_stack;
	error_context_stack = &context;
	for (int i = 0; i < count; i++)
	{
		Parts		parts = {0};

		element = i + 1;
		parts.has_payload = column_value(&payloads, i, &parts.payload);
		parts.has_headers = column_value(&headers, i, &parts.headers);
		parts.has_body = column_value(&bodies, i, &parts.body);
		tuples[i] = form_row(&parts);
	}
	error_context_stack = context.previous;
	ids = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(int64));
	mq_transaction_sent(&queue);
	mq_log_append(&queue, 0, tuples, count, ids);

	/* a Datum holds an int64 as it is (shmem.h asserts 64 bits) */
	result = (Datum *) ids;
	PG_RETURN_POINTER(construct_array(result, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
