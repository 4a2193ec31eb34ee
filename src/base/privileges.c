/*
 * privileges.c: ACLs as they stand in the catalog: taken back for what mq makes, passed on when a script makes a function anew.
 *
 * Keeps nothing. Takes ROW EXCLUSIVE on the catalog whose ACL it sets. See owner.h for who has which right.
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
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

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
static const AclPlace of_type = {TypeRelationId, TYPEOID, Anum_pg_type_typowner, Anum_pg_type_typacl, Natts_pg_type};
static const AclPlace of_schema = {NamespaceRelationId, NAMESPACEOID, Anum_pg_namespace_nspowner, Anum_pg_namespace_nspacl, Natts_pg_namespace};

/* Sets the ACL of an object; NULL: none, which stands for what PostgreSQL gives by itself. */
static void
set_acl(const AclPlace *place, Oid object, Acl *acl)
{
	Relation	rel = table_open(place->catalog, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(place->cache, ObjectIdGetDatum(object));
	Datum	   *values = palloc0(place->columns * sizeof(Datum));
	bool	   *nulls = palloc0(place->columns * sizeof(bool));
	bool	   *replace = palloc0(place->columns * sizeof(bool));
	bool		isnull = true;
	Datum		old = (Datum) 0;

	if (HeapTupleIsValid(tuple))
		old = SysCacheGetAttr(place->cache, tuple, place->acl, &isnull);
	if (HeapTupleIsValid(tuple) && !(isnull && acl == NULL) &&
		(isnull || acl == NULL || !aclequal(DatumGetAclP(old), acl)))
	{
		bool		none;
		Oid			owner = DatumGetObjectId(SysCacheGetAttr(place->cache, tuple, place->owner, &none));
		Oid		   *old_members = NULL;
		Oid		   *members = NULL;
		int			nold = isnull ? 0 : aclmembers(DatumGetAclPCopy(old), &old_members);
		int			nmembers = acl == NULL ? 0 : aclmembers(acl, &members);

		values[place->acl - 1] = PointerGetDatum(acl);
		nulls[place->acl - 1] = acl == NULL;
		replace[place->acl - 1] = true;
		tuple = heap_modify_tuple(tuple, RelationGetDescr(rel), values, nulls, replace);
		CatalogTupleUpdate(rel, &tuple->t_self, tuple);
		updateAclDependencies(place->catalog, object, 0, owner, nold, old_members, nmembers, members);
		CommandCounterIncrement();
	}
	table_close(rel, RowExclusiveLock);
}

/* ---- columns ---- */

/* The ACL of a column, copied; NULL: it has none. False: there is no such column. */
static bool
column_acl(Oid relid, AttrNumber column, Acl **acl)
{
	HeapTuple	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(column));
	bool		isnull = true;
	Datum		value = (Datum) 0;

	*acl = NULL;
	if (!HeapTupleIsValid(tuple))
		return false;
	value = SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attacl, &isnull);
	if (!isnull)
		*acl = DatumGetAclPCopy(value);
	ReleaseSysCache(tuple);
	return true;
}

/*
 * acl NULL: none. Written in any case: a GRANT takes no lock, so that one in a transaction that is
 * still open would come after it; so it is waited for, and one of the two fails ("tuple concurrently updated").
 */
static void
set_column_acl(Oid relid, Oid owner, AttrNumber column, Acl *acl)
{
	Relation	rel = table_open(AttributeRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(column));
	Datum		values[Natts_pg_attribute] = {0};
	bool		nulls[Natts_pg_attribute] = {false};
	bool		replace[Natts_pg_attribute] = {false};
	Oid		   *old_members = NULL;
	Oid		   *members = NULL;
	int			nmembers = acl == NULL ? 0 : aclmembers(acl, &members);
	int			nold;
	Datum		old;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for column %d of relation %u", column, relid);
	/* of this very row: the dependencies are those of what it replaces */
	old = SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attacl, &isnull);
	nold = isnull ? 0 : aclmembers(DatumGetAclP(old), &old_members);
	values[Anum_pg_attribute_attacl - 1] = PointerGetDatum(acl);
	nulls[Anum_pg_attribute_attacl - 1] = acl == NULL;
	replace[Anum_pg_attribute_attacl - 1] = true;
	tuple = heap_modify_tuple(tuple, RelationGetDescr(rel), values, nulls, replace);
	CatalogTupleUpdate(rel, &tuple->t_self, tuple);
	updateAclDependencies(RelationRelationId, relid, column, owner, nold, old_members, nmembers, members);
	table_close(rel, RowExclusiveLock);
	CommandCounterIncrement();
}

/* The roles, and those to whom the ACL gives the right with grant option by one of them. */
static List *
add_holders(List *roles, const Acl *acl, AclMode right)
{
	int			before;

	do
	{
		before = list_length(roles);
		for (int i = 0; acl != NULL && i < ACL_NUM(acl); i++)
			if ((ACLITEM_GET_GOPTIONS(ACL_DAT(acl)[i]) & right) != 0 && list_member_oid(roles, ACL_DAT(acl)[i].ai_grantor))
				roles = list_append_unique_oid(roles, ACL_DAT(acl)[i].ai_grantee);
	} while (list_length(roles) > before);
	return roles;
}

/* Takes out of a column's ACL what was given by a role that may not pass it on: seen from the owner, whatever circles there are. */
static void
drop_unbacked(Acl *acl, const Acl *of_table, Oid owner, AclMode right)
{
	List	   *holders = add_holders(add_holders(list_make1_oid(owner), of_table, right), acl, right);

	for (int i = 0; i < ACL_NUM(acl); i++)
		if (!list_member_oid(holders, ACL_DAT(acl)[i].ai_grantor))
			ACL_DAT(acl)[i].ai_privs &= ~(right | ACL_GRANT_OPTION_FOR(right));
	list_free(holders);
}

/* A column's ACL without what the role has, and what nobody may have passed on then. NULL: nothing is left. */
static Acl *
without(const Acl *acl, const Acl *of_table, Oid owner, Oid role, AclMode rights)
{
	Acl		   *left = aclcopy(acl);
	int			n = 0;

	for (int i = 0; i < ACL_NUM(left); i++)
		if (ACL_DAT(left)[i].ai_grantee == role)
			ACL_DAT(left)[i].ai_privs &= ~(rights | ACL_GRANT_OPTION_FOR(rights));
	for (AclMode right = 1; right <= ACL_ALL_RIGHTS_COLUMN; right <<= 1)
		if ((rights & right) != 0)
			drop_unbacked(left, of_table, owner, right);
	for (int i = 0; i < ACL_NUM(left); i++)
		if (ACL_DAT(left)[i].ai_privs != ACL_NO_RIGHTS)
			ACL_DAT(left)[n++] = ACL_DAT(left)[i];
	ARR_DIMS(left)[0] = n;
	SET_VARSIZE(left, ACL_N_SIZE(n));
	return n == 0 ? NULL : left;
}

void
mq_forget_column_privileges(Oid relid, Oid role, AclMode rights)
{
	Oid			owner;
	Acl		   *of_table = mq_acl_if_there(relid, &owner);
	Acl		   *acl;

	/* dropped columns have rows too: the first number without one is the end */
	for (AttrNumber column = 1; column_acl(relid, column, &acl); column++)
		set_column_acl(relid, owner, column, acl == NULL ? NULL : without(acl, of_table, owner, role, rights));
}

void
mq_reset_column_privileges(Oid relid)
{
	Oid			owner;
	Acl		   *acl;

	(void) mq_acl_if_there(relid, &owner);
	for (AttrNumber column = 1; column_acl(relid, column, &acl); column++)
		set_column_acl(relid, owner, column, NULL);
}

/* ---- objects ---- */

void
mq_reset_privileges(Oid relid)
{
	set_acl(&of_relation, relid, NULL);
}

void
mq_close_row_type(Oid relid)
{
	Oid			owner = mq_extension(false)->owner;
	AclItem		item = {.ai_grantee = owner,.ai_grantor = owner,.ai_privs = ACL_USAGE};

	set_acl(&of_type, get_rel_type_id(relid), aclupdate(make_empty_acl(), &item, ACL_MODECHG_ADD, owner, DROP_RESTRICT));
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
		set_acl(place, lfirst_oid(cell), NULL);
}

/* At another time it would take back what people were given, or give it away. */
static void
check_in_script(const char *function)
{
	if (!creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s is for the scripts of the extension", function)));
}

PGDLLEXPORT Datum mq_reset_all_privileges(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(mq_reset_all_privileges);

/* For the script of the extension, before its own grants: what ALTER DEFAULT PRIVILEGES gave goes, with whatever else was given. */
Datum
mq_reset_all_privileges(PG_FUNCTION_ARGS)
{
	const char *const schemas[] = {"mq", "mq_internal"};

	check_in_script("mq_internal.reset_privileges()");
	for (int i = 0; i < lengthof(schemas); i++)
	{
		Oid			schema = get_namespace_oid(schemas[i], false);

		set_acl(&of_schema, schema, NULL);
		reset_all(&of_relation, Anum_pg_class_relnamespace, schema);
		reset_all(&of_function, Anum_pg_proc_pronamespace, schema);
	}
	PG_RETURN_VOID();
}

PGDLLEXPORT Datum mq_pass_on_privileges(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(mq_pass_on_privileges);

/* For upgrade scripts: the second function gets the ACL of the first, whose place it takes. */
Datum
mq_pass_on_privileges(PG_FUNCTION_ARGS)
{
	HeapTuple	tuple;
	Datum		acl;
	bool		isnull;

	check_in_script("mq_internal.pass_on_privileges()");
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(PG_GETARG_OID(0)));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "there is no function %u", PG_GETARG_OID(0));
	acl = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proacl, &isnull);
	set_acl(&of_function, PG_GETARG_OID(1), isnull ? NULL : DatumGetAclPCopy(acl));
	ReleaseSysCache(tuple);
	PG_RETURN_VOID();
}
