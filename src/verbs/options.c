/*
 * options.c: options of queues and groups. See options.h.
 *
 * They are one jsonb argument, so that new ones need no new signature.
 */
#include "postgres.h"

#include "verbs/options.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#include "base/owner.h"

#define NEAR_ENOUGH 3			/* letters to change for a name that was meant, perhaps */

/* Reading one argument: what may be given, and what has been found so far. */
typedef struct OptionsCall
{
	const MqOption *options;
	int			count;
	bool		create;
	List	   *settings;
} OptionsCall;

/* Raises 22023 with the option's own hint. */
static void
bad_value(const MqOption *option, const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s %s", option->name, message),
			 errhint("%s", option->hint)));
}

/* Hints name only what would be accepted. */
static bool
can_be_given(const OptionsCall *call, const MqOption *option)
{
	return option->type != MQ_OPTION_NOT_YET && (call->create || !option->at_create);
}

/* The name that was meant, perhaps; NULL: none is near enough. */
static const char *
nearest_name(const OptionsCall *call, const char *name)
{
	const char *nearest = NULL;
	int			distance = NEAR_ENOUGH + 1;

	if (strlen(name) > NAMEDATALEN)
		return NULL;
	for (int i = 0; i < call->count; i++)
	{
		const char *candidate = call->options[i].name;
		int			d = varstr_levenshtein_less_equal(name, (int) strlen(name), candidate, (int) strlen(candidate), 1, 1, 1,
															  NEAR_ENOUGH, true);

		if (d < distance && can_be_given(call, &call->options[i]))
		{
			distance = d;
			nearest = candidate;
		}
	}
	return nearest;
}

static char *
all_names(const OptionsCall *call)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < call->count; i++)
		if (can_be_given(call, &call->options[i]))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", call->options[i].name);
	return names.data;
}

/* Never NULL: raises 0A000 for what is not there yet, 22023 for an unknown name. */
static const MqOption *
option_by_name(const OptionsCall *call, const char *name)
{
	const char *nearest;

	for (int i = 0; i < call->count; i++)
	{
		if (strcmp(call->options[i].name, name) != 0)
			continue;
		if (call->options[i].type == MQ_OPTION_NOT_YET)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("option \"%s\" is not supported yet", name),
					 errhint("The options are %s.", all_names(call))));
		return &call->options[i];
	}
	nearest = nearest_name(call, name);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no option \"%s\"", name),
			 nearest != NULL ? errhint("Perhaps you mean \"%s\".", nearest) : errhint("The options are %s.", all_names(call))));
	return NULL;
}

/* Fails if the option cannot be given, or was already. */
static const MqOption *
new_option(const OptionsCall *call, const char *name)
{
	const MqOption *option = option_by_name(call, name);
	ListCell   *cell;

	if (option->at_create && !call->create)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s cannot be changed", name),
				 errhint("It is given to mq.create_queue.")));
	foreach(cell, call->settings)
		if (((const MqSetting *) lfirst(cell))->option == option)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" is given twice", name),
					 errhint("Either set it or reset it.")));
	return option;
}

/* Copies text and sql. text NULL: turned off, or reset. */
static void
add(OptionsCall *call, const MqOption *option, const char *text, const char *sql)
{
	MqSetting  *setting = palloc(sizeof(MqSetting));

	*setting = (MqSetting) {option, text == NULL ? NULL : pstrdup(text), pstrdup(sql)};
	call->settings = lappend(call->settings, setting);
}

/* Text that is no interval is a bad value of the option, as one out of range is. */
static Datum
interval_from(const MqOption *option, const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		interval = (Datum) 0;

	PG_TRY();
	{
		interval = DirectFunctionCall3(interval_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			ReThrowError(error);
		FlushErrorState();
		bad_value(option, "must be an interval");
	}
	PG_END_TRY();
	return interval;
}

/* The value for the column: what was parsed and found in range, not the text that was given. */
static char *
interval_sql(const MqOption *option, const char *text)
{
	Datum		interval = interval_from(option, text);

	(void) mq_interval_between(DatumGetIntervalP(interval), option->name, option->min, option->max, option->hint);
	return psprintf("%s::pg_catalog.interval", quote_literal_cstr(DatumGetCString(DirectFunctionCall1(interval_out, interval))));
}

/* The value for the column: an array of intervals; 22023 unless it is one of texts that are. */
static char *
intervals_sql(const MqOption *option, const JsonbValue *value)
{
	StringInfoData sql;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	element;
	int			count = 0;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		bad_value(option, "must be an array of intervals");
	initStringInfo(&sql);
	appendStringInfoString(&sql, "ARRAY[");
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		char	   *text;

		if (token == WJB_BEGIN_ARRAY || token == WJB_END_ARRAY)
			continue;
		if (element.type != jbvString)
			bad_value(option, "must be an array of intervals");
		if (++count > MQ_RETRY_DELAYS_MAX)
			bad_value(option, "has too many elements");
		text = pnstrdup(element.val.string.val, element.val.string.len);
		if (DatumGetIntervalP(interval_from(option, text))->month != 0)
			bad_value(option, "must be without months");
		appendStringInfo(&sql, "%s%s", count > 1 ? ", " : "", interval_sql(option, text));
	}
	if (count == 0)
		bad_value(option, "is empty");
	appendStringInfoString(&sql, "]");
	return sql.data;
}

/* The value for the column, as a plain integer; 22023 if it is not a whole number in range. */
static char *
integer_sql(const MqOption *option, const char *text)
{
	char	   *end;
	int64		value;

	errno = 0;
	value = strtoi64(text, &end, 10);
	/* 2048.0 is one */
	if (*end == '.')
		end += 1 + strspn(end + 1, "0");
	if (errno != 0 || *end != '\0' || end == text)
		bad_value(option, "must be a whole number");
	if (value < option->min || value > option->max)
		bad_value(option, "is out of range");
	return psprintf(INT64_FORMAT, value);
}

/* The value for the column; 22023 if it is out of range. */
static char *
number_sql(const MqOption *option, const char *text)
{
	double		value = strtod(text, NULL);

	if (!(value * 1000 >= (double) option->min && value * 1000 <= (double) option->max))
		bad_value(option, "is out of range");
	return pstrdup(text);
}

/* The value for the column; 22023 if it is none of the words. */
static char *
choice_sql(const MqOption *option, const char *text)
{
	for (int i = 0; option->choices[i] != NULL; i++)
		if (strcmp(option->choices[i], text) == 0)
			return quote_literal_cstr(text);
	bad_value(option, psprintf("cannot be \"%s\"", text));
	return NULL;
}

/* The JSON type has to be that of the option (22023); nothing is converted. */
static void
add_value(OptionsCall *call, const MqOption *option, const JsonbValue *value)
{
	char	   *text = NULL;

	if (value->type == jbvString)
		text = pnstrdup(value->val.string.val, value->val.string.len);
	else if (value->type == jbvNumeric)
		text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	switch (option->type)
	{
		case MQ_OPTION_INTERVAL:
			if (value->type != jbvString)
				bad_value(option, "must be a string with an interval, like \"7 days\"");
			add(call, option, text, interval_sql(option, text));
			break;
		case MQ_OPTION_INTERVALS:
			add(call, option, "", intervals_sql(option, value));
			break;
		case MQ_OPTION_INTEGER:
			if (value->type != jbvNumeric)
				bad_value(option, "must be a number");
			add(call, option, text, integer_sql(option, text));
			break;
		case MQ_OPTION_NUMBER:
			if (value->type != jbvNumeric)
				bad_value(option, "must be a number");
			add(call, option, text, number_sql(option, text));
			break;
		case MQ_OPTION_BOOL:
			if (value->type != jbvBool)
				bad_value(option, "must be true or false");
			add(call, option, value->val.boolean ? "true" : "false", value->val.boolean ? "true" : "false");
			break;
		case MQ_OPTION_TEXT:
			if (value->type != jbvString)
				bad_value(option, "must be a string");
			add(call, option, text, quote_literal_cstr(text));
			break;
		case MQ_OPTION_CHOICE:
			if (value->type != jbvString)
				bad_value(option, "must be a string");
			add(call, option, text, choice_sql(option, text));
			break;
		case MQ_OPTION_NOT_YET:
			break;
	}
}

static void
check_may_be_unset(const MqOption *option)
{
	if (option->always)
		bad_value(option, "cannot be turned off or reset");
}

/* What the column has when the option is off. Columns of booleans and of choices are not null. */
static const char *
off_sql(const MqOption *option)
{
	if (option->type == MQ_OPTION_BOOL)
		return "false";
	return option->type == MQ_OPTION_CHOICE ? quote_literal_cstr(option->choices[0]) : "NULL";
}

/* JSON null turns the option off. */
static void
add_key(OptionsCall *call, const char *name, const JsonbValue *value)
{
	const MqOption *option = new_option(call, name);

	if (value->type != jbvNull)
	{
		add_value(call, option, value);
		return;
	}
	check_may_be_unset(option);
	add(call, option, NULL, off_sql(option));
}

static void
wrong_reset(const OptionsCall *call)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("reset must be an array with names of options"),
			 errhint("The options are %s.", all_names(call))));
}

/* The array "reset", whose begin has been read. */
static void
add_resets(OptionsCall *call, JsonbIterator **it)
{
	JsonbValue	value;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(it, &value, true)) != WJB_END_ARRAY)
	{
		const MqOption *option;

		if (token != WJB_ELEM || value.type != jbvString)
			wrong_reset(call);
		option = new_option(call, pnstrdup(value.val.string.val, value.val.string.len));
		check_may_be_unset(option);
		add(call, option, NULL, "DEFAULT");
	}
}

/* A key has been read; reads its value. */
static void
read_key(OptionsCall *call, JsonbIterator **it, const char *name)
{
	JsonbValue	value;
	bool		is_reset = !call->create && strcmp(name, "reset") == 0;
	JsonbIteratorToken token = JsonbIteratorNext(it, &value, !is_reset);

	if (!is_reset)
		add_key(call, name, &value);
	else if (token == WJB_BEGIN_ARRAY)
		add_resets(call, it);
	else
		wrong_reset(call);
}

List *
mq_options_arg(FunctionCallInfo fcinfo, int arg, const MqOption *options, int count, bool create)
{
	OptionsCall call = {options, count, create, NIL};
	Jsonb	   *object;
	JsonbIterator *it;
	JsonbValue	key;
	JsonbIteratorToken token;

	if (PG_ARGISNULL(arg))
		return NIL;
	object = PG_GETARG_JSONB_P(arg);
	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object"),
				 errhint("The options are %s.", all_names(&call))));
	it = JsonbIteratorInit(&object->root);
	while ((token = JsonbIteratorNext(&it, &key, false)) != WJB_DONE)
		if (token == WJB_KEY)
			read_key(&call, &it, pnstrdup(key.val.string.val, key.val.string.len));
	return call.settings;
}

bool
mq_options_have(const List *settings, const char *name)
{
	const ListCell *cell;

	foreach(cell, settings)
		if (strcmp(((const MqSetting *) lfirst(cell))->option->name, name) == 0)
			return true;
	return false;
}

char *
mq_options_take(List **settings, const char *name)
{
	ListCell   *cell;

	foreach(cell, *settings)
	{
		MqSetting  *setting = lfirst(cell);

		if (strcmp(setting->option->name, name) != 0)
			continue;
		*settings = foreach_delete_current(*settings, cell);
		return setting->text;
	}
	return NULL;
}

char *
mq_options_assignments(const List *settings)
{
	StringInfoData set;
	const ListCell *cell;

	if (settings == NIL)
		return NULL;
	initStringInfo(&set);
	foreach(cell, settings)
	{
		const MqSetting *setting = lfirst(cell);

		appendStringInfo(&set, "%s%s = %s", set.len > 0 ? ", " : "", setting->option->name, setting->sql);
	}
	return set.data;
}

char *
mq_options_that_differ(const List *settings, const char *table, const char *condition)
{
	MqSqlContext context;
	StringInfoData names;
	const ListCell *cell;

	initStringInfo(&names);
	mq_sql_begin(&context);
	foreach(cell, settings)
	{
		const MqSetting *setting = lfirst(cell);

		if (mq_sql("SELECT FROM mq_internal.%s WHERE %s AND %s IS DISTINCT FROM %s", table, condition, setting->option->name,
				   setting->sql) > 0)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", setting->option->name);
	}
	mq_sql_end(&context);
	return names.len > 0 ? names.data : NULL;
}

/* ---- as a JSON object ---- */

/* In a bracket of mq_sql_begin. Definitions are what is committed now, also in a transaction that keeps its snapshot. */
static void
read_now(const char *sql)
{
	int			result;

	PushActiveSnapshot(GetLatestSnapshot());
	result = SPI_execute(sql, true, 0);
	PopActiveSnapshot();
	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
}

/* "'a', 'b'": names of options as literals. */
static char *
name_literals(const MqOption *options, int count)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < count; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", quote_literal_cstr(options[i].name));
	return names.data;
}

/* The expression for the value of an option's column. */
static const char *
shown(const MqOption *options, int count, const char *name)
{
	for (int i = 0; i < count; i++)
		if (strcmp(options[i].name, name) == 0 && options[i].shown != NULL)
			return options[i].shown;
	return psprintf("t.%s", quote_identifier(name));
}

/* The rows of what mq_options_set asks: name, value, and whether it is another one than by default; as the columns say. */
static char *
option_rows(const MqOption *options, int count, const char *table)
{
	StringInfoData rows;

	initStringInfo(&rows);
	read_now(psprintf("SELECT a.attname, coalesce(pg_get_expr(d.adbin, d.adrelid), 'NULL') FROM pg_attribute a "
					  "LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
					  "WHERE a.attrelid = 'mq_internal.%s'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname IN (%s) "
					  "ORDER BY a.attnum", table, name_literals(options, count)));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *name = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		char	   *by_default = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);

		appendStringInfo(&rows, "%s(%s, to_jsonb(%s), t.%s IS DISTINCT FROM (%s))", i > 0 ? ", " : "", quote_literal_cstr(name),
						 shown(options, count, name), quote_identifier(name), by_default);
	}
	return rows.data;
}

char *
mq_options_set(const MqOption *options, int count, const char *table, const char *condition)
{
	MqSqlContext context;
	StringInfoData object;

	initStringInfo(&object);
	mq_sql_begin(&context);
	/* intervals are to be read under every setting */
	(void) set_config_option("intervalstyle", "postgres", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	read_now(psprintf("SELECT (SELECT coalesce(jsonb_object_agg(o.name, o.value), '{}')::text FROM (VALUES %s) o (name, value, differs) "
					  "WHERE o.differs) FROM mq_internal.%s t WHERE %s", option_rows(options, count, table), table, condition));
	if (SPI_processed > 0)
		appendStringInfoString(&object, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	mq_sql_end(&context);
	return object.len > 0 ? object.data : NULL;
}
