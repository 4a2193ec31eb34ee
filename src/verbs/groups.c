/*
 * groups.c: mq.create_group, alter_group, drop_group, seek, count_from, purge, pause and resume.
 *
 * Definitions change in the caller's transaction, run as the extension's owner; other sessions see them from the commit
 * on. A seek is a new epoch of the group: its definition and its first checkpoint are written at once, the window in
 * shared memory is replaced at the commit, and with it the receipts of the old one die. A crash in between loses
 * nothing: the window is made anew from what was committed.
 */
#include "postgres.h"

#include "verbs/groups.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/definitions.h"
#include "base/dependents.h"
#include "base/owner.h"
#include "base/stop_point.h"
#include "log/schedule.h"
#include "offset/checkpoint.h"
#include "offset/fill.h"
#include "offset/position.h"
#include "offset/rebuild.h"
#include "verbs/options.h"
#include "window/settle.h"
#include "verbs/shares.h"
#include "window/transaction.h"
#include "window/walk.h"

#define MQ_GROUP_NUMBER_MAX 0xFFFFFF	/* a receipt has 24 bits for it */

/* What create_group and alter_group take: columns of mq_internal.consumer_group. */
static const MqOption options[] = {
	{"max_in_flight", MQ_OPTION_INTEGER, 1, PG_INT32_MAX, "It must be at least 1; null: no limit."},
	{"max_in_flight_per_consumer", MQ_OPTION_INTEGER, 1, PG_INT32_MAX, "It must be at least 1; null: no limit."},
	{"visibility_timeout", MQ_OPTION_INTERVAL, 1, MQ_INTERVAL_MAX_DAYS * USECS_PER_DAY, "It must be more than zero and at most 365 days; null: the setting mq.visibility_timeout."},
	{"max_in_flight_per_key", MQ_OPTION_NOT_YET},
	{"retry_delays", MQ_OPTION_INTERVALS, 0, MQ_INTERVAL_MAX_DAYS * USECS_PER_DAY, "It must be an array of 1 to 32 intervals without months, like [\"0 s\", \"10 s\", \"5 min\"], each at most 365 days; null: messages that failed come back at once."},
	{"max_failures", MQ_OPTION_INTEGER, 1, 65535, "It must be between 1 and 65535; null: no message is dead for its failures."},
	{"dead_letter_queue", MQ_OPTION_TEXT, .hint = "It is the name of a queue; null: dead messages stay where they are.",
	.shown = "(SELECT d.name FROM mq_internal.queue d WHERE d.queue_no = t.dead_letter_queue)"},
	{"fuse_failures", MQ_OPTION_NOT_YET},
	{"max_per_second", MQ_OPTION_NUMBER, 1, INT64CONST(1000000000), "It must be between 0.001 and 1000000; null: no limit."},
	{"expires_after", MQ_OPTION_INTERVAL, USECS_PER_SEC, MQ_INTERVAL_MAX_DAYS * USECS_PER_DAY, "It must be between one second and 365 days; null: never."},
	{"max_lease", MQ_OPTION_INTERVAL, 1, MQ_INTERVAL_MAX_DAYS * USECS_PER_DAY, "It must be more than zero and at most 365 days; null: no limit."},
	{"on_expired", MQ_OPTION_NOT_YET}, {"ordered", MQ_OPTION_NOT_YET}, {"on_dead", MQ_OPTION_NOT_YET},
	{"topics", MQ_OPTION_NOT_YET}, {"filter", MQ_OPTION_NOT_YET}, {"exclusive", MQ_OPTION_NOT_YET},
	{"exclusive_timeout", MQ_OPTION_NOT_YET},
};

const MqOption *
mq_group_options(int *count)
{
	*count = lengthof(options);
	return options;
}

int32
mq_next_number(const char *sequence, const char *table, const char *column, const char *prefix, int64 above)
{
	int32		number;

	do
	{
		mq_sql("SELECT nextval('mq_internal.%s')::integer", sequence);
		number = mq_sql_int32();
		/* somebody has set it back */
		if (number < above)
			mq_sql("SELECT count(nextval('mq_internal.%s')) FROM generate_series(1, least(" INT64_FORMAT ", 100000))", sequence,
				   above - number - 1);
		CHECK_FOR_INTERRUPTS();
	} while (number < above ||
			 mq_sql("SELECT FROM mq_internal.%s WHERE %s = %d UNION ALL SELECT FROM pg_class "
					"WHERE relnamespace = 'mq_internal'::regnamespace AND relname = '%s_%d'", table, column, number, prefix, number) > 0);
	return number;
}

/*
 * Numbers are never used again: receipts and the offset log name groups by them. Before there is none left who makes groups is
 * told, and with them the log.
 */
static int32
next_group_number(const MqQueue *queue)
{
	static TimestampTz warned = 0;
	TimestampTz now = GetCurrentTimestamp();
	int32		number;

	if (mq_catalog_last_group() >= MQ_GROUP_NUMBER_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("all numbers of consumer groups of this database are used up"),
				 errhint("Make queues in another database; CREATE EXTENSION begins anew.")));
	/* one that has rows in the offset log would begin where they say */
	number = mq_next_number("group_no", "consumer_group", "group_no", "g", mq_database_last_group(queue->db, 0) + 1);
	(void) mq_database_last_group(queue->db, number);
	if (number > MQ_GROUP_NUMBER_MAX / 10 * 9 && !(now >= warned && now - warned < USECS_PER_MINUTE))
	{
		warned = now;
		ereport(WARNING,
				(errmsg("%d numbers for consumer groups of this database are left", MQ_GROUP_NUMBER_MAX - number),
				 errdetail("Each group that is made takes one for ever, also if that is rolled back."),
				 errhint("Find out who makes so many groups.")));
	}
	return number;
}

/* The right to consume in a group, for a role with grant option. */
static void
give_consume(int32 group_no, Oid role)
{
	if (role != mq_extension(false)->owner)
		mq_sql("GRANT USAGE ON SEQUENCE mq_internal.g_%d TO %s WITH GRANT OPTION", group_no,
			   quote_identifier(GetUserNameFromId(role, false)));
}

/* The sequence that carries the rights of a group. */
static void
create_rights(int32 group_no, Oid owner)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "g_%d", group_no);
	mq_sql("CREATE SEQUENCE mq_internal.%s", name);
	mq_reset_privileges(get_relname_relid(name, mq_extension(false)->internal));
	give_consume(group_no, owner);
	/* no names: everybody can read comments */
	mq_sql("COMMENT ON SEQUENCE mq_internal.%s IS 'USAGE is the right to consume in a group: see mq.groups.'", name);
}

void
mq_group_hand_on(const MqGroup *group, Oid from, Oid to)
{
	give_consume(group->group_no, to);
	if (from != mq_extension(false)->owner)
		mq_sql("REVOKE ALL ON SEQUENCE mq_internal.g_%d FROM %s CASCADE", group->group_no,
			   quote_identifier(GetUserNameFromId(from, false)));
}

/* 0: there is one of that name. */
int32
mq_group_insert(const MqQueue *queue, const char *name, int64 start_id)
{
	MqSqlContext context;
	int32		group_no;
	bool		inserted;

	mq_attach_database(queue->db);
	/* who is about to hand the queue on hands on the groups that there are; before the row, for which others may wait */
	mq_lock_rights(queue, queue->table);
	mq_sql_begin(&context);
	group_no = next_group_number(queue);
	inserted = mq_sql("INSERT INTO mq_internal.consumer_group (group_no, queue_no, name, start_id) "
					  "VALUES (%d, %d, %s, " INT64_FORMAT ") ON CONFLICT (queue_no, name) DO NOTHING",
					  group_no, queue->queue_no, quote_literal_cstr(name), start_id) > 0;
	if (inserted)
		create_rights(group_no, queue->dead_letter_of != 0 ? mq_extension(false)->owner : mq_queue_owner(queue));
	mq_sql_end(&context);
	mq_catalog_changed();
	return inserted ? group_no : 0;
}

/* ---- where to begin ---- */

/* Raises 22023. */
static void
wrong_start(const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 errhint("%s", hint)));
}

static void
named_start(FunctionCallInfo fcinfo, int arg, MqStart *start)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(arg));

	if (strcmp(name, "earliest") == 0)
		start->kind = MQ_START_EARLIEST;
	else if (strcmp(name, "latest") == 0)
		start->kind = MQ_START_LATEST;
	else
		wrong_start(psprintf("\"%s\" is no place to start", name), "start is 'earliest' or 'latest'.");
}

static void
time_start(TimestampTz time, MqStart *start)
{
	if (TIMESTAMP_NOT_FINITE(time) || time > GetCurrentTimestamp())
		wrong_start("start_time is out of range", "It must be a time in the past.");
	*start = (MqStart) {MQ_START_TIME, 0, time};
}

/* The arguments start, start_id and start_time from `first` on, of which at most one is given; false: none. */
static bool
start_args(FunctionCallInfo fcinfo, int first, MqStart *start)
{
	int			given = !PG_ARGISNULL(first) + !PG_ARGISNULL(first + 1) + !PG_ARGISNULL(first + 2);

	*start = (MqStart) {MQ_START_LATEST};
	if (given > 1)
		wrong_start("start, start_id and start_time exclude each other", "Give one of them.");
	if (!PG_ARGISNULL(first))
		named_start(fcinfo, first, start);
	if (!PG_ARGISNULL(first + 1))
		*start = (MqStart) {MQ_START_ID, PG_GETARG_INT64(first + 1)};
	if (!PG_ARGISNULL(first + 2))
		time_start(PG_GETARG_TIMESTAMPTZ(first + 2), start);
	return given > 0;
}

/*
 * A position that is more than a number goes to the offset log, as the first checkpoint of its epoch. Returns the n from
 * which on rows are needed; 0: nothing was written.
 */
static int64
write_position(const MqGroup *group, int32 epoch, const MqPosition *position)
{
	int64		replay_from = mq_oldest_undecided_n(group->queue.db);
	MqWritten	written;

	if (position->count == 1)
		return 0;
	written = mq_offset_log_checkpoint(group, 0, epoch, position->parts[0].lo,
									   position->parts[position->count - 1].lo, replay_from, position->parts,
									   position->count - 1);
	return Min(replay_from, written.n);
}

/* ---- definitions ---- */

/* A change of one definition; 42704 if it was dropped meanwhile. */
static void
change(const MqQueue *queue, const char *sql)
{
	MqSqlContext context;
	uint64		rows;

	mq_sql_begin(&context);
	rows = mq_sql("%s", sql);
	mq_sql_end(&context);
	if (rows == 0)
	{
		mq_queue_check_not_dropped(queue);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the consumer group of queue \"%s\" was dropped", NameStr(queue->name)),
				 errhint("The view mq.groups lists the groups.")));
	}
	mq_catalog_changed();
}

/* The queue that argument 0 names, for someone who may manage it. */
static void
managed_queue(FunctionCallInfo fcinfo, const char *function, MqQueue *queue)
{
	mq_check_writable(function);
	mq_catalog_catch_up();
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), queue);
	mq_check_right(queue, MQ_RIGHT_MANAGE);
}

/* Against a drop, to the end of the transaction. */
static void
lock_definition(const MqQueue *queue)
{
	MqSqlContext context;

	mq_sql_begin(&context);
	if (mq_sql("SELECT FROM mq_internal.queue WHERE queue_no = %d FOR KEY SHARE", queue->queue_no) == 0)
		mq_queue_dropped(queue);
	mq_sql_end(&context);
}

/*
 * The option dead_letter_queue is a name, its column a number: who makes a queue of that name later gets nothing. The worker moves
 * messages there, so the caller must be allowed to send to it (and the owner of the queue, whenever that is done).
 */
static void
resolve_dead_letters(const MqQueue *queue, List *settings)
{
	ListCell   *cell;

	foreach(cell, settings)
	{
		MqSetting  *setting = lfirst(cell);
		MqQueue		target;

		if (strcmp(setting->option->name, "dead_letter_queue") != 0 || setting->text == NULL)
			continue;
		mq_queue_by_name(setting->text, &target);
		/* other people's dead letters are not to be mixed with somebody else's */
		mq_check_right(&target, target.dead_letter_of != 0 ? MQ_RIGHT_MANAGE : MQ_RIGHT_SEND);
		if (target.queue_no == queue->queue_no)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("dead letters of queue \"%s\" cannot go to the queue itself", setting->text),
					 errhint("Name another queue, or leave the option out.")));
		lock_definition(&target);
		setting->sql = psprintf("%d", target.dead_letter_of == queue->queue_no ? MQ_DEAD_LETTERS_OWN : target.queue_no);
	}
}

/* Writes them; 22023 if they do not fit each other. */
static void
set_options(const MqQueue *queue, int32 group_no, const char *set)
{
	MqSqlContext context;
	bool		wrong;

	change(queue, psprintf("UPDATE mq_internal.consumer_group SET %s WHERE group_no = %d", set, group_no));
	mq_sql_begin(&context);
	wrong = mq_sql("SELECT FROM mq_internal.consumer_group WHERE group_no = %d AND visibility_timeout > max_lease", group_no) > 0;
	mq_sql_end(&context);
	if (wrong)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("visibility_timeout is longer than max_lease"),
				 errhint("Give both, so that they fit.")));
}

/* False: there is one of that name. Its window is filled at once: nobody else sees the group before the commit. */
static bool
create_group(MqQueue *queue, const char *name, const MqStart *start, const char *set)
{
	MqPosition	position;
	MqGroup		group;
	int32		group_no;
	int64		oldest_needed;

	/* who owns it, and who may manage it, is asked when nobody can change that any more */
	mq_lock_rights(queue, queue->table);
	mq_check_right(queue, MQ_RIGHT_MANAGE);
	mq_check_share(mq_queue_owner(queue), 0, 1);
	mq_attach_queue(queue);
	mq_position_find(queue, start, &position);
	mq_queue_check_not_dropped(queue);
	group_no = mq_group_insert(queue, name, position.parts[position.count - 1].lo);
	if (group_no == 0)
		return false;
	if (set != NULL)
		set_options(queue, group_no, set);
	(void) mq_group_by_number(group_no, &group);
	oldest_needed = write_position(&group, group.epoch, &position);
	mq_attach_new_group(&group, position.parts, position.count, oldest_needed);
	/* it may be the one that makes the queue full (bounds.c) */
	mq_transaction_changed(queue);
	mq_transaction_wants_worker(queue->db);
	return true;
}

/*
 * Raises 42710; with accept there is a NOTICE instead, which names the options that differ. Where the group began is not compared.
 */
static void
exists_already(const MqGroup *group, const List *settings, bool accept)
{
	char	   *names;

	if (!accept)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consumer group \"%s\" of queue \"%s\" already exists", NameStr(group->name), NameStr(group->queue.name)),
				 errhint("Use if_not_exists => true to accept it.")));
	names = mq_options_that_differ(settings, "consumer_group", psprintf("group_no = %d", group->group_no));
	ereport(NOTICE,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("consumer group \"%s\" of queue \"%s\" already exists, skipping", NameStr(group->name),
					NameStr(group->queue.name)),
			 names != NULL ? errdetail("What differs: %s.", names) : 0));
}

MQ_FUNCTION(mq_create_group);
Datum
mq_create_group(PG_FUNCTION_ARGS)
{
	MqQueue		queue;
	MqGroup		existing;
	MqStart		start;
	char	   *name;
	List	   *settings;

	managed_queue(fcinfo, "mq.create_group()", &queue);
	name = mq_text_arg(fcinfo, 1, "consumer_group");
	mq_check_name(name, "group name");
	mq_check_not_null(fcinfo, 6, "if_not_exists");
	(void) start_args(fcinfo, 2, &start);
	settings = mq_options_arg(fcinfo, 5, options, lengthof(options), true);
	resolve_dead_letters(&queue, settings);
	if (!mq_group_find(&queue, name, &existing))
	{
		if (create_group(&queue, name, &start, mq_options_assignments(settings)))
			PG_RETURN_VOID();
		/* made just now by somebody else */
		mq_group_by_name(NameStr(queue.name), name, &existing);
	}
	exists_already(&existing, settings, PG_GETARG_BOOL(6));
	PG_RETURN_VOID();
}

/* Its new definition says perhaps otherwise what becomes of messages that failed. */
static void
change_retry(const MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, false, NULL), key};
	MqRetryPolicy policy;

	/* a window that is made later reads the definition */
	if (ref.window == NULL || !mq_read_retry_policy(group->group_no, &policy) || policy.hash == group->retry_hash)
		return;
	mq_transaction_changes_retry(&ref, &policy);
}

MQ_FUNCTION(mq_alter_group);
Datum
mq_alter_group(PG_FUNCTION_ARGS)
{
	MqQueue		queue;
	MqGroup		group;
	List	   *settings;

	managed_queue(fcinfo, "mq.alter_group()", &queue);
	mq_group_by_name(NameStr(queue.name), mq_text_arg(fcinfo, 1, "consumer_group"), &group);
	mq_check_not_null(fcinfo, 2, "options");
	settings = mq_options_arg(fcinfo, 2, options, lengthof(options), false);
	resolve_dead_letters(&queue, settings);
	if (settings != NIL)
		set_options(&queue, group.group_no, mq_options_assignments(settings));
	mq_attach_queue(&queue);
	change_retry(&group);
	mq_transaction_changed(&queue);
	PG_RETURN_VOID();
}

void
mq_group_drop_sequence(int32 group_no, MqDependentsBudget *budget)
{
	mq_drop_internal("SEQUENCE", psprintf("g_%d", group_no), "the group's sequence", budget);
}

static void
drop_sequence(const MqGroup *group)
{
	MqSqlContext context;
	MqDependentsBudget budget = MQ_DEPENDENTS_UNDER_LOCK;

	mq_sql_begin(&context);
	mq_group_drop_sequence(group->group_no, &budget);
	mq_sql_end(&context);
}

void
mq_group_drops(const MqGroup *group)
{
	MqWindowKey key = mq_window_key(group, 0);
	MqWindowRef ref = {mq_window_slot(&key, false, NULL), key};

	/* as long as there is no window nobody waits */
	if (ref.window != NULL)
		mq_transaction_drops(&ref);
}

bool
mq_group_has_unfinished(MqGroup *group)
{
	MqWindowRef ref;
	MqWindowCounts counts;

	if (!mq_attach_group_if_it_fits(group))
		return true;
	ref = (MqWindowRef) {group->window, mq_window_key(group, 0)};
	/* what senders sent that are decided by now */
	while ((mq_walk_settle(&ref) || ref.window->rewalk != 0) && mq_walk(group, &ref, PG_INT32_MAX))
		CHECK_FOR_INTERRUPTS();
	do
	{
		if (!mq_window_counts(&ref, &counts))
			return false;
		if (counts.ids[MQ_READY] + counts.ids[MQ_LEASED] + counts.ids[MQ_DEAD] + counts.pending > 0 ||
			mq_window_may_come_back(&ref, U64FromFullTransactionId(GetTopFullTransactionIdIfAny())))
			return true;
	} while (mq_walk(group, &ref, 1));
	return false;
}

/*
 * Without force 55000 if something is unfinished. What depends on the sequence is looked for before the row is locked, for that
 * may take long.
 */
MQ_FUNCTION(mq_drop_group);
Datum
mq_drop_group(PG_FUNCTION_ARGS)
{
	MqQueue		queue;
	MqGroup		group;
	MqDependentsBudget budget = MQ_ALL_DEPENDENTS;

	mq_check_not_null(fcinfo, 2, "force");
	managed_queue(fcinfo, "mq.drop_group()", &queue);
	mq_group_by_name(NameStr(queue.name), mq_text_arg(fcinfo, 1, "consumer_group"), &group);
	if (!PG_GETARG_BOOL(2) && mq_group_has_unfinished(&group))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("consumer group \"%s\" of queue \"%s\" has unfinished messages", NameStr(group.name), NameStr(queue.name)),
				 errhint("Use force => true to drop it all the same.")));
	(void) mq_forget_dependents(group.rights, &budget);
	mq_group_drops(&group);
	change(&queue, psprintf("DELETE FROM mq_internal.consumer_group WHERE group_no = %d", group.group_no));
	drop_sequence(&group);
	/* it also clears up what is left in shared memory */
	mq_transaction_wants_worker(queue.db);
	PG_RETURN_VOID();
}

/* ---- positions ---- */

/* The new epoch; 0: the group was dropped meanwhile. */
static int32
raise_epoch(int32 group_no, int64 start_id)
{
	MqSqlContext context;
	int32		epoch = 0;

	mq_sql_begin(&context);
	if (mq_sql("UPDATE mq_internal.consumer_group SET epoch = epoch + 1, start_id = " INT64_FORMAT " WHERE group_no = %d "
			   "RETURNING epoch", start_id, group_no) > 0)
		epoch = mq_sql_int32();
	mq_sql_end(&context);
	return epoch;
}

/*
 * Definition and first checkpoint are written now; the new content is made now too, and gets into the window at the commit. 53200
 * if there is no memory for it, 42704 if the group was dropped.
 */
static void
seek(MqGroup *group, const MqPosition *position)
{
	MqWindowRef ref;
	MqCellList	cells;
	MqWindow   *content;
	int32		epoch;
	int64		oldest_needed;
	int64		needed = mq_fill(NULL, position->parts, position->count, true, NULL);

	/* one that does not fit can be moved to where it does; but it needs a window */
	if (!mq_attach_group_if_it_fits(group) && group->window == NULL)
		mq_attach_group(group);
	ref = (MqWindowRef) {group->window, mq_window_key(group, 0)};
	mq_queue_check_not_dropped(&group->queue);
	epoch = raise_epoch(group->group_no, position->parts[position->count - 1].lo);
	if (epoch == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer group \"%s\" of queue \"%s\" was dropped", NameStr(group->name), NameStr(group->queue.name)),
				 errhint("The view mq.groups lists the groups.")));
	oldest_needed = write_position(group, epoch, position);
	content = mq_transaction_replace(&ref, epoch, oldest_needed);
	if (!mq_share_cells(&cells, needed, mq_transaction_replacing_cells()))
		mq_out_of_cells(needed);
	(void) mq_fill(content, position->parts, position->count, true, &cells);
	mq_cells_return(&cells);
	mq_catalog_changed();
	MQ_STOP_POINT("seek_written");
}

/*
 * The arguments of mq.seek and mq.count_from; the queue is attached. Needs the right to manage the queue, or to consume in the group.
 */
static void
place_of_group(FunctionCallInfo fcinfo, const char *function, MqGroup *group, MqStart *start)
{
	mq_group_by_name(mq_text_arg(fcinfo, 0, "queue"), mq_text_arg(fcinfo, 1, "consumer_group"), group);
	if (!mq_has_right(&group->queue, MQ_RIGHT_MANAGE))
		mq_check_consume(group);
	if (!start_args(fcinfo, 2, start))
		wrong_start(psprintf("%s needs a place to go to", function), "Give start, start_id or start_time.");
	mq_attach_queue(&group->queue);
}

MQ_FUNCTION(mq_seek);
Datum
mq_seek(PG_FUNCTION_ARGS)
{
	MqGroup		group;
	MqStart		start;
	MqPosition	position;

	mq_check_writable("mq.seek()");
	mq_catalog_catch_up();
	place_of_group(fcinfo, "mq.seek()", &group, &start);
	mq_position_find(&group.queue, &start, &position);
	seek(&group, &position);
	/* as a new group */
	mq_transaction_changed(&group.queue);
	mq_transaction_wants_worker(group.queue.db);
	PG_RETURN_VOID();
}

/* As mq.seek, of which it tells what it would do. Works in a read-only transaction, but not on a standby. */
MQ_FUNCTION(mq_count_from);
Datum
mq_count_from(PG_FUNCTION_ARGS)
{
	MqGroup		group;
	MqStart		start;
	int64		messages;
	bool		estimated;

	mq_require_preload();
	mq_check_primary("mq.count_from()");
	mq_catalog_catch_up();
	place_of_group(fcinfo, "mq.count_from()", &group, &start);
	messages = mq_position_count(&group.queue, &start, &estimated);
	if (estimated)
		ereport(NOTICE,
				(errmsg("the number of messages is an estimate"),
				 errdetail("From there on the log has %d pages or more. About as many were read, spread evenly.", MQ_COUNT_PAGES)));
	PG_RETURN_INT64(messages);
}

/* One position for all groups: what commits after it was found is delivered to each of them. */
MQ_FUNCTION(mq_purge);
Datum
mq_purge(PG_FUNCTION_ARGS)
{
	MqStart		start = {MQ_START_LATEST};
	MqPosition	position;
	MqQueue		queue;
	MqGroup		group;
	MqGroup    *groups = &group;
	int			count = 1;
	int64		scheduled;

	managed_queue(fcinfo, "mq.purge()", &queue);
	if (!PG_ARGISNULL(1))
		mq_group_by_name(NameStr(queue.name), mq_text_arg(fcinfo, 1, "consumer_group"), &group);
	mq_attach_queue(&queue);
	mq_position_find(&queue, &start, &position);
	if (PG_ARGISNULL(1))
		groups = mq_groups_of(&queue, &count);
	for (int i = 0; i < count; i++)
		seek(&groups[i], &position);
	mq_transaction_wants_worker(queue.db);
	scheduled = mq_schedule_size(&queue);
	if (scheduled > 0)
		ereport(NOTICE,
				(errmsg("%lld scheduled messages of queue \"%s\" stay in its schedule", (long long) scheduled, NameStr(queue.name)),
				 errhint("mq.cancel takes them out one by one.")));
	PG_RETURN_VOID();
}

/* ---- pause ---- */

/* Argument 1 null: the queue, else one group. These are two flags: resuming the queue does not resume a group. */
static void
set_paused(FunctionCallInfo fcinfo, const char *function, bool paused)
{
	MqQueue		queue;
	MqGroup		group;
	const char *value = paused ? "true" : "false";

	managed_queue(fcinfo, function, &queue);
	if (!PG_ARGISNULL(1))
		mq_group_by_name(NameStr(queue.name), mq_text_arg(fcinfo, 1, "consumer_group"), &group);
	if (PG_ARGISNULL(1))
		change(&queue, psprintf("UPDATE mq_internal.queue SET paused = %s WHERE queue_no = %d", value, queue.queue_no));
	else
		change(&queue, psprintf("UPDATE mq_internal.consumer_group SET paused = %s WHERE group_no = %d", value, group.group_no));
	/* who waits looks again, at the definition too */
	mq_attach_queue(&queue);
	mq_transaction_changed(&queue);
}

MQ_FUNCTION(mq_pause);
Datum
mq_pause(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, "mq.pause()", true);
	PG_RETURN_VOID();
}

MQ_FUNCTION(mq_resume);
Datum
mq_resume(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, "mq.resume()", false);
	PG_RETURN_VOID();
}
