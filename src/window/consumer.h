/*
 * consumer.h: consumers with a name, and how much may be in flight.
 *
 * A name has a cell only while it has something in flight, in one of the window's lists, by its hash: a look-up walks one of 64, so
 * it costs little up to some thousand names at once. All functions need the window lock, exclusively where the window is not const; none
 * allocates or throws.
 */
#ifndef MQ_CONSUMER_H
#define MQ_CONSUMER_H

#include "base/shmem.h"

/* Who takes, and how much it may have. */
typedef struct MqTaker
{
	uint64		token;			/* of the lease */
	uint64		owner;			/* whose it is while its transaction is open */
	TimestampTz deadline;
	const char *consumer;		/* NULL: no name */
	int			max_in_flight;	/* of the group; 0: no limit */
	int			max_per_consumer;	/* of all with that name, or with none; 0: no limit */
	int64		tick_ns;		/* between two messages at max_per_second; 0: no limit */
	bool		early;			/* what the transaction itself sent is taken before it is due, and from the reserve */
	TimestampTz own_due;		/* out: when the next of that is due, if there was nothing; PG_INT64_MAX: never */
	bool		starved;		/* out: there was something of that, but no memory */
	bool		limited;		/* out: one of the two stood in the way */
	bool		blocked;		/* out: so, and there is a limit for each consumer: others may take what this one may not */
} MqTaker;

/* How many of max messages the taker may have now; sets what it tells the taker, and the window's `limited`. */
extern int	mq_consumer_room(MqWindow *window, MqTaker *taker, int max);

/*
 * The taker's name in the window; 0: it has none, or there is no cell for it in for_name. A new one goes again with
 * mq_consumer_remove_if_idle, if nothing was taken.
 */
extern uint32 mq_consumer_of(MqWindow *window, const MqTaker *taker, MqCellList *for_name);
extern void mq_consumer_remove_if_idle(MqWindow *window, uint32 consumer);

/* The node's messages come into, and leave, the hands of a consumer (0: of one without a name). */
extern void mq_consumer_join(MqWindow *window, MqNode *n, uint32 consumer);
extern void mq_consumer_leave(MqWindow *window, MqNode *n);

/* Messages in flight for everybody together. */
extern int64 mq_consumer_in_flight(const MqWindow *window);

/* Forgets all names. */
extern void mq_consumer_clear(MqWindow *window);

#endif
