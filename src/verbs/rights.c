/*
 * rights.c: mq.grant and mq.revoke: which privilege on which relation a right is.
 *
 * What is given is an ordinary ACL, of the queue's table or of the group's sequence. It is given by the owner of the extension,
 * once the caller has shown that it may: so every right has one grantor, and none goes because a colleague's role goes.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/catalog.h"
#include "base/definitions.h"
#include "base/dependents.h"
#include "base/owner.h"
#include "verbs/rights.h"
#include "verbs/verbs.h"

/* The names that callers give, and what each right is in PostgreSQL. */
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

/* The place in `rights`; 22023 if there is no such right. */
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

/* The owner may, and whoever has the right with grant option (42501). The caller has locked the rights. */
static void
check_may_grant(const MqQueue *queue, Oid relid, AclMode mode)
{
	bool		missing = false;

	if (mq_is_owner(queue) ||
		pg_class_aclcheck_ext(relid, GetUserId(), ACL_GRANT_OPTION_FOR(mode), &missing) == ACLCHECK_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to give or take rights on queue \"%s\"", NameStr(queue->name)),
			 errhint("The owner of the queue can, and who was given the right WITH GRANT OPTION.")));
}

/* "INSERT ON TABLE mq.q_x", for GRANT and REVOKE. */
static char *
what(int right, Oid relid)
{
	return psprintf("%s ON %s %s", rights[right].privilege, rights[right].mode == MQ_RIGHT_CONSUME ? "SEQUENCE" : "TABLE",
					quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid)));
}

static const char *
role_sql(Oid role)
{
	return role == ACL_ID_PUBLIC ? "PUBLIC" : quote_identifier(GetUserNameFromId(role, false));
}

/* As the owner of the relation, so that rights do not go with the one who happened to give them. */
static void
give(int right, Oid relid, Oid role)
{
	MqSqlContext context;

	mq_sql_begin(&context);
	mq_sql("GRANT %s TO %s", what(right, relid), role_sql(role));
	mq_sql_end(&context);
}

/* REVOKE leaves what the role has in another way, and says nothing: then 55000, or it would seem to have worked. */
static void
check_is_gone(const MqQueue *queue, int right, Oid relid, Oid role)
{
	AclMode		mode = rights[right].mode;

	if (role == ACL_ID_PUBLIC)
		return;
	if (pg_class_aclcheck(relid, role, mode) == ACLCHECK_OK ||
		(mode != MQ_RIGHT_CONSUME && pg_attribute_aclcheck_all(relid, role, mode, ACLMASK_ANY) == ACLCHECK_OK))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" would still have the right \"%s\" on queue \"%s\"", GetUserNameFromId(role, false),
						rights[right].name, NameStr(queue->name)),
				 errdetail("It has it from PUBLIC, as a member of another role, or as a superuser."),
				 errhint("Revoke it from there.")));
}

/* An owner without manage would be none: nobody takes that away. Other rights of an owner only an owner takes. */
static void
check_may_take(const MqQueue *queue, int right, Oid role)
{
	if (role != mq_queue_owner(queue))
		return;
	if (rights[right].mode == MQ_RIGHT_MANAGE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" is the owner of queue \"%s\"", GetUserNameFromId(role, false), NameStr(queue->name)),
				 errhint("Use mq.alter_queue with owner to hand the queue on.")));
	if (!mq_is_owner(queue))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to take rights from the owner of queue \"%s\"", NameStr(queue->name)),
				 errhint("Only the owner can.")));
}

/* What was given on columns, and is not backed by a right on the table any more. For who has just given some it waits, not for long. */
static void
take_columns(int right, Oid relid, Oid role)
{
	MqSqlContext context;

	mq_sql_begin(&context);
	mq_limit_waits();
	mq_forget_column_privileges(relid, role, rights[right].mode);
	mq_sql_end(&context);
}

/*
 * Whoever gave it, also by a GRANT of their own; what the role itself gave on goes too. One grantor at a time: with what the
 * role gave on, what another grantor had given back may have gone already.
 */
static void
take(const MqQueue *queue, int right, Oid relid, Oid role)
{
	List	   *grantors;
	int			before = PG_INT32_MAX;

	check_may_take(queue, right, role);
	/* one that nothing takes is left to check_is_gone */
	while ((grantors = mq_grantors(relid, role, rights[right].mode)) != NIL && list_length(grantors) < before)
	{
		MqSqlContext context;

		before = list_length(grantors);
		CHECK_FOR_INTERRUPTS();
		mq_sql_begin_as(&context, linitial_oid(grantors));
		mq_sql("REVOKE %s FROM %s CASCADE", what(right, relid), role_sql(role));
		mq_sql_end(&context);
		CommandCounterIncrement();
	}
	if (rights[right].mode != MQ_RIGHT_CONSUME)
		take_columns(right, relid, role);
	check_is_gone(queue, right, relid, role);
}

/* Locks the rights on the relation to the end of the transaction, and asks only then whether the caller may change them. */
static void
change_one(bool grant, const MqQueue *queue, int right, Oid relid, Oid role)
{
	mq_lock_rights(queue, relid);
	check_may_grant(queue, relid, rights[right].mode);
	if (grant)
		give(right, relid, role);
	else
		take(queue, right, relid, role);
}

/* group_name NULL: all groups that there are now; later ones are not affected. */
static void
change_groups(bool grant, const MqQueue *queue, int right, const char *group_name, Oid role)
{
	MqGroup		one;
	MqGroup    *groups = &one;
	int			count = 1;

	/* who may do nothing is told the same whether there is such a group or not */
	if (group_name != NULL && !mq_group_find(queue, group_name, &one))
		check_may_grant(queue, queue->table, MQ_RIGHT_MANAGE);
	if (group_name != NULL)
		mq_group_by_name(NameStr(queue->name), group_name, &one);
	else
		groups = mq_groups_of(queue, &count);
	/* who may do nothing hears so, whether there are groups or not */
	if (count == 0)
		check_may_grant(queue, queue->table, MQ_RIGHT_MANAGE);
	for (int i = 0; i < count; i++)
		change_one(grant, queue, right, groups[i].rights, role);
}

/* What mq.grant and mq.revoke have in common. */
static Datum
change(FunctionCallInfo fcinfo, bool grant)
{
	MqQueue		queue;
	char	   *name;
	Oid			role;
	char	   *group = PG_ARGISNULL(3) ? NULL : mq_text_arg(fcinfo, 3, "consumer_group");
	int			right;
	bool		of_group;

	mq_check_writable(grant ? "mq.grant()" : "mq.revoke()");
	mq_catalog_catch_up();
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), &queue);
	if (queue.dead_letter_of != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" has no rights of its own", NameStr(queue.name)),
				 errhint("It has the dead letters of another queue: give the right to manage that one.")));
	right = right_by_name(mq_text_arg(fcinfo, 1, "privilege"));
	name = mq_text_arg(fcinfo, 2, "role");
	role = strcmp(name, "public") == 0 ? ACL_ID_PUBLIC : get_role_oid(name, false);
	of_group = rights[right].mode == MQ_RIGHT_CONSUME;
	if (!of_group && group != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("right \"%s\" is for a whole queue", rights[right].name),
				 errhint("Leave consumer_group out.")));
	if (of_group)
		change_groups(grant, &queue, right, group, role);
	else
		change_one(grant, &queue, right, queue.table, role);
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

/* ---- rights as statements ---- */

/* Whether somebody gave the role the right on the whole relation. */
static bool
acl_gives(const Acl *acl, Oid role, AclMode mode)
{
	for (int i = 0; i < ACL_NUM(acl); i++)
		if (ACL_DAT(acl)[i].ai_grantee == role && (ACLITEM_GET_RIGHTS(ACL_DAT(acl)[i]) & mode) != 0)
			return true;
	return false;
}

typedef struct Grantee
{
	Oid			role;
	char	   *name;
} Grantee;

static int
compare_grantees(const ListCell *a, const ListCell *b)
{
	return strcmp(((const Grantee *) lfirst(a))->name, ((const Grantee *) lfirst(b))->name);
}

/* A role that is gone by now is left out; so is the owner of the extension, who needs no right. */
static List *
add_grantee(List *grantees, Oid role)
{
	Grantee    *grantee = palloc(sizeof(Grantee));
	ListCell   *cell;

	*grantee = (Grantee) {role, role == ACL_ID_PUBLIC ? "public" : GetUserNameFromId(role, true)};
	if (grantee->name == NULL || role == mq_extension(false)->owner)
		return grantees;
	foreach(cell, grantees)
		if (((const Grantee *) lfirst(cell))->role == role)
			return grantees;
	return lappend(grantees, grantee);
}

/* Of one relation, each once, by name: an ACL is in the order in which it was made. */
static List *
grantees_of(const Acl *acl, Oid owner)
{
	List	   *grantees = add_grantee(NIL, owner);

	for (int i = 0; i < ACL_NUM(acl); i++)
		grantees = add_grantee(grantees, ACL_DAT(acl)[i].ai_grantee);
	list_sort(grantees, compare_grantees);
	return grantees;
}

static void
add_statement(StringInfo out, const char *verb, const MqQueue *queue, const MqGroup *group, int right, const char *role)
{
	appendStringInfo(out, "SELECT mq.%s(%s, '%s', %s", verb, quote_literal_cstr(NameStr(queue->name)), rights[right].name,
					 quote_literal_cstr(role));
	if (group != NULL)
		appendStringInfo(out, ", %s", quote_literal_cstr(NameStr(group->name)));
	appendStringInfoString(out, ");\n");
}

/* All rights come with a queue for its owner, who may have given some of them up. */
void
mq_rights_statements(StringInfo out, const MqQueue *queue, const MqGroup *group)
{
	Oid			ignored;
	Oid			owner = mq_queue_owner(queue);
	Acl		   *acl = mq_acl_if_there(group == NULL ? queue->table : group->rights, &ignored);
	List	   *grantees = acl == NULL ? NIL : grantees_of(acl, owner);
	ListCell   *cell;

	for (int right = 0; right < lengthof(rights); right++)
	{
		if ((rights[right].mode == MQ_RIGHT_CONSUME) != (group != NULL))
			continue;
		foreach(cell, grantees)
		{
			const Grantee *grantee = lfirst(cell);
			bool		given = acl_gives(acl, grantee->role, rights[right].mode);

			if (given != (grantee->role == owner))
				add_statement(out, given ? "grant" : "revoke", queue, group, right, grantee->name);
		}
	}
}
