/*
 * own_table.h: tables of the extension that are written by column number and without the executor.
 */
#ifndef MQ_OWN_TABLE_H
#define MQ_OWN_TABLE_H

#include "storage/lockdefs.h"
#include "utils/relcache.h"

struct ResultRelInfo;

/*
 * Opens one. NoLock: the caller has locked it. 42704 if the extension was dropped, 55000 if a superuser has altered it: rows are read and
 * written by the number of the column, and these are their types.
 */
extern Relation mq_own_table_open(Oid relid, LOCKMODE mode, const Oid *types, int columns);

/* Its index that is called <table>_<suffix>, locked ACCESS SHARE. 55000 if there is none that can be read. */
extern Relation mq_own_index_open(Relation table, const char *suffix);

/* 55000 if an insert into these indexes would have to evaluate something. */
extern void mq_own_table_check_indexes(Relation table, const struct ResultRelInfo *indexes);

#endif
