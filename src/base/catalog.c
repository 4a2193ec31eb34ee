/*
 * catalog.c: definitions of queues and consumer groups, as this backend sees them.
 *
 * Owns the reading of mq_internal.queue and mq_internal.consumer_group and two caches in this process, by queue name and by group
 * number. Any change of a definition sends a relcache invalidation for mq_internal.queue: the caches are thrown away at the next
 * look-up, never in the callback, which may run at any time. What happens to the table of one queue (a segment more or
 * less, DROP) marks that queue's entry only.
 */
#include "postgres.h"

#include "base/catalog.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/settings.h"

/* columns of mq_internal.queue */
enum
{
	Q_NUMBER = 1, Q_NAME, Q_SEGMENT_SIZE, Q_LEVELS, Q_PAUSED, Q_RETENTION, Q_RETENTION_BYTES, Q_DROP_UNREAD, Q_NOTIFY,
	Q_SYSTEM, Q_DATABASE, Q_EXTENSION, Q_TABLE, Q_COLUMNS = Q_TABLE
};

/* columns of mq_internal.consumer_group */
enum
{
	G_NUMBER = 1, G_QUEUE, G_NAME, G_EPOCH, G_START, G_PAUSED, G_MAX_IN_FLIGHT, G_MAX_PER_CONSUMER, G_LEASE, G_DROPPED,
	G_COLUMNS = G_DROPPED
};

static MqExtension extension;
static bool extension_valid = false;
static MemoryContext cache_context = NULL;
static HTAB *queue_cache = NULL;	/* by NameData */
static HTAB *group_cache = NULL;	/* by group_no */
static HTAB *table_cache = NULL;	/* by the oid of a queue's table */

typedef struct QueueEntry
{
	MqQueue		queue;			/* begins with its name */
	bool		valid;			/* nothing has happened to its table */
} QueueEntry;

typedef struct TableEntry
{
	Oid			table;
	QueueEntry *entry;
} TableEntry;

typedef struct GroupEntry
{
	int32		group_no;
	MqGroup		group;
	const QueueEntry *queue;	/* of its queue */
} GroupEntry;

static void
relcache_callback(Datum arg, Oid relid)
{
	const TableEntry *table;

	if (relid == InvalidOid || relid == extension.queue_rel || relid == extension.group_rel)
		extension_valid = false;
	else if (table_cache != NULL && (table = hash_search(table_cache, &relid, HASH_FIND, NULL)) != NULL)
		table->entry->valid = false;
}

void
mq_catalog_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
}

static void
reset_caches(void)
{
	HASHCTL		ctl;

	queue_cache = group_cache = table_cache = NULL;
	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(CacheMemoryContext, "mq definitions", ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(cache_context);
	ctl.hcxt = cache_context;
	ctl.keysize = sizeof(NameData);
	ctl.entrysize = sizeof(QueueEntry);
	queue_cache = hash_create("mq queues", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(GroupEntry);
	group_cache = hash_create("mq groups", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(TableEntry);
	table_cache = hash_create("mq queue tables", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* A row of pg_extension. */
typedef struct ExtensionRow
{
	Oid			oid;
	Oid			owner;
	char		version[NAMEDATALEN];
} ExtensionRow;

/* There is no syscache for pg_extension before 18. */
static bool
find_extension_row(ExtensionRow *row)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum("mq"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_extension form = (Form_pg_extension) GETSTRUCT(tuple);
		bool		isnull;
		char	   *version = TextDatumGetCString(heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull));

		row->oid = form->oid;
		row->owner = form->extowner;
		strlcpy(row->version, version, sizeof(row->version));
		pfree(version);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/* Definitions are read as this library knows them: with another version of the script nothing else is safe than to refuse. */
static void
other_version(const ExtensionRow *row)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("extension \"mq\" has version %s in this database, but the server has loaded the library of version %s",
					row->version, MQ_VERSION),
			 errhint("Use ALTER EXTENSION mq UPDATE; if the library was installed after the server was started, restart the server first.")));
}

/* One of the extension's schemas; InvalidOid unless it is a member of the extension. */
static Oid
own_schema(const char *name, Oid extension_oid)
{
	Oid			schema = get_namespace_oid(name, true);

	return OidIsValid(schema) && getExtensionOfObject(NamespaceRelationId, schema) == extension_oid ? schema : InvalidOid;
}

/* False: it is not there, or not whole. */
static bool
load_extension(const ExtensionRow *row, MqExtension *ext)
{
	memset(ext, 0, sizeof(*ext));
	ext->oid = row->oid;
	ext->owner = row->owner;
	ext->schema = own_schema("mq", row->oid);
	ext->internal = own_schema("mq_internal", row->oid);
	if (!OidIsValid(ext->schema) || !OidIsValid(ext->internal))
		return false;
	ext->queue_rel = get_relname_relid("queue", ext->internal);
	ext->group_rel = get_relname_relid("consumer_group", ext->internal);
	ext->segment_rel = get_relname_relid("segment", ext->internal);
	ext->guard_function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum("refuse_direct_write"),
										  PointerGetDatum(buildoidvector(NULL, 0)), ObjectIdGetDatum(ext->internal));
	return OidIsValid(ext->queue_rel) && OidIsValid(ext->group_rel) && OidIsValid(ext->segment_rel);
}

static void
not_installed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("extension \"mq\" is not installed in this database"),
			 errhint("Use CREATE EXTENSION mq.")));
}

Relation
mq_own_relation_open(Oid relid, LOCKMODE mode)
{
	Relation	rel = NULL;

	if (OidIsValid(relid))
	{
		/* as relation_open does, which has no kind word, and without the look-up of try_relation_open */
		LockRelationOid(relid, mode);
		rel = RelationIdGetRelation(relid);
	}
	/* its oid was looked up before a wait for the lock, which DROP EXTENSION had */
	if (!RelationIsValid(rel))
		not_installed();
	pgstat_init_relation(rel);
	return rel;
}

const MqExtension *
mq_extension(bool missing_ok)
{
	ExtensionRow row = {0};
	MqExtension loaded;
	bool		found;

	mq_require_preload();
	if (extension_valid)
		return &extension;
	found = find_extension_row(&row);
	if (found && strcmp(row.version, MQ_VERSION) != 0)
	{
		if (missing_ok)
			return NULL;
		other_version(&row);
	}
	if (!found || !load_extension(&row, &loaded))
	{
		if (missing_ok)
			return NULL;
		not_installed();
	}
	loaded.db = mq_database_slot(loaded.oid);
	reset_caches();
	extension = loaded;
	extension_valid = true;
	return &extension;
}

void
mq_check_extension_owner(void)
{
	Oid			owner = mq_extension(false)->owner;

	if (superuser_arg(owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the owner of extension mq, role \"%s\", is not a superuser", GetUserNameFromId(owner, false)),
			 errhint("Make it a superuser again (ALTER ROLE ... SUPERUSER), or hand what it owns on to one (REASSIGN OWNED BY ... TO ...).")));
}

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

/* InvalidOid: there is none. */
static Oid
table_of(const char *queue_name)
{
	char		relname[NAMEDATALEN];

	snprintf(relname, sizeof(relname), "q_%s", queue_name);
	return get_relname_relid(relname, extension.schema);
}

static void
queue_from_tuple(HeapTuple tuple, TupleDesc desc, MqQueue *queue)
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
		DatumGetObjectId(v[Q_EXTENSION - 1]) != extension.oid;
	queue->paused = DatumGetBool(v[Q_PAUSED - 1]);
	queue->retention_us = interval_us(v[Q_RETENTION - 1], isnull[Q_RETENTION - 1]);
	queue->retention_bytes = isnull[Q_RETENTION_BYTES - 1] ? -1 : DatumGetInt64(v[Q_RETENTION_BYTES - 1]);
	queue->drop_unread = DatumGetBool(v[Q_DROP_UNREAD - 1]);
	queue->notify_us = interval_us(v[Q_NOTIFY - 1], isnull[Q_NOTIFY - 1]);
	queue->extension = extension.oid;
	queue->db = extension.db;
	queue->table = table_of(NameStr(queue->name));
	snprintf(relname, sizeof(relname), "i_%d", queue->queue_no);
	queue->sequence = get_relname_relid(relname, extension.internal);
	queue->replaced = !queue->foreign && DatumGetObjectId(v[Q_TABLE - 1]) != queue->table;
}

static void
group_from_tuple(HeapTuple tuple, TupleDesc desc, MqGroup *group, int32 *queue_no)
{
	Datum		v[MaxHeapAttributeNumber];
	bool		isnull[MaxHeapAttributeNumber];
	char		relname[NAMEDATALEN];

	mq_deform(tuple, desc, v, isnull, G_COLUMNS);
	memset(group, 0, sizeof(*group));
	group->name = *DatumGetName(v[G_NAME - 1]);
	group->group_no = DatumGetInt32(v[G_NUMBER - 1]);
	group->epoch = DatumGetInt32(v[G_EPOCH - 1]);
	group->start_id = DatumGetInt64(v[G_START - 1]);
	group->paused = DatumGetBool(v[G_PAUSED - 1]);
	group->max_in_flight = isnull[G_MAX_IN_FLIGHT - 1] ? 0 : DatumGetInt32(v[G_MAX_IN_FLIGHT - 1]);
	group->max_per_consumer = isnull[G_MAX_PER_CONSUMER - 1] ? 0 : DatumGetInt32(v[G_MAX_PER_CONSUMER - 1]);
	group->lease_us = interval_us(v[G_LEASE - 1], isnull[G_LEASE - 1]);
	snprintf(relname, sizeof(relname), "g_%d", group->group_no);
	group->rights = get_relname_relid(relname, extension.internal);
	*queue_no = DatumGetInt32(v[G_QUEUE - 1]);
}

/*
 * Reads the one row that the keys find. systable scans of our own tables see what is committed now and what this
 * transaction did, whatever snapshot the caller's statement has.
 */
static bool
read_queue_once(const char *index, ScanKey keys, int nkeys, MqQueue *queue)
{
	Relation	rel = mq_own_relation_open(extension.queue_rel, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, get_relname_relid(index, extension.internal), true, NULL, nkeys, keys);
	HeapTuple	tuple = systable_getnext(scan);
	bool		found = HeapTupleIsValid(tuple);

	if (found)
		queue_from_tuple(tuple, RelationGetDescr(rel), queue);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found && OidIsValid(queue->table);
}

/*
 * A row and the name of its table are looked up one after the other: a queue that is dropped and made again in between seems to
 * have another table than its row says. That is looked at again before it is believed.
 */
static bool
read_queue(const char *index, ScanKey keys, int nkeys, MqQueue *queue)
{
	if (!read_queue_once(index, keys, nkeys, queue))
		return false;
	if (!queue->replaced)
		return true;
	AcceptInvalidationMessages();
	return read_queue_once(index, keys, nkeys, queue);
}

static bool
read_group(const char *index, ScanKey keys, int nkeys, MqGroup *group)
{
	Relation	rel = mq_own_relation_open(extension.group_rel, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, get_relname_relid(index, extension.internal), true, NULL, nkeys, keys);
	HeapTuple	tuple = systable_getnext(scan);
	bool		found = HeapTupleIsValid(tuple);
	int32		queue_no = 0;

	if (found)
		group_from_tuple(tuple, RelationGetDescr(rel), group, &queue_no);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (found)
	{
		ScanKeyData key;

		ScanKeyInit(&key, Q_NUMBER, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_no));
		found = read_queue("queue_pkey", &key, 1, &group->queue);
	}
	return found;
}

/* A second entry for a table may be left from a rename: the later one counts. */
static QueueEntry *
remember_queue(const MqQueue *queue)
{
	QueueEntry *entry = hash_search(queue_cache, &queue->name, HASH_ENTER, NULL);
	TableEntry *table = hash_search(table_cache, &queue->table, HASH_ENTER, NULL);

	entry->queue = *queue;
	/* where it seems so, every look is a new one */
	entry->valid = !queue->replaced;
	table->entry = entry;
	return entry;
}

bool
mq_queue_find(const char *name, MqQueue *queue)
{
	NameData	key;
	QueueEntry *cached;
	ScanKeyData scankey;

	(void) mq_extension(false);
	if (strlen(name) >= NAMEDATALEN)
		return false;
	memset(&key, 0, sizeof(key));
	namestrcpy(&key, name);
	cached = hash_search(queue_cache, &key, HASH_FIND, NULL);
	if (cached == NULL || !cached->valid)
	{
		ScanKeyInit(&scankey, Q_NAME, BTEqualStrategyNumber, F_NAMEEQ, NameGetDatum(&key));
		if (!read_queue("queue_name_key", &scankey, 1, queue))
			return false;
		cached = remember_queue(queue);
	}
	*queue = cached->queue;
	return true;
}

static void
no_such_queue(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("queue \"%s\" does not exist", name),
			 errhint("Use mq.create_queue to create it.")));
}

void
mq_queue_by_name(const char *name, MqQueue *queue)
{
	if (!mq_queue_find(name, queue))
		no_such_queue(name);
}

bool
mq_queue_is_current(const MqQueue *queue)
{
	return (extension_valid ? extension.oid : mq_extension(false)->oid) == queue->extension;
}

void
mq_queue_dropped(const MqQueue *queue)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("queue \"%s\" was dropped", NameStr(queue->name)),
			 errhint("Use mq.create_queue to create it, unless there is another one of that name now.")));
}

void
mq_queue_check_not_dropped(const MqQueue *queue)
{
	MqQueue		now;

	mq_catalog_catch_up();
	if (!mq_queue_find(NameStr(queue->name), &now) || now.queue_no != queue->queue_no || now.extension != queue->extension)
		mq_queue_dropped(queue);
}

/* Whether nothing has happened to the table of the entry's queue since. */
static bool
is_valid(const GroupEntry *entry)
{
	return entry->queue->valid && entry->queue->queue.queue_no == entry->group.queue.queue_no;
}

/* A queue has few groups: the cache is walked for the name. */
static bool
cached_group_by_name(const MqQueue *queue, const char *name, MqGroup *result)
{
	HASH_SEQ_STATUS status;
	GroupEntry *entry;

	hash_seq_init(&status, group_cache);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->group.queue.queue_no == queue->queue_no && strcmp(NameStr(entry->group.name), name) == 0 && is_valid(entry))
		{
			*result = entry->group;
			hash_seq_term(&status);
			return true;
		}
	}
	return false;
}

static void
remember_group(const MqGroup *group)
{
	GroupEntry *entry = hash_search(group_cache, &group->group_no, HASH_ENTER, NULL);

	entry->group = *group;
	entry->queue = remember_queue(&group->queue);
}

bool
mq_group_find(const MqQueue *queue, const char *group_name, MqGroup *result)
{
	NameData	name;
	ScanKeyData keys[2];

	if (cached_group_by_name(queue, group_name, result))
		return true;
	if (strlen(group_name) >= NAMEDATALEN)
		return false;
	memset(&name, 0, sizeof(name));
	namestrcpy(&name, group_name);
	ScanKeyInit(&keys[0], G_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->queue_no));
	ScanKeyInit(&keys[1], G_NAME, BTEqualStrategyNumber, F_NAMEEQ, NameGetDatum(&name));
	if (!read_group("consumer_group_queue_no_name_key", keys, 2, result))
		return false;
	remember_group(result);
	return true;
}

bool
mq_group_by_number(int32 group_no, MqGroup *result)
{
	GroupEntry *entry;
	ScanKeyData key;

	(void) mq_extension(false);
	entry = hash_search(group_cache, &group_no, HASH_FIND, NULL);
	if (entry != NULL && is_valid(entry))
	{
		*result = entry->group;
		return true;
	}
	ScanKeyInit(&key, G_NUMBER, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(group_no));
	if (!read_group("consumer_group_pkey", &key, 1, result))
		return false;
	remember_group(result);
	return true;
}

bool
mq_group_refresh(MqGroup *group, bool past_cache)
{
	MqWindow   *window = group->window;
	MqChain    *chain = group->queue.chain;
	ScanKeyData key;

	if (!mq_queue_is_current(&group->queue))
		return false;
	ScanKeyInit(&key, G_NUMBER, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(group->group_no));
	if (past_cache ? !read_group("consumer_group_pkey", &key, 1, group) : !mq_group_by_number(group->group_no, group))
		return false;
	group->window = window;
	group->queue.chain = chain;
	return true;
}

/* *whole: as in MqDefinitions. */
static MqQueue *
queues_all(int *count, bool *whole)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			room = 16;
	MqQueue    *queues = palloc(room * sizeof(MqQueue));

	*count = 0;
	*whole = true;
	(void) mq_extension(false);
	rel = mq_own_relation_open(extension.queue_rel, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (*count == room)
			queues = repalloc_huge(queues, (room *= 2) * sizeof(MqQueue));
		queue_from_tuple(tuple, RelationGetDescr(rel), &queues[*count]);
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

	return queues_all(count, &whole);
}

/* Finds a queue by its number. */
typedef struct NumberedQueue
{
	int32		queue_no;
	const MqQueue *queue;
} NumberedQueue;

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
collect_groups(Relation rel, SysScanDesc scan, const MqQueue *queues, int nqueues, int *count)
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
		group_from_tuple(tuple, RelationGetDescr(rel), &groups[*count], &queue_no);
		found = hash_search(numbers, &queue_no, HASH_FIND, NULL);
		if (found != NULL)
			groups[(*count)++].queue = *found->queue;
	}
	hash_destroy(numbers);
	return groups;
}

MqDefinitions
mq_definitions_all(void)
{
	MqDefinitions all;
	Relation	rel;
	SysScanDesc scan;

	all.queues = queues_all(&all.nqueues, &all.whole);
	rel = mq_own_relation_open(extension.group_rel, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	all.groups = collect_groups(rel, scan, all.queues, all.nqueues, &all.ngroups);
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
	(void) mq_extension(false);
	return rows_fingerprint(extension.group_rel, rows_fingerprint(extension.queue_rel, extension.oid));
}

bool
mq_queue_keeps_table(const MqQueue *queue)
{
	return table_of(NameStr(queue->name)) == queue->table;
}

MqGroup *
mq_groups_of(const MqQueue *queue, int *count)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	MqGroup    *groups;

	(void) mq_extension(false);
	rel = mq_own_relation_open(extension.group_rel, AccessShareLock);
	ScanKeyInit(&key, G_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->queue_no));
	scan = systable_beginscan(rel, get_relname_relid("consumer_group_queue_no_name_key", extension.internal), true, NULL, 1, &key);
	groups = collect_groups(rel, scan, queue, 1, count);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return groups;
}

bool
mq_any_row(Oid relid, Oid index, int nkeys, ScanKey keys)
{
	Relation	rel = mq_own_relation_open(relid, AccessShareLock);
	SnapshotData dirty;
	SysScanDesc scan;
	bool		found;

	InitDirtySnapshot(dirty);
	scan = systable_beginscan(rel, index, true, &dirty, nkeys, keys);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

bool
mq_catalog_may_exist(Oid relid, int32 number)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(number));
	return mq_any_row(relid, get_relname_relid(relid == extension.queue_rel ? "queue_pkey" : "consumer_group_pkey",
											   extension.internal), 1, &key);
}

/* Read in place: the functions for it ask for rights that a consumer has not, and nextval would write. */
int64
mq_catalog_last_group(void)
{
	Relation	rel = mq_own_relation_open(get_relname_relid("group_no", extension.internal), AccessShareLock);
	Buffer		buffer = ReadBuffer(rel, 0);
	Page		page;
	HeapTupleHeader header;
	Form_pg_sequence_data data;
	int64		last;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	header = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));
	data = (Form_pg_sequence_data) ((char *) header + header->t_hoff);
	last = data->last_value - !data->is_called;
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return last;
}

bool
mq_extension_may_exist(Oid oid)
{
	ScanKeyData key;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	return mq_any_row(ExtensionRelationId, ExtensionOidIndexId, 1, &key);
}

void
mq_catalog_catch_up(void)
{
	AcceptInvalidationMessages();
}

void
mq_catalog_changed(void)
{
	CacheInvalidateRelcacheByRelid(mq_extension(false)->queue_rel);
	CommandCounterIncrement();
}

void
mq_catalog_remember(const MqGroup *group)
{
	GroupEntry *cached;

	if (!extension_valid)
		return;
	cached = hash_search(group_cache, &group->group_no, HASH_FIND, NULL);
	if (cached == NULL)
		return;
	cached->group.window = group->window;
	cached->group.queue.chain = group->queue.chain;
}

void
mq_catalog_remember_chain(const MqQueue *queue)
{
	QueueEntry *cached;

	if (!extension_valid)
		return;
	cached = hash_search(queue_cache, &queue->name, HASH_FIND, NULL);
	if (cached != NULL && cached->queue.queue_no == queue->queue_no)
		cached->queue.chain = queue->chain;
}

static bool
has_acl(Oid relid, AclMode modes, bool *missing)
{
	*missing = false;
	return pg_class_aclcheck_ext(relid, GetUserId(), modes, missing) == ACLCHECK_OK;
}

bool
mq_has_right(const MqQueue *queue, AclMode modes)
{
	bool		missing;

	return has_acl(queue->table, modes, &missing);
}

bool
mq_may_consume(const MqGroup *group)
{
	bool		missing;

	return has_acl(group->rights, MQ_RIGHT_CONSUME, &missing);
}

static const char *
right_name(AclMode mode)
{
	return mode == MQ_RIGHT_SEND ? "send" : mode == MQ_RIGHT_BROWSE ? "browse" : "manage";
}

void
mq_check_right(const MqQueue *queue, AclMode mode)
{
	bool		missing;

	if (has_acl(queue->table, mode, &missing))
		return;
	/* the table was dropped as a table, or with its owner */
	if (missing)
		no_such_queue(NameStr(queue->name));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for queue \"%s\"", NameStr(queue->name)),
			 errhint("The owner of the queue can give the right: SELECT mq.grant(%s, '%s', ...).",
					 quote_literal_cstr(NameStr(queue->name)), right_name(mode))));
}

static void
group_denied(const MqQueue *queue, const char *group_name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for consumer group \"%s\" of queue \"%s\"", group_name, NameStr(queue->name)),
			 errhint("The owner of the queue can give the right: SELECT mq.grant(%s, 'consume', ..., %s).",
					 quote_literal_cstr(NameStr(queue->name)), quote_literal_cstr(group_name))));
}

void
mq_check_consume(const MqGroup *group)
{
	bool		missing;

	if (has_acl(group->rights, MQ_RIGHT_CONSUME, &missing))
		return;
	if (missing && !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(group->queue.table)))
		no_such_queue(NameStr(group->queue.name));
	group_denied(&group->queue, NameStr(group->name));
}

/* The names of the groups are for those who have to do with one of them. */
static void
no_such_group(const MqQueue *queue, const char *group_name)
{
	int			count;
	MqGroup    *groups = mq_groups_of(queue, &count);
	bool		may_know = mq_has_right(queue, MQ_RIGHT_BROWSE | MQ_RIGHT_MANAGE);

	for (int i = 0; i < count && !may_know; i++)
		may_know = mq_may_consume(&groups[i]);
	if (!may_know)
		group_denied(queue, group_name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("consumer group \"%s\" of queue \"%s\" does not exist", group_name, NameStr(queue->name)),
			 errhint("Use mq.create_group to create it; the view mq.groups lists the groups.")));
}

void
mq_group_by_name(const char *queue_name, const char *group_name, MqGroup *result)
{
	MqQueue		queue;

	mq_queue_by_name(queue_name, &queue);
	if (!mq_group_find(&queue, group_name, result))
		no_such_group(&queue, group_name);
}

bool
mq_is_owner(const MqQueue *queue)
{
	return mq_has_right(queue, ACL_GRANT_OPTION_FOR(MQ_RIGHT_MANAGE));
}

void
mq_check_owner(const MqQueue *queue)
{
	if (!mq_is_owner(queue))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of queue \"%s\"", NameStr(queue->name)),
				 errhint("The owner has the right manage with grant option; the view mq.queues shows who that is.")));
}

MqChainKey
mq_chain_key(const MqQueue *queue, int level)
{
	MqChainKey	key;

	memset(&key, 0, sizeof(key));
	/* not that of the slot, which may have got another owner */
	key.db = (MqDatabaseKey) {MyDatabaseId, queue->extension};
	key.queue_no = queue->queue_no;
	key.level = level;
	return key;
}

MqWindowKey
mq_window_key(const MqGroup *group, int level)
{
	MqWindowKey key;

	memset(&key, 0, sizeof(key));
	key.db = (MqDatabaseKey) {MyDatabaseId, group->queue.extension};
	key.group_no = group->group_no;
	key.level = level;
	return key;
}
