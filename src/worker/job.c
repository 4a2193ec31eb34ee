/*
 * job.c: how a job of the worker runs, and what jobs have in common. See job.h.
 *
 * Owns what this worker knows of jobs that fail, by job and object: when to try again, and when to speak of it again; and how
 * long it may wait for locks.
 */
#include "postgres.h"

#include "worker/job.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "log/page.h"
#include "worker/backoff.h"
#include "worker/visit.h"

#define SWEEP_AT_LEAST	64
#define KEPT_US			(600 * MQ_S)	/* of an object that is no more */

/* Hashed as bytes: number is as wide as segment, so that there is no padding. */
typedef struct FailureKey
{
	MqJob		job;
	int64		segment;
	int64		number;
} FailureKey;

typedef struct Failure
{
	FailureKey	key;
	MqBackoff	backoff;
} Failure;

/* Jobs that failed when they were tried last. */
static HTAB *failures = NULL;
static long sweep_at = SWEEP_AT_LEAST;

MqDatabase *mq_worker_database = NULL;
MemoryContext mq_job_context = NULL;

/* the lock that the last job did not get, if it was by mq_job_lock */
static MqMissedLock missed;
static MqMissedLock line;			/* and the one we hold for the session since we stood in line for it */

/*
 * So long may this process wait for locks in each second, in all its jobs together. They take theirs conditionally; what waits
 * all the same, in DDL and catalogs, is ended by lock_timeout, which is set to what is left.
 */
#define WAIT_PER_SECOND	(500 * MQ_MS)

static int64 wait_left;
static int64 wait_since;		/* of mq_monotonic_us: begin of that second */

void
mq_job_init(void)
{
	HASHCTL		ctl;

	mq_job_context = AllocSetContextCreate(TopMemoryContext, "mq worker turn", ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(FailureKey);
	ctl.entrysize = sizeof(Failure);
	failures = hash_create("mq failed jobs", SWEEP_AT_LEAST, &ctl, HASH_ELEM | HASH_BLOBS);
}

/* ---- failures ---- */

/* Without `urgent`: the same job may become so, and keeps its failures. */
static FailureKey
failure_key(MqJob job, MqJobFor object)
{
	return (FailureKey) {job, object.segment, object.number};
}

/* Whether it is too early to try the job again. */
static bool
has_failed_lately(MqJob job, MqJobFor object)
{
	FailureKey	key = failure_key(job, object);
	const Failure *failure = NULL;

	if (hash_get_num_entries(failures) > 0)
		failure = hash_search(failures, &key, HASH_FIND, NULL);
	return failure != NULL && !mq_backoff_is_over(&failure->backoff, object.urgent);
}

bool
mq_job_is_failing(MqJob job, MqJobFor object)
{
	FailureKey	key = failure_key(job, object);

	return hash_get_num_entries(failures) > 0 && hash_search(failures, &key, HASH_FIND, NULL) != NULL;
}

/* What has not been tried for long is no more. */
static void
sweep(void)
{
	HASH_SEQ_STATUS status;
	Failure    *failure;
	int64		now = mq_monotonic_us();

	hash_seq_init(&status, failures);
	while ((failure = hash_seq_search(&status)) != NULL)
		if (now - failure->backoff.failed_at > KEPT_US)
			(void) hash_search(failures, &failure->key, HASH_REMOVE, NULL);
	sweep_at = Max(2 * hash_get_num_entries(failures), SWEEP_AT_LEAST);
}

/* True: say so. */
static bool
note_failure(MqJob job, MqJobFor object)
{
	FailureKey	key = failure_key(job, object);
	Failure    *failure;
	bool		found;

	if (hash_get_num_entries(failures) >= sweep_at)
		sweep();
	failure = hash_search(failures, &key, HASH_ENTER, &found);
	if (!found)
		memset(&failure->backoff, 0, sizeof(failure->backoff));
	return mq_backoff_failed(&failure->backoff);
}

/* Logged only for a job that had failed before. */
static void
note_success(MqJob job, MqJobFor object, const char *what)
{
	FailureKey	key = failure_key(job, object);
	Failure    *failure;

	if (hash_get_num_entries(failures) == 0 || (failure = hash_search(failures, &key, HASH_FIND, NULL)) == NULL)
		return;
	ereport(LOG,
			(errmsg("mq worker: %s works again", what),
			 errdetail("It had failed " INT64_FORMAT " times.", mq_backoff_worked(&failure->backoff))));
	(void) hash_search(failures, &key, HASH_REMOVE, NULL);
}

static void
say_what(void *what)
{
	errcontext("mq worker: %s", (const char *) what);
}

/* ---- waiting for locks ---- */

bool
mq_job_may_wait(void)
{
	int64		now = mq_monotonic_us();

	if (now - wait_since >= MQ_S)
	{
		wait_since = now;
		wait_left = WAIT_PER_SECOND;
	}
	return wait_left >= MQ_MS;
}

/* Outside of a transaction; a millisecond at least, for none would be without an end. Returns when that was. */
static int64
may_wait(int sharers)
{
	int64		now = mq_monotonic_us();
	int			ms = mq_job_may_wait() ? Max((int) (wait_left / sharers / MQ_MS), 1) : 1;

	if (LockTimeout != ms)
		SetConfigOption("lock_timeout", psprintf("%d", ms), PGC_SUSET, PGC_S_OVERRIDE);
	return now;
}

/* Takes the time since then off what is left, whatever it was spent on. */
static void
has_waited(int64 since)
{
	wait_left = Max(wait_left - (mq_monotonic_us() - since), 0);
}

/* ---- running ---- */

bool
mq_job_lock(Oid relid, LOCKMODE mode)
{
	if (ConditionalLockRelationOid(relid, mode))
		return true;
	missed = (MqMissedLock) {{relid, MyDatabaseId}, mode};
	return false;
}

bool
mq_job_missed_lock(MqMissedLock *lock)
{
	if (lock != NULL)
		*lock = missed;
	return missed.mode != NoLock;
}

/*
 * Takes, without waiting, the locks on our own tables that any job may need: DROP EXTENSION locks them too, in an order
 * of its own.
 */
static bool
lock_own_tables(void)
{
	const MqExtension *ext = mq_extension(true);
	Oid			relid;

	if (ext == NULL)
		return true;
	if (!mq_job_lock(ext->queue_rel, RowExclusiveLock) || !mq_job_lock(ext->group_rel, RowExclusiveLock) ||
		!mq_job_lock(ext->segment_rel, RowExclusiveLock))
		return false;
	for (int table = 0; OidIsValid(relid = mq_offset_log_table(table)); table++)
		if (!mq_job_lock(relid, RowExclusiveLock))
			return false;
	return true;
}

/* In its transaction; false: it said so, or a table of ours was locked. */
static bool
run(MqJob job, void *arg)
{
	bool		done;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(mq_job_context);
	done = lock_own_tables() && job(arg);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return done;
}

bool
mq_job_run(MqJob job, void *arg, MqJobFor object, const char *what)
{
	ErrorContextCallback context = {error_context_stack, say_what, (void *) what};
	volatile bool done = false;
	int64		since;

	CHECK_FOR_INTERRUPTS();
	missed.mode = NoLock;
	if (has_failed_lately(job, object))
	{
		mq_visit_again(0);
		return false;
	}
	since = may_wait(1);
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, what);
	PG_TRY();
	{
		error_context_stack = &context;
		done = run(job, arg);
		error_context_stack = context.previous;
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		if (geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE)
			has_waited(since);
		if (note_failure(job, object))
			EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(mq_job_context);
	if (done)
		note_success(job, object, what);
	else
		mq_visit_again(0);
	pgstat_report_stat(true);
	return done;
}

bool
mq_job_run_without_flush(MqJob job, void *arg, MqJobFor object, const char *what)
{
	int			before = synchronous_commit;
	bool		done;

	synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	done = mq_job_run(job, arg, object, what);
	synchronous_commit = before;
	return done;
}

/*
 * The wait has a transaction of its own that holds nothing else: who has the lock, or stands before us, waits for nothing of
 * ours. lock_timeout ends it.
 */
bool
mq_job_stand_in_line(const MqMissedLock *lock, int sharers, const char *what)
{
	volatile bool locked = false;
	int64		since;

	line = *lock;
	CHECK_FOR_INTERRUPTS();
	since = may_wait(sharers);
	pgstat_report_activity(STATE_RUNNING, what);
	PG_TRY();
	{
		StartTransactionCommand();
		LockRelationIdForSession(&line.table, line.mode);
		locked = true;
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	has_waited(since);
	MemoryContextSwitchTo(mq_job_context);
	return locked;
}

void
mq_job_leave_line(void)
{
	UnlockRelationIdForSession(&line.table, line.mode);
}

bool
mq_job_is_ours(const MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	return !queue->foreign || mq_chain_slot(&key, false, NULL) != NULL;
}

MqChain *
mq_job_chain(MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	if (queue->chain == NULL || memcmp(&queue->chain->key, &key, sizeof(key)) != 0)
		queue->chain = mq_chain_slot(&key, false, NULL);
	return queue->chain;
}

bool
mq_job_is_waited_for(const MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);
	const MqChain *chain = mq_chain_slot(&key, false, NULL);

	/* a look without its lock: next time will do */
	return chain != NULL && chain->wanted_segment >= 0;
}

bool
mq_job_reread_queue(MqQueue *queue)
{
	MqQueue		now;

	mq_catalog_catch_up();
	if (!mq_queue_find(NameStr(queue->name), &now) || now.queue_no != queue->queue_no)
		return false;
	now.chain = queue->chain;
	*queue = now;
	return true;
}

/* One that is ancient is over: its 32 bits may be another transaction's by now. */
bool
mq_job_xid_is_open(uint64 full)
{
	TransactionId xid = XidFromFullTransactionId(FullTransactionIdFromU64(full));

	if (mq_xid_is_ancient(full))
		return false;
	return TransactionIdIsInProgress(xid);
}
