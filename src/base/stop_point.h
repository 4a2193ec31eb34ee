/*
 * stop_point.h: named places where a test can hold, kill or fail a process.
 *
 * Compiled into test builds only (make MQ_TEST=1). The setting mq.stop_point = '<point>:<action>' arms one.
 */
#ifndef MQ_STOP_POINT_H
#define MQ_STOP_POINT_H

#ifdef MQ_STOP_POINTS
extern void mq_stop_point_define(void);
extern void mq_stop_point(const char *name);
extern bool mq_wake_sweep;		/* setting */
#define MQ_STOP_POINT(name) mq_stop_point(name)
#else
#define MQ_STOP_POINT(name) ((void) 0)
#define mq_wake_sweep true
#endif

#endif
