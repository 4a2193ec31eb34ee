/*
 * groups.h: consumer groups as definitions.
 */
#ifndef MQ_GROUPS_H
#define MQ_GROUPS_H

#include "catalog.h"

/* Writes the definition of a group and makes the sequence that carries its rights; returns its number. */
extern int32 mq_group_insert(const MqQueue *queue, const char *name, int64 start_id);

#endif
