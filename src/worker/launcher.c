/*
 * launcher.c: starts a worker in each database that has the extension.
 *
 * States of a database: UNKNOWN (only at the start of the launcher: a worker is tried in each database and ends at
 * once where there is no extension) -> WANTED (a backend uses mq and there is no worker) -> STARTED -> WANTED again when
 * it has ended, after a back-off; PAUSED while a command needs the database for itself. A database that lets nobody connect
 * stays WANTED, without a try; one for which no process is free is named in the server log. The launcher holds no database
 * connection and no lock while idle.
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

#include "offset/rebuild.h"
#include "worker/backoff.h"
#include "worker/process.h"
#include "worker/worker.h"

#define TURN_MS			1000
#define PAUSE_FIRST		(2 * MQ_S)
#define PAUSE_LAST		(60 * MQ_S)
#define STOPPED_FOR		(10 * MQ_S)
#define STOP_WAIT		(5 * MQ_S)
#define ASK_AGAIN		(3 * MQ_S)

#define CONNECTION_LIMIT_INVALID (-2)	/* datconnlimit after a DROP DATABASE that was interrupted */

/* What the launcher knows of a slot. Times are those of mq_monotonic_us. */
typedef struct Start
{
	MqDatabaseKey key;			/* of the slot, as this was noted */
	int64		not_before;
	int64		pause;			/* doubles while workers end before they were seen at work */
	MqBackoff	no_process;
} Start;

static Start starts[MQ_MAX_DATABASES];	/* index as in mq_databases */

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

/* A row of pg_database, as far as it concerns us. */
typedef struct Database
{
	Oid			oid;
	NameData	name;
	bool		is_template;
	bool		lets_connect;	/* not while ALLOW_CONNECTIONS is false, nor after a DROP DATABASE that was interrupted */
} Database;

/* A list of Database, in that context. In a transaction of its own. */
static List *
list_databases(MemoryContext context)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	List	   *list = NIL;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old = MemoryContextSwitchTo(context);
		Database   *database = palloc(sizeof(Database));

		*database = (Database) {form->oid, form->datname, form->datistemplate,
								form->datallowconn && form->datconnlimit != CONNECTION_LIMIT_INVALID};
		list = lappend(list, database);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return list;
}

static const Database *
find_database(const List *list, Oid oid)
{
	ListCell   *cell;

	foreach(cell, list)
	{
		const Database *database = lfirst(cell);

		if (database->oid == oid)
			return database;
	}
	return NULL;
}

/* Tries each database once, one after the other, so that a server with many of them does not run out of workers. */
static void
probe_databases(MemoryContext context)
{
	ListCell   *cell;

	foreach(cell, list_databases(context))
	{
		const Database *database = lfirst(cell);
		BackgroundWorkerHandle *handle;
		pid_t		pid;

		CHECK_FOR_INTERRUPTS();
		if (!database->lets_connect || database->is_template)
			continue;
		handle = start_worker(database->oid);
		if (handle != NULL)
			(void) WaitForBackgroundWorkerStartup(handle, &pid);
	}
	MemoryContextReset(context);
}

/* Whether the database of this slot should get a worker now. */
static bool
is_wanted(MqDatabase *db, int64 now)
{
	bool		wanted;

	SpinLockAcquire(&db->mutex);
	wanted = db->key.database != InvalidOid && db->worker_wanted && db->worker_pid == 0 && db->paused_until <= now;
	SpinLockRelease(&db->mutex);
	return wanted;
}

static void
complain(const Database *database)
{
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no process is free for the mq worker of database \"%s\"", NameStr(database->name)),
			 errdetail("max_worker_processes is %d. Without its worker no partitions are made, so that sends fail when the last one is full, and nothing is cleared up.",
					   max_worker_processes),
			 errhint("Raise max_worker_processes and restart the server: mq takes one process for each database that has the extension, and one more.")));
}

/* That it has started is no success yet: pause doubles until the worker was seen in its slot (miss_dead_workers). */
static void
start_for(Start *start, const Database *database)
{
	if (start_worker(database->oid) == NULL)
	{
		if (mq_backoff_failed(&start->no_process))
			complain(database);
		return;
	}
	start->pause = Min(Max(2 * start->pause, PAUSE_FIRST), PAUSE_LAST);
	if (mq_backoff_worked(&start->no_process) > 0)
		ereport(LOG, (errmsg("a process is free for the mq worker of database \"%s\" again", NameStr(database->name))));
}

/* pg_database is read only if a worker is wanted. Keys are read without the registry lock: at worst that costs a start in vain. */
static void
start_wanted(MemoryContext context)
{
	int64		now = mq_monotonic_us();
	List	   *databases = NIL;

	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		MqDatabaseKey key = mq_databases[i].key;
		Start	   *start = &starts[i];
		const Database *database;

		if (memcmp(&start->key, &key, sizeof(key)) != 0)
			*start = (Start) {key};
		if (start->not_before > now || !is_wanted(&mq_databases[i], now))
			continue;
		if (databases == NIL)
			databases = list_databases(context);
		database = find_database(databases, key.database);
		if (database != NULL && database->lets_connect)
			start_for(start, database);
		start->not_before = now + Max(start->pause, PAUSE_FIRST);
	}
}

/* A slot whose worker has died wants one again. That of a database that is being dropped is held back by its pause (is_wanted). */
static void
miss_dead_workers(void)
{
	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		MqDatabase *db = &mq_databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->worker_pid != 0)
			starts[i].pause = 0;
		else if (db->key.database != InvalidOid)
			db->worker_wanted = true;
		SpinLockRelease(&db->mutex);
	}
}

/* Slots of databases that are gone. */
static void
forget_dropped(MemoryContext context)
{
	List	   *databases = list_databases(context);

	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		Oid			dboid = mq_databases[i].key.database;

		if (dboid != InvalidOid && find_database(databases, dboid) == NULL && mq_databases[i].worker_pid == 0)
			mq_forget_database(dboid, InvalidOid);
	}
}

/* Nobody is to set the latch of whoever gets this process number next. */
static void
leave(int code, Datum arg)
{
	mq_shared->launcher_procno = -1;
}

/* Connected to no database: of the catalogs it reads pg_database only. After an error the postmaster starts it again. */
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

	probe_databases(context);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		start_wanted(context);
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

/*
 * Keeps workers from being started for STOPPED_FOR from now on. The pid of the one that is running, 0: none. Takes each slot's
 * mutex.
 */
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
			db->paused_until = mq_monotonic_us() + STOPPED_FOR;
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
	int64		deadline = mq_monotonic_us() + STOP_WAIT;
	int64		ask_at = 0;
	pid_t		pid;

	while ((pid = pause_worker(dboid)) != 0 && mq_monotonic_us() < deadline)
	{
		/* the second time ends it at once, in the middle of its last checkpoints */
		if (mq_monotonic_us() >= ask_at)
		{
			(void) kill(pid, SIGTERM);
			ask_at = mq_monotonic_us() + ASK_AGAIN;
		}
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
