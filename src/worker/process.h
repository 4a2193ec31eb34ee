/*
 * process.h: what the processes of mq have in common.
 */
#ifndef MQ_PROCESS_H
#define MQ_PROCESS_H

/*
 * Sets what the process relies on, right after it has connected: whatever ALTER SYSTEM, DATABASE or ROLE say, now and
 * later, is for sessions.
 */
extern void mq_process_override_settings(void);

#endif
