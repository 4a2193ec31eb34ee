/*
 * window.h: a delivery window as a whole: its lock, what is in it, clearing and replacing it.
 *
 * Unless its comment says otherwise, a function here, in take.h or in settle.h takes the window lock itself and releases it before
 * it returns. Where a window no longer exists (its queue was dropped) it does nothing and reports nothing done. None does heap,
 * catalog or commit log work.
 */
#ifndef MQ_WINDOW_H
#define MQ_WINDOW_H

#include "base/catalog.h"
#include "window/consumer.h"
#include "window/tree.h"

/*
 * Cells for so many new entries of somebody who has in_use already: a few from the reserve, so that what gives messages up goes on
 * with memory full; more only within a share of what is free. False: that is used up. 53200: there are not enough.
 */
extern bool mq_share_cells(MqCellList *cells, int64 count, int64 in_use);

/* When to look again for what could not be taken for lack of memory. */
#define MQ_HELD_BACK_RECHECK_MS 1000

/* Names a window safely: the slot may have got another owner. */
typedef struct MqWindowRef
{
	MqWindow   *window;
	MqWindowKey key;
} MqWindowRef;

/* As the due time of what comes back: after a pause that grows with how often it did (lease.c). */
#define MQ_DUE_AFTER_PAUSE PG_INT64_MIN

/* Who has much to do in a window lets others in after so many entries. */
#define MQ_ENTRIES_PER_HOLD	256

/* Locks; false (and no lock) when the window is gone. */
extern bool mq_window_lock(const MqWindowRef *ref, LWLockMode mode);
extern void mq_window_unlock(const MqWindowRef *ref);

/*
 * Puts this process into the line of receivers (mq_wait_enlist, wake.h); false: the group is gone.
 */
extern bool mq_window_enlist(const MqWindowRef *ref, MqChain *chain, bool again, MqBlocked blocked);

/* For the timekeeper, right before it sleeps: when it has to look again. It began to look last at that time. */
extern TimestampTz mq_window_set_clock(const MqWindowRef *ref, TimestampTz looked_at);

/* When something becomes ready by the clock alone: a due time, or the end of a lease. PG_INT64_MAX: never. */
extern TimestampTz mq_window_next_event(const MqWindowRef *ref);

/* Whether there is, or may be, something to hand out; next_id: of the log. */
extern bool mq_window_has_work(const MqWindowRef *ref, int64 next_id);

/* A message that is ready, at one of its hand-outs. */
typedef struct MqReady
{
	int64		id;
	int			attempts;
} MqReady;

/* Whether a message is ready now, and which one is the first (NULL: never mind); ends leases whose time is over. */
extern bool mq_window_has_ready(const MqWindowRef *ref, MqReady *first);

/* Whether so many messages, or more, are in flight; then room will wake who waits. */
extern bool mq_window_is_full(const MqWindowRef *ref, int max_in_flight);

/* From now on failures are judged by another policy. Never throws. */
extern void mq_window_set_retry(const MqWindowRef *ref, const MqRetryPolicy *policy);

/* The group is dropped: who waits is sent away, and nobody waits any more. */
extern void mq_window_set_dropped(const MqWindowRef *ref);

/* Ends leases whose time is over; returns whether more are left. */
extern bool mq_window_expire(const MqWindowRef *ref, TimestampTz now);

/* Counts for the views. */
typedef struct MqWindowCounts
{
	int32		epoch;
	int64		low_watermark;
	int64		next_id;
	int64		ids[MQ_STATES];
	int64		overflowed;
	int64		pending;
	int64		held_back;
	int32		waiting;		/* receivers in line */
	int64		oldest_dead;	/* its id; PG_INT64_MAX: none */
	int64		oldest_ready;	/* the first id that may be handed out now, or was not looked at; PG_INT64_MAX: none */
} MqWindowCounts;

extern bool mq_window_counts(const MqWindowRef *ref, MqWindowCounts *counts);

/* Of the ready messages, those whose time has not come. */
typedef struct MqDelayed
{
	int64		from;			/* ids below were looked at; begin with PG_INT64_MIN */
	int64		count;
	TimestampTz next_due;		/* the earliest; PG_INT64_MAX: none */
} MqDelayed;

/* Adds up a lot of entries, of those that came back with a due time; returns whether more are left. */
extern bool mq_window_count_delayed(const MqWindowRef *ref, TimestampTz now, MqDelayed *delayed);

/* Where look-ahead ends: every message below was seen. Caller holds the lock. */
extern int64 mq_window_next_id(const MqWindow *window);

/*
 * Whether this window may still take memory: half of what is there for the first, half of the rest for the next, ..., so that the
 * others find some too. For look-ahead, hand-outs, and cuts that leave more entries than there were; finishing: for an ack that
 * does, which may use the reserve. What leaves no more entries behind needs no leave. cells: what the caller has reserved for it.
 * A hint: free cells are read without their lock.
 */
extern bool mq_window_may_grow(const MqWindow *window, int cells, bool finishing);

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
