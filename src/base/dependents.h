/*
 * dependents.h: what depends on a table or sequence of mq by nothing but its number.
 *
 * Everybody can write '123'::regclass, into a default say, and then that depends on the table. DROP ... CASCADE would lock each
 * such thing, and the table it is of: a stranger could keep it from being dropped, by holding one of them, or by making more than
 * there are locks. A number that is left in an expression does no harm: it is shown as a number when the table is gone.
 */
#ifndef MQ_DEPENDENTS_H
#define MQ_DEPENDENTS_H

#include "base/catalog.h"

/* What is left to be done: so many objects, of whose expressions so many bytes are read. */
typedef struct MqDependentsBudget
{
	int			objects;
	int64		bytes;
} MqDependentsBudget;

#define MQ_ALL_DEPENDENTS ((MqDependentsBudget) {PG_INT32_MAX, PG_INT64_MAX})

/* While senders are locked out: that takes less than a second. Who reads it all reads before. */
#define MQ_DEPENDENTS_UNDER_LOCK ((MqDependentsBudget) {PG_INT32_MAX, INT64CONST(16) * 1024 * 1024})

/*
 * Takes what depends on a relation only by a constant, or on what goes with it (TOAST table, indexes, row type), off the list of
 * its dependents. The caller drops the relation next, or will: until then nothing is lost. *budget: less what it took. False: that
 * was not enough, or somebody's transaction that is open drops one: DROP would wait for it. What names the relation, a view say,
 * is left. Of an expression that is longer than 1 MB it is not known: it is taken for a number if the relation is in mq_internal,
 * where nobody can name it, else for a name. Waits for nobody; no lock on the relation is needed.
 */
extern bool mq_forget_dependents(Oid relid, MqDependentsBudget *budget);

/* No statement waits longer than ten seconds for a lock (55P03), up to mq_sql_end, unless lock_timeout is set. */
extern void mq_limit_waits(void);

/*
 * DROP of something of mq, between mq_sql_begin and mq_sql_end. Whoever drops has locked others out: for what depends on it, if
 * somebody has that locked, it waits until lock_timeout, or for ten seconds (55P03). With hints, or NULL: for that; for more
 * dependents than there are locks; for those that RESTRICT leaves.
 */
extern void mq_drop(const char *sql, const char *locked, const char *too_many, const char *restricted);

/*
 * The same for a relation of mq_internal, if it is there: nobody can name it, so what depends on its number only is taken off first,
 * as far as the budget reaches. kind: TABLE or SEQUENCE; what: says in a hint what it is.
 */
extern void mq_drop_internal(const char *kind, const char *name, const char *what, MqDependentsBudget *budget);

#endif
