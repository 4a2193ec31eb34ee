/*
 * job_schedule.c: the worker moves what is due from the schedule (schedule.h) to the logs of its queues.
 *
 * One process does it for all queues of a database, so the messages of a queue come in the order of (due time, id). A batch is taken out
 * of the schedule and appended in one transaction; it need not be flushed, for what a consumer then does with the messages is flushed
 * after it, and if neither is, the messages are in the schedule still.
 *
 * Owns, per queue, the place up to which everything has been moved: the next look begins there, whatever a long snapshot keeps in the
 * indexes before it. `next_due` and `seen_due` of the chain say when to look. The first is set to infinity before a look and lowered by who
 * commits a message, or gives back one that it had taken out: if it is not behind the place, the place is given up. Transactions that were
 * undecided when their row was passed are remembered, and asked for in each turn: for COMMIT PREPARED and ROLLBACK PREPARED run no
 * callback. All of that is lost with the process, and the next one looks at everything.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/subtrans.h"
#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/owner.h"
#include "base/stop_point.h"
#include "log/log.h"
#include "log/moved.h"
#include "log/schedule.h"
#include "log/segment_table.h"
#include "offset/rebuild.h"
#include "window/transaction.h"
#include "worker/jobs.h"
#include "worker/memo.h"

#define ROWS_PER_BATCH	1000
#define BYTES_PER_BATCH	((Size) 4 * 1024 * 1024)
#define PASSED_PER_BATCH 10000
#define SLICE_US		(20 * MQ_MS)	/* then it is asked again who is due */
#define RETRY_US		(100 * MQ_MS)
#define UNDECIDED_MAX	256
#define COUNTING_PART	50		/* senders are locked out for one part of the time in so many, at most */
#define COUNTING_US		(20 * MQ_MS)	/* then the next queue's is for another time */
#define NEARER_US		(200 * MQ_MS)	/* so long, in each turn, for what comes nearer */

static const MqDuePlace from_begin = {PG_INT64_MIN, -1};

/* What the worker knows of the schedule of a queue. */
typedef struct ScheduleMemo
{
	MqMemoHead	head;
	const MqChain *chain;		/* another slot: nothing is known */
	MqDuePlace	moved;			/* everything up to there was moved, but for what is remembered as undecided */
	TimestampTz overlooked;		/* the first undecided row for which there was no room; PG_INT64_MAX: none */
	int64		retry_at;		/* of mq_monotonic_us; the last batch could not be moved */
	int64		served_at;		/* when it was served last */
	Oid			owner;			/* of the queue, as of then */
	/* of the tables of a day, and of the one for later: */
	TimestampTz nearer[2];		/* what is due before that is brought nearer, */
	MqDuePlace	nearer_moved[2];	/* and up to there it has been; */
	bool		nearer_done[2];	/* all of it */
} ScheduleMemo;

/* A row that was passed: who had inserted or was deleting it was undecided. */
typedef struct Undecided
{
	TransactionId xid;
	MqChain    *chain;
	MqChainKey	key;
	TimestampTz due;
} Undecided;

static MqMemo memos = {"mq schedules", sizeof(ScheduleMemo)};
static Undecided undecided[UNDECIDED_MAX];
static int	nundecided = 0;
static bool any_overlooked = false;	/* in some memo */
static bool served_any = false;	/* the last look has found a queue that was due */

/* NULL: it has no slot. One that is known is looked at without a lock: the key is compared again where it matters. */
static MqChain *
chain_of(MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	if (queue->chain == NULL || memcmp(&queue->chain->key, &key, sizeof(key)) != 0)
		queue->chain = mq_chain_slot(&key, false, NULL);
	return queue->chain;
}

static ScheduleMemo *
memo_of(const MqQueue *queue)
{
	ScheduleMemo *memo = mq_memo(&memos, queue->queue_no);

	if (memo->chain != queue->chain)
	{
		memo->chain = queue->chain;
		memo->moved = from_begin;
		memo->overlooked = PG_INT64_MAX;
		memo->nearer[0] = memo->nearer[1] = 0;
		memo->nearer_moved[0] = memo->nearer_moved[1] = from_begin;
		memo->retry_at = 0;
	}
	return memo;
}

/* ---- undecided rows ---- */

/*
 * By the top transaction, for one may have any number of savepoints. There is room for so many transactions; what is more, or not known, is
 * looked at in the next turn.
 */
static void
remember_undecided(const MqQueue *queue, ScheduleMemo *memo, TransactionId xid, TimestampTz due)
{
	static int	last = 0;

	if (!TransactionIdIsValid(xid) || nundecided == UNDECIDED_MAX)
	{
		memo->overlooked = Min(memo->overlooked, due);
		any_overlooked = true;
		return;
	}
	xid = SubTransGetTopmostTransaction(xid);
	for (int i = 0; i < nundecided; i++, last = (last + 1) % nundecided)
	{
		Undecided  *u = &undecided[last % nundecided];

		if (u->chain == queue->chain && u->xid == xid)
		{
			u->due = Min(u->due, due);
			return;
		}
	}
	undecided[nundecided++] = (Undecided) {xid, queue->chain, mq_chain_key(queue, 0), due};
}

/* Has the schedules looked at whose transactions are decided by now, and those that have more of them than are remembered. */
static void
look_at_undecided(const MqQueueList *all)
{
	bool		overlooked = any_overlooked;
	int			left = 0;

	for (int i = 0; i < nundecided; i++)
	{
		Undecided  *u = &undecided[i];

		if (TransactionIdIsInProgress(u->xid))
			undecided[left++] = *u;
		else if (memcmp(&u->chain->key, &u->key, sizeof(u->key)) == 0)
			mq_lower_due(&u->chain->next_due, u->due);
	}
	nundecided = left;
	any_overlooked = false;
	for (int i = 0; i < all->count && overlooked; i++)
	{
		MqQueue    *queue = &all->items[i].queue;
		ScheduleMemo *memo = mq_memo_find(&memos, queue->queue_no);

		if (memo == NULL || chain_of(queue) == NULL || memo->chain != queue->chain || memo->overlooked == PG_INT64_MAX)
			continue;
		mq_lower_due(&queue->chain->next_due, memo->overlooked);
		memo->overlooked = PG_INT64_MAX;
	}
}

/* ---- moving what is due ---- */

/* A batch of one queue. */
typedef struct Move
{
	MqQueue    *queue;
	ScheduleMemo *memo;
	int			rows;			/* at most so many, */
	Size		bytes;			/* or so much and one more */
	TimestampTz now;
	MqDuePlace	moved;			/* in: the place to begin at; out: everything up to there is done with */
	TimestampTz next;			/* out: when the next one is due, PG_INT64_MAX: there is none */
	HeapTuple  *tuples;			/* what was taken, */
	MqMoved    *moves;			/* and the ids that it was sent with */
} Move;

/*
 * All that the job touches is locked before, without waiting, with TOAST tables; of the tables about moved messages whichever rows may
 * go to.
 */
static bool
lock_schedule(void)
{
	if (!mq_job_lock(mq_schedule_parent(), RowExclusiveLock))
		return false;
	for (int i = 0; i < MQ_SCHEDULE_TABLES; i++)
		if (!mq_lock_table_conditionally(mq_schedule_table(i), RowExclusiveLock))
			return false;
	for (int i = 0; i < MQ_MOVED_TABLES; i++)
		if (!mq_job_lock(mq_moved_table(i), RowExclusiveLock))
			return false;
	return true;
}

/* Whether a batch can be appended without a wait. The segment that is missing is asked for, from ourselves. */
static bool
lock_log(const MqQueue *queue)
{
	MqTail		tail;
	int64		last;

	if (!mq_log_tail(queue, 0, &tail))
		return false;
	last = mq_segment_of(tail.next_id + ROWS_PER_BATCH, queue->segment_size);
	for (int64 segment = mq_segment_of(tail.next_id, queue->segment_size); segment <= last; segment++)
	{
		Relation	rel = mq_segment_open_at_once(queue, 0, segment);
		bool		good = rel != NULL && mq_segment_is_guarded(rel);

		if (!good)
			mq_segment_ask_for(queue, 0, segment);
		else
			good = mq_lock_table_conditionally(RelationGetRelid(rel), RowExclusiveLock);
		if (rel != NULL)
			relation_close(rel, NoLock);
		if (!good)
			return false;
	}
	return true;
}

/* Whatever is on disk: what mq.send cannot have given out is left where it is. */
static bool
is_sound(const MqDueRow *row)
{
	return row->place.id >= 1 && row->place.id < INT64CONST(1) << 48;
}

/* The message as it is appended; the log gives it an id. */
static HeapTuple
form_message(const MqScheduledRow *row)
{
	static const struct
	{
		MqColumn	to;
		MqScheduleColumn from;
	}			copied[] = {
		{MQ_COL_HEADERS, MQ_SCHED_HEADERS}, {MQ_COL_PAYLOAD, MQ_SCHED_PAYLOAD}, {MQ_COL_BODY, MQ_SCHED_BODY},
		{MQ_COL_SENT_AT, MQ_SCHED_SENT_AT}, {MQ_COL_DUE_AT, MQ_SCHED_DUE_AT}, {MQ_COL_ORIGIN_ID, MQ_SCHED_ID}
	};
	Datum		v[MQ_COLUMNS] = {0};
	bool		isnull[MQ_COLUMNS];

	memset(isnull, true, sizeof(isnull));
	/* the log fills in these two */
	isnull[MQ_COL_ID - 1] = isnull[MQ_COL_ENQUEUED_AT - 1] = false;
	for (int i = 0; i < lengthof(copied); i++)
	{
		v[copied[i].to - 1] = row->v[copied[i].from - 1];
		isnull[copied[i].to - 1] = row->isnull[copied[i].from - 1];
	}
	return heap_form_tuple(mq_row_descriptor(), v, isnull);
}

/* Takes the row that the scan is at; false: somebody else is about to delete it, or has. */
static bool
take_row(Move *move, MqScheduleScan *scan, const MqDueRow *row)
{
	TransactionId undecided_xid = row->sender;
	MqTaken		taken = MQ_BUSY;

	if (!is_sound(row))
		return false;
	if (!TransactionIdIsValid(row->sender))
		taken = mq_schedule_scan_take(scan, &undecided_xid);
	if (taken == MQ_BUSY)
		remember_undecided(move->queue, move->memo, undecided_xid, row->place.due);
	return taken == MQ_TAKEN;
}

/* Takes what is due out of the schedule, up to a batch; how many. Rows that are passed count too, in the end. */
static int
take_due(Move *move)
{
	MqScheduleScan *scan = mq_schedule_scan_begin(move->queue->queue_no, move->moved, MQ_SCHEDULE_ALL);
	MqDueRow	row;
	Size		bytes = 0;
	int			count = 0;
	int			passed = 0;

	move->next = PG_INT64_MAX;
	while (mq_schedule_scan_next(scan, &row))
	{
		MqScheduledRow values;

		CHECK_FOR_INTERRUPTS();
		if (row.place.due > move->now || count == move->rows || bytes > move->bytes || passed == PASSED_PER_BATCH)
		{
			move->next = row.place.due;
			break;
		}
		move->moved = row.place;
		if (!take_row(move, scan, &row))
		{
			passed++;
			continue;
		}
		mq_schedule_scan_values(scan, &values);
		move->tuples[count] = form_message(&values);
		move->moves[count].origin_id = row.place.id;
		bytes += move->tuples[count++]->t_len;
	}
	mq_schedule_scan_end(scan);
	return count;
}

/* Job. */
static bool
move_due(void *arg)
{
	Move	   *move = arg;
	int64	   *ids;
	int			count;

	/* it goes with the transaction: there may be any number of batches in a turn */
	MemoryContextSwitchTo(CurTransactionContext);
	move->memo->owner = mq_queue_owner_if_there(move->queue);
	if (!mq_attach_queue_at_once(move->queue) || !lock_schedule() || !lock_log(move->queue))
		return false;
	move->tuples = palloc(ROWS_PER_BATCH * sizeof(HeapTuple));
	move->moves = palloc(ROWS_PER_BATCH * sizeof(MqMoved));
	ids = palloc(ROWS_PER_BATCH * sizeof(int64));
	count = take_due(move);
	MQ_STOP_POINT("move_taken");
	if (count > 0)
	{
		mq_transaction_sent(move->queue);
		mq_log_append(move->queue, 0, move->tuples, count, ids);
		for (int i = 0; i < count; i++)
			move->moves[i].id = ids[i];
		mq_moved_note(move->queue, move->moves, count);
		mq_transaction_schedules(move->queue, PG_INT64_MAX, -count);
		MQ_STOP_POINT("move_appended");
	}
	return true;
}

/* Runs a job whose transaction need not be on disk when it ends. */
static bool
run_without_flush(MqJob job, void *arg, int32 queue_no, const char *what)
{
	int			before = synchronous_commit;
	bool		done;

	synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	done = mq_job_run(job, arg, MQ_JOB_FOR(queue_no), what);
	synchronous_commit = before;
	return done;
}

/* A batch of a queue of which something may be due; the smaller, the more queues there are. */
static void
serve(MqQueue *queue, TimestampTz now, int queues)
{
	ScheduleMemo *memo = memo_of(queue);
	MqChain    *chain = queue->chain;
	Move		move = {queue, memo, Max(ROWS_PER_BATCH / queues, ROWS_PER_BATCH / 20), Max(BYTES_PER_BATCH / queues, BYTES_PER_BATCH / 20), now};
	TimestampTz known;

	/* before the look: what commits meanwhile lowers it again */
	known = (TimestampTz) pg_atomic_exchange_u64(&chain->next_due, (uint64) PG_INT64_MAX);
	if (known <= memo->moved.due)
		memo->moved = (MqDuePlace) {known, -1};
	move.moved = memo->moved;
	memo->served_at = mq_monotonic_us();
	if (run_without_flush(move_due, &move, queue->queue_no, psprintf("moving what is due in queue \"%s\"", NameStr(queue->name))))
	{
		MQ_STOP_POINT("move_committed");
		memo->moved = move.moved;
		memo->retry_at = 0;
		pg_atomic_write_u64(&chain->seen_due, (uint64) move.next);
	}
	else
	{
		memo->retry_at = mq_monotonic_us() + RETRY_US;
		mq_lower_due(&chain->next_due, known);
	}
}

/* Microseconds until something may be due in the queue, or is to be tried again; 0: now. */
static int64
time_left(const MqQueue *queue, TimestampTz now)
{
	TimestampTz due = Min((TimestampTz) pg_atomic_read_u64(&queue->chain->next_due),
						  (TimestampTz) pg_atomic_read_u64(&queue->chain->seen_due));
	const ScheduleMemo *memo;

	if (due > now)
		return due == PG_INT64_MAX ? PG_INT64_MAX : due - now;
	memo = mq_memo_find(&memos, queue->queue_no);
	return memo == NULL || memo->chain != queue->chain ? 0 : Max(memo->retry_at - mq_monotonic_us(), 0);
}

/* A queue that is due. */
typedef struct Due
{
	MqQueue    *queue;
	Oid			owner;
	int64		served_at;
	int			turn;			/* which one of its owner's it is */
} Due;

static int
compare_owners(const void *a, const void *b)
{
	const Due  *x = a;
	const Due  *y = b;

	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	return (x->served_at > y->served_at) - (x->served_at < y->served_at);
}

static int
compare_turns(const void *a, const void *b)
{
	const Due  *x = a;
	const Due  *y = b;

	if (x->turn != y->turn)
		return x->turn - y->turn;
	return (x->served_at > y->served_at) - (x->served_at < y->served_at);
}

/* So that nobody waits for another one's many queues: each owner's that was served longest ago, then each one's next. */
static void
order_fairly(Due *due, int count)
{
	qsort(due, count, sizeof(Due), compare_owners);
	for (int i = 0; i < count; i++)
		due[i].turn = i > 0 && due[i].owner == due[i - 1].owner ? due[i - 1].turn + 1 : 0;
	qsort(due, count, sizeof(Due), compare_turns);
}

/* The queues of which something may be due, in job's memory. *pause: until the next one is. */
static Due *
collect_due(const MqQueueList *all, TimestampTz now, int *count, int64 *pause)
{
	Due		   *due = MemoryContextAllocHuge(mq_job_context, (Size) (all->count + 1) * sizeof(Due));

	*count = 0;
	*pause = PG_INT64_MAX;
	for (int i = 0; i < all->count; i++)
	{
		MqQueue    *queue = &all->items[i].queue;
		int64		left;

		if (chain_of(queue) == NULL || queue->foreign || queue->replaced)
			continue;
		left = time_left(queue, now);
		if (left == 0)
		{
			const ScheduleMemo *memo = memo_of(queue);

			due[(*count)++] = (Due) {queue, memo->owner, memo->served_at, 0};
		}
		else
			*pause = Min(*pause, left);
	}
	return due;
}

/* Of each queue a batch, as far as a slice of time goes. Returns as mq_job_schedule. */
static int64
serve_all(const MqQueueList *all)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		end = mq_monotonic_us() + SLICE_US;
	int64		pause;
	int			count;
	Due		   *due = collect_due(all, now, &count, &pause);

	served_any = count > 0;
	order_fairly(due, count);
	for (int i = 0; i < count; i++)
	{
		/* the others in the next look */
		if (mq_monotonic_us() >= end)
		{
			pause = 0;
			break;
		}
		serve(due[i].queue, GetCurrentTimestamp(), count);
		pause = Min(pause, time_left(due[i].queue, GetCurrentTimestamp()));
	}
	pfree(due);
	return pause;
}

/* The queues are asked only when something is due in one of them. */
int64
mq_job_schedule(const MqQueueList *all)
{
	static int64 asked_at = 0;
	MqDatabase *db = mq_worker_database;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next;
	TimestampTz known;

	/* until the end of this look whoever commits something sets the latch (mq_note_due) */
	pg_atomic_write_u64(&db->sleeps_until, (uint64) PG_INT64_MAX);
	pg_memory_barrier();
	known = (TimestampTz) pg_atomic_read_u64(&db->next_due);
	if (known <= now)
	{
		int64		pause;

		pg_atomic_write_u64(&db->next_due, (uint64) PG_INT64_MAX);
		pg_memory_barrier();
		pause = serve_all(all);
		/* it may be a queue that is new, which the next turn comes to know */
		if (known > 0 && mq_monotonic_us() - asked_at > RETRY_US)
		{
			asked_at = mq_monotonic_us();
			if (!served_any)
				mq_worker_wake(db);
		}
		now = GetCurrentTimestamp();
		if (pause != PG_INT64_MAX)
			mq_lower_due(&db->next_due, now + pause);
	}
	next = (TimestampTz) pg_atomic_read_u64(&db->next_due);
	pg_atomic_write_u64(&db->sleeps_until, (uint64) next);
	pg_memory_barrier();
	/* what came between the two lines above has seen that the worker was awake */
	return next == PG_INT64_MAX ? PG_INT64_MAX : Max(next - now, 0);
}

/* ---- in each turn ---- */

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
	if (!mq_schedule_lock_at_once(nearer->queue) || !lock_schedule())
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

/* Goes on where it was; the memo is asked for anew, for a look at what is due comes in between. */
static void
bring_nearer(const MqQueueList *all, const MqQueue *queue, int tier, TimestampTz before, int64 until)
{
	Nearer		nearer = {queue, tier == 0 ? MQ_SCHEDULE_DAYS : MQ_SCHEDULE_LATER, before, memo_of(queue)->nearer_moved[tier], true};

	while (nearer.more && mq_monotonic_us() < until)
	{
		if (!run_without_flush(move_nearer, &nearer, queue->queue_no, psprintf("moving what comes nearer in queue \"%s\"", NameStr(queue->name))))
			return;
		memo_of(queue)->nearer_moved[tier] = nearer.moved;
		memo_of(queue)->nearer_done[tier] = !nearer.more;
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

		if (chain_of(queue) == NULL || queue->foreign || queue->replaced || !has_scheduled(queue))
			continue;
		for (int tier = 1; tier >= 0; tier--)
		{
			ScheduleMemo *memo = memo_of(queue);

			if (memo->nearer[tier] != begin[tier])
				memo->nearer_done[tier] = false;
			/* the clock was set back */
			if (memo->nearer[tier] > begin[tier])
				memo->nearer_moved[tier] = from_begin;
			memo->nearer[tier] = begin[tier];
			if (!memo->nearer_done[tier])
				bring_nearer(all, queue, tier, begin[tier], until);
		}
	}
}

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
		MqChain    *chain = chain_of(&all->items[i].queue);

		if (chain == NULL || pg_atomic_read_u32(&chain->scheduled_known) != 0)
			continue;
		if (mq_monotonic_us() >= until)
			return false;
		pg_atomic_write_u64(&chain->scheduled, (uint64) mq_schedule_count(all->items[i].queue.queue_no));
		pg_atomic_write_u32(&chain->scheduled_known, 1);
	}
	return true;
}

static bool
is_any_unknown(const MqQueueList *all)
{
	for (int i = 0; i < all->count; i++)
	{
		MqChain    *chain = chain_of(&all->items[i].queue);

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

/* What another worker has seen, and where it was, went with it. */
static void
forget_looks(const MqQueueList *all)
{
	for (int i = 0; i < all->count; i++)
	{
		MqChain    *chain = chain_of(&all->items[i].queue);

		if (chain != NULL)
			pg_atomic_write_u64(&chain->seen_due, 0);
	}
}

void
mq_job_care_for_schedule(const MqQueueList *all)
{
	static int	turns = 0;

	if (turns == 0)
		forget_looks(all);
	look_at_undecided(all);
	/* queues that have just been attached, a clock that was set, and what was decided: all are asked */
	mq_lower_due(&mq_worker_database->next_due, 0);
	if (is_any_unknown(all))
		count(all);
	bring_all_nearer(all);
	if (++turns % TURNS_PER_LOOK == 0 && all->may_make)
	{
		empty_tables();
		empty_moved();
	}
}
