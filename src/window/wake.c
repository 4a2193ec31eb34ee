/*
 * wake.c: receivers that wait, and who wakes them. See wake.h.
 *
 * Owns MqWaiter and the waiting fields of MqWindow and MqChain. The spinlock wait_mutex of a queue's chain guards the
 * lines of all its groups (four each, by what the receivers in them can take), and is held for a few pointer changes; latches are set after it. Lock order: window lock, then
 * wait_mutex; a sender takes wait_mutex alone. A window's binding to its chain is made under the window lock, and
 * windows are forgotten before chains, so both locks of a listed process are the right ones. A crash loses the lines
 * together with the processes in them; a process that ends leaves the line in its abort callback.
 */
#include "postgres.h"

#include "window/wake.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"

/* Room for the processes that a wake-up of a whole queue takes out of its lines: each is in one line at most. */
static int *to_wake = NULL;

/* Where this process waits. */
static MqChain *my_chain = NULL;
static MqWindow *my_window = NULL;

/* Never throws. The process may have ended, or another one have its place: a latch that is set in vain does no harm. */
static void
set_latch(int procno)
{
	SetLatch(&ProcGlobal->allProcs[procno].procLatch);
}

/* ---- lines; the caller holds wait_mutex ---- */

/* Of the window and of its queue. Wakers read these without wait_mutex, so that they return at once when nobody waits. */
static void
count_waiters(MqChain *chain, MqWindow *window, int change)
{
	(void) pg_atomic_fetch_add_u32(&window->waiters, change);
	(void) pg_atomic_fetch_add_u32(&chain->waiters, change);
}

/* Into the list of the groups of the queue that have receivers in line: a sender wakes one receiver of each. */
static void
link_window(MqChain *chain, MqWindow *window)
{
	window->next_waiting = chain->first_waiting;
	chain->first_waiting = (int) (window - mq_windows);
}

/* Does nothing if it is not in the list. */
static void
unlink_window(MqChain *chain, MqWindow *window)
{
	int		   *link = &chain->first_waiting;

	while (*link >= 0 && *link != window - mq_windows)
		link = &mq_windows[*link].next_waiting;
	if (*link >= 0)
		*link = window->next_waiting;
	window->next_waiting = -1;
}

/* Whether it has to be in the list of its chain (link_window). */
static bool
has_waiters(const MqWindow *window)
{
	for (int i = 0; i < MQ_LINES; i++)
		if (window->lines[i].first >= 0)
			return true;
	return false;
}

/* The process must not be in line yet. Where there is no timekeeper it becomes that. */
static void
put_into_line(MqChain *chain, MqWindow *window, int procno, MqBlocked blocked, bool at_front)
{
	MqWaiter   *w = &mq_waiters[procno];
	MqLine	   *line = &window->lines[blocked];

	if (!has_waiters(window))
		link_window(chain, window);
	w->previous = at_front ? -1 : line->last;
	w->next = at_front ? line->first : -1;
	if (w->previous >= 0)
		mq_waiters[w->previous].next = procno;
	else
		line->first = procno;
	if (w->next >= 0)
		mq_waiters[w->next].previous = procno;
	else
		line->last = procno;
	w->listed = true;
	w->blocked = blocked;
	if (window->timekeeper < 0)
		window->timekeeper = procno;
	count_waiters(chain, window, 1);
}

/* The process must be in line. If it is the timekeeper it remains that until it leaves for good (mq_wait_leave). */
static void
take_out_of_line(MqChain *chain, MqWindow *window, int procno)
{
	MqWaiter   *w = &mq_waiters[procno];
	MqLine	   *line = &window->lines[w->blocked];

	if (w->previous >= 0)
		mq_waiters[w->previous].next = w->next;
	else
		line->first = w->next;
	if (w->next >= 0)
		mq_waiters[w->next].previous = w->previous;
	else
		line->last = w->previous;
	w->listed = false;
	w->blocked = MQ_NOT_BLOCKED;
	count_waiters(chain, window, -1);
	if (!has_waiters(window))
		unlink_window(chain, window);
}

/* Takes the first one that is blocked so out of the line, as woken; -1: nobody. */
static int
pop(MqChain *chain, MqWindow *window, MqBlocked blocked)
{
	int			procno = window->lines[blocked].first;

	if (procno < 0)
		return -1;
	take_out_of_line(chain, window, procno);
	mq_waiters[procno].woken = true;
	return procno;
}

/* Who can have a new message, else one who can say that there is one; -1: nobody. */
static int
pop_for_new(MqChain *chain, MqWindow *window)
{
	int			procno = pop(chain, window, MQ_NOT_BLOCKED);

	return procno >= 0 ? procno : pop(chain, window, MQ_BLOCKED_BY_STATEMENT);
}

/* ---- waking ---- */

/* Of each group the first one that a new message is for, or all. The latches are set without the spinlock. */
static void
wake_lines(MqChain *chain, bool all)
{
	int			count = 0;
	int			next;

	SpinLockAcquire(&chain->wait_mutex);
	for (int slot = chain->first_waiting; slot >= 0; slot = next)
	{
		MqWindow   *window = &mq_windows[slot];
		int			procno;

		/* the last one that is taken out takes the window out of the list */
		next = window->next_waiting;
		do
		{
			procno = pop_for_new(chain, window);
			if (procno < 0 && all)
				procno = pop(chain, window, MQ_BLOCKED_BY_LIMIT);
			if (procno < 0 && all)
				procno = pop(chain, window, MQ_BLOCKED_BY_SNAPSHOT);
			if (procno >= 0)
				to_wake[count++] = procno;
		} while (all && procno >= 0);
	}
	SpinLockRelease(&chain->wait_mutex);
	for (int i = 0; i < count; i++)
		set_latch(to_wake[i]);
}

void
mq_wake_prepare(void)
{
	if (to_wake == NULL)
		to_wake = MemoryContextAlloc(TopMemoryContext, mq_shared->nprocs * sizeof(int));
}

void
mq_wake_queue(MqChain *chain)
{
	/* the commit must be visible before this is read: a receiver gets into line first, and then looks */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&chain->waiters) > 0)
		wake_lines(chain, false);
}

void
mq_wake_queue_all(MqChain *chain)
{
	/* a full barrier too: a receiver gets into line first, and then reads it */
	(void) pg_atomic_fetch_add_u32(&chain->definition, 1);
	if (pg_atomic_read_u32(&chain->waiters) > 0)
		wake_lines(chain, true);
}

/* False: nobody of the group is blocked so. A slot that another queue has by now is left alone: the old receivers have gone. */
static bool
wake_one(MqWindow *window, MqBlocked blocked)
{
	MqChain    *chain;
	int			procno = -1;

	if (pg_atomic_read_u32(&window->waiters) == 0)
		return false;
	chain = &mq_chains[window->chain];
	SpinLockAcquire(&chain->wait_mutex);
	if (chain == &mq_chains[window->chain])
		procno = pop(chain, window, blocked);
	SpinLockRelease(&chain->wait_mutex);
	if (procno >= 0)
		set_latch(procno);
	return procno >= 0;
}

void
mq_wake_able(MqWindow *window)
{
	(void) wake_one(window, MQ_NOT_BLOCKED);
}

void
mq_wake_group(MqWindow *window)
{
	if (!wake_one(window, MQ_NOT_BLOCKED))
		(void) wake_one(window, MQ_BLOCKED_BY_STATEMENT);
}

/* No more than there are now: who looks again gets into line again. */
static void
wake_blocked(MqWindow *window, MqBlocked blocked)
{
	uint32		waiters = pg_atomic_read_u32(&window->waiters);

	for (uint32 i = 0; i < waiters && wake_one(window, blocked); i++)
		;
}

void
mq_wake_for_given_back(MqWindow *window)
{
	wake_blocked(window, MQ_BLOCKED_BY_LIMIT);
	mq_wake_able(window);
}

void
mq_wake_for_room(MqWindow *window)
{
	wake_blocked(window, MQ_BLOCKED_BY_SNAPSHOT);
	wake_blocked(window, MQ_BLOCKED_BY_LIMIT);
	mq_wake_group(window);
}

void
mq_wake_all(MqWindow *window)
{
	for (int i = 0; i < MQ_LINES; i++)
		while (wake_one(window, (MqBlocked) i))
			;
}

void
mq_wake_note_time(MqWindow *window, TimestampTz time)
{
	int			procno = window->timekeeper;

	if (pg_atomic_read_u32(&window->waiters) == 0 || time >= window->clock || procno < 0)
		return;
	window->clock = time;
	/* this process is awake, and looks at the clock again before it sleeps */
	if (procno != MqMyProcNumber())
		set_latch(procno);
}

/* ---- waiting ---- */

/* A slot of a window that belonged to another queue before: its line is empty, but somebody may be about to look at it. */
static void
bind_to_chain(MqWindow *window, const MqChain *chain)
{
	MqChain    *old = &mq_chains[window->chain];

	if (old == chain)
		return;
	SpinLockAcquire(&old->wait_mutex);
	window->chain = (int) (chain - mq_chains);
	SpinLockRelease(&old->wait_mutex);
}

void
mq_wait_enlist(MqChain *chain, MqWindow *window, bool again, MqBlocked blocked)
{
	int			me = MqMyProcNumber();

	bind_to_chain(window, chain);
	SpinLockAcquire(&chain->wait_mutex);
	mq_waiters[me].woken = false;
	if (!mq_waiters[me].listed)
		put_into_line(chain, window, me, blocked, again);
	SpinLockRelease(&chain->wait_mutex);
	my_chain = chain;
	my_window = window;
}

bool
mq_wait_block(MqBlocked why)
{
	int			me = MqMyProcNumber();
	MqWaiter   *w = &mq_waiters[me];
	bool		changed = false;

	SpinLockAcquire(&my_chain->wait_mutex);
	/* who was woken meanwhile looks again anyway, but is out of the line if it is blocked */
	if (w->listed || why != MQ_NOT_BLOCKED)
	{
		changed = !w->listed || w->blocked != why;
		/* for a moment it is not counted: who passes it over then is seen by the look that follows */
		if (w->listed && changed)
			take_out_of_line(my_chain, my_window, me);
		if (changed)
			put_into_line(my_chain, my_window, me, why, true);
		w->woken = false;
	}
	SpinLockRelease(&my_chain->wait_mutex);
	return changed;
}

/* Without wait_mutex: whom another process makes the timekeeper gets its latch set after that. */
bool
mq_wait_is_timekeeper(void)
{
	return my_window->timekeeper == MqMyProcNumber();
}

/* Whether a waker has taken this process out of the line. Its latch says less: it is set for many reasons. */
static bool
was_woken(void)
{
	bool		woken;

	SpinLockAcquire(&my_chain->wait_mutex);
	woken = mq_waiters[MqMyProcNumber()].woken;
	SpinLockRelease(&my_chain->wait_mutex);
	return woken;
}

/*
 * A client that goes away while its receive waits must not be handed the next message: a pop would finish it for nobody.
 * Where the kernel can tell, the session ends as it would with client_connection_check_interval.
 */
static void
sleep_or_lose_client(long timeout, uint32 wait_event)
{
	WaitEvent	event = {0};

	if (FeBeWaitSet == NULL || !WaitEventSetCanReportClosed())
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, wait_event);
		return;
	}
	ModifyWaitEvent(FeBeWaitSet, FeBeWaitSetSocketPos, WL_SOCKET_CLOSED, NULL);
	(void) WaitEventSetWait(FeBeWaitSet, timeout, &event, 1, wait_event);
	if (event.events & WL_POSTMASTER_DEATH)
		proc_exit(1);
	if (event.events & WL_SOCKET_CLOSED)
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
}

bool
mq_wait_sleep(int64 us)
{
	static uint32 wait_event = 0;

	/* the look may have waited for a lock, and used up the latch's signal for that */
	if (was_woken())
		return true;
	if (wait_event == 0)
		wait_event = MqWaitEventNew("MqReceive");
	sleep_or_lose_client((long) Min((us + MQ_MS - 1) / MQ_MS, PG_INT32_MAX), wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return was_woken();
}

void
mq_wait_show(const MqWindowKey *window, const char *consumer)
{
	MqWaiter   *me = &mq_waiters[MqMyProcNumber()];
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&me->shown_mutex);
	me->shown = true;
	me->shown_window = *window;
	me->shown_since = now;
	strlcpy(me->shown_consumer, consumer == NULL ? "" : consumer, sizeof(me->shown_consumer));
	SpinLockRelease(&me->shown_mutex);
}

bool
mq_wait_look_at(int procno, MqWaiting *waiting)
{
	MqWaiter   *w = &mq_waiters[procno];
	bool		shown;

	/* most do not wait; one that begins or ends just now may be missed */
	if (!w->shown)
		return false;
	SpinLockAcquire(&w->shown_mutex);
	shown = w->shown;
	waiting->window = w->shown_window;
	waiting->since = w->shown_since;
	memcpy(waiting->consumer, w->shown_consumer, sizeof(waiting->consumer));
	SpinLockRelease(&w->shown_mutex);
	waiting->pid = ProcGlobal->allProcs[procno].pid;
	return shown && waiting->pid != 0;
}

static void
hide(MqWaiter *me)
{
	SpinLockAcquire(&me->shown_mutex);
	me->shown = false;
	SpinLockRelease(&me->shown_mutex);
}

/* The last in line, of those that are not blocked if there are any; -1: nobody. */
static int
any_waiter(const MqWindow *window)
{
	for (int i = 0; i < MQ_LINES; i++)
		if (window->lines[i].last >= 0)
			return window->lines[i].last;
	return -1;
}

void
mq_wait_leave(MqPassOn pass_on)
{
	MqWindow   *window = my_window;
	MqChain    *chain = my_chain;
	int			me = MqMyProcNumber();
	int			next = -1;

	if (window == NULL)
		return;
	my_window = NULL;
	my_chain = NULL;
	hide(&mq_waiters[me]);
	SpinLockAcquire(&chain->wait_mutex);
	if (mq_waiters[me].listed)
		take_out_of_line(chain, window, me);
	if (mq_waiters[me].woken)
		pass_on = MQ_PASS_ON;
	mq_waiters[me].woken = false;
	if (window->timekeeper == me)
		next = window->timekeeper = any_waiter(window);
	SpinLockRelease(&chain->wait_mutex);
	/* it has to find out how long it may sleep */
	if (next >= 0)
		set_latch(next);
	if (pass_on == MQ_PASS_ON)
		mq_wake_group(window);
	else if (pass_on == MQ_PASS_ON_TO_ABLE)
		mq_wake_able(window);
}
