/*
 * job_failures.c: the worker writes down why messages failed (failure_log.h), from the notes in shared memory (failure.h).
 *
 * What could not be written is tried again; what is in memory in a crash is lost. Nothing is flushed for it.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "access/relation.h"
#include "base/clock.h"
#include "base/owner.h"
#include "log/failure_log.h"
#include "storage/bufmgr.h"
#include "window/failure.h"
#include "worker/jobs.h"

#define NOTES_PER_STATEMENT	64
#define WRITE_EVERY_US		(50 * MQ_MS)
#define IN_VAIN_MAX_US	(3600 * MQ_S)
#define LOOK_EVERY_US		(60 * MQ_S)

/* In the order of MqFailureKind. */
static const char *const kind_names[] = {"nack", "error", "timeout", "rollback", "lease_end", "lost", "crash"};

static char *
time_sql(TimestampTz time)
{
	return psprintf("('2000-01-01 00:00:00+00'::timestamptz + " INT64_FORMAT " * interval '1 microsecond')", time);
}

static char *
text_sql(const char *text)
{
	return text == NULL || text[0] == '\0' ? "NULL" : quote_literal_cstr(text);
}

/* As SQL, one row of VALUES. */
static void
add_values(StringInfo sql, const MqNotedFailure *f)
{
	appendStringInfo(sql, "%s(%d, " INT64_FORMAT "::bigint, " INT64_FORMAT "::bigint, %s, %s::timestamptz, '%s', %s::text, %s::text, %s::text, %s::integer, %s::integer)",
					 sql->len > 0 ? ", " : "", f->group_no, f->lo, f->hi, time_sql(f->at),
					 f->due == MQ_DUE_NEVER || f->due <= 0 ? "NULL" : time_sql(f->due), kind_names[f->kind],
					 f->sqlstate == 0 ? "NULL" : quote_literal_cstr(unpack_sql_state(f->sqlstate)), f->has_reason ? quote_literal_cstr(f->reason) : "NULL",
					 text_sql(f->consumer), f->attempts == 0 ? "NULL" : psprintf("%d", f->attempts),
					 f->failures == 0 ? "NULL" : psprintf("%d", f->failures));
}

/* Job. */
static bool
write_notes(void *arg)
{
	uint32		next = *(uint32 *) arg;
	int			table = mq_failure_table_of(GetCurrentTimestamp());
	MqSqlContext context;

	if (!mq_job_lock(mq_failure_table(table), RowExclusiveLock))
		return false;
	mq_sql_begin(&context);
	while (next != 0)
	{
		StringInfoData values;

		initStringInfo(&values);
		for (int i = 0; i < NOTES_PER_STATEMENT && next != 0; i++)
		{
			MqNotedFailure failure;

			next = mq_failure_read(next, &failure);
			add_values(&values, &failure);
		}
		/* a range is a row for each block that it lies in */
		mq_sql("INSERT INTO mq_internal.failure_%d "
			   "SELECT v.group_no, b, greatest(v.lo, b * %d), least(v.hi, b * %d + %d), v.at, v.due_at, v.kind, v.sqlstate, v.reason, v.consumer, v.attempt, v.failures "
			   "FROM (VALUES %s) v(group_no, lo, hi, at, due_at, kind, sqlstate, reason, consumer, attempt, failures), generate_series(v.lo / %d, v.hi / %d) b",
			   table, MQ_FAILURE_BLOCK, MQ_FAILURE_BLOCK, MQ_FAILURE_BLOCK - 1, values.data, MQ_FAILURE_BLOCK, MQ_FAILURE_BLOCK);
		pfree(values.data);
	}
	mq_sql_end(&context);
	return true;
}

/* What cannot be written for long is given up: it takes memory that messages need. */
static void
write_all(void)
{
	static int64 in_vain_since = 0;
	MqDatabase *db = mq_worker_database;
	uint32		first = mq_failures_take(db);

	if (first == 0)
		return;
	if (mq_job_run_without_flush(write_notes, &first, MQ_JOB_FOR_ALL, "writing down failures"))
		in_vain_since = 0;
	else if (in_vain_since == 0)
	{
		in_vain_since = mq_monotonic_us();
		return;
	}
	else if (mq_monotonic_us() - in_vain_since < IN_VAIN_MAX_US)
		return;
	else
	{
		in_vain_since = 0;
		ereport(WARNING,
				(errmsg("why messages failed cannot be written down, some of it is given up"),
				 errdetail("It was tried for an hour; failures are counted all the same."),
				 errhint("Look who has locked tables mq_internal.failure_*.")));
	}
	mq_failures_done(db);
}

int64
mq_job_write_failures(bool now)
{
	static int64 written_at = 0;

	/* read without the mutex: what comes a moment later sets the latch */
	if (mq_worker_database->nnotes == 0)
		return PG_INT64_MAX;
	if (!now && mq_monotonic_us() - written_at < WRITE_EVERY_US)
		return written_at + WRITE_EVERY_US - mq_monotonic_us();
	written_at = mq_monotonic_us();
	write_all();
	return mq_worker_database->nnotes == 0 ? PG_INT64_MAX : WRITE_EVERY_US;
}

/* ---- emptying ---- */

/* Job: what is in tomorrow's table is older than a week. */
static bool
empty_tomorrow(void *arg)
{
	int			table = mq_failure_table_of(GetCurrentTimestamp() + USECS_PER_DAY);
	Relation	rel;
	MqSqlContext context;
	bool		empty;

	if (!mq_job_lock(mq_failure_table(table), AccessShareLock))
		return false;
	rel = relation_open(mq_failure_table(table), NoLock);
	empty = RelationGetNumberOfBlocks(rel) == 0;
	relation_close(rel, NoLock);
	if (empty)
		return true;
	if (!mq_job_lock(mq_failure_table(table), AccessExclusiveLock))
		return false;
	mq_sql_begin(&context);
	mq_sql("TRUNCATE mq_internal.failure_%d", table);
	mq_sql_end(&context);
	return true;
}

void
mq_job_care_for_failures(void)
{
	static int64 looked_at = 0;

	(void) mq_job_write_failures(true);
	if (looked_at != 0 && mq_monotonic_us() - looked_at < LOOK_EVERY_US)
		return;
	looked_at = mq_monotonic_us();
	(void) mq_job_run(empty_tomorrow, NULL, MQ_JOB_FOR_ALL, "emptying a table of failures");
}
