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

#define MQ_ALL_DEPENDENTS PG_INT32_MAX

/*
 * Takes what depends on a relation only by a constant, or on what goes with it (TOAST table, indexes, row type), off the list of
 * its dependents. The caller drops the relation next. *budget: so many at most, less what it took. False: that
 * was not enough, or somebody's transaction that is open drops one: DROP would wait for it. What names the relation, a view say,
 * is left. Waits for nobody.
 */
extern bool mq_forget_dependents(Oid relid, int *budget);

#endif
