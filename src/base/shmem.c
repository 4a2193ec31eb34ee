/*
 * shmem.c: the shared memory of mq: slots for databases, append positions and delivery windows, and the arena.
 *
 * Owns every structure of shmem.h. Locks, outermost first: registry lock; then an append lock or a window lock
 * (never both); then the spinlocks of a database and of the arena, innermost. A crash loses it all; the
 * postmaster makes it anew. The arena's cells are all of one size, so that freeing never fails and a commit
 * callback can return them; the price is a bound that is fixed at server start.
 */
#include "postgres.h"

#include "base/shmem.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "base/settings.h"

MqShared   *mq_shared = NULL;
MqDatabase *mq_databases = NULL;
MqChain    *mq_chains = NULL;
MqWindow   *mq_windows = NULL;
MqCell	   *mq_cells = NULL;
MqWaiter   *mq_waiters = NULL;
int64	   *mq_first_n = NULL;

/* In shared memory, from a key to its slot; guarded by the registry lock. */
static HTAB *chain_hash = NULL;
static HTAB *window_hash = NULL;

typedef struct ChainEntry
{
	MqChainKey	key;
	int			slot;
} ChainEntry;

typedef struct WindowEntry
{
	MqWindowKey key;
	int			slot;
} WindowEntry;

#define TOKEN_BITS		52			/* microseconds since 2000: enough until 2142 */
#define PROCESS_MASK	0x3FFFF		/* 18 bits: as many processes as there can be */
#define CELLS_PER_SLICE	16

/* What mq.shared_memory has room for, with cell 0, which is never used. Limited to what counts of cells (int) can hold. */
static uint32
cell_count(void)
{
	return (uint32) Min((Size) mq_shared_memory_mb * 1024 * 1024 / sizeof(MqCell), (Size) PG_INT32_MAX);
}

static uint32
process_count(void)
{
	/* room for auxiliary processes and the dummies of prepared transactions, whose numbers are never used */
	return MaxBackends + NUM_AUXILIARY_PROCS + max_prepared_xacts + 1;
}

/* Everything but the hash tables, in the order in which mq_shmem_startup lays it out. An overflow is an error. */
static Size
fixed_size(void)
{
	Size		size = MAXALIGN(sizeof(MqShared));

	size = add_size(size, MAXALIGN(mul_size(MQ_MAX_DATABASES, sizeof(MqDatabase))));
	size = add_size(size, MAXALIGN(mul_size(mq_max_queues, sizeof(MqChain))));
	size = add_size(size, MAXALIGN(mul_size(mq_max_groups, sizeof(MqWindow))));
	size = add_size(size, MAXALIGN(mul_size(process_count(), sizeof(int64))));
	size = add_size(size, MAXALIGN(mul_size(process_count(), sizeof(MqWaiter))));
	return add_size(size, mul_size(cell_count(), sizeof(MqCell)));
}

void
mq_shmem_request(void)
{
	Size		size = fixed_size();

	size = add_size(size, hash_estimate_size(mq_max_queues, sizeof(ChainEntry)));
	size = add_size(size, hash_estimate_size(mq_max_groups, sizeof(WindowEntry)));
	RequestAddinShmemSpace(size);
	RequestNamedLWLockTranche("mq_registry", 1);
	RequestNamedLWLockTranche("mq_append", mq_max_queues);
	RequestNamedLWLockTranche("mq_window", mq_max_groups);
}

/* All slots are free. Spinlocks and condition variables are made here only, and stay when a slot gets another owner. */
static void
init_slots(void)
{
	memset(mq_databases, 0, MQ_MAX_DATABASES * sizeof(MqDatabase));
	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		SpinLockInit(&mq_databases[i].mutex);
		pg_atomic_init_u32(&mq_databases[i].moved_current, 0);
		pg_atomic_init_u64(&mq_databases[i].next_due, 0);
		pg_atomic_init_u64(&mq_databases[i].sleeps_until, 0);
	}

	memset(mq_chains, 0, mq_max_queues * sizeof(MqChain));
	for (int i = 0; i < mq_max_queues; i++)
	{
		mq_chains[i].key.level = -1;
		ConditionVariableInit(&mq_chains[i].segment_made);
		SpinLockInit(&mq_chains[i].wait_mutex);
		mq_chains[i].first_waiting = -1;
		pg_atomic_init_u32(&mq_chains[i].waiters, 0);
		pg_atomic_init_u32(&mq_chains[i].notify, MQ_NOTIFY_OFF);
		pg_atomic_init_u32(&mq_chains[i].definition, 0);
		pg_atomic_init_u64(&mq_chains[i].next_due, 0);
		pg_atomic_init_u64(&mq_chains[i].seen_due, 0);
		pg_atomic_init_u64(&mq_chains[i].scheduled, 0);
		pg_atomic_init_u32(&mq_chains[i].scheduled_known, 0);
		pg_atomic_init_u32(&mq_chains[i].scheduled_counted, 0);
		SpinLockInit(&mq_chains[i].bounds.mutex);
		pg_atomic_init_u64(&mq_chains[i].bounds.scheduling, 0);
		pg_atomic_init_u64(&mq_chains[i].duplicates, 0);
		for (int table = 0; table < MQ_DEDUP_TABLES; table++)
			pg_atomic_init_u64(&mq_chains[i].dedup_ids[table], 0);
		pg_atomic_init_u32(&mq_chains[i].dedup_known, 0);
	}

	memset(mq_windows, 0, mq_max_groups * sizeof(MqWindow));
	for (int i = 0; i < mq_max_groups; i++)
		mq_windows[i].key.level = -1;
	memset(mq_first_n, 0, process_count() * sizeof(int64));
	memset(mq_waiters, 0, process_count() * sizeof(MqWaiter));
	for (int i = 0; i < process_count(); i++)
		SpinLockInit(&mq_waiters[i].shown_mutex);
}

/* Receipts of an earlier life must not fit, even if the clock was set back. The highest bit: no token is 0. */
static uint64
random_mask(void)
{
	uint64		mask;

	if (!pg_strong_random(&mask, sizeof(mask)))
		ereport(FATAL, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random token")));
	mask &= (UINT64CONST(1) << TOKEN_BITS) - 1;
	return mask | (UINT64CONST(1) << (TOKEN_BITS - 1));
}

/* Once in a life of the shared memory. Caller holds AddinShmemInitLock. */
static void
init_shared(void)
{
	pg_atomic_init_u64(&mq_shared->last_token_time, 0);
	mq_shared->token_mask = random_mask();
	SpinLockInit(&mq_shared->arena_mutex);
	mq_shared->free_list = 0;
	mq_shared->never_used = 1;	/* cell 0 means none */
	mq_shared->total_cells = cell_count();
	mq_shared->free_cells = mq_shared->total_cells - 1;
	mq_shared->nprocs = process_count();
	mq_shared->launcher_procno = -1;
	init_slots();
}

void
mq_shmem_startup(void)
{
	bool		found;
	HASHCTL		ctl;
	char	   *at;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	at = ShmemInitStruct("mq", fixed_size(), &found);
	mq_shared = (MqShared *) at;
	at += MAXALIGN(sizeof(MqShared));
	mq_databases = (MqDatabase *) at;
	at += MAXALIGN(MQ_MAX_DATABASES * sizeof(MqDatabase));
	mq_chains = (MqChain *) at;
	at += MAXALIGN(mq_max_queues * sizeof(MqChain));
	mq_windows = (MqWindow *) at;
	at += MAXALIGN(mq_max_groups * sizeof(MqWindow));
	mq_first_n = (int64 *) at;
	at += MAXALIGN(process_count() * sizeof(int64));
	mq_waiters = (MqWaiter *) at;
	at += MAXALIGN(process_count() * sizeof(MqWaiter));
	mq_cells = (MqCell *) at;
	if (!found)
		init_shared();
	mq_shared->registry_lock = &GetNamedLWLockTranche("mq_registry")->lock;
	mq_shared->append_locks = GetNamedLWLockTranche("mq_append");
	mq_shared->window_locks = GetNamedLWLockTranche("mq_window");

	ctl.keysize = sizeof(MqChainKey);
	ctl.entrysize = sizeof(ChainEntry);
	chain_hash = ShmemInitHash("mq chains", mq_max_queues, mq_max_queues, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	ctl.keysize = sizeof(MqWindowKey);
	ctl.entrysize = sizeof(WindowEntry);
	window_hash = ShmemInitHash("mq windows", mq_max_groups, mq_max_groups, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	LWLockRelease(AddinShmemInitLock);
}

void
mq_require_preload(void)
{
	if (mq_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mq is not loaded at server start"),
				 errhint("Add mq to shared_preload_libraries and restart the server.")));
}

/* Raises 53400. Caller holds the registry lock, which is released here. */
static void
slots_full(const char *what, const char *setting)
{
	LWLockRelease(mq_shared->registry_lock);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many %s are in use at once", what),
			 errhint("Raise %s and restart the server, or drop what is not needed.", setting)));
}

/* For the new owner of a slot. Caller holds the registry lock. worker_wanted makes the launcher start a worker at its next turn. */
static void
database_init(MqDatabase *db, const MqDatabaseKey *key)
{
	db->rebuilt = false;
	db->known_groups = db->last_group = 0;
	db->counter = 0;
	db->ring_count = 0;
	db->ring_current = 0;
	memset(db->max_n, 0, sizeof(db->max_n));
	db->prepared = 0;
	db->prepared_first_n = db->prepared_since_sweep = PG_INT64_MAX;
	db->worker_procno = -1;
	db->worker_pid = 0;
	db->worker_wanted = true;
	db->turn_wanted = false;
	db->paused_until = 0;
	db->notes = db->notes_written = db->nnotes = db->nnotes_written = 0;
	pg_atomic_write_u32(&db->moved_current, 0);
	pg_atomic_write_u64(&db->next_due, 0);
	pg_atomic_write_u64(&db->sleeps_until, 0);
	db->key = *key;
}

/* A linear search: a process asks only when it looks up the extension. */
MqDatabase *
mq_database_slot(Oid extension)
{
	MqDatabaseKey key = {MyDatabaseId, extension};
	MqDatabase *unused = NULL;
	MqDatabase *found = NULL;

	LWLockAcquire(mq_shared->registry_lock, LW_EXCLUSIVE);
	for (int i = 0; i < MQ_MAX_DATABASES && found == NULL; i++)
	{
		MqDatabase *db = &mq_databases[i];

		if (memcmp(&db->key, &key, sizeof(key)) == 0)
			found = db;
		else if (unused == NULL && db->key.database == InvalidOid)
			unused = db;
	}
	if (found == NULL)
	{
		if (unused == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("mq is in use in too many databases of this server"),
					 errdetail("The limit is %d.", MQ_MAX_DATABASES),
					 errhint("Drop the extension where it is not needed.")));
		database_init(unused, &key);
		found = unused;
	}
	LWLockRelease(mq_shared->registry_lock);
	return found;
}

/* Caller holds the registry lock, exclusive. Raises 53400 when there is none. */
static int
free_chain_slot(void)
{
	static int	last = -1;		/* the one that this process made last: many are made one after the other */

	for (int i = 1; i <= mq_max_queues; i++)
		if (mq_chains[(last + i) % mq_max_queues].key.level < 0)
			return last = (last + i) % mq_max_queues;
	slots_full("queues", "mq.max_queues");
	return -1;
}

/* Nobody is admitted before somebody has counted: there is no bound of 0. */
static void
bounds_init(MqBounds *bounds)
{
	SpinLockAcquire(&bounds->mutex);
	bounds->max_messages = bounds->max_bytes = 0;
	bounds->messages_left = bounds->bytes_left = 0;
	bounds->admitted = bounds->rejected = bounds->paid_until = bounds->rate = 0;
	SpinLockRelease(&bounds->mutex);
	pg_atomic_write_u64(&bounds->scheduling, 0);
}

/* Caller holds the registry lock and the append lock. The chain is not ready: mq_log_attach finds out where it ends. */
static void
chain_init(MqChain *chain, const MqChainKey *key)
{
	chain->ready = false;
	chain->next_id = chain->reserved_end = 0;
	chain->ngaps = 0;
	chain->last_time = 0;
	chain->tail_segment = -1;
	chain->tail_file = InvalidRelFileNumber;
	chain->tail_block = InvalidBlockNumber;
	chain->truncations = 0;
	chain->wanted_segment = -1;
	chain->adopt_wanted = false;
	pg_atomic_write_u32(&chain->notify, MQ_NOTIFY_OFF);
	pg_atomic_write_u64(&chain->next_due, (uint64) PG_INT64_MAX);
	pg_atomic_write_u64(&chain->seen_due, 0);
	pg_atomic_write_u64(&chain->scheduled, 0);
	pg_atomic_write_u32(&chain->scheduled_known, 0);
	pg_atomic_write_u32(&chain->scheduled_counted, 0);
	bounds_init(&chain->bounds);
	chain->volume.spacing = 0;
	pg_atomic_write_u64(&chain->duplicates, 0);
	for (int table = 0; table < MQ_DEDUP_TABLES; table++)
		pg_atomic_write_u64(&chain->dedup_ids[table], 0);
	pg_atomic_write_u32(&chain->dedup_known, 0);
	chain->key = *key;
}

/* NULL: there is none, and none was to be made. Once this returns the slot may go, and get another owner. */
MqChain *
mq_chain_slot(const MqChainKey *key, bool create, bool *created)
{
	ChainEntry *entry;
	MqChain    *chain = NULL;
	bool		found;

	LWLockAcquire(mq_shared->registry_lock, create ? LW_EXCLUSIVE : LW_SHARED);
	entry = hash_search(chain_hash, key, HASH_FIND, &found);
	if (!found && create)
	{
		int			slot = free_chain_slot();

		entry = hash_search(chain_hash, key, HASH_ENTER, NULL);
		entry->slot = slot;
		LWLockAcquire(MqAppendLock(&mq_chains[slot]), LW_EXCLUSIVE);
		chain_init(&mq_chains[slot], key);
		LWLockRelease(MqAppendLock(&mq_chains[slot]));
	}
	if (entry != NULL)
		chain = &mq_chains[entry->slot];
	LWLockRelease(mq_shared->registry_lock);
	if (created)
		*created = !found && create;
	return chain;
}

bool
mq_chains_are_full(void)
{
	return hash_get_num_entries(chain_hash) >= mq_max_queues;
}

bool
mq_windows_are_full(void)
{
	return hash_get_num_entries(window_hash) >= mq_max_groups;
}

/* As free_chain_slot. */
static int
free_window_slot(void)
{
	static int	last = -1;		/* the one that this process made last: many are made one after the other */

	for (int i = 1; i <= mq_max_groups; i++)
		if (mq_windows[(last + i) % mq_max_groups].key.level < 0)
			return last = (last + i) % mq_max_groups;
	slots_full("consumer groups", "mq.max_groups");
	return -1;
}

/* As mq_chain_slot. A new window has no root, which says that nobody has filled it yet. */
MqWindow *
mq_window_slot(const MqWindowKey *key, bool create, bool *created)
{
	WindowEntry *entry;
	MqWindow   *window = NULL;
	bool		found;

	LWLockAcquire(mq_shared->registry_lock, create ? LW_EXCLUSIVE : LW_SHARED);
	entry = hash_search(window_hash, key, HASH_FIND, &found);
	if (!found && create)
	{
		int			slot = free_window_slot();

		entry = hash_search(window_hash, key, HASH_ENTER, NULL);
		entry->slot = slot;
		LWLockAcquire(MqWindowLock(&mq_windows[slot]), LW_EXCLUSIVE);
		memset(&mq_windows[slot], 0, sizeof(MqWindow));
		pg_atomic_init_u64(&mq_windows[slot].log_bytes, 0);
		pg_atomic_init_u64(&mq_windows[slot].oldest_needed, 0);
		pg_atomic_init_u64(&mq_windows[slot].used_at, 0);
		pg_atomic_init_u64(&mq_windows[slot].overflowed, 0);
		pg_atomic_init_u32(&mq_windows[slot].waiters, 0);
		mq_windows[slot].next_waiting = -1;
		for (int i = 0; i < MQ_LINES; i++)
			mq_windows[slot].lines[i] = (MqLine) {-1, -1};
		mq_windows[slot].timekeeper = -1;
		mq_windows[slot].key = *key;
		LWLockRelease(MqWindowLock(&mq_windows[slot]));
	}
	if (entry != NULL)
		window = &mq_windows[entry->slot];
	LWLockRelease(mq_shared->registry_lock);
	if (created)
		*created = !found && create;
	return window;
}

/*
 * The registry is locked exclusively. False: somebody had the lock of the entry's own; that was waited for with the registry free,
 * for everybody needs the registry, and the entry has to be looked up again.
 */
static bool
lock_at_once(LWLock *lock)
{
	if (LWLockConditionalAcquire(lock, LW_EXCLUSIVE))
		return true;
	LWLockRelease(mq_shared->registry_lock);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	LWLockRelease(lock);
	LWLockAcquire(mq_shared->registry_lock, LW_EXCLUSIVE);
	return false;
}

/* Whoever waits for a segment is woken, to see whether the queue is still there. */
void
mq_chain_forget(const MqChainKey *key)
{
	ChainEntry *entry;

	LWLockAcquire(mq_shared->registry_lock, LW_EXCLUSIVE);
	do
		entry = hash_search(chain_hash, key, HASH_FIND, NULL);
	while (entry != NULL && !lock_at_once(MqAppendLock(&mq_chains[entry->slot])));
	if (entry != NULL)
	{
		MqChain    *chain = &mq_chains[entry->slot];

		chain->key.level = -1;
		LWLockRelease(MqAppendLock(chain));
		ConditionVariableBroadcast(&chain->segment_made);
		hash_search(chain_hash, key, HASH_REMOVE, NULL);
	}
	LWLockRelease(mq_shared->registry_lock);
}

void
mq_window_slot_free(const MqWindowKey *key, void (*detach) (MqWindow *window, MqWindow *content), MqWindow *content)
{
	WindowEntry *entry;

	LWLockAcquire(mq_shared->registry_lock, LW_EXCLUSIVE);
	do
		entry = hash_search(window_hash, key, HASH_FIND, NULL);
	while (entry != NULL && !lock_at_once(MqWindowLock(&mq_windows[entry->slot])));
	if (entry != NULL)
	{
		MqWindow   *window = &mq_windows[entry->slot];

		detach(window, content);
		window->key.level = -1;
		LWLockRelease(MqWindowLock(window));
		hash_search(window_hash, key, HASH_REMOVE, NULL);
	}
	LWLockRelease(mq_shared->registry_lock);
}

void
mq_notes_free(uint32 first)
{
	while (first != 0)
	{
		uint32		next = MqNoteAt(first)->next;

		for (uint32 text = MqNoteAt(first)->text; text != 0;)
		{
			uint32		next_text = MqTextAt(text)->next;

			mq_cell_free(text);
			text = next_text;
		}
		mq_cell_free(first);
		first = next;
	}
}

void
mq_database_forget(MqDatabase *db)
{
	uint32		cell;
	uint32		notes;
	uint32		notes_written;

	LWLockAcquire(mq_shared->registry_lock, LW_EXCLUSIVE);
	/* somebody may be preparing a transaction with acks of an extension that was dropped meanwhile */
	SpinLockAcquire(&db->mutex);
	cell = db->prepared;
	db->prepared = 0;
	db->prepared_emptied++;
	db->prepared_first_n = PG_INT64_MAX;
	/* and noting a failure: whoever links a note looks at the key under the mutex */
	notes = db->notes;
	notes_written = db->notes_written;
	db->notes = db->notes_written = db->nnotes = db->nnotes_written = 0;
	memset(&db->key, 0, sizeof(db->key));
	SpinLockRelease(&db->mutex);
	LWLockRelease(mq_shared->registry_lock);
	mq_notes_free(notes);
	mq_notes_free(notes_written);
	while (cell != 0)
	{
		uint32		next = MqPreparedAt(cell)->next;

		mq_cell_free(cell);
		cell = next;
	}
}

int64
mq_database_last_group(MqDatabase *db, int64 number)
{
	int64		last;

	SpinLockAcquire(&db->mutex);
	last = db->last_group = Max(db->last_group, number);
	SpinLockRelease(&db->mutex);
	return last;
}

/* Adds up to count cells to the list; the spinlock is held for a bounded time. */
static void
take_slice(MqCellList *list, int count, uint32 keep)
{
	SpinLockAcquire(&mq_shared->arena_mutex);
	if (mq_shared->free_cells >= (uint32) count + keep)
	{
		for (int i = 0; i < count; i++)
		{
			uint32		cell = mq_shared->free_list;

			if (cell != 0)
				mq_shared->free_list = mq_cells[cell].next_free;
			else
				cell = mq_shared->never_used++;
			mq_cells[cell].next_free = list->head;
			list->head = cell;
		}
		mq_shared->free_cells -= count;
		list->count += count;
	}
	SpinLockRelease(&mq_shared->arena_mutex);
}

/* The spinlock is let go between slices, so of two that ask for what is left both may get nothing. */
bool
mq_cells_reserve(MqCellList *list, int count, bool may_use_reserve)
{
	uint32		keep = may_use_reserve ? 0 : mq_shared->total_cells / MQ_RESERVE_PART;

	list->head = 0;
	list->count = 0;
	while (list->count < count)
	{
		int			before = list->count;

		take_slice(list, Min(count - before, CELLS_PER_SLICE), keep);
		if (list->count == before)
		{
			mq_cells_return(list);
			return false;
		}
	}
	return true;
}

void
mq_out_of_cells(int64 needed)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of shared memory for unfinished messages"),
			 errdetail("Entries needed: " INT64_FORMAT ".", needed),
			 errhint("Raise mq.shared_memory and restart the server, or finish messages that are held.")));
}

void
mq_need_cells(MqCellList *list, int64 count, bool may_use_reserve)
{
	if (count > PG_INT32_MAX || !mq_cells_reserve(list, (int) count, may_use_reserve))
		mq_out_of_cells(count);
}

uint32
mq_cell_take(MqCellList *list)
{
	uint32		cell = list->head;

	Assert(list->count > 0);
	list->head = mq_cells[cell].next_free;
	list->count--;
	memset(&mq_cells[cell], 0, sizeof(MqCell));
	return cell;
}

void
mq_cells_return(MqCellList *list)
{
	while (list->count > 0)
	{
		uint32		cell = list->head;

		list->head = mq_cells[cell].next_free;
		list->count--;
		mq_cell_free(cell);
	}
}

void
mq_cell_free(uint32 cell)
{
	Assert(cell != 0);
	SpinLockAcquire(&mq_shared->arena_mutex);
	mq_cells[cell].next_free = mq_shared->free_list;
	mq_shared->free_list = cell;
	mq_shared->free_cells++;
	SpinLockRelease(&mq_shared->arena_mutex);
}

uint64
mq_new_token(TimestampTz now)
{
	uint64		last = pg_atomic_read_u64(&mq_shared->last_token_time);
	uint64		time;

	do
		time = Max((uint64) Max(now, 0), last + 1);
	while (!pg_atomic_compare_exchange_u64(&mq_shared->last_token_time, &last, time));
	return time ^ mq_shared->token_mask;
}

TimestampTz
mq_token_time(uint64 token)
{
	return (TimestampTz) (token ^ mq_shared->token_mask);
}

/* From the top: 14 bits of the backend id (before 17), 18 of the process number, 32 of the local xid. */
uint64
mq_session_transaction(void)
{
	return (MqProcBackendBits(MyProc) << 50) | ((uint64) MqMyProcNumber() << 32) | MqProcLxid(MyProc);
}

/*
 * Reads another process's local xid without a lock: it is one word, and an answer that is a moment old only delays
 * the end of a lease.
 */
bool
mq_session_transaction_open(uint64 owner)
{
	PGPROC	   *proc = &ProcGlobal->allProcs[(owner >> 32) & PROCESS_MASK];

	return owner != 0 && MqProcLxid(proc) == (LocalTransactionId) owner && MqProcBackendBits(proc) == owner >> 50;
}

int
mq_session_transaction_pid(uint64 owner)
{
	int			pid = ProcGlobal->allProcs[(owner >> 32) & PROCESS_MASK].pid;

	return mq_session_transaction_open(owner) ? pid : 0;
}

/* turn: not only to look at the queues that notify. Takes the mutex of the database; never throws, for callbacks use it. */
static void
wake_worker(MqDatabase *db, bool turn)
{
	int			procno;

	SpinLockAcquire(&db->mutex);
	procno = db->worker_procno;
	if (procno < 0)
		db->worker_wanted = true;
	db->turn_wanted |= turn;
	SpinLockRelease(&db->mutex);
	if (procno < 0)
		procno = mq_shared->launcher_procno;
	if (procno >= 0)
		SetLatch(&ProcGlobal->allProcs[procno].procLatch);
}

void
mq_worker_wake(MqDatabase *db)
{
	wake_worker(db, true);
}

void
mq_worker_nudge(MqDatabase *db)
{
	wake_worker(db, false);
}

void
mq_lower_due(pg_atomic_uint64 *next_due, TimestampTz due)
{
	uint64		known = pg_atomic_read_u64(next_due);

	while ((TimestampTz) known > due && !pg_atomic_compare_exchange_u64(next_due, &known, (uint64) due))
		 /* known is what it is now */ ;
}

/*
 * The worker sets db->next_due to infinity before it asks the queues, and says until when it sleeps after it has read it, and before that
 * that it is awake: either it sees what is lowered here, or it is woken.
 */
void
mq_note_due(MqDatabase *db, MqChain *chain, TimestampTz due)
{
	mq_lower_due(&chain->next_due, due);
	mq_lower_due(&db->next_due, due);
	pg_memory_barrier();
	if (due < (TimestampTz) pg_atomic_read_u64(&db->sleeps_until))
		mq_worker_nudge(db);
}
