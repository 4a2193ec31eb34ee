/*
 * segment.c: the partitions of a queue's log: which there are, opening and locking them.
 *
 * Owns the reading of mq_internal.segment (one row per partition: the file it was made with, whether it is sealed) and the cache of
 * open segments in this process. Locks: senders lock a leaf ROW EXCLUSIVE to the end of their transaction, readers ACCESS
 * SHARE while they read; nobody locks the parent but whoever makes or drops a segment (segment_table.c), and for a moment,
 * conditionally, a reader that finds one missing whose record is there. Who waits for a segment takes the append lock for a moment,
 * to ask the worker. A crash loses nothing but the cache.
 */
#include "postgres.h"

#include "log/segment.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/clock.h"
#include "base/definitions.h"
#include "base/owner.h"
#include "base/settings.h"
#include "log/segment_table.h"

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

/* A segment takes the place of the one before that has the same hash. */
static CachedSegment cache[CACHED_SEGMENTS];

bool		mq_segment_waits = true;

/* goes up whenever this process has thrown away what it knew of a relation */
static uint64 invalidations = 0;

/* May run at any time; never throws. Forgets a leaf, or those of a queue whose table has changed; what is open stays open. */
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

static void
segment_keys(ScanKey keys, const MqQueue *queue, int level, int64 segment)
{
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->queue_no));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(level));
	ScanKeyInit(&keys[2], 3, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(segment));
}

/* All but relid, which is no column. */
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

/* Tables are looked up by name and not locked: one may be gone by the time it is opened. */
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
		mq_segment_name(name, queue, list[*count].level, list[*count].segment);
		list[*count].relid = get_relname_relid(name, ext->internal);
		(*count)++;
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return list;
}

/* Where the segment is, if it is in the cache: another one may be there (cached_is). */
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

/* By name, and waits for the lock. NULL: there is no such table. The cache is neither asked nor filled. */
static Relation
open_uncached(const MqQueue *queue, int level, int64 segment, LOCKMODE mode)
{
	char		name[NAMEDATALEN];
	Oid			relid;

	/* a segment just made by the worker may be missing from this process's view of the catalog */
	AcceptInvalidationMessages();
	mq_segment_name(name, queue, level, segment);
	relid = get_relname_relid(name, mq_extension(false)->internal);
	return OidIsValid(relid) ? try_relation_open(relid, mode) : NULL;
}

/*
 * A wait for the lock may throw the cached entry away: that is looked at again under it. 55000 for what is no heap, or has other
 * columns.
 */
Relation
mq_segment_open(const MqQueue *queue, int level, int64 segment, LOCKMODE mode)
{
	CachedSegment *c = cached(queue, level, segment);
	MqSegmentInfo info;
	Relation	rel = NULL;
	RelFileNumber looked_at;

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
		mq_segment_refuse(rel, "another access method");
	/* of the next extension, whose names and numbers start again */
	if (!mq_queue_is_current(queue))
	{
		relation_close(rel, mode);
		return NULL;
	}
	if (!read_info(queue, level, segment, &info))
		info.file = InvalidOid;
	looked_at = c->relid == RelationGetRelid(rel) ? c->looked_at : InvalidRelFileNumber;
	/* not the numbers of the one and the table of the other, if an error comes */
	c->relid = InvalidOid;
	c->queue_no = queue->queue_no;
	c->level = level;
	c->segment = segment;
	c->file = queue->foreign ? InvalidOid : info.file;
	c->guarded = mq_segment_is_guarded(rel);
	c->looked_at = looked_at;
	c->checked = false;
	c->parent = queue->table;
	mq_segment_check_columns(rel, mq_row_descriptor());
	c->relid = RelationGetRelid(rel);
	return rel;
}

/* The segment is open and locked. What is not in the cache, for whatever reason, is not trusted. */
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
	mq_segment_name(name, queue, level, segment);
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

	mq_segment_name(name, queue, level, segment);
	relid = get_relname_relid(name, mq_extension(false)->internal);
	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, AccessShareLock))
		return NULL;
	rel = try_relation_open(relid, NoLock);
	if (rel != NULL && mq_segment_can_be_read(rel))
		return rel;
	if (rel != NULL)
		relation_close(rel, NoLock);
	UnlockRelationOid(relid, AccessShareLock);
	return NULL;
}

/* Only the oid of a segment that is in the cache can be locked at once: the first attempt may do no more than bring it there. */
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

/* True also if a process that does not wait finds it locked: then it is not known to be gone. */
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

/* An append writes the heap directly: refuse what it would not maintain. */
static void
check_appendable(const MqQueue *queue, Relation rel)
{
	mq_segment_check_unaltered(queue, rel);
	if (!RelationIsPermanent(rel))
		mq_segment_refuse(rel, "no crash safety");
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

/* Senders may wait for several: the greatest one counts. Takes the append lock, and sets the worker's latch after it. */
void
mq_segment_ask_for(const MqQueue *queue, int level, int64 segment)
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

/* Raises 55000. rel: as in wait_for_segment. */
static void
not_in_time(const MqQueue *queue, int64 segment, Relation rel)
{
	if (rel != NULL)
		mq_segment_refuse(rel, "its guard trigger switched off");
	segment_not_made(queue, segment);
}

/* rel: open, but its guard is off: the worker looks what somebody else has written, and puts it back. NULL: to be made. */
static Relation
wait_for_segment(const MqQueue *queue, int level, int64 segment, Relation rel)
{
	int64		deadline = mq_monotonic_us() + mq_segment_wait * MQ_MS;
	int64		check_at = mq_monotonic_us() + DeadlockTimeout * MQ_MS;

	mq_check_extension_owner();
	/* it is the worker itself that makes segments and puts guards back: in its next turn */
	if (!mq_segment_waits)
	{
		mq_segment_ask_for(queue, level, segment);
		not_in_time(queue, segment, rel);
	}
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
		mq_segment_ask_for(queue, level, segment);
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
	/* until an invalidation, which comes with each alteration */
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
