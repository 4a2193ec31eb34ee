/*
 * position.h: where in the log a consumer group begins.
 */
#ifndef MQ_POSITION_H
#define MQ_POSITION_H

#include "offset/offset_log.h"

typedef enum MqStartKind
{
	MQ_START_EARLIEST,			/* everything that is still there */
	MQ_START_LATEST,			/* everything that is not committed yet */
	MQ_START_ID,				/* everything from this id on */
	MQ_START_TIME				/* everything appended at this time or later */
} MqStartKind;

typedef struct MqStart
{
	MqStartKind kind;
	int64		id;
	TimestampTz time;
} MqStart;

/* What is unfinished for a group that begins there: ascending, the last part ends at PG_INT64_MAX. palloc'd. */
typedef struct MqPosition
{
	MqUnfinished *parts;
	int			count;
} MqPosition;

/*
 * Finds the position; the queue must be attached. Locks all segments ACCESS SHARE to the end of the transaction, so that
 * none of them is dropped before the group that needs it can be seen. LATEST reads the log where it is not known to be
 * all visible. Errors: 22023 when an id is behind the end of the log.
 */
extern void mq_position_find(const MqQueue *queue, const MqStart *start, MqPosition *position);

/*
 * How many committed messages there are from the position on: what it would make unfinished. Exact up to MQ_COUNT_PAGES pages of the
 * log; of a longer part that many pages are read, spread evenly, and the rest is estimated (*estimated). Holds no lock when it
 * returns. Waits for who has locked a segment. Errors as above.
 */
#define MQ_COUNT_PAGES 16384	/* 128 MB */

extern int64 mq_position_count(const MqQueue *queue, const MqStart *start, bool *estimated);

#endif
