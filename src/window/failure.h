/*
 * failure.h: why messages failed, noted in shared memory until the worker writes it down.
 */
#ifndef MQ_FAILURE_H
#define MQ_FAILURE_H

#include "base/shmem.h"

struct MqWindowRef;

#define MQ_REASON_MAX	2048	/* bytes that are kept of a reason */

typedef enum MqFailureKind
{
	MQ_FAILED_NACK,
	MQ_FAILED_ERROR,			/* of the work */
	MQ_FAILED_TIMEOUT,
	MQ_FAILED_ROLLBACK,			/* of which no cause is known */
	MQ_FAILED_LEASE_END,
	MQ_FAILED_LOST,				/* the session ended */
	MQ_FAILED_CRASH
} MqFailureKind;

/* Why something failed. */
typedef struct MqCause
{
	MqFailureKind kind;
	int			sqlstate;		/* 0: none */
	const char *reason;			/* may be NULL; in the encoding of the database, and at most MQ_REASON_MAX bytes */
	bool		noted;			/* by somebody else, who knows more */
} MqCause;

/* Of which nobody knows whether the message is to blame: it counts half towards max_failures. */
static inline bool
mq_is_unexplained(const MqCause *cause)
{
	return cause->kind == MQ_FAILED_ROLLBACK || cause->kind == MQ_FAILED_LEASE_END || cause->kind == MQ_FAILED_LOST;
}

/* A failure of the messages from lo to hi, as the worker reads it. */
typedef struct MqNotedFailure
{
	int32		group_no;
	int64		lo;
	int64		hi;
	TimestampTz at;
	TimestampTz due;			/* when they come back; MQ_DUE_NEVER: dead, 0: at once */
	int			attempts;		/* 0: not known */
	int			failures;
	MqFailureKind kind;
	int			sqlstate;
	char		consumer[MQ_NAME_LENGTH_MAX + 1];	/* empty: it had no name */
	char		reason[MQ_REASON_MAX + 1];
	bool		has_reason;
} MqNotedFailure;

/*
 * Notes it, if there is room; else it is counted as dropped. A group has no more than its share of the room until the worker has written
 * down what there is. The caller may hold the window lock, or any other. Never throws, never allocates.
 */
extern void mq_failure_note(MqWindow *window, const MqNode *n, TimestampTz due, const MqCause *cause);

/* The same for messages that have no entry of their own any more. The caller does not hold the window lock. */
extern void mq_failure_note_range(const struct MqWindowRef *ref, int64 lo, int64 hi, const MqCause *cause);

/* ---- for the worker ---- */

/* All that is to be written down, in the database; what was taken before and not done with comes again first. 0: nothing. */
extern uint32 mq_failures_take(MqDatabase *db);

/* What was taken is written down, or given up: it is freed. */
extern void mq_failures_done(MqDatabase *db);

/* Reads a note; returns the next one, 0: there is none. */
extern uint32 mq_failure_read(uint32 note, MqNotedFailure *failure);

#endif
