/*
 * worker.c: one per database that has the extension: its process, its turns, the ring, clearing up. How a job runs is in
 * job.c; the jobs on segments, on groups, on what is kept and of NOTIFY are in files of their own.
 *
 * States: ATTACHING (find the extension, claim the database's slot, build the windows) -> TURNING (one turn a second,
 * or when woken) -> ended (extension or slot gone, or told to). Each job runs in a transaction of its own; one that
 * fails is logged and tried again next turn, and the others go on. No job waits for a lock (D14): it takes locks
 * conditionally and leaves the work for the next turn, or stands in line for it before (mq_job_stand_in_line). Between turns there is no transaction and no lock. A crash loses
 * nothing but the clocks that say since when something is superfluous.
 */
#include "postgres.h"

#include "worker/worker.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "base/stop_point.h"
#include "offset/rebuild.h"
#include "offset/ring.h"
#include "worker/jobs.h"

#define TURN_MS				1000
#define SETTLERS_AT_ONCE	64

static TimestampTz table_since[MQ_MAX_OFFSET_TABLES];
static TimestampTz next_turn = 0;

/* ---- prepared transactions ---- */

/* Prepared transactions that are decided, and whose marks the sweep before has settled, hold nothing back. */
static int
decided_prepared(uint64 *xids, int max)
{
	uint64		all[SETTLERS_AT_ONCE];
	int			count = 0;
	int			decided = 0;

	SpinLockAcquire(&mq_worker_database->mutex);
	for (uint32 p = mq_worker_database->prepared; p != 0 && count < Min(max, SETTLERS_AT_ONCE); p = MqPreparedAt(p)->next)
		all[count++] = MqPreparedAt(p)->xid;
	SpinLockRelease(&mq_worker_database->mutex);
	for (int i = 0; i < count; i++)
		if (!mq_job_xid_is_open(all[i]))
			xids[decided++] = all[i];
	return decided;
}

static void
forget_prepared(uint64 xid)
{
	uint32	   *link;
	uint32		found = 0;

	SpinLockAcquire(&mq_worker_database->mutex);
	for (link = &mq_worker_database->prepared; *link != 0; link = &MqPreparedAt(*link)->next)
	{
		if (MqPreparedAt(*link)->xid == xid)
		{
			found = *link;
			*link = MqPreparedAt(found)->next;
			break;
		}
	}
	SpinLockRelease(&mq_worker_database->mutex);
	if (found != 0)
		mq_cell_free(found);
}

/* ---- ring ---- */

static bool
move_on(void *arg)
{
	*(bool *) arg = mq_ring_move_on(mq_worker_database);
	return true;
}

static bool
truncate_table(void *arg)
{
	return mq_ring_truncate(mq_worker_database, *(int *) arg);
}

static void
care_for_ring(const MqQueueList *all)
{
	int			table;
	bool		made = false;

	if (mq_job_run(move_on, &made, "moving on in the offset log") && made)
		mq_ring_grown(mq_worker_database);
	/* the rows of a restored queue that nobody has used yet are known to no window */
	for (int i = 0; i < all->count; i++)
		if (!mq_job_is_ours(&all->queues[i]))
			return;
	table = mq_ring_superfluous(mq_worker_database, table_since);
	if (table >= 0 && mq_job_run(truncate_table, &table, "truncating an offset log table"))
		mq_ring_emptied(mq_worker_database, table);
}

/* ---- clearing up ---- */

static void
forget_dead_extensions(void)
{
	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		MqDatabaseKey key = mq_databases[i].key;

		if (key.database == MyDatabaseId && !mq_extension_may_exist(key.extension))
			mq_forget_database(key.database, key.extension);
	}
}

/* Queues that were dropped, or whose creation was rolled back, leave their slots behind; extensions too. */
static bool
clear_slots(void *arg)
{
	const MqExtension *ext = mq_extension(false);

	forget_dead_extensions();
	for (int i = 0; i < mq_max_groups; i++)
	{
		MqWindowKey key = mq_windows[i].key;

		if (key.level >= 0 && memcmp(&key.db, &mq_worker_database->key, sizeof(MqDatabaseKey)) == 0 &&
			!mq_catalog_may_exist(ext->group_rel, key.group_no))
			mq_window_forget(&key);
	}
	for (int i = 0; i < mq_max_queues; i++)
	{
		MqChainKey	key = mq_chains[i].key;

		if (key.level >= 0 && memcmp(&key.db, &mq_worker_database->key, sizeof(MqDatabaseKey)) == 0 &&
			!mq_catalog_may_exist(ext->queue_rel, key.queue_no))
			mq_chain_forget(&key);
	}
	return true;
}

/* A queue restored, copied or upgraded is ours from the first use on. The order of its pages is not known. */
static bool
adopt_queue(void *arg)
{
	MqQueue    *queue = arg;
	MqSqlContext context;

	mq_sql_begin(&context);
	mq_sql("UPDATE mq.segment SET file = 0 WHERE queue_no = %d", queue->queue_no);
	mq_sql("UPDATE mq.queue SET system_identifier = " INT64_FORMAT ", database = %u, extension = %u WHERE queue_no = %d",
		   (int64) GetSystemIdentifier(), MyDatabaseId, mq_worker_database->key.extension, queue->queue_no);
	mq_sql_end(&context);
	mq_catalog_changed();
	return true;
}

/* ---- turns ---- */

static bool
mark_log(void *arg)
{
	mq_offset_log_mark(mq_worker_database, *(bool *) arg);
	return true;
}

/* Says in the offset log that mq runs, so that a crash is known for one; or that it stops in order. */
static void
mark_offset_log(bool stop)
{
	(void) mq_job_run(mark_log, &stop, stop ? "noting the stop" : "noting the start");
}

/* The slot of an extension that was dropped is freed, also by its own worker, and may be that of the next extension by now. */
static bool
has_slot(void)
{
	bool		mine;

	SpinLockAcquire(&mq_worker_database->mutex);
	mine = mq_worker_database->worker_pid == MyProcPid;
	SpinLockRelease(&mq_worker_database->mutex);
	return mine;
}

static bool
list_all(void *arg)
{
	MqQueueList  *all = arg;
	const MqExtension *ext = mq_extension(true);

	if (ext == NULL || ext->oid != mq_worker_database->key.extension || !has_slot())
		proc_exit(0);
	mq_attach_database(mq_worker_database);
	mq_attach_missing(mq_worker_database);
	all->queues = mq_queues_all(&all->count);
	all->groups = mq_groups_all(&all->ngroups);
	return true;
}

/* False: as care_for_group. */
static bool
care_for_queue(const MqQueueList *all, MqQueue *queue)
{
	MqQueueWork	work = {all, queue};
	bool		settled = true;

	work.known = mq_job_run(mq_job_look_at_queue, &work, psprintf("looking at queue \"%s\"", NameStr(queue->name)));
	if (work.known && mq_job_make_segments(&work))
		mq_job_cut_segment(&work);
	for (int i = 0; i < all->ngroups; i++)
		if (all->groups[i].queue.queue_no == queue->queue_no)
			settled &= mq_job_care_for_group(&all->groups[i], &work);
	if (work.known)
		mq_job_clear_segments(&work);
	if (work.known && queue->foreign && queue->chain->adopt_wanted && mq_job_run(adopt_queue, queue, "adopting a queue"))
		queue->chain->adopt_wanted = false;
	return settled;
}

/* Before the server stops: a checkpoint of what changed, so that failure counts survive and a start is quick. */
static void
last_checkpoints(void)
{
	MqQueueList	all = {0};

	if (!mq_job_run(list_all, &all, "looking for queues"))
		return;
	for (int i = 0; i < all.ngroups; i++)
	{
		MqQueueWork	work = {&all, &all.groups[i].queue};
		MqWindowKey key = mq_window_key(&all.groups[i], 0);
		MqWindow   *window = mq_window_slot(&key, false, NULL);

		if (window == NULL || window->root == 0 || window->changes == window->checkpointed)
			continue;
		all.groups[i].window = window;
		mq_job_checkpoint(&all.groups[i], &work);
	}
	mark_offset_log(true);
}

static void
turn(void)
{
	static bool marked = false;
	MqQueueList	all = {0};
	uint64		prepared[SETTLERS_AT_ONCE];
	int			nprepared;
	bool		settled = true;

	/* asked first: what is decided by now is settled in every window below */
	nprepared = decided_prepared(prepared, SETTLERS_AT_ONCE);
	if (!mq_job_run(list_all, &all, "looking for queues"))
		return;
	if (!marked)
		mark_offset_log(false);
	marked = true;
	for (int i = 0; i < all.count; i++)
		settled &= care_for_queue(&all, &all.queues[i]);
	for (int i = 0; i < nprepared && settled; i++)
		forget_prepared(prepared[i]);
	mq_job_notify_plan(&all);
	care_for_ring(&all);
	(void) mq_job_run(clear_slots, NULL, "clearing up");
}

/* ---- process ---- */

static void
leave_slot(int code, Datum arg)
{
	if (mq_worker_database == NULL)
		return;
	SpinLockAcquire(&mq_worker_database->mutex);
	if (mq_worker_database->worker_pid == MyProcPid)
	{
		mq_worker_database->worker_pid = 0;
		mq_worker_database->worker_procno = -1;
	}
	SpinLockRelease(&mq_worker_database->mutex);
}

/* False: there is no extension here, or another worker. */
static bool
claim_slot(void)
{
	const MqExtension *ext = mq_extension(true);
	bool		claimed;

	if (ext == NULL)
	{
		forget_dead_extensions();
		return false;
	}
	mq_worker_database = ext->db;
	SpinLockAcquire(&mq_worker_database->mutex);
	claimed = mq_worker_database->worker_pid == 0;
	if (claimed)
	{
		mq_worker_database->worker_pid = MyProcPid;
		mq_worker_database->worker_procno = MqMyProcNumber();
		mq_worker_database->worker_wanted = false;
	}
	SpinLockRelease(&mq_worker_database->mutex);
	if (!claimed)
		mq_worker_database = NULL;
	return claimed;
}

static void
attach(void)
{
	bool		claimed;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	before_shmem_exit(leave_slot, (Datum) 0);
	claimed = claim_slot();
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (!claimed)
		proc_exit(0);
}

/* Every second, or when somebody asks for one: then the latch was set for that, and not only to notify. */
static bool
is_time_for_turn(void)
{
	bool		wanted;

	SpinLockAcquire(&mq_worker_database->mutex);
	wanted = mq_worker_database->turn_wanted;
	mq_worker_database->turn_wanted = false;
	SpinLockRelease(&mq_worker_database->mutex);
	if (!wanted && GetCurrentTimestamp() < next_turn)
		return false;
	next_turn = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TURN_MS);
	return true;
}

/* The first request lets the turn end and the last checkpoints be written; a second one ends it at once. */
static void
handle_sigterm(SIGNAL_ARGS)
{
	if (ShutdownRequestPending)
		die(postgres_signal_arg);
	else
		SignalHandlerForShutdownRequest(postgres_signal_arg);
}

void
mq_worker_main(Datum arg)
{
	uint32		wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	/* what cannot be locked conditionally (a default partition, TOAST tables in DDL) must not hold up everything else */
	SetConfigOption("lock_timeout", "1s", PGC_SUSET, PGC_S_OVERRIDE);
	mq_job_init();
	wait_event = MqWaitEventNew("MqWorkerMain");
	attach();
	for (;;)
	{
		TimestampTz notify;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (is_time_for_turn())
			turn();
		notify = mq_job_notify();
		MemoryContextReset(mq_job_context);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), Min(next_turn, notify)),
						 wait_event);
		ResetLatch(MyLatch);
		if (ShutdownRequestPending)
		{
			last_checkpoints();
			proc_exit(0);
		}
	}
}
