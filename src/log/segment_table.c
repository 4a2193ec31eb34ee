/*
 * segment_table.c: the table of a segment: its columns, what nobody may have added to it, and the DDL that makes, guards, seals,
 * empties and drops it.
 *
 * Owns the writing of mq_internal.segment. Locks: making a segment takes SHARE UPDATE EXCLUSIVE on the queue's table before it makes
 * the leaf; what the caller has locked for the rest says segment_table.h. All are held to the end of the transaction. Everything on
 * disk is made by ordinary DDL, so a crash leaves it whole or not at all; only what mq_segment_truncate has emptied stays so.
 */
#include "postgres.h"

#include "log/segment_table.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"
#include "utils/syscache.h"

#include "base/owner.h"
#include "base/stop_point.h"
#include "log/segment.h"

/* Of the first so many columns. In TopMemoryContext, for good. */
static TupleDesc
make_descriptor(int columns)
{
	static const struct
	{
		const char *name;
		Oid			type;
	}			column[MQ_COLUMNS] = {
		[MQ_COL_ID - 1] = {"id", INT8OID},
		[MQ_COL_ENQUEUED_AT - 1] = {"enqueued_at", TIMESTAMPTZOID},
		[MQ_COL_HEADERS - 1] = {"headers", JSONBOID},
		[MQ_COL_PAYLOAD - 1] = {"payload", JSONBOID},
		[MQ_COL_BODY - 1] = {"body", BYTEAOID},
		[MQ_COL_SENT_AT - 1] = {"sent_at", TIMESTAMPTZOID},
		[MQ_COL_DUE_AT - 1] = {"due_at", TIMESTAMPTZOID},
		[MQ_COL_EXPIRES_AT - 1] = {"expires_at", TIMESTAMPTZOID},
		[MQ_COL_ORIGIN_ID - 1] = {"origin_id", INT8OID},
		[MQ_COL_ORIGIN_QUEUE - 1] = {"origin_queue", INT4OID},
		[MQ_COL_TARGET_GROUP - 1] = {"target_group", INT4OID},
		[MQ_COL_TARGET_EPOCH - 1] = {"target_epoch", INT4OID},
		[MQ_COL_PRIORITY - 1] = {"priority", INT4OID},
		[MQ_COL_ATTEMPT - 1] = {"attempt", INT4OID},
		[MQ_COL_FAILURES - 1] = {"failures", INT4OID},
		[MQ_COL_REPLY_TO - 1] = {"reply_to", UUIDOID},
		[MQ_COL_KEY - 1] = {"key", TEXTOID},
		[MQ_COL_ROUTING_KEY - 1] = {"routing_key", TEXTOID},
		[MQ_COL_DEDUP_ID - 1] = {"dedup_id", TEXTOID},
		[MQ_COL_REASON - 1] = {"reason", TEXTOID},
		[MQ_COL_DEATH - 1] = {"death", JSONBOID},
	};
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	TupleDesc	made = CreateTemplateTupleDesc(columns);

	for (int i = 0; i < columns; i++)
		TupleDescInitEntry(made, (AttrNumber) (i + 1), column[i].name, column[i].type, -1, 0);
	MemoryContextSwitchTo(old);
	return made;
}

TupleDesc
mq_row_descriptor(void)
{
	static TupleDesc desc = NULL;

	if (desc == NULL)
		desc = make_descriptor(MQ_COLUMNS);
	return desc;
}

TupleDesc
mq_plain_row_descriptor(void)
{
	static TupleDesc desc = NULL;

	if (desc == NULL)
		desc = make_descriptor(MQ_PLAIN_COLUMNS);
	return desc;
}

void
mq_segment_name(char *name, const MqQueue *queue, int level, int64 segment)
{
	snprintf(name, NAMEDATALEN, "s_%d_%d_" INT64_FORMAT, queue->queue_no, level, segment);
}

void
mq_segment_refuse(Relation rel, const char *what)
{
	/* nobody else can have altered what this transaction has made */
	bool		made_here = rel->rd_createSubid != InvalidSubTransactionId;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("segment \"%s\" has %s, which mq does not maintain", RelationGetRelationName(rel), what),
			 made_here ? errhint("Somebody's event trigger (pg_event_trigger) alters new tables: it has to leave out those of mq.")
			 : errhint("Undo that on the queue's table and its segments.")));
}

/* What was added and dropped again is null in every row, and need not be stored. */
static bool
has_columns(Relation rel, TupleDesc ours)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < Max(desc->natts, ours->natts); i++)
	{
		if (i >= desc->natts || TupleDescAttr(desc, i)->attisdropped != (i >= ours->natts) ||
			(i < ours->natts && TupleDescAttr(desc, i)->atttypid != TupleDescAttr(ours, i)->atttypid))
			return false;
	}
	return true;
}

void
mq_segment_check_columns(Relation rel, TupleDesc ours)
{
	if (!has_columns(rel, ours))
		mq_segment_refuse(rel, "other columns");
}

bool
mq_segment_can_be_read(Relation rel)
{
	return rel->rd_tableam == GetHeapamTableAmRoutine() && has_columns(rel, mq_row_descriptor());
}

/* The trigger that no row passes, however it comes. */
static bool
is_row_guard(const Trigger *t)
{
	const int16 what = TRIGGER_TYPE_ROW | TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE;

	return t->tgfoid == mq_extension(false)->guard_function && (t->tgtype & what) == what && t->tgqual == NULL &&
		t->tgnattr == 0;
}

bool
mq_segment_is_guarded(Relation rel)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		if (is_row_guard(&rel->trigdesc->triggers[i]) && rel->trigdesc->triggers[i].tgenabled == TRIGGER_FIRES_ALWAYS)
			return true;
	return false;
}

/* Whatever is not ours; a foreign key has triggers, too. */
static bool
has_foreign_trigger(Relation rel)
{
	Oid			guard = mq_extension(false)->guard_function;

	if (rel->trigdesc != NULL)
		for (int i = 0; i < rel->trigdesc->numtriggers; i++)
			if (rel->trigdesc->triggers[i].tgfoid != guard)
				return true;
	return false;
}

/* As the catalog has it; the table need not be open. False if it is gone. */
static bool
has_row_security(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_class) GETSTRUCT(tuple))->relrowsecurity;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Refuses a queue's table, or a segment, to which a superuser has added what an append would bypass, or what would run
 * somebody's code when we do DDL on it: even an index on a constant expression does. (Nobody else can add anything.)
 */
static void
check_nothing_added(Relation rel, TupleDesc ours)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	mq_segment_check_columns(rel, ours);
	if (rel->rd_rel->relowner != mq_extension(false)->owner)
		mq_segment_refuse(rel, "another owner than the extension");
	if (rel->rd_rel->relhasindex && RelationGetIndexList(rel) != NIL)
		mq_segment_refuse(rel, "an index");
	if (has_foreign_trigger(rel))
		mq_segment_refuse(rel, "a trigger");
	if (constr != NULL && constr->num_check > 0)
		mq_segment_refuse(rel, "a check constraint");
	if (constr != NULL && constr->has_generated_stored)
		mq_segment_refuse(rel, "a generated column");
	if (rel->rd_rel->relrowsecurity)
		mq_segment_refuse(rel, "row level security");
	if (rel->rd_rel->relhasrules)
		mq_segment_refuse(rel, "a rule");
}

void
mq_segment_check_unaltered(const MqQueue *queue, Relation rel)
{
	check_nothing_added(rel, mq_row_descriptor());
	if (has_row_security(queue->table))
		mq_segment_refuse(rel, "row level security");
}

/* For mq_check_made: an event trigger may switch it on for every new table. */
static void
take_off_row_security(Oid relid)
{
	if (has_row_security(relid))
		mq_sql("ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
			   quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid)));
}

void
mq_check_made(Oid relid, TupleDesc ours)
{
	Relation	rel;

	take_off_row_security(relid);
	/* this transaction has made it, so it is locked */
	rel = relation_open(relid, NoLock);
	check_nothing_added(rel, ours);
	relation_close(rel, NoLock);
}

/* Nobody has a privilege on it, whatever ALTER DEFAULT PRIVILEGES says. */
static void
create_table(const char *name, const char *parent)
{
	mq_sql("CREATE TABLE mq_internal.%s (LIKE mq.%s) WITH (autovacuum_enabled = false, vacuum_truncate = false, "
		   "toast.autovacuum_enabled = false, toast.vacuum_truncate = false)", name, parent);
	mq_reset_privileges(get_relname_relid(name, mq_extension(false)->internal));
	mq_close_row_type(get_relname_relid(name, mq_extension(false)->internal));
	mq_sql("CREATE TRIGGER refuse_direct_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON mq_internal.%s "
		   "FOR EACH STATEMENT EXECUTE FUNCTION mq_internal.refuse_direct_write()", name);
}

void
mq_segment_create(const MqQueue *queue, int level, int64 segment)
{
	MqSqlContext context;
	char		name[NAMEDATALEN];
	const char *parent = quote_identifier(psprintf("q_%s", NameStr(queue->name)));
	Relation	rel;

	/* what ATTACH takes; nobody can add an index or a constraint from here on */
	rel = try_relation_open(queue->table, ShareUpdateExclusiveLock);
	if (rel != NULL)
	{
		mq_segment_check_unaltered(queue, rel);
		relation_close(rel, NoLock);
	}
	else
		mq_queue_dropped(queue);

	mq_segment_name(name, queue, level, segment);
	mq_sql_begin(&context);
	create_table(name, parent);
	MQ_STOP_POINT("segment_created");
	/* before somebody needs it, and before an added column keeps it from being attached */
	mq_check_made(get_relname_relid(name, mq_extension(false)->internal), mq_row_descriptor());
	mq_sql("ALTER TABLE mq.%s ATTACH PARTITION mq_internal.%s FOR VALUES FROM (" INT64_FORMAT ") TO (" INT64_FORMAT ")",
		   parent, name, segment * queue->segment_size, (segment + 1) * queue->segment_size);
	mq_sql("ALTER TABLE mq_internal.%s ENABLE ALWAYS TRIGGER refuse_direct_write, ENABLE ALWAYS TRIGGER refuse_direct_row", name);
	mq_sql("INSERT INTO mq_internal.segment (queue_no, level, segment, file) VALUES (%d, %d, " INT64_FORMAT ", "
		   "pg_catalog.pg_relation_filenode('mq_internal.%s')) "
		   "ON CONFLICT (queue_no, level, segment) DO UPDATE SET file = excluded.file, sealed = false, sealed_at = null",
		   queue->queue_no, level, segment, name);
	mq_sql_end(&context);
	MQ_STOP_POINT("segment_attached");
}

int64
mq_segment_record_all(const MqQueue *queue)
{
	MqSqlContext context;
	uint64		recorded;

	mq_sql_begin(&context);
	/* a sealed one is known by its index */
	recorded = mq_sql("INSERT INTO mq_internal.segment (queue_no, level, segment, file, sealed, sealed_at) "
					  "SELECT %d, split_part(relname, '_', 3)::integer, split_part(relname, '_', 4)::bigint, 0, relhasindex, "
					  "CASE WHEN relhasindex THEN clock_timestamp() END "
					  "FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
					  "WHERE inhparent = %u AND relname ~ '^s_%d_[0-9]+_[0-9]+$' ON CONFLICT DO NOTHING",
					  queue->queue_no, queue->table, queue->queue_no);
	mq_sql_end(&context);
	return (int64) recorded;
}

/* The guards of a table that do not fire always, by name; *whole: it has the one that counts. */
static List *
guards_switched_off(Oid relid, bool *whole)
{
	Relation	rel = relation_open(relid, NoLock);
	const TriggerDesc *triggers = rel->trigdesc;
	Oid			guard = mq_extension(false)->guard_function;
	List	   *names = NIL;

	*whole = false;
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *t = &triggers->triggers[i];

		*whole |= is_row_guard(t);
		if (t->tgfoid == guard && t->tgenabled != TRIGGER_FIRES_ALWAYS)
			names = lappend(names, makeString(pstrdup(quote_identifier(t->tgname))));
	}
	relation_close(rel, NoLock);
	return names;
}

/* ONLY: a partition that is not known to be in order must not seem so. */
static void
guard_table(Oid relid)
{
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
	bool		whole;
	List	   *off = guards_switched_off(relid, &whole);
	ListCell   *cell;

	if (!whole)
	{
		mq_sql("CREATE OR REPLACE TRIGGER refuse_direct_row BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW "
			   "EXECUTE FUNCTION mq_internal.refuse_direct_write()", table);
		off = list_append_unique(off, makeString("refuse_direct_row"));
	}
	foreach(cell, off)
		mq_sql("ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %s", table, strVal(lfirst(cell)));
}

void
mq_segment_guard(const MqQueue *queue, int level, int64 segment)
{
	MqSqlContext context;
	char		name[NAMEDATALEN];

	mq_segment_name(name, queue, level, segment);
	mq_sql_begin(&context);
	/* what was written is not known to be in order */
	mq_sql("UPDATE mq_internal.segment SET file = 0 WHERE queue_no = %d AND level = %d AND segment = " INT64_FORMAT,
		   queue->queue_no, level, segment);
	guard_table(queue->table);
	guard_table(get_relname_relid(name, mq_extension(false)->internal));
	mq_sql_end(&context);
}

void
mq_segment_record_order(const MqQueue *queue, int level, int64 segment, RelFileNumber file)
{
	MqSqlContext context;
	char		name[NAMEDATALEN];

	mq_segment_name(name, queue, level, segment);
	mq_sql_begin(&context);
	mq_sql("UPDATE mq_internal.segment SET file = %u WHERE queue_no = %d AND level = %d AND segment = " INT64_FORMAT, file,
		   queue->queue_no, level, segment);
	/* everybody reads the record again */
	CacheInvalidateRelcacheByRelid(get_relname_relid(name, mq_extension(false)->internal));
	mq_sql_end(&context);
}

/* Does nothing if the segment is gone. */
void
mq_segment_seal(const MqQueue *queue, int level, int64 segment)
{
	MqSqlContext context;
	char		name[NAMEDATALEN];
	Relation	rel = mq_segment_open(queue, level, segment, ShareLock);

	if (rel == NULL)
		return;
	mq_segment_check_unaltered(queue, rel);
	relation_close(rel, NoLock);
	mq_segment_name(name, queue, level, segment);
	mq_sql_begin(&context);
	MQ_STOP_POINT("seal_before");
	mq_sql("CREATE INDEX ON mq_internal.%s USING brin (id, enqueued_at)", name);
	mq_sql("ALTER TABLE mq_internal.%s RESET (autovacuum_enabled, toast.autovacuum_enabled)", name);
	mq_sql("UPDATE mq_internal.segment SET sealed = true, sealed_at = clock_timestamp() WHERE queue_no = %d AND level = %d AND segment = " INT64_FORMAT,
		   queue->queue_no, level, segment);
	mq_sql_end(&context);
}

void
mq_segment_drop(const MqQueue *queue, int level, int64 segment)
{
	MqSqlContext context;
	char		name[NAMEDATALEN];

	mq_segment_name(name, queue, level, segment);
	mq_sql_begin(&context);
	MQ_STOP_POINT("drop_before");
	mq_sql("DELETE FROM mq_internal.segment WHERE queue_no = %d AND level = %d AND segment = " INT64_FORMAT,
		   queue->queue_no, level, segment);
	/* nobody can name it, but somebody may have made something that depends on its oid */
	mq_sql("DROP TABLE IF EXISTS mq_internal.%s CASCADE", name);
	mq_sql_end(&context);
}

/* As mq_segment_seal. */
void
mq_segment_close_all(const MqQueue *queue)
{
	int			count;
	MqSegmentInfo *segments = mq_segment_list(queue, &count);

	for (int i = 0; i < count; i++)
		if (OidIsValid(segments[i].relid))
			mq_close_row_type(segments[i].relid);
	pfree(segments);
}

void
mq_segment_truncate(const MqQueue *queue, int level, int64 segment)
{
	Relation	rel = mq_segment_open(queue, level, segment, AccessExclusiveLock);

	if (rel == NULL)
		return;
	/* not by SQL: that would run the guard trigger */
	heap_truncate_one_rel(rel);
	relation_close(rel, NoLock);
}
