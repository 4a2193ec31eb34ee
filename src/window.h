/*
 * window.h: who holds what: transitions of messages in a delivery window.
 *
 * Every function takes the window lock itself and releases it before it returns. Where a window no longer exists (its
 * queue was dropped) they do nothing and report nothing done. None does heap, catalog or commit log work.
 */
#ifndef MQ_WINDOW_H
#define MQ_WINDOW_H

#include "catalog.h"
#include "consumer.h"
#include "tree.h"

/* Names a window safely: the slot may have got another owner. */
typedef struct MqWindowRef
{
	MqWindow   *window;
	MqWindowKey key;
} MqWindowRef;

/* Locks; false (and no lock) when the window is gone. */
extern bool mq_window_lock(const MqWindowRef *ref, LWLockMode mode);
extern void mq_window_unlock(const MqWindowRef *ref);

/* A stretch of messages handed out together. */
typedef struct MqRun
{
	int64		lo;
	int64		hi;
	BlockNumber block;			/* hint: where lo is */
	uint16		attempts;
	uint16		failures;
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
	MQ_LEAVE,					/* as if never handed out */
	MQ_RELEASE,					/* ready again */
	MQ_FAIL,					/* ready again, a failure counted */
	MQ_REREAD,					/* to be looked for in the heap again */
	MQ_FINISH					/* gone */
} MqOutcome;

/*
 * Ends the leases with this token in [lo, hi]. Where a lease covers more than that it is cut, for which cells must
 * hold two cells; cells may be null when the caller knows that leases lie wholly inside or outside. Never throws.
 * Returns how many messages changed.
 */
extern int64 mq_window_end_lease(const MqWindowRef *ref, int64 lo, int64 hi, uint64 token, MqOutcome outcome,
								 TimestampTz due, MqCellList *cells);

/* A set of receipts of one window, by id; ranges where ids follow each other with one token. */
typedef struct MqClaim
{
	int64		lo;
	int64		hi;
	uint64		token;
	bool		refused;		/* out: not ours, not leased, or the lease is over */
} MqClaim;

/* Marks claims refused that do not hold. With all_or_nothing the others are left alone if one is refused. */
typedef enum MqClaimAction
{
	MQ_CLAIM_SETTLE,			/* acked by transaction xid */
	MQ_CLAIM_FAIL,				/* nack: ready at due, a failure counted */
	MQ_CLAIM_RELEASE,
	MQ_CLAIM_EXTEND,			/* lease ends at due */
	MQ_CLAIM_CHECK				/* nothing: only see whether it would be refused */
} MqClaimAction;

/*
 * Returns the number of messages changed; -1: nothing was done, it takes *needed cells. *epoch: that of the window, in
 * which an ack is to be written down; a seek may have raised it since the caller read the definition.
 */
extern int64 mq_window_claim(const MqWindowRef *ref, MqClaim *claims, int count, MqClaimAction action,
							 bool all_or_nothing, uint64 xid, TimestampTz due, MqCellList *cells, int *needed,
							 int32 *epoch);

/* Finishes ids in any state, as an ack by transaction xid; ids and counts are of messages below next_id. */
extern int64 mq_window_discard(const MqWindowRef *ref, const int64 *ids, int count, uint64 xid, MqCellList *cells,
							   int64 *discarded, int32 *epoch);

/*
 * The same for all in [lo, hi], whoever has it; two cells are needed. Returns whether there was anything.
 */
extern bool mq_window_discard_range(const MqWindowRef *ref, int64 lo, int64 hi, uint64 xid, MqCellList *cells,
									int32 *epoch);

/* Whether something in [lo, hi] is not finished, nor acked by anybody yet. */
extern bool mq_window_has_unfinished(const MqWindowRef *ref, int64 lo, int64 hi);

/* How many of these ids are not finished, nor acked by anybody yet. */
extern int	mq_window_count_unfinished(const MqWindowRef *ref, const int64 *ids, int count);

/*
 * The transaction xid that settled [lo, hi] is decided (or, mine: the caller's own one rolled back to a savepoint).
 * Never throws, never allocates.
 */
extern void mq_window_settled(const MqWindowRef *ref, int64 lo, int64 hi, uint64 xid, bool committed, bool mine);

/*
 * Puts this process into the line of receivers (mq_wait_enlist, wake.h); false: the group is gone.
 */
extern bool mq_window_enlist(const MqWindowRef *ref, MqChain *chain, bool again);

/* For the timekeeper, right before it sleeps: when it has to look again. It began to look last at that time. */
extern TimestampTz mq_window_set_clock(const MqWindowRef *ref, TimestampTz looked_at);

/* When something becomes ready by the clock alone: a due time, or the end of a lease. PG_INT64_MAX: never. */
extern TimestampTz mq_window_next_event(const MqWindowRef *ref);

/* Whether there is, or may be, something to hand out; next_id: of the log. */
extern bool mq_window_has_work(const MqWindowRef *ref, int64 next_id);

/* Whether a message is ready now; ends leases whose time is over. */
extern bool mq_window_has_ready(const MqWindowRef *ref);

/* Whether so many messages, or more, are in flight. */
extern bool mq_window_is_full(const MqWindowRef *ref, int max_in_flight);

/* The group is dropped: who waits is sent away, and nobody waits any more. */
extern void mq_window_set_dropped(const MqWindowRef *ref);

/* Ends leases whose time is over; returns whether more are left. */
extern bool mq_window_expire(const MqWindowRef *ref, TimestampTz now);

/* Transactions that settled something and are not the caller's, up to max of them (for the worker to look at). */
extern int	mq_window_settlers(const MqWindowRef *ref, uint64 *xids, int max);

/* Counts for the views. */
typedef struct MqWindowCounts
{
	int32		epoch;
	int64		low_watermark;
	int64		next_id;
	int64		ids[MQ_STATES];
	int64		pending;
	int64		held_back;
	int32		waiting;		/* receivers in line */
} MqWindowCounts;

extern bool mq_window_counts(const MqWindowRef *ref, MqWindowCounts *counts);

/* Where look-ahead ends: every message below was seen. Caller holds the lock. */
extern int64 mq_window_next_id(const MqWindow *window);

/* Whether this window may still take memory for look-ahead; the others must find some too. */
extern bool mq_window_may_grow(const MqWindow *window);

/* Frees the window and all in it. Caller holds no lock. */
extern void mq_window_forget(const MqWindowKey *key);

/*
 * A seek: from now on the window holds what content holds, in a later epoch; rows of the offset log below oldest_needed
 * are superfluous for it. What it held before is freed (and content itself, if the window is gone or in that
 * epoch already). Caller holds no lock. Never throws, never allocates.
 */
extern void mq_window_replace(const MqWindowRef *ref, MqWindow *content, int32 epoch, int64 oldest_needed);

/* Frees all entries. The caller holds the lock, or is the only one that knows the window. */
extern void mq_window_clear(MqWindow *window);

#endif
