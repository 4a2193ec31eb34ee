/*
 * statement.h: the statements that run in this process, one inside the other.
 */
#ifndef MQ_STATEMENT_H
#define MQ_STATEMENT_H

#include "utils/snapshot.h"

extern void mq_statement_init(void);	/* once per process, from _PG_init */

/*
 * The snapshot of the outermost running statement that reads a table; NULL: none does. What is newer than that may have come
 * with rows that the statement cannot see. Valid while the statement runs. Never throws.
 */
extern Snapshot mq_statement_reads_with(void);

#endif
