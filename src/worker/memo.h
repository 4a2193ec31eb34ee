/*
 * memo.h: what a worker remembers of queues or groups, by their number, for as long as it lives.
 *
 * What nobody has asked for in a while is forgotten: that queue or group is no more, or nothing happens there.
 */
#ifndef MQ_MEMO_H
#define MQ_MEMO_H

#include "utils/hsearch.h"

/* What each entry begins with. */
typedef struct MqMemoHead
{
	int32		number;
	int64		asked;			/* when it was asked for last, of mq_monotonic_us */
	void	   *data;			/* goes with it; in TopMemoryContext, may be null */
} MqMemoHead;

/* A static variable. */
typedef struct MqMemo
{
	const char *name;
	Size		entry_size;
	HTAB	   *entries;
	long		sweep_at;		/* so many entries */
} MqMemo;

/* The entry of a number, zeroed when it is new; valid until the next call. */
extern void *mq_memo(MqMemo *memo, int32 number);

/* The same without making one, or keeping it alive; NULL: there is none. Never throws: for callbacks. */
extern void *mq_memo_find(const MqMemo *memo, int32 number);

#endif
