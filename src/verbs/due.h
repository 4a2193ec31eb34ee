/*
 * due.h: due times as arguments.
 */
#ifndef MQ_DUE_H
#define MQ_DUE_H

#include "datatype/timestamp.h"

/* A hundred years. */
#define MQ_DELAY_MAX_US	(INT64CONST(36525) * USECS_PER_DAY)

/* The time of delivery as it is; 22023 if it is infinite, or more than that ahead of now. */
extern TimestampTz mq_check_due(TimestampTz time, TimestampTz now);

#endif
