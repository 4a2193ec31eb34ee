/*
 * offset_log.h: what is finished, on disk: the tables mq_internal.consumer_offset_0, _1, ...
 *
 * Append-only. A row is an ack or (part of) a checkpoint:
 *
 *   n            number of the call, from a counter of the database
 *   group_no, level, epoch
 *   lo, hi       ack: the ids lie in [lo, hi]; checkpoint: low watermark and next id
 *   ranges       ack: pairs (lo, hi), null: all of [lo, hi]
 *                checkpoint: quadruples (lo, hi, failures, due) of what is unfinished below next id; due MQ_DUE_NEVER: dead
 *   replay_from  null in an ack. Checkpoint: acks with a smaller n are contained in it. -1: a hand-out, -2: void
 *
 * A hand-out says that messages which a crash had left unfinished were about to be handed out again. It counts even if
 * its transaction aborted: it is there to be found after the next crash. Rows of group 0 say that the server's mq was
 * started (hi 1) or stopped in order (hi 0): if the last row of all is not a stop, it was a crash.
 *
 * A row that is void, written as an ack is, says that acks with a smaller n do not finish its ids after all: the transaction
 * popped them, and then nacked or released them. While it had them nobody else could finish them, so it means its own acks.
 *
 * A large checkpoint is several rows with the same n. Everything below next id that is in no range is finished.
 */
#ifndef MQ_OFFSET_LOG_H
#define MQ_OFFSET_LOG_H

#include "base/catalog.h"

typedef struct MqUnfinished
{
	int64		lo;
	int64		hi;
	int64		failures;		/* packed */
	int64		due;			/* microseconds, as in TimestampTz */
} MqUnfinished;

/* Failures, and how many of them are unexplained, as one number: 16 bits and the next 8. */
static inline int64
mq_pack_failures(uint16 failures, uint8 unexplained)
{
	return failures | (int64) unexplained << 16;
}

/* For qsort: by lo. */
extern int	mq_unfinished_compare(const void *a, const void *b);

/* Sorts by lo and joins neighbours that are alike; returns how many are left. */
extern int	mq_unfinished_sort(MqUnfinished *u, int count);

typedef struct MqWritten
{
	int64		n;
	int64		bytes;
} MqWritten;

/* Writes the acks of one call; ranges in any order. Errors as heap_insert. */
extern MqWritten mq_offset_log_ack(const MqGroup *group, int level, int32 epoch, const MqRange *ranges, int count);

/* Writes that the transaction's own acks of these ids do not count; ranges in any order. Errors as heap_insert. */
extern MqWritten mq_offset_log_void(const MqGroup *group, int level, int32 epoch, const MqRange *ranges, int count);

/* Writes what is unfinished below next_id, ascending; there may be nothing. Errors as heap_insert. */
extern MqWritten mq_offset_log_checkpoint(const MqGroup *group, int level, int32 epoch, int64 low, int64 next_id,
										  int64 replay_from, const MqUnfinished *ranges, int count);

/* Books an ack of the window, for checkpoints and truncation to know. */
extern void mq_offset_log_wrote(MqWindow *window, const MqWindowKey *key, MqWritten written);

/* Notes a hand-out, on disk when this returns. ranges as for an ack. */
extern void mq_offset_log_hand_out(const MqGroup *group, int level, int32 epoch, const MqRange *ranges, int count);

/* Notes a start or an orderly stop. */
extern void mq_offset_log_mark(MqDatabase *db, bool stop);

/* A row as read back. */
typedef struct MqOffsetRow
{
	int64		n;
	int32		group_no;
	int32		level;
	int32		epoch;
	int64		lo;
	int64		hi;
	bool		is_checkpoint;
	bool		is_hand_out;
	bool		is_void;
	int64		replay_from;
	int			nvalues;
	int64	   *values;			/* of ranges */
	uint64		xid;			/* 0: committed, else undecided */
	int			table;
} MqOffsetRow;

typedef void (*MqOffsetRowHandler) (const MqOffsetRow *row, void *arg);

/* Locks every ring table against truncation, to the end of the transaction; returns how many there are. */
extern int	mq_offset_log_lock(void);

/* Hands every row that is not aborted, and every hand-out, to the handler. */
extern void mq_offset_log_scan(int tables, MqOffsetRowHandler handler, void *arg);

/* The oid of a ring table; InvalidOid: there is none of that number. */
extern Oid	mq_offset_log_table(int table);

#endif
