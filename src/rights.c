/*
 * rights.c: mq.grant and mq.revoke: which privilege on which relation a right is.
 *
 * They run GRANT and REVOKE as the caller, so PostgreSQL decides who may, and what is given is an ordinary ACL.
 */
#include "postgres.h"

#include "catalog.h"
#include "executor/spi.h"
#include "segment.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "verbs.h"

static const struct
{
	const char *name;
	const char *privilege;		/* on the queue's table; NULL: it is the group's sequence */
}			rights[] = {
	{"send", "INSERT"},
	{"browse", "SELECT"},
	{"manage", "TRUNCATE"},
	{"consume", NULL},
};

static const char *
table_privilege(const char *name)
{
	for (int i = 0; i < lengthof(rights); i++)
		if (strcmp(rights[i].name, name) == 0)
			return rights[i].privilege;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no right \"%s\"", name),
			 errhint("The rights are 'send', 'browse', 'consume' and 'manage'.")));
	return NULL;
}

static void
run(bool grant, const char *privilege, const char *kind, Oid relid, const char *role)
{
	mq_sql("%s %s ON %s mq.%s %s %s", grant ? "GRANT" : "REVOKE", privilege, kind,
		   quote_identifier(get_rel_name(relid)), grant ? "TO" : "FROM",
		   strcmp(role, "public") == 0 ? "PUBLIC" : quote_identifier(role));
}

static void
change_consume(bool grant, const MqQueue *queue, const char *group_name, const char *role)
{
	MqGroup		one;
	MqGroup    *groups = &one;
	int			count = 1;

	if (group_name != NULL)
		mq_group_by_name(NameStr(queue->name), group_name, &one);
	else
		groups = mq_groups_of(queue, &count);
	for (int i = 0; i < count; i++)
		if (OidIsValid(groups[i].rights))
			run(grant, "USAGE", "SEQUENCE", groups[i].rights, role);
}

static Datum
change(FunctionCallInfo fcinfo, bool grant)
{
	MqQueue		queue;
	char	   *right;
	char	   *role;
	char	   *group = PG_ARGISNULL(3) ? NULL : mq_text_arg(fcinfo, 3, "consumer_group");
	const char *privilege;

	mq_check_writable(grant ? "mq.grant()" : "mq.revoke()");
	mq_catalog_catch_up();
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), &queue);
	right = mq_text_arg(fcinfo, 1, "privilege");
	role = mq_text_arg(fcinfo, 2, "role");
	privilege = table_privilege(right);
	if (privilege != NULL && group != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("right \"%s\" is for a whole queue", right),
				 errhint("Leave consumer_group out.")));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (privilege != NULL)
		run(grant, privilege, "TABLE", queue.table, role);
	else
		change_consume(grant, &queue, group, role);
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
