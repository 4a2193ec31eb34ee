/*
 * fetch.c: messages of a log, by their ids. See fetch.h.
 *
 * Keeps nothing and writes nothing.
 */
#include "postgres.h"

#include "log/fetch.h"

#include "access/detoast.h"
#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"

#include "log/order.h"
#include "log/segment.h"

/* The part of a call that is about one segment. */
typedef struct Fetch
{
	const int64 *ids;
	int			count;
	Snapshot	snapshot;
	MqFound    *found;
} Fetch;

/* Where the id is in the list, or would be. */
static int
position(const Fetch *fetch, int64 id)
{
	int			lo = 0;
	int			hi = fetch->count;

	while (lo < hi)
	{
		int			middle = lo + (hi - lo) / 2;

		if (fetch->ids[middle] < id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo;
}

/* Takes what is wanted of a page, from ids[from] on; returns the greatest id on it. */
static int64
take_page(const Fetch *fetch, Relation rel, BlockNumber block, int from)
{
	static MqFetched rows[MQ_PAGE_ROWS];
	Buffer		buffer;
	int64		page_max;
	int			count = mq_log_fetch_page(rel, block, fetch->ids[from], fetch->ids[fetch->count - 1], fetch->snapshot, rows, &buffer, &page_max);

	for (int i = 0; i < count; i++)
	{
		int			at = position(fetch, rows[i].id);
		MqFound    *found = &fetch->found[at];

		/* in a damaged segment two rows may have one id: the first that is seen counts */
		if (at == fetch->count || fetch->ids[at] != rows[i].id || found->tuple != NULL)
			continue;
		found->sight = rows[i].sight == MQ_DELETED ? MQ_VANISHED : rows[i].sight;
		if (found->sight == MQ_SEEN)
			found->tuple = heap_copytuple(&rows[i].tuple);
	}
	ReleaseBuffer(buffer);
	return page_max;
}

/* The pages are in the order of ids. */
static void
fetch_in_order(const Fetch *fetch, Relation rel)
{
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	for (int i = 0; i < fetch->count;)
	{
		BlockNumber block = mq_log_locate(rel, fetch->ids[i]);
		int64		page_max;

		CHECK_FOR_INTERRUPTS();
		if (block >= blocks)
			break;
		page_max = take_page(fetch, rel, block, i);
		i = Max(position(fetch, page_max + 1), i + 1);
	}
}

static void
fetch_from_all(const Fetch *fetch, Relation rel)
{
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	for (BlockNumber block = 0; block < blocks; block++)
	{
		CHECK_FOR_INTERRUPTS();
		(void) take_page(fetch, rel, block, 0);
	}
}

/* False: somebody has it locked, and that is not to be waited for. */
static bool
fetch_segment(const MqQueue *queue, int64 segment, const Fetch *fetch, bool wait)
{
	Relation	rel = wait ? mq_segment_open(queue, 0, segment, AccessShareLock) : mq_segment_open_at_once(queue, 0, segment);

	if (rel == NULL)
		return wait || mq_segment_is_gone(queue, 0, segment);
	if (mq_order_holds(queue, 0, segment, rel))
		fetch_in_order(fetch, rel);
	else
		fetch_from_all(fetch, rel);
	relation_close(rel, AccessShareLock);
	return true;
}

bool
mq_log_fetch(const MqQueue *queue, const int64 *ids, int count, Snapshot snapshot, bool wait, MqFound *found)
{
	int			n;

	for (int i = 0; i < count; i++)
		found[i] = (MqFound) {MQ_VANISHED, NULL};
	for (int at = 0; at < count; at += n)
	{
		int64		segment = mq_segment_of(ids[at], queue->segment_size);
		Fetch		fetch;

		for (n = 1; at + n < count && mq_segment_of(ids[at + n], queue->segment_size) == segment; n++)
			;
		fetch = (Fetch) {ids + at, n, snapshot, found + at};
		if (!fetch_segment(queue, segment, &fetch, wait))
			return false;
	}
	return true;
}

void
mq_log_values(HeapTuple tuple, Datum *values, bool *isnull)
{
	TupleDesc	desc = mq_row_descriptor();

	heap_deform_tuple(tuple, desc, values, isnull);
	for (int i = 0; i < MQ_COLUMNS; i++)
		if (!isnull[i] && TupleDescAttr(desc, i)->attlen == -1 && VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			values[i] = PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(values[i])));
}

Size
mq_log_size(HeapTuple tuple)
{
	TupleDesc	desc = mq_row_descriptor();
	Datum		values[MQ_COLUMNS];
	bool		isnull[MQ_COLUMNS];
	Size		size = tuple->t_len;

	heap_deform_tuple(tuple, desc, values, isnull);
	for (int i = 0; i < MQ_COLUMNS; i++)
		if (!isnull[i] && TupleDescAttr(desc, i)->attlen == -1)
			size += toast_raw_datum_size(values[i]);
	return size;
}
