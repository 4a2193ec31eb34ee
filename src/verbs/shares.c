/*
 * shares.c: how many queues and groups one role may have. See shares.h.
 *
 * Slots in shared memory are for all databases and made at server start: without a bound one role could take them all. What a
 * role has is counted in the definitions of this database. A lock that is the role's own, to the end of the transaction, makes
 * sure that two who make some see each other; nobody else takes it. Nothing is kept, so there is nothing to lose in a crash.
 */
#include "postgres.h"

#include "verbs/shares.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"

#include "base/definitions.h"
#include "base/owner.h"
#include "base/settings.h"

/* How many of each a role owns in this database. */
typedef struct Share
{
	int			queues;
	int			groups;
} Share;

/* -1: half of all. */
static int
limit(int setting, int all)
{
	return setting < 0 ? all / 2 : setting;
}

/* Counts what is committed and what this transaction has made. Memory is the caller's to free, with the context. */
static Share
share_of(Oid role)
{
	MqDefinitions all = mq_definitions_all();
	Share		share = {0};
	const MqQueue *queue = NULL;
	bool		owned = false;

	for (int i = 0; i < all.nqueues; i++)
		share.queues += mq_queue_is_owned_by(&all.queues[i], role);
	for (int i = 0; i < all.ngroups; i++)
	{
		/* groups of a queue often follow each other */
		if (queue == NULL || queue->queue_no != all.groups[i].queue.queue_no)
		{
			queue = &all.groups[i].queue;
			owned = mq_queue_is_owned_by(queue, role);
		}
		share.groups += owned;
	}
	return share;
}

static void
refuse(Oid role, const char *what, const char *setting, int most)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("role \"%s\" may have no more %s", GetUserNameFromId(role, false), what),
			 errdetail("The limit is %d in a database.", most),
			 errhint("Drop what is not needed, or have %s raised.", setting)));
}

void
mq_check_share(Oid role, int queues, int groups)
{
	/* what superusers make is not limited, nor what is made for them */
	if (!superuser())
		mq_check_share_of(role, queues, groups);
}

void
mq_check_share_of(Oid role, int queues, int groups)
{
	MemoryContext context;
	MemoryContext old;
	Share		share;
	int			most_queues = limit(mq_max_queues_per_role, mq_max_queues);
	int			most_groups = limit(mq_max_groups_per_role, mq_max_groups);

	if (superuser_arg(role))
		return;
	LockDatabaseObject(AuthIdRelationId, role, 0, ShareUpdateExclusiveLock);
	mq_catalog_catch_up();
	context = AllocSetContextCreate(CurrentMemoryContext, "mq shares", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	share = share_of(role);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	if (queues > 0 && share.queues > most_queues - queues)
		refuse(role, "queues", "mq.max_queues_per_role", most_queues);
	if (groups > 0 && share.groups > most_groups - groups)
		refuse(role, "consumer groups", "mq.max_groups_per_role", most_groups);
}
