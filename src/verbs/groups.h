/*
 * groups.h: consumer groups as definitions.
 */
#ifndef MQ_GROUPS_H
#define MQ_GROUPS_H

#include "base/catalog.h"

/* Writes the definition of a group and makes the sequence that carries its rights; returns its number. */
extern int32 mq_group_insert(const MqQueue *queue, const char *name, int64 start_id);

/* Hands the rights of a queue's owner in a group from one role to another; in a bracket of mq_sql_begin. */
extern void mq_group_hand_on(const MqGroup *group, Oid from, Oid to);

/* At the commit of this transaction, which drops the group, who waits for it is sent away. */
extern void mq_group_drops(const MqGroup *group);

#endif
