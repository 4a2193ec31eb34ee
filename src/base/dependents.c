/*
 * dependents.c: what depends on a table or sequence of mq by nothing but its number. See dependents.h.
 *
 * Keeps nothing. Takes ROW EXCLUSIVE on pg_depend and ACCESS SHARE on other catalogs, and on the relation if that is free, for the
 * look; rows are deleted without waiting. All of it is undone with the transaction.
 */
#include "postgres.h"

#include "base/dependents.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_index.h"
#include "catalog/pg_partitioned_table.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_publication_rel.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_statistic_ext.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/owner.h"

/* Longer expressions are not read: 40 MB of text take a second, and parsing as much again. */
#define EXPRESSION_MAX ((Size) 1024 * 1024)

/* Catalogs of what has expressions, in columns of type pg_node_tree; what names a row of it is the first column in each. */
typedef struct Holder
{
	Oid			catalog;
	Oid			index;
} Holder;

static const Holder holders[] = {
	{AttrDefaultRelationId, AttrDefaultOidIndexId},
	{ConstraintRelationId, ConstraintOidIndexId},
	{RewriteRelationId, RewriteOidIndexId},
	{PolicyRelationId, PolicyOidIndexId},
	{TriggerRelationId, TriggerOidIndexId},
	{StatisticExtRelationId, StatisticExtOidIndexId},
	{PublicationRelRelationId, PublicationRelObjectIndexId},
	{ProcedureRelationId, ProcedureOidIndexId},
	{TypeRelationId, TypeOidIndexId},
};

/* An index or partitioned table has expressions in its key; no other relation has one of its own. */
static const Holder of_index = {IndexRelationId, IndexRelidIndexId};
static const Holder of_partitioned_table = {PartitionedRelationId, PartitionedRelidIndexId};

/* What may be referred to, and how it is. */
typedef struct Reference
{
	Oid			catalog;
	Oid			oid;
	bool		secret;			/* nobody can name it */
	bool		is_number;		/* by a constant of type regclass or regtype */
	bool		is_name;		/* by anything else */
	bool		is_unread;		/* an expression is too long to know */
} Reference;

/* How the expressions of a dependent refer to the relation. */
typedef enum Verdict
{
	IS_NUMBER,
	IS_NAME,
	IS_TOO_MUCH,				/* for the budget */
} Verdict;

/* ---- expressions ---- */

/* The type that a node refers to; what PostgreSQL records of it (find_expr_references_walker). */
static Oid
type_of(const Node *node)
{
	switch (nodeTag(node))
	{
		case T_Const:
			return ((const Const *) node)->consttype;
		case T_Param:
			return ((const Param *) node)->paramtype;
		case T_SubscriptingRef:
			return ((const SubscriptingRef *) node)->refrestype;
		case T_FieldSelect:
			return ((const FieldSelect *) node)->resulttype;
		case T_FieldStore:
			return ((const FieldStore *) node)->resulttype;
		case T_RelabelType:
			return ((const RelabelType *) node)->resulttype;
		case T_CoerceViaIO:
			return ((const CoerceViaIO *) node)->resulttype;
		case T_ArrayCoerceExpr:
			return ((const ArrayCoerceExpr *) node)->resulttype;
		case T_ConvertRowtypeExpr:
			return ((const ConvertRowtypeExpr *) node)->resulttype;
		case T_RowExpr:
			return ((const RowExpr *) node)->row_typeid;
		case T_CoerceToDomain:
			return ((const CoerceToDomain *) node)->resulttype;
		case T_CTECycleClause:
			return ((const CTECycleClause *) node)->cycle_mark_type;
		default:
			return InvalidOid;
	}
}

/* Two kinds of nodes have a list of types, the others at most the one that type_of knows. */
static bool
names_type(const Node *node, Oid type)
{
	if (IsA(node, RangeTblFunction))
		return list_member_oid(((const RangeTblFunction *) node)->funccoltypes, type);
	if (IsA(node, TableFunc))
		return list_member_oid(((const TableFunc *) node)->coltypes, type);
	return type_of(node) == type;
}

/* As a table in a query, or as the sequence of an identity column. */
static bool
names_relation(const Node *node, Oid relid)
{
	if (IsA(node, RangeTblEntry))
		return ((const RangeTblEntry *) node)->relid == relid;
	return IsA(node, NextValueExpr) && ((const NextValueExpr *) node)->seqid == relid;
}

/* Whether it is a constant with the oid, of type regclass or regtype: a reference that does no harm (dependents.h). */
static bool
is_number(const Node *node, const Reference *ref)
{
	const Const *c = (const Const *) node;

	return IsA(node, Const) && !c->constisnull && c->consttype == (ref->catalog == TypeRelationId ? REGTYPEOID : REGCLASSOID) &&
		DatumGetObjectId(c->constvalue) == ref->oid;
}

/* A tree walker: true ends the walk, for once the object is named nothing else matters. *ref gathers what was found. */
static bool
look_at(Node *node, Reference *ref)
{
	if (node == NULL)
		return false;
	ref->is_number |= is_number(node, ref);
	ref->is_name |= ref->catalog == TypeRelationId ? names_type(node, ref->oid) : names_relation(node, ref->oid);
	if (ref->is_name)
		return true;
	/* what is in it comes next */
	if (IsA(node, RangeTblEntry))
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, look_at, ref, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, look_at, ref);
}

/* Of all expressions of a row. A dependency that nothing found there explains counts as a name, so it is left alone. */
static Verdict
verdict(const Reference *ref)
{
	if (!ref->is_name && (ref->is_number || (ref->is_unread && ref->secret)))
		return IS_NUMBER;
	return IS_NAME;
}

/* One that is nested deeper than the stack allows is as unknown as one that is too long. Reads memory only, so it may be caught. */
static void
look_at_expression(Datum value, Reference *ref)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		(void) look_at(stringToNode(TextDatumGetCString(value)), ref);
	}
	PG_CATCH();
	{
		const ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_STATEMENT_TOO_COMPLEX)
			PG_RE_THROW();
		FlushErrorState();
		ref->is_unread = true;
	}
	PG_END_TRY();
}

/* In one of the expressions of a row. False: the budget does not suffice. */
static bool
look_at_row(HeapTuple tuple, TupleDesc desc, Reference *ref, MqDependentsBudget *budget)
{
	for (int i = 0; i < desc->natts && !ref->is_name; i++)
	{
		bool		isnull;
		Datum		value;
		Size		bytes;

		if (TupleDescAttr(desc, i)->atttypid != PG_NODE_TREEOID)
			continue;
		value = heap_getattr(tuple, i + 1, desc, &isnull);
		bytes = isnull ? 0 : toast_raw_datum_size(value);
		if (bytes > EXPRESSION_MAX)
			ref->is_unread = true;
		else if (bytes > 0)
		{
			if (budget->bytes < (int64) bytes)
				return false;
			budget->bytes -= (int64) bytes;
			look_at_expression(value, ref);
		}
	}
	return true;
}

/* ---- what has them ---- */

/* As its result, or as an argument of any mode. */
static bool
function_has_type(HeapTuple tuple, Oid type)
{
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			count = get_func_arg_info(tuple, &types, &names, &modes);
	bool		has = ((Form_pg_proc) GETSTRUCT(tuple))->prorettype == type;

	for (int i = 0; i < count; i++)
		has |= types[i] == type;
	return has;
}

/* Beside its expressions: a foreign key has a table, a function and a domain have types. */
static bool
is_named_without_expression(HeapTuple tuple, const Holder *holder, const Reference *ref)
{
	bool		of_type = ref->catalog == TypeRelationId;
	Form_pg_type type;

	switch (holder->catalog)
	{
		case ConstraintRelationId:
			return ((Form_pg_constraint) GETSTRUCT(tuple))->contype != CONSTRAINT_CHECK;
		case ProcedureRelationId:
			return of_type && function_has_type(tuple, ref->oid);
		case TypeRelationId:
			type = (Form_pg_type) GETSTRUCT(tuple);
			return type->typtype != TYPTYPE_DOMAIN || (of_type && type->typbasetype == ref->oid);
		default:
			return false;
	}
}

/* Views, policies and functions have queries. What else has expressions can refer to a relation only by a constant. */
static bool
may_have_queries(const Holder *holder)
{
	return holder->catalog == RewriteRelationId || holder->catalog == PolicyRelationId || holder->catalog == ProcedureRelationId;
}

/* An object that is not there any more names nothing. */
static Verdict
read_holder(const Holder *holder, Oid object, Reference *ref, MqDependentsBudget *budget)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mq expressions", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Relation	rel = table_open(holder->catalog, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Verdict		result = IS_NUMBER;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object));
	scan = systable_beginscan(rel, holder->index, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		ref->is_name = is_named_without_expression(tuple, holder, ref);
		ref->is_number = ref->catalog == RelationRelationId && !may_have_queries(holder);
		if (ref->is_number)
			result = verdict(ref);
		else
			result = look_at_row(tuple, RelationGetDescr(rel), ref, budget) ? verdict(ref) : IS_TOO_MUCH;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return result;
}

/* NULL: it has no expressions that we could read. */
static const Holder *
holder_of(const FormData_pg_depend *d)
{
	if (d->classid == RelationRelationId && d->objsubid == 0)
	{
		char		kind = get_rel_relkind(d->objid);

		if (kind == RELKIND_INDEX || kind == RELKIND_PARTITIONED_INDEX)
			return &of_index;
		return kind == RELKIND_PARTITIONED_TABLE ? &of_partitioned_table : NULL;
	}
	for (int i = 0; i < lengthof(holders); i++)
		if (holders[i].catalog == d->classid)
			return &holders[i];
	return NULL;
}

/* Only an ordinary dependency on the whole object may come from a number; any other is taken for a name without a look. */
static Verdict
judge(const FormData_pg_depend *d, bool secret, MqDependentsBudget *budget)
{
	const Holder *holder = holder_of(d);
	Reference	ref = {d->refclassid, d->refobjid, secret};

	if (d->deptype != DEPENDENCY_NORMAL || d->refobjsubid != 0 || holder == NULL)
		return IS_NAME;
	return read_holder(holder, d->objid, &ref, budget);
}

/* ---- what they refer to ---- */

/* False: somebody's open transaction does so too. */
static bool
delete_at_once(Relation rel, HeapTuple tuple)
{
	TM_FailureData failure;
	TM_Result	result = heap_delete(rel, &tuple->t_self, GetCurrentCommandId(true), InvalidSnapshot, false, &failure, false);

	return result == TM_Ok || result == TM_Deleted;
}

/*
 * False: the budget does not suffice, or somebody's open transaction changes one of the rows. *budget: less what was read and
 * deleted.
 */
static bool
forget_dependents_of(Relation rel, const ObjectAddress *object, bool secret, MqDependentsBudget *budget)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		all = true;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object->classId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object->objectId));
	scan = systable_beginscan(rel, DependReferenceIndexId, true, NULL, 2, keys);
	while (all && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Verdict		v = judge((Form_pg_depend) GETSTRUCT(tuple), secret, budget);

		CHECK_FOR_INTERRUPTS();
		if (v == IS_NAME)
			continue;
		all = v == IS_NUMBER && budget->objects > 0 && delete_at_once(rel, tuple);
		budget->objects -= all;
	}
	systable_endscan(scan);
	return all;
}

static List *
with_type(List *objects, Oid type)
{
	ObjectAddress *object;

	if (!OidIsValid(type))
		return objects;
	object = palloc(sizeof(ObjectAddress));
	ObjectAddressSet(*object, TypeRelationId, type);
	return lappend(objects, object);
}

/*
 * With a relation go its types, its TOAST table and indexes, and those of that one. *all: false if somebody has locked one, so that
 * it is not known what there is.
 */
static List *
objects_with(List *objects, Oid relid, bool *all)
{
	ObjectAddress *object = palloc(sizeof(ObjectAddress));
	char		kind = get_rel_relkind(relid);
	Oid			type = get_rel_type_id(relid);
	Relation	rel;
	ListCell   *cell;

	ObjectAddressSet(*object, RelationRelationId, relid);
	objects = lappend(objects, object);
	objects = with_type(objects, type);
	objects = with_type(objects, OidIsValid(type) ? get_array_type(type) : InvalidOid);
	if (kind == RELKIND_SEQUENCE || kind == RELKIND_INDEX || kind == RELKIND_PARTITIONED_INDEX)
		return objects;
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
	{
		*all = false;
		return objects;
	}
	rel = try_relation_open(relid, NoLock);
	if (rel != NULL)
	{
		foreach(cell, RelationGetIndexList(rel))
			objects = objects_with(objects, lfirst_oid(cell), all);
		if (OidIsValid(rel->rd_rel->reltoastrelid))
			objects = objects_with(objects, rel->rd_rel->reltoastrelid, all);
		relation_close(rel, NoLock);
	}
	UnlockRelationOid(relid, AccessShareLock);
	return objects;
}

bool
mq_forget_dependents(Oid relid, MqDependentsBudget *budget)
{
	Relation	rel = table_open(DependRelationId, RowExclusiveLock);
	bool		secret = get_rel_namespace(relid) == mq_extension(false)->internal;
	bool		all = true;
	List	   *objects = objects_with(NIL, relid, &all);
	ListCell   *cell;

	/* each for itself: what somebody else is dropping leaves the others */
	foreach(cell, objects)
		all &= forget_dependents_of(rel, lfirst(cell), secret, budget);
	list_free_deep(objects);
	table_close(rel, RowExclusiveLock);
	CommandCounterIncrement();
	return all;
}

/* ---- DROP ---- */

void
mq_limit_waits(void)
{
	if (LockTimeout == 0)
		(void) set_config_option("lock_timeout", "10s", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
mq_drop(const char *sql, const char *locked, const char *too_many, const char *restricted)
{
	MemoryContext context = CurrentMemoryContext;

	mq_limit_waits();
	PG_TRY();
	{
		mq_sql("%s", sql);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		const char *hint = NULL;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			hint = locked;
		else if (error->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
			hint = too_many;
		else if (error->sqlerrcode == ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST)
			hint = restricted;
		if (hint != NULL)
			error->hint = pstrdup(hint);
		ReThrowError(error);
	}
	PG_END_TRY();
}

void
mq_drop_internal(const char *kind, const char *name, const char *what, MqDependentsBudget *budget)
{
	Oid			relid = get_relname_relid(name, mq_extension(false)->internal);

	if (!OidIsValid(relid))
		return;
	/* what is left, because somebody's open transaction drops it say, is waited for, not for long */
	(void) mq_forget_dependents(relid, budget);
	mq_drop(psprintf("DROP %s IF EXISTS mq_internal.%s CASCADE", kind, quote_identifier(name)),
			psprintf("Somebody has a lock on what depends on %s by its number, a default say (pg_locks, pg_depend).", what),
			"Raise max_locks_per_transaction.", NULL);
}
