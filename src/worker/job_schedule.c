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

static ScheduleMemo *
memo_of(const MqQueue *queue)
{
	ScheduleMemo *memo = mq_memo(&memos, queue->queue_no);

	if (memo->chain != queue->chain)
	{
		memo->chain = queue->chain;
		memo->moved = from_begin;
		memo->overlooked = PG_INT64_MAX;
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

		if (memo == NULL || mq_job_chain(queue) == NULL || memo->chain != queue->chain || memo->overlooked == PG_INT64_MAX)
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

bool
mq_job_lock_schedule(void)
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

/* Whatever is on disk: what mq.send cannot have given out is left where it is. */
static bool
is_sound(const MqDueRow *row)
{
	return row->place.id >= 1 && row->place.id < INT64CONST(1) << 48;
}

/* The id that mq.send returned for it in this queue: one that is sent back has that of its first send. */
static int64
origin_in(const MqQueue *queue, const MqScheduledRow *row, int64 id)
{
	bool		here = !row->isnull[MQ_SCHED_ORIGIN_QUEUE - 1] && !row->isnull[MQ_SCHED_ORIGIN_ID - 1] &&
		DatumGetInt32(row->v[MQ_SCHED_ORIGIN_QUEUE - 1]) == queue->queue_no;

	return here ? DatumGetInt64(row->v[MQ_SCHED_ORIGIN_ID - 1]) : id;
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
		move->tuples[count] = mq_schedule_message(&values);
		move->moves[count].origin_id = origin_in(move->queue, &values, row.place.id);
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
	if (!mq_attach_queue_at_once(move->queue) || !mq_job_lock_schedule() || !mq_job_lock_log(move->queue, ROWS_PER_BATCH))
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
		mq_transaction_moves(move->queue, count);
		for (int i = 0; i < count; i++)
			move->moves[i].id = ids[i];
		mq_moved_note(move->queue, move->moves, count);
		MQ_STOP_POINT("move_appended");
	}
	return true;
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
	if (mq_job_run_without_flush(move_due, &move, MQ_JOB_FOR(queue->queue_no), psprintf("moving what is due in queue \"%s\"", NameStr(queue->name))))
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

		if (mq_job_chain(queue) == NULL || queue->foreign || queue->replaced)
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

/* What another worker has seen, and where it was, went with it. */
static void
forget_looks(const MqQueueList *all)
{
	for (int i = 0; i < all->count; i++)
	{
		MqChain    *chain = mq_job_chain(&all->items[i].queue);

		if (chain != NULL)
			pg_atomic_write_u64(&chain->seen_due, 0);
	}
}

void
mq_job_schedule_turn(const MqQueueList *all)
{
	static bool begun = false;

	if (!begun)
		forget_looks(all);
	begun = true;
	look_at_undecided(all);
	/* queues that have just been attached, a clock that was set, and what was decided: all are asked */
	mq_lower_due(&mq_worker_database->next_due, 0);
}
