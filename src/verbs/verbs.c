/*
 * verbs.c: what the SQL-callable functions have in common: their arguments.
 */
#include "postgres.h"

#include "verbs/verbs.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/catalog.h"

/* PostgreSQL's own PreventCommandDuringRecovery and PreventCommandIfReadOnly give no hint, and a call of ours is a SELECT. */
void
mq_check_primary(const char *function)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s during recovery", function),
				 errhint("Connect to the primary: %s needs it, although it is called in a SELECT.", function)));
}

void
mq_check_writable(const char *function)
{
	mq_require_preload();
	mq_check_primary(function);
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s in a read-only transaction", function),
				 errhint("Begin the transaction READ WRITE: %s needs it, although it is called in a SELECT.", function)));
	PreventCommandIfParallelMode(function);
}

void
mq_check_not_null(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errhint("Give a value for argument \"%s\".", name)));
}

Datum
mq_origin_queue(int32 queue_no, bool *isnull)
{
	MqQueue		queue;

	*isnull = !mq_queue_by_number(queue_no, &queue);
	return *isnull ? (Datum) 0 : CStringGetTextDatum(NameStr(queue.name));
}

void
mq_refuse_arg(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (!PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("argument \"%s\" is not supported yet", name),
				 errhint("Leave it out, or give null.")));
}

char *
mq_text_arg(FunctionCallInfo fcinfo, int arg, const char *name)
{
	mq_check_not_null(fcinfo, arg, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

int32
mq_int32_arg(FunctionCallInfo fcinfo, int arg, const char *name)
{
	mq_check_not_null(fcinfo, arg, name);
	return PG_GETARG_INT32(arg);
}

int64
mq_interval_between(const Interval *interval, const char *name, int64 min_us, int64 max_us, const char *hint)
{
	/* months and days may be more than an int64 of microseconds holds */
	double		us = (double) interval->time +
		((double) interval->month * DAYS_PER_MONTH + interval->day) * (double) USECS_PER_DAY;

	if (!MqIntervalIsFinite(interval) || us < (double) min_us || us > (double) max_us)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range", name),
				 errhint("%s", hint)));
	return (int64) us;
}

int64
mq_interval_us(const Interval *interval, const char *name, int64 min_us)
{
	return mq_interval_between(interval, name, min_us, MQ_INTERVAL_MAX_DAYS * USECS_PER_DAY,
							   min_us > 0 ? "It must be more than zero and at most 365 days."
							   : "It must be at least zero and at most 365 days.");
}

void
mq_check_name(const char *name, const char *what)
{
	size_t		length = strlen(name);

	if (length == 0 || length > MQ_NAME_LENGTH_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must have 1 to %d bytes", what, MQ_NAME_LENGTH_MAX),
				 errdetail("It has %zu.", length),
				 errhint("Choose another name.")));
}

/* The caller has seen that the argument is not null. Both arrays are palloc'd; values may point into the argument. */
int
mq_array_arg(FunctionCallInfo fcinfo, int arg, const char *name, Oid type, Datum **values, bool **nulls)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(arg);
	int16		length;
	bool		by_value;
	char		align;
	int			count;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a one-dimensional array", name),
				 errhint("Flatten the array.")));
	if (nulls == NULL && array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not contain nulls", name),
				 errhint("Remove the nulls from the array.")));
	get_typlenbyvalalign(type, &length, &by_value, &align);
	deconstruct_array(array, type, length, by_value, align, values, nulls, &count);
	return count;
}
