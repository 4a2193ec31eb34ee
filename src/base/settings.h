/*
 * settings.h: the mq.* configuration parameters and the SQLSTATEs of class MQ.
 */
#ifndef MQ_SETTINGS_H
#define MQ_SETTINGS_H

/* of the library and of the script it goes with */
#define MQ_VERSION "0.1.0"

#define ERRCODE_MQ_LEASE_LOST MAKE_SQLSTATE('M', 'Q', '0', '0', '1')

extern int	mq_shared_memory_mb;		/* arena of the delivery windows, MB */
extern int	mq_max_queues;			/* append positions in shared memory */
extern int	mq_max_groups;			/* delivery windows in shared memory */
extern int	mq_max_queues_per_role;	/* -1: half of mq_max_queues */
extern int	mq_max_groups_per_role;	/* -1: half of mq_max_groups */
extern int	mq_max_message_size;	/* bytes */
extern int	mq_visibility_timeout;	/* ms */
extern int	mq_drop_delay;			/* s */
extern int	mq_offset_log_size;		/* kB, one ring table */
extern int	mq_segment_max_size;	/* MB */
extern int	mq_segment_wait;		/* ms */

/* Defines every parameter; called once, from _PG_init. */
extern void mq_settings_define(void);

#endif
