/*
 * job.h: how a job of the worker runs, and what jobs have in common. A job runs in a transaction of its own and
 * waits for no lock.
 */
#ifndef MQ_JOB_H
#define MQ_JOB_H

#include "storage/lock.h"
#include "utils/rel.h"

#include "base/catalog.h"
#include "log/log.h"
#include "log/segment.h"
#include "offset/checkpoint.h"
#include "worker/list.h"

extern MqDatabase *mq_worker_database;	/* the slot of the database this worker is for */
extern MemoryContext mq_job_context;	/* what jobs allocate; reset after each turn */

typedef bool (*MqJob) (void *arg);

/* Once, when the worker starts. */
extern void mq_job_init(void);

/* What a job is for: a queue or group by its number, and a segment of it; all zero: the database. */
typedef struct MqJobFor
{
	int64		segment;
	int32		number;
	bool		urgent;			/* somebody waits for it */
} MqJobFor;

#define MQ_JOB_FOR_ALL			((MqJobFor) {0, 0, false})
#define MQ_JOB_FOR_ALL_URGENT	((MqJobFor) {0, 0, true})
#define MQ_JOB_FOR(number)		((MqJobFor) {0, (number), false})

/*
 * Runs a job in a transaction. False: it failed, it has failed lately (backoff.h), a table of ours was locked, or it said so;
 * then the queue that is being visited gets another visit in the next turn.
 * A failure is logged, with `what` as its context, as often as backoff.h says, and so is the end of failures.
 */
extern bool mq_job_run(MqJob job, void *arg, MqJobFor object, const char *what);

/* The same, for one whose transaction need not be on disk when it ends. */
extern bool mq_job_run_without_flush(MqJob job, void *arg, MqJobFor object, const char *what);

/* For jobs: takes a lock to the end of the job without waiting; false: somebody is in the way. */
extern bool mq_job_lock(Oid relid, LOCKMODE mode);

/* The lock that the last job did not get (mq_job_lock), into *missed unless that is NULL; false: it did not fail for one. */
typedef struct MqMissedLock
{
	LockRelId	table;
	LOCKMODE	mode;
} MqMissedLock;

extern bool mq_job_missed_lock(MqMissedLock *missed);

/*
 * Stands in line for such a lock, and keeps it for the next jobs until mq_job_leave_line. A lock that is only tried is never
 * got from maintenance that comes without a pause. It takes a part, one of so many, of the time that there is for waiting (job.c).
 * False: it was not to be had either.
 */
extern bool mq_job_may_wait(void);	/* there is some of that time */
extern bool mq_job_stand_in_line(const MqMissedLock *lock, int sharers, const char *what);
extern void mq_job_leave_line(void);

/* Whether the job raised an error when it was tried last. */
extern bool mq_job_is_failing(MqJob job, MqJobFor object);

/* What a visit of a queue (visit.h) has to do with. */
typedef struct MqQueueWork
{
	const MqQueueList *all;
	MqQueue    *queue;
	MqGroup    *groups;			/* of the queue */
	int			ngroups;
	int			lagging;		/* the one that had not finished a segment, when one was asked for last */
	MqSegmentInfo *segments;
	int			nsegments;
	MqTail		tail;
	int64		wanted;
	uint64		tail_blocks;
	bool		known;
	int64		bury_until;		/* of mq_monotonic_us; 0: no dead message was moved yet */
} MqQueueWork;

/* A queue that came from elsewhere is left alone until a client has used it. */
extern bool mq_job_is_ours(const MqQueue *queue);

/* The queue's slot, kept in queue->chain; NULL: nobody has attached it. A place that was known is looked at without a lock. */
extern MqChain *mq_job_chain(MqQueue *queue);

/* Whether a sender waits for a segment of the queue. */
extern bool mq_job_is_waited_for(const MqQueue *queue);

/* Reads the definition again, in the middle of a turn; false: the queue is gone. */
extern bool mq_job_reread_queue(MqQueue *queue);

/* Whether a transaction (full xid) is still running or prepared. */
extern bool mq_job_xid_is_open(uint64 full);

#endif
