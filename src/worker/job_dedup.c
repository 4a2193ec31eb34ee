/*
 * job_dedup.c: what the worker does for deduplication ids (dedup.h): counts those of which it is not known how many there are, and empties
 * tables of which no row is needed any more.
 *
 * Owns nothing. Locks, without waiting, to the end of the job: ACCESS SHARE on the tables for a look, ACCESS EXCLUSIVE on one that is emptied.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/clock.h"
#include "log/dedup.h"
#include "worker/jobs.h"

#define TURNS_PER_LOOK	10
#define COUNTING_US		(20 * MQ_MS)	/* in each turn; then the next queue's is for another one */

/* ---- how many there are ---- */

/* Who sends meanwhile adds to it: what was added before the look may be counted twice. */
static void
count_queue(const MqQueue *queue)
{
	MqChain    *chain = queue->chain;

	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
	{
		pg_atomic_write_u64(&chain->dedup_ids[i], 0);
		pg_atomic_fetch_add_u64(&chain->dedup_ids[i], mq_dedup_count(i, queue->queue_no));
	}
	pg_atomic_write_u32(&chain->dedup_known, 1);
}

static bool
is_unknown(MqQueueItem *item)
{
	const MqChain *chain = mq_job_chain(&item->queue);

	return chain != NULL && pg_atomic_read_u32(&unconstify(MqChain *, chain)->dedup_known) == 0;
}

/* Job. */
static bool
count_unknown(void *arg)
{
	const MqQueueList *all = arg;
	int64		until = mq_monotonic_us() + COUNTING_US;

	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
		if (!mq_job_lock(mq_dedup_table(i), AccessShareLock))
			return false;
	for (int i = 0; i < all->count && mq_monotonic_us() < until; i++)
		if (is_unknown(&all->items[i]))
			count_queue(&all->items[i].queue);
	return true;
}

static bool
is_any_unknown(const MqQueueList *all)
{
	for (int i = 0; i < all->count; i++)
		if (is_unknown(&all->items[i]))
			return true;
	return false;
}

/* ---- emptying ---- */

/* Job. */
static bool
truncate_table(void *arg)
{
	int			table = *(int *) arg;

	return mq_job_lock(mq_dedup_table(table), AccessExclusiveLock) && mq_dedup_truncate(table);
}

/* A look at the tables: in and out, a bit for each. */
typedef struct DedupLook
{
	uint32		wanted;
	uint32		superfluous;
} DedupLook;

/* Job. */
static bool
look_at_tables(void *arg)
{
	DedupLook  *look = arg;

	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
		if ((look->wanted & (1U << i)) != 0 && mq_job_lock(mq_dedup_table(i), AccessShareLock) && mq_dedup_is_superfluous(i))
			look->superfluous |= 1U << i;
	return true;
}

/*
 * Those whose time is over. The one that is not used in turn once an hour: what is not needed in it is read with each look, up to the first
 * row that is.
 */
static uint32
tables_to_look_at(void)
{
	static int64 last_hour = 0;
	TimestampTz now = GetCurrentTimestamp();
	uint32		wanted = 0;

	for (int i = 0; i < MQ_DEDUP_TABLES - 1; i++)
		if (!mq_dedup_table_is_in_use(i, now))
			wanted |= 1U << i;
	if (last_hour != now / USECS_PER_HOUR)
		wanted |= 1U << (MQ_DEDUP_TABLES - 1);
	last_hour = now / USECS_PER_HOUR;
	return wanted;
}

static void
forget_counts(const MqQueueList *all, int table)
{
	for (int i = 0; i < all->count; i++)
	{
		MqChain    *chain = mq_job_chain(&all->items[i].queue);

		if (chain != NULL)
			pg_atomic_write_u64(&chain->dedup_ids[table], 0);
	}
}

static void
empty_tables(const MqQueueList *all)
{
	DedupLook	look = {tables_to_look_at(), 0};

	(void) mq_job_run(look_at_tables, &look, MQ_JOB_FOR_ALL, "looking for tables of deduplication ids to empty");
	for (int i = 0; i < MQ_DEDUP_TABLES; i++)
		if ((look.superfluous & (1U << i)) != 0 &&
			mq_job_run(truncate_table, &i, MQ_JOB_FOR_ALL, "emptying a table of deduplication ids"))
			forget_counts(all, i);
}

void
mq_job_care_for_dedup(const MqQueueList *all)
{
	static int	turns = 0;

	if (is_any_unknown(all))
		(void) mq_job_run(count_unknown, unconstify(MqQueueList *, all), MQ_JOB_FOR_ALL, "counting deduplication ids");
	if (++turns % TURNS_PER_LOOK == 0 && all->may_make)
		empty_tables(all);
}
