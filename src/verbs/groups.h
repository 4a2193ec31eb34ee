/*
 * groups.h: consumer groups as definitions.
 */
#ifndef MQ_GROUPS_H
#define MQ_GROUPS_H

#include "base/catalog.h"
#include "base/dependents.h"

/*
 * The next number of a queue or group, at least `above`: one that no row of the table has in that column, and no relation
 * <prefix>_<number>, wherever somebody has set the sequence. Within mq_sql_begin/end.
 */
extern int32 mq_next_number(const char *sequence, const char *table, const char *column, const char *prefix, int64 above);

/*
 * Writes the definition of a group and makes the sequence that carries its rights; returns its number, 0: there is one of that
 * name. The rights on the queue's table are locked to the end of the transaction.
 */
extern int32 mq_group_insert(const MqQueue *queue, const char *name, int64 start_id);

/* Hands the rights of a queue's owner in a group from one role to another; in a bracket of mq_sql_begin. */
extern void mq_group_hand_on(const MqGroup *group, Oid from, Oid to);

/* The sequence that carries the rights of a group; in a bracket of mq_sql_begin. */
extern void mq_group_drop_sequence(int32 group_no, MqDependentsBudget *budget);

/*
 * Whether the group has a message left, as far as this transaction can see; reads ahead to find out. What this transaction has
 * acked counts as finished; where there is no memory to look, the answer is yes.
 */
extern bool mq_group_has_unfinished(MqGroup *group);

/* At the commit of this transaction, which drops the group, who waits for it is sent away. */
extern void mq_group_drops(const MqGroup *group);

#endif
