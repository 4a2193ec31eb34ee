/*
 * worker.c: one per database that has the extension: segments ahead, sweeps, checkpoints, clearing up.
 *
 * States: ATTACHING (find the extension, claim the database's slot, build the windows) -> TURNING (one turn a second,
 * or when woken) -> ended (extension or slot gone, or told to). Each job runs in a transaction of its own; one that
 * fails is logged and tried again next turn, and the others go on. No job waits for a lock (D14): it takes locks
 * conditionally and leaves the work for the next turn. Between turns there is no transaction and no lock. A crash loses
 * nothing but the clocks that say since when something is superfluous.
 */
#include "postgres.h"

#include "worker.h"

#include "access/relation.h"
#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "checkpoint.h"
#include "log.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "rebuild.h"
#include "ring.h"
#include "segment.h"
#include "settings.h"
#include "stop_point.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define TURN_MS				1000
#define SEGMENTS_AHEAD		2
#define SETTLERS_AT_ONCE	64
#define LARGE_CHECKPOINT_S	600

static MqDatabase *database = NULL;
static MemoryContext turn_context = NULL;
static TimestampTz table_since[MQ_MAX_OFFSET_TABLES];

/* Since when a committed checkpoint says that a group has finished a segment. */
typedef struct FinishedKey
{
	int32		group_no;
	int32		level;
	int64		segment;
} FinishedKey;

typedef struct Finished
{
	FinishedKey key;
	TimestampTz since;
} Finished;

static HTAB *finished = NULL;
static HTAB *checkpoint_times = NULL;	/* group_no -> Finished.since, key with segment -1 */

/* ---- jobs ---- */

typedef bool (*Job) (void *arg);

/*
 * Takes, without waiting, the locks on our own tables that any job may need: DROP EXTENSION locks them too, in an order
 * of its own.
 */
static bool
lock_own_tables(void)
{
	const MqExtension *ext = mq_extension(true);
	Oid			relid;

	if (ext == NULL)
		return true;
	if (!ConditionalLockRelationOid(ext->queue_rel, RowExclusiveLock) ||
		!ConditionalLockRelationOid(ext->group_rel, RowExclusiveLock) ||
		!ConditionalLockRelationOid(ext->segment_rel, RowExclusiveLock))
		return false;
	for (int table = 0; OidIsValid(relid = mq_offset_log_table(table)); table++)
		if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
			return false;
	return true;
}

/* Runs a job in a transaction; false: it failed (and was logged) or said so. */
static bool
run(Job job, void *arg, const char *what)
{
	volatile bool done = false;

	CHECK_FOR_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, what);
	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(turn_context);
		done = lock_own_tables() && job(arg);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(turn_context);
	pgstat_report_stat(true);
	return done;
}

/* ---- segments ---- */

typedef struct SegmentJob
{
	MqQueue		queue;
	int64		segment;
	Oid			relid;
} SegmentJob;

/* Asked once it is locked: the queue may have been dropped since it was listed. */
static bool
table_exists(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
}

static bool
make_segment(void *arg)
{
	SegmentJob *job = arg;

	if (!ConditionalLockRelationOid(job->queue.table, ShareUpdateExclusiveLock) || !table_exists(job->queue.table))
		return false;
	mq_segment_create(&job->queue, 0, job->segment);
	return true;
}

static bool
seal_segment(void *arg)
{
	SegmentJob *job = arg;

	/* what building an index takes, and what changing the options takes */
	if (!ConditionalLockRelationOid(job->relid, ShareLock) ||
		!ConditionalLockRelationOid(job->relid, ShareUpdateExclusiveLock) || !table_exists(job->relid))
		return false;
	mq_segment_seal(&job->queue, 0, job->segment);
	return true;
}

static bool
is_empty(Oid relid)
{
	Relation	rel = relation_open(relid, NoLock);
	bool		empty = RelationGetNumberOfBlocks(rel) == 0;

	relation_close(rel, NoLock);
	return empty;
}

/* Locks from the leaf up; a parent in use leaves an empty leaf to be dropped another time. */
static bool
drop_segment(void *arg)
{
	SegmentJob *job = arg;

	if (!mq_lock_table_conditionally(job->relid, AccessExclusiveLock))
		return false;
	if (ConditionalLockRelationOid(job->queue.table, AccessExclusiveLock) && table_exists(job->queue.table))
	{
		mq_segment_drop(&job->queue, 0, job->segment);
		return true;
	}
	if (!is_empty(job->relid))
		mq_segment_truncate(&job->queue, 0, job->segment);
	return false;
}

static bool
has_segment(const MqSegmentInfo *list, int count, int64 segment)
{
	for (int i = 0; i < count; i++)
		if (list[i].segment == segment && OidIsValid(list[i].relid))
			return true;
	return false;
}

static void
segment_made(const MqQueue *queue, int64 segment)
{
	LWLockAcquire(MqAppendLock(queue->chain), LW_EXCLUSIVE);
	if (queue->chain->wanted_segment <= segment)
		queue->chain->wanted_segment = -1;
	LWLockRelease(MqAppendLock(queue->chain));
	ConditionVariableBroadcast(&queue->chain->segment_made);
}

/* Jumps to the next segment when the active one has become too large. The next one exists already. */
static void
cut_large_segment(const MqQueue *queue, const MqTail *tail, uint64 blocks)
{
	MqChainKey	key = mq_chain_key(queue, 0);
	MqChain    *chain = queue->chain;
	int64		segment = mq_segment_of(tail->next_id, queue->segment_size);
	int64		next = (segment + 1) * queue->segment_size;

	if (blocks * BLCKSZ < (uint64) mq_segment_max_size * 1024 * 1024)
		return;
	LWLockAcquire(MqAppendLock(chain), LW_EXCLUSIVE);
	if (memcmp(&chain->key, &key, sizeof(key)) == 0 && mq_segment_of(chain->next_id, queue->segment_size) == segment)
	{
		chain->next_id = next;
		chain->reserved_end = Max(chain->reserved_end, next);
	}
	LWLockRelease(MqAppendLock(chain));
}

typedef struct QueueList
{
	MqQueue    *queues;
	int			count;
	MqGroup    *groups;
	int			ngroups;
} QueueList;

typedef struct QueueWork
{
	const QueueList *all;
	MqQueue    *queue;
	MqSegmentInfo *segments;
	int			nsegments;
	MqTail		tail;
	int64		wanted;
	uint64		tail_blocks;
	bool		known;
} QueueWork;

/* A queue that came from elsewhere is left alone until a client has used it. */
static bool
is_ours(const MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	return !queue->foreign || mq_chain_slot(&key, false, NULL) != NULL;
}

/* Pages of a segment; 0 also when it cannot be locked now. */
static uint64
segment_blocks(const QueueWork *work, int64 segment)
{
	for (int i = 0; i < work->nsegments; i++)
	{
		Oid			relid = work->segments[i].relid;
		Relation	rel;
		uint64		blocks;

		if (work->segments[i].segment != segment || !OidIsValid(relid) ||
			!ConditionalLockRelationOid(relid, AccessShareLock) || (rel = try_relation_open(relid, NoLock)) == NULL)
			continue;
		blocks = RelationGetNumberOfBlocks(rel);
		relation_close(rel, NoLock);
		return blocks;
	}
	return 0;
}

static bool
look_at_queue(void *arg)
{
	QueueWork  *work = arg;

	if (!is_ours(work->queue))
		return false;
	work->segments = mq_segment_list(work->queue, &work->nsegments);
	if (!mq_queue_is_attached(work->queue))
	{
		/* that reads segments: somebody may be rewriting or dropping one */
		for (int i = 0; i < work->nsegments; i++)
			if (OidIsValid(work->segments[i].relid) &&
				!ConditionalLockRelationOid(work->segments[i].relid, AccessShareLock))
				return false;
		mq_attach_queue(work->queue);
	}
	if (!mq_log_tail(work->queue, 0, &work->tail))
		return false;
	work->wanted = work->queue->chain->wanted_segment;
	work->tail_blocks = segment_blocks(work, mq_segment_of(work->tail.next_id, work->queue->segment_size));
	return true;
}

static bool
make_segments(QueueWork *work)
{
	int64		active = mq_segment_of(work->tail.next_id, work->queue->segment_size);
	int64		last = Max(active + SEGMENTS_AHEAD, work->wanted);
	bool		all = true;

	for (int64 segment = active; segment <= last; segment++)
	{
		SegmentJob	job = {*work->queue, segment};

		if (!has_segment(work->segments, work->nsegments, segment))
		{
			if (!run(make_segment, &job, "creating a segment"))
			{
				all = false;
				continue;
			}
			MQ_STOP_POINT("segment_committed");
		}
		segment_made(work->queue, segment);
	}
	return all;
}

static bool
is_finished(const QueueWork *work, int level, int64 segment, TimestampTz now)
{
	for (int i = 0; i < work->all->ngroups; i++)
	{
		FinishedKey key = {work->all->groups[i].group_no, level, segment};
		Finished   *entry;

		if (work->all->groups[i].queue.queue_no != work->queue->queue_no)
			continue;
		entry = hash_search(finished, &key, HASH_FIND, NULL);
		if (entry == NULL || now - entry->since < (int64) mq_drop_delay * USECS_PER_SEC)
			return false;
	}
	return true;
}

/* Old segments: dropped if finished by all, else sealed. */
static void
clear_segments(QueueWork *work)
{
	int64		active = mq_segment_of(work->tail.next_id, work->queue->segment_size);
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < work->nsegments; i++)
	{
		SegmentJob	job = {*work->queue, work->segments[i].segment, work->segments[i].relid};

		if (job.segment >= active || !OidIsValid(job.relid))
			continue;
		if (is_finished(work, work->segments[i].level, job.segment, now))
			(void) run(drop_segment, &job, "dropping a segment");
		else if (!work->segments[i].sealed)
			(void) run(seal_segment, &job, "sealing a segment");
	}
}

/* ---- windows ---- */

static void
expire_leases(const MqWindowRef *ref)
{
	/* one moment for all: what is put off, because its transaction is open, must not come up again */
	TimestampTz now = GetCurrentTimestamp();

	while (mq_window_expire(ref, now))
		CHECK_FOR_INTERRUPTS();
}

static bool
xid_is_open(uint64 full)
{
	TransactionId xid = XidFromFullTransactionId(FullTransactionIdFromU64(full));

	if (U64FromFullTransactionId(ReadNextFullTransactionId()) - full > PG_INT32_MAX / 2)
		return false;
	return TransactionIdIsInProgress(xid);
}

/* Settles what transactions without callbacks (prepared, or from before a restart) left behind. */
static bool
settle_decided(void *arg)
{
	const MqWindowRef *ref = arg;
	int			room = MaxBackends + max_prepared_xacts + SETTLERS_AT_ONCE;
	uint64	   *xids = palloc(room * sizeof(uint64));
	int			count = mq_window_settlers(ref, xids, room);

	for (int i = 0; i < count; i++)
		if (!xid_is_open(xids[i]))
			mq_window_settled(ref, PG_INT64_MIN, PG_INT64_MAX, xids[i],
							  TransactionIdDidCommit(XidFromFullTransactionId(FullTransactionIdFromU64(xids[i]))), false);
	return count < room;
}

/* Prepared transactions that are decided, and whose marks the sweep before has settled, hold nothing back. */
static int
decided_prepared(uint64 *xids, int max)
{
	uint64		all[SETTLERS_AT_ONCE];
	int			count = 0;
	int			decided = 0;

	SpinLockAcquire(&database->mutex);
	for (uint32 p = database->prepared; p != 0 && count < Min(max, SETTLERS_AT_ONCE); p = MqPreparedAt(p)->next)
		all[count++] = MqPreparedAt(p)->xid;
	SpinLockRelease(&database->mutex);
	for (int i = 0; i < count; i++)
		if (!xid_is_open(all[i]))
			xids[decided++] = all[i];
	return decided;
}

static void
forget_prepared(uint64 xid)
{
	uint32	   *link;
	uint32		found = 0;

	SpinLockAcquire(&database->mutex);
	for (link = &database->prepared; *link != 0; link = &MqPreparedAt(*link)->next)
	{
		if (MqPreparedAt(*link)->xid == xid)
		{
			found = *link;
			*link = MqPreparedAt(found)->next;
			break;
		}
	}
	SpinLockRelease(&database->mutex);
	if (found != 0)
		mq_cell_free(found);
}

/* ---- checkpoints ---- */

static TimestampTz *
last_checkpoint(int32 group_no)
{
	FinishedKey key = {group_no, 0, -1};
	bool		found;
	Finished   *entry = hash_search(checkpoint_times, &key, HASH_ENTER, &found);

	if (!found)
		entry->since = 0;
	return &entry->since;
}

/*
 * Checkpoints are also written now and then, so that finished segments can go. The first one after a start of
 * this worker also when nothing has changed: only a checkpoint tells it which segments are finished.
 */
static bool
is_time_for_checkpoint(const MqWindowRef *ref, int32 group_no, const QueueWork *work)
{
	int64		interval = ref->window->nodes < MQ_SMALL_CHECKPOINT ? Max(Min(mq_drop_delay, 60), 1) : LARGE_CHECKPOINT_S;

	if (*last_checkpoint(group_no) == 0 && work->known && work->nsegments > SEGMENTS_AHEAD + 1)
		return true;
	return ref->window->changes != ref->window->checkpointed &&
		GetCurrentTimestamp() - *last_checkpoint(group_no) >= interval * USECS_PER_SEC;
}

static bool
write_checkpoint(void *arg)
{
	MqCheckpoint *checkpoint = arg;
	MqGroup		group = checkpoint->group;
	bool		written = mq_checkpoint_write(&group, checkpoint);

	if (written)
		MQ_STOP_POINT("checkpoint_written");
	return written;
}

static bool
intersects(const MqCheckpoint *checkpoint, int64 lo, int64 hi)
{
	int			a = 0;
	int			b = checkpoint->count;

	while (a < b)
	{
		int			mid = a + (b - a) / 2;

		if (checkpoint->unfinished[mid].hi < lo)
			a = mid + 1;
		else
			b = mid;
	}
	return a < checkpoint->count && checkpoint->unfinished[a].lo <= hi;
}

static void
note_finished_segments(const MqCheckpoint *checkpoint, const QueueWork *work)
{
	int64		size = work->queue->segment_size;

	for (int i = 0; i < work->nsegments; i++)
	{
		int64		segment = work->segments[i].segment;
		FinishedKey key = {checkpoint->group.group_no, work->segments[i].level, segment};
		bool		found;
		Finished   *entry;

		if ((segment + 1) * size > checkpoint->next_id ||
			intersects(checkpoint, segment * size, (segment + 1) * size - 1))
		{
			(void) hash_search(finished, &key, HASH_REMOVE, NULL);
			continue;
		}
		entry = hash_search(finished, &key, HASH_ENTER, &found);
		if (!found)
			entry->since = GetCurrentTimestamp();
	}
}

static void
checkpoint_group(const MqGroup *group, const QueueWork *work)
{
	MqCheckpoint checkpoint = {*group};

	if (!run(write_checkpoint, &checkpoint, "writing a checkpoint"))
		return;
	MQ_STOP_POINT("checkpoint_committed");
	mq_checkpoint_committed(&checkpoint);
	*last_checkpoint(group->group_no) = GetCurrentTimestamp();
	if (work->known)
		note_finished_segments(&checkpoint, work);
}

/* False: transactions may be decided that have marks in the group still. */
static bool
care_for_group(MqGroup *group, const QueueWork *work)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, false, NULL), key};
	int64		needed;
	bool		settled;

	if (ref.window == NULL || ref.window->root == 0)
		return true;
	group->window = ref.window;
	expire_leases(&ref);
	settled = run(settle_decided, &ref, "settling decided transactions");
	needed = (int64) pg_atomic_read_u64(&ref.window->oldest_needed);
	if (mq_checkpoint_is_due(&ref) || is_time_for_checkpoint(&ref, group->group_no, work) ||
		(needed != 0 && needed <= mq_ring_blocked_by(database)))
		checkpoint_group(group, work);
	return settled;
}

/* ---- ring ---- */

static bool
move_on(void *arg)
{
	*(bool *) arg = mq_ring_move_on(database);
	return true;
}

static bool
truncate_table(void *arg)
{
	return mq_ring_truncate(*(int *) arg);
}

static void
care_for_ring(const QueueList *all)
{
	int			table;
	bool		made = false;

	if (run(move_on, &made, "moving on in the offset log") && made)
		mq_ring_grown(database);
	/* the rows of a restored queue that nobody has used yet are known to no window */
	for (int i = 0; i < all->count; i++)
		if (!is_ours(&all->queues[i]))
			return;
	table = mq_ring_superfluous(database, table_since);
	if (table >= 0 && run(truncate_table, &table, "truncating an offset log table"))
		mq_ring_emptied(database, table);
}

/* ---- clearing up ---- */

static void
forget_dead_extensions(void)
{
	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		MqDatabaseKey key = mq_databases[i].key;

		if (key.database == MyDatabaseId && !mq_extension_may_exist(key.extension))
			mq_forget_database(key.database, key.extension);
	}
}

/* Queues that were dropped, or whose creation was rolled back, leave their slots behind; extensions too. */
static bool
clear_slots(void *arg)
{
	const MqExtension *ext = mq_extension(false);

	forget_dead_extensions();
	for (int i = 0; i < mq_max_groups; i++)
	{
		MqWindowRef ref = {&mq_windows[i], mq_windows[i].key};

		if (ref.key.level < 0 || memcmp(&ref.key.db, &database->key, sizeof(MqDatabaseKey)) != 0 ||
			mq_catalog_may_exist(ext->group_rel, ref.key.group_no))
			continue;
		mq_window_clear(&ref);
		mq_window_forget(&ref.key);
	}
	for (int i = 0; i < mq_max_queues; i++)
	{
		MqChainKey	key = mq_chains[i].key;

		if (key.level >= 0 && memcmp(&key.db, &database->key, sizeof(MqDatabaseKey)) == 0 &&
			!mq_catalog_may_exist(ext->queue_rel, key.queue_no))
			mq_chain_forget(&key);
	}
	return true;
}

/* A queue restored, copied or upgraded is ours from the first use on. The order of its pages is not known. */
static bool
adopt_queue(void *arg)
{
	MqQueue    *queue = arg;
	MqSqlContext context;

	mq_sql_begin(&context);
	mq_sql("UPDATE mq.segment SET file = 0 WHERE queue_no = %d", queue->queue_no);
	mq_sql("UPDATE mq.queue SET system_identifier = " INT64_FORMAT ", database = %u, extension = %u WHERE queue_no = %d",
		   (int64) GetSystemIdentifier(), MyDatabaseId, database->key.extension, queue->queue_no);
	mq_sql_end(&context);
	mq_catalog_changed();
	return true;
}

/* ---- turns ---- */

static bool
mark_log(void *arg)
{
	mq_offset_log_mark(database, *(bool *) arg);
	return true;
}

/* Says in the offset log that mq runs, so that a crash is known for one; or that it stops in order. */
static void
mark_offset_log(bool stop)
{
	(void) run(mark_log, &stop, stop ? "noting the stop" : "noting the start");
}

static bool
list_all(void *arg)
{
	QueueList  *all = arg;
	const MqExtension *ext = mq_extension(true);

	if (ext == NULL || ext->oid != database->key.extension)
		proc_exit(0);
	mq_attach_database(database);
	all->queues = mq_queues_all(&all->count);
	all->groups = mq_groups_all(&all->ngroups);
	return true;
}

/* False: as care_for_group. */
static bool
care_for_queue(const QueueList *all, MqQueue *queue)
{
	QueueWork	work = {all, queue};
	bool		settled = true;

	work.known = run(look_at_queue, &work, "looking at a queue");
	if (work.known && make_segments(&work))
		cut_large_segment(queue, &work.tail, work.tail_blocks);
	for (int i = 0; i < all->ngroups; i++)
		if (all->groups[i].queue.queue_no == queue->queue_no)
			settled &= care_for_group(&all->groups[i], &work);
	if (work.known)
		clear_segments(&work);
	if (work.known && queue->foreign && queue->chain->adopt_wanted && run(adopt_queue, queue, "adopting a queue"))
		queue->chain->adopt_wanted = false;
	return settled;
}

/* Before the server stops: a checkpoint of what changed, so that failure counts survive and a start is quick. */
static void
last_checkpoints(void)
{
	QueueList	all = {0};

	if (!run(list_all, &all, "looking for queues"))
		return;
	for (int i = 0; i < all.ngroups; i++)
	{
		QueueWork	work = {&all, &all.groups[i].queue};
		MqWindowKey key = mq_window_key(&all.groups[i], 0);
		MqWindow   *window = mq_window_slot(&key, false, NULL);

		if (window == NULL || window->root == 0 || window->changes == window->checkpointed)
			continue;
		all.groups[i].window = window;
		checkpoint_group(&all.groups[i], &work);
	}
	mark_offset_log(true);
}

static void
turn(void)
{
	static bool marked = false;
	QueueList	all = {0};
	uint64		prepared[SETTLERS_AT_ONCE];
	int			nprepared;
	bool		settled = true;

	if (!run(list_all, &all, "looking for queues"))
		return;
	if (!marked)
		mark_offset_log(false);
	marked = true;
	nprepared = decided_prepared(prepared, SETTLERS_AT_ONCE);
	for (int i = 0; i < all.count; i++)
		settled &= care_for_queue(&all, &all.queues[i]);
	for (int i = 0; i < nprepared && settled; i++)
		forget_prepared(prepared[i]);
	care_for_ring(&all);
	(void) run(clear_slots, NULL, "clearing up");
}

/* ---- process ---- */

static void
leave_slot(int code, Datum arg)
{
	if (database == NULL)
		return;
	SpinLockAcquire(&database->mutex);
	if (database->worker_pid == MyProcPid)
	{
		database->worker_pid = 0;
		database->worker_procno = -1;
	}
	SpinLockRelease(&database->mutex);
}

/* False: there is no extension here, or another worker. */
static bool
claim_slot(void)
{
	const MqExtension *ext = mq_extension(true);
	bool		claimed;

	if (ext == NULL)
	{
		forget_dead_extensions();
		return false;
	}
	database = ext->db;
	SpinLockAcquire(&database->mutex);
	claimed = database->worker_pid == 0;
	if (claimed)
	{
		database->worker_pid = MyProcPid;
		database->worker_procno = MqMyProcNumber();
		database->worker_wanted = false;
	}
	SpinLockRelease(&database->mutex);
	if (!claimed)
		database = NULL;
	return claimed;
}

static void
attach(void)
{
	bool		claimed;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	before_shmem_exit(leave_slot, (Datum) 0);
	claimed = claim_slot();
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (!claimed)
		proc_exit(0);
}

static void
make_memory(void)
{
	HASHCTL		ctl;

	turn_context = AllocSetContextCreate(TopMemoryContext, "mq worker turn", ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(FinishedKey);
	ctl.entrysize = sizeof(Finished);
	finished = hash_create("mq finished segments", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	checkpoint_times = hash_create("mq checkpoint times", 64, &ctl, HASH_ELEM | HASH_BLOBS);
}

/* The first request lets the turn end and the last checkpoints be written; a second one ends it at once. */
static void
handle_sigterm(SIGNAL_ARGS)
{
	if (ShutdownRequestPending)
		die(postgres_signal_arg);
	else
		SignalHandlerForShutdownRequest(postgres_signal_arg);
}

void
mq_worker_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	/* what cannot be locked conditionally (a default partition, TOAST tables in DDL) must not hold up everything else */
	SetConfigOption("lock_timeout", "1s", PGC_SUSET, PGC_S_OVERRIDE);
	make_memory();
	attach();
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		turn();
		MemoryContextReset(turn_context);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, TURN_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (ShutdownRequestPending)
		{
			last_checkpoints();
			proc_exit(0);
		}
	}
}
