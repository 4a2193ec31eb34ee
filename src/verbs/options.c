/*
 * options.c: options of queues and groups, as arguments and as columns. See options.h.
 */
#include "postgres.h"

#include "verbs/options.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

static void
out_of_range(const MqOption *option)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s is out of range", option->name),
			 errhint("%s", option->hint)));
}

static char *
checked_integer(const MqOption *option, int64 value)
{
	if (value < option->min || value > option->max)
		out_of_range(option);
	return psprintf(INT64_FORMAT, value);
}

/* The value as an SQL literal. */
static char *
literal(FunctionCallInfo fcinfo, int arg, const MqOption *option)
{
	switch (option->type)
	{
		case MQ_OPTION_INTERVAL:
			(void) mq_interval_between(PG_GETARG_INTERVAL_P(arg), option->name, option->min, option->max, option->hint);
			return psprintf("%s::pg_catalog.interval",
							quote_literal_cstr(DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(arg)))));
		case MQ_OPTION_BIGINT:
			return checked_integer(option, PG_GETARG_INT64(arg));
		case MQ_OPTION_INT:
			return checked_integer(option, PG_GETARG_INT32(arg));
		case MQ_OPTION_BOOL:
			break;
	}
	return PG_GETARG_BOOL(arg) ? "true" : "false";
}

static void
append(StringInfo set, const char *name, const char *value)
{
	appendStringInfo(set, "%s%s = %s", set->len > 0 ? ", " : "", name, value);
}

static int
find_option(const MqOption *options, int count, const char *name)
{
	for (int i = 0; i < count; i++)
		if (strcmp(options[i].name, name) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no option \"%s\" to reset", name),
			 errhint("The options are the names of the arguments.")));
	return -1;
}

static void
append_resets(FunctionCallInfo fcinfo, int first, const MqOption *options, int count, int reset_arg, StringInfo set)
{
	Datum	   *names;
	int			n;
	uint32		seen = 0;

	mq_check_not_null(fcinfo, reset_arg, "reset");
	n = mq_array_arg(fcinfo, reset_arg, "reset", TEXTOID, &names, NULL);
	for (int i = 0; i < n; i++)
	{
		char	   *name = TextDatumGetCString(names[i]);
		int			option = find_option(options, count, name);

		if (!PG_ARGISNULL(first + option) || (seen & (1u << option)) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" is given twice", name),
					 errhint("Either set it or reset it, once.")));
		seen |= 1u << option;
		append(set, name, "DEFAULT");
	}
}

char *
mq_options_arg(FunctionCallInfo fcinfo, int first, const MqOption *options, int count, int reset_arg)
{
	StringInfoData set;

	initStringInfo(&set);
	for (int i = 0; i < count; i++)
		if (!PG_ARGISNULL(first + i))
			append(&set, options[i].name, literal(fcinfo, first + i, &options[i]));
	if (reset_arg >= 0)
		append_resets(fcinfo, first, options, count, reset_arg, &set);
	return set.len > 0 ? set.data : NULL;
}
