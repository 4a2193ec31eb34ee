/*
 * fill.c: what is unfinished, as entries of an empty delivery window. See fill.h.
 */
#include "postgres.h"

#include "offset/fill.h"

#include "window/pending.h"
#include "window/tree.h"
#include "window/window.h"

/* Takes one cell. Attempts are not on disk: there were as many as failures, at least. What is dead need not be read. */
static void
insert_part(MqWindow *window, const MqUnfinished *range, MqCellList *cells)
{
	uint32		node = mq_cell_take(cells);

	MqNodeAt(node)->lo = range->lo;
	MqNodeAt(node)->hi = range->hi;
	MqNodeAt(node)->block = InvalidBlockNumber;
	MqNodeAt(node)->failures = (uint16) range->failures;
	MqNodeAt(node)->attempts = (uint16) range->failures;
	MqNodeAt(node)->unexplained = (uint8) (range->failures >> 16);
	MqNodeAt(node)->due = range->due;
	MqNodeAt(node)->state = range->due == MQ_DUE_NEVER ? MQ_DEAD : MQ_UNREAD;
	(void) mq_tree_insert(window, node);
}

/*
 * The number of neighbouring parts, from `at` on, that fit into one bit map. A long-open sender leaves as many
 * stretches as there were others' messages between its own: as bit maps they take no more memory than before.
 */
static int64
parts_in_chunk(const MqUnfinished *parts, int64 count, int64 at)
{
	int64		n = 0;

	while (at + n < count && parts[at + n].hi - parts[at].lo < MQ_CHUNK_BITS && parts[at + n].hi != PG_INT64_MAX &&
		   parts[at + n].failures == 0 && parts[at + n].due == 0)
		n++;
	return n;
}

/* Linked behind the chunk `last` (0: the first one); returns the new one. */
static uint32
insert_chunk(MqWindow *window, uint32 last, const MqUnfinished *parts, int64 count, MqCellList *cells)
{
	uint32		c = mq_cell_take(cells);
	MqChunk    *chunk = MqChunkAt(c);

	chunk->lo = parts[0].lo;
	chunk->hi = parts[count - 1].hi;
	chunk->block = InvalidBlockNumber;
	chunk->is_bitmap = true;
	for (int64 i = 0; i < count; i++)
		for (int64 id = parts[i].lo; id <= parts[i].hi; id++)
			chunk->bits[(id - chunk->lo) / 64] |= UINT64CONST(1) << ((id - chunk->lo) % 64);
	if (last == 0)
		window->rewalk = c;
	else
		MqChunkAt(last)->next = c;
	window->nodes++;
	window->pending_ids += mq_chunk_count(chunk);
	return c;
}

int64
mq_fill(MqWindow *window, const MqUnfinished *parts, int64 count, bool may_pack, MqCellList *cells)
{
	int64		entries = 0;
	uint32		last = 0;
	int64		n;

	Assert(count == 0 || parts != NULL);
	for (int64 at = 0; at < count; at += n)
	{
		n = may_pack ? parts_in_chunk(parts, count, at) : 0;
		entries++;
		if (n > 1 && window != NULL)
			last = insert_chunk(window, last, &parts[at], n, cells);
		else if (n <= 1 && window != NULL)
			insert_part(window, &parts[at], cells);
		n = Max(n, 1);
	}
	return entries;
}
