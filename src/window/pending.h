/*
 * pending.h: messages whose sender is undecided, and those to be read again because it is decided now.
 *
 * A sender has a list of chunks, exactly its ids: the last one grows while its rows follow each other closely. When it
 * is decided they go to the window's list `rewalk`. Functions on a window need its lock; none allocates or throws.
 */
#ifndef MQ_PENDING_H
#define MQ_PENDING_H

#include "base/shmem.h"

/* The sender with this full xid; 0: none. */
extern uint32 mq_pending_find(const MqWindow *window, uint64 xid);

/* Adds a range, with all that a chunk says of it, to what the sender has. Takes up to two cells. */
extern void mq_pending_add(MqWindow *window, uint64 xid, const MqChunk *range, MqCellList *cells);

/*
 * Takes up to max consecutive ids, from the front, out of what the sender has and is due: *part is a range with them. The
 * sender goes with its last one. False: there is nothing.
 */
extern bool mq_pending_take(MqWindow *window, uint64 xid, TimestampTz now, int64 max, MqChunk *part);

/* When the next of what the sender has is due; PG_INT64_MAX: it has nothing. */
extern TimestampTz mq_pending_due(const MqWindow *window, uint64 xid);

/* The sender is decided: its chunks are read again, each row by its own fate; if all of it aborted there is no need. */
extern void mq_pending_resolve(MqWindow *window, uint64 xid, bool aborted);

/* Of the first chunk to be read again everything below `done` was; the rest begins on the given page. */
extern void mq_rewalk_advance(MqWindow *window, int64 done, BlockNumber block, uint32 file_tag);

/* Frees all senders and chunks. */
extern void mq_pending_clear(MqWindow *window);

/* No id in any chunk is smaller: a bound, for a bit map keeps its first id when that is taken. `low` if that is smaller. */
extern int64 mq_pending_low(const MqWindow *window, int64 low);

/* Of a chunk: its smallest id, how many it has, whether it has this one. */
extern int64 mq_chunk_first(const MqChunk *chunk);
extern int64 mq_chunk_count(const MqChunk *chunk);
extern bool mq_chunk_has(const MqChunk *chunk, int64 id);

#endif
