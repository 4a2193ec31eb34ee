/*
 * rebuild.c: making a queue's shared state when it is first used.
 *
 * One pass over the ring builds the windows of all groups of the database that were last used in it, once after each
 * start of the server. Groups made since (with greater numbers) have no rows there and begin empty. A queue that came from elsewhere
 * (restore, template copy) is built by a pass of its own at its first use. What a pass does: replay.c.
 *
 * Keeps nothing on disk, and what it makes in shared memory goes with a crash. Locks: SHARE UPDATE EXCLUSIVE on the first ring table
 * serialises the passes, and is held over what a pass takes (replay.c); then, for the append position, segments for a look each
 * (mq_log_attach). Window locks and the spinlock of the database for a moment, neither under the other.
 */
#include "postgres.h"

#include "offset/rebuild.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"

#include "base/definitions.h"
#include "base/settings.h"
#include "log/log.h"
#include "log/schedule.h"
#include "log/segment.h"
#include "offset/fill.h"
#include "offset/offset_log.h"
#include "offset/replay.h"

/* Of a window without entries: how many it takes; 0: it was not left out. */
static int64
left_out(const MqWindowRef *ref)
{
	int64		cells;

	if (ref->window == NULL || !mq_window_lock(ref, LW_SHARED))
		return 0;
	cells = ref->window->root == 0 ? ref->window->left_out : 0;
	mq_window_unlock(ref);
	return cells;
}

/* Takes the mutex: who waited for another process's rebuild sees that it is done. */
static bool
is_rebuilt(MqDatabase *db)
{
	bool		rebuilt;

	SpinLockAcquire(&db->mutex);
	rebuilt = db->rebuilt;
	SpinLockRelease(&db->mutex);
	return rebuilt;
}

/* Everything palloc'd goes with the context: a replay may hold all unfinished messages twice. */
static MemoryContext
begin_rebuild(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mq rebuild", ALLOCSET_DEFAULT_SIZES);

	LockRelationOid(mq_offset_log_table(0), ShareUpdateExclusiveLock);
	return MemoryContextSwitchTo(context);
}

/* The lock goes now, not with the transaction: what the pass has made is in shared memory already. */
static void
end_rebuild(MemoryContext old)
{
	MemoryContext context = MemoryContextSwitchTo(old);

	UnlockRelationOid(mq_offset_log_table(0), ShareUpdateExclusiveLock);
	MemoryContextDelete(context);
}

void
mq_attach_database(MqDatabase *db)
{
	MemoryContext old;

	if (db->rebuilt)
		return;
	old = begin_rebuild();
	if (!is_rebuilt(db))
	{
		int			count;
		int64		known = mq_catalog_last_group();
		MqGroup    *groups = mq_groups_all(&count);
		int			native = 0;

		for (int i = 0; i < count; i++)
		{
			known = Max(known, groups[i].group_no);
			/* a foreign one has a pass of its own, at its first use */
			if (!groups[i].queue.foreign)
				groups[native++] = groups[i];
		}
		known = Max(known, mq_replay_groups(db, groups, native, true));
		SpinLockAcquire(&db->mutex);
		db->known_groups = known;
		db->rebuilt = true;
		SpinLockRelease(&db->mutex);
	}
	end_rebuild(old);
}

/* False: there is no window, or it has no entries yet. A filled one has the frontier, at least. */
static bool
window_is_filled(const MqWindowRef *ref)
{
	bool		filled;

	if (ref->window == NULL || !mq_window_lock(ref, LW_SHARED))
		return false;
	filled = ref->window->root != 0;
	mq_window_unlock(ref);
	return filled;
}

/* False: it does not fit; that costs no replay as long as there is not more memory. */
static bool
attach_window(MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, false, NULL), key};
	int64		needed = left_out(&ref);
	MemoryContext old;

	group->window = ref.window;
	if (window_is_filled(&ref))
		return true;
	if (ref.window == NULL && mq_windows_are_full())
		return false;
	if (needed > 0 && needed + mq_shared->total_cells / MQ_RESERVE_PART > mq_shared->free_cells)
		return false;
	old = begin_rebuild();
	/* one that the rebuild could not see may have rows too: its transaction was prepared, or somebody was dropping it */
	if (group->queue.foreign || group->group_no <= group->queue.db->known_groups)
		(void) mq_replay_groups(group->queue.db, group, 1, false);
	else
		mq_replay_nothing(group);
	end_rebuild(old);
	ref.window = group->window;
	return ref.window != NULL && left_out(&ref) == 0;
}

/* Raises 53400 if all slots are taken, 53200 if it does not fit. After a rollback the worker clears the window away. */
void
mq_attach_new_group(MqGroup *group, const MqUnfinished *parts, int64 count, int64 oldest_needed)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, true, NULL), key};
	int64		needed = mq_fill(NULL, parts, count, true, NULL);
	MqCellList	cells;
	MqRetryPolicy policy;

	memset(&policy, 0, sizeof(policy));
	(void) mq_read_retry_policy(group->group_no, &policy);
	if (!mq_share_cells(&cells, needed, 0))
		mq_out_of_cells(needed);
	if (mq_window_lock(&ref, LW_EXCLUSIVE))
	{
		ref.window->queue_no = group->queue.queue_no;
		ref.window->epoch = group->epoch;
		ref.window->retry = policy;
		(void) mq_fill(ref.window, parts, count, true, &cells);
		pg_atomic_write_u64(&ref.window->oldest_needed, oldest_needed);
		ref.window->changes++;
		mq_window_unlock(&ref);
	}
	mq_cells_return(&cells);
	group->window = ref.window;
	mq_catalog_remember(group);
}

/* The append position begins above whatever a group has seen. */
static int64
groups_next_id(const MqQueue *queue)
{
	int			count;
	MqGroup    *groups = mq_groups_of(queue, &count);
	int64		next = 0;

	for (int i = 0; i < count; i++)
	{
		MqWindowCounts counts;
		MqWindowRef ref;

		(void) attach_window(&groups[i]);
		ref = (MqWindowRef) {groups[i].window, mq_window_key(&groups[i], 0)};
		if (ref.window != NULL && mq_window_counts(&ref, &counts))
			next = Max(next, counts.next_id);
	}
	pfree(groups);
	return next;
}

/* Looked at without a lock: a key never changes while the queue exists, and ready stays true. */
static bool
chain_is_attached(const MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	return queue->chain != NULL && memcmp(&queue->chain->key, &key, sizeof(key)) == 0 && queue->chain->ready;
}

bool
mq_queue_is_attached(MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	queue->chain = mq_chain_slot(&key, false, NULL);
	return queue->db->rebuilt && chain_is_attached(queue);
}

/* What groups have finished was in another table; the worker lets them begin anew (job_adopt.c). */
static void
refuse_replaced(const MqQueue *queue)
{
	mq_worker_wake(queue->db);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the table of queue \"%s\" was replaced by another one", NameStr(queue->name)),
			 errhint("Try again in a second: the worker of mq takes the table over, and the groups begin at its start.")));
}

void
mq_attach_queue(MqQueue *queue)
{
	mq_attach_database(queue->db);
	if (chain_is_attached(queue))
		return;
	if (queue->replaced)
		refuse_replaced(queue);
	/* all groups are asked how far they have come, but only once after a start */
	if (!mq_queue_is_attached(queue))
		mq_log_attach(queue, 0, groups_next_id(queue));
	mq_catalog_remember_chain(queue);
}

/* The caller has locked it; false, too, if it was dropped before that. */
static bool
has_pages(Oid relid)
{
	Relation	rel = try_relation_open(relid, NoLock);
	bool		has;

	if (rel == NULL)
		return false;
	has = RelationGetNumberOfBlocks(rel) > 0;
	relation_close(rel, NoLock);
	return has;
}

/*
 * Locks what attaching reads: from the last segment on, down to one that is not empty. False: somebody is in the way. *first: the
 * first one that is locked.
 */
static bool
lock_end_at_once(const MqSegmentInfo *list, int count, int *first)
{
	for (*first = count; *first > 0;)
	{
		Oid			relid = list[*first - 1].relid;

		if (OidIsValid(relid) && !ConditionalLockRelationOid(relid, AccessShareLock))
			return false;
		(*first)--;
		if (OidIsValid(relid) && has_pages(relid))
			break;
	}
	return true;
}

/* Attaching reads segments: somebody may be rewriting or dropping one, or keep it locked. */
bool
mq_attach_queue_at_once(MqQueue *queue)
{
	MqSegmentInfo *list;
	int			count;
	int			first;
	bool		locked;

	/* before there is a lock on a segment */
	mq_attach_database(queue->db);
	if (mq_queue_is_attached(queue))
		return true;
	list = mq_segment_list(queue, &count);
	locked = lock_end_at_once(list, count, &first) && (!queue->foreign || mq_schedule_lock_tables_at_once());
	if (locked)
		mq_attach_queue(queue);
	for (int i = first; i < count; i++)
		if (OidIsValid(list[i].relid))
			UnlockRelationOid(list[i].relid, AccessShareLock);
	pfree(list);
	return locked;
}

bool
mq_attach_group_if_it_fits(MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);

	mq_attach_queue(&group->queue);
	if (group->window != NULL && memcmp(&group->window->key, &key, sizeof(key)) == 0 && group->window->left_out == 0)
		return true;
	if (!attach_window(group))
		return false;
	mq_catalog_remember(group);
	return true;
}

/* 53200: what is unfinished for it does not fit. 53400: there is no room for one more window. */
void
mq_attach_group(MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);

	if (mq_attach_group_if_it_fits(group))
		return;
	/* says so when all slots are taken */
	if (group->window == NULL)
	{
		(void) mq_window_slot(&key, true, NULL);
		if (mq_attach_group_if_it_fits(group))
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("the unfinished messages of consumer group \"%s\" of queue \"%s\" do not fit into mq's shared memory",
					NameStr(group->name), NameStr(group->queue.name)),
			 errdetail("Entries needed: " INT64_FORMAT ".", group->window == NULL ? 0 : group->window->left_out),
			 errhint(MQ_MEMORY_HINT)));
}

/* It may have rows in the offset log that no window asks to be kept. One that was left out does ask (oldest_needed). */
static bool
needs_window(const MqDatabase *db, const MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, false, NULL), key};

	return !group->queue.foreign && group->group_no <= db->known_groups && !window_is_filled(&ref) && left_out(&ref) == 0;
}

/* Where all slots are taken nothing is tried: that would take one for the queue all the same, or raise an error. */
static bool
can_have_window(const MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqChainKey	chain = mq_chain_key(&group->queue, 0);

	return !group->queue.replaced && (mq_window_slot(&key, false, NULL) != NULL || !mq_windows_are_full()) &&
		(mq_chain_slot(&chain, false, NULL) != NULL || !mq_chains_are_full());
}

bool
mq_all_attached(MqDatabase *db)
{
	int			count;
	MqGroup    *groups = mq_groups_all(&count);

	for (int i = 0; i < count; i++)
		if (needs_window(db, &groups[i]))
			return false;
	return true;
}

bool
mq_attach_missing(MqDatabase *db, MqGroup *groups, int count)
{
	bool		all = true;

	for (int i = 0; i < count; i++)
		if (needs_window(db, &groups[i]))
			all &= can_have_window(&groups[i]) && mq_attach_queue_at_once(&groups[i].queue) &&
				mq_attach_group_if_it_fits(&groups[i]);
	return all;
}

/* extension: InvalidOid for any of the database. */
static bool
is_of(const MqDatabaseKey *key, Oid database, Oid extension)
{
	return key->database == database && (extension == InvalidOid || key->extension == extension);
}

void
mq_forget_database(Oid database, Oid extension)
{
	/* windows before chains: who is in line relies on both (wake.c) */
	for (int i = 0; i < mq_max_groups; i++)
	{
		MqWindowKey key = mq_windows[i].key;

		if (key.level >= 0 && is_of(&key.db, database, extension))
			mq_window_forget(&key);
	}
	for (int i = 0; i < mq_max_queues; i++)
	{
		MqChainKey	key = mq_chains[i].key;

		if (key.level >= 0 && is_of(&key.db, database, extension))
			mq_chain_forget(&key);
	}
	for (int i = 0; i < MQ_MAX_DATABASES; i++)
		if (is_of(&mq_databases[i].key, database, extension))
			mq_database_forget(&mq_databases[i]);
}
