/*
 * dead_letter.h: the row of a message that has died, and of one that is sent back.
 *
 * Where a message comes from is in columns that nobody but mq writes, and never in its headers: what is done with a dead letter
 * relies on that.
 */
#ifndef MQ_DEAD_LETTER_H
#define MQ_DEAD_LETTER_H

#include "log/segment_table.h"

#define MQ_DEATHS_MAX	10		/* so many are remembered, the latest ones */

/* How a message has died. */
typedef struct MqDeath
{
	int64		id;				/* its place in the log */
	int			attempts;
	int			failures;
	const char *reason;			/* NULL: it is not known */
	TimestampTz at;
} MqDeath;

/*
 * A row for the log of dead letters, of a message with these values (as mq_log_values has them) that has died in the group. It
 * remembers the group by its number. Palloc'd.
 */
extern HeapTuple mq_dead_letter_form(const Datum *values, const bool *isnull, const MqGroup *group, const MqDeath *death);

/* The number of the group that a dead letter has died in; 0: it is none. */
extern int32 mq_dead_letter_group(const Datum *values, const bool *isnull);

/* A row for the log that a dead letter comes from, for that group in an epoch only. Palloc'd. */
extern HeapTuple mq_dead_letter_revive(const Datum *values, const bool *isnull, int32 group_no, int32 epoch);

#endif
