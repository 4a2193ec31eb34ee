/*
 * admin.c: mq.create_queue, mq.alter_queue and mq.drop_queue.
 *
 * They are ordinary DDL in the caller's transaction, run as the extension's owner, to whom all of it belongs; the caller gets
 * privileges, with grant option: that is what the owner of a queue has. What they leave in shared memory when the transaction rolls
 * back is found and freed by the worker.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/definitions.h"
#include "base/dependents.h"
#include "base/owner.h"
#include "log/send_rate.h"
#include "log/dedup.h"
#include "log/schedule.h"
#include "log/segment.h"
#include "log/segment_table.h"
#include "offset/bounds.h"
#include "offset/rebuild.h"
#include "verbs/groups.h"
#include "verbs/options.h"
#include "verbs/shares.h"
#include "verbs/verbs.h"
#include "window/settle.h"
#include "window/transaction.h"
#include "window/walk.h"

#define SEGMENT_SIZE_DEFAULT	INT64CONST(1048576)	/* the default of the column, too */
#define SEGMENT_SIZE_MIN		INT64CONST(1024)
#define SEGMENT_SIZE_MAX		INT64CONST(1073741824)
#define SEGMENTS_AT_START		2

/* Columns of a queue's table, in the order of MqColumn (segment_table.h): rows are read and written by number. */
static const char *const message_columns =
"id bigint NOT NULL, enqueued_at timestamptz NOT NULL, headers jsonb, payload jsonb, body bytea, "
"sent_at timestamptz, due_at timestamptz, expires_at timestamptz, origin_id bigint, origin_queue integer, target_group integer, "
"target_epoch integer, priority integer, attempt integer, failures integer, reply_to uuid, key text, routing_key text, "
"dedup_id text, reason text, death jsonb";

/* The row of mq_internal.queue; 0: the name is taken (by a transaction that has committed). */
static int32
insert_queue_row(const char *name, int64 segment_size)
{
	int32		number = mq_next_number("queue_no", "queue", "queue_no", "i", 1);
	bool		inserted = mq_sql("INSERT INTO mq_internal.queue (queue_no, name, segment_size, system_identifier, database, extension, queue_table) "
								  "VALUES (%d, %s, " INT64_FORMAT ", " INT64_FORMAT ", %u, %u, 0) ON CONFLICT (name) DO NOTHING",
								  number, quote_literal_cstr(name), segment_size, (int64) GetSystemIdentifier(), MyDatabaseId,
								  mq_extension(false)->oid) > 0;

	return inserted ? number : 0;
}

/* Sequences have no table that they would go with: they are in another schema than the queue's. */
static void
drop_definition(int32 queue_no, MqDependentsBudget budget)
{
	List	   *groups;
	ListCell   *cell;

	mq_sql("DELETE FROM mq_internal.consumer_group WHERE queue_no = %d RETURNING group_no", queue_no);
	groups = mq_sql_int32_list();
	foreach(cell, groups)
		mq_group_drop_sequence(lfirst_int(cell), &budget);
	mq_drop_internal("SEQUENCE", psprintf("i_%d", queue_no), "the queue's sequence", &budget);
	mq_sql("DELETE FROM mq_internal.segment WHERE queue_no = %d", queue_no);
	mq_schedule_delete_all(queue_no);
	mq_dedup_dropped(queue_no);
	mq_sql("DELETE FROM mq_internal.queue WHERE queue_no = %d", queue_no);
}

/* Of a queue that is gone. table: of that one. */
static void
drop_dead_letters(int32 queue_no, const char *table)
{
	mq_sql("DROP TABLE IF EXISTS mq.%s CASCADE", quote_identifier(psprintf("%s%s", table, MQ_DEAD_LETTER_SUFFIX)));
	drop_definition(queue_no, MQ_ALL_DEPENDENTS);
}

/*
 * A queue whose table a superuser dropped as a table leaves its definition behind, and the queue of its dead letters: nobody has any right
 * on that one any more, and the next owner of the name gets none either.
 */
static void
drop_orphan(const char *name, const char *table)
{
	int32		queue_no;

	/* its dead letters may be all that is left */
	if (mq_sql("SELECT queue_no FROM mq_internal.queue d WHERE name = %s || '" MQ_DEAD_LETTER_SUFFIX "' AND NOT EXISTS "
			   "(SELECT FROM mq_internal.queue p WHERE p.queue_no = d.dead_letter_of)", quote_literal_cstr(name)) > 0)
		drop_dead_letters(mq_sql_int32(), table);
	if (mq_sql("SELECT queue_no FROM mq_internal.queue WHERE name = %s AND NOT EXISTS "
			   "(SELECT FROM pg_class WHERE relnamespace = 'mq'::regnamespace AND relname = %s)",
			   quote_literal_cstr(name), quote_literal_cstr(table)) == 0)
		return;
	queue_no = mq_sql_int32();
	if (mq_sql("SELECT queue_no FROM mq_internal.queue WHERE dead_letter_of = %d", queue_no) > 0)
		drop_dead_letters(mq_sql_int32(), table);
	drop_definition(queue_no, MQ_ALL_DEPENDENTS);
}

/*
 * A table of that name without a definition: from a dump without data. It is ours to use again if there is nothing in it;
 * views on it go on. Returns whether there is one.
 */
static bool
take_over_table(const char *table)
{
	MqDependentsBudget budget = MQ_ALL_DEPENDENTS;
	ListCell   *cell;

	/* anybody can have it locked: create_queue holds the lock on what the role may have */
	mq_limit_waits();
	if (mq_sql("SELECT FROM pg_class WHERE relnamespace = 'mq'::regnamespace AND relname = %s", quote_literal_cstr(table)) == 0)
		return false;
	if (mq_sql("SELECT FROM pg_class WHERE relnamespace = 'mq'::regnamespace AND relname = %s AND relkind = 'p' AND relowner = %u",
			   quote_literal_cstr(table), mq_extension(false)->owner) == 0 ||
		mq_sql("SELECT FROM mq.%s LIMIT 1", quote_identifier(table)) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table mq.%s is there without the definition of a queue, and it is not empty", quote_identifier(table)),
				 errdetail("It was probably restored from a dump without the data of schema mq_internal."),
				 errhint("Save what is in it, and have a superuser DROP TABLE mq.%s.", quote_identifier(table))));
	mq_reset_column_privileges(get_relname_relid(table, mq_extension(false)->schema));
	mq_sql("DROP TRIGGER IF EXISTS refuse_direct_write ON mq.%s", quote_identifier(table));
	mq_sql("DROP TRIGGER IF EXISTS refuse_direct_row ON mq.%s", quote_identifier(table));
	foreach(cell, find_inheritance_children(get_relname_relid(table, mq_extension(false)->schema), NoLock))
	{
		const char *name = get_rel_name(lfirst_oid(cell));

		if (name == NULL)
			continue;
		if (get_rel_namespace(lfirst_oid(cell)) != mq_extension(false)->internal)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table mq.%s has a partition \"%s\" that mq has not made", quote_identifier(table), name),
					 errhint("Have a superuser detach or drop it.")));
		mq_drop_internal("TABLE", name, "a partition that a restore left", &budget);
	}
	return true;
}

/* What "owner of a queue" means: the rights to send, browse and manage, with grant option, and to consume in its groups. */
static void
give_to_owner(const char *table, Oid owner)
{
	if (OidIsValid(owner) && owner != mq_extension(false)->owner)
		mq_sql("GRANT INSERT, SELECT, TRUNCATE ON TABLE mq.%s TO %s WITH GRANT OPTION", table,
			   quote_identifier(GetUserNameFromId(owner, false)));
}

/*
 * The queue's table with its guards, and the sequence of its ids, in a bracket of mq_sql_begin. name: of the table. Both belong to
 * the extension's owner; the owner of the queue gets privileges on the table.
 */
static void
create_tables(const char *name, int32 queue_no, int64 segment_size, Oid owner)
{
	const char *table = quote_identifier(name);
	Oid			schema = mq_extension(false)->schema;
	char		sequence[NAMEDATALEN];

	if (!take_over_table(name))
		mq_sql("CREATE TABLE mq.%s (%s) PARTITION BY RANGE (id)", table, message_columns);
	mq_reset_privileges(get_relname_relid(name, schema));
	give_to_owner(table, owner);
	snprintf(sequence, sizeof(sequence), "i_%d", queue_no);
	mq_sql("CREATE SEQUENCE mq_internal.%s INCREMENT " INT64_FORMAT, sequence, segment_size / 64);
	mq_reset_privileges(get_relname_relid(sequence, mq_extension(false)->internal));
	mq_sql("CREATE TRIGGER refuse_direct_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON mq.%s "
		   "FOR EACH STATEMENT EXECUTE FUNCTION mq_internal.refuse_direct_write()", table);
	/* partitions get a copy: what comes to them by way of another table, and in logical replication, fires no other kind */
	mq_sql("CREATE TRIGGER refuse_direct_row BEFORE INSERT OR UPDATE OR DELETE ON mq.%s "
		   "FOR EACH ROW EXECUTE FUNCTION mq_internal.refuse_direct_write()", table);
	mq_sql("ALTER TABLE mq.%s ENABLE ALWAYS TRIGGER refuse_direct_write, ENABLE ALWAYS TRIGGER refuse_direct_row", table);
	mq_sql("UPDATE mq_internal.queue SET queue_table = %u WHERE queue_no = %d", get_relname_relid(name, schema), queue_no);
}

static const char *const overflow_choices[] = {"reject", "drop_oldest", NULL};

/* Of create_queue and alter_queue. owner is no column, segment_size is rounded: they are taken out before the rest is written. */
static const MqOption options[] = {
	{"owner", MQ_OPTION_TEXT, .hint = "It is the name of a role.", .always = true},
	{"segment_size", MQ_OPTION_INTEGER, SEGMENT_SIZE_MIN, SEGMENT_SIZE_MAX, "It must be between 1024 and 1073741824 ids; the default is 1048576.",
	.at_create = true, .always = true},
	{"retention", MQ_OPTION_INTERVAL, 1, INT64CONST(36500) * USECS_PER_DAY, "It must be more than zero and at most 36500 days."},
	{"retention_bytes", MQ_OPTION_INTEGER, 0, PG_INT64_MAX, "It must be at least zero."},
	{"drop_unread", MQ_OPTION_BOOL, .hint = "With true, retention also drops what groups have not finished."},
	{"notify_interval", MQ_OPTION_INTERVAL, 10 * INT64CONST(1000), USECS_PER_DAY, "It must be between 10 ms and one day."},
	{"message_ttl", MQ_OPTION_NOT_YET},
	{"max_messages", MQ_OPTION_INTEGER, 1, MQ_MAX_MESSAGES_MAX, "It must be between 1 and 1000000000000; null: no bound."},
	{"max_bytes", MQ_OPTION_INTEGER, 1, MQ_MAX_BYTES_MAX, "It must be between 1 and 1125899906842624 (1 PiB); null: no bound."},
	{"overflow", MQ_OPTION_CHOICE, .hint = "It is \"reject\" or \"drop_oldest\".", .choices = overflow_choices},
	{"priorities", MQ_OPTION_NOT_YET},
	{"dedup_window", MQ_OPTION_INTERVAL, 1000, INT64CONST(36500) * USECS_PER_DAY, "It must be between 1 ms and 36500 days; null keeps the ids for ever."},
	{"default_priority", MQ_OPTION_NOT_YET}, {"ageing", MQ_OPTION_NOT_YET},
	{"closed", MQ_OPTION_BOOL, .hint = "With true, nothing can be sent to the queue."},
	{"expires_after", MQ_OPTION_INTERVAL, USECS_PER_SEC, MQ_INTERVAL_MAX_DAYS * USECS_PER_DAY, "It must be between one second and 365 days; null: never."},
	{"like", MQ_OPTION_NOT_YET},
	{"max_message_bytes", MQ_OPTION_INTEGER, 1, PG_INT32_MAX, "It must be between 1 and 2147483647; mq.max_message_size limits it too."},
	{"max_send_per_second", MQ_OPTION_INTEGER, 1, MQ_MAX_SEND_PER_SECOND, "It must be between 1 and 1000000; null: no limit."},
	{"check", MQ_OPTION_NOT_YET},
};

const MqOption *
mq_queue_options(int *count)
{
	*count = lengthof(options);
	return options;
}

/* Writes them; 22023 if they do not fit each other. */
static void
set_options(const MqQueue *queue, const char *set)
{
	MqSqlContext context;
	uint64		rows;
	bool		wrong_retention;
	bool		wrong_overflow;

	mq_sql_begin(&context);
	rows = mq_sql("UPDATE mq_internal.queue SET %s WHERE queue_no = %d", set, queue->queue_no);
	wrong_retention = mq_sql("SELECT FROM mq_internal.queue WHERE queue_no = %d AND drop_unread AND retention IS NULL AND retention_bytes IS NULL",
							 queue->queue_no) > 0;
	wrong_overflow = mq_sql("SELECT FROM mq_internal.queue WHERE queue_no = %d AND overflow = 'drop_oldest' AND max_messages IS NULL AND max_bytes IS NULL",
							queue->queue_no) > 0;
	mq_sql_end(&context);
	if (rows == 0)
		mq_queue_check_not_dropped(queue);
	if (wrong_overflow)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("overflow \"drop_oldest\" needs a bound"),
				 errhint("Set max_messages or max_bytes as well.")));
	if (wrong_retention)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("drop_unread needs a retention limit"),
				 errhint("Set retention or retention_bytes as well.")));
	mq_catalog_changed();
}

/*
 * False: there is one of that name. owner: InvalidOid for dead letters (of that queue, which set says), whose rights are those of the
 * other queue.
 */
static bool
create_queue(const char *name, int64 segment_size, Oid owner, const char *set, List *groups)
{
	MqSqlContext context;
	MqQueue		queue;
	char		table[NAMEDATALEN];
	int32		queue_no;
	ListCell   *cell;

	snprintf(table, sizeof(table), "q_%s", name);
	/* not within mq_sql_begin: there the caller would be the extension's owner, a superuser, whom nothing limits */
	if (OidIsValid(owner))
		mq_check_share(owner, 1, list_length(groups));
	mq_sql_begin(&context);
	drop_orphan(name, table);
	queue_no = insert_queue_row(name, segment_size);
	if (queue_no != 0)
	{
		create_tables(table, queue_no, segment_size, owner);
		mq_check_made(get_relname_relid(table, mq_extension(false)->schema), mq_row_descriptor());
	}
	mq_sql_end(&context);
	if (queue_no == 0)
		return false;

	mq_catalog_changed();
	mq_queue_by_name(name, &queue);
	if (set != NULL)
		set_options(&queue, set);
	mq_queue_by_name(name, &queue);
	foreach(cell, groups)
		mq_group_insert(&queue, lfirst(cell), 1);
	for (int64 segment = 0; segment < SEGMENTS_AT_START; segment++)
		mq_segment_create(&queue, 0, segment);
	mq_transaction_wants_worker(queue.db);
	return true;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp((const char *) lfirst(a), (const char *) lfirst(b));
}

/*
 * The argument `groups` as C strings, in the order given. 22023 for one that is too long, empty or given twice; 22004 for a null.
 */
static List *
group_names(FunctionCallInfo fcinfo)
{
	Datum	   *values;
	int			count = mq_array_arg(fcinfo, 1, "groups", TEXTOID, &values, NULL);
	List	   *names = NIL;
	List	   *sorted;

	for (int i = 0; i < count; i++)
	{
		names = lappend(names, TextDatumGetCString(values[i]));
		mq_check_name(llast(names), "group name");
		CHECK_FOR_INTERRUPTS();
	}
	sorted = list_copy(names);
	list_sort(sorted, compare_names);
	for (int i = 1; i < count; i++)
		if (strcmp(list_nth(sorted, i - 1), list_nth(sorted, i)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("group \"%s\" is given twice", (char *) list_nth(sorted, i)),
					 errhint("Give each group once.")));
	return names;
}

/* From one role to another; what others were given stays, but for what the former owner gave by GRANT himself. */
static void
hand_on(const MqQueue *queue, Oid from, Oid to)
{
	MqSqlContext context;
	char	   *table = pstrdup(quote_identifier(get_rel_name(queue->table)));
	int			count;
	MqGroup    *groups;

	/* those that were being created are there now, or it waited for them in vain */
	mq_catalog_catch_up();
	groups = mq_groups_of(queue, &count);
	mq_sql_begin(&context);
	mq_limit_waits();
	/* first, so that what the new owner has passed on stays */
	give_to_owner(table, to);
	if (from != mq_extension(false)->owner)
	{
		mq_sql("REVOKE ALL ON TABLE mq.%s FROM %s CASCADE", table, quote_identifier(GetUserNameFromId(from, false)));
		mq_forget_column_privileges(queue->table, from, ACL_ALL_RIGHTS_COLUMN);
	}
	for (int i = 0; i < count; i++)
		mq_group_hand_on(&groups[i], from, to);
	mq_sql_end(&context);
}

/* As ALTER ... OWNER TO: for the owner, who must be able to SET ROLE to the new one. */
static void
change_owner(const MqQueue *queue, const char *role)
{
	Oid			to = get_role_oid(role, false);
	Oid			from;
	int			groups;

	mq_check_owner(queue);
	if (queue->dead_letter_of != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" has no owner of its own", NameStr(queue->name)),
				 errhint("It has the dead letters of another queue: hand that one on.")));
	mq_lock_rights(queue, queue->table);
	/* it may have been handed on meanwhile */
	mq_check_owner(queue);
	from = mq_queue_owner(queue);
	MqCheckCanSetRole(GetUserId(), to);
	if (from == to)
		return;
	(void) mq_groups_of(queue, &groups);
	mq_check_share(to, 1, groups);
	hand_on(queue, from, to);
}

/* A segment_size as given: ids of a block and of a segment must fit each other. */
static int64
whole_blocks(const char *size)
{
	int64		ids = strtoi64(size, NULL, 10);

	return ids - ids % 64;
}

static char *
and_name(const char *names, const char *name)
{
	return names == NULL ? pstrdup(name) : psprintf("%s, %s", names, name);
}

static bool
has_all_groups(const MqQueue *queue, const List *groups)
{
	const ListCell *cell;
	MqGroup		group;

	foreach(cell, groups)
		if (!mq_group_find(queue, lfirst(cell), &group))
			return false;
	return true;
}

/* owner and segment_size are no options of the row that can be compared as they are. NULL: all are as wanted. */
static char *
settings_that_differ(const MqQueue *queue, List *settings, const List *groups)
{
	char	   *owner = mq_options_take(&settings, "owner");
	char	   *size = mq_options_take(&settings, "segment_size");
	char	   *names = mq_options_that_differ(settings, "queue", psprintf("queue_no = %d", queue->queue_no));

	if (size != NULL && whole_blocks(size) != queue->segment_size)
		names = and_name(names, "segment_size");
	if (owner != NULL && get_role_oid(owner, false) != mq_queue_owner(queue))
		names = and_name(names, "owner");
	if (!has_all_groups(queue, groups))
		names = and_name(names, "groups");
	return names;
}

/* Raises 42710; with accept there is a NOTICE instead, which says what differs to whoever has a right on the queue. */
static void
exists_already(const MqQueue *queue, List *settings, const List *groups, bool accept)
{
	char	   *names;

	if (!accept)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("queue \"%s\" already exists", NameStr(queue->name)),
				 errhint("Use if_not_exists => true to accept it.")));
	/* who has no right on it learns that the name is taken, no more */
	/* who may only send does not see groups elsewhere either */
	names = mq_has_right(queue, MQ_RIGHT_BROWSE | MQ_RIGHT_MANAGE) ? settings_that_differ(queue, settings, groups) : NULL;
	ereport(NOTICE,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("queue \"%s\" already exists, skipping", NameStr(queue->name)),
			 names != NULL ? errdetail("What differs: %s.", names) : 0));
}

/* Raises 42939: the names of queues with dead letters are made by mq alone, or somebody would get another one's. */
static void
check_not_reserved(const char *name)
{
	size_t		length = strlen(name);
	size_t		suffix = strlen(MQ_DEAD_LETTER_SUFFIX);

	if (length >= suffix && strcmp(name + length - suffix, MQ_DEAD_LETTER_SUFFIX) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("names that end in \"%s\" are reserved for dead letters", MQ_DEAD_LETTER_SUFFIX),
				 errhint("A queue for dead letters is made when there is the first one; choose another name.")));
}

/*
 * The right to make queues is EXECUTE on this function. The queue is the caller's; with the option owner it is then handed on, on
 * the same terms as by mq.alter_queue.
 */
MQ_FUNCTION(mq_create_queue);
Datum
mq_create_queue(PG_FUNCTION_ARGS)
{
	char	   *name = mq_text_arg(fcinfo, 0, "queue");
	char	   *owner;
	char	   *size;
	int64		segment_size;
	List	   *groups;
	List	   *settings;
	MqQueue		queue;

	mq_check_not_null(fcinfo, 1, "groups");
	mq_check_not_null(fcinfo, 3, "if_not_exists");
	mq_check_writable("mq.create_queue()");
	mq_catalog_catch_up();
	mq_check_name(name, "queue name");
	check_not_reserved(name);
	groups = group_names(fcinfo);
	settings = mq_options_arg(fcinfo, 2, options, lengthof(options), true);
	if (mq_queue_find(name, &queue))
	{
		exists_already(&queue, settings, groups, PG_GETARG_BOOL(3));
		PG_RETURN_VOID();
	}
	owner = mq_options_take(&settings, "owner");
	size = mq_options_take(&settings, "segment_size");
	segment_size = size == NULL ? SEGMENT_SIZE_DEFAULT : whole_blocks(size);
	if (!create_queue(name, segment_size, GetUserId(), mq_options_assignments(settings), groups))
	{
		/* made just now by somebody else */
		mq_queue_by_name(name, &queue);
		exists_already(&queue, settings, groups, PG_GETARG_BOOL(3));
	}
	else if (owner != NULL)
	{
		mq_queue_by_name(name, &queue);
		change_owner(&queue, owner);
	}
	PG_RETURN_VOID();
}

/* A queue like any other, but that what has failed there as well stays there, in its one group. Nothing if it is there already. */
MQ_FUNCTION(mq_create_dead_letter_queue);
Datum
mq_create_dead_letter_queue(PG_FUNCTION_ARGS)
{
	int32		queue_no = PG_GETARG_INT32(0);
	MqQueue		queue;
	MqQueue		existing;
	MqSqlContext context;
	char	   *name;

	/* who drops that queue is not waited for, and waits until this is done; then it drops this one too */
	if (!mq_queue_by_number(queue_no, &queue) || !ConditionalLockRelationOid(queue.table, AccessShareLock))
		PG_RETURN_VOID();
	AcceptInvalidationMessages();
	if (!mq_queue_by_number(queue_no, &queue))
		PG_RETURN_VOID();
	name = psprintf("%s%s", NameStr(queue.name), MQ_DEAD_LETTER_SUFFIX);
	if (mq_queue_find(name, &existing))
		PG_RETURN_VOID();
	/* it counts as the owner's */
	mq_check_share_of(mq_queue_owner(&queue), 1, 1);
	if (!create_queue(name, queue.segment_size, InvalidOid, psprintf("dead_letter_of = %d", queue_no), list_make1(pstrdup(MQ_DEFAULT_GROUP))))
		PG_RETURN_VOID();
	mq_queue_by_name(name, &existing);
	mq_sql_begin(&context);
	mq_sql("UPDATE mq_internal.consumer_group SET max_failures = NULL, dead_letter_queue = NULL WHERE queue_no = %d", existing.queue_no);
	mq_sql_end(&context);
	mq_catalog_changed();
	PG_RETURN_VOID();
}

/* Senders are locked out: what is unfinished now is all there will be. */
static bool
has_unfinished(const MqQueue *queue)
{
	int			count;
	MqGroup    *groups = mq_groups_of(queue, &count);

	for (int i = 0; i < count; i++)
		if (mq_group_has_unfinished(&groups[i]))
			return true;
	return false;
}

/* Waits for the senders that are open, so that it is known what they sent; nobody makes segments any more. */
static void
lock_out_senders(const MqQueue *queue)
{
	MqSegmentInfo *segments;
	int			count;

	/* the table before its partitions: the order of backends that drop (locking.md) */
	LockRelationOid(queue->table, AccessExclusiveLock);
	segments = mq_segment_list(queue, &count);
	for (int i = 0; i < count; i++)
		if (OidIsValid(segments[i].relid))
			LockRelationOid(segments[i].relid, AccessExclusiveLock);
	pfree(segments);
}

/* Partitions and sequences can be named by nobody; the table itself can, and without force it stays for who does. */
static void
forget_dependents(const MqQueue *queue, bool force, MqDependentsBudget budget)
{
	int			count;
	MqSegmentInfo *segments = mq_segment_list(queue, &count);
	MqGroup    *groups;

	for (int i = 0; i < count; i++)
		if (OidIsValid(segments[i].relid))
			(void) mq_forget_dependents(segments[i].relid, &budget);
	groups = mq_groups_of(queue, &count);
	for (int i = 0; i < count; i++)
		(void) mq_forget_dependents(groups[i].rights, &budget);
	(void) mq_forget_dependents(queue->sequence, &budget);
	if (force)
		(void) mq_forget_dependents(queue->table, &budget);
}

/* What depends on the table, somebody's own view or function, is locked with it. */
static void
drop_table(const char *table, bool force)
{
	mq_drop(psprintf("DROP TABLE mq.%s %s", table, force ? "CASCADE" : "RESTRICT"),
			"Somebody has a lock on what depends on the queue's table, a view say (pg_locks, pg_depend).",
			force ? "Raise max_locks_per_transaction, or have some go first: segments by mq.purge, a moment later; views and functions on the queue's table (pg_depend) by their owners."
			: "A great many things depend on the queue's table. Use force => true to drop them with the queue.",
			"Use force => true to drop them with the queue.");
}

/* The caller has checked the right to do so and has locked senders out. Receivers that wait are sent away at the commit. */
static void
drop_queue(const MqQueue *queue, bool force)
{
	MqSqlContext context;
	char	   *table = pstrdup(quote_identifier(get_rel_name(queue->table)));
	int			count;
	MqGroup    *groups = mq_groups_of(queue, &count);

	for (int i = 0; i < count; i++)
		mq_group_drops(&groups[i]);
	mq_sql_begin(&context);
	/* those that came since */
	forget_dependents(queue, force, MQ_DEPENDENTS_UNDER_LOCK);
	drop_table(table, force);
	drop_definition(queue->queue_no, MQ_DEPENDENTS_UNDER_LOCK);
	mq_sql_end(&context);
	mq_catalog_changed();
	/* it also clears up what is left in shared memory */
	mq_transaction_wants_worker(queue->db);
}

/* What depends on the tables is looked for before senders are locked out, for that may take long. */
static void
lock_to_drop(const MqQueue *queue, bool force)
{
	forget_dependents(queue, force, MQ_ALL_DEPENDENTS);
	mq_schedule_lock(queue, true);
	lock_out_senders(queue);
	mq_queue_check_not_dropped(queue);
}

/* Raises 55000 for what would be lost. */
static void
check_is_empty(const MqQueue *queue)
{
	const char *name = NameStr(queue->name);
	int64		scheduled = mq_schedule_count(queue->queue_no);

	if (scheduled > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" has %lld scheduled messages", name, (long long) scheduled),
				 errhint("Use force => true to drop it with them.")));
	if (has_unfinished(queue))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" has unfinished messages", name),
				 errhint("Use force => true to drop it with them.")));
}

/* Groups of other queues may send their dead letters there: 55000, or with force those stay where they die. */
static void
leave_dead_letters(const MqQueue *queue, bool force)
{
	MqSqlContext context;
	uint64		groups;

	mq_sql_begin(&context);
	mq_limit_waits();
	groups = force ? mq_sql("UPDATE mq_internal.consumer_group SET dead_letter_queue = NULL WHERE dead_letter_queue = %d", queue->queue_no)
		: mq_sql("SELECT FROM mq_internal.consumer_group WHERE dead_letter_queue = %d", queue->queue_no);
	mq_sql_end(&context);
	if (groups == 0)
		return;
	if (!force)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" is the dead-letter queue of %llu consumer groups", NameStr(queue->name), (unsigned long long) groups),
				 errhint("Change their option dead_letter_queue, or use force => true: then their dead messages stay where they are.")));
	ereport(WARNING,
			(errmsg("dead messages of %llu consumer groups stay where they are from now on", (unsigned long long) groups),
			 errdetail("Queue \"%s\" was their dead-letter queue.", NameStr(queue->name))));
}

/* The queue that was made for the dead letters of this one; false: there is none yet. */
static bool
find_own_dead_letters(const MqQueue *queue, MqQueue *dead)
{
	return mq_queue_find(psprintf("%s%s", NameStr(queue->name), MQ_DEAD_LETTER_SUFFIX), dead) && dead->dead_letter_of == queue->queue_no;
}

/* Its own dead letters go with it. */
MQ_FUNCTION(mq_drop_queue);
Datum
mq_drop_queue(PG_FUNCTION_ARGS)
{
	char	   *name = mq_text_arg(fcinfo, 0, "queue");
	bool		force;
	MqQueue		queue;
	MqQueue		dead;
	bool		has_dead;

	mq_check_not_null(fcinfo, 1, "force");
	force = PG_GETARG_BOOL(1);
	mq_check_writable("mq.drop_queue()");
	mq_queue_by_name(name, &queue);
	mq_check_owner(&queue);
	/* before senders are locked out: it may wait for somebody who alters a group */
	leave_dead_letters(&queue, force);
	lock_to_drop(&queue, force);
	/* the worker makes it no more: it needs a lock on the table */
	mq_catalog_catch_up();
	has_dead = find_own_dead_letters(&queue, &dead);
	if (has_dead)
		lock_to_drop(&dead, force);
	if (!force)
	{
		check_is_empty(&queue);
		if (has_dead)
			check_is_empty(&dead);
	}
	if (has_dead)
		drop_queue(&dead, force);
	drop_queue(&queue, force);
	PG_RETURN_VOID();
}

/* Options need the right manage; owner (change_owner) and expires_after are for the owner only. */
MQ_FUNCTION(mq_alter_queue);
Datum
mq_alter_queue(PG_FUNCTION_ARGS)
{
	MqQueue		queue;
	List	   *settings;
	char	   *owner;

	mq_check_writable("mq.alter_queue()");
	mq_catalog_catch_up();
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), &queue);
	mq_check_right(&queue, MQ_RIGHT_MANAGE);
	mq_check_not_null(fcinfo, 1, "options");
	settings = mq_options_arg(fcinfo, 1, options, lengthof(options), false);
	/* it lets the queue be dropped */
	if (mq_options_have(settings, "expires_after"))
		mq_check_owner(&queue);
	owner = mq_options_take(&settings, "owner");
	/* rights are locked before rows, as by create_group */
	if (owner != NULL)
		change_owner(&queue, owner);
	if (settings != NIL)
		set_options(&queue, mq_options_assignments(settings));
	mq_transaction_wants_worker(queue.db);
	PG_RETURN_VOID();
}

/* An error would stop all tables of the subscription, and the next try would meet the same row. */
static void
warn_of_replicated_row(Relation rel)
{
	static TimestampTz warned = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (now >= warned && now - warned < USECS_PER_MINUTE)
		return;
	warned = now;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("logical replication of rows into table \"%s\" is skipped", RelationGetRelationName(rel)),
			 errdetail("Messages come by mq.send and never change. This is said at most once a minute."),
			 errhint("Leave the schemas of mq out of the publication.")));
}

/*
 * The guard of a queue's table and its partitions. In a worker of logical replication rows are skipped, by a null from the row
 * trigger; TRUNCATE is refused there too.
 */
MQ_FUNCTION(mq_refuse_direct_write);
Datum
mq_refuse_direct_write(PG_FUNCTION_ARGS)
{
	const TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("mq_internal.refuse_direct_write() must be called as a trigger")));
	if (IsLogicalWorker() && !TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
			warn_of_replicated_row(trigger->tg_relation);
		return PointerGetDatum(NULL);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot write to table \"%s\" directly", RelationGetRelationName(trigger->tg_relation)),
			 errhint("Use mq.send to add messages, and mq.ack or mq.discard to finish them.")));
	return PointerGetDatum(NULL);
}
