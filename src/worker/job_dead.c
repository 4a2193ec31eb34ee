/*
 * job_dead.c: the worker moves dead messages to the queue for dead letters.
 *
 * A batch is read, finished for its group and appended to the other queue in one transaction: whatever happens, each of them is in one
 * place. What cannot be moved stays where it is, dead, and the log says why, once a minute at most.
 *
 * Owns, per group, when something was said last. That is lost with the process.
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/owner.h"
#include "base/stop_point.h"
#include "log/dead_letter.h"
#include "log/failure_log.h"
#include "log/fetch.h"
#include "log/log.h"
#include "offset/offset_log.h"
#include "offset/rebuild.h"
#include "window/settle.h"
#include "window/transaction.h"
#include "worker/jobs.h"
#include "worker/memo.h"
#include "worker/visit.h"

#define ROWS_PER_LOT	64		/* read at once: a message may be large */
#define ROWS_PER_BATCH	1024
#define BYTES_PER_BATCH	((Size) 4 * 1024 * 1024)
#define SLICE_US		(50 * MQ_MS)	/* of a queue, in one visit: then others have their turn */
#define FIRST_WARNING_US (3600 * MQ_S)
#define STUCK_WARNING_US (60 * MQ_S)
#define PAUSE_MAX_US	(30 * MQ_S)

typedef struct DeadMemo
{
	MqMemoHead	head;
	int64		told_at;		/* of mq_monotonic_us, as below; of the last dead letter that the log tells of; 0: none */
	int64		stuck_at;		/* when it was said last that they cannot be moved */
	int64		pause;			/* of tries, doubles while they are in vain; 0: the last one was not */
	int64		not_before;		/* the next one, */
	int32		dead_letters;	/* unless the option has changed since */
} DeadMemo;

static MqMemo memos = {"mq dead letters", sizeof(DeadMemo)};

/* One batch of a group. */
typedef struct Burial
{
	MqGroup    *group;
	MqWindowRef ref;
	MqQueue		target;
	MqFared    *dead;			/* the first ones, */
	int			ndead;
	char	  **reasons;		/* why they failed last, */
	int			at;				/* and how many of them were looked at */
	HeapTuple  *tuples;			/* for the target */
	int			count;
	Size		bytes;
	int64		after;			/* ids up to here were looked at */
	bool		more;			/* out: there may be more of them */
} Burial;

/* ---- where to ---- */

/* Says why the group's dead messages stay where they are. */
static void
say_stuck(const MqGroup *group, const char *why, const char *hint)
{
	DeadMemo   *memo = mq_memo(&memos, group->group_no);
	int64		now = mq_monotonic_us();

	if (memo->stuck_at != 0 && now - memo->stuck_at < STUCK_WARNING_US)
		return;
	memo->stuck_at = now;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("dead messages of consumer group \"%s\" of queue \"%s\" cannot be moved", NameStr(group->name), NameStr(group->queue.name)),
			 errdetail("%s This is said at most once a minute.", why),
			 errhint("%s", hint)));
}

/* Job: makes the queue for dead letters. */
static bool
create_own_target(void *arg)
{
	const MqGroup *group = arg;
	MqSqlContext context;

	mq_sql_begin(&context);
	mq_sql("SELECT mq_internal.create_dead_letter_queue(%d)", group->queue.queue_no);
	mq_sql_end(&context);
	return true;
}

/* *missing: it is to be made first. False: there is none. */
static bool
find_own_target(const MqGroup *group, MqQueue *target, bool *missing)
{
	*missing = !mq_queue_find(psprintf("%s%s", NameStr(group->queue.name), MQ_DEAD_LETTER_SUFFIX), target);
	if (*missing)
		return false;
	if (target->dead_letter_of == group->queue.queue_no)
		return true;
	say_stuck(group, "The queue that is to have them belongs to another one.", "Set the option dead_letter_queue of the group.");
	return false;
}

/* The owner of the queue must be allowed to send there, now: the worker itself may do anything. */
static bool
find_named_target(const MqGroup *group, MqQueue *target)
{
	Oid			owner = mq_queue_owner_if_there(&group->queue);

	if (!mq_queue_by_number(group->dead_letters, target))
		say_stuck(group, "Their dead-letter queue is gone.", "Set the option dead_letter_queue of the group.");
	else if (!OidIsValid(owner) || pg_class_aclcheck(target->rights, owner, MQ_RIGHT_SEND) != ACLCHECK_OK)
		say_stuck(group, psprintf("The owner of the queue may not send to \"%s\".", NameStr(target->name)), "Give the owner the right, or set another dead_letter_queue.");
	else
		return true;
	return false;
}

static bool
find_target(const MqGroup *group, MqQueue *target, bool *missing)
{
	*missing = false;
	return group->dead_letters == MQ_DEAD_LETTERS_OWN ? find_own_target(group, target, missing) : find_named_target(group, target);
}

/* ---- a batch ---- */

/* The segments that these messages are in, with their TOAST tables, to the end of the job; false: somebody has locked one. */
static bool
lock_sources(const MqQueue *queue, const MqFared *dead, int count)
{
	int64		locked = -1;

	for (int i = 0; i < count; i++)
	{
		int64		segment = mq_segment_of(dead[i].id, queue->segment_size);
		Relation	rel;
		bool		done;

		if (segment == locked)
			continue;
		rel = mq_segment_open_at_once(queue, 0, segment);
		if (rel == NULL && !mq_segment_is_gone(queue, 0, segment))
			return false;
		done = rel == NULL || mq_lock_table_conditionally(RelationGetRelid(rel), AccessShareLock);
		if (rel != NULL)
			relation_close(rel, NoLock);
		if (!done)
			return false;
		locked = segment;
	}
	return true;
}

/* A group's first dead letter in an hour. */
static void
tell(const MqGroup *group, const MqDeath *death, const MqQueue *target)
{
	DeadMemo   *memo = mq_memo(&memos, group->group_no);
	int64		now = mq_monotonic_us();

	if (memo->told_at != 0 && now - memo->told_at < FIRST_WARNING_US)
		return;
	memo->told_at = now;
	ereport(WARNING,
			(errmsg("message " INT64_FORMAT " of queue \"%s\" is dead for consumer group \"%s\"", death->id, NameStr(group->queue.name), NameStr(group->name)),
			 errdetail("It has failed %d times. Reason: %s", death->failures, death->reason == NULL ? "none was given." : death->reason),
			 errhint("It goes to queue \"%s\"; mq.redrive sends it back. Others of the group are told of in an hour.", NameStr(target->name))));
}

/* The row that the message becomes. */
static void
add_row(Burial *burial, HeapTuple tuple, const MqFared *fared, const char *reason)
{
	MqDeath		death = {fared->id, fared->attempts, fared->failures, reason, GetCurrentTimestamp()};
	Datum		v[MQ_COLUMNS];
	bool		n[MQ_COLUMNS];

	mq_log_values(tuple, v, n);
	tell(burial->group, &death, &burial->target);
	burial->tuples[burial->count] = mq_dead_letter_form(v, n, burial->group, &death);
	burial->bytes += burial->tuples[burial->count++]->t_len;
}

/* Finishes those of the messages that are dead still, in the transaction. Where a row is gone there is nothing to move, but to finish. */
static void
finish(Burial *burial, MqFared *dead, const MqFound *found, char **reasons, int count)
{
	int64		ids[ROWS_PER_LOT] = {0};
	MqRange		ranges[ROWS_PER_LOT];
	MqUndo	   *undo = mq_undo_settle(&burial->ref);
	uint64		xid = mq_transaction_xid();
	MqCellList	cells;
	int64		finished;
	int32		epoch = 0;
	int			nranges = 0;
	int			n = 0;

	for (int i = 0; i < count; i++)
		if (found[i].sight != MQ_TOO_NEW)
			ids[n++] = dead[i].id;
	if (n == 0)
		return;
	mq_undo_room(undo, n);
	mq_need_cells(&cells, 2 * (int64) n, true);
	finished = mq_window_discard(&burial->ref, ids, n, MQ_IN(MQ_DEAD), xid, &cells, ids, &epoch);
	for (int64 i = 0; i < finished; i++)
	{
		mq_undo_widen(undo, ids[i], ids[i]);
		if (nranges > 0 && ranges[nranges - 1].hi + 1 == ids[i])
			ranges[nranges - 1].hi = ids[i];
		else
			ranges[nranges++] = (MqRange) {ids[i], ids[i]};
	}
	/* at once: what comes may raise an error, and cells are no memory of the transaction's */
	mq_cells_return(&cells);
	if (finished <= 0)
		return;
	mq_offset_log_wrote(burial->ref.window, &burial->ref.key, mq_offset_log_ack(burial->group, 0, epoch, ranges, nranges));
	n = 0;
	for (int i = 0; i < count && n < finished; i++)
	{
		if (dead[i].id != ids[n])
			continue;
		n++;
		if (found[i].sight == MQ_SEEN)
			add_row(burial, found[i].tuple, &dead[i], reasons[i]);
	}
}

/* A message may be large, and is read whole when it is moved. One is, at least. */
static int
as_many_as_fit(const Burial *burial, const MqFound *found, int count)
{
	Size		bytes = burial->bytes;

	for (int i = 0; i < count; i++)
	{
		if (found[i].tuple != NULL)
			bytes += mq_log_size(found[i].tuple);
		if (i > 0 && bytes > BYTES_PER_BATCH)
			return i;
	}
	return count;
}

/* Some of the batch; false: a lock is in the way. */
static bool
bury_lot(Burial *burial)
{
	const MqQueue *queue = &burial->group->queue;
	MqFared    *dead = burial->dead + burial->at;
	int			count = Min(burial->ndead - burial->at, ROWS_PER_LOT);
	MqFound		found[ROWS_PER_LOT];
	int64		ids[ROWS_PER_LOT];
	Snapshot	snapshot;
	bool		done;

	if (!lock_sources(queue, dead, count))
		return false;
	for (int i = 0; i < count; i++)
		ids[i] = dead[i].id;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	done = mq_log_fetch(queue, ids, count, snapshot, false, found);
	UnregisterSnapshot(snapshot);
	if (!done)
		return false;
	count = as_many_as_fit(burial, found, count);
	burial->after = ids[count - 1];
	finish(burial, dead, found, burial->reasons + burial->at, count);
	burial->at += count;
	return true;
}

/* The first dead messages, and why they are. False: a lock is in the way. */
static bool
look_for_dead(Burial *burial)
{
	int64	   *ids = palloc(ROWS_PER_BATCH * sizeof(int64));

	for (int i = 0; i < MQ_FAILURE_TABLES; i++)
		if (!mq_job_lock(mq_failure_table(i), AccessShareLock))
			return false;
	burial->dead = palloc(ROWS_PER_BATCH * sizeof(MqFared));
	burial->ndead = mq_window_peek(&burial->ref, MQ_DEAD, burial->after, burial->dead, ROWS_PER_BATCH);
	burial->at = 0;
	for (int i = 0; i < burial->ndead; i++)
		ids[i] = burial->dead[i].id;
	burial->reasons = mq_failure_reasons(burial->group->group_no, ids, burial->ndead);
	burial->more = burial->ndead == ROWS_PER_BATCH;
	return true;
}

/* Job; false: a lock is in the way. What was marked before that is moved. */
static bool
bury(void *arg)
{
	Burial	   *burial = arg;
	int64	   *ids;
	bool		done = true;

	MemoryContextSwitchTo(CurTransactionContext);
	if (!mq_attach_queue_at_once(&burial->target) || !mq_job_lock_log(&burial->target, ROWS_PER_BATCH) || !look_for_dead(burial))
		return false;
	burial->tuples = palloc(ROWS_PER_BATCH * sizeof(HeapTuple));
	ids = palloc(ROWS_PER_BATCH * sizeof(int64));
	while (done && burial->at < burial->ndead && burial->bytes < BYTES_PER_BATCH)
		done = bury_lot(burial);
	burial->more |= burial->at < burial->ndead;
	MQ_STOP_POINT("dead_finished");
	if (burial->count > 0)
	{
		mq_transaction_sent(&burial->target);
		mq_log_append(&burial->target, 0, burial->tuples, burial->count, ids);
		MQ_STOP_POINT("dead_appended");
	}
	return done;
}

/* ---- all of a group ---- */

/* Job; false: it is to be made first. */
static bool
look_for_target(void *arg)
{
	Burial	   *burial = arg;
	bool		missing;

	burial->more = find_target(burial->group, &burial->target, &missing);
	if (missing && mq_chains_are_full())
	{
		say_stuck(burial->group, "There is no room for one more queue, for dead letters.", "Raise mq.max_queues and mq.max_groups and restart the server, or drop what is not needed.");
		return true;
	}
	return !missing;
}

/* Whether it is time to try: many groups may wait for a target that cannot have anything. */
static bool
is_time(const MqGroup *group)
{
	DeadMemo   *memo = mq_memo(&memos, group->group_no);

	if (memo->pause == 0 || memo->dead_letters != group->dead_letters || mq_monotonic_us() >= memo->not_before)
		return true;
	mq_visit_again(memo->not_before);
	return false;
}

static void
note_try(const MqGroup *group, bool in_vain)
{
	DeadMemo   *memo = mq_memo(&memos, group->group_no);

	memo->pause = in_vain ? Min(Max(2 * memo->pause, MQ_S), PAUSE_MAX_US) : 0;
	memo->not_before = mq_monotonic_us() + memo->pause;
	memo->dead_letters = group->dead_letters;
	if (in_vain)
		mq_visit_again(memo->not_before);
}

static void
leave_for_next_turn(void)
{
	mq_visit_again(0);
	mq_worker_wake(mq_worker_database);
}

void
mq_job_move_dead(MqGroup *group, int64 *until)
{
	MqWindowRef ref = {group->window, mq_window_key(group, 0)};
	Burial		burial = {group, ref};

	if (group->dead_letters == MQ_DEAD_LETTERS_NONE || (group->dead_letters == MQ_DEAD_LETTERS_OWN && group->queue.dead_letter_of != 0))
		return;
	if (!is_time(group))
		return;
	/* with their reasons */
	(void) mq_job_write_failures(true);
	if (*until == 0)
		*until = mq_monotonic_us() + SLICE_US;
	if (mq_monotonic_us() >= *until)
	{
		leave_for_next_turn();
		return;
	}
	if (!mq_job_run(look_for_target, &burial, MQ_JOB_FOR(group->group_no), "looking for the dead-letter queue") &&
		(!mq_job_run(create_own_target, group, MQ_JOB_FOR(group->group_no), "making a dead-letter queue") ||
		 !mq_job_run(look_for_target, &burial, MQ_JOB_FOR(group->group_no), "looking for the dead-letter queue")))
		return;
	note_try(group, !burial.more);
	while (burial.more && mq_monotonic_us() < *until)
	{
		burial.count = 0;
		burial.bytes = 0;
		if (!mq_job_run_without_flush(bury, &burial, MQ_JOB_FOR(group->group_no), "moving dead messages"))
			return;
		MQ_STOP_POINT("dead_committed");
	}
	if (burial.more)
		leave_for_next_turn();
}
