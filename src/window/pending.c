/*
 * pending.c: messages whose sender is undecided, and those to be read again because it is decided now. See pending.h.
 */
#include "postgres.h"

#include "window/pending.h"

#include "port/pg_bitutils.h"

/* a chunk spans no more pages than this: one read finds all of its rows */
#define CHUNK_BLOCKS_MAX	64

/* ---- chunks ---- */

bool
mq_chunk_has(const MqChunk *chunk, int64 id)
{
	int64		i = id - chunk->lo;

	if (id < chunk->lo || id > chunk->hi)
		return false;
	return !chunk->is_bitmap || (chunk->bits[i / 64] & (UINT64CONST(1) << (i % 64))) != 0;
}

int64
mq_chunk_first(const MqChunk *chunk)
{
	for (int i = 0; chunk->is_bitmap && i < MQ_CHUNK_BITS / 64; i++)
		if (chunk->bits[i] != 0)
			return chunk->lo + (int64) i * 64 + pg_rightmost_one_pos64(chunk->bits[i]);
	return chunk->lo;
}

int64
mq_chunk_count(const MqChunk *chunk)
{
	int64		count = 0;

	if (!chunk->is_bitmap)
		return chunk->hi - chunk->lo + 1;
	for (int i = 0; i < MQ_CHUNK_BITS / 64; i++)
		count += pg_popcount64(chunk->bits[i]);
	return count;
}

/* Its ids stay the same; they must lie within MQ_CHUNK_BITS. */
static void
to_bitmap(MqChunk *chunk)
{
	if (chunk->is_bitmap)
		return;
	memset(chunk->bits, 0, sizeof(chunk->bits));
	for (int64 i = 0; i <= chunk->hi - chunk->lo; i++)
		chunk->bits[i / 64] |= UINT64CONST(1) << (i % 64);
	chunk->is_bitmap = true;
}

/* Tries to make the chunk hold the range as well. */
static bool
extend(MqChunk *chunk, const MqChunk *range)
{
	if (chunk->attempts != range->attempts || chunk->failures != range->failures || chunk->unexplained != range->unexplained || chunk->due != range->due ||
		chunk->file_tag != range->file_tag)
		return false;
	if (range->lo <= chunk->hi || range->block < chunk->block || range->block - chunk->block >= CHUNK_BLOCKS_MAX)
		return false;
	if (!chunk->is_bitmap && range->lo == chunk->hi + 1)
	{
		chunk->hi = range->hi;
		return true;
	}
	if (range->hi - chunk->lo >= MQ_CHUNK_BITS)
		return false;
	to_bitmap(chunk);
	for (int64 i = range->lo - chunk->lo; i <= range->hi - chunk->lo; i++)
		chunk->bits[i / 64] |= UINT64CONST(1) << (i % 64);
	chunk->hi = range->hi;
	return true;
}

/* Takes up to max consecutive ids, from the front, out of a chunk that has some. */
static void
take(MqChunk *chunk, int64 max, int64 *lo, int64 *hi)
{
	*lo = *hi = mq_chunk_first(chunk);
	if (chunk->is_bitmap)
		chunk->bits[(*lo - chunk->lo) / 64] &= ~(UINT64CONST(1) << ((*lo - chunk->lo) % 64));
	else
	{
		*hi = Min(chunk->hi, *lo + max - 1);
		chunk->lo = *hi + 1;
	}
}

/* Frees the chunk that the link leads to if there is nothing in it any more; true: it is gone. */
static bool
drop_empty(MqWindow *window, uint32 *link)
{
	uint32		c = *link;

	if (mq_chunk_count(MqChunkAt(c)) > 0)
		return false;
	*link = MqChunkAt(c)->next;
	window->nodes--;
	mq_cell_free(c);
	return true;
}

/* A whole list. The caller takes its messages off pending_ids. */
static void
free_chunks(MqWindow *window, uint32 chunk)
{
	while (chunk != 0)
	{
		uint32		next = MqChunkAt(chunk)->next;

		window->nodes--;
		mq_cell_free(chunk);
		chunk = next;
	}
}

/* ---- senders ---- */

uint32
mq_pending_find(const MqWindow *window, uint64 xid)
{
	uint32		p = window->pending;

	while (p != 0 && MqPendingAt(p)->xid != xid)
		p = MqPendingAt(p)->next;
	return p;
}

/* Takes one cell. The sender must not be there yet. */
static uint32
add_sender(MqWindow *window, uint64 xid, MqCellList *cells)
{
	uint32		p = mq_cell_take(cells);

	MqPendingAt(p)->xid = xid;
	MqPendingAt(p)->next = window->pending;
	window->pending = p;
	window->nodes++;
	return p;
}

/* Frees its cell only: its chunks have gone, or are somebody else's by now. */
static void
remove_sender(MqWindow *window, uint32 pending)
{
	uint32	   *link = &window->pending;

	while (*link != pending)
		link = &MqPendingAt(*link)->next;
	*link = MqPendingAt(pending)->next;
	window->nodes--;
	mq_cell_free(pending);
}

void
mq_pending_add(MqWindow *window, uint64 xid, const MqChunk *range, MqCellList *cells)
{
	uint32		p = mq_pending_find(window, xid);
	uint32		c;

	if (p == 0)
		p = add_sender(window, xid, cells);
	MqPendingAt(p)->count += range->hi - range->lo + 1;
	window->pending_ids += range->hi - range->lo + 1;
	if (MqPendingAt(p)->first != 0 && extend(MqChunkAt(MqPendingAt(p)->last), range))
		return;
	c = mq_cell_take(cells);
	*MqChunkAt(c) = *range;
	MqChunkAt(c)->next = 0;
	if (MqPendingAt(p)->first == 0)
		MqPendingAt(p)->first = c;
	else
		MqChunkAt(MqPendingAt(p)->last)->next = c;
	MqPendingAt(p)->last = c;
	window->nodes++;
}

bool
mq_pending_take(MqWindow *window, uint64 xid, TimestampTz now, int64 max, MqChunk *part)
{
	uint32		p = mq_pending_find(window, xid);
	uint32		before = 0;
	uint32		c = p == 0 ? 0 : MqPendingAt(p)->first;

	for (; c != 0 && MqChunkAt(c)->due > now; c = MqChunkAt(c)->next)
		before = c;
	if (c == 0)
		return false;
	*part = *MqChunkAt(c);
	part->is_bitmap = false;
	take(MqChunkAt(c), max, &part->lo, &part->hi);
	MqPendingAt(p)->count -= mq_chunk_count(part);
	window->pending_ids -= mq_chunk_count(part);
	if (drop_empty(window, before == 0 ? &MqPendingAt(p)->first : &MqChunkAt(before)->next) && MqPendingAt(p)->last == c)
		MqPendingAt(p)->last = before;
	if (MqPendingAt(p)->first == 0)
		remove_sender(window, p);
	return true;
}

TimestampTz
mq_pending_due(const MqWindow *window, uint64 xid)
{
	uint32		p = mq_pending_find(window, xid);
	TimestampTz due = PG_INT64_MAX;

	for (uint32 c = p == 0 ? 0 : MqPendingAt(p)->first; c != 0; c = MqChunkAt(c)->next)
		due = Min(due, MqChunkAt(c)->due);
	return due;
}

void
mq_pending_resolve(MqWindow *window, uint64 xid, bool aborted)
{
	uint32		p = mq_pending_find(window, xid);

	if (p == 0)
		return;
	if (aborted)
	{
		window->pending_ids -= MqPendingAt(p)->count;
		free_chunks(window, MqPendingAt(p)->first);
	}
	else
	{
		/* they stay in pending_ids until they are read */
		MqChunkAt(MqPendingAt(p)->last)->next = window->rewalk;
		window->rewalk = MqPendingAt(p)->first;
	}
	remove_sender(window, p);
	window->changes++;
	window->walk_seq++;
}

void
mq_rewalk_advance(MqWindow *window, int64 done, BlockNumber block, uint32 file_tag)
{
	MqChunk    *chunk = MqChunkAt(window->rewalk);
	int64		before = mq_chunk_count(chunk);

	if (chunk->is_bitmap)
	{
		for (int64 i = 0; i < MQ_CHUNK_BITS && chunk->lo + i < done; i++)
			chunk->bits[i / 64] &= ~(UINT64CONST(1) << (i % 64));
	}
	else
		chunk->lo = Min(done, chunk->hi + 1);
	chunk->block = block;
	chunk->file_tag = file_tag;
	window->pending_ids -= before - mq_chunk_count(chunk);
	(void) drop_empty(window, &window->rewalk);
}

void
mq_pending_clear(MqWindow *window)
{
	free_chunks(window, window->rewalk);
	window->rewalk = 0;
	while (window->pending != 0)
	{
		free_chunks(window, MqPendingAt(window->pending)->first);
		remove_sender(window, window->pending);
	}
	window->pending_ids = 0;
}

/* A bound from below: of a bit map the first ids may have been taken out. */
static int64
low_of(uint32 chunk, int64 low)
{
	for (; chunk != 0; chunk = MqChunkAt(chunk)->next)
		low = Min(low, MqChunkAt(chunk)->lo);
	return low;
}

int64
mq_pending_low(const MqWindow *window, int64 low)
{
	for (uint32 p = window->pending; p != 0; p = MqPendingAt(p)->next)
		low = low_of(MqPendingAt(p)->first, low);
	return low_of(window->rewalk, low);
}
