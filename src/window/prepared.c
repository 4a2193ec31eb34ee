/*
 * prepared.c: the prepared transactions that acked.
 *
 * Lock: the mutex of the database, for a slice of the list at most. A cell that stayed is a place to go on from, for only the worker
 * takes cells out; when the database is forgotten the whole list goes, and prepared_emptied says so. A crash empties the list with the rest of the shared memory; the rebuild makes it again from the offset log.
 */
#include "postgres.h"

#include "window/prepared.h"

#include "utils/memutils.h"

#define SLICE				64

void
mq_prepared_add(MqDatabase *db, uint32 cell)
{
	MqPrepared *prepared = MqPreparedAt(cell);

	SpinLockAcquire(&db->mutex);
	prepared->next = db->prepared;
	db->prepared = cell;
	db->prepared_first_n = Min(db->prepared_first_n, prepared->first_n);
	db->prepared_since_sweep = Min(db->prepared_since_sweep, prepared->first_n);
	SpinLockRelease(&db->mutex);
}

/* The array grows in the context that it was made in. */
static void
add_xid(MqDecided *list, uint64 xid)
{
	if (list->count == list->room)
		list->xids = repalloc(list->xids, (list->room *= 2) * sizeof(uint64));
	list->xids[list->count++] = xid;
}

static int
compare_xids(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return (x > y) - (x < y);
}

/* is_open is asked without the spinlock. May raise out-of-memory. */
MqDecided
mq_prepared_decided(MqDatabase *db, bool (*is_open) (uint64 xid), MemoryContext context)
{
	MqDecided	decided = {MemoryContextAlloc(context, SLICE * sizeof(uint64)), 0, SLICE};
	uint64		slice[SLICE];
	uint32		emptied;
	uint32		at;

	SpinLockAcquire(&db->mutex);
	at = db->prepared;
	emptied = db->prepared_emptied;
	SpinLockRelease(&db->mutex);
	while (at != 0)
	{
		int			count = 0;

		SpinLockAcquire(&db->mutex);
		if (db->prepared_emptied != emptied)
			at = 0;
		for (; at != 0 && count < SLICE; at = MqPreparedAt(at)->next)
			slice[count++] = MqPreparedAt(at)->xid;
		SpinLockRelease(&db->mutex);
		for (int i = 0; i < count; i++)
			if (!is_open(slice[i]))
				add_xid(&decided, slice[i]);
	}
	qsort(decided.xids, decided.count, sizeof(uint64), compare_xids);
	return decided;
}

/* Where a sweep over the list is. */
typedef struct Sweep
{
	uint32		behind;			/* goes on behind this cell, the last that stayed; 0: in front */
	uint32		emptied;		/* of the database, when it began */
	int64		first_n;		/* of those that stayed */
} Sweep;

/* Takes those of the list out of the next slice. False: that was the last, and the smallest n is what is left's. */
static bool
forget_slice(MqDatabase *db, const MqDecided *decided, Sweep *sweep)
{
	uint32		gone[SLICE];
	int			count = 0;
	uint32	   *link;
	bool		more;

	SpinLockAcquire(&db->mutex);
	if (sweep->behind == 0)
	{
		sweep->emptied = db->prepared_emptied;
		db->prepared_since_sweep = PG_INT64_MAX;
	}
	else if (sweep->emptied != db->prepared_emptied)
	{
		SpinLockRelease(&db->mutex);
		return false;
	}
	link = sweep->behind == 0 ? &db->prepared : &MqPreparedAt(sweep->behind)->next;
	for (int i = 0; i < SLICE && *link != 0; i++)
	{
		MqPrepared *prepared = MqPreparedAt(*link);

		if (bsearch(&prepared->xid, decided->xids, decided->count, sizeof(uint64), compare_xids) != NULL)
		{
			gone[count++] = *link;
			*link = prepared->next;
		}
		else
		{
			sweep->behind = *link;
			sweep->first_n = Min(sweep->first_n, prepared->first_n);
			link = &prepared->next;
		}
	}
	more = *link != 0;
	if (!more)
		db->prepared_first_n = Min(sweep->first_n, db->prepared_since_sweep);
	SpinLockRelease(&db->mutex);
	for (int i = 0; i < count; i++)
		mq_cell_free(gone[i]);
	return more;
}

void
mq_prepared_forget(MqDatabase *db, const MqDecided *decided)
{
	Sweep		sweep = {0, 0, PG_INT64_MAX};

	while (decided->count > 0 && forget_slice(db, decided, &sweep))
		;
}
