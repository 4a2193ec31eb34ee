/*
 * definitions.h: the rows of mq_internal.queue and mq_internal.consumer_group, read one by one or all.
 *
 * All of it sees what is committed now and what this transaction did. Locks the tables ACCESS SHARE for the look; no LWLock may be
 * held. 42704 if the extension is not installed, or was dropped meanwhile.
 */
#ifndef MQ_DEFINITIONS_H
#define MQ_DEFINITIONS_H

#include "access/htup.h"
#include "access/tupdesc.h"

#include "base/catalog.h"

/*
 * heap_deform_tuple for a table of ours. The arrays have room for MaxHeapAttributeNumber: the table may have more columns
 * than this library knows, or fewer; those come as null.
 */
extern void mq_deform(HeapTuple tuple, TupleDesc desc, Datum *values, bool *isnull, int columns);

/* The table of a queue by that name, as the catalog has it now; InvalidOid: there is none. No lock is taken. */
extern Oid	mq_table_of(const MqExtension *ext, const char *queue_name);

/*
 * Past the caches of catalog.c, which alone should call them: fill the caller's struct (a group's with its queue; chain and window are
 * null), false: there is no such row, or the queue has no table. ext: what it was at the last look-up.
 */
extern bool mq_read_queue(const MqExtension *ext, const NameData *name, MqQueue *queue);
extern bool mq_read_queue_by_number(const MqExtension *ext, int32 queue_no, MqQueue *queue);
extern bool mq_read_group(const MqExtension *ext, int32 queue_no, const NameData *name, MqGroup *group);
extern bool mq_read_group_by_number(const MqExtension *ext, int32 group_no, MqGroup *group);

/* What becomes of failed messages of a group; false: there is no such group. */
extern bool mq_read_retry_policy(int32 group_no, MqRetryPolicy *policy);

/* Every group (and its queue) of the database, committed or made by this transaction; palloc'd array. */
extern MqGroup *mq_groups_all(int *count);
extern MqQueue *mq_queues_all(int *count);
extern MqGroup *mq_groups_of(const MqQueue *queue, int *count);

/* The same for both at once; whole: no queue was left out because it has no table now. */
typedef struct MqDefinitions
{
	MqQueue    *queues;
	int			nqueues;
	MqGroup    *groups;
	int			ngroups;
	bool		whole;
} MqDefinitions;

extern MqDefinitions mq_definitions_all(void);

/*
 * Changes with every row of a definition that is written or goes, whoever does it; the tables of queues are not looked at. Reads
 * all rows, but nothing in them.
 */
extern uint64 mq_definitions_fingerprint(void);

#endif
