/*
 * mq.c: loading of the library: settings, hooks, launcher.
 *
 * Never raises an error: pg_upgrade loads every library in a server that was not configured for it.
 */
#include "postgres.h"

#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/utility.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "log/segment.h"
#include "window/statement.h"
#include "window/transaction.h"
#include "worker/worker.h"

MQ_MODULE_MAGIC;

static shmem_request_hook_type previous_shmem_request = NULL;
static shmem_startup_hook_type previous_shmem_startup = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

PGDLLEXPORT void _PG_init(void);

static void
shmem_request(void)
{
	if (previous_shmem_request)
		previous_shmem_request();
	mq_shmem_request();
}

static void
shmem_startup(void)
{
	if (previous_shmem_startup)
		previous_shmem_startup();
	mq_shmem_startup();
}

/* The source of CREATE DATABASE. */
static const char *
template_name(const CreatedbStmt *stmt)
{
	ListCell   *cell;

	foreach(cell, stmt->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return "template1";
}

/* The database that a command needs without anybody connected to it; NULL: none. */
static const char *
needed_alone(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) stmt)->dbname;
		case T_CreatedbStmt:
			return template_name((CreatedbStmt *) stmt);
		case T_RenameStmt:
			return ((RenameStmt *) stmt)->renameType == OBJECT_DATABASE ? ((RenameStmt *) stmt)->subname : NULL;
		case T_AlterDatabaseStmt:
			return ((AlterDatabaseStmt *) stmt)->dbname;
		default:
			return NULL;
	}
}

static bool
may_stop_worker(Oid dboid)
{
	return superuser() || MqDatabaseOwnerCheck(dboid, GetUserId());
}

static void
utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *completion)
{
	const char *name = needed_alone(pstmt->utilityStmt);

	if (name != NULL && mq_shared != NULL)
	{
		Oid			dboid = get_database_oid(name, true);

		/* only who may do it can stop the worker; the command itself checks the rest */
		if (OidIsValid(dboid) && may_stop_worker(dboid))
			mq_worker_stop(dboid);
	}
	if (previous_utility)
		previous_utility(pstmt, query, read_only_tree, context, params, env, dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, completion);
}

void
_PG_init(void)
{
	mq_settings_define();
	if (IsBinaryUpgrade || !process_shared_preload_libraries_in_progress)
		return;
	previous_shmem_request = shmem_request_hook;
	shmem_request_hook = shmem_request;
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
	mq_catalog_init();
	mq_segment_init();
	mq_transaction_init();
	mq_statement_init();
	mq_launcher_register();
}
