/*
 * order.h: whether the pages of a segment are in the order of ids.
 *
 * Appends keep the order, so a segment whose file is the one on record has it (mq_segment_trust). One that was restored or
 * rewritten is looked through once: by the worker, which puts it on record again, and by who needs to know before that.
 */
#ifndef MQ_ORDER_H
#define MQ_ORDER_H

#include "log/log.h"

/* How far a look through a segment has come. Pages that are appended meanwhile are in order behind it. */
typedef struct MqOrderCheck
{
	RelFileNumber file;			/* the check is of this one */
	BlockNumber next;			/* pages before were looked at */
	int64		max_id;			/* in them; -1: none */
	TimestampTz max_time;
	bool		in_order;		/* so far */
	bool		has_others;		/* rows whose ids do not belong into the segment */
} MqOrderCheck;

/*
 * Looks at up to so many pages more; begins anew if the file is another one than before. False: there are more. Caller has
 * locked the segment ACCESS SHARE. Nobody but mq may have written to it since the check began.
 */
extern bool mq_order_check(const MqQueue *queue, int64 segment, Relation rel, MqOrderCheck *check, BlockNumber pages);

/*
 * Whether the pages are in order. If that is not on record the segment is read, once in this process. False also while
 * somebody else than mq may write to it.
 */
extern bool mq_order_holds(const MqQueue *queue, int level, int64 segment, Relation rel);

#endif
