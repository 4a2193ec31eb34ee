/*
 * schedule_table.h: what the two files of the schedule have in common.
 */
#ifndef MQ_SCHEDULE_TABLE_H
#define MQ_SCHEDULE_TABLE_H

#include "executor/tuptable.h"

#include "log/schedule.h"

/* As mq_own_table_open; its indexes are "due", of due times, and "id". */
extern Relation mq_schedule_open(int table, LOCKMODE mode);

extern MqScheduleTier mq_schedule_tier_of(int table);

/* Values that are varlena lie in the slot's page, but for those that had to be fetched from the TOAST table. */
extern void mq_schedule_row_from(MqScheduledRow *row, TupleTableSlot *slot, int table);

#endif
