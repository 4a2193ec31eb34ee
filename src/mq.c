/*
 * mq.c: loading of the library: settings, hooks, launcher.
 *
 * Never raises an error: pg_upgrade loads every library in a server that was not configured for it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/syscache.h"

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

static bool
changes_tablespace(const AlterDatabaseStmt *stmt)
{
	ListCell   *cell;

	foreach(cell, stmt->options)
		if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
			return true;
	return false;
}

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		result;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return result;
}

static bool
is_template(Oid dboid)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

static bool
owns(Oid dboid)
{
	return MqDatabaseOwnerCheck(dboid, GetUserId());
}

/*
 * The database that a command needs without anybody connected to it, if PostgreSQL lets the user do that: who may not, stops
 * nobody's worker. The command itself checks the rest.
 */
static Oid
needed_alone(Node *stmt)
{
	const char *name = NULL;
	Oid			dboid;
	bool		creates = false;

	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) stmt)->dbname;
			break;
		case T_CreatedbStmt:
			name = template_name((CreatedbStmt *) stmt);
			creates = true;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) stmt)->subname;
			creates = true;
			break;
		case T_AlterDatabaseStmt:
			if (changes_tablespace((AlterDatabaseStmt *) stmt))
				name = ((AlterDatabaseStmt *) stmt)->dbname;
			break;
		default:
			break;
	}
	if (name == NULL || !OidIsValid(dboid = get_database_oid(name, true)) || (creates && !may_create_databases()))
		return InvalidOid;
	return owns(dboid) || (IsA(stmt, CreatedbStmt) && is_template(dboid)) ? dboid : InvalidOid;
}

static void
utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *completion)
{
	Oid			dboid = mq_shared != NULL ? needed_alone(pstmt->utilityStmt) : InvalidOid;

	if (OidIsValid(dboid))
		mq_worker_stop(dboid);
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
