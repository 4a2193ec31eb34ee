/*
 * wake.h: receivers that wait, and who wakes them.
 *
 * Whoever makes a message available wakes one receiver of each group it is available to: a sender after its commit has
 * become visible, and every transition of a window that makes something ready. A receiver stands in line before it
 * looks, and looks before it sleeps, so nothing that comes in between is missed. It is taken out of the line by the waker;
 * whoever leaves and sees work left, or was woken and does not look any more, wakes the next.
 *
 * What becomes ready by the clock alone (due times, ends of leases) is seen by one receiver of the line, the timekeeper, who
 * sleeps no longer than until then. The others sleep until they are woken, and cost nothing.
 */
#ifndef MQ_WAKE_H
#define MQ_WAKE_H

#include "base/shmem.h"

/* ---- to wake; none of these throws or allocates, all return at once when nobody waits ---- */

/* Takes the memory that waking a whole queue wants; to be called before, outside of a callback. May raise out-of-memory. */
extern void mq_wake_prepare(void);

/* One receiver of each group of the queue: a sender's commit. The chain may have got another owner: that does no harm. */
extern void mq_wake_queue(MqChain *chain);

/* All receivers of the queue: a definition has changed. */
extern void mq_wake_queue_all(MqChain *chain);

/*
 * One receiver of the group; the caller does not hold the window lock. One who is blocked by its statement only if nobody else is in
 * line: it would end without a message, and have it with its next call. mq_wake_able: not even then.
 */
extern void mq_wake_group(MqWindow *window);
extern void mq_wake_able(MqWindow *window);

/* mq_wake_group, and all who are blocked otherwise: there are fewer messages in flight, or some came back. */
extern void mq_wake_for_room(MqWindow *window);

/*
 * mq_wake_able, and those who are blocked by a limit, but not those whose snapshot is too old: what came back was too new for who had it. Most would only give it back
 * again, and wake each other for ever. One whose snapshot is newer than that of who had it is left to the worker's sweep.
 */
extern void mq_wake_for_given_back(MqWindow *window);

/* All receivers of the group: it is dropped. */
extern void mq_wake_all(MqWindow *window);

/* Something in the window becomes ready at that time. The caller holds the window lock exclusively. */
extern void mq_wake_note_time(MqWindow *window, TimestampTz time);

/* ---- to wait ---- */

/*
 * Puts this process into the line of the window, whose lock the caller holds exclusively (so it is the right one), unless
 * it is in it; again: it was in before, and keeps its place at the front. blocked: what is known of it before it looks (by its
 * statement, or not). mq_wait_leave must follow, or an abort.
 */
extern void mq_wait_enlist(MqChain *chain, MqWindow *window, bool again, MqBlocked blocked);

/*
 * Says after a look whether this process can take a message that is new. If not, others are woken in its place until there
 * is room or a message comes back, and it must wake another one now. True: that has changed, and it has to look once
 * more before it sleeps, for what came meanwhile may have passed it over.
 */
extern bool mq_wait_block(MqBlocked why);

/* Whether this process has to see to what becomes ready by the clock. */
extern bool mq_wait_is_timekeeper(void);

/*
 * Sleeps until it is woken, and no longer than so many microseconds (it may be shorter). Returns whether it was woken. Raises
 * what a cancel or a shutdown raises.
 */
extern bool mq_wait_sleep(int64 us);

/* Lets others see, until it leaves the line, what this process waits for; consumer: NULL for none. */
extern void mq_wait_show(const MqWindowKey *window, const char *consumer);

/* A process that waits. */
typedef struct MqWaiting
{
	MqWindowKey window;
	TimestampTz since;
	char		consumer[MQ_NAME_LENGTH_MAX + 1];	/* empty: no name */
	int			pid;
} MqWaiting;

/* Whether the process with that number waits, and for what. Of a moment: it may have left by now. */
extern bool mq_wait_look_at(int procno, MqWaiting *waiting);

/*
 * Leaves the line. pass_on: there is work left, or may be; TO_ABLE: what is left is for the next call of who leaves, or for
 * somebody who can have it at once. Who was woken and did not look passes on in any case. Does nothing when this process is not
 * waiting. Never throws.
 */
typedef enum MqPassOn
{
	MQ_PASS_ON_NOT,
	MQ_PASS_ON_TO_ABLE,
	MQ_PASS_ON
} MqPassOn;

extern void mq_wait_leave(MqPassOn pass_on);

#endif
