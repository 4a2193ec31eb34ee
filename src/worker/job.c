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
#include "utils/memutils.h"
#include "utils/snapmgr.h"

MqDatabase *mq_worker_database = NULL;
MemoryContext mq_job_context = NULL;

void
mq_job_init(void)
{
	mq_job_context = AllocSetContextCreate(TopMemoryContext, "mq worker turn", ALLOCSET_DEFAULT_SIZES);
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
	if (!ConditionalLockRelationOid(ext->queue_rel, RowExclusiveLock) ||
		!ConditionalLockRelationOid(ext->group_rel, RowExclusiveLock) ||
		!ConditionalLockRelationOid(ext->segment_rel, RowExclusiveLock))
		return false;
	for (int table = 0; OidIsValid(relid = mq_offset_log_table(table)); table++)
		if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
			return false;
	return true;
}

bool
mq_job_run(MqJob job, void *arg, const char *what)
{
	volatile bool done = false;

	CHECK_FOR_INTERRUPTS();
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
