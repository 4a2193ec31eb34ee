/*
 * owner.c: SQL with the rights of the extension's owner, and privileges on what that role has made. See owner.h.
 *
 * Keeps nothing. Takes the locks of the SQL it is given, ROW EXCLUSIVE on pg_class where it changes an ACL itself, and those of
 * mq_lock_rights.
 */
#include "postgres.h"

#include "base/owner.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

static void
set_for_now(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
mq_sql_begin_as(MqSqlContext *context, Oid role)
{
	GetUserIdAndSecContext(&context->user, &context->security);
	SetUserIdAndSecContext(role, context->security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	context->nest = NewGUCNestLevel();
	set_for_now("search_path", "pg_catalog, pg_temp");
	set_for_now("client_min_messages", "warning");
	/* the caller's choice would be made with the owner's rights */
	set_for_now("default_tablespace", "");
	set_for_now("default_table_access_method", "heap");
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
mq_sql_begin(MqSqlContext *context)
{
	mq_check_extension_owner();
	mq_sql_begin_as(context, mq_extension(false)->owner);
}

/* On error the transaction's own clean-up restores user, settings and SPI. */
void
mq_sql_end(MqSqlContext *context)
{
	SPI_finish();
	AtEOXact_GUC(false, context->nest);
	SetUserIdAndSecContext(context->user, context->security);
}

uint64
mq_sql(const char *format,...)
{
	StringInfoData sql;
	int			result;

	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}
	result = SPI_execute(sql.data, false, 0);
	if (result < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	pfree(sql.data);
	return SPI_processed;
}

int32
mq_sql_int32(void)
{
	bool		isnull;

	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

List *
mq_sql_int32_list(void)
{
	List	   *values = NIL;
	bool		isnull;

	for (uint64 i = 0; i < SPI_processed; i++)
		values = lappend_int(values, DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
	return values;
}

/* ---- privileges ---- */

/* Which catalog has objects of a kind, and where in its rows owner and ACL are. */
typedef struct AclPlace
{
	Oid			catalog;
	int			cache;
	AttrNumber	owner;
	AttrNumber	acl;
	int			columns;
} AclPlace;

static const AclPlace of_relation = {RelationRelationId, RELOID, Anum_pg_class_relowner, Anum_pg_class_relacl, Natts_pg_class};
static const AclPlace of_function = {ProcedureRelationId, PROCOID, Anum_pg_proc_proowner, Anum_pg_proc_proacl, Natts_pg_proc};
static const AclPlace of_schema = {NamespaceRelationId, NAMESPACEOID, Anum_pg_namespace_nspowner, Anum_pg_namespace_nspacl, Natts_pg_namespace};

/* Sets the ACL of an object to none, which stands for what PostgreSQL gives by itself. */
static void
reset_acl(const AclPlace *place, Oid object)
{
	Relation	rel = table_open(place->catalog, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(place->cache, ObjectIdGetDatum(object));
	Datum	   *values = palloc0(place->columns * sizeof(Datum));
	bool	   *nulls = palloc0(place->columns * sizeof(bool));
	bool	   *replace = palloc0(place->columns * sizeof(bool));
	bool		isnull = true;
	Datum		acl = (Datum) 0;

	if (HeapTupleIsValid(tuple))
		acl = SysCacheGetAttr(place->cache, tuple, place->acl, &isnull);
	if (!isnull)
	{
		Oid			owner = DatumGetObjectId(SysCacheGetAttr(place->cache, tuple, place->owner, &isnull));
		Oid		   *members;
		int			nmembers = aclmembers(DatumGetAclPCopy(acl), &members);

		nulls[place->acl - 1] = replace[place->acl - 1] = true;
		tuple = heap_modify_tuple(tuple, RelationGetDescr(rel), values, nulls, replace);
		CatalogTupleUpdate(rel, &tuple->t_self, tuple);
		updateAclDependencies(place->catalog, object, 0, owner, nmembers, members, 0, NULL);
		CommandCounterIncrement();
	}
	table_close(rel, RowExclusiveLock);
}

void
mq_reset_privileges(Oid relid)
{
	reset_acl(&of_relation, relid);
}

/* Of all relations or functions of a schema. */
static void
reset_all(const AclPlace *place, AttrNumber schema_column, Oid schema)
{
	Relation	rel = table_open(place->catalog, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *objects = NIL;
	ListCell   *cell;

	ScanKeyInit(&key, schema_column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(schema));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		/* in each of the catalogs the first column */
		objects = lappend_oid(objects, DatumGetObjectId(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	foreach(cell, objects)
		reset_acl(place, lfirst_oid(cell));
}

PGDLLEXPORT Datum mq_reset_all_privileges(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(mq_reset_all_privileges);

Datum
mq_reset_all_privileges(PG_FUNCTION_ARGS)
{
	const char *const schemas[] = {"mq", "mq_internal"};

	/* later it would take back what people were given */
	if (!creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("mq_internal.reset_privileges() is for the script of the extension")));
	for (int i = 0; i < lengthof(schemas); i++)
	{
		Oid			schema = get_namespace_oid(schemas[i], false);

		reset_acl(&of_schema, schema);
		reset_all(&of_relation, Anum_pg_class_relnamespace, schema);
		reset_all(&of_function, Anum_pg_proc_pronamespace, schema);
	}
	PG_RETURN_VOID();
}

/* The relation's ACL (copied, NULL: none) and owner; 42704 if it is gone. */
static Acl *
acl_of(Oid relid, Oid *owner)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Datum		acl;
	bool		isnull;
	Acl		   *result;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the queue or consumer group was dropped"),
				 errhint("The views mq.queues and mq.groups list what there is.")));
	*owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	acl = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &isnull);
	result = isnull ? NULL : DatumGetAclPCopy(acl);
	ReleaseSysCache(tuple);
	return result;
}

Oid
mq_queue_owner(const MqQueue *queue)
{
	Oid			owner;
	Acl		   *acl = acl_of(queue->table, &owner);

	for (int i = 0; acl != NULL && i < ACL_NUM(acl); i++)
	{
		const AclItem *item = &ACL_DAT(acl)[i];

		if (item->ai_grantor == owner && item->ai_grantee != owner &&
			(ACLITEM_GET_GOPTIONS(*item) & MQ_RIGHT_MANAGE) != 0)
			return item->ai_grantee;
	}
	return owner;
}

static List *
add_grantors(List *grantors, const Acl *acl, Oid grantee, AclMode mode)
{
	for (int i = 0; i < ACL_NUM(acl); i++)
	{
		const AclItem *item = &ACL_DAT(acl)[i];

		if (item->ai_grantee == grantee && (ACLITEM_GET_RIGHTS(*item) & (mode | ACL_OPTION_TO_PRIVS(mode))) != 0)
			grantors = list_append_unique_oid(grantors, item->ai_grantor);
	}
	return grantors;
}

List *
mq_grantors(Oid relid, Oid grantee, AclMode mode)
{
	Oid			owner;
	Acl		   *acl = acl_of(relid, &owner);
	List	   *grantors = acl == NULL ? NIL : add_grantors(NIL, acl, grantee, mode);

	for (AttrNumber column = 1;; column++)
	{
		HeapTuple	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(column));
		bool		isnull;
		Datum		value;

		if (!HeapTupleIsValid(tuple))
			break;
		value = SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attacl, &isnull);
		if (!isnull)
			grantors = add_grantors(grantors, DatumGetAclPCopy(value), grantee, mode);
		ReleaseSysCache(tuple);
	}
	return grantors;
}

/*
 * GRANT locks nothing: somebody who drops the queue, or gives rights on it too, would come between. The second lock is on what
 * nobody else locks: one on the table that excludes itself would keep the worker from making partitions.
 */
void
mq_lock_rights(const MqQueue *queue, Oid relid)
{
	LockRelationOid(relid, AccessShareLock);
	LockDatabaseObject(RelationRelationId, relid, 0, ShareUpdateExclusiveLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		mq_queue_dropped(queue);
}
