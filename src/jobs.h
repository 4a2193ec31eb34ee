/*
 * jobs.h: what the worker's files share. A job runs in a transaction of its own (mq_job_run) and never waits for a lock.
 */
#ifndef MQ_JOBS_H
#define MQ_JOBS_H

#include "catalog.h"
#include "checkpoint.h"
#include "log.h"
#include "segment.h"

extern MqDatabase *mq_worker_database;	/* the slot of the database this worker is for */

typedef bool (*MqJob) (void *arg);

/* Runs a job in a transaction; false: it failed (and was logged), a table of ours was locked, or it said so. */
extern bool mq_job_run(MqJob job, void *arg, const char *what);

/* Everything there is to care for in one turn. */
typedef struct MqQueueList
{
	MqQueue    *queues;
	int			count;
	MqGroup    *groups;
	int			ngroups;
} MqQueueList;

typedef struct MqQueueWork
{
	const MqQueueList *all;
	MqQueue    *queue;
	MqSegmentInfo *segments;
	int			nsegments;
	MqTail		tail;
	int64		wanted;
	uint64		tail_blocks;
	bool		known;
} MqQueueWork;

/* ---- worker_segments.c ---- */

/* A queue that came from elsewhere is left alone until a client has used it. */
extern bool mq_job_is_ours(const MqQueue *queue);

/* Reads the definition again, in the middle of a turn; false: the queue is gone. */
extern bool mq_job_reread_queue(MqQueue *queue);

/* Job: fills a MqQueueWork (queue and all are given). */
extern bool mq_job_look_at_queue(void *work);

/* Segments ahead of the tail, and the one a sender waits for; false: some could not be made now. */
extern bool mq_job_make_segments(MqQueueWork *work);

/* Goes on in the next segment when the active one is too large, or too old for the queue's retention. */
extern void mq_job_cut_segment(const MqQueueWork *work);

/* Drops old segments that all groups have finished, seals the others. */
extern void mq_job_clear_segments(MqQueueWork *work);

/* ---- worker_retention.c ---- */

/* Whether the limits of the queue let a segment go, if all groups have finished it. kept: bytes of it and all after it. */
extern bool mq_job_retention_lets_go(const MqQueue *queue, const MqSegmentInfo *segment, int64 kept);

/* Bytes of each segment in the order of the list; palloc'd. NULL: the queue's retention does not ask. */
extern int64 *mq_job_segment_bytes(const MqQueueWork *work);

/* Whether the active segment has been in use for long enough that its successor is due. */
extern bool mq_job_segment_is_old(const MqQueueWork *work);

/* Finishes what groups have not, in a segment that is past the limits, for a queue that says so by name. kept: as above. */
extern void mq_job_drop_unread(const MqQueue *queue, const MqSegmentInfo *segment, int64 kept);

/* ---- worker_notify.c ---- */

/* Learns from a turn which queues notify, and that they are to be looked at. */
extern void mq_job_notify_plan(const MqQueueList *all);

/* Notifies for the queues whose time it is; returns when it is to be called again, PG_INT64_MAX: when nudged. */
extern TimestampTz mq_job_notify(void);

/* ---- worker_groups.c ---- */

/* Leases that ended, transactions that were decided, checkpoints. False: marks of decided transactions may be left. */
extern bool mq_job_care_for_group(MqGroup *group, const MqQueueWork *work);
extern void mq_job_checkpoint(const MqGroup *group, const MqQueueWork *work);

/* Since when a committed checkpoint of its present epoch says that the group has finished the segment; 0: it has not. */
extern TimestampTz mq_job_finished_since(const MqGroup *group, int32 level, int64 segment);

extern bool mq_job_xid_is_open(uint64 full);

#endif
