/*
 * settle.h: finishing messages: claims by receipt, discards by id, and the fate of the transaction that did it. Locks as
 * window.h says.
 */
#ifndef MQ_SETTLE_H
#define MQ_SETTLE_H

#include "window/failure.h"
#include "window/window.h"

/* A set of receipts of one window, by id; ranges where ids follow each other with one token. */
typedef struct MqClaim
{
	int64		lo;
	int64		hi;
	uint64		token;
	bool		refused;		/* out: not ours, not leased, or the lease is over */
	bool		left;			/* out: nacked or released after the transaction itself had popped it */
} MqClaim;

/* Marks claims refused that do not hold. With all_or_nothing the others are left alone if one is refused. */
typedef enum MqClaimAction
{
	MQ_CLAIM_SETTLE,			/* acked by transaction xid */
	MQ_CLAIM_POP,				/* the same; it may still be nacked or released by that */
	MQ_CLAIM_FAIL,				/* nack: ready at due, a failure counted */
	MQ_CLAIM_RELEASE,
	MQ_CLAIM_EXTEND,			/* lease ends at due */
	MQ_CLAIM_CHECK				/* nothing: only see whether it would be refused (xid: by a nack or release) */
} MqClaimAction;

/* Not to be had, however many cells there are: the window has its share of the memory. */
#define MQ_OVER_SHARE	(-1)

/*
 * Returns the number of messages changed; -1: nothing was done, it takes *needed cells, or is MQ_OVER_SHARE. *epoch: that of the
 * window, in which an ack is to be written down; a seek may have raised it since the caller read the definition. cause: of a failure.
 */
extern int64 mq_window_claim(const MqWindowRef *ref, MqClaim *claims, int count, MqClaimAction action,
							 bool all_or_nothing, uint64 xid, TimestampTz due, const MqCause *cause, MqCellList *cells,
							 int *needed, int32 *epoch);

/*
 * The transaction xid has rolled back to a savepoint: what of [lo, hi] it had popped and then nacked or released is as popped
 * as before. False: there was no such message, for the pop is undone too. Never throws, never allocates.
 */
extern bool mq_window_unleave(const MqWindowRef *ref, int64 lo, int64 hi, uint64 xid);

/* Bit masks of states. */
#define MQ_IN(state)		((uint8) (1 << (state)))
#define MQ_UNFINISHED		(MQ_IN(MQ_READY) | MQ_IN(MQ_LEASED) | MQ_IN(MQ_UNREAD) | MQ_IN(MQ_DEAD))
#define MQ_NOT_HANDED_OUT	(MQ_IN(MQ_READY) | MQ_IN(MQ_UNREAD) | MQ_IN(MQ_DEAD))

/*
 * Finishes ids (ascending) in one of the states, as an ack by transaction xid; ids and counts are of messages below next_id. Takes up to
 * two cells for each. -1: nothing was done, the window has its share of the memory.
 */
extern int64 mq_window_discard(const MqWindowRef *ref, const int64 *ids, int count, uint8 states, uint64 xid, MqCellList *cells,
							   int64 *discarded, int32 *epoch);

/*
 * The same for all in [lo, hi], whoever has it; two cells are needed. Returns whether there was anything.
 */
extern bool mq_window_discard_range(const MqWindowRef *ref, int64 lo, int64 hi, uint64 xid, MqCellList *cells,
									int32 *epoch);

/*
 * The same for what is ready, also that whose delay is not over, by id: at most so many messages, and MQ_ENTRIES_PER_HOLD entries. One
 * cell may be needed; without it an entry that is too large is left. Returns how many messages; what they were is in ranges.
 */
extern int64 mq_window_discard_ready(const MqWindowRef *ref, int64 max, uint64 xid, MqCellList *cells, MqRange *ranges, int *count,
									 int32 *epoch);

/*
 * Makes what of the ids (ascending) waits for a due time ready now, and what is dead again, as if it had never failed; returns how many
 * messages that were. Takes up to two cells for each. -1: nothing was done, the window has its share of the memory. No transaction
 * undoes it.
 */
extern int64 mq_window_retry(const MqWindowRef *ref, const int64 *ids, int count, MqCellList *cells);

/* A message, and how it has fared. */
typedef struct MqFared
{
	int64		id;
	uint16		attempts;
	uint16		failures;
} MqFared;

/* The first messages with an id above `after` in a state, at most max; returns how many there are. Nothing is taken. */
extern int	mq_window_peek(const MqWindowRef *ref, MqState state, int64 after, MqFared *fared, int max);
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
 * Whether something that is settling may be unfinished when transaction `xid` commits: others settle it, or that one has given it back
 * after it had popped it.
 */
extern bool mq_window_may_come_back(const MqWindowRef *ref, uint64 xid);

/*
 * Whether `due` of an entry in flight is the end of a lease. What was discarded, or settled before a restart, has none. What was
 * popped is settled as long as the transaction is open, whatever the time; and once it left the pop `due` is when it is due again.
 */
static inline bool
mq_has_lease_end(const MqNode *n)
{
	return n->state == MQ_LEASED || (n->state == MQ_SETTLING && n->token != 0 && (n->flags & MQ_NODE_POPPED) == 0);
}

/* Transactions that settled something and are not the caller's, up to max of them (for the worker to look at). */
extern int	mq_window_settlers(const MqWindowRef *ref, uint64 *xids, int max);

#endif
