/*
 * launcher.c: starts a worker in each database that has the extension.
 *
 * States of a database: UNKNOWN (only at the start of the launcher: a worker is tried in each database and ends at
 * once where there is no extension) -> WANTED (a backend uses mq and there is no worker) -> STARTED -> WANTED again when
 * it has ended, after a back-off; PAUSED while a command needs the database for itself. The launcher holds no
 * database connection and no lock while idle.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "offset/rebuild.h"
#include "worker/process.h"
#include "worker/worker.h"

#define TURN_MS			1000
#define BACKOFF_MS		2000
#define PAUSE_MS		10000
#define STOP_WAIT_MS	5000

/* What the launcher knows of each slot; index as in mq_databases. */
static TimestampTz next_start[MQ_MAX_DATABASES];

void
mq_launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "mq", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "mq_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "mq launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "mq launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

/* Starts a worker; NULL when there is no free slot for one. */
static BackgroundWorkerHandle *
start_worker(Oid dboid)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "mq", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "mq_worker_main", sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "mq worker for database %u", dboid);
	strlcpy(worker.bgw_type, "mq worker", sizeof(worker.bgw_type));
	worker.bgw_main_arg = ObjectIdGetDatum(dboid);
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, &handle) ? handle : NULL;
}

/* The databases, all or those where a worker may have something to do. */
static List *
list_databases(MemoryContext context, bool all)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	List	   *oids = NIL;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!all && (!form->datallowconn || form->datistemplate))
			continue;
		old = MemoryContextSwitchTo(context);
		oids = lappend_oid(oids, form->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return oids;
}

/* Tries each database once, one after the other, so that a server with many of them does not run out of workers. */
static void
probe_databases(void)
{
	ListCell   *cell;

	foreach(cell, list_databases(TopMemoryContext, false))
	{
		BackgroundWorkerHandle *handle = start_worker(lfirst_oid(cell));
		pid_t		pid;

		CHECK_FOR_INTERRUPTS();
		if (handle != NULL)
			(void) WaitForBackgroundWorkerStartup(handle, &pid);
	}
}

/* Whether the database of this slot should get a worker now. */
static bool
is_wanted(MqDatabase *db, TimestampTz now)
{
	bool		wanted;

	SpinLockAcquire(&db->mutex);
	wanted = db->key.database != InvalidOid && db->worker_wanted && db->worker_pid == 0 && db->paused_until <= now;
	SpinLockRelease(&db->mutex);
	return wanted;
}

static void
start_wanted(void)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		if (next_start[i] > now || !is_wanted(&mq_databases[i], now))
			continue;
		(void) start_worker(mq_databases[i].key.database);
		next_start[i] = TimestampTzPlusMilliseconds(now, BACKOFF_MS);
	}
}

/* A slot without a worker that was not told to stop wants one again: its worker has died. */
static void
miss_dead_workers(void)
{
	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		MqDatabase *db = &mq_databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->key.database != InvalidOid && db->worker_pid == 0)
			db->worker_wanted = true;
		SpinLockRelease(&db->mutex);
	}
}

/* Slots of databases that are gone. */
static void
forget_dropped(MemoryContext context)
{
	List	   *oids = list_databases(context, true);

	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		Oid			dboid = mq_databases[i].key.database;

		if (dboid != InvalidOid && !list_member_oid(oids, dboid) && mq_databases[i].worker_pid == 0)
			mq_forget_database(dboid, InvalidOid);
	}
}

static void
leave(int code, Datum arg)
{
	mq_shared->launcher_procno = -1;
}

void
mq_launcher_main(Datum arg)
{
	MemoryContext context;
	int			turns = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	mq_process_override_settings();
	mq_shared->launcher_procno = MqMyProcNumber();
	before_shmem_exit(leave, (Datum) 0);
	context = AllocSetContextCreate(TopMemoryContext, "mq launcher turn", ALLOCSET_DEFAULT_SIZES);

	probe_databases();
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		start_wanted();
		if (++turns % 10 == 0)
			forget_dropped(context);
		MemoryContextReset(context);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, TURN_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		miss_dead_workers();
	}
}

static pid_t
pause_worker(Oid dboid)
{
	pid_t		pid = 0;

	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		MqDatabase *db = &mq_databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->key.database == dboid)
		{
			db->paused_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PAUSE_MS);
			if (db->worker_pid != 0)
				pid = db->worker_pid;
		}
		SpinLockRelease(&db->mutex);
	}
	return pid;
}

void
mq_worker_stop(Oid dboid)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STOP_WAIT_MS);
	pid_t		pid;

	while ((pid = pause_worker(dboid)) != 0 && GetCurrentTimestamp() < deadline)
	{
		(void) kill(pid, SIGTERM);
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
