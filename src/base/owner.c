/*
 * owner.c: SQL with the rights of the extension's owner, and who has which privilege on what that role has made. See owner.h.
 *
 * Keeps nothing. Takes the locks of the SQL it is given, and those of mq_lock_rights.
 */
#include "postgres.h"

#include "base/owner.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Until mq_sql_end, or the end of the transaction. */
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

/* Its rows are in SPI_tuptable until the next call or mq_sql_end. Raises what the statement raises. */
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

/* ---- who has what ---- */

Acl *
mq_acl_if_there(Oid relid, Oid *owner)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Datum		acl;
	bool		isnull;
	Acl		   *result;

	*owner = InvalidOid;
	if (!HeapTupleIsValid(tuple))
		return NULL;
	*owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	acl = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &isnull);
	result = isnull ? NULL : DatumGetAclPCopy(acl);
	ReleaseSysCache(tuple);
	return result;
}

/* owner: from mq_acl_if_there. 42704 if the relation is gone. */
static void
check_there(Oid owner)
{
	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the queue or consumer group was dropped"),
				 errhint("The views mq.queues and mq.groups list what there is.")));
}

/* Only a grant by the table's owner counts: others who have the right with grant option may pass it on. */
Oid
mq_queue_owner_if_there(const MqQueue *queue)
{
	Oid			owner;
	Acl		   *acl = mq_acl_if_there(queue->rights, &owner);

	for (int i = 0; acl != NULL && i < ACL_NUM(acl); i++)
	{
		const AclItem *item = &ACL_DAT(acl)[i];

		if (item->ai_grantor == owner && item->ai_grantee != owner &&
			(ACLITEM_GET_GOPTIONS(*item) & MQ_RIGHT_MANAGE) != 0)
			return item->ai_grantee;
	}
	return owner;
}

Oid
mq_queue_owner(const MqQueue *queue)
{
	Oid			owner = mq_queue_owner_if_there(queue);

	check_there(owner);
	return owner;
}

bool
mq_queue_is_owned_by(const MqQueue *queue, Oid role)
{
	return mq_queue_owner_if_there(queue) == role;
}

/* Appends the roles from whom the grantee has one of these rights, each once. */
static List *
add_grantors(List *grantors, const Acl *acl, Oid grantee, AclMode mode)
{
	for (int i = 0; i < ACL_NUM(acl); i++)
	{
		const AclItem *item = &ACL_DAT(acl)[i];

		if (item->ai_grantee == grantee && (ACLITEM_GET_RIGHTS(*item) & mode) != 0)
			grantors = list_append_unique_oid(grantors, item->ai_grantor);
	}
	return grantors;
}

List *
mq_grantors(Oid relid, Oid grantee, AclMode mode)
{
	Oid			owner;
	Acl		   *acl = mq_acl_if_there(relid, &owner);
	List	   *grantors = acl == NULL ? NIL : add_grantors(NIL, acl, grantee, mode);

	check_there(owner);
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
