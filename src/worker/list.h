/*
 * list.h: the queues and groups that a worker cares for, kept from turn to turn.
 */
#ifndef MQ_LIST_H
#define MQ_LIST_H

#include "base/catalog.h"

typedef struct MqQueueItem
{
	MqQueue		queue;
	MqGroup    *groups;			/* of the queue */
	int			ngroups;
	uint32		definition;		/* a hash of the queue and its groups as they were read */
} MqQueueItem;

/* By number. */
typedef struct MqQueueList
{
	MqQueueItem *items;
	int			count;
	int32	   *group_numbers;	/* of all queues, ascending */
	int			ngroups;
	bool		fresh;			/* it was read anew; who has taken that up sets it to false */
	/* of this turn */
	bool		may_make;		/* tables can be made, altered and dropped */
	bool		decided;		/* some prepared transactions are decided: their marks are looked for */
	int64		blocked_by;		/* mq_ring_blocked_by */
} MqQueueList;

/* Once, when the worker starts. */
extern void mq_list_init(void);

/* For jobs: reads the definitions anew if one has changed, or the table of a queue. The list before is freed then. */
extern void mq_list_refresh(MqQueueList *list);

/* Whether a queue or group of this number is in the list. */
extern bool mq_list_has_queue(const MqQueueList *list, int32 queue_no);
extern bool mq_list_has_group(const MqQueueList *list, int32 group_no);

#endif
