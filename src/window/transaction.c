/*
 * transaction.c: what the running transaction received and acked, and how it is undone.
 *
 * Owns the undo list of this process and the transaction callbacks. Rollback (of a savepoint too) gives back what was
 * received and leases again what was acked; commit removes what was acked; PREPARE leaves the settling marks to be
 * decided by the xid's fate (the worker looks). The callbacks take window locks only, change shared memory in
 * place, and neither allocate nor throw: an error at that point would be a PANIC.
 *
 * A rollback counts as a failure of the messages received, unless it was none of the work's doing: a user's cancel, shutdown,
 * conflicts with other transactions, resources that are used up, an error of the commit itself. Which error it was is told
 * by the hooks of statement.c, so no setting of the log decides; how the session ended, if it did, by PostgreSQL's statistics.
 */
#include "postgres.h"

#include "window/transaction.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/elog.h"
#include "utils/memutils.h"

#include "base/stop_point.h"
#include "window/prepared.h"
#include "window/settle.h"
#include "window/take.h"
#include "window/wake.h"

/* RECEIVE, BORROW: leases to end. SETTLE: acks to take back. LEAVE: nacks and releases of what the transaction had popped. */
typedef enum UndoKind
{
	UNDO_RECEIVE,
	UNDO_BORROW,
	UNDO_SETTLE,
	UNDO_LEAVE
} UndoKind;

/* Ids from lo to hi. */
typedef struct Range
{
	int64		lo;
	int64		hi;
} Range;

/* What one call, or a part of it, has marked in one window. In TopTransactionContext. */
struct MqUndo
{
	MqUndo	   *older;
	UndoKind	kind;
	int			level;			/* nesting of the subtransaction that did it */
	MqWindowRef ref;
	uint64		token;			/* UNDO_RECEIVE, UNDO_BORROW */
	bool		failed;			/* UNDO_LEAVE: nacked, not released */
	const char *reason;			/* then; NULL: none was given */
	int			count;			/* of ranges in use */
	int			room;
	Range	   *ranges;			/* what was marked; between them may be any number of others' messages */
	Range		first;			/* where ranges points as long as one is enough */
};

/* A seek, or the end of a group: takes effect at commit. */
typedef struct Replacement
{
	struct Replacement *older;
	int			level;			/* as in MqUndo */
	MqWindowRef ref;
	MqWindow   *content;		/* NULL: the group is dropped */
	int32		epoch;
	int64		oldest_needed;
} Replacement;

/* Another policy for a group: takes effect at commit. */
typedef struct RetryChange
{
	struct RetryChange *older;
	int			level;			/* as in MqUndo */
	MqWindowRef ref;
	MqRetryPolicy policy;
} RetryChange;

/* Queues that were sent to; also what was rolled back to a savepoint: waking too often does no harm. */
typedef struct Sent
{
	struct Sent *older;
	MqChain    *chain;
	MqDatabase *db;
	bool		changed;		/* its definition */
	int			level;			/* as in MqUndo, the deepest that has been admitted (bounds.c); 0: none has */
	bool		undone;			/* some of that was rolled back to a savepoint since it was asked */
} Sent;

/* What was put into the schedule of a queue, and taken out. */
typedef struct Scheduled
{
	struct Scheduled *older;
	int			level;			/* as in MqUndo */
	MqChain    *chain;
	MqDatabase *db;
	TimestampTz due;			/* of the first one */
	int64		count;			/* put in, less taken out */
	int64		told;			/* what of that others know already, who count (MqBounds.scheduling) */
} Scheduled;

/* Newest first, in TopTransactionContext; levels never increase along the lists. */
static MqUndo *undo_list = NULL;
static Replacement *replacements = NULL;
static RetryChange *retry_changes = NULL;
static Sent *sent_to = NULL;
static Scheduled *scheduled = NULL;
static MqDatabase *numbered_in = NULL;	/* where this transaction holds an n */
static MqDatabase *wants_worker = NULL;
static uint32 prepared_cell = 0;	/* taken before PREPARE, linked after it */
static int	last_error = 0;		/* SQLSTATE of the error that ends a statement; 0: none that is known */
static bool last_error_is_timeout = false;
static char last_message[MQ_REASON_MAX + 1];	/* of that error, as far as it is kept; empty: not known */
static bool committing = false; /* what fails now is the commit, not the work */

/* Covers nothing yet (mq_undo_widen). May raise out-of-memory, and has changed nothing then. */
static MqUndo *
push(UndoKind kind, const MqWindowRef *ref)
{
	MqUndo	   *undo = MemoryContextAlloc(TopTransactionContext, sizeof(MqUndo));

	undo->kind = kind;
	undo->level = GetCurrentTransactionNestLevel();
	undo->ref = *ref;
	undo->token = 0;
	undo->failed = false;
	undo->reason = NULL;
	undo->count = 0;
	undo->room = 1;
	undo->ranges = &undo->first;
	undo->older = undo_list;
	undo_list = undo;
	return undo;
}

MqUndo *
mq_undo_receive(const MqWindowRef *ref)
{
	return push(UNDO_RECEIVE, ref);
}

void
mq_undo_token(MqUndo *undo, uint64 token)
{
	undo->count = 0;
	undo->token = token;
}

void
mq_undo_room(MqUndo *undo, int ranges)
{
	Range	   *grown;
	int			room = 2 * (undo->count + ranges);	/* a hand-out may have any number of them */

	if (undo->count + ranges <= undo->room)
		return;
	grown = MemoryContextAllocHuge(TopTransactionContext, room * sizeof(Range));
	memcpy(grown, undo->ranges, undo->count * sizeof(Range));
	if (undo->ranges != &undo->first)
		pfree(undo->ranges);
	undo->ranges = grown;
	undo->room = room;
}

MqUndo *
mq_undo_borrow(const MqWindowRef *ref, uint64 token)
{
	MqUndo	   *undo = push(UNDO_BORROW, ref);

	undo->token = token;
	return undo;
}

void
mq_undo_widen(MqUndo *undo, int64 lo, int64 hi)
{
	Range	   *last = undo->count > 0 ? &undo->ranges[undo->count - 1] : NULL;

	Assert(undo->ranges != NULL);
	if (last != NULL && (undo->count == undo->room || last->hi + 1 == lo))
		*last = (Range) {Min(last->lo, lo), Max(last->hi, hi)};
	else
		undo->ranges[undo->count++] = (Range) {lo, hi};
}

MqUndo *
mq_undo_settle(const MqWindowRef *ref)
{
	return push(UNDO_SETTLE, ref);
}

MqUndo *
mq_undo_leave(const MqWindowRef *ref, const MqCause *cause)
{
	MqUndo	   *undo = push(UNDO_LEAVE, ref);

	undo->failed = cause != NULL;
	undo->reason = cause == NULL || cause->reason == NULL ? NULL : MemoryContextStrdup(TopTransactionContext, cause->reason);
	return undo;
}

/* The caller links it, once nothing can fail any more. */
static Replacement *
push_replacement(const MqWindowRef *ref)
{
	Replacement *r = MemoryContextAllocZero(TopTransactionContext, sizeof(Replacement));

	r->older = replacements;
	r->level = GetCurrentTransactionNestLevel();
	r->ref = *ref;
	return r;
}

MqWindow *
mq_transaction_replace(const MqWindowRef *ref, int32 epoch, int64 oldest_needed)
{
	Replacement *r = push_replacement(ref);

	r->content = MemoryContextAllocZero(TopTransactionContext, sizeof(MqWindow));
	r->epoch = epoch;
	r->oldest_needed = oldest_needed;
	replacements = r;
	return r->content;
}

int64
mq_transaction_replacing_cells(void)
{
	int64		cells = 0;

	for (const Replacement *r = replacements; r != NULL; r = r->older)
		cells += r->content == NULL ? 0 : r->content->nodes;
	return cells;
}

void
mq_transaction_drops(const MqWindowRef *ref)
{
	replacements = push_replacement(ref);
}

void
mq_transaction_changes_retry(const MqWindowRef *ref, const MqRetryPolicy *policy)
{
	RetryChange *change = MemoryContextAlloc(TopTransactionContext, sizeof(RetryChange));

	*change = (RetryChange) {retry_changes, GetCurrentTransactionNestLevel(), *ref, *policy};
	retry_changes = change;
}

/* The queue's entry, made if there is none. All memory that waking takes is taken here: may raise out-of-memory. */
static Sent *
remember_queue(const MqQueue *queue)
{
	Sent	   *sent = sent_to;

	while (sent != NULL && sent->chain != queue->chain)
		sent = sent->older;
	if (sent != NULL)
		return sent;
	mq_wake_prepare();
	sent = MemoryContextAlloc(TopTransactionContext, sizeof(Sent));
	*sent = (Sent) {sent_to, queue->chain, queue->db};
	return sent_to = sent;
}

void
mq_transaction_sent(const MqQueue *queue)
{
	(void) remember_queue(queue);
}

void
mq_transaction_admitted(const MqQueue *queue)
{
	Sent	   *sent = remember_queue(queue);

	sent->level = Max(sent->level, GetCurrentTransactionNestLevel());
}

bool
mq_transaction_took_back(const MqQueue *queue)
{
	for (Sent *sent = sent_to; sent != NULL; sent = sent->older)
		if (sent->chain == queue->chain && sent->undone)
		{
			sent->undone = false;
			return true;
		}
	return false;
}

void
mq_transaction_changed(const MqQueue *queue)
{
	remember_queue(queue)->changed = true;
}

/* Never throws. */
static void
tell_scheduling(Scheduled *s, int64 count)
{
	if (count != s->told)
		(void) pg_atomic_fetch_add_u64(&s->chain->bounds.scheduling, count - s->told);
	s->told = count;
}

/* The entry of the queue and the current level, made if there is none. May raise out-of-memory. */
static Scheduled *
scheduled_in(const MqQueue *queue)
{
	int			level = GetCurrentTransactionNestLevel();
	Scheduled  *s = scheduled;

	while (s != NULL && s->level == level && s->chain != queue->chain)
		s = s->older;
	if (s == NULL || s->level != level)
	{
		s = MemoryContextAlloc(TopTransactionContext, sizeof(Scheduled));
		*s = (Scheduled) {scheduled, level, queue->chain, queue->db, PG_INT64_MAX};
		scheduled = s;
	}
	return s;
}

/* What is put in counts at once for who asks how full the queue is, what is taken out when it is committed. */
void
mq_transaction_schedules(const MqQueue *queue, TimestampTz due, int64 count)
{
	Scheduled  *s = scheduled_in(queue);

	s->due = Min(s->due, due);
	s->count += count;
	tell_scheduling(s, Max(s->count, 0));
}

void
mq_transaction_moves(const MqQueue *queue, int64 count)
{
	Scheduled  *s = scheduled_in(queue);

	s->count -= count;
	tell_scheduling(s, s->count);
}

int64
mq_transaction_scheduling(const MqQueue *queue)
{
	int64		told = 0;

	for (const Scheduled *s = scheduled; s != NULL; s = s->older)
		if (s->chain == queue->chain)
			told += s->told;
	return told;
}

uint64
mq_transaction_xid(void)
{
	return U64FromFullTransactionId(GetTopFullTransactionId());
}

/*
 * In one hold of the mutex, so that nobody gets a greater n before this one is published: for its table and, if it is the first
 * of the transaction, for the process.
 */
int64
mq_transaction_next_n(MqDatabase *db, int *table)
{
	int64		n;
	int64	   *first = &mq_first_n[MqMyProcNumber()];

	SpinLockAcquire(&db->mutex);
	n = ++db->counter;
	if (*first == 0)
		*first = n;
	*table = db->ring_current;
	db->max_n[*table] = Max(db->max_n[*table], n);
	SpinLockRelease(&db->mutex);
	numbered_in = db;
	return n;
}

void
mq_transaction_wants_worker(MqDatabase *db)
{
	wants_worker = db;
}

void
mq_transaction_goes_on(void)
{
	last_error = 0;
}

void
mq_transaction_failed(int sqlstate, bool is_timeout, const char *message)
{
	int			length = message == NULL ? 0 : pg_mbcliplen(message, (int) strlen(message), MQ_REASON_MAX);

	last_error = sqlstate;
	last_error_is_timeout = is_timeout;
	if (length > 0)
		memcpy(last_message, message, length);
	last_message[length] = '\0';
}

bool
mq_transaction_holds_messages(void)
{
	return undo_list != NULL;
}

/* The session ends with the transaction open: somebody ended it, or it lost its client or its time was over. */
static bool
session_was_ended(void)
{
	return pgStatSessionEndCause == DISCONNECT_KILLED || MyBackendType == B_BG_WORKER;
}

/* Whether the rollback says nothing about the message. */
static bool
is_innocent(void)
{
	if (proc_exit_inprogress)
		return session_was_ended();
	if (committing)
		return true;
	switch (ERRCODE_TO_CATEGORY(last_error))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
			return true;
		default:
			break;
	}
	switch (last_error)
	{
		case ERRCODE_QUERY_CANCELED:
			return !last_error_is_timeout;
		case ERRCODE_ADMIN_SHUTDOWN:
		case ERRCODE_CRASH_SHUTDOWN:
			return true;
		default:
			return false;
	}
}

/* Why the transaction is rolled back. */
static MqCause
cause_of_rollback(void)
{
	if (proc_exit_inprogress)
		return (MqCause) {MQ_FAILED_LOST};
	if (last_error == 0)
		return (MqCause) {MQ_FAILED_ROLLBACK};
	return (MqCause) {last_error_is_timeout ? MQ_FAILED_TIMEOUT : MQ_FAILED_ERROR, last_error, last_message[0] != '\0' ? last_message : NULL};
}

/* The transaction is the running one, so it is "mine": leases that it took go on here, and are ended by their own entries. */
static void
settled(const MqUndo *undo, FullTransactionId xid, bool committed)
{
	for (int i = 0; i < undo->count; i++)
		mq_window_settled(&undo->ref, undo->ranges[i].lo, undo->ranges[i].hi, U64FromFullTransactionId(xid), committed, true);
}

/* A nack of what was popped takes effect with the end of the transaction: so does its reason. */
static void
note_left(const MqUndo *undo, const Range *range)
{
	MqCause		cause = {MQ_FAILED_NACK,.reason = undo->reason};

	if (undo->failed)
		mq_failure_note_range(&undo->ref, range->lo, range->hi, &cause);
}

/* Never throws, never allocates: leases and acks that are undone are whole entries, so no cell is needed. */
static void
undo_one(const MqUndo *undo)
{
	/* an xid was assigned before the mark was made */
	FullTransactionId xid = GetTopFullTransactionIdIfAny();

	if (undo->kind == UNDO_SETTLE)
	{
		if (FullTransactionIdIsValid(xid))
			settled(undo, xid, false);
	}
	else if (undo->kind == UNDO_LEAVE)
	{
		for (int i = 0; i < undo->count; i++)
			if (!mq_window_unleave(&undo->ref, undo->ranges[i].lo, undo->ranges[i].hi, U64FromFullTransactionId(xid)))
				note_left(undo, &undo->ranges[i]);
	}
	else
	{
		MqOutcome	outcome = undo->kind == UNDO_BORROW ? MQ_GIVE_BACK : is_innocent() ? MQ_RELEASE : MQ_FAIL;
		MqCause		cause = cause_of_rollback();

		for (int i = 0; i < undo->count; i++)
			(void) mq_window_end_lease(&undo->ref, undo->ranges[i].lo, undo->ranges[i].hi, undo->token, outcome,
									   outcome == MQ_GIVE_BACK ? 0 : MQ_DUE_AFTER_PAUSE, &cause, NULL);
	}
}

/*
 * Newest first. That a message left its pop is undone last: if the pop is undone too, the nack holds, and it counts once.
 */
static void
undo_level(int level)
{
	for (MqUndo *undo = undo_list; undo != NULL && undo->level >= level; undo = undo->older)
		if (undo->kind != UNDO_LEAVE)
			undo_one(undo);
	for (; undo_list != NULL && undo_list->level >= level; undo_list = undo_list->older)
		if (undo_list->kind == UNDO_LEAVE)
			undo_one(undo_list);
}

/* From here on this process holds back neither checkpoints nor tables of the offset log. */
static void
forget_n(void)
{
	if (numbered_in == NULL)
		return;
	SpinLockAcquire(&numbered_in->mutex);
	mq_first_n[MqMyProcNumber()] = 0;
	SpinLockRelease(&numbered_in->mutex);
	numbered_in = NULL;
}

/* Of two seeks of one window the later one wins: it comes first, and the other one's epoch is too small then. */
static void
apply_replacements(void)
{
	for (Replacement *r = replacements; r != NULL; r = r->older)
	{
		if (r->content != NULL)
			mq_window_replace(&r->ref, r->content, r->epoch, r->oldest_needed);
		else
			mq_window_set_dropped(&r->ref);
	}
	replacements = NULL;
}

/* Of two changes of one group the later one counts: the list is turned round, and applied in the order they were made. */
static void
apply_retry_changes(void)
{
	RetryChange *oldest = NULL;
	RetryChange *next;

	for (RetryChange *c = retry_changes; c != NULL; c = next)
	{
		next = c->older;
		c->older = oldest;
		oldest = c;
	}
	for (const RetryChange *c = oldest; c != NULL; c = c->older)
		mq_window_set_retry(&c->ref, &c->policy);
	retry_changes = NULL;
}

/* Frees the content of seeks that are rolled back, for nobody else knows it. level: as in undo_level. */
static void
drop_replacements(int level)
{
	for (; replacements != NULL && replacements->level >= level; replacements = replacements->older)
		if (replacements->content != NULL)
			mq_window_clear(replacements->content);
}

/* To be called when others see the end of the transaction: who is woken looks at once. */
static void
wake_receivers(void)
{
	for (Sent *sent = sent_to; sent != NULL; sent = sent->older)
	{
		uint32		idle = MQ_NOTIFY_IDLE;

		if (sent->changed)
			mq_wake_queue_all(sent->chain);
		else
			mq_wake_queue(sent->chain);
		/* NOTIFY itself is the worker's: it would make senders wait for each other */
		if (pg_atomic_read_u32(&sent->chain->notify) == MQ_NOTIFY_IDLE &&
			pg_atomic_compare_exchange_u32(&sent->chain->notify, &idle, MQ_NOTIFY_PENDING))
			mq_worker_nudge(sent->db);
	}
}

/*
 * What was put in is in the schedule now; or what was taken out is back, which the worker may have passed over meanwhile. A slot that has
 * become another queue's costs that one a look, and a wrong count until the next start.
 */
static void
note_scheduled(int level, bool committed)
{
	for (; scheduled != NULL && scheduled->level >= level; scheduled = scheduled->older)
	{
		if (committed)
			pg_atomic_fetch_add_u64(&scheduled->chain->scheduled, scheduled->count);
		tell_scheduling(scheduled, 0);
		if (scheduled->due != PG_INT64_MAX)
			mq_note_due(scheduled->db, scheduled->chain, scheduled->due);
	}
}

/*
 * COMMIT PREPARED and ROLLBACK PREPARED run no callback: the worker looks when it is due, and counts when it is decided. Until then it is
 * taken for committed by who asks how full the queue is.
 */
static void
note_prepared_schedule(void)
{
	for (const Scheduled *s = scheduled; s != NULL; s = s->older)
		pg_atomic_write_u32(&s->chain->scheduled_known, 0);
	note_scheduled(0, true);
}

/*
 * Leases go on at the end of the transaction that took them, but for those that only it kept from ending. Others see that this
 * process has no transaction any more before it reads `overdue`: put_off (lease.c) writes and looks in the other order.
 */
static inline void
keep_lease(const MqUndo *undo)
{
	if (undo->kind == UNDO_RECEIVE && undo->ref.window->overdue)
		for (int i = 0; i < undo->count; i++)
			mq_window_end_overdue(&undo->ref, undo->ranges[i].lo, undo->ranges[i].hi, undo->token);
}

/* The memory of the lists goes with TopTransactionContext. */
static void
reset(void)
{
	undo_list = NULL;
	retry_changes = NULL;
	sent_to = NULL;
	scheduled = NULL;
	wants_worker = NULL;
	last_error = 0;
	committing = false;
}

static void
note_all_left(const MqUndo *undo)
{
	for (int i = 0; i < undo->count; i++)
		note_left(undo, &undo->ranges[i]);
}

/* The commit record is written, and others see the rows. Never throws: that would be a PANIC. */
static void
at_commit(void)
{
	FullTransactionId xid = GetTopFullTransactionIdIfAny();

	if (numbered_in != NULL)
		MQ_STOP_POINT("commit_recorded");
	/* before keep_lease reads `overdue`: see put_off (lease.c) */
	pg_memory_barrier();
	for (MqUndo *undo = undo_list; undo != NULL; undo = undo->older)
		if (undo->kind == UNDO_SETTLE)
			settled(undo, xid, true);
		else if (undo->kind == UNDO_LEAVE)
			note_all_left(undo);
		else
			keep_lease(undo);
	apply_replacements();
	if (retry_changes != NULL)
		apply_retry_changes();
	wake_receivers();
	if (scheduled != NULL)
		note_scheduled(0, true);
	if (wants_worker != NULL)
		mq_worker_wake(wants_worker);
	/* only now: as long as a settling mark may be seen, its n must be (checkpoint.c) */
	forget_n();
	reset();
}

/* Never throws. Also after a PREPARE that failed, which may have taken its cell. */
static void
at_abort(void)
{
	/* if it was waiting, it may have been woken and not have looked */
	mq_wait_leave(MQ_PASS_ON);
	undo_level(0);
	drop_replacements(0);
	note_scheduled(0, false);
	forget_n();
	if (prepared_cell != 0)
		mq_cell_free(prepared_cell);
	prepared_cell = 0;
	reset();
}

/* May still fail: take the memory that remembers the n of a prepared transaction. */
static void
before_prepare(void)
{
	MqCellList	cells;

	committing = true;
	/* COMMIT PREPARED runs no callback that could do it. (That a group is gone is seen by the worker, a second later.) */
	for (Replacement *r = replacements; r != NULL; r = r->older)
		if (r->content != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has called mq.seek or mq.purge"),
					 errhint("Commit it in one phase.")));
	if (numbered_in == NULL || prepared_cell != 0)
		return;
	mq_need_cells(&cells, 1, true);
	prepared_cell = mq_cell_take(&cells);
}

/* The transaction has left this process. Never throws. What it acked stays SETTLING; the worker settles it once it is decided. */
static void
at_prepare(void)
{
	if (numbered_in != NULL && prepared_cell != 0)
	{
		MqPrepared *prepared = MqPreparedAt(prepared_cell);

		prepared->xid = U64FromFullTransactionId(GetTopFullTransactionIdIfAny());
		prepared->first_n = mq_first_n[MqMyProcNumber()];
		/* before forget_n: at every moment one of the two says that the n is undecided */
		mq_prepared_add(numbered_in, prepared_cell);
		prepared_cell = 0;
	}
	MQ_STOP_POINT("prepared");
	pg_memory_barrier();
	for (MqUndo *undo = undo_list; undo != NULL; undo = undo->older)
		keep_lease(undo);
	/* they see that there is something undecided, and the worker sees when it is decided */
	wake_receivers();
	note_prepared_schedule();
	replacements = NULL;
	forget_n();
	reset();
}

/* What a savepoint has scheduled is the business of the level around it, of which there is one entry for each queue. */
static void
release_scheduled(int level)
{
	Scheduled  *released = scheduled;
	Scheduled  *others;
	Scheduled  *next;

	while (scheduled != NULL && scheduled->level >= level)
		scheduled = scheduled->older;
	others = scheduled;
	for (Scheduled *s = released; s != others; s = next)
	{
		Scheduled  *around = scheduled;

		next = s->older;
		while (around != NULL && around->level == level - 1 && around->chain != s->chain)
			around = around->older;
		if (around != NULL && around->level == level - 1)
		{
			around->due = Min(around->due, s->due);
			around->count += s->count;
			around->told += s->told;
		}
		else
		{
			s->level = level - 1;
			s->older = scheduled;
			scheduled = s;
		}
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			committing = true;
			if (numbered_in != NULL)
				MQ_STOP_POINT("pre_commit");
			break;
		case XACT_EVENT_COMMIT:
			at_commit();
			break;
		case XACT_EVENT_ABORT:
			at_abort();
			break;
		case XACT_EVENT_PRE_PREPARE:
			before_prepare();
			break;
		case XACT_EVENT_PREPARE:
			at_prepare();
			break;
		default:
			break;
	}
}

/* A savepoint is released, or rolled back to. */
static void
leave_sent(int level, bool undone)
{
	for (Sent *sent = sent_to; sent != NULL; sent = sent->older)
		if (sent->level >= level)
		{
			sent->level = level - 1;
			sent->undone |= undone;
		}
}

/* What a savepoint did belongs to the level around it when it is released, and is undone when it is rolled back. */
static void
subxact_callback(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (MqUndo *undo = undo_list; undo != NULL && undo->level >= level; undo = undo->older)
			undo->level = level - 1;
		for (Replacement *r = replacements; r != NULL && r->level >= level; r = r->older)
			r->level = level - 1;
		for (RetryChange *c = retry_changes; c != NULL && c->level >= level; c = c->older)
			c->level = level - 1;
		release_scheduled(level);
		leave_sent(level, false);
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		/* a wait that ended in an error, which the transaction survives */
		mq_wait_leave(MQ_PASS_ON);
		undo_level(level);
		drop_replacements(level);
		while (retry_changes != NULL && retry_changes->level >= level)
			retry_changes = retry_changes->older;
		note_scheduled(level, false);
		leave_sent(level, true);
	}
}

void
mq_transaction_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
