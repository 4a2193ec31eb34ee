/*
 * worker.h: the processes of mq.
 */
#ifndef MQ_WORKER_H
#define MQ_WORKER_H

#include "base/compat.h"

extern PGDLLEXPORT MQ_NORETURN_PREFIX void mq_launcher_main(Datum arg) MQ_NORETURN_SUFFIX;
extern PGDLLEXPORT MQ_NORETURN_PREFIX void mq_worker_main(Datum arg) MQ_NORETURN_SUFFIX;

/* While the library is preloaded, from _PG_init. */
extern void mq_launcher_register(void);

/*
 * Asks the worker of a database to end and keeps a new one from starting for a while; waits, cancellable, some
 * seconds at most. For commands that need the database for themselves.
 */
extern void mq_worker_stop(Oid database);

#endif
