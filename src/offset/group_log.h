/*
 * group_log.h: what the offset log says about one consumer group, collected row by row, and what is unfinished by it.
 */
#ifndef MQ_GROUP_LOG_H
#define MQ_GROUP_LOG_H

#include "offset/offset_log.h"

/* Acks seen for one group; xid 0: committed. */
typedef struct MqAck
{
	int64		n;
	int64		lo;
	int64		hi;
	uint64		xid;
} MqAck;

/* A message that left the pop of a transaction: acks with a smaller n do not finish it. */
typedef struct MqVoid
{
	int64		id;
	int64		n;
} MqVoid;

/* After a crash; those with an n from the checkpoint's on are in none. */
typedef struct MqHandOut
{
	int64		n;
	MqRange		range;
} MqHandOut;

typedef struct MqGroupLog
{
	MqGroup    *group;
	int64		checkpoint_n;	/* 0: none */
	int64		next_id;
	int64		replay_from;
	MqUnfinished *unfinished;	/* of the checkpoint */
	int64		nunfinished;
	int64		room_unfinished;
	MqAck	   *acks;
	int64		nacks;
	int64		room_acks;
	MqVoid	   *voids;
	int64		nvoids;
	int64		room_voids;
	MqHandOut  *hand_outs;
	int64		nhand_outs;
	int64		room_hand_outs;
	int64		oldest_n;		/* smallest n of any row; 0: none */
} MqGroupLog;

/*
 * Takes a row of the group and its epoch, in any order of n. The arrays grow in the current memory context; an error is one of
 * palloc and leaves nothing to be undone.
 */
extern void mq_group_log_take(MqGroupLog *log, const MqOffsetRow *row);

/*
 * Once all rows are taken: drops the acks that do not count, and returns how many committed ones there are. They are in front,
 * ascending by id; behind them, up to nacks, are those of undecided transactions.
 */
extern int64 mq_group_log_sort_acks(MqGroupLog *log);

/* After that: the ranges that are unfinished, ascending, the last one without an end (PG_INT64_MAX). palloc'ed. */
extern MqUnfinished *mq_group_log_unfinished(MqGroupLog *log, int64 ncommitted, int64 *count);

#endif
