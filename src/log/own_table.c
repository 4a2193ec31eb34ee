/*
 * own_table.c: tables of the extension that are written by column number and without the executor. See own_table.h.
 *
 * Owns nothing. Locks: those that the caller asks for, and ACCESS SHARE on an index.
 */
#include "postgres.h"

#include "log/own_table.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "nodes/execnodes.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/catalog.h"

static void
altered(Relation table)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" has other columns, indexes or another access method than mq has made", RelationGetRelationName(table)),
			 errhint("It belongs to mq: undo that.")));
}

Relation
mq_own_table_open(Oid relid, LOCKMODE mode, const Oid *types, int columns)
{
	Relation	table = mode == NoLock ? relation_open(relid, NoLock) : mq_own_relation_open(relid, mode);
	TupleDesc	desc = RelationGetDescr(table);
	bool		good = table->rd_tableam == GetHeapamTableAmRoutine() && desc->natts == columns;

	for (int i = 0; i < desc->natts && good; i++)
		good = TupleDescAttr(desc, i)->atttypid == types[i];
	if (!good)
		altered(table);
	return table;
}

Relation
mq_own_index_open(Relation table, const char *suffix)
{
	char		name[NAMEDATALEN];
	Oid			oid;
	Relation	index;

	snprintf(name, sizeof(name), "%s_%s", RelationGetRelationName(table), suffix);
	oid = get_relname_relid(name, RelationGetNamespace(table));
	if (!OidIsValid(oid))
		altered(table);
	index = index_open(oid, AccessShareLock);
	if (index->rd_index->indrelid != RelationGetRelid(table) || !index->rd_index->indisvalid)
		altered(table);
	return index;
}

void
mq_own_table_check_indexes(Relation table, const ResultRelInfo *indexes)
{
	for (int i = 0; i < indexes->ri_NumIndices; i++)
	{
		const IndexInfo *info = indexes->ri_IndexRelationInfo[i];

		if (info->ii_Expressions != NIL || info->ii_Predicate != NIL || info->ii_ExclusionOps != NULL)
			altered(table);
	}
}
