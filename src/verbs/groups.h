/*
 * groups.h: consumer groups as definitions.
 */
#ifndef MQ_GROUPS_H
#define MQ_GROUPS_H

#include "base/catalog.h"

/* Writes the definition of a group and makes the sequence that carries its rights; returns its number. */
extern int32 mq_group_insert(const MqQueue *queue, const char *name, int64 start_id);

/* At the commit of this transaction, which drops the group, who waits for it is sent away. */
extern void mq_group_drops(const MqGroup *group);

#endif
