/*
 * segment.c: the partitions of a queue's log: open, check, create, seal, drop.
 *
 * Owns mq_internal.segment (one row per partition: the file it was made with, whether it is sealed) and the cache of open
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
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/value.h"
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

#include "base/clock.h"
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
	Oid			file;			/* from mq_internal.segment: the pages of this file are in order */
	bool		guarded;		/* nobody but mq can write to it */
	RelFileNumber looked_at;	/* this file was looked through by this process */
	bool		in_order;		/* and found so */
	bool		checked;		/* nothing that an append would bypass */
} CachedSegment;

static CachedSegment cache[CACHED_SEGMENTS];

bool		mq_segment_waits = true;

/* goes up whenever this process has thrown away what it knew of a relation */
static uint64 invalidations = 0;

static void
relcache_callback(Datum arg, Oid relid)
{
	invalidations++;
	for (int i = 0; i < CACHED_SEGMENTS; i++)
		if (relid == InvalidOid || cache[i].relid == relid || cache[i].parent == relid)
			cache[i].relid = InvalidOid;
}

void
mq_segment_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
}

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
	Datum		v[MaxHeapAttributeNumber];
	bool		isnull[MaxHeapAttributeNumber];

	mq_deform(tuple, desc, v, isnull, 6);
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
	Relation	rel = mq_own_relation_open(ext->segment_rel, AccessShareLock);
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	segment_keys(keys, queue, level, segment);
	scan = systable_beginscan(rel, get_relname_relid("segment_pkey", ext->internal), true, NULL, 3, keys);
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
	Relation	rel = mq_own_relation_open(ext->segment_rel, AccessShareLock);
	Relation	index = index_open(get_relname_relid("segment_pkey", ext->internal), AccessShareLock);
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
		list[*count].relid = get_relname_relid(name, ext->internal);
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
	relid = get_relname_relid(name, mq_extension(false)->internal);
	return OidIsValid(relid) ? try_relation_open(relid, mode) : NULL;
}

static void
refuse(Relation rel, const char *what)
{
	/* nobody else can have altered what this transaction has made */
	bool		made_here = rel->rd_createSubid != InvalidSubTransactionId;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("segment \"%s\" has %s, which mq does not maintain", RelationGetRelationName(rel), what),
			 made_here ? errhint("Somebody's event trigger (pg_event_trigger) alters new tables: it has to leave out those of mq.")
			 : errhint("Undo that on the queue's table and its segments.")));
}

/*
 * Rows are read and written by column number: the columns must be those we made. What was added and dropped again is
 * null in every row, and need not be stored.
 */
static void
check_columns(Relation rel, TupleDesc ours)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < Max(desc->natts, ours->natts); i++)
	{
		if (i >= desc->natts || TupleDescAttr(desc, i)->attisdropped != (i >= ours->natts) ||
			(i < ours->natts && TupleDescAttr(desc, i)->atttypid != TupleDescAttr(ours, i)->atttypid))
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
	if (rel != NULL && cached_is(c, queue, level, segment) && mq_queue_is_current(queue))
		return rel;
	if (rel != NULL)
		relation_close(rel, mode);

	rel = open_uncached(queue, level, segment, mode);
	if (rel == NULL)
		return NULL;
	/* its pages are read directly */
	if (rel->rd_tableam != GetHeapamTableAmRoutine())
		refuse(rel, "another access method");
	/* of the next extension, whose names and numbers start again */
	if (!mq_queue_is_current(queue))
	{
		relation_close(rel, mode);
		return NULL;
	}
	if (!read_info(queue, level, segment, &info))
		info.file = InvalidOid;
	c->queue_no = queue->queue_no;
	c->level = level;
	c->segment = segment;
	c->file = queue->foreign ? InvalidOid : info.file;
	c->guarded = mq_segment_is_guarded(rel);
	if (c->relid != RelationGetRelid(rel))
		c->looked_at = InvalidRelFileNumber;
	c->checked = false;
	c->parent = queue->table;
	check_columns(rel, mq_row_descriptor());
	c->relid = RelationGetRelid(rel);
	return rel;
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

MqTrust
mq_segment_trust(const MqQueue *queue, int level, int64 segment, Relation rel)
{
	const CachedSegment *c = cached(queue, level, segment);

	/* an invalidation that came while it was being opened: another time */
	if (!cached_is(c, queue, level, segment) || c->relid != RelationGetRelid(rel) || !c->guarded)
		return MQ_TRUST_NONE;
	if (c->file == MqRelFileNumber(rel))
		return MQ_TRUST_IN_ORDER;
	if (c->looked_at != MqRelFileNumber(rel))
		return MQ_TRUST_UNKNOWN;
	return c->in_order ? MQ_TRUST_IN_ORDER : MQ_TRUST_OUT_OF_ORDER;
}

void
mq_segment_found_order(const MqQueue *queue, int level, int64 segment, Relation rel, bool in_order)
{
	CachedSegment *c = cached(queue, level, segment);

	if (!cached_is(c, queue, level, segment) || c->relid != RelationGetRelid(rel))
		return;
	c->looked_at = MqRelFileNumber(rel);
	c->in_order = in_order;
}

/* Of a process that does not wait: takes ACCESS SHARE. False: somebody is in the way. *locked: InvalidOid if there is nothing to lock. */
static bool
lock_at_once(const MqQueue *queue, int level, int64 segment, Oid *locked)
{
	char		name[NAMEDATALEN];

	*locked = InvalidOid;
	if (mq_segment_waits)
		return true;
	AcceptInvalidationMessages();
	segment_name(name, queue, level, segment);
	*locked = get_relname_relid(name, mq_extension(false)->internal);
	return !OidIsValid(*locked) || ConditionalLockRelationOid(*locked, AccessShareLock);
}

/* What is open has a lock of its own by now. */
static void
unlock_again(Oid locked)
{
	if (OidIsValid(locked))
		UnlockRelationOid(locked, AccessShareLock);
}

Relation
mq_segment_open_at_once(const MqQueue *queue, int level, int64 segment)
{
	char		name[NAMEDATALEN];
	Oid			relid;
	Relation	rel;

	segment_name(name, queue, level, segment);
	relid = get_relname_relid(name, mq_extension(false)->internal);
	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, AccessShareLock))
		return NULL;
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
		UnlockRelationOid(relid, AccessShareLock);
	return rel;
}

Relation
mq_segment_open_still(const MqQueue *queue, int level, int64 segment, LOCKMODE *mode)
{
	const CachedSegment *c = cached(queue, level, segment);
	Oid			locked;

	for (int attempt = 0; attempt < 2; attempt++)
	{
		Oid			relid = c->relid;
		Relation	rel;

		*mode = RowExclusiveLock;
		if (cached_is(c, queue, level, segment) && ConditionalLockRelationOid(relid, *mode))
		{
			rel = cached_is(c, queue, level, segment) ? try_relation_open(relid, NoLock) : NULL;
			if (rel != NULL)
				return rel;
			UnlockRelationOid(relid, *mode);
		}
		*mode = AccessShareLock;
		if (!lock_at_once(queue, level, segment, &locked))
			return NULL;
		rel = mq_segment_open(queue, level, segment, *mode);
		unlock_again(locked);
		if (rel == NULL || attempt > 0)
			return rel;
		/* now that it is known */
		relation_close(rel, *mode);
	}
	return NULL;
}

void
mq_segment_complain(Relation rel, const char *what, const char *detail)
{
	static struct
	{
		Oid			relid;
		TimestampTz at;
	}			said[CACHED_SEGMENTS];
	int			i = RelationGetRelid(rel) % CACHED_SEGMENTS;
	TimestampTz now = GetCurrentTimestamp();

	if (said[i].relid == RelationGetRelid(rel) && now - said[i].at < USECS_PER_MINUTE && now >= said[i].at)
		return;
	said[i].relid = RelationGetRelid(rel);
	said[i].at = now;
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("segment \"%s\" %s", RelationGetRelationName(rel), what),
			 errdetail("%s", detail),
			 errhint("Somebody has written to it past mq, with triggers disabled.")));
}

static bool
is_there(const MqQueue *queue, int level, int64 segment)
{
	Relation	rel;
	Oid			locked;

	if (!lock_at_once(queue, level, segment, &locked))
		return true;
	rel = open_uncached(queue, level, segment, AccessShareLock);
	unlock_again(locked);
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
	if (!mq_any_row(ext->segment_rel, get_relname_relid("segment_pkey", ext->internal), 3, keys) &&
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
 * Refuses a queue's table, or a segment, to which a superuser has added what an append would bypass, or what would run
 * somebody's code when we do DDL on it: even an index on a constant expression does. (Nobody else can add anything.)
 */
static void
check_nothing_added(Relation rel, TupleDesc ours)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	check_columns(rel, ours);
	if (rel->rd_rel->relowner != mq_extension(false)->owner)
		refuse(rel, "another owner than the extension");
	if (rel->rd_rel->relhasindex && RelationGetIndexList(rel) != NIL)
		refuse(rel, "an index");
	if (has_foreign_trigger(rel))
		refuse(rel, "a trigger");
	if (constr != NULL && constr->num_check > 0)
		refuse(rel, "a check constraint");
	if (constr != NULL && constr->has_generated_stored)
		refuse(rel, "a generated column");
	if (rel->rd_rel->relrowsecurity)
		refuse(rel, "row level security");
	if (rel->rd_rel->relhasrules)
		refuse(rel, "a rule");
}

/* The same for the table of a queue, or a segment. */
static void
check_unaltered(const MqQueue *queue, Relation rel)
{
	check_nothing_added(rel, mq_row_descriptor());
	if (has_row_security(queue->table))
		refuse(rel, "row level security");
}

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
	rel = relation_open(relid, NoLock);
	check_nothing_added(rel, ours);
	relation_close(rel, NoLock);
}

/* An append writes the heap directly: refuse what it would not maintain. */
static void
check_appendable(const MqQueue *queue, Relation rel)
{
	check_unaltered(queue, rel);
	if (!RelationIsPermanent(rel))
		refuse(rel, "no crash safety");
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

static void
segment_not_made(const MqQueue *queue, int64 segment)
{
	/* a look without its lock: this is for a message */
	bool		has_worker = queue->db->worker_pid != 0;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("segment " INT64_FORMAT " of queue \"%s\" was not made in time", segment, NameStr(queue->name)),
			 has_worker ? errdetail("The mq worker of this database has not made it.")
			 : errdetail("This database has no mq worker."),
			 has_worker ? errhint("Look for errors of the mq worker in the server log, and for a session that holds a lock on the queue's table.")
			 : errhint("Look in the server log for why it does not start; max_worker_processes must leave room for it.")));
}

/* Whether this very transaction keeps the worker from putting the guard back. */
static bool
guard_is_locked_here(Relation rel)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, RelationGetRelid(rel));
	return MqLockHeldByMe(&tag, ShareRowExclusiveLock) || MqLockHeldByMe(&tag, AccessExclusiveLock);
}

static void
not_in_time(const MqQueue *queue, int64 segment, Relation rel)
{
	if (rel != NULL)
		refuse(rel, "its guard trigger switched off");
	segment_not_made(queue, segment);
}

/* rel: open, but its guard is off: the worker looks what somebody else has written, and puts it back. NULL: to be made. */
static Relation
wait_for_segment(const MqQueue *queue, int level, int64 segment, Relation rel)
{
	int64		deadline = mq_monotonic_us() + mq_segment_wait * MQ_MS;
	int64		check_at = mq_monotonic_us() + DeadlockTimeout * MQ_MS;

	mq_check_extension_owner();

	ConditionVariablePrepareToSleep(&queue->chain->segment_made);
	while (rel == NULL || !mq_segment_is_guarded(rel))
	{
		if (mq_monotonic_us() >= deadline || (rel != NULL && guard_is_locked_here(rel)))
			not_in_time(queue, segment, rel);
		if (rel != NULL)
			relation_close(rel, RowExclusiveLock);
		mq_queue_check_not_dropped(queue);
		if (mq_monotonic_us() >= check_at)
		{
			check_deadlock(queue, segment);
			check_at = mq_monotonic_us() + DeadlockTimeout * MQ_MS;
		}
		ask_worker(queue, level, segment);
		(void) ConditionVariableTimedSleep(&queue->chain->segment_made, 200, PG_WAIT_EXTENSION);
		rel = mq_segment_open(queue, level, segment, RowExclusiveLock);
	}
	ConditionVariableCancelSleep();
	return rel;
}

Relation
mq_segment_open_to_append(const MqQueue *queue, int level, int64 segment)
{
	Relation	rel = mq_segment_open(queue, level, segment, RowExclusiveLock);
	CachedSegment *c = cached(queue, level, segment);

	if (rel != NULL && c->checked && c->relid == RelationGetRelid(rel))
		return rel;
	if (rel == NULL && must_create_here(queue))
	{
		mq_segment_create(queue, level, segment);
		rel = mq_segment_open(queue, level, segment, RowExclusiveLock);
	}
	if (rel == NULL || !mq_segment_is_guarded(rel))
		rel = wait_for_segment(queue, level, segment, rel);
	check_appendable(queue, rel);
	if (cached_is(c, queue, level, segment))
		c->checked = true;
	return rel;
}

/*
 * The chunks are inserted under ROW EXCLUSIVE, the new value's id is looked for under ACCESS SHARE (GetNewOidWithIndex).
 * Whoever asks for a lock it holds already accepts no invalidations; whoever gets a new one does, and what was opened before
 * may have to be opened again. So that nothing is looked up later, all is opened once without any being accepted.
 */
void
mq_segment_lock_toast(Relation rel)
{
	uint64		before;

	if (!OidIsValid(rel->rd_rel->reltoastrelid))
		return;
	do
	{
		Relation	toast = table_open(rel->rd_rel->reltoastrelid, RowExclusiveLock);
		ListCell   *cell;

		before = invalidations;
		foreach(cell, RelationGetIndexList(toast))
		{
			LockRelationOid(lfirst_oid(cell), AccessShareLock);
			index_close(index_open(lfirst_oid(cell), RowExclusiveLock), NoLock);
		}
		table_close(toast, NoLock);
	} while (before != invalidations);
}

/* Nobody has a privilege on it, whatever ALTER DEFAULT PRIVILEGES says. */
static void
create_table(const char *name, const char *parent)
{
	mq_sql("CREATE TABLE mq_internal.%s (LIKE mq.%s) WITH (autovacuum_enabled = false, vacuum_truncate = false, "
		   "toast.autovacuum_enabled = false, toast.vacuum_truncate = false)", name, parent);
	mq_reset_privileges(get_relname_relid(name, mq_extension(false)->internal));
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
		check_unaltered(queue, rel);
		relation_close(rel, NoLock);
	}
	else
		mq_queue_dropped(queue);

	segment_name(name, queue, level, segment);
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

	segment_name(name, queue, level, segment);
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

	segment_name(name, queue, level, segment);
	mq_sql_begin(&context);
	mq_sql("UPDATE mq_internal.segment SET file = %u WHERE queue_no = %d AND level = %d AND segment = " INT64_FORMAT, file,
		   queue->queue_no, level, segment);
	/* everybody reads the record again */
	CacheInvalidateRelcacheByRelid(get_relname_relid(name, mq_extension(false)->internal));
	mq_sql_end(&context);
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

	segment_name(name, queue, level, segment);
	mq_sql_begin(&context);
	MQ_STOP_POINT("drop_before");
	mq_sql("DELETE FROM mq_internal.segment WHERE queue_no = %d AND level = %d AND segment = " INT64_FORMAT,
		   queue->queue_no, level, segment);
	/* nobody can name it, but somebody may have made something that depends on its oid */
	mq_sql("DROP TABLE IF EXISTS mq_internal.%s CASCADE", name);
	mq_sql_end(&context);
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
