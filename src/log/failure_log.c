/*
 * failure_log.c: why messages failed, on disk. See failure_log.h; the worker writes it (job_failures.c).
 */
#include "postgres.h"

#include "log/failure_log.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/owner.h"

int
mq_failure_table_of(TimestampTz time)
{
	return (int) (time / USECS_PER_DAY % MQ_FAILURE_TABLES);
}

Oid
mq_failure_table(int table)
{
	return get_relname_relid(psprintf("failure_%d", table), mq_extension(false)->internal);
}

static char *
list_of(const int64 *ids, int count)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < count; i++)
		appendStringInfo(&list, "%s" INT64_FORMAT, i > 0 ? "," : "", ids[i]);
	return list.data;
}

char	  **
mq_failure_reasons(int32 group_no, const int64 *ids, int count)
{
	MemoryContext caller = CurrentMemoryContext;
	char	  **reasons = palloc0(count * sizeof(char *));
	char	   *list = list_of(ids, count);
	MqSqlContext context;
	uint64		rows;

	mq_sql_begin(&context);
	rows = mq_sql("SELECT DISTINCT ON (u.n) u.n::integer, f.reason FROM unnest('{%s}'::bigint[]) WITH ORDINALITY u(id, n) "
				  "JOIN mq_internal.failure f ON f.group_no = %d AND f.block = u.id / %d AND u.id BETWEEN f.lo AND f.hi "
				  "ORDER BY u.n, f.at DESC", list, group_no, MQ_FAILURE_BLOCK);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		int32		n = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		const char *reason = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);

		if (reason != NULL)
			reasons[n - 1] = MemoryContextStrdup(caller, reason);
	}
	mq_sql_end(&context);
	pfree(list);
	return reasons;
}
