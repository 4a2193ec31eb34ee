/*
 * job.c: how a job of the worker runs, and what jobs have in common. See job.h.
 */
#include "postgres.h"

#include "worker/job.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

MqDatabase *mq_worker_database = NULL;
MemoryContext mq_job_context = NULL;

/* the lock that the last job did not get, if it was by mq_job_lock */
static LockRelId missed_table;
static LOCKMODE missed_mode = NoLock;
static LockRelId line_table;		/* and the one we hold for the session since we stood in line for it */
static LOCKMODE line_mode = NoLock;

void
mq_job_init(void)
{
	mq_job_context = AllocSetContextCreate(TopMemoryContext, "mq worker turn", ALLOCSET_DEFAULT_SIZES);
}

bool
mq_job_lock(Oid relid, LOCKMODE mode)
{
	if (ConditionalLockRelationOid(relid, mode))
		return true;
	missed_table.relId = relid;
	missed_table.dbId = MyDatabaseId;
	missed_mode = mode;
	return false;
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

bool
mq_job_run(MqJob job, void *arg, const char *what)
{
	volatile bool done = false;

	CHECK_FOR_INTERRUPTS();
	missed_mode = NoLock;
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, what);
	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(mq_job_context);
		done = lock_own_tables() && job(arg);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(mq_job_context);
	pgstat_report_stat(true);
	return done;
}

/*
 * The wait has a transaction of its own that holds nothing else: who has the lock, or stands before us, waits for nothing of
 * ours. lock_timeout ends it.
 */
bool
mq_job_stand_in_line(int timeout_ms, const char *what)
{
	volatile bool locked = false;

	if (missed_mode == NoLock || timeout_ms <= 0)
		return false;
	line_table = missed_table;
	line_mode = missed_mode;
	CHECK_FOR_INTERRUPTS();
	pgstat_report_activity(STATE_RUNNING, what);
	PG_TRY();
	{
		StartTransactionCommand();
		(void) set_config_option("lock_timeout", psprintf("%d", timeout_ms), PGC_SUSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
								 true, 0, false);
		LockRelationIdForSession(&line_table, line_mode);
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
	MemoryContextSwitchTo(mq_job_context);
	return locked;
}

void
mq_job_leave_line(void)
{
	UnlockRelationIdForSession(&line_table, line_mode);
}

bool
mq_job_is_ours(const MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	return !queue->foreign || mq_chain_slot(&key, false, NULL) != NULL;
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

bool
mq_job_xid_is_open(uint64 full)
{
	TransactionId xid = XidFromFullTransactionId(FullTransactionIdFromU64(full));

	if (mq_xid_is_ancient(full))
		return false;
	return TransactionIdIsInProgress(xid);
}
