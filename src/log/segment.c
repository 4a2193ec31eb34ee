/*
 * segment.c: the partitions of a queue's log: open, check, create, seal, drop.
 *
 * Owns mq.segment (one row per partition: the file it was made with, whether it is sealed) and the cache of open
 * segments in this process. Locks: senders lock a leaf ROW EXCLUSIVE to the end of their transaction, readers ACCESS
 * SHARE while they read; nobody locks the parent but whoever makes or drops a segment, and for a moment, conditionally,
 * a reader that finds one missing whose record is there. Everything on disk is made by ordinary DDL, so a crash leaves
 * it whole or not at all.
 */
#include "postgres.h"

#include "log/segment.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/toast_internals.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/reltrigger.h"
#include "utils/syscache.h"

#include "base/settings.h"
#include "base/stop_point.h"

#define CACHED_SEGMENTS 32

/* A leaf this process has used lately. Its place is given by a hash of the numbers. */
typedef struct CachedSegment
{
	int32		queue_no;
	int32		level;
	int64		segment;
	Oid			relid;			/* InvalidOid: empty */
	Oid			parent;
	Oid			file;			/* from mq.segment */
	bool		checked;		/* nothing that an append would bypass */
} CachedSegment;

static CachedSegment cache[CACHED_SEGMENTS];

static void
relcache_callback(Datum arg, Oid relid)
{
	for (int i = 0; i < CACHED_SEGMENTS; i++)
		if (relid == InvalidOid || cache[i].relid == relid || cache[i].parent == relid)
			cache[i].relid = InvalidOid;
}

void
mq_segment_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
}

TupleDesc
mq_row_descriptor(void)
{
	static TupleDesc desc = NULL;
	MemoryContext old;
	TupleDesc	made;

	if (desc != NULL)
		return desc;
	old = MemoryContextSwitchTo(TopMemoryContext);
	made = CreateTemplateTupleDesc(MQ_COLUMNS);
	TupleDescInitEntry(made, MQ_COL_ID, "id", INT8OID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_ENQUEUED_AT, "enqueued_at", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_PRIORITY, "priority", INT4OID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_TARGET_GROUP, "target_group", INT4OID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_ORIGIN_ID, "origin_id", INT8OID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_EXPIRES_AT, "expires_at", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_FAILURES, "failures", INT4OID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_KEY, "key", TEXTOID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_ROUTING_KEY, "routing_key", TEXTOID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_REASON, "reason", TEXTOID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_HEADERS, "headers", JSONBOID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_PAYLOAD, "payload", JSONBOID, -1, 0);
	TupleDescInitEntry(made, MQ_COL_BODY, "body", BYTEAOID, -1, 0);
	MemoryContextSwitchTo(old);
	desc = made;
	return desc;
}

static void
segment_name(char *name, const MqQueue *queue, int level, int64 segment)
{
	snprintf(name, NAMEDATALEN, "s_%d_%d_" INT64_FORMAT, queue->queue_no, level, segment);
}

static void
segment_keys(ScanKey keys, const MqQueue *queue, int level, int64 segment)
{
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->queue_no));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(level));
	ScanKeyInit(&keys[2], 3, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(segment));
}

static void
info_from_tuple(HeapTuple tuple, TupleDesc desc, MqSegmentInfo *info)
{
	Datum		v[6];
	bool		isnull[6];

	heap_deform_tuple(tuple, desc, v, isnull);
	info->level = DatumGetInt32(v[1]);
	info->segment = DatumGetInt64(v[2]);
	info->file = DatumGetObjectId(v[3]);
	info->sealed = DatumGetBool(v[4]);
	info->sealed_at = isnull[5] ? 0 : DatumGetTimestampTz(v[5]);
}

/* Reads the record of a segment. */
static bool
read_info(const MqQueue *queue, int level, int64 segment, MqSegmentInfo *info)
{
	const MqExtension *ext = mq_extension(false);
	Relation	rel = table_open(ext->segment_rel, AccessShareLock);
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	segment_keys(keys, queue, level, segment);
	scan = systable_beginscan(rel, get_relname_relid("segment_pkey", ext->schema), true, NULL, 3, keys);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		info_from_tuple(tuple, RelationGetDescr(rel), info);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

MqSegmentInfo *
mq_segment_list(const MqQueue *queue, int *count)
{
	const MqExtension *ext = mq_extension(false);
	Relation	rel = table_open(ext->segment_rel, AccessShareLock);
	Relation	index = index_open(get_relname_relid("segment_pkey", ext->schema), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			room = 16;
	MqSegmentInfo *list = palloc(room * sizeof(MqSegmentInfo));

	*count = 0;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->queue_no));
	scan = systable_beginscan_ordered(rel, index, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		char		name[NAMEDATALEN];

		if (*count == room)
			list = repalloc(list, (room *= 2) * sizeof(MqSegmentInfo));
		info_from_tuple(tuple, RelationGetDescr(rel), &list[*count]);
		segment_name(name, queue, list[*count].level, list[*count].segment);
		list[*count].relid = get_relname_relid(name, ext->schema);
		(*count)++;
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return list;
}

static CachedSegment *
cached(const MqQueue *queue, int level, int64 segment)
{
	return &cache[((uint64) queue->queue_no * 7 + (uint64) level * 31 + (uint64) segment) % CACHED_SEGMENTS];
}

static bool
cached_is(const CachedSegment *c, const MqQueue *queue, int level, int64 segment)
{
	return OidIsValid(c->relid) && c->queue_no == queue->queue_no && c->level == level && c->segment == segment;
}

static Relation
open_uncached(const MqQueue *queue, int level, int64 segment, LOCKMODE mode)
{
	char		name[NAMEDATALEN];
	Oid			relid;

	/* a segment just made by the worker may be missing from this process's view of the catalog */
	AcceptInvalidationMessages();
	segment_name(name, queue, level, segment);
	relid = get_relname_relid(name, mq_extension(false)->schema);
	return OidIsValid(relid) ? try_relation_open(relid, mode) : NULL;
}

static void
refuse(Relation rel, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("segment \"%s\" has %s, which mq does not maintain", RelationGetRelationName(rel), what),
			 errhint("Undo that on the queue's table and its segments.")));
}

/*
 * Rows are read and written by column number: the columns must be those we made. What was added and dropped again is
 * null in every row, and need not be stored.
 */
static void
check_columns(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < Max(desc->natts, MQ_COLUMNS); i++)
	{
		if (i >= desc->natts || TupleDescAttr(desc, i)->attisdropped != (i >= MQ_COLUMNS) ||
			(i < MQ_COLUMNS && TupleDescAttr(desc, i)->atttypid != TupleDescAttr(mq_row_descriptor(), i)->atttypid))
			refuse(rel, "other columns");
	}
}

Relation
mq_segment_open(const MqQueue *queue, int level, int64 segment, LOCKMODE mode)
{
	CachedSegment *c = cached(queue, level, segment);
	MqSegmentInfo info;
	Relation	rel = NULL;

	if (cached_is(c, queue, level, segment))
		rel = try_relation_open(c->relid, mode);
	if (rel != NULL && cached_is(c, queue, level, segment))
		return rel;
	if (rel != NULL)
		relation_close(rel, mode);

	rel = open_uncached(queue, level, segment, mode);
	if (rel == NULL)
		return NULL;
	if (!read_info(queue, level, segment, &info))
		info.file = InvalidOid;
	c->queue_no = queue->queue_no;
	c->level = level;
	c->segment = segment;
	c->file = info.file;
	c->checked = false;
	c->parent = queue->table;
	check_columns(rel);
	c->relid = RelationGetRelid(rel);
	return rel;
}

bool
mq_segment_is_ordered(const MqQueue *queue, int level, int64 segment, Relation rel)
{
	CachedSegment *c = cached(queue, level, segment);

	return !queue->foreign && cached_is(c, queue, level, segment) && c->file == MqRelFileNumber(rel);
}

static bool
is_there(const MqQueue *queue, int level, int64 segment)
{
	Relation	rel = open_uncached(queue, level, segment, AccessShareLock);

	if (rel == NULL)
		return false;
	relation_close(rel, AccessShareLock);
	return true;
}

bool
mq_segment_is_gone(const MqQueue *queue, int level, int64 segment)
{
	const MqExtension *ext = mq_extension(false);
	ScanKeyData keys[3];
	MqSegmentInfo info;
	bool		gone;

	/*
	 * The caller has seen ids beyond the segment: if there is any message in it, its record was made before. The first look
	 * sees it while its maker is undecided, when nobody else changes it; the second one when it is committed, whoever does.
	 */
	segment_keys(keys, queue, level, segment);
	if (!mq_any_row(ext->segment_rel, get_relname_relid("segment_pkey", ext->schema), 3, keys) &&
		!read_info(queue, level, segment, &info))
		return !is_there(queue, level, segment);
	/* being made, or its table was dropped by hand: whoever makes segments holds this lock on the parent until it commits */
	if (!ConditionalLockRelationOid(queue->table, ShareUpdateExclusiveLock))
		return false;
	gone = !is_there(queue, level, segment);
	UnlockRelationOid(queue->table, ShareUpdateExclusiveLock);
	return gone;
}

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
 * Refuses a table, or a segment, to which its owner has added what an append would bypass, or what would run code of the
 * owner's when we do DDL on it as somebody else: even an index on a constant expression does.
 */
static void
check_unaltered(const MqQueue *queue, Relation rel)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	check_columns(rel);
	if (rel->rd_rel->relhasindex && RelationGetIndexList(rel) != NIL)
		refuse(rel, "an index");
	if (has_foreign_trigger(rel))
		refuse(rel, "a trigger");
	if (constr != NULL && constr->num_check > 0)
		refuse(rel, "a check constraint");
	if (constr != NULL && constr->has_generated_stored)
		refuse(rel, "a generated column");
	if (rel->rd_rel->relrowsecurity || has_row_security(queue->table))
		refuse(rel, "row level security");
	if (rel->rd_rel->relhasrules)
		refuse(rel, "a rule");
}

/* An append writes the heap directly: refuse what it would not maintain. */
static void
check_appendable(const MqQueue *queue, Relation rel)
{
	check_unaltered(queue, rel);
	if (!RelationIsPermanent(rel))
		refuse(rel, "no crash safety");
	if (rel->rd_tableam != GetHeapamTableAmRoutine())
		refuse(rel, "another access method");
}

/* Whether only this transaction can make segments: it made the queue, or locks out the worker. */
static bool
must_create_here(const MqQueue *queue)
{
	Relation	parent = RelationIdGetRelation(queue->table);
	bool		result;
	LOCKTAG		tag;

	if (parent == NULL)
		return false;
	result = parent->rd_createSubid != InvalidSubTransactionId;
	RelationClose(parent);

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, queue->table);
	for (LOCKMODE mode = ShareUpdateExclusiveLock; mode <= AccessExclusiveLock && !result; mode++)
		result = MqLockHeldByMe(&tag, mode);
	return result;
}

static void
ask_worker(const MqQueue *queue, int level, int64 segment)
{
	MqChainKey	key = mq_chain_key(queue, level);
	MqChain    *chain = queue->chain;

	LWLockAcquire(MqAppendLock(chain), LW_EXCLUSIVE);
	if (memcmp(&chain->key, &key, sizeof(key)) == 0)
		chain->wanted_segment = Max(chain->wanted_segment, segment);
	LWLockRelease(MqAppendLock(chain));
	mq_worker_wake(queue->db);
}

/*
 * Whoever locks the whole queue (REINDEX, CREATE INDEX, LOCK TABLE, drop_queue) has the parent first and then waits for
 * senders on its leaves: if one of those waits for a segment, which the worker cannot make meanwhile, neither ever goes on.
 * The same when it waits for the parent, and a sender has read that. No deadlock detection sees it, for a sender waits for
 * no lock. The modes are those that are in the way of making a segment.
 */
static void
check_deadlock(const MqQueue *queue, int64 segment)
{
	MqSqlContext context;
	int32		pid = 0;

	mq_sql_begin(&context);
	if (mq_sql("SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND database = %u AND relation = %u "
			   "AND mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') "
			   "AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(pid)) LIMIT 1",
			   MyDatabaseId, queue->table) > 0)
		pid = mq_sql_int32();
	mq_sql_end(&context);
	if (pid != 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
				 errmsg("deadlock detected while waiting for segment " INT64_FORMAT " of queue \"%s\"",
						segment, NameStr(queue->name)),
				 errdetail("It cannot be made while process %d has or awaits a lock on the queue's table, and that process waits for this transaction.", pid),
				 errhint("Repeat the transaction.")));
}

static Relation
wait_for_segment(const MqQueue *queue, int level, int64 segment)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), mq_segment_wait);
	TimestampTz check_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DeadlockTimeout);
	Relation	rel = NULL;

	ConditionVariablePrepareToSleep(&queue->chain->segment_made);
	while ((rel = mq_segment_open(queue, level, segment, RowExclusiveLock)) == NULL)
	{
		mq_queue_check_not_dropped(queue);
		if (GetCurrentTimestamp() >= deadline)
			break;
		if (GetCurrentTimestamp() >= check_at)
		{
			check_deadlock(queue, segment);
			check_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DeadlockTimeout);
		}
		ask_worker(queue, level, segment);
		(void) ConditionVariableTimedSleep(&queue->chain->segment_made, 200, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("segment " INT64_FORMAT " of queue \"%s\" was not made in time", segment, NameStr(queue->name)),
				 errhint("Look at the mq worker in pg_stat_activity and in the server log, and whether a session holds a lock on the queue's table; max_worker_processes must leave room for the worker.")));
	return rel;
}

Relation
mq_segment_open_to_append(const MqQueue *queue, int level, int64 segment)
{
	Relation	rel = mq_segment_open(queue, level, segment, RowExclusiveLock);
	CachedSegment *c = cached(queue, level, segment);

	if (rel == NULL && must_create_here(queue))
	{
		mq_segment_create(queue, level, segment);
		rel = mq_segment_open(queue, level, segment, RowExclusiveLock);
	}
	if (rel == NULL)
		rel = wait_for_segment(queue, level, segment);

	if (!c->checked || c->relid != RelationGetRelid(rel))
	{
		check_appendable(queue, rel);
		if (cached_is(c, queue, level, segment))
			c->checked = true;
	}
	return rel;
}

void
mq_segment_lock_toast(Relation rel)
{
	Relation	toast;
	ListCell   *cell;

	if (!OidIsValid(rel->rd_rel->reltoastrelid))
		return;
	toast = table_open(rel->rd_rel->reltoastrelid, RowExclusiveLock);
	foreach(cell, RelationGetIndexList(toast))
		index_close(index_open(lfirst_oid(cell), RowExclusiveLock), NoLock);
	table_close(toast, NoLock);
}

static void
set_for_now(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
mq_sql_begin(MqSqlContext *context)
{
	GetUserIdAndSecContext(&context->user, &context->security);
	SetUserIdAndSecContext(mq_extension(false)->owner,
						   context->security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	context->nest = NewGUCNestLevel();
	set_for_now("search_path", "pg_catalog, pg_temp");
	set_for_now("client_min_messages", "warning");
	/* the caller's choice would be made with the owner's rights */
	set_for_now("default_tablespace", "");
	set_for_now("default_table_access_method", "heap");
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
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

static void
create_table(const char *name, const char *parent, Oid owner)
{
	mq_sql("CREATE TABLE mq.%s (LIKE mq.%s) WITH (autovacuum_enabled = false, vacuum_truncate = false, "
		   "toast.autovacuum_enabled = false, toast.vacuum_truncate = false)", name, parent);
	mq_sql("ALTER TABLE mq.%s OWNER TO %s", name, quote_identifier(GetUserNameFromId(owner, false)));
	mq_sql("CREATE TRIGGER refuse_direct_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON mq.%s "
		   "FOR EACH STATEMENT EXECUTE FUNCTION mq.refuse_direct_write()", name);
}

void
mq_segment_create(const MqQueue *queue, int level, int64 segment)
{
	MqSqlContext context;
	char		name[NAMEDATALEN];
	char	   *parent = pstrdup(quote_identifier(get_rel_name(queue->table)));
	Oid			owner = InvalidOid;
	Relation	rel;

	/* what ATTACH takes; nobody can add an index or a constraint from here on */
	rel = relation_open(queue->table, ShareUpdateExclusiveLock);
	check_unaltered(queue, rel);
	owner = rel->rd_rel->relowner;
	relation_close(rel, NoLock);

	segment_name(name, queue, level, segment);
	mq_sql_begin(&context);
	create_table(name, parent, owner);
	MQ_STOP_POINT("segment_created");
	mq_sql("ALTER TABLE mq.%s ATTACH PARTITION mq.%s FOR VALUES FROM (" INT64_FORMAT ") TO (" INT64_FORMAT ")",
		   parent, name, segment * queue->segment_size, (segment + 1) * queue->segment_size);
	mq_sql("INSERT INTO mq.segment (queue_no, level, segment, file) VALUES (%d, %d, " INT64_FORMAT ", "
		   "pg_catalog.pg_relation_filenode('mq.%s')) "
		   "ON CONFLICT (queue_no, level, segment) DO UPDATE SET file = excluded.file, sealed = false, sealed_at = null",
		   queue->queue_no, level, segment, name);
	mq_sql_end(&context);
	MQ_STOP_POINT("segment_attached");
}

void
mq_segment_seal(const MqQueue *queue, int level, int64 segment)
{
	MqSqlContext context;
	char		name[NAMEDATALEN];
	Relation	rel = mq_segment_open(queue, level, segment, ShareLock);

	if (rel == NULL)
		return;
	check_unaltered(queue, rel);
	relation_close(rel, NoLock);
	segment_name(name, queue, level, segment);
	mq_sql_begin(&context);
	MQ_STOP_POINT("seal_before");
	mq_sql("CREATE INDEX ON mq.%s USING brin (id, enqueued_at)", name);
	mq_sql("ALTER TABLE mq.%s RESET (autovacuum_enabled, toast.autovacuum_enabled)", name);
	mq_sql("UPDATE mq.segment SET sealed = true, sealed_at = clock_timestamp() WHERE queue_no = %d AND level = %d AND segment = " INT64_FORMAT,
		   queue->queue_no, level, segment);
	mq_sql_end(&context);
}

void
mq_segment_drop(const MqQueue *queue, int level, int64 segment)
{
	MqSqlContext context;
	char		name[NAMEDATALEN];

	segment_name(name, queue, level, segment);
	mq_sql_begin(&context);
	MQ_STOP_POINT("drop_before");
	mq_sql("DELETE FROM mq.segment WHERE queue_no = %d AND level = %d AND segment = " INT64_FORMAT,
		   queue->queue_no, level, segment);
	mq_sql("DROP TABLE IF EXISTS mq.%s", name);
	mq_sql_end(&context);
}

void
mq_segment_truncate(const MqQueue *queue, int level, int64 segment)
{
	Relation	rel = mq_segment_open(queue, level, segment, AccessExclusiveLock);

	if (rel == NULL)
		return;
	/* not by SQL: that would run triggers of the queue's owner as somebody else */
	heap_truncate_one_rel(rel);
	relation_close(rel, NoLock);
}

bool
mq_lock_table_conditionally(Oid relid, LOCKMODE mode)
{
	Relation	rel;
	Oid			toast;

	if (!ConditionalLockRelationOid(relid, mode))
		return false;
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
		return false;
	toast = rel->rd_rel->reltoastrelid;
	relation_close(rel, NoLock);
	return !OidIsValid(toast) || ConditionalLockRelationOid(toast, mode);
}
