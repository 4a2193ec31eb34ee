/*
 * options.h: options of queues and groups, as arguments and as columns.
 */
#ifndef MQ_OPTIONS_H
#define MQ_OPTIONS_H

#include "verbs/verbs.h"

typedef enum MqOptionType
{
	MQ_OPTION_INTERVAL,			/* bounds in microseconds */
	MQ_OPTION_BIGINT,
	MQ_OPTION_INT,
	MQ_OPTION_BOOL
} MqOptionType;

typedef struct MqOption
{
	const char *name;			/* of the argument and of the column */
	MqOptionType type;
	int64		min;
	int64		max;
	const char *hint;			/* tells the bounds */
} MqOption;

/*
 * Reads the arguments from `first` on, one for each option in the order of the list, null: not given; reset_arg: names of
 * options that get their default (-1: there is no such argument). Returns "column = value, ...", palloc'd, or NULL when
 * nothing is to be changed. Errors: 22023.
 */
extern char *mq_options_arg(FunctionCallInfo fcinfo, int first, const MqOption *options, int count, int reset_arg);

#endif
