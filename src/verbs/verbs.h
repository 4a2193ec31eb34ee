/*
 * verbs.h: what the SQL-callable functions have in common: their arguments.
 */
#ifndef MQ_VERBS_H
#define MQ_VERBS_H

#include "fmgr.h"
#include "utils/timestamp.h"

/* Declares an SQL-callable function. 15 does not export the function itself, only its info record. */
#define MQ_FUNCTION(name) \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

#define MQ_INTERVAL_MAX_DAYS 365

/* Raise 25006 on a standby; the second in a read-only transaction too, and 25000 in a parallel worker. */
extern void mq_check_primary(const char *function);
extern void mq_check_writable(const char *function);

/* Arguments that may not be null: 22004. The text is palloc'd. */
extern char *mq_text_arg(FunctionCallInfo fcinfo, int arg, const char *name);
extern int32 mq_int32_arg(FunctionCallInfo fcinfo, int arg, const char *name);
extern void mq_check_not_null(FunctionCallInfo fcinfo, int arg, const char *name);

/* The name of the queue that a message was sent to first; *isnull: it is no more. */
extern Datum mq_origin_queue(int32 queue_no, bool *isnull);

/* 0A000 if an argument is given that has its place in the signature, and is not supported yet. */
extern void mq_refuse_arg(FunctionCallInfo fcinfo, int arg, const char *name);

/* Microseconds of an interval (a month counts 30 days); 22023 below min_us, above 365 days or infinite. */
extern int64 mq_interval_us(const Interval *interval, const char *name, int64 min_us);

/* The same with bounds of its own, which the hint tells. */
extern int64 mq_interval_between(const Interval *interval, const char *name, int64 min_us, int64 max_us, const char *hint);

/* 22023 unless what is called `what` has 1 to 48 bytes. */
extern void mq_check_name(const char *name, const char *what);

/* Elements of a one-dimensional array (22023: it has more); nulls: NULL if none may be (22004). */
extern int	mq_array_arg(FunctionCallInfo fcinfo, int arg, const char *name, Oid type, Datum **values, bool **nulls);

#endif
