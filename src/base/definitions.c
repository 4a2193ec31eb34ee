/*
 * definitions.c: the rows of mq_internal.queue and mq_internal.consumer_group, read one by one or all.
 *
 * Keeps nothing: catalog.c has the caches. Locks: the tables, ACCESS SHARE for the look, one after the other. systable scans of our
 * own tables see what is committed now and what this transaction did, whatever snapshot the caller's statement has. Writes nothing,
 * so a crash leaves nothing.
 */
#include "postgres.h"

#include "base/definitions.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* columns of mq_internal.queue */
enum
{
	Q_NUMBER = 1, Q_NAME, Q_SEGMENT_SIZE, Q_LEVELS, Q_PAUSED, Q_RETENTION, Q_RETENTION_BYTES, Q_DROP_UNREAD, Q_NOTIFY,
	Q_CLOSED, Q_MAX_MESSAGE_BYTES, Q_DEAD_LETTER_OF, Q_EXPIRES, Q_MAX_MESSAGES, Q_MAX_BYTES, Q_OVERFLOW,
	Q_MAX_SEND_PER_SECOND, Q_DEDUP_WINDOW, Q_SYSTEM, Q_DATABASE, Q_EXTENSION, Q_TABLE, Q_COLUMNS = Q_TABLE
};

/* columns of mq_internal.consumer_group */
enum
{
	G_NUMBER = 1, G_QUEUE, G_NAME, G_EPOCH, G_START, G_PAUSED, G_MAX_IN_FLIGHT, G_MAX_PER_CONSUMER, G_LEASE, G_RETRY_DELAYS,
	G_MAX_FAILURES, G_DEAD_LETTERS, G_MAX_LEASE, G_MAX_PER_SECOND, G_EXPIRES, G_DROPPED,
	G_COLUMNS = G_DROPPED
};

/* 0 for null; a month counts 30 days, and what is stored was checked to fit. */
static int64
interval_us(Datum value, bool isnull)
{
	const Interval *interval = DatumGetIntervalP(value);

	if (isnull)
		return 0;
	return interval->time + ((int64) interval->month * DAYS_PER_MONTH + interval->day) * USECS_PER_DAY;
}

void
mq_deform(HeapTuple tuple, TupleDesc desc, Datum *values, bool *isnull, int columns)
{
	heap_deform_tuple(tuple, desc, values, isnull);
	for (int i = desc->natts; i < columns; i++)
	{
		values[i] = (Datum) 0;
		isnull[i] = true;
	}
}

Oid
mq_table_of(const MqExtension *ext, const char *queue_name)
{
	char		relname[NAMEDATALEN];

	snprintf(relname, sizeof(relname), "q_%s", queue_name);
	return get_relname_relid(relname, ext->schema);
}

/* InvalidOid: there is no such queue, or it has no table. */
static Oid
table_by_number(const MqExtension *ext, int32 queue_no)
{
	Relation	rel = mq_own_relation_open(ext->queue_rel, AccessShareLock);
	Oid			table = InvalidOid;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Q_NUMBER, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_no));
	scan = systable_beginscan(rel, get_relname_relid("queue_pkey", ext->internal), true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		table = mq_table_of(ext, NameStr(*DatumGetName(heap_getattr(tuple, Q_NAME, RelationGetDescr(rel), &isnull))));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return table;
}

/* Table and sequence are looked up by name: InvalidOid where there is none now. The chain is not looked up. */
static void
queue_from_tuple(const MqExtension *ext, HeapTuple tuple, TupleDesc desc, MqQueue *queue)
{
	Datum		v[MaxHeapAttributeNumber];
	bool		isnull[MaxHeapAttributeNumber];
	char		relname[NAMEDATALEN];

	mq_deform(tuple, desc, v, isnull, Q_COLUMNS);
	memset(queue, 0, sizeof(*queue));
	queue->name = *DatumGetName(v[Q_NAME - 1]);
	queue->queue_no = DatumGetInt32(v[Q_NUMBER - 1]);
	queue->segment_size = DatumGetInt64(v[Q_SEGMENT_SIZE - 1]);
	queue->foreign = (uint64) DatumGetInt64(v[Q_SYSTEM - 1]) != GetSystemIdentifier() ||
		DatumGetObjectId(v[Q_DATABASE - 1]) != MyDatabaseId ||
		DatumGetObjectId(v[Q_EXTENSION - 1]) != ext->oid;
	queue->paused = DatumGetBool(v[Q_PAUSED - 1]);
	queue->retention_us = interval_us(v[Q_RETENTION - 1], isnull[Q_RETENTION - 1]);
	queue->retention_bytes = isnull[Q_RETENTION_BYTES - 1] ? -1 : DatumGetInt64(v[Q_RETENTION_BYTES - 1]);
	queue->drop_unread = DatumGetBool(v[Q_DROP_UNREAD - 1]);
	queue->notify_us = interval_us(v[Q_NOTIFY - 1], isnull[Q_NOTIFY - 1]);
	queue->closed = DatumGetBool(v[Q_CLOSED - 1]);
	queue->max_message_bytes = isnull[Q_MAX_MESSAGE_BYTES - 1] ? 0 : DatumGetInt32(v[Q_MAX_MESSAGE_BYTES - 1]);
	queue->expires_us = interval_us(v[Q_EXPIRES - 1], isnull[Q_EXPIRES - 1]);
	queue->max_messages = isnull[Q_MAX_MESSAGES - 1] ? 0 : DatumGetInt64(v[Q_MAX_MESSAGES - 1]);
	queue->max_bytes = isnull[Q_MAX_BYTES - 1] ? 0 : DatumGetInt64(v[Q_MAX_BYTES - 1]);
	queue->max_send_per_second = isnull[Q_MAX_SEND_PER_SECOND - 1] ? 0 : DatumGetInt32(v[Q_MAX_SEND_PER_SECOND - 1]);
	queue->drop_oldest = !isnull[Q_OVERFLOW - 1] && strcmp(TextDatumGetCString(v[Q_OVERFLOW - 1]), "drop_oldest") == 0;
	queue->dedup_us = interval_us(v[Q_DEDUP_WINDOW - 1], isnull[Q_DEDUP_WINDOW - 1]);
	queue->extension = ext->oid;
	queue->db = ext->db;
	queue->table = mq_table_of(ext, NameStr(queue->name));
	queue->dead_letter_of = isnull[Q_DEAD_LETTER_OF - 1] ? 0 : DatumGetInt32(v[Q_DEAD_LETTER_OF - 1]);
	queue->rights = queue->dead_letter_of == 0 ? queue->table : table_by_number(ext, queue->dead_letter_of);
	snprintf(relname, sizeof(relname), "i_%d", queue->queue_no);
	queue->sequence = get_relname_relid(relname, ext->internal);
	queue->replaced = !queue->foreign && DatumGetObjectId(v[Q_TABLE - 1]) != queue->table;
}

/* Whatever is on disk. */
static void
policy_from(const Datum *v, const bool *isnull, MqRetryPolicy *policy)
{
	memset(policy, 0, sizeof(*policy));
	policy->max_failures = isnull[G_MAX_FAILURES - 1] ? 0 : Max(DatumGetInt32(v[G_MAX_FAILURES - 1]), 0);
	if (!isnull[G_RETRY_DELAYS - 1])
	{
		ArrayType  *array = DatumGetArrayTypeP(v[G_RETRY_DELAYS - 1]);
		Datum	   *delays;
		bool	   *nulls;
		int			count;

		deconstruct_array(array, INTERVALOID, sizeof(Interval), false, TYPALIGN_DOUBLE, &delays, &nulls, &count);
		for (int i = 0; i < Min(count, MQ_RETRY_DELAYS_MAX); i++)
			policy->delays[policy->ndelays++] = Max(interval_us(delays[i], nulls[i]), 0);
		pfree(delays);
		pfree(nulls);
	}
	policy->hash = hash_bytes((const unsigned char *) &policy->max_failures, sizeof(*policy) - offsetof(MqRetryPolicy, max_failures));
}

/* All but the window, and the queue, whose number goes to *queue_no. */
static void
group_from_tuple(const MqExtension *ext, HeapTuple tuple, TupleDesc desc, MqGroup *group, int32 *queue_no)
{
	Datum		v[MaxHeapAttributeNumber];
	bool		isnull[MaxHeapAttributeNumber];
	char		relname[NAMEDATALEN];
	MqRetryPolicy policy;

	mq_deform(tuple, desc, v, isnull, G_COLUMNS);
	policy_from(v, isnull, &policy);
	memset(group, 0, sizeof(*group));
	group->name = *DatumGetName(v[G_NAME - 1]);
	group->group_no = DatumGetInt32(v[G_NUMBER - 1]);
	group->epoch = DatumGetInt32(v[G_EPOCH - 1]);
	group->start_id = DatumGetInt64(v[G_START - 1]);
	group->paused = DatumGetBool(v[G_PAUSED - 1]);
	group->max_in_flight = isnull[G_MAX_IN_FLIGHT - 1] ? 0 : DatumGetInt32(v[G_MAX_IN_FLIGHT - 1]);
	group->max_per_consumer = isnull[G_MAX_PER_CONSUMER - 1] ? 0 : DatumGetInt32(v[G_MAX_PER_CONSUMER - 1]);
	group->lease_us = interval_us(v[G_LEASE - 1], isnull[G_LEASE - 1]);
	group->retry_hash = policy.hash;
	group->dead_letters = isnull[G_DEAD_LETTERS - 1] ? MQ_DEAD_LETTERS_NONE : DatumGetInt32(v[G_DEAD_LETTERS - 1]);
	group->expires_us = interval_us(v[G_EXPIRES - 1], isnull[G_EXPIRES - 1]);
	group->tick_ns = isnull[G_MAX_PER_SECOND - 1] ? 0 : (int64) (1e9 / DatumGetFloat8(v[G_MAX_PER_SECOND - 1]));
	group->max_lease_us = interval_us(v[G_MAX_LEASE - 1], isnull[G_MAX_LEASE - 1]);
	snprintf(relname, sizeof(relname), "g_%d", group->group_no);
	group->rights = get_relname_relid(relname, ext->internal);
	*queue_no = DatumGetInt32(v[G_QUEUE - 1]);
}

/* Reads the one row that the keys find. They are copied, for a scan changes its own. */
static bool
read_queue_once(const MqExtension *ext, const char *index, const ScanKeyData *wanted, int nkeys, MqQueue *queue)
{
	ScanKeyData keys[2] = {wanted[0], wanted[nkeys - 1]};
	Relation	rel = mq_own_relation_open(ext->queue_rel, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, get_relname_relid(index, ext->internal), true, NULL, nkeys, keys);
	HeapTuple	tuple = systable_getnext(scan);
	bool		found = HeapTupleIsValid(tuple);

	if (found)
		queue_from_tuple(ext, tuple, RelationGetDescr(rel), queue);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found && OidIsValid(queue->table);
}

/*
 * A row and the name of its table are looked up one after the other: a queue that is dropped and made again in between seems to
 * have another table than its row says. That is looked at again before it is believed.
 */
static bool
read_queue(const MqExtension *ext, const char *index, const ScanKeyData *keys, int nkeys, MqQueue *queue)
{
	if (!read_queue_once(ext, index, keys, nkeys, queue))
		return false;
	if (!queue->replaced)
		return true;
	AcceptInvalidationMessages();
	return read_queue_once(ext, index, keys, nkeys, queue);
}

/* The queue is looked up when the table of groups is closed. False also where the queue has no table. */
static bool
read_group(const MqExtension *ext, const char *index, ScanKey keys, int nkeys, MqGroup *group)
{
	Relation	rel = mq_own_relation_open(ext->group_rel, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, get_relname_relid(index, ext->internal), true, NULL, nkeys, keys);
	HeapTuple	tuple = systable_getnext(scan);
	bool		found = HeapTupleIsValid(tuple);
	int32		queue_no = 0;

	if (found)
		group_from_tuple(ext, tuple, RelationGetDescr(rel), group, &queue_no);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (found)
		found = mq_read_queue_by_number(ext, queue_no, &group->queue);
	return found;
}

bool
mq_read_queue(const MqExtension *ext, const NameData *name, MqQueue *queue)
{
	ScanKeyData key;

	ScanKeyInit(&key, Q_NAME, BTEqualStrategyNumber, F_NAMEEQ, NameGetDatum(name));
	return read_queue(ext, "queue_name_key", &key, 1, queue);
}

bool
mq_read_queue_by_number(const MqExtension *ext, int32 queue_no, MqQueue *queue)
{
	ScanKeyData key;

	ScanKeyInit(&key, Q_NUMBER, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_no));
	return read_queue(ext, "queue_pkey", &key, 1, queue);
}

bool
mq_read_group(const MqExtension *ext, int32 queue_no, const NameData *name, MqGroup *group)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], G_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_no));
	ScanKeyInit(&keys[1], G_NAME, BTEqualStrategyNumber, F_NAMEEQ, NameGetDatum(name));
	return read_group(ext, "consumer_group_queue_no_name_key", keys, 2, group);
}

bool
mq_read_group_by_number(const MqExtension *ext, int32 group_no, MqGroup *group)
{
	ScanKeyData key;

	ScanKeyInit(&key, G_NUMBER, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(group_no));
	return read_group(ext, "consumer_group_pkey", &key, 1, group);
}

bool
mq_read_retry_policy(int32 group_no, MqRetryPolicy *policy)
{
	const MqExtension *ext = mq_extension(false);
	Relation	rel = mq_own_relation_open(ext->group_rel, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&key, G_NUMBER, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(group_no));
	scan = systable_beginscan(rel, get_relname_relid("consumer_group_pkey", ext->internal), true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		Datum		v[MaxHeapAttributeNumber];
		bool		isnull[MaxHeapAttributeNumber];

		mq_deform(tuple, RelationGetDescr(rel), v, isnull, G_COLUMNS);
		policy_from(v, isnull, policy);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* *whole: as in MqDefinitions. */
static MqQueue *
queues_all(const MqExtension *ext, int *count, bool *whole)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			room = 16;
	MqQueue    *queues = palloc(room * sizeof(MqQueue));

	*count = 0;
	*whole = true;
	rel = mq_own_relation_open(ext->queue_rel, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (*count == room)
			queues = repalloc_huge(queues, (room *= 2) * sizeof(MqQueue));
		queue_from_tuple(ext, tuple, RelationGetDescr(rel), &queues[*count]);
		if (OidIsValid(queues[*count].table))
			(*count)++;
		else
			*whole = false;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return queues;
}

MqQueue *
mq_queues_all(int *count)
{
	bool		whole;

	return queues_all(mq_extension(false), count, &whole);
}

/* Finds a queue by its number. */
typedef struct NumberedQueue
{
	int32		queue_no;
	const MqQueue *queue;
} NumberedQueue;

/* In the current memory context. Points to the queues of the array. */
static HTAB *
by_number(const MqQueue *queues, int count)
{
	HASHCTL		ctl;
	HTAB	   *table;

	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(NumberedQueue);
	ctl.hcxt = CurrentMemoryContext;
	table = hash_create("mq queues by number", Max(count, 16), &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < count; i++)
		((NumberedQueue *) hash_search(table, &queues[i].queue_no, HASH_ENTER, NULL))->queue = &queues[i];
	return table;
}

/* The groups that a scan finds and whose queue is in the list; palloc'd. */
static MqGroup *
collect_groups(const MqExtension *ext, Relation rel, SysScanDesc scan, const MqQueue *queues, int nqueues, int *count)
{
	HTAB	   *numbers = by_number(queues, nqueues);
	int			room = 16;
	MqGroup    *groups = palloc(room * sizeof(MqGroup));
	HeapTuple	tuple;

	*count = 0;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		const NumberedQueue *found;
		int32		queue_no;

		if (*count == room)
			groups = repalloc_huge(groups, (room *= 2) * sizeof(MqGroup));
		group_from_tuple(ext, tuple, RelationGetDescr(rel), &groups[*count], &queue_no);
		found = hash_search(numbers, &queue_no, HASH_FIND, NULL);
		if (found != NULL)
			groups[(*count)++].queue = *found->queue;
	}
	hash_destroy(numbers);
	return groups;
}

/* Queues are read first: a group whose queue was not there yet, or has no table, is left out. */
MqDefinitions
mq_definitions_all(void)
{
	const MqExtension *ext = mq_extension(false);
	MqDefinitions all;
	Relation	rel;
	SysScanDesc scan;

	all.queues = queues_all(ext, &all.nqueues, &all.whole);
	rel = mq_own_relation_open(ext->group_rel, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	all.groups = collect_groups(ext, rel, scan, all.queues, all.nqueues, &all.ngroups);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return all;
}

MqGroup *
mq_groups_all(int *count)
{
	MqDefinitions all = mq_definitions_all();

	pfree(all.queues);
	*count = all.ngroups;
	return all.groups;
}

/* A row that is written is another one by its place or its transaction. */
static uint64
rows_fingerprint(Oid relid, uint64 sum)
{
	Relation	rel = mq_own_relation_open(relid, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		sum = hash_combine64(sum, HeapTupleHeaderGetRawXmin(tuple->t_data));
		sum = hash_combine64(sum, ((uint64) ItemPointerGetBlockNumber(&tuple->t_self) << 16) | ItemPointerGetOffsetNumber(&tuple->t_self));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return sum;
}

uint64
mq_definitions_fingerprint(void)
{
	const MqExtension *ext = mq_extension(false);

	return rows_fingerprint(ext->group_rel, rows_fingerprint(ext->queue_rel, ext->oid));
}

/* The queue in each of them is a copy of the caller's. */
MqGroup *
mq_groups_of(const MqQueue *queue, int *count)
{
	const MqExtension *ext = mq_extension(false);
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	MqGroup    *groups;

	rel = mq_own_relation_open(ext->group_rel, AccessShareLock);
	ScanKeyInit(&key, G_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->queue_no));
	scan = systable_beginscan(rel, get_relname_relid("consumer_group_queue_no_name_key", ext->internal), true, NULL, 1, &key);
	groups = collect_groups(ext, rel, scan, queue, 1, count);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return groups;
}
