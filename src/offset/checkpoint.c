/*
 * checkpoint.c: writing down what is unfinished, so that older acks become superfluous.
 *
 * The bound replay_from is read first, then the window. An ack that is not finished in what was read either had its n
 * published before (and keeps it so until after it has left the window), or took one later: in both cases its n is not
 * below the bound, and replay will find its row.
 */
#include "postgres.h"

#include "offset/checkpoint.h"

#include "miscadmin.h"
#include "storage/proc.h"

#include "base/stop_point.h"
#include "log/log.h"
#include "window/pending.h"
#include "window/prepared.h"

/* A checkpoint is written when the acks since the last one take this many times its size. */
#define CHECKPOINT_WORTH	4

/* In one hold of the mutex: an n that PREPARE moves from the process to the list is seen in one of the two, at least. */
int64
mq_oldest_undecided_n(MqDatabase *db)
{
	int64		oldest;

	SpinLockAcquire(&db->mutex);
	oldest = Min(db->counter + 1, mq_prepared_first_n(db));
	for (uint32 i = 0; i < ProcGlobal->allProcCount && i < mq_shared->nprocs; i++)
		if (mq_first_n[i] != 0 && ProcGlobal->allProcs[i].databaseId == db->key.database)
			oldest = Min(oldest, mq_first_n[i]);
	SpinLockRelease(&db->mutex);
	return oldest;
}

bool
mq_checkpoint_is_due(const MqWindowRef *ref)
{
	MqWindow   *window = ref->window;
	bool		due;

	if (!mq_window_lock(ref, LW_SHARED))
		return false;
	due = window->changes != window->checkpointed &&
		((window->failures_changed && window->nodes < MQ_SMALL_CHECKPOINT) ||
		 (int64) pg_atomic_read_u64(&window->log_bytes) > CHECKPOINT_WORTH * Max(window->checkpoint_bytes, 1024));
	mq_window_unlock(ref);
	return due;
}

/* The most ranges that a list of chunks can become: of a bit map, every other id. */
static int64
bitmap_cells(uint32 chunk)
{
	int64		entries = 0;

	for (; chunk != 0; chunk = MqChunkAt(chunk)->next)
		entries += MqChunkAt(chunk)->is_bitmap ? MQ_CHUNK_BITS / 2 : 1;
	return entries;
}

/* Upper bound of the ranges collect() makes. */
static int64
entries_bound(const MqWindow *window)
{
	int64		entries = window->nodes + bitmap_cells(window->rewalk);

	for (uint32 p = window->pending; p != 0; p = MqPendingAt(p)->next)
		entries += bitmap_cells(MqPendingAt(p)->first);
	return entries;
}

/* The ids of a chunk, as ranges. There is room (bitmap_cells); returns how many. */
static int
add_chunk(MqUnfinished *out, const MqChunk *chunk)
{
	int			n = 0;

	if (!chunk->is_bitmap)
	{
		out[0] = (MqUnfinished) {chunk->lo, chunk->hi, mq_pack_failures(chunk->failures, chunk->unexplained), chunk->due};
		return 1;
	}
	for (int64 id = chunk->lo; id <= chunk->hi; id++)
	{
		if (!mq_chunk_has(chunk, id))
			continue;
		if (n > 0 && out[n - 1].hi + 1 == id)
			out[n - 1].hi = id;
		else
			out[n++] = (MqUnfinished) {id, id, mq_pack_failures(chunk->failures, chunk->unexplained), chunk->due};
	}
	return n;
}

/* The same for a list of chunks. */
static int
add_chunks(MqUnfinished *out, uint32 chunk)
{
	int			n = 0;

	for (; chunk != 0; chunk = MqChunkAt(chunk)->next)
		n += add_chunk(out + n, MqChunkAt(chunk));
	return n;
}

/* The array that add_node appends to; it has room for one range for each node. */
typedef struct Collected
{
	MqUnfinished *out;
	int			n;
} Collected;

/* A lease is as good as ready: it does not survive. The last node is everything from next id on. */
static void
add_node(const MqNode *m, void *arg)
{
	Collected  *c = arg;
	MqUnfinished *last = c->n > 0 ? &c->out[c->n - 1] : NULL;
	/* of what was discarded, or left its pop, due is that of the message, should the transaction be undone; else the end of a lease */
	bool		delayed = m->state == MQ_READY || m->state == MQ_UNREAD || m->state == MQ_DEAD ||
		(m->state == MQ_SETTLING && (m->token == 0 || (m->flags & MQ_NODE_LEFT) != 0));
	int64		due = delayed ? m->due : 0;
	int64		failures = mq_pack_failures(m->failures, m->unexplained);

	Assert(c->out != NULL);
	if (m->hi == PG_INT64_MAX)
		return;
	if (last != NULL && last->hi + 1 == m->lo && last->failures == failures && last->due == due)
		last->hi = m->hi;
	else
		c->out[c->n++] = (MqUnfinished) {m->lo, m->hi, failures, due};
}

/* The window's unfinished ranges, unsorted. */
static int
collect(const MqWindow *window, MqUnfinished *out)
{
	Collected	c = {out, 0};
	int			n;

	mq_tree_each(window, add_node, &c);
	n = c.n;
	n += add_chunks(out + n, window->rewalk);
	for (uint32 p = window->pending; p != 0; p = MqPendingAt(p)->next)
		n += add_chunks(out + n, MqPendingAt(p)->first);
	return n;
}

/* Reads the window; the array is made before the lock and made larger until it suffices. */
static bool
read_window(const MqWindowRef *ref, MqCheckpoint *c)
{
	int64		room = 64;

	for (;;)
	{
		int64		bound;

		c->unfinished = MemoryContextAllocHuge(CurrentMemoryContext, room * sizeof(MqUnfinished));
		if (!mq_window_lock(ref, LW_EXCLUSIVE))
			return false;
		bound = entries_bound(ref->window);
		if (bound <= room)
			break;
		mq_window_unlock(ref);
		pfree(c->unfinished);
		room = bound + bound / 4;
	}
	c->epoch = ref->window->epoch;
	c->count = collect(ref->window, c->unfinished);
	c->next_id = mq_window_next_id(ref->window);
	c->changes = ref->window->changes;
	c->failures_changed = ref->window->failures_changed;
	/* one that is counted from here on is for the next checkpoint */
	ref->window->failures_changed = false;
	mq_window_unlock(ref);
	c->count = mq_unfinished_sort(c->unfinished, c->count);
	c->low = c->count > 0 ? c->unfinished[0].lo : c->next_id;
	return true;
}

bool
mq_checkpoint_write(const MqGroup *group, MqCheckpoint *c)
{
	MqWindowRef ref = {group->window, mq_window_key(group, 0)};

	memset(c, 0, sizeof(*c));
	c->group = *group;
	/* before the window is read */
	c->replay_from = mq_oldest_undecided_n(group->queue.db);
	if (!read_window(&ref, c))
		return false;
	c->written = mq_offset_log_checkpoint(group, 0, c->epoch, c->low, c->next_id, c->replay_from,
										  c->unfinished, c->count);
	return true;
}

void
mq_checkpoint_failed(const MqCheckpoint *c)
{
	MqWindowRef ref = {c->group.window, mq_window_key(&c->group, 0)};

	if (!c->failures_changed || !mq_window_lock(&ref, LW_EXCLUSIVE))
		return;
	ref.window->failures_changed = true;
	mq_window_unlock(&ref);
}

void
mq_checkpoint_committed(const MqCheckpoint *c)
{
	MqWindowRef ref = {c->group.window, mq_window_key(&c->group, 0)};

	if (!mq_window_lock(&ref, LW_EXCLUSIVE))
		return;
	/* a seek in between made it void */
	if (ref.window->epoch == c->epoch)
	{
		ref.window->checkpointed = c->changes;
		ref.window->checkpoint_bytes = c->written.bytes;
		pg_atomic_write_u64(&ref.window->log_bytes, 0);
		pg_atomic_write_u64(&ref.window->oldest_needed, Min(c->replay_from, c->written.n));
	}
	mq_window_unlock(&ref);
}
