/*
 * worker.c: one per database that has the extension: its process, its turns, the ring, clearing up. How a job runs is in
 * job.c; the jobs on segments, on groups, on what is kept and of NOTIFY are in files of their own.
 *
 * States: ATTACHING (find the extension, claim the database's slot, build the windows) -> TURNING (one turn a second,
 * or when woken) -> ended (extension or slot gone, or told to). Each job runs in a transaction of its own; one that
 * fails is tried again ever more rarely (backoff.h), and the others go on. No job waits for a lock (D14): it takes locks
 * conditionally and leaves the work for the next turn. For segments that are missing the worker stands in line, when the other
 * work of the turn is done; that, and what waits in DDL all the same, has a part of each second together (job.c). Between turns
 * there is no transaction and no lock. A crash loses nothing but the clocks that say since when something is superfluous.
 */
#include "postgres.h"

#include "worker/worker.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"
#include "utils/snapmgr.h"

#include "base/clock.h"
#include "base/settings.h"
#include "base/stop_point.h"
#include "offset/rebuild.h"
#include "offset/ring.h"
#include "window/prepared.h"
#include "worker/jobs.h"
#include "worker/process.h"
#include "worker/visit.h"

#define TURN				(1 * MQ_S)

/* Times of mq_monotonic_us: the clock may be set. */
static int64 table_since[MQ_MAX_OFFSET_TABLES];
static int64 next_turn = 0;

static MqQueueList list;

/* ---- ring ---- */

/* Job; *arg: a table was made, which is taken into use after the commit. */
static bool
move_on(void *arg)
{
	*(bool *) arg = mq_ring_move_on(mq_worker_database);
	return true;
}

static bool
truncate_table(void *arg)
{
	return mq_ring_truncate(mq_worker_database, *(int *) arg);
}

/* The database's slot is told of a table after the commit that makes or empties it. One is emptied in each turn at most. */
static void
care_for_ring(const MqQueueList *all)
{
	int			table;
	bool		made = false;

	if (!all->may_make)
		return;
	if (mq_job_run(move_on, &made, MQ_JOB_FOR_ALL, "moving on in the offset log") && made)
		mq_ring_grown(mq_worker_database);
	/* the rows of a restored queue that nobody has used yet are known to no window */
	for (int i = 0; i < all->count; i++)
		if (!mq_job_is_ours(&all->items[i].queue))
			return;
	table = mq_ring_superfluous(mq_worker_database, table_since);
	if (table >= 0 && mq_job_run(truncate_table, &table, MQ_JOB_FOR_ALL, "truncating an offset log table"))
		mq_ring_emptied(mq_worker_database, table);
}

/* ---- clearing up ---- */

/* Slots of this database whose extension nobody can see any more. Keys are read without a lock. */
static void
forget_dead_extensions(void)
{
	for (int i = 0; i < MQ_MAX_DATABASES; i++)
	{
		MqDatabaseKey key = mq_databases[i].key;

		if (key.database == MyDatabaseId && !mq_extension_may_exist(key.extension))
			mq_forget_database(key.database, key.extension);
	}
}

static bool
is_mine(const MqDatabaseKey *key)
{
	return memcmp(key, &mq_worker_database->key, sizeof(MqDatabaseKey)) == 0;
}

/* Of the extension that is there, but not in the list: dropped, or of a transaction that is still open, or was rolled back. */
static bool
is_unknown_window(const MqWindowKey *key)
{
	return key->level >= 0 && is_mine(&key->db) && !mq_list_has_group(&list, key->group_no);
}

static bool
is_unknown_chain(const MqChainKey *key)
{
	return key->level >= 0 && is_mine(&key->db) && !mq_list_has_queue(&list, key->queue_no);
}

/* Slots of what is not in the list. Without a lock: what is missed is seen the next time. */
static bool
has_unknown_slots(void)
{
	for (int i = 0; i < MQ_MAX_DATABASES; i++)
		if (mq_databases[i].key.database == MyDatabaseId && !is_mine(&mq_databases[i].key))
			return true;
	for (int i = 0; i < mq_max_groups; i++)
		if (is_unknown_window(&mq_windows[i].key))
			return true;
	for (int i = 0; i < mq_max_queues; i++)
		if (is_unknown_chain(&mq_chains[i].key))
			return true;
	return false;
}

/* Queues that were dropped, or whose creation was rolled back, leave their slots behind; extensions too. */
static bool
clear_slots(void *arg)
{
	const MqExtension *ext = mq_extension(false);

	forget_dead_extensions();
	for (int i = 0; i < mq_max_groups; i++)
	{
		MqWindowKey key = mq_windows[i].key;

		if (is_unknown_window(&key) && !mq_catalog_may_exist(ext->group_rel, key.group_no))
			mq_window_forget(&key);
	}
	for (int i = 0; i < mq_max_queues; i++)
	{
		MqChainKey	key = mq_chains[i].key;

		if (is_unknown_chain(&key) && !mq_catalog_may_exist(ext->queue_rel, key.queue_no))
			mq_chain_forget(&key);
	}
	return true;
}

/* ---- turns ---- */

static bool
mark_log(void *arg)
{
	mq_offset_log_mark(mq_worker_database, *(bool *) arg);
	return true;
}

/* Says in the offset log that mq runs, so that a crash is known for one; or that it stops in order. */
static bool
mark_offset_log(bool stop)
{
	return mq_job_run(mark_log, &stop, MQ_JOB_FOR_ALL, stop ? "noting the stop" : "noting the start");
}

/* The slot of an extension that was dropped is freed, also by its own worker, and may be that of the next extension by now. */
static bool
has_slot(void)
{
	bool		mine;

	SpinLockAcquire(&mq_worker_database->mutex);
	mine = mq_worker_database->worker_pid == MyProcPid;
	SpinLockRelease(&mq_worker_database->mutex);
	return mine;
}

/* False: one could not be attached; the next turn tries again. */
static bool
attach_missing(void)
{
	bool		all = true;

	for (int i = 0; i < list.count; i++)
		all &= mq_attach_missing(mq_worker_database, list.items[i].groups, list.items[i].ngroups);
	return all;
}

/* Job that each turn begins with. Ends the process if the extension is gone, or the slot is its own no more. */
static bool
list_all(void *arg)
{
	static bool attached = false;	/* all windows that there have to be */
	const MqExtension *ext = mq_extension(true);

	if (ext == NULL || ext->oid != mq_worker_database->key.extension || !has_slot())
		proc_exit(0);
	mq_attach_database(mq_worker_database);
	mq_list_refresh(&list);
	if (attached && !list.fresh)
		return true;
	attached = false;
	attached = attach_missing();
	return true;
}

/* A job of its own, so that it is this one that fails when nothing can be made, and no other. */
static bool
check_owner(void *arg)
{
	mq_check_extension_owner();
	return true;
}

/* Whether there is room for what has to be known of the queue; it is not asked for in vain for each of many. */
static bool
has_room(const MqQueue *queue)
{
	return queue->chain != NULL || !mq_chains_are_full();
}

/* Job that fails as long as there are such queues: then it is logged as rarely as failures are (backoff.h). */
static bool
report_no_room(void *arg)
{
	int			left_out = *(int *) arg;

	if (left_out > 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d queues of this database cannot be used: there is room for %d in all databases", left_out, mq_max_queues),
				 errhint("Raise mq.max_queues and restart the server, or drop what is not needed.")));
	return true;
}

/* Segments, and groups before any goes. False: as mq_job_care_for_group. */
static bool
care_for_parts(MqQueueWork *work)
{
	bool		may = work->known && work->all->may_make;
	bool		settled = true;

	if (may)
		mq_job_care_for_order(work);
	if (may && mq_job_make_segments(work))
		mq_job_cut_segment(work);
	for (int i = 0; i < work->ngroups; i++)
		settled &= mq_job_care_for_group(&work->groups[i], work);
	if (work->known)
		mq_job_keep_bounds(work);
	if (may)
	{
		mq_job_clear_segments(work);
		mq_job_expire(work);
	}
	return settled;
}

/* False: as above. */
static bool
care_for_queue(MqQueueItem *item)
{
	MqQueue    *queue = &item->queue;
	MqQueueWork	work = {&list, queue, item->groups, item->ngroups};
	bool		settled;

	if (queue->replaced)
		return list.may_make && mq_job_take_over_table(item);
	work.known = has_room(queue) && mq_job_is_ours(queue) &&
		mq_job_run(mq_job_look_at_queue, &work, (MqJobFor) {0, queue->queue_no, mq_job_is_waited_for(queue)},
				   psprintf("looking at queue \"%s\"", NameStr(queue->name)));
	if (!list.may_make)
		mq_visit_again(0);
	settled = care_for_parts(&work);
	if (work.known && list.may_make && queue->foreign && queue->chain->adopt_wanted && mq_job_adopt_queue(queue))
	{
		queue->chain->adopt_wanted = false;
		/* a restore may have filled its schedule since somebody looked */
		pg_atomic_write_u32(&queue->chain->scheduled_known, 0);
		pg_atomic_write_u32(&queue->chain->scheduled_counted, 0);
		mq_lower_due(&queue->chain->next_due, 0);
		/* its segments are looked at */
		mq_worker_wake(mq_worker_database);
	}
	return settled;
}

/* Those that need it. False: as above. */
static bool
care_for_queues(void)
{
	int			left_out = 0;
	bool		settled = true;

	for (int i = 0; i < list.count; i++)
	{
		MqQueueItem *item = &list.items[i];

		/* what is left is for the next worker */
		if (ShutdownRequestPending)
			return false;
		if (mq_visit_is_due(item, &list))
		{
			mq_visit_begin();
			settled &= care_for_queue(item);
			mq_visit_end(item);
			mq_job_notify_visited(&item->queue);
			/* what is due does not wait for all the others */
			(void) mq_job_schedule(&list);
		}
		left_out += !has_room(&item->queue);
	}
	(void) mq_job_run(report_no_room, &left_out, MQ_JOB_FOR_ALL, "looking for room for all queues");
	return settled;
}

static void
last_checkpoint(MqQueueItem *item, MqGroup *group)
{
	MqQueueWork	work = {&list, &item->queue, item->groups, item->ngroups};
	MqWindowKey key = mq_window_key(group, 0);
	MqWindow   *window = mq_window_slot(&key, false, NULL);

	if (window == NULL || window->root == 0 || window->changes == window->checkpointed)
		return;
	group->window = window;
	mq_job_checkpoint(group, &work);
}

/*
 * Whether the server stops, and not this process alone: the postmaster writes it into its file before it tells its processes. If
 * in doubt it does not.
 */
static bool
server_stops(void)
{
	FILE	   *file = AllocateFile("postmaster.pid", "r");
	char		line[MAXPGPATH];
	int			lines = 0;

	while (file != NULL && lines < LOCK_FILE_LINE_PM_STATUS && fgets(line, sizeof(line), file) != NULL)
		lines++;
	if (file != NULL)
		(void) FreeFile(file);
	return lines == LOCK_FILE_LINE_PM_STATUS && strncmp(line, PM_STATUS_STOPPING, strlen(PM_STATUS_STOPPING)) == 0;
}

/* Before the process stops: a checkpoint of what changed, so that failure counts survive and a start is quick. */
static void
last_checkpoints(void)
{
	if (!mq_job_run(list_all, NULL, MQ_JOB_FOR_ALL_URGENT, "looking for queues"))
		return;
	for (int i = 0; i < list.count; i++)
		for (int j = 0; j < list.items[i].ngroups; j++)
		{
			mq_job_write_dropped(&list.items[i].groups[j], true);
			last_checkpoint(&list.items[i], &list.items[i].groups[j]);
		}
	/* others hand out messages while the server goes on: a crash after that is a crash */
	if (server_stops())
		(void) mark_offset_log(true);
}

/* The ring comes after the groups, for a checkpoint may make a table superfluous. */
static void
turn(void)
{
	static bool marked = false;
	MqDecided	prepared;

	/* asked first: what is decided by now is settled in every window below */
	prepared = mq_prepared_decided(mq_worker_database, mq_job_xid_is_open, mq_job_context);
	if (!mq_job_run(list_all, NULL, MQ_JOB_FOR_ALL_URGENT, "looking for queues"))
		return;
	list.may_make = mq_job_run(check_owner, NULL, MQ_JOB_FOR_ALL_URGENT, "looking at the extension's owner");
	if (!marked)
		marked = mark_offset_log(false);
	mq_job_order_begin();
	list.decided = prepared.count > 0;
	mq_job_segments_begin();
	list.blocked_by = mq_ring_blocked_by(mq_worker_database);
	if (list.fresh)
		mq_job_notify_plan(&list);
	list.fresh = false;
	mq_job_care_for_failures();
	if (care_for_queues())
		mq_prepared_forget(mq_worker_database, &prepared);
	if (ShutdownRequestPending)
		return;
	mq_job_make_missed_segments();
	mq_job_care_for_schedule(&list);
	mq_job_care_for_dedup(&list);
	care_for_ring(&list);
	if (has_unknown_slots())
		(void) mq_job_run(clear_slots, NULL, MQ_JOB_FOR_ALL, "clearing up");
	if (mq_job_order_is_unfinished())
		mq_worker_wake(mq_worker_database);
}

/* ---- process ---- */

/* At the end of the process, however it ends. A slot that is another worker's by now is left alone. */
static void
leave_slot(int code, Datum arg)
{
	if (mq_worker_database == NULL)
		return;
	SpinLockAcquire(&mq_worker_database->mutex);
	if (mq_worker_database->worker_pid == MyProcPid)
	{
		mq_worker_database->worker_pid = 0;
		mq_worker_database->worker_procno = -1;
		pg_atomic_write_u64(&mq_worker_database->sleeps_until, 0);
	}
	SpinLockRelease(&mq_worker_database->mutex);
}

/* False: there is no extension here, or another worker. */
static bool
claim_slot(void)
{
	const MqExtension *ext = mq_extension(true);
	bool		claimed;

	if (ext == NULL)
	{
		forget_dead_extensions();
		return false;
	}
	mq_worker_database = ext->db;
	SpinLockAcquire(&mq_worker_database->mutex);
	claimed = mq_worker_database->worker_pid == 0;
	if (claimed)
	{
		mq_worker_database->worker_pid = MyProcPid;
		mq_worker_database->worker_procno = MqMyProcNumber();
		mq_worker_database->worker_wanted = false;
	}
	SpinLockRelease(&mq_worker_database->mutex);
	if (!claimed)
		mq_worker_database = NULL;
	return claimed;
}

/* Ends the process if there is nothing to claim. What gives the slot back is registered before it is claimed. */
static void
attach(void)
{
	bool		claimed;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	before_shmem_exit(leave_slot, (Datum) 0);
	claimed = claim_slot();
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (!claimed)
		proc_exit(0);
}

/* Every second, or when somebody asks for one: then the latch was set for that, and not only to notify. */
static bool
is_time_for_turn(void)
{
	bool		wanted;

	SpinLockAcquire(&mq_worker_database->mutex);
	wanted = mq_worker_database->turn_wanted;
	mq_worker_database->turn_wanted = false;
	SpinLockRelease(&mq_worker_database->mutex);
	if (!wanted && mq_monotonic_us() < next_turn)
		return false;
	next_turn = mq_monotonic_us() + TURN;
	return true;
}

/*
 * The first request lets the turn end and the last checkpoints be written; a later one ends it at once. The postmaster sends each
 * request twice, to the process and to its group: what comes at the same time is one.
 */
static void
handle_sigterm(SIGNAL_ARGS)
{
	static int64 asked_at = 0;
	int64		now = mq_monotonic_us();

	if (!ShutdownRequestPending)
	{
		asked_at = now;
		SignalHandlerForShutdownRequest(postgres_signal_arg);
	}
	else if (now - asked_at >= MQ_S)
		die(postgres_signal_arg);
}

/* arg: oid of the database. If it ends nobody but the launcher starts another one. */
void
mq_worker_main(Datum arg)
{
	uint32		wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	mq_process_override_settings();
	mq_segment_waits = false;
	mq_job_init();
	mq_list_init();
	wait_event = MqWaitEventNew("MqWorkerMain");
	attach();
	for (;;)
	{
		int64		pause;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			/* limits may be others */
			mq_visit_touch_all();
		}
		if (is_time_for_turn())
			turn();
		pause = Min(Min(mq_job_notify(), mq_job_schedule(&list)), mq_job_write_failures(false));
		MemoryContextReset(mq_job_context);
		pgstat_report_activity(STATE_IDLE, NULL);
		/* a turn is the longest that it trusts the clock for what is due */
		pause = Max(Min(pause, next_turn - mq_monotonic_us()), 0);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, (long) ((pause + MQ_MS - 1) / MQ_MS), wait_event);
		ResetLatch(MyLatch);
		if (ShutdownRequestPending)
		{
			last_checkpoints();
			proc_exit(0);
		}
	}
}
