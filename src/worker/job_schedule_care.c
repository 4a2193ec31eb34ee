/*
 * job_schedule_care.c: what the worker does for the schedule (schedule.h) in each turn: moves what comes nearer to nearer tables, counts
 * what it does not know, empties tables whose time is over, and those about moved messages that are gone.
 *
 * Owns, per queue, up to where the tables of days and the one for later have been emptied of what is near. Lost with the process: then
 * they are read from their begin once. Locks: as job_schedule.c, without waiting; for the count it stands in line (locking.md).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/stop_point.h"
#include "log/moved.h"
#include "log/schedule.h"
#include "worker/jobs.h"
#include "worker/memo.h"

#define ROWS_PER_BATCH	1000
#define BYTES_PER_BATCH	((Size) 4 * 1024 * 1024)
#define COUNTING_PART	50		/* senders are locked out for one part of the time in so many, at most */
#define COUNTING_US		(20 * MQ_MS)	/* then the next queue's is for another time */
#define NEARER_US		(200 * MQ_MS)	/* so long, in each turn, for what comes nearer */

static const MqDuePlace from_begin = {PG_INT64_MIN, -1};

/* Of a queue; of the tables of a day, and of the one for later: */
typedef struct NearerMemo
{
	MqMemoHead	head;
	const MqChain *chain;		/* another slot: nothing is known */
	TimestampTz before[2];		/* what is due before that is brought nearer, */
	MqDuePlace	moved[2];		/* and up to there it has been; */
	bool		done[2];		/* all of it */
} NearerMemo;

static MqMemo memos = {"mq schedules, nearer", sizeof(NearerMemo)};

/* ---- nearer ---- */

/* What comes nearer in one queue, from the tables of one tier. */
typedef struct Nearer
{
	const MqQueue *queue;
	MqScheduleTier tier;
	TimestampTz before;			/* what is due earlier */
	MqDuePlace	moved;			/* in and out: up to there it is done */
	bool		more;			/* out */
} Nearer;

/* Job: a batch. What is undecided stays: the mover finds it there too. */
static bool
move_nearer(void *arg)
{
	Nearer	   *nearer = arg;
	MqScheduleScan *scan;
	MqScheduleTables tables = {0};
	MqDueRow	row;
	int			count = 0;
	Size		bytes = 0;

	MemoryContextSwitchTo(CurTransactionContext);
	/* as a sender: a drop of the queue has to wait for the rows that are made here */
	if (!mq_schedule_lock_at_once(nearer->queue) || !mq_job_lock_schedule())
		return false;
	scan = mq_schedule_scan_begin(nearer->queue->queue_no, nearer->moved, nearer->tier);
	nearer->more = false;
	/* where the job fails, the place is the one before */
	while (!nearer->more && mq_schedule_scan_next(scan, &row) && row.place.due < nearer->before)
	{
		MqScheduledRow values;
		TransactionId deleter;

		CHECK_FOR_INTERRUPTS();
		nearer->moved = row.place;
		nearer->more = ++count == ROWS_PER_BATCH;
		if (TransactionIdIsValid(row.sender) || mq_schedule_scan_take(scan, &deleter) != MQ_TAKEN)
			continue;
		mq_schedule_scan_values(scan, &values);
		bytes += mq_schedule_insert(&tables, &values);
		nearer->more |= bytes > BYTES_PER_BATCH;
	}
	mq_schedule_scan_end(scan);
	mq_schedule_close(&tables);
	MQ_STOP_POINT("nearer_moved");
	return true;
}

static NearerMemo *
nearer_of(const MqQueue *queue)
{
	NearerMemo *memo = mq_memo(&memos, queue->queue_no);

	if (memo->chain != queue->chain)
	{
		memo->chain = queue->chain;
		memo->before[0] = memo->before[1] = 0;
		memo->moved[0] = memo->moved[1] = from_begin;
	}
	return memo;
}

/* Goes on where it was; the memo is asked for anew, for a look at what is due comes in between. */
static void
bring_nearer(const MqQueueList *all, const MqQueue *queue, int tier, TimestampTz before, int64 until)
{
	Nearer		nearer = {queue, tier == 0 ? MQ_SCHEDULE_DAYS : MQ_SCHEDULE_LATER, before, nearer_of(queue)->moved[tier], true};

	while (nearer.more && mq_monotonic_us() < until)
	{
		if (!mq_job_run_without_flush(move_nearer, &nearer, MQ_JOB_FOR(queue->queue_no), psprintf("moving what comes nearer in queue \"%s\"", NameStr(queue->name))))
			return;
		nearer_of(queue)->moved[tier] = nearer.moved;
		nearer_of(queue)->done[tier] = !nearer.more;
		(void) mq_job_schedule(all);
	}
}

/* Whether the queue has something in its schedule, as far as that is known. */
static bool
has_scheduled(const MqQueue *queue)
{
	MqChain    *chain = queue->chain;

	return pg_atomic_read_u32(&chain->scheduled_known) == 0 || pg_atomic_read_u64(&chain->scheduled) > 0;
}

/* Once an hour for what is due the day after, once a day for what is later; the rest, if it takes long, in the next turn. */
static void
bring_all_nearer(const MqQueueList *all)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz begin[2] = {mq_schedule_begin_of_tier(MQ_SCHEDULE_DAYS, now), mq_schedule_begin_of_tier(MQ_SCHEDULE_LATER, now)};
	int64		until = mq_monotonic_us() + NEARER_US;

	for (int i = 0; i < all->count; i++)
	{
		MqQueue    *queue = &all->items[i].queue;

		if (mq_job_chain(queue) == NULL || queue->foreign || queue->replaced || !has_scheduled(queue))
			continue;
		for (int tier = 1; tier >= 0; tier--)
		{
			NearerMemo *memo = nearer_of(queue);

			if (memo->before[tier] != begin[tier])
				memo->done[tier] = false;
			/* the clock was set back */
			if (memo->before[tier] > begin[tier])
				memo->moved[tier] = from_begin;
			memo->before[tier] = begin[tier];
			if (!memo->done[tier])
				bring_nearer(all, queue, tier, begin[tier], until);
		}
	}
}

/* ---- how many there are ---- */

/*
 * Job: counts the schedules that are not known, when nobody is writing to one: who has committed has told of it before it gave its lock
 * back. True: there are no more.
 */
static bool
count_unknown(void *arg)
{
	const MqQueueList *all = arg;
	int64		until = mq_monotonic_us() + COUNTING_US;

	if (!mq_job_lock(mq_schedule_parent(), ShareLock))
		return false;
	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		if (!mq_job_lock(mq_schedule_table(i), AccessShareLock))
			return false;
	for (int i = 0; i < all->count; i++)
	{
		MqChain    *chain = mq_job_chain(&all->items[i].queue);

		if (chain == NULL || pg_atomic_read_u32(&chain->scheduled_known) != 0)
			continue;
		if (mq_monotonic_us() >= until)
			return false;
		pg_atomic_write_u64(&chain->scheduled, (uint64) mq_schedule_count(all->items[i].queue.queue_no));
		pg_atomic_write_u32(&chain->scheduled_known, 1);
		pg_atomic_write_u32(&chain->scheduled_counted, 1);
	}
	return true;
}

static bool
is_any_unknown(const MqQueueList *all)
{
	for (int i = 0; i < all->count; i++)
	{
		MqChain    *chain = mq_job_chain(&all->items[i].queue);

		if (chain != NULL && pg_atomic_read_u32(&chain->scheduled_known) == 0)
			return true;
	}
	return false;
}

/*
 * Where there is always somebody who writes it stands in line once a minute: who wants to schedule something then waits for those who are
 * doing so.
 */
static void
count(const MqQueueList *all)
{
	static const char what[] = "counting what is scheduled";
	static int64 next_line = 0;
	static int64 not_before = 0;
	int64		begun = mq_monotonic_us();
	MqMissedLock missed;
	bool		done;

	if (begun < not_before)
		return;
	done = mq_job_run(count_unknown, unconstify(MqQueueList *, all), MQ_JOB_FOR_ALL, what);
	not_before = mq_monotonic_us() + COUNTING_PART * (mq_monotonic_us() - begun);
	if (done || begun < next_line || !mq_job_missed_lock(&missed) || !mq_job_may_wait())
		return;
	next_line = mq_monotonic_us() + 60 * MQ_S;
	if (!mq_job_stand_in_line(&missed, 4, what))
		return;
	(void) mq_job_run(count_unknown, unconstify(MqQueueList *, all), MQ_JOB_FOR_ALL, what);
	mq_job_leave_line();
}

/* ---- emptying ---- */

/* Job. */
static bool
truncate_table(void *arg)
{
	int			table = *(int *) arg;

	return mq_job_lock(mq_schedule_table(table), AccessExclusiveLock) && mq_schedule_truncate(table);
}

/* Job: a bit for each table whose time is over, and that has pages with nothing in them. */
static bool
find_tables_to_empty(void *arg)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		if (!mq_schedule_table_is_in_use(i, now) && mq_job_lock(mq_schedule_table(i), AccessShareLock) && mq_schedule_may_be_empty(i))
			*(uint32 *) arg |= 1U << i;
	return true;
}

static void
empty_tables(void)
{
	uint32		found = 0;

	(void) mq_job_run(find_tables_to_empty, &found, MQ_JOB_FOR_ALL, "looking for tables of the schedule to empty");
	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		if ((found & (1U << i)) != 0)
			(void) mq_job_run(truncate_table, &i, MQ_JOB_FOR_ALL, "emptying a table of the schedule");
}

/* What a look at the tables about moved messages has found. */
typedef struct MovedLook
{
	uint32		superfluous;	/* a bit for each whose messages are gone */
	bool		full;			/* all are in use, and the current one is large */
} MovedLook;

/* Job. */
static bool
look_at_moved(void *arg)
{
	MovedLook  *look = arg;

	for (int i = 0; i < MQ_MOVED_TABLES; i++)
		if (!mq_job_lock(mq_moved_table(i), AccessShareLock))
			return false;
	look->full = !mq_moved_move_on(mq_worker_database);
	for (int i = 0; i < MQ_MOVED_TABLES; i++)
		if (mq_moved_is_superfluous(mq_worker_database, i))
			look->superfluous |= 1U << i;
	return true;
}

/* Job. */
static bool
squeeze_moved(void *arg)
{
	int			table = *(int *) arg;

	return mq_job_lock(mq_moved_table(table), AccessExclusiveLock) && mq_moved_squeeze(mq_worker_database, table);
}

/* Job. */
static bool
truncate_moved(void *arg)
{
	int			table = *(int *) arg;

	return mq_job_lock(mq_moved_table(table), AccessExclusiveLock) && mq_moved_truncate(mq_worker_database, table);
}

static void
empty_moved(void)
{
	static int	squeezed = 0;
	MovedLook	look = {0};

	(void) mq_job_run(look_at_moved, &look, MQ_JOB_FOR_ALL, "looking at what is known of moved messages");
	for (int i = 0; i < MQ_MOVED_TABLES; i++)
		if ((look.superfluous & (1U << i)) != 0)
			(void) mq_job_run(truncate_moved, &i, MQ_JOB_FOR_ALL, "forgetting moved messages that are gone");
	if (!look.full || look.superfluous != 0)
		return;
	squeezed = (squeezed + 1) % MQ_MOVED_TABLES;
	(void) mq_job_run(squeeze_moved, &squeezed, MQ_JOB_FOR_ALL, "bringing together what is known of moved messages");
}

/* Tables are looked for once in so many turns. */
#define TURNS_PER_LOOK 10

void
mq_job_care_for_schedule(const MqQueueList *all)
{
	static int	turns = 0;

	mq_job_schedule_turn(all);
	if (is_any_unknown(all))
		count(all);
	bring_all_nearer(all);
	if (++turns % TURNS_PER_LOOK == 0 && all->may_make)
	{
		empty_tables();
		empty_moved();
	}
}
