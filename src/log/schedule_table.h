/*
 * schedule_table.h: what the two files of the schedule have in common.
 */
#ifndef MQ_SCHEDULE_TABLE_H
#define MQ_SCHEDULE_TABLE_H

#include "executor/tuptable.h"

#include "log/schedule.h"

/* Raise 55000 if a superuser has altered the table. The index: of due times ("due") or of ids ("id"), locked ACCESS SHARE. */
extern Relation mq_schedule_open(int table, LOCKMODE mode);
extern Relation mq_schedule_open_index(int table, Relation rel, const char *which);

extern MqScheduleTier mq_schedule_tier_of(int table);

/* Values that are varlena lie in the slot's page, but for those that had to be fetched from the TOAST table. */
extern void mq_schedule_row_from(MqScheduledRow *row, TupleTableSlot *slot, int table);

#endif
