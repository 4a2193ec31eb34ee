/*
 * take.h: handing messages out, and what becomes of them when the hand-out is undone. Locks as window.h says.
 */
#ifndef MQ_TAKE_H
#define MQ_TAKE_H

#include "window/failure.h"
#include "window/window.h"

/* A stretch of messages handed out together. */
typedef struct MqRun
{
	int64		lo;
	int64		hi;
	BlockNumber block;			/* hint: where lo is */
	uint16		attempts;
	uint16		failures;
	TimestampTz due;			/* of what the transaction itself sent: not before this */
} MqRun;

/* What the walker (walk.h) should do before messages are handed out. */
typedef enum MqWalkFirst
{
	MQ_WALK_NOT,
	MQ_WALK_SETTLE,				/* senders may be decided by now */
	MQ_WALK_READ				/* there are messages in front of the ready ones */
} MqWalkFirst;

/*
 * Hands out up to max messages that are ready and have an id above after. Returns the number of runs filled (at most
 * max_runs).
 *
 * walk_first may be null; else it is set, and if the walker should go first nothing is taken.
 */
extern int	mq_window_take(const MqWindowRef *ref, int64 after, int max, MqTaker *taker, MqRun *runs, int max_runs,
						   MqWalkFirst *walk_first);

/* The same for messages of the transaction xid itself, which others may not see yet. */
extern int	mq_window_take_own(const MqWindowRef *ref, uint64 xid, int max, MqTaker *taker, MqRun *runs, int max_runs);

/* What becomes of leased messages. */
typedef enum MqOutcome
{
	MQ_GIVE_BACK,				/* as if never handed out; this statement, and who sees no more than it, may not have it */
	MQ_LEAVE,					/* as if never handed out (due: what it was) */
	MQ_RELEASE,					/* ready again */
	MQ_FAIL,					/* ready again, or dead; a failure counted */
	MQ_REREAD,					/* to be looked for in the heap again */
	MQ_FINISH					/* gone */
} MqOutcome;

/*
 * Ends the leases with this token in [lo, hi]. Where a lease covers more than that it is cut, for which cells must
 * hold two cells; cells may be null when the caller knows that leases lie wholly inside or outside. Never throws.
 * cause: of a failure, else NULL. Returns how many messages changed.
 */
extern int64 mq_window_end_lease(const MqWindowRef *ref, int64 lo, int64 hi, uint64 token, MqOutcome outcome,
								 TimestampTz due, const MqCause *cause, MqCellList *cells);

/*
 * The transaction that leased with this token in [lo, hi] has ended and keeps its leases: those whose end is past end now. To be
 * called if the window's `overdue` is set. Never throws, never allocates.
 */
extern void mq_window_end_overdue(const MqWindowRef *ref, int64 lo, int64 hi, uint64 token);

#endif
