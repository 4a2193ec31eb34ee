/*
 * group_log.c: what the offset log says about one consumer group.
 *
 * The newest committed checkpoint says what was unfinished; acks with an n from its replay_from on are subtracted, without what was
 * void later. Arithmetic on arrays of this process: no lock, nothing shared.
 */
#include "postgres.h"

#include "offset/group_log.h"

/* An array with room for count elements, from one that has room for *room. */
static void *
make_room(void *array, int64 count, int64 *room, Size size)
{
	if (count <= *room)
		return array;
	*room = Max(Max(*room * 2, 64), count);
	return array == NULL ? MemoryContextAllocHuge(CurrentMemoryContext, *room * size) : repalloc_huge(array, *room * size);
}

/* The committed one with the greatest n counts. A large one is several rows with the same n: they add up. */
static void
take_checkpoint(MqGroupLog *log, const MqOffsetRow *row)
{
	int64		n = row->nvalues / 4;

	if (row->xid != 0 || row->n < log->checkpoint_n)
		return;
	if (row->n > log->checkpoint_n)
		log->nunfinished = 0;
	log->checkpoint_n = row->n;
	log->next_id = row->hi;
	log->replay_from = row->replay_from;
	log->unfinished = make_room(log->unfinished, log->nunfinished + n, &log->room_unfinished, sizeof(MqUnfinished));
	if (n > 0)
		memcpy(log->unfinished + log->nunfinished, row->values, n * sizeof(MqUnfinished));
	log->nunfinished += n;
}

static void
take_ack(MqGroupLog *log, int64 n, int64 lo, int64 hi, uint64 xid)
{
	log->acks = make_room(log->acks, log->nacks + 1, &log->room_acks, sizeof(MqAck));
	log->acks[log->nacks++] = (MqAck) {n, lo, hi, xid};
}

/* One entry for each id: so first_void finds it. */
static void
take_void(MqGroupLog *log, int64 n, int64 lo, int64 hi)
{
	for (int64 id = lo; id <= hi; id++)
	{
		log->voids = make_room(log->voids, log->nvoids + 1, &log->room_voids, sizeof(MqVoid));
		log->voids[log->nvoids++] = (MqVoid) {id, n};
	}
}

static void
take_hand_out(MqGroupLog *log, int64 n, int64 lo, int64 hi)
{
	log->hand_outs = make_room(log->hand_outs, log->nhand_outs + 1, &log->room_hand_outs, sizeof(MqHandOut));
	log->hand_outs[log->nhand_outs++] = (MqHandOut) {n, {lo, hi}};
}

static void
take_range(MqGroupLog *log, const MqOffsetRow *row, int64 lo, int64 hi)
{
	if (row->is_hand_out)
		take_hand_out(log, row->n, lo, hi);
	else if (row->is_void)
		take_void(log, row->n, lo, hi);
	else
		take_ack(log, row->n, lo, hi, row->xid);
}

void
mq_group_log_take(MqGroupLog *log, const MqOffsetRow *row)
{
	if (log->oldest_n == 0 || row->n < log->oldest_n)
		log->oldest_n = row->n;
	if (row->is_checkpoint)
		take_checkpoint(log, row);
	else if (row->nvalues == 0)
		take_range(log, row, row->lo, row->hi);
	else
		for (int i = 0; i < row->nvalues; i += 2)
			take_range(log, row, row->values[i], row->values[i + 1]);
}

/* ---- what is unfinished ---- */

static int
compare_acks(const void *a, const void *b)
{
	int64		x = ((const MqAck *) a)->lo;
	int64		y = ((const MqAck *) b)->lo;

	return (x > y) - (x < y);
}

static int
compare_voids(const void *a, const void *b)
{
	int64		x = ((const MqVoid *) a)->id;
	int64		y = ((const MqVoid *) b)->id;

	return (x > y) - (x < y);
}

/* The first void for this id or a greater one. */
static int64
first_void(const MqGroupLog *log, int64 id)
{
	int64		lo = 0;
	int64		hi = log->nvoids;

	while (lo < hi)
	{
		int64		middle = lo + (hi - lo) / 2;

		if (log->voids[middle].id < id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo;
}

/* Cuts out of the acks what was void later; an ack may be left with nothing. */
static void
apply_voids(MqGroupLog *log)
{
	int64		count = log->nvoids == 0 ? 0 : log->nacks;

	if (log->nvoids > 1)
		qsort(log->voids, log->nvoids, sizeof(MqVoid), compare_voids);
	for (int64 i = 0; i < count; i++)
	{
		/* a copy, for take_ack may move the array */
		MqAck		ack = log->acks[i];

		for (int64 v = first_void(log, ack.lo); v < log->nvoids && log->voids[v].id <= ack.hi; v++)
		{
			if (log->voids[v].n < ack.n || log->voids[v].id < ack.lo)
				continue;
			if (ack.lo < log->voids[v].id)
				take_ack(log, ack.n, ack.lo, log->voids[v].id - 1, ack.xid);
			ack.lo = log->voids[v].id + 1;
		}
		log->acks[i] = ack;
	}
}

/* Those that count: the committed ones ascending, as many as is returned, and the undecided ones behind them. */
int64
mq_group_log_sort_acks(MqGroupLog *log)
{
	int64		kept = 0;
	int64		committed = 0;

	apply_voids(log);
	for (int64 i = 0; i < log->nacks; i++)
		if (log->acks[i].n >= log->replay_from && log->acks[i].lo <= log->acks[i].hi)
			log->acks[kept++] = log->acks[i];
	log->nacks = kept;
	for (int64 i = 0; i < kept; i++)
	{
		if (log->acks[i].xid == 0)
		{
			MqAck		swap = log->acks[committed];

			log->acks[committed++] = log->acks[i];
			log->acks[i] = swap;
		}
	}
	if (committed > 0)
		qsort(log->acks, committed, sizeof(MqAck), compare_acks);
	return committed;
}

/* With failures and due time of `from`. Nothing is added where lo is greater than hi. */
static void
add_part(MqUnfinished **parts, int64 *count, int64 *room, const MqUnfinished *from, int64 lo, int64 hi)
{
	if (lo > hi)
		return;
	*parts = make_room(*parts, *count + 1, room, sizeof(MqUnfinished));
	(*parts)[*count] = *from;
	(*parts)[*count].lo = lo;
	(*parts)[(*count)++].hi = hi;
}

/* The checkpoint's ranges and the endless rest, less the committed acks. */
MqUnfinished *
mq_group_log_unfinished(MqGroupLog *log, int64 ncommitted, int64 *count)
{
	MqUnfinished *parts = NULL;
	int64		room = 0;
	int64		a = 0;
	int64		end = 0;
	MqUnfinished rest = {log->checkpoint_n > 0 ? log->next_id : log->group->start_id, PG_INT64_MAX, 0, 0};

	*count = 0;
	/* the rows of a checkpoint need not have come in the order they were written */
	if (log->nunfinished > 1)
		qsort(log->unfinished, log->nunfinished, sizeof(MqUnfinished), mq_unfinished_compare);
	for (int64 i = 0; i <= log->nunfinished; i++)
	{
		const MqUnfinished *range = i < log->nunfinished ? &log->unfinished[i] : &rest;
		/* a log that somebody has changed may say things twice; the window must not */
		int64		lo = Max(range->lo, end);

		end = range->hi < PG_INT64_MAX ? Max(end, range->hi + 1) : end;
		while (a < ncommitted && log->acks[a].hi < lo)
			a++;
		for (int64 b = a; b < ncommitted && log->acks[b].lo <= range->hi; b++)
		{
			add_part(&parts, count, &room, range, lo, Min(range->hi, log->acks[b].lo - 1));
			lo = Max(lo, log->acks[b].hi + 1);
		}
		add_part(&parts, count, &room, range, lo, range->hi);
	}
	return parts;
}
