/*
 * volume.c: how many bytes of messages lie between two places of a log. See volume.h.
 *
 * Marks in the chain (MqChain.volume) say how many rows and bytes were appended before an id; one is set each time that a part of
 * max_bytes was appended since the last one, and the first is forgotten when there are too many. So they cover some times as much as
 * the queue may hold. A crash loses them; then, and when max_bytes is new, the files of the segments are measured once.
 *
 * Locks: the append lock; for measuring, segments ACCESS SHARE, without waiting.
 */
#include "postgres.h"

#include "log/volume.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/lmgr.h"
#include "utils/rel.h"

#include "log/log.h"
#include "log/segment_table.h"

#define MARKS_PER_BOUND	12
#define PAGES_TO_ASK	8

/* ---- marks; the caller holds the append lock ---- */

static int64
spacing_of(const MqQueue *queue)
{
	return Max(queue->max_bytes / MARKS_PER_BOUND, 1);
}

/* Before that id so much was appended. */
static void
set_mark(MqVolumeMarks *marks, int64 id)
{
	if (marks->count == MQ_VOLUME_MARKS)
		memmove(marks->mark, marks->mark + 1, --marks->count * sizeof(MqVolumeMark));
	marks->mark[marks->count++] = (MqVolumeMark) {id, marks->rows, marks->bytes};
}

void
mq_volume_add(MqChain *chain, HeapTuple *tuples, int count, int64 first_id)
{
	MqVolumeMarks *marks = &chain->volume;

	if (marks->count == 0 || marks->bytes - marks->mark[marks->count - 1].bytes >= (double) marks->spacing)
		set_mark(marks, first_id);
	marks->rows += count;
	for (int i = 0; i < count; i++)
		marks->bytes += tuples[i]->t_len;
}

/* What was appended before an id; what is before the first mark counts as nothing. */
static MqVolume
before(const MqVolumeMarks *marks, int64 id, int64 next_id)
{
	MqVolumeMark end = {next_id, marks->rows, marks->bytes};

	for (int i = marks->count - 1; i >= 0; i--)
	{
		const MqVolumeMark *mark = &marks->mark[i];
		double		part;

		if (mark->id > id)
		{
			end = *mark;
			continue;
		}
		part = end.id > mark->id ? (double) (Min(id, end.id) - mark->id) / (double) (end.id - mark->id) : 0;
		return (MqVolume) {mark->rows + part * (end.rows - mark->rows), mark->bytes + part * (end.bytes - mark->bytes)};
	}
	return (MqVolume) {end.rows, end.bytes};
}

/* ---- measuring ---- */

/* Rows are those on some of the pages, as if the others had as many. */
static double
estimated_rows(Relation rel, BlockNumber blocks)
{
	BlockNumber step = Max(blocks / PAGES_TO_ASK, 1);
	double		rows = 0;
	int			asked = 0;

	for (BlockNumber block = 0; block < blocks && asked < PAGES_TO_ASK; block += step, asked++)
	{
		Buffer		buffer = ReadBuffer(rel, block);

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		rows += PageGetMaxOffsetNumber(BufferGetPage(buffer));
		UnlockReleaseBuffer(buffer);
	}
	return asked == 0 ? 0 : rows / asked * blocks;
}

/* 0: somebody has it locked. */
static double
toast_bytes(Oid toast)
{
	Relation	rel;
	double		bytes;

	if (!OidIsValid(toast) || !ConditionalLockRelationOid(toast, AccessShareLock))
		return 0;
	rel = try_relation_open(toast, NoLock);
	if (rel == NULL)
	{
		UnlockRelationOid(toast, AccessShareLock);
		return 0;
	}
	bytes = (double) RelationGetNumberOfBlocks(rel) * BLCKSZ;
	relation_close(rel, AccessShareLock);
	return bytes;
}

/* Nothing, if somebody has it locked. */
static MqVolume
segment_volume(const MqQueue *queue, int level, int64 segment)
{
	Relation	rel = mq_segment_open_at_once(queue, level, segment);
	MqVolume	volume = {0, 0};
	BlockNumber blocks;

	if (rel == NULL)
		return volume;
	blocks = RelationGetNumberOfBlocks(rel);
	volume.rows = estimated_rows(rel, blocks);
	volume.bytes = (double) blocks * BLCKSZ + toast_bytes(rel->rd_rel->reltoastrelid);
	relation_close(rel, AccessShareLock);
	return volume;
}

/* A mark for each of the last segments that may have rows. */
static MqVolumeMarks
measure(const MqQueue *queue, int level, int64 next_id)
{
	int			count;
	MqSegmentInfo *list = mq_segment_list(queue, &count);
	MqVolumeMarks marks = {spacing_of(queue)};
	int			first = 0;

	while (count > 0 && list[count - 1].segment > mq_segment_of(next_id, queue->segment_size))
		count--;
	first = Max(count - MQ_VOLUME_MARKS, 0);
	for (int i = first; i < count; i++)
	{
		MqVolume	volume;

		CHECK_FOR_INTERRUPTS();
		if (list[i].level != level)
			continue;
		volume = segment_volume(queue, level, list[i].segment);
		set_mark(&marks, list[i].segment * queue->segment_size);
		marks.rows += volume.rows;
		marks.bytes += volume.bytes;
	}
	pfree(list);
	return marks;
}

/* What is appended while the files are measured is perhaps left out. */
static void
keep(const MqQueue *queue, int level)
{
	MqChainKey	key = mq_chain_key(queue, level);
	MqVolumeMarks marks = measure(queue, level, queue->chain->next_id);

	LWLockAcquire(MqAppendLock(queue->chain), LW_EXCLUSIVE);
	if (memcmp(&queue->chain->key, &key, sizeof(key)) == 0)
		queue->chain->volume = marks;
	LWLockRelease(MqAppendLock(queue->chain));
}

MqVolume
mq_volume_from(const MqQueue *queue, int level, int64 id)
{
	MqChain    *chain = queue->chain;
	MqVolume	volume;
	MqVolume	passed;

	/* without the lock: it changes once, with max_bytes */
	if (chain->volume.spacing != spacing_of(queue))
		keep(queue, level);
	LWLockAcquire(MqAppendLock(chain), LW_SHARED);
	passed = before(&chain->volume, id, chain->next_id);
	volume = (MqVolume) {chain->volume.rows - passed.rows, chain->volume.bytes - passed.bytes};
	LWLockRelease(MqAppendLock(chain));
	return volume;
}
