/*
 * shares.h: how many queues and groups one role may have.
 */
#ifndef MQ_SHARES_H
#define MQ_SHARES_H

#include "base/catalog.h"

/*
 * Before queues and groups come to be the role's: 53400 if it would have more than mq.max_queues_per_role or
 * mq.max_groups_per_role allow. Superusers who call are not asked. Waits for others who make some for that role, and keeps them
 * away to the end of the transaction.
 */
extern void mq_check_share(Oid role, int queues, int groups);

/* The same for what mq itself makes for the role. */
extern void mq_check_share_of(Oid role, int queues, int groups);

#endif
