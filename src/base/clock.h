/*
 * clock.h: time that only goes forward, for how long something takes or has to wait.
 *
 * The wall clock may be set back or forth at any time; it is for what is told to people and kept on disk: ends of leases, due
 * times, when a message was sent.
 */
#ifndef MQ_CLOCK_H
#define MQ_CLOCK_H

#include "portability/instr_time.h"

#define MQ_MS	INT64CONST(1000)
#define MQ_S	INT64CONST(1000000)

/* Zero is long ago, also where the machine has just been started. */
#define MQ_MONOTONIC_START	(INT64CONST(1) << 50)

/* Microseconds since some moment long before the server was started; the same for all its processes. */
static inline int64
mq_monotonic_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return MQ_MONOTONIC_START + (int64) INSTR_TIME_GET_MICROSEC(now);
}

#endif
