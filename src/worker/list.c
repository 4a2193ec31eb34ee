/*
 * list.c: the queues and groups that a worker cares for, kept from turn to turn. See list.h.
 *
 * Owns the list and the tables of its queues, in a memory context of its own. Whether a definition has changed is seen by the
 * places and transactions of the rows, so that one that came by COPY or by hand is seen as well; what happened to the table
 * of a queue is told by relcache invalidations. Lost with the process.
 */
#include "postgres.h"

#include "worker/list.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "base/definitions.h"
#include "worker/visit.h"

/* The table of a queue in the list, by its oid, which is what invalidations name. */
typedef struct QueueTable
{
	Oid			table;
	int			item;
	uint64		touched;		/* the touch that it was touched by last; 0: not since it was read */
} QueueTable;

static MemoryContext definitions = NULL;
static HTAB *tables = NULL;		/* QueueTable, of the queues in the list; NULL: not read, or being read */
static uint64 touches = 0;		/* how often the callback has seen one of them, */
static uint64 touches_seen = 0;	/* and until which of them it was looked after */
static bool stale = true;		/* what the callback was told of could not be noted */
/* Of the last reading: MqDefinitions.whole, and the fingerprint from before it, so that no change in between is missed. */
static bool whole;
static uint64 fingerprint;
static MqQueueItem *items;		/* as in the list, for the callback */

/* May run at any time; neither throws nor allocates. */
static void
relcache_callback(Datum arg, Oid relid)
{
	QueueTable *table;

	if (!OidIsValid(relid))
		mq_visit_touch_all();
	if (!OidIsValid(relid) || tables == NULL)
		stale = true;
	else if ((table = hash_search(tables, &relid, HASH_FIND, NULL)) != NULL)
	{
		table->touched = ++touches;
		mq_visit_touch(items[table->item].queue.queue_no);
	}
}

void
mq_list_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
}

/* A segment more or less touches a table, too. */
static bool
tables_are_same(void)
{
	HASH_SEQ_STATUS status;
	const QueueTable *table;
	uint64		now = touches;

	if (now == touches_seen)
		return true;
	hash_seq_init(&status, tables);
	while ((table = hash_seq_search(&status)) != NULL)
	{
		if (table->touched > touches_seen && !mq_queue_keeps_table(&items[table->item].queue))
		{
			hash_seq_term(&status);
			return false;
		}
	}
	touches_seen = now;
	return true;
}

/* Whether the list is what would be read now. Looks at the place of each row, and at nothing in it. */
static bool
is_current(void)
{
	/* where a table is missing, nobody tells when there is one again */
	return tables != NULL && !stale && whole && mq_definitions_fingerprint() == fingerprint && tables_are_same();
}

/* ---- reading ---- */

static int
compare_queues(const void *a, const void *b)
{
	int32		x = ((const MqQueue *) a)->queue_no;
	int32		y = ((const MqQueue *) b)->queue_no;

	return (x > y) - (x < y);
}

static int
compare_numbers(const void *a, const void *b)
{
	int32		x = *(const int32 *) a;
	int32		y = *(const int32 *) b;

	return (x > y) - (x < y);
}

static int
compare_groups(const void *a, const void *b)
{
	const MqGroup *x = a;
	const MqGroup *y = b;
	int			by_queue = compare_queues(&x->queue, &y->queue);

	return by_queue != 0 ? by_queue : compare_numbers(&x->group_no, &y->group_no);
}

/* They come as read: slots in shared memory are not filled in yet. */
static uint32
hash_definition(const MqQueueItem *item)
{
	uint32		hash = hash_bytes((const unsigned char *) &item->queue, sizeof(MqQueue));

	for (int i = 0; i < item->ngroups; i++)
		hash = hash_combine(hash, hash_bytes((const unsigned char *) &item->groups[i], sizeof(MqGroup)));
	return hash;
}

/* Both are in the order of queues. */
static void
fill_items(MqQueueList *list, const MqDefinitions *all, MqGroup *groups)
{
	int			at = 0;

	for (int i = 0; i < list->count; i++)
	{
		MqQueueItem *item = &list->items[i];

		item->queue = all->queues[i];
		item->groups = &groups[at];
		while (at < all->ngroups && groups[at].queue.queue_no == item->queue.queue_no)
			at++;
		item->ngroups = (int) (&groups[at] - item->groups);
		item->definition = hash_definition(item);
	}
}

static void
fill_numbers(MqQueueList *list, const MqGroup *groups)
{
	for (int i = 0; i < list->ngroups; i++)
		list->group_numbers[i] = groups[i].group_no;
	qsort(list->group_numbers, list->ngroups, sizeof(int32), compare_numbers);
}

static HTAB *
tables_of(const MqQueueList *list, MemoryContext made_in)
{
	HASHCTL		ctl;
	HTAB	   *made;

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(QueueTable);
	ctl.hcxt = made_in;
	made = hash_create("mq tables of queues", Max(list->count, 16), &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < list->count; i++)
	{
		QueueTable *table = hash_search(made, &list->items[i].queue.table, HASH_ENTER, NULL);

		table->item = i;
		table->touched = 0;
	}
	return made;
}

/* The definitions as read are garbage afterwards. If it fails, the next turn begins anew. */
static void
read_anew(MqQueueList *list)
{
	MqDefinitions all;
	MqGroup    *groups;

	/* until it is set again every invalidation makes the list stale */
	tables = NULL;
	stale = false;
	list->count = list->ngroups = 0;
	if (definitions == NULL)
		definitions = AllocSetContextCreate(TopMemoryContext, "mq worker definitions", ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(definitions);
	fingerprint = mq_definitions_fingerprint();
	all = mq_definitions_all();
	whole = all.whole;
	qsort(all.queues, all.nqueues, sizeof(MqQueue), compare_queues);
	qsort(all.groups, all.ngroups, sizeof(MqGroup), compare_groups);
	list->items = MemoryContextAllocHuge(definitions, (all.nqueues + 1) * sizeof(MqQueueItem));
	list->group_numbers = MemoryContextAllocHuge(definitions, (all.ngroups + 1) * sizeof(int32));
	groups = MemoryContextAllocHuge(definitions, (all.ngroups + 1) * sizeof(MqGroup));
	memcpy(groups, all.groups, all.ngroups * sizeof(MqGroup));
	list->count = all.nqueues;
	list->ngroups = all.ngroups;
	fill_items(list, &all, groups);
	fill_numbers(list, groups);
	pfree(all.queues);
	pfree(all.groups);
	items = list->items;
	tables = tables_of(list, definitions);
}

void
mq_list_refresh(MqQueueList *list)
{
	if (is_current())
		return;
	read_anew(list);
	list->fresh = true;
}

/* ---- looking up ---- */

bool
mq_list_has_queue(const MqQueueList *list, int32 queue_no)
{
	int			a = 0;
	int			b = list->count;

	while (a < b)
	{
		int			mid = a + (b - a) / 2;

		if (list->items[mid].queue.queue_no < queue_no)
			a = mid + 1;
		else
			b = mid;
	}
	return a < list->count && list->items[a].queue.queue_no == queue_no;
}

bool
mq_list_has_group(const MqQueueList *list, int32 group_no)
{
	return bsearch(&group_no, list->group_numbers, list->ngroups, sizeof(int32), compare_numbers) != NULL;
}
