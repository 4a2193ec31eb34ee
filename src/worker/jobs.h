/*
 * jobs.h: the jobs of a worker, which its turns (worker.c) are made of, by the file each is in.
 */
#ifndef MQ_JOBS_H
#define MQ_JOBS_H

#include "worker/job.h"

/* ---- job_segments.c ---- */

/* Job: fills a MqQueueWork (queue and all are given). */
extern bool mq_job_look_at_queue(void *work);

/* Once before each turn. */
extern void mq_job_segments_begin(void);

/* Segments ahead of the tail, and the one a sender waits for; false: some could not be made now. */
extern bool mq_job_make_segments(MqQueueWork *work);

/* At the end of a turn: stands in line, for as long as is left of the time, for what locks have kept mq_job_make_segments from. */
extern void mq_job_make_missed_segments(void);

/* Goes on in the next segment when the active one is too large, or too old for the queue's retention. */
extern void mq_job_cut_segment(const MqQueueWork *work);

/* Drops old segments that all groups have finished, seals the others. */
extern void mq_job_clear_segments(MqQueueWork *work);

/*
 * Locks without waiting, to the end of the job, what so many messages are appended to; false: it is not there yet, and was asked for, or
 * somebody has a lock on it.
 */
extern bool mq_job_lock_log(const MqQueue *queue, int rows);

/* ---- job_adopt.c ---- */

/* A queue restored, copied or upgraded is ours from now on; false: not now. */
extern bool mq_job_adopt_queue(MqQueue *queue);

/* A queue whose table is another one than before begins anew from what is on disk; false: not now. */
extern bool mq_job_take_over_table(MqQueueItem *item);

/* ---- job_order.c ---- */

/* Once before each turn; and whether one has left something for the next, which may come at once. */
extern void mq_job_order_begin(void);
extern bool mq_job_order_is_unfinished(void);

/* Puts back the guards of segments that are off, and on record that a restored or rewritten one is in order. */
extern void mq_job_care_for_order(const MqQueueWork *work);

/* ---- job_retention.c ---- */

/* Whether the limits of the queue let a segment go, if all groups have finished it. kept: bytes of it and all after it. */
extern bool mq_job_retention_lets_go(const MqQueue *queue, const MqSegmentInfo *segment, int64 kept);

/* Bytes of each segment in the order of the list; palloc'd. NULL: the queue's retention does not ask. */
extern int64 *mq_job_segment_bytes(const MqQueueWork *work);

/* Whether the active segment has been in use for long enough that its successor is due. */
extern bool mq_job_segment_is_old(const MqQueueWork *work);

/* Finishes what groups have not, in a segment that is past the limits, for a queue that says so by name. kept: as above. */
extern void mq_job_drop_unread(const MqQueue *queue, const MqSegmentInfo *segment, int64 kept);

/* ---- job_schedule.c ---- */

/*
 * Moves what is due to the logs of its queues: of each queue a batch at most. Returns after how many microseconds to call it again,
 * 0 if there is more. What comes into a schedule in between, and is due before that, sets the latch.
 */
extern int64 mq_job_schedule(const MqQueueList *all);

/* In each turn: looks again at what was undecided. */
extern void mq_job_schedule_turn(const MqQueueList *all);

/*
 * Locks without waiting, and with TOAST tables, all that a move touches, to the end of the job; of the tables about moved messages whichever
 * rows may go to.
 */
extern bool mq_job_lock_schedule(void);

/* ---- job_schedule_care.c ---- */

/* In each turn, that as well: moves what comes nearer to nearer tables, counts, and empties tables. */
extern void mq_job_care_for_schedule(const MqQueueList *all);

/* ---- job_dead.c ---- */

/*
 * Moves dead messages of the group to its queue for dead letters, as far as the time goes that there is for its queue in one visit: until
 * then, 0 if it has not begun. The group's window is in memory.
 */
extern void mq_job_move_dead(MqGroup *group, int64 *until);

/* ---- job_failures.c ---- */

/*
 * Writes down what is noted of failures, but not more often than every 50 ms, unless it is to be done now. Returns after how many
 * microseconds to call it again; PG_INT64_MAX: when nudged.
 */
extern int64 mq_job_write_failures(bool now);

/* In each turn. */
extern void mq_job_care_for_failures(void);

/* ---- job_bounds.c ---- */

/* Drops the oldest messages of a queue that is over its bounds and says so by name, and counts them. */
extern void mq_job_keep_bounds(const MqQueueWork *work);

/* Writes how many that were, of a group: once a minute, or at once. */
extern void mq_job_write_dropped(MqGroup *group, bool at_once);

/* ---- job_dedup.c ---- */

/* In each turn: counts deduplication ids, and empties tables of them. */
extern void mq_job_care_for_dedup(const MqQueueList *all);

/* ---- job_notify.c ---- */

/* Learns from definitions that were read anew which queues notify, and that they are to be looked at. */
extern void mq_job_notify_plan(MqQueueList *all);

/* Something may have come, or come back, in a queue that a turn cares for. */
extern void mq_job_notify_visited(const MqQueue *queue);

/* Notifies for the queues whose time it is; returns after how many microseconds to call it again, PG_INT64_MAX: when nudged. */
extern int64 mq_job_notify(void);

/* ---- job_groups.c ---- */

/* Leases that ended, transactions that were decided, checkpoints. False: marks of decided transactions may be left. */
extern bool mq_job_care_for_group(MqGroup *group, MqQueueWork *work);
extern void mq_job_checkpoint(const MqGroup *group, const MqQueueWork *work);

/* Since when (clock.h) a committed checkpoint of its present epoch says that the group has finished the segment; 0: it has not. */
extern int64 mq_job_finished_since(const MqGroup *group, int32 level, int64 segment);

/* ---- job_expire.c ---- */

/* Drops the queue, or groups of it, whose expires_after is over; the last thing of a visit. */
extern void mq_job_expire(const MqQueueWork *work);

#endif
