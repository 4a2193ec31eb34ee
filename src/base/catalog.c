/*
 * catalog.c: definitions of queues and consumer groups, as this backend sees them: the extension, look-ups, rights.
 *
 * Owns what is known of the extension and two caches in this process, by queue name and by group
 * number; definitions.c reads what is not in them. Any change of a definition sends a relcache invalidation for mq_internal.queue: the
 * caches are thrown away at the next look-up, never in the callback, which may run at any time. What happens to the table of one queue
 * (a segment more or less, DROP) marks that queue's entry only. Locks: tables of the extension and pg_extension, ACCESS SHARE for the
 * look. A crash leaves nothing.
 */
#include "postgres.h"

#include "base/catalog.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "commands/sequence.h"
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

#include "base/definitions.h"
#include "base/settings.h"

/* What the last look-up found. An invalidation sets extension_valid to false: not to be trusted until the next one. */
static MqExtension extension;
static bool extension_valid = false;
/* Holds the caches, which are thrown away together. */
static MemoryContext cache_context = NULL;
static HTAB *queue_cache = NULL;	/* by NameData */
static HTAB *group_cache = NULL;	/* by group_no */
static HTAB *name_cache = NULL; /* groups by GroupName */
static HTAB *table_cache = NULL;	/* by the oid of a queue's table */

/* A cached queue. Entries of the other caches point to it: it stays where it is until all of them are thrown away. */
typedef struct QueueEntry
{
	MqQueue		queue;			/* begins with its name */
	bool		valid;			/* nothing has happened to its table */
} QueueEntry;

/* Leads from a table, which is what an invalidation names, to the queue that has it. */
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

/* Hashed as bytes: what is behind the end of the name is zero. */
typedef struct GroupName
{
	int32		queue_no;
	NameData	name;
} GroupName;

typedef struct NameEntry
{
	GroupName	key;
	const GroupEntry *group;	/* NULL: none */
} NameEntry;

static const NameEntry *last_name = NULL;	/* the one found last; in name_cache */

/* May run at any time, in the middle of a look-up too: it only marks what is out of date, and never throws. */
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

/* Begins with empty caches. May run out of memory: extension_valid is still false then, and the next look-up begins anew. */
static void
reset_caches(void)
{
	HASHCTL		ctl;

	queue_cache = group_cache = name_cache = table_cache = NULL;
	last_name = NULL;
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
	ctl.keysize = sizeof(GroupName);
	ctl.entrysize = sizeof(NameEntry);
	name_cache = hash_create("mq group names", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
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

/*
 * With missing_ok it returns NULL also where the script has another version. Finds or makes the slot of the database, which may
 * raise 53400.
 */
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

/* A second entry for a table may be left from a rename: the later one counts. */
static QueueEntry *
remember_queue(const MqQueue *queue)
{
	bool		found;
	QueueEntry *entry = hash_search(queue_cache, &queue->name, HASH_ENTER, &found);
	TableEntry *table;

	/* there may be no memory for the second entry */
	entry->valid = found && entry->valid;
	table = hash_search(table_cache, &queue->table, HASH_ENTER, NULL);
	entry->queue = *queue;
	/* where it seems so, every look is a new one */
	entry->valid = !queue->replaced;
	table->entry = entry;
	return entry;
}

/* A queue whose table is gone is not found. */
bool
mq_queue_find(const char *name, MqQueue *queue)
{
	NameData	key;
	QueueEntry *cached;

	(void) mq_extension(false);
	if (strlen(name) >= NAMEDATALEN)
		return false;
	memset(&key, 0, sizeof(key));
	namestrcpy(&key, name);
	cached = hash_search(queue_cache, &key, HASH_FIND, NULL);
	if (cached == NULL || !cached->valid)
	{
		if (!mq_read_queue(&extension, &key, queue))
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

/* With its queue, whose entry is_valid looks at. */
static void
remember_group(const MqGroup *group)
{
	const QueueEntry *queue = remember_queue(&group->queue);
	GroupName	key = {group->queue.queue_no, group->name};
	NameEntry  *name = hash_search(name_cache, &key, HASH_ENTER, NULL);
	GroupEntry *entry;

	/* there may be no memory for the second entry */
	name->group = NULL;
	entry = hash_search(group_cache, &group->group_no, HASH_ENTER, NULL);
	entry->group = *group;
	entry->queue = queue;
	name->group = entry;
}

/* The caller has looked up the queue before, so that the extension is known and there are caches. */
bool
mq_group_find(const MqQueue *queue, const char *group_name, MqGroup *result)
{
	GroupName	key = {queue->queue_no};
	const NameEntry *cached;

	if (strlen(group_name) >= NAMEDATALEN)
		return false;
	/* most sessions use one group */
	cached = last_name;
	namestrcpy(&key.name, group_name);
	if (cached == NULL || cached->key.queue_no != queue->queue_no || strcmp(NameStr(cached->key.name), group_name) != 0)
		cached = hash_search(name_cache, &key, HASH_FIND, NULL);
	if (cached != NULL && cached->group != NULL && is_valid(cached->group))
	{
		last_name = cached;
		*result = cached->group->group;
		return true;
	}
	if (!mq_read_group(&extension, queue->queue_no, &key.name, result))
		return false;
	remember_group(result);
	return true;
}

bool
mq_queue_by_number(int32 queue_no, MqQueue *result)
{
	return mq_extension(true) != NULL && mq_read_queue_by_number(&extension, queue_no, result);
}

bool
mq_group_by_number(int32 group_no, MqGroup *result)
{
	GroupEntry *entry;

	(void) mq_extension(false);
	entry = hash_search(group_cache, &group_no, HASH_FIND, NULL);
	if (entry != NULL && is_valid(entry))
	{
		*result = entry->group;
		return true;
	}
	if (!mq_read_group_by_number(&extension, group_no, result))
		return false;
	remember_group(result);
	return true;
}

/* Window and chain stay as the caller had them. When it returns false they may be lost, and the rest be half new. */
bool
mq_group_refresh(MqGroup *group, bool past_cache)
{
	MqWindow   *window = group->window;
	MqChain    *chain = group->queue.chain;

	if (!mq_queue_is_current(&group->queue))
		return false;
	if (past_cache ? !mq_read_group_by_number(&extension, group->group_no, group) : !mq_group_by_number(group->group_no, group))
		return false;
	group->window = window;
	group->queue.chain = chain;
	return true;
}

bool
mq_queue_keeps_table(const MqQueue *queue)
{
	return mq_table_of(&extension, NameStr(queue->name)) == queue->table;
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

/* False also where the relation is gone; *missing says so. */
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

	return has_acl(queue->rights, modes, &missing);
}

/* Who may manage a queue may consume its dead letters. */
static bool
may_manage_dead_letters(const MqQueue *queue)
{
	return queue->dead_letter_of != 0 && mq_has_right(queue, MQ_RIGHT_MANAGE);
}

bool
mq_may_consume(const MqGroup *group)
{
	bool		missing;

	return has_acl(group->rights, MQ_RIGHT_CONSUME, &missing) || may_manage_dead_letters(&group->queue);
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

	if (has_acl(queue->rights, mode, &missing))
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

/* Says the same whether there is such a group or not (no_such_group). */
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

	if (has_acl(group->rights, MQ_RIGHT_CONSUME, &missing) || may_manage_dead_letters(&group->queue))
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
