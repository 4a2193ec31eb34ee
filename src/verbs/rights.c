/*
 * rights.c: mq.grant and mq.revoke: which privilege on which relation a right is.
 *
 * They run GRANT and REVOKE as the caller, so PostgreSQL decides who may, and what is given is an ordinary ACL.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/catalog.h"
#include "log/segment.h"
#include "verbs/verbs.h"

static const struct
{
	const char *name;
	const char *privilege;
	AclMode		mode;			/* on the queue's table; consume: on the group's sequence */
}			rights[] = {
	{"send", "INSERT", MQ_RIGHT_SEND},
	{"browse", "SELECT", MQ_RIGHT_BROWSE},
	{"manage", "TRUNCATE", MQ_RIGHT_MANAGE},
	{"consume", "USAGE", MQ_RIGHT_CONSUME},
};

static int
right_by_name(const char *name)
{
	for (int i = 0; i < lengthof(rights); i++)
		if (strcmp(rights[i].name, name) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no right \"%s\"", name),
			 errhint("The rights are 'send', 'browse', 'consume' and 'manage'.")));
	return -1;
}

/* GRANT by somebody who has no grant option only warns; who calls a function is told. */
static void
check_may_grant(const MqQueue *queue, Oid relid, AclMode mode)
{
	bool		missing = false;

	if (pg_class_aclcheck_ext(relid, GetUserId(), ACL_GRANT_OPTION_FOR(mode), &missing) == ACLCHECK_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to give or take rights on queue \"%s\"", NameStr(queue->name)),
			 errhint("The owner of the queue can, and who was given the right WITH GRANT OPTION.")));
}

/*
 * GRANT locks nothing: somebody who drops the queue, or gives rights on it too, would come between. The second lock is on what
 * nobody else locks: one on the table that excludes itself would keep the worker from making partitions.
 */
static void
lock_acl(const MqQueue *queue, Oid relid)
{
	LockRelationOid(relid, AccessShareLock);
	LockDatabaseObject(RelationRelationId, relid, 0, ShareUpdateExclusiveLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		mq_queue_dropped(queue);
}

static void
change_one(bool grant, const MqQueue *queue, int right, Oid relid, const char *role)
{
	lock_acl(queue, relid);
	check_may_grant(queue, relid, rights[right].mode);
	mq_sql("%s %s ON %s mq.%s %s %s", grant ? "GRANT" : "REVOKE", rights[right].privilege,
		   rights[right].mode == MQ_RIGHT_CONSUME ? "SEQUENCE" : "TABLE", quote_identifier(get_rel_name(relid)),
		   grant ? "TO" : "FROM", strcmp(role, "public") == 0 ? "PUBLIC" : quote_identifier(role));
}

static void
change_groups(bool grant, const MqQueue *queue, int right, const char *group_name, const char *role)
{
	MqGroup		one;
	MqGroup    *groups = &one;
	int			count = 1;

	if (group_name != NULL)
		mq_group_by_name(NameStr(queue->name), group_name, &one);
	else
		groups = mq_groups_of(queue, &count);
	for (int i = 0; i < count; i++)
		change_one(grant, queue, right, groups[i].rights, role);
}

static Datum
change(FunctionCallInfo fcinfo, bool grant)
{
	MqQueue		queue;
	char	   *role;
	char	   *group = PG_ARGISNULL(3) ? NULL : mq_text_arg(fcinfo, 3, "consumer_group");
	int			right;
	bool		of_group;

	mq_check_writable(grant ? "mq.grant()" : "mq.revoke()");
	mq_catalog_catch_up();
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), &queue);
	right = right_by_name(mq_text_arg(fcinfo, 1, "privilege"));
	role = mq_text_arg(fcinfo, 2, "role");
	of_group = rights[right].mode == MQ_RIGHT_CONSUME;
	if (!of_group && group != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("right \"%s\" is for a whole queue", rights[right].name),
				 errhint("Leave consumer_group out.")));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (of_group)
		change_groups(grant, &queue, right, group, role);
	else
		change_one(grant, &queue, right, queue.table, role);
	SPI_finish();
	PG_RETURN_VOID();
}

MQ_FUNCTION(mq_grant);
Datum
mq_grant(PG_FUNCTION_ARGS)
{
	return change(fcinfo, true);
}

MQ_FUNCTION(mq_revoke);
Datum
mq_revoke(PG_FUNCTION_ARGS)
{
	return change(fcinfo, false);
}
