/*
 * log.h: the append-only log of one queue and priority level.
 *
 * The order that readers rely on: every id on a page is greater than every id on the pages before it, as long as the
 * segment's file is the one that appends wrote, or was found to be in order (order.h). Within a page there is no order: VACUUM frees
 * the places of aborted rows and an append uses them again.
 */
#ifndef MQ_LOG_H
#define MQ_LOG_H

#include "access/htup.h"
#include "storage/block.h"

#include "log/segment.h"

/* Makes the chain's append position known: above the highest id on disk, and floor. The first append asks the sequence. */
extern void mq_log_attach(MqQueue *queue, int level, int64 floor);

/*
 * Appends tuples (columns as in MqColumn; id and enqueued_at are filled in here) and returns their ids, ascending.
 * The ids of one call need not be consecutive. Queue must be attached. Takes the append lock for at most 64 pages
 * at a time. Errors: what heap_insert raises, 55000 from opening the segment; the chain stays right in any case.
 */
extern void mq_log_append(const MqQueue *queue, int level, HeapTuple *tuples, int count, int64 *ids);

/*
 * Gives out ids, ascending, for messages that are not appended under them: those that are not due. In the log they are gaps. Queue must
 * be attached. Errors as above.
 */
extern void mq_log_take_ids(const MqQueue *queue, int level, int count, int64 *ids);

/* How far the log reaches: read before a page, so that what the page holds below next_id is all there is. */
typedef struct MqTail
{
	int64		next_id;
	int64		segment;		/* -1: not known */
	RelFileNumber file;
	BlockNumber block;
	uint32		truncations;
} MqTail;

/* False if the chain is gone (the queue was dropped). */
extern bool mq_log_tail(const MqQueue *queue, int level, MqTail *tail);

/*
 * The next message gets that id, and those in between are a gap. Where there were too many gaps the first is forgotten: its ids
 * count as given. Caller holds the append lock.
 */
extern void mq_log_pass_over(MqChain *chain, int64 next_id);

/* How many ids from this one on were given: an upper bound of the messages there. 0 if the chain is gone. */
extern int64 mq_log_ids_from(const MqQueue *queue, int level, int64 id);

/* Makes what readers remember of places in the log void, and lets the next message have at least this id. */
extern void mq_log_skip(const MqQueue *queue, int level, int64 next_id);

/* The same, above whatever is in the segments on record. */
extern void mq_log_skip_to_end(const MqQueue *queue, int level);

#endif
