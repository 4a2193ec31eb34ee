/*
 * options.h: options of queues and groups: a JSON object as argument, columns of the definition.
 */
#ifndef MQ_OPTIONS_H
#define MQ_OPTIONS_H

#include "nodes/pg_list.h"

#include "verbs/verbs.h"

typedef enum MqOptionType
{
	MQ_OPTION_INTERVAL,			/* bounds in microseconds */
	MQ_OPTION_INTERVALS,		/* 1 to MQ_RETRY_DELAYS_MAX of them; bounds of each, without months */
	MQ_OPTION_INTEGER,			/* bounds as they are */
	MQ_OPTION_NUMBER,			/* bounds in thousandths */
	MQ_OPTION_BOOL,
	MQ_OPTION_TEXT,
	MQ_OPTION_CHOICE,			/* one of some words; off means the first of them, which is the default */
	MQ_OPTION_NOT_YET			/* has its name, and is refused with 0A000 */
} MqOptionType;

typedef struct MqOption
{
	const char *name;			/* of the key, and of the column */
	MqOptionType type;
	int64		min;
	int64		max;
	const char *hint;			/* tells the bounds */
	const char *const *choices; /* ends with NULL */
	bool		at_create;		/* cannot be changed later */
	bool		always;			/* neither null nor a default can be given */
	const char *shown;			/* what is shown of its column, an SQL expression on row t; NULL: the column */
} MqOption;

/* What the caller wants of one option. */
typedef struct MqSetting
{
	const MqOption *option;
	char	   *text;			/* as it stands in the JSON; NULL: turned off, or set back to its default */
	char	   *sql;			/* the value for its column */
} MqSetting;

/*
 * Reads argument `arg`: NULL or an object. A key that is absent is not in the list, JSON null turns an option off, and those in the
 * array "reset" get their defaults. create: all options may be given, and "reset" may not. Returns a list of MqSetting, palloc'd.
 * Errors: 22023 for what is unknown (the hint has the nearest name), given twice or out of range; 0A000 for what is not there yet.
 */
extern List *mq_options_arg(FunctionCallInfo fcinfo, int arg, const MqOption *options, int count, bool create);

/* Whether an option is set, turned off or reset. */
extern bool mq_options_have(const List *settings, const char *name);

/* Takes an option that is no column out of the list: its text, NULL if it is not in it. */
extern char *mq_options_take(List **settings, const char *name);

/* "column = value, ...", palloc'd; NULL for an empty list. */
extern char *mq_options_assignments(const List *settings);

/* The names of those that are not so in the row of mq_internal.<table> where `condition` holds; NULL: all are. Runs SQL. */
extern char *mq_options_that_differ(const List *settings, const char *table, const char *condition);

/*
 * The options of a definition that are not as by default, as a JSON object like the argument; palloc'd. table and condition as above.
 * What has no column of its name is left out. NULL: there is no such row. Runs SQL, and sees what is committed now.
 */
extern char *mq_options_set(const MqOption *options, int count, const char *table, const char *condition);

/* What there is for queues (admin.c) and for groups (groups.c). */
extern const MqOption *mq_queue_options(int *count);
extern const MqOption *mq_group_options(int *count);

#endif
