/*
 * history.c: mq.history: what is known of one message: when it was sent, how it failed, where it died.
 *
 * Put together from the message's own row, and from why it failed (failure_log.h). Writes nothing; locks tables ACCESS SHARE for the look.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "log/failure_log.h"
#include "log/fetch.h"
#include "log/log.h"
#include "log/moved.h"
#include "log/schedule.h"
#include "offset/rebuild.h"
#include "verbs/verbs.h"

/* attributes of mq.event */
enum
{
	E_AT, E_GROUP, E_KIND, E_ATTEMPT, E_CONSUMER, E_REASON, E_COLUMNS
};

/* One call. */
typedef struct History
{
	MqQueue		queue;
	int64		origin;			/* the id that was asked for, */
	int64		id;				/* and where the message is */
	ReturnSetInfo *result;
} History;

/* Something that has no more to be said of it. */
static void
add_event(const History *h, TimestampTz at, const char *kind)
{
	Datum		v[E_COLUMNS] = {0};
	bool		isnull[E_COLUMNS] = {false, true, false, true, true, true};

	v[E_AT] = TimestampTzGetDatum(at);
	v[E_KIND] = CStringGetTextDatum(kind);
	tuplestore_putvalues(h->result->setResult, h->result->setDesc, v, isnull);
}

/* The rows of a query with the columns of mq.event, which is open in SPI. */
static void
add_rows(const History *h, uint64 rows)
{
	for (uint64 i = 0; i < rows; i++)
	{
		Datum		v[E_COLUMNS];
		bool		isnull[E_COLUMNS];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, v, isnull);
		tuplestore_putvalues(h->result->setResult, h->result->setDesc, v, isnull);
	}
}

/* In any group of the queue, under either id. */
static void
add_failures(const History *h)
{
	MqSqlContext context;

	mq_sql_begin(&context);
	add_rows(h, mq_sql("SELECT f.at, g.name::text, f.kind, f.attempt, f.consumer, f.reason FROM mq_internal.failure f "
					   "JOIN mq_internal.consumer_group g ON g.group_no = f.group_no AND g.queue_no = %d "
					   "JOIN unnest('{" INT64_FORMAT "," INT64_FORMAT "}'::bigint[]) WITH ORDINALITY u(id, n) "
					   "ON f.block = u.id / %d AND u.id BETWEEN f.lo AND f.hi WHERE u.n = 1 OR u.id <> " INT64_FORMAT " ORDER BY f.at",
					   h->queue.queue_no, h->origin, h->id, MQ_FAILURE_BLOCK, h->origin));
	mq_sql_end(&context);
}

/* Where it has died before, as its row says. */
static void
add_deaths(const History *h, Datum death)
{
	MqSqlContext context;

	mq_sql_begin(&context);
	add_rows(h, mq_sql("SELECT (d->>'dead_at')::timestamptz, d->>'consumer_group', 'dead'::text, (d->>'attempt')::integer, NULL::text, d->>'reason' "
					   "FROM jsonb_array_elements(%s::jsonb) d ORDER BY 1",
					   quote_literal_cstr(DatumGetCString(DirectFunctionCall1(jsonb_out, death)))));
	mq_sql_end(&context);
}

/* False: it is not in the log (any more). */
static bool
add_row_of_log(const History *h)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	MqFound		found;
	Datum		v[MQ_COLUMNS];
	bool		n[MQ_COLUMNS];

	(void) mq_log_fetch(&h->queue, &h->id, 1, snapshot, true, &found);
	UnregisterSnapshot(snapshot);
	if (found.sight != MQ_SEEN)
		return false;
	mq_log_values(found.tuple, v, n);
	add_event(h, DatumGetTimestampTz(v[(n[MQ_COL_SENT_AT - 1] ? MQ_COL_ENQUEUED_AT : MQ_COL_SENT_AT) - 1]), "sent");
	if (!n[MQ_COL_DEATH - 1])
		add_deaths(h, v[MQ_COL_DEATH - 1]);
	if (!n[MQ_COL_SENT_AT - 1])
		add_event(h, DatumGetTimestampTz(v[MQ_COL_ENQUEUED_AT - 1]), "enqueued");
	return true;
}

static void
add_row_of_schedule(const History *h)
{
	MqScheduleTables tables = {0};
	MqScheduledRow row;

	if (mq_schedule_find(&tables, h->queue.queue_no, h->origin, &row))
	{
		add_event(h, DatumGetTimestampTz(row.v[MQ_SCHED_SENT_AT - 1]), "sent");
		add_event(h, DatumGetTimestampTz(row.v[MQ_SCHED_DUE_AT - 1]), "due");
	}
	mq_schedule_close(&tables);
}

/* Needs the right to browse. */
MQ_FUNCTION(mq_history);
Datum
mq_history(PG_FUNCTION_ARGS)
{
	History		h;

	mq_check_writable("mq.history()");
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), &h.queue);
	mq_check_right(&h.queue, MQ_RIGHT_BROWSE);
	mq_check_not_null(fcinfo, 1, "id");
	mq_attach_queue(&h.queue);
	h.origin = h.id = PG_GETARG_INT64(1);
	InitMaterializedSRF(fcinfo, 0);
	h.result = (ReturnSetInfo *) fcinfo->resultinfo;
	if (h.id < 1)
		return (Datum) 0;
	mq_moved_find(&h.queue, &h.id, 1);
	if (!add_row_of_log(&h))
		add_row_of_schedule(&h);
	add_failures(&h);
	return (Datum) 0;
}
