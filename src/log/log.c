/*
 * log.c: the append-only log of one queue and priority level: the append position, and appending.
 *
 * Owns the append position (MqChain, shmem.h) and all writing of message rows; page.c reads them. The append lock
 * covers: take ids, put the row behind the last one, remember where. Under it nothing waits for a heavyweight lock but
 * the extension of the file; segment, TOAST table and index are locked, the xid assigned and the tuples made
 * before. A crash loses the position; mq_log_attach finds it again. If an append fails half-way its ids are gone.
 *
 * SKIP_FSM without a BulkInsertState makes heap_insert use exactly the target block we set, or a new last page.
 */
#include "postgres.h"

#include "log/log.h"

#include "access/heapam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_sequence.h"
#include "commands/sequence.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "base/stop_point.h"
#include "log/dedup.h"
#include "log/order.h"
#include "log/page.h"
#include "log/schedule.h"
#include "log/segment_table.h"
#include "log/volume.h"

#define PAGES_PER_HOLD		64
#define TUPLES_PER_CALL		1000
#define SPINS_BEFORE_SLEEP	20
#define NEXTVALS_AT_MOST	256	/* a segment has 64 blocks */

/* id and enqueued_at are never null and come first: they lie right behind the header. */
static void
stamp(HeapTuple tuple, int64 id, TimestampTz time)
{
	int64	   *fixed = (int64 *) ((char *) tuple->t_data + tuple->t_data->t_hoff);

	fixed[0] = id;
	fixed[1] = time;
}

/* ---- position ---- */

/* Whether the slot is still this queue's. Caller holds the append lock. */
static bool
chain_is(const MqChain *chain, const MqChainKey *key)
{
	return memcmp(&chain->key, key, sizeof(*key)) == 0;
}

/* The greatest id that belongs into a segment, and time. In an ordered one the last page that has rows tells. */
static MqPageRange
segment_max(Relation rel, bool ordered, int64 lo, int64 hi)
{
	MqPageRange max = {PG_INT64_MAX, -1, -1};

	for (BlockNumber block = RelationGetNumberOfBlocks(rel); block > 0; block--)
	{
		MqPageRange page;
		bool		others = false;

		CHECK_FOR_INTERRUPTS();
		page = mq_log_page_range(rel, block - 1, lo, hi, &others);
		max.max_id = Max(max.max_id, page.max_id);
		max.max_time = Max(max.max_time, page.max_time);
		if (max.max_id >= 0 && ordered)
			break;
	}
	return max;
}

/* Of the last segment that has rows; max_id -1: there is none. Waits for locks on segments, so no LWLock may be held. */
static MqPageRange
queue_max(const MqQueue *queue, int level)
{
	int			count;
	MqSegmentInfo *list = mq_segment_list(queue, &count);
	MqPageRange max = {PG_INT64_MAX, -1, -1};

	for (int i = count - 1; i >= 0 && max.max_id < 0; i--)
	{
		int64		first = list[i].segment * queue->segment_size;
		Relation	rel;

		if (list[i].level != level)
			continue;
		rel = mq_segment_open(queue, level, list[i].segment, AccessShareLock);
		if (rel == NULL)
			continue;
		max = segment_max(rel, mq_order_holds(queue, level, list[i].segment, rel), first,
						  first + queue->segment_size - 1);
		relation_close(rel, AccessShareLock);
	}
	/* a sealed last segment is over, even if its last ids were never used */
	for (int i = 0; i < count; i++)
		if (list[i].level == level && list[i].sealed)
			max.max_id = Max(max.max_id, (list[i].segment + 1) * queue->segment_size - 1);
	pfree(list);
	return max;
}

/* Segments are read without the append lock: of several processes that do so at once the first one sets the position. */
void
mq_log_attach(MqQueue *queue, int level, int64 floor)
{
	MqChainKey	key = mq_chain_key(queue, level);
	MqChain    *chain = mq_chain_slot(&key, true, NULL);
	MqPageRange max;
	int64		next;
	bool		ready;

	queue->chain = chain;
	LWLockAcquire(MqAppendLock(chain), LW_SHARED);
	ready = chain_is(chain, &key) && chain->ready;
	LWLockRelease(MqAppendLock(chain));
	if (ready)
		return;

	max = queue_max(queue, level);
	/* the sequence lies above all that was given out here; in a restored queue it may be missing */
	if (queue->foreign)
		floor = Max(floor, Max(mq_schedule_max_id(queue->queue_no), mq_dedup_max_id(queue->queue_no)) + 1);
	next = Max(Max(max.max_id + 1, floor), 1);
	LWLockAcquire(MqAppendLock(chain), LW_EXCLUSIVE);
	if (chain_is(chain, &key) && !chain->ready)
	{
		chain->segment_size = queue->segment_size;
		/* nothing is reserved: the first append asks the sequence, which must answer with at least this */
		chain->next_id = chain->reserved_end = chain->first_id = next;
		chain->ngaps = 0;
		chain->last_time = Max(chain->last_time, max.max_time);
		chain->adopt_wanted = queue->foreign;
		chain->ready = true;
	}
	LWLockRelease(MqAppendLock(chain));
}

bool
mq_log_tail(const MqQueue *queue, int level, MqTail *tail)
{
	MqChainKey	key = mq_chain_key(queue, level);
	MqChain    *chain = queue->chain;
	bool		valid;

	LWLockAcquire(MqAppendLock(chain), LW_SHARED);
	valid = chain_is(chain, &key) && chain->ready;
	tail->next_id = chain->next_id;
	tail->segment = chain->tail_segment;
	tail->file = chain->tail_file;
	tail->block = chain->tail_block;
	tail->truncations = chain->truncations;
	LWLockRelease(MqAppendLock(chain));
	return valid;
}

int64
mq_log_ids_from(const MqQueue *queue, int level, int64 id)
{
	MqChainKey	key = mq_chain_key(queue, level);
	MqChain    *chain = queue->chain;
	int64		count = 0;

	LWLockAcquire(MqAppendLock(chain), LW_SHARED);
	if (chain_is(chain, &key) && chain->ready && id < chain->next_id)
	{
		count = chain->next_id - id;
		for (int i = 0; i < chain->ngaps; i++)
			count -= Max(chain->gaps[i].hi - Max(chain->gaps[i].lo, id) + 1, 0);
	}
	LWLockRelease(MqAppendLock(chain));
	return count;
}

void
mq_log_pass_over(MqChain *chain, int64 next_id)
{
	MqRange    *last = chain->ngaps > 0 ? &chain->gaps[chain->ngaps - 1] : NULL;

	if (last != NULL && last->hi + 1 == chain->next_id)
		last->hi = next_id - 1;
	else
	{
		if (chain->ngaps == MQ_GAPS)
			memmove(chain->gaps, chain->gaps + 1, --chain->ngaps * sizeof(MqRange));
		chain->gaps[chain->ngaps++] = (MqRange) {chain->next_id, next_id - 1};
	}
	chain->next_id = next_id;
}

void
mq_log_skip(const MqQueue *queue, int level, int64 next_id)
{
	MqChainKey	key = mq_chain_key(queue, level);
	MqChain    *chain = queue->chain;

	LWLockAcquire(MqAppendLock(chain), LW_EXCLUSIVE);
	if (chain_is(chain, &key) && chain->ready)
	{
		if (next_id > chain->next_id)
		{
			mq_log_pass_over(chain, next_id);
			chain->reserved_end = Max(chain->reserved_end, next_id);
		}
		/* part of what a remembered place is valid for (file_tag, walk.c) */
		chain->truncations++;
	}
	LWLockRelease(MqAppendLock(chain));
}

void
mq_log_skip_to_end(const MqQueue *queue, int level)
{
	mq_log_skip(queue, level, queue_max(queue, level).max_id + 1);
}

/* ---- append ---- */

/* How many ids one nextval reserves: the increment that the sequence was made with. */
static int64
ids_per_block(const MqQueue *queue)
{
	return Max(queue->segment_size / 64, 1);
}

/* Raises 55000 unless nextval answers above that after a number of calls, a whole block at a time. */
static void
check_sequence(const MqQueue *queue, int64 above)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(queue->sequence));
	bool		good = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_sequence form = (Form_pg_sequence) GETSTRUCT(tuple);

		good = form->seqincrement == ids_per_block(queue) && !form->seqcycle && form->seqmax > above && form->seqmin <= above;
		ReleaseSysCache(tuple);
	}
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the sequence that numbers the messages of queue \"%s\" was altered or dropped", NameStr(queue->name)),
				 errdetail("It is i_%d, and was made with INCREMENT " INT64_FORMAT ".", queue->queue_no, ids_per_block(queue)),
				 errhint("Use ALTER SEQUENCE to undo that, with NO MINVALUE NO MAXVALUE NO CYCLE; make it again if it is gone.")));
}

/* Sets a sequence forward that somebody has set back. If another process does so too, one of the blocks is a gap. */
static void
advance_sequence(const MqQueue *queue, int64 above)
{
	MqSqlContext context;

	mq_sql_begin(&context);
	mq_sql("SELECT pg_catalog.setval(%u, " INT64_FORMAT ", false)", queue->sequence, above);
	mq_sql_end(&context);
}

/*
 * One nextval reserves a block of ids. It may answer below what was reserved, when a segment was left before its end, but
 * not for long.
 */
static int64
reserve_ids(const MqQueue *queue, int64 above, int64 *end)
{
	int64		start = -1;

	if (!OidIsValid(queue->sequence))
		check_sequence(queue, above);
	for (int i = 0; start < above; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i == 1)
			check_sequence(queue, above);
		else if (i > 0 && i % NEXTVALS_AT_MOST == 0)
			advance_sequence(queue, above);
		start = nextval_internal(queue->sequence, false);
	}
	*end = start + ids_per_block(queue);
	return start;
}

/* Reserves the next block of ids, for all senders of the queue. Caller holds no LWLock, for nextval writes WAL. */
static void
reservation_extend(const MqQueue *queue, int level)
{
	MqChainKey	key = mq_chain_key(queue, level);
	MqChain    *chain = queue->chain;
	int64		start;
	int64		end;
	int64		above;

	LWLockAcquire(MqAppendLock(chain), LW_SHARED);
	above = chain->reserved_end;
	LWLockRelease(MqAppendLock(chain));

	start = reserve_ids(queue, above, &end);

	LWLockAcquire(MqAppendLock(chain), LW_EXCLUSIVE);
	if (chain_is(chain, &key) && start >= chain->reserved_end &&
		(start == chain->reserved_end || chain->next_id == chain->reserved_end))
	{
		if (start != chain->reserved_end)
			mq_log_pass_over(chain, start);
		chain->reserved_end = end;
	}
	/* else another process published a later block, and this one is a gap */
	LWLockRelease(MqAppendLock(chain));
}

/*
 * Points the next insertion at the tail. Caller holds the append lock. Our segments are made so that VACUUM keeps empty
 * pages at the end, but VACUUM (TRUNCATE) does not ask: what readers remember of the file is then void, for the rows to
 * come go to places they have left behind. The size of the file is asked for only when it may have shrunk since this
 * process appended last: cutting it off makes every process forget its target block, before the lock is released.
 */
static void
aim_at_tail(MqChain *chain, int64 segment, Relation rel)
{
	BlockNumber blocks;

	if (RelationGetTargetBlock(rel) != InvalidBlockNumber &&
		chain->tail_segment == segment && chain->tail_file == MqRelFileNumber(rel))
	{
		RelationSetTargetBlock(rel, chain->tail_block);
		return;
	}
	blocks = RelationGetNumberOfBlocks(rel);
	if (chain->tail_segment == segment && chain->tail_block != InvalidBlockNumber && chain->tail_block >= blocks)
	{
		chain->truncations++;
		chain->tail_file = InvalidRelFileNumber;
	}
	if (chain->tail_segment == segment && chain->tail_file == MqRelFileNumber(rel))
		RelationSetTargetBlock(rel, chain->tail_block);
	else
		RelationSetTargetBlock(rel, blocks > 0 ? blocks - 1 : InvalidBlockNumber);
}

/* slots hold the same tuples; they are used, and get the places, only if there are several. Caller holds the append lock. */
static void
insert_tuples(Relation rel, HeapTuple *tuples, TupleTableSlot **slots, int count, CommandId cid)
{
	if (count == 1)
		heap_insert(rel, tuples[0], cid, HEAP_INSERT_SKIP_FSM, NULL);
	else
		heap_multi_insert(rel, slots, count, cid, HEAP_INSERT_SKIP_FSM, NULL);
}

/*
 * A hold is a few microseconds for a single message, less than it takes to go to sleep and be woken: try a while.
 */
static void
acquire_append_lock(const MqChain *chain)
{
	for (int i = 0; i < SPINS_BEFORE_SLEEP; i++)
	{
		if (LWLockConditionalAcquire(MqAppendLock(chain), LW_EXCLUSIVE))
			return;
		for (int j = 0; j < 10; j++)
			SPIN_DELAY();
	}
	LWLockAcquire(MqAppendLock(chain), LW_EXCLUSIVE);
}

/* Caller holds the append lock. Raises 42704 if the slot is another queue's. */
static void
check_chain(const MqQueue *queue, const MqChainKey *key)
{
	if (!chain_is(queue->chain, key) || !queue->chain->ready)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("queue \"%s\" was dropped", NameStr(queue->name)),
				 errhint("Use mq.create_queue to create it.")));
}

/*
 * Appends as many of the tuples as belong into this segment and into one hold of the lock; 0: the caller must look
 * for the segment again, or reserve ids first (*reserve).
 */
static int
append_some(const MqQueue *queue, int level, int64 segment, Relation rel, HeapTuple *tuples,
			TupleTableSlot **slots, int count, int64 *ids, bool *reserve)
{
	MqChainKey	key = mq_chain_key(queue, level);
	MqChain    *chain = queue->chain;
	CommandId	cid = GetCurrentCommandId(true);
	TimestampTz now = GetCurrentTimestamp();
	ItemPointer last;
	int64		room;

	acquire_append_lock(chain);
	check_chain(queue, &key);
	*reserve = chain->next_id >= chain->reserved_end;
	if (*reserve || mq_segment_of(chain->next_id, chain->segment_size) != segment)
	{
		LWLockRelease(MqAppendLock(chain));
		return 0;
	}
	room = Min(chain->reserved_end, (segment + 1) * chain->segment_size) - chain->next_id;
	count = Min(count, room);

	/* ids are used up before the insertion: one that fails leaves a gap, never a second use */
	chain->last_time = Max(chain->last_time, now);
	for (int i = 0; i < count; i++)
	{
		ids[i] = chain->next_id + i;
		stamp(tuples[i], ids[i], chain->last_time);
	}
	chain->next_id += count;
	if (queue->max_bytes > 0 && chain->volume.spacing > 0)
		mq_volume_add(chain, tuples, count, ids[0]);

	Assert(count == 1 || slots != NULL);
	aim_at_tail(chain, segment, rel);
	chain->tail_file = InvalidRelFileNumber;
	insert_tuples(rel, tuples, slots, count, cid);
	last = count == 1 ? &tuples[0]->t_self : &slots[count - 1]->tts_tid;
	chain->tail_segment = segment;
	chain->tail_block = ItemPointerGetBlockNumber(last);
	chain->tail_file = MqRelFileNumber(rel);
	LWLockRelease(MqAppendLock(chain));
	return count;
}

/* How many of the tuples fit into one hold of the lock. */
static int
batch_size(HeapTuple *tuples, int count, bool *toast)
{
	Size		bytes = 0;
	int			n = 0;

	while (n < count && n < TUPLES_PER_CALL && (n == 0 || bytes < (Size) PAGES_PER_HOLD * BLCKSZ))
	{
		bytes += tuples[n]->t_len;
		*toast |= tuples[n]->t_len > TOAST_TUPLE_THRESHOLD;
		n++;
	}
	return n;
}

/* heap_multi_insert wants slots. They own the tuples, and free each when they are filled again. */
static void
fill_slots(TupleTableSlot **slots, HeapTuple *tuples, int count)
{
	for (int i = 0; i < count; i++)
		ExecStoreHeapTuple(tuples[i], slots[i], true);
}

/* Nobody drops them: they go with the memory context of the call. */
static TupleTableSlot **
make_slots(int count)
{
	TupleTableSlot **slots = palloc(count * sizeof(TupleTableSlot *));

	for (int i = 0; i < count; i++)
		slots[i] = MakeSingleTupleTableSlot(mq_row_descriptor(), &TTSOpsHeapTuple);
	return slots;
}

void
mq_log_append(const MqQueue *queue, int level, HeapTuple *tuples, int count, int64 *ids)
{
	TupleTableSlot **slots = NULL;
	int			filled = 0;		/* tuples before this one are in slots, from `base` on */
	int			base = 0;

	(void) GetCurrentTransactionId();
	for (int done = 0; done < count;)
	{
		/* read without the lock as a first guess; append_some looks again */
		int64		segment = mq_segment_of(queue->chain->next_id, queue->segment_size);
		bool		reserve = false;
		bool		toast = false;
		int			n = batch_size(tuples + done, count - done, &toast);
		Relation	rel;

		CHECK_FOR_INTERRUPTS();
		rel = mq_segment_open_to_append(queue, level, segment);
		if (toast)
			mq_segment_lock_toast(rel);
		if (n > 1 && slots == NULL)
			slots = make_slots(Min(count, TUPLES_PER_CALL));
		if (n > 1 && done >= filled)
		{
			fill_slots(slots, tuples + done, n);
			base = done;
			filled = done + n;
		}
		else if (n > 1)
			n = Min(n, filled - done);
		MQ_STOP_POINT("send_before_insert");
		n = append_some(queue, level, segment, rel, tuples + done, slots ? slots + (done - base) : NULL, n,
						ids + done, &reserve);
		relation_close(rel, NoLock);
		if (reserve)
			reservation_extend(queue, level);
		done += n;
		/* the segment is full: the worker makes the one that is one further ahead, before anybody waits for it */
		if (n > 0 && ids[done - 1] + 1 == (segment + 1) * queue->segment_size)
			mq_worker_wake(queue->db);
		if (n > 0)
			MQ_STOP_POINT("send_after_insert");
	}
}

void
mq_log_take_ids(const MqQueue *queue, int level, int count, int64 *ids)
{
	MqChainKey	key = mq_chain_key(queue, level);
	MqChain    *chain = queue->chain;
	int			done = 0;

	while (done < count)
	{
		int64		before;
		int			n;

		CHECK_FOR_INTERRUPTS();
		acquire_append_lock(chain);
		check_chain(queue, &key);
		before = chain->next_id;
		n = (int) Min(count - done, chain->reserved_end - chain->next_id);
		for (int i = 0; i < n; i++)
			ids[done++] = chain->next_id++;
		LWLockRelease(MqAppendLock(chain));
		if (done < count)
			reservation_extend(queue, level);
		/* as after an append */
		if (mq_segment_of(before + n, queue->segment_size) != mq_segment_of(before, queue->segment_size))
			mq_worker_wake(queue->db);
	}
}
