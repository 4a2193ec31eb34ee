/*
 * memo.h: what a worker remembers of queues or groups, by their number, for as long as it lives.
 *
 * Nothing depends on it but when something is done again: so all of it is forgotten when most of it is about queues or
 * groups that are no more.
 */
#ifndef MQ_MEMO_H
#define MQ_MEMO_H

#include "postgres.h"

#include "utils/hsearch.h"

/* A static variable; the first member of an entry is its number, an int32. */
typedef struct MqMemo
{
	const char *name;
	Size		entry_size;
	MemoryContext context;		/* of the entries; also for what they point to */
	HTAB	   *entries;
} MqMemo;

/*
 * The entry of a number, zeroed when it is new; valid until the next call. alive: how many numbers there are; PG_INT32_MAX:
 * forget nothing.
 */
extern void *mq_memo(MqMemo *memo, int32 number, int alive);

#endif
