/*
 * dependents.c: what depends on a table or sequence of mq by nothing but its number. See dependents.h.
 *
 * Keeps nothing. Takes ROW EXCLUSIVE on pg_depend and ACCESS SHARE on other catalogs for the look; rows are deleted without
 * waiting. All of it is undone with the transaction.
 */
#include "postgres.h"

#include "base/dependents.h"

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
#include "catalog/pg_policy.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_statistic_ext.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Catalogs of what has expressions, in columns of type pg_node_tree; the oid is the first column in each. */
static const struct
{
	Oid			catalog;
	Oid			index;
	bool		of_types;		/* what depends on a type has it in an expression, too, and nowhere else */
}			holders[] = {
	{AttrDefaultRelationId, AttrDefaultOidIndexId, true},
	{ConstraintRelationId, ConstraintOidIndexId, true},
	{RewriteRelationId, RewriteOidIndexId, true},
	{PolicyRelationId, PolicyOidIndexId, true},
	{TriggerRelationId, TriggerOidIndexId, true},
	{StatisticExtRelationId, StatisticExtOidIndexId, true},
	{ProcedureRelationId, ProcedureOidIndexId, false},
	{TypeRelationId, TypeOidIndexId, false},
};

/* Whether the text before `end` ends so. */
static bool
ends_with(const char *text, const char *end, const char *word)
{
	Size		length = strlen(word);

	return (Size) (end - text) >= length && memcmp(end - length, word, length) == 0;
}

/* A list of integers or a set: in `(i 1 2 3)` oids are never. */
static bool
is_in_list_of_integers(const char *text, const char *at)
{
	while (at > text && (at[-1] == ' ' || (at[-1] >= '0' && at[-1] <= '9')))
		at--;
	return ends_with(text, at, "(i") || ends_with(text, at, "(b");
}

/*
 * Whether an expression names an object: as the table it reads, or the type of something. A constant is written byte by byte, so
 * it does not look like that; other numbers do.
 */
static bool
is_named_in(const char *tree, Oid oid)
{
	char		number[16];
	int			length = snprintf(number, sizeof(number), " %u", oid);

	for (const char *at = strstr(tree, number); at != NULL; at = strstr(at + 1, number))
	{
		if (at[length] >= '0' && at[length] <= '9')
			continue;
		if (!ends_with(tree, at, "location") && !ends_with(tree, at, "_len") && !ends_with(tree, at, "typmod") &&
			!is_in_list_of_integers(tree, at))
			return true;
	}
	return false;
}

/* In one of the expressions of a row. */
static bool
is_named_in_row(HeapTuple tuple, TupleDesc desc, Oid oid)
{
	bool		named = false;

	for (int i = 0; i < desc->natts && !named; i++)
	{
		bool		isnull;
		Datum		value;

		if (TupleDescAttr(desc, i)->atttypid != PG_NODE_TREEOID)
			continue;
		value = heap_getattr(tuple, i + 1, desc, &isnull);
		if (!isnull)
		{
			char	   *tree = TextDatumGetCString(value);

			named = is_named_in(tree, oid);
			pfree(tree);
		}
	}
	return named;
}

/* An object that is not there any more names nothing. */
static bool
is_named_by(Oid catalog, Oid index, Oid object, Oid oid)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		named;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object));
	scan = systable_beginscan(rel, index, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	named = HeapTupleIsValid(tuple) && is_named_in_row(tuple, RelationGetDescr(rel), oid);
	/* a foreign key has no expression */
	if (HeapTupleIsValid(tuple) && catalog == ConstraintRelationId)
		named |= ((Form_pg_constraint) GETSTRUCT(tuple))->contype != CONSTRAINT_CHECK;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return named;
}

/* An index or partitioned table depends on what is in its key; other tables on what they inherit from, or on types. */
static bool
has_key_with_expressions(Oid relid)
{
	char		kind = get_rel_relkind(relid);

	return kind == RELKIND_INDEX || kind == RELKIND_PARTITIONED_INDEX || kind == RELKIND_PARTITIONED_TABLE;
}

static bool
is_constant(const FormData_pg_depend *d)
{
	bool		of_type = d->refclassid == TypeRelationId;

	if (d->deptype != DEPENDENCY_NORMAL || d->refobjsubid != 0)
		return false;
	if (d->classid == RelationRelationId)
		return !of_type && d->objsubid == 0 && has_key_with_expressions(d->objid);
	for (int i = 0; i < lengthof(holders); i++)
		if (holders[i].catalog == d->classid)
			return (!of_type || holders[i].of_types) && !is_named_by(d->classid, holders[i].index, d->objid, d->refobjid);
	return false;
}

/* False: somebody's open transaction does so too. */
static bool
delete_at_once(Relation rel, HeapTuple tuple)
{
	TM_FailureData failure;
	TM_Result	result = heap_delete(rel, &tuple->t_self, GetCurrentCommandId(true), InvalidSnapshot, false, &failure, false);

	return result == TM_Ok || result == TM_Deleted;
}

static bool
forget_dependents_of(Relation rel, Oid catalog, Oid object, int *budget)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		all = true;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(catalog));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object));
	scan = systable_beginscan(rel, DependReferenceIndexId, true, NULL, 2, keys);
	while (all && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		if (!is_constant((Form_pg_depend) GETSTRUCT(tuple)))
			continue;
		all = *budget > 0 && delete_at_once(rel, tuple);
		*budget -= all;
	}
	systable_endscan(scan);
	return all;
}

/* With a relation go its TOAST table and indexes, and those of that one. */
static List *
relations_with(Oid relid)
{
	List	   *relations = list_make1_oid(relid);
	Relation	rel;

	if (get_rel_relkind(relid) == RELKIND_SEQUENCE || (rel = try_relation_open(relid, AccessShareLock)) == NULL)
		return relations;
	relations = list_concat(relations, RelationGetIndexList(rel));
	if (OidIsValid(rel->rd_rel->reltoastrelid))
		relations = list_concat(relations, relations_with(rel->rd_rel->reltoastrelid));
	relation_close(rel, AccessShareLock);
	return relations;
}

static bool
forget_dependents_of_types(Relation rel, Oid relid, int *budget)
{
	Oid			type = get_rel_type_id(relid);
	Oid			array = OidIsValid(type) ? get_array_type(type) : InvalidOid;

	return (!OidIsValid(type) || forget_dependents_of(rel, TypeRelationId, type, budget)) &&
		(!OidIsValid(array) || forget_dependents_of(rel, TypeRelationId, array, budget));
}

bool
mq_forget_dependents(Oid relid, int *budget)
{
	Relation	rel = table_open(DependRelationId, RowExclusiveLock);
	bool		all = true;
	ListCell   *cell;

	foreach(cell, relations_with(relid))
		all = all && forget_dependents_of(rel, RelationRelationId, lfirst_oid(cell), budget) &&
			forget_dependents_of_types(rel, lfirst_oid(cell), budget);
	table_close(rel, RowExclusiveLock);
	CommandCounterIncrement();
	return all;
}
