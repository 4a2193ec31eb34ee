/*
 * bounds.c: how full a queue is, and whether it takes more. See bounds.h.
 *
 * Counting costs a look at each group, so who has counted leaves in the chain how much may still be sent (MqBounds), and the next ones
 * only take of that. It is right for as long as nothing but what senders send makes more unfinished: a change of the options, another
 * group or a seek makes it void. What is finished meanwhile is seen when somebody counts again, which is when that is used up.
 *
 * Locks: the chain's spinlock for some instructions; window locks, append lock and whatever reading ahead takes (walk.c), one after
 * the other. All of it is in shared memory: after a crash the first sender counts anew.
 */
#include "postgres.h"

#include "offset/bounds.h"

#include "miscadmin.h"

#include "base/definitions.h"
#include "log/log.h"
#include "log/schedule.h"
#include "log/volume.h"
#include "offset/rebuild.h"
#include "window/transaction.h"
#include "window/walk.h"

/* What is admitted while somebody counts is perhaps counted: then it is counted again, a few times. */
#define TRIES 3

#define WALKS_AT_ONCE 64			/* for the worker, who has others to care for */

/* Of messages that are unfinished, may be, or are to be sent. */
typedef struct Amount
{
	int64		messages;
	int64		bytes;
} Amount;

/* ---- bounds ---- */

static int64
limit(int64 bound, int64 above)
{
	return bound == 0 ? PG_INT64_MAX : bound + above;
}

/*
 * Senders need not count, and the worker is not asked for, up to here: where it drops it does so in each of its turns, and is called when
 * there is something to do.
 */
static Amount
soft_limits(const MqQueue *queue)
{
	int			part = queue->drop_oldest ? 20 : 0;

	return (Amount) {limit(queue->max_messages, part > 0 ? queue->max_messages / part : 0),
		limit(queue->max_bytes, part > 0 ? queue->max_bytes / part : 0)};
}

/*
 * How much there may be for a call to be admitted. Where the worker makes room any call is, however large, as long as the queue is less
 * than 10 % above its bounds; else it has to fit.
 */
static Amount
limits_for(const MqQueue *queue, const Amount *call)
{
	if (queue->drop_oldest)
		return (Amount) {limit(queue->max_messages, (queue->max_messages + 9) / 10 - 1), limit(queue->max_bytes, (queue->max_bytes + 9) / 10 - 1)};
	return (Amount) {limit(queue->max_messages, -call->messages), limit(queue->max_bytes, -call->bytes)};
}

static bool
is_within(const Amount *amount, const Amount *limits)
{
	return amount->messages <= limits->messages && amount->bytes <= limits->bytes;
}

/* ---- one group ---- */

/* Some part of it may be no messages: ids that were given and not looked at, and what undecided senders sent. */
static int64
not_known(const MqQueue *queue, const MqWindowCounts *counts)
{
	return counts->ids[MQ_UNREAD] + counts->pending + mq_log_ids_from(queue, 0, counts->next_id);
}

static int64
known(const MqWindowCounts *counts)
{
	return counts->ids[MQ_READY] + counts->ids[MQ_LEASED] + counts->ids[MQ_SETTLING] + counts->ids[MQ_DEAD];
}

/* The mean of what is in the log from the first message on that the group has not finished; 0: the queue has no such bound. */
static double
bytes_per_message(const MqQueue *queue, const MqWindowCounts *counts)
{
	MqVolume	volume;

	if (queue->max_bytes == 0)
		return 0;
	volume = mq_volume_from(queue, 0, counts->low_watermark);
	return volume.rows <= 0 ? 0 : volume.bytes / volume.rows;
}

static Amount
backlog_of(int64 messages, double bytes_each)
{
	return (Amount) {messages, (int64) Min(messages * bytes_each, (double) (PG_INT64_MAX / 4))};
}

/* What counting one group takes, and has found. */
typedef struct Count
{
	MqGroup    *group;
	Amount		limits;			/* how much it may be; what is beyond need not be exact */
	int			walks;			/* stretches of the log that may be read, at most */
	uint64		read_again;		/* what this transaction has sent is; 0: not so */
	MqWindowCounts counts;
	double		bytes_each;
	Amount		sure;
	Amount		all;			/* the same, and what may be there */
} Count;

/* False: the group is gone, or has no window and no room for one. It is read ahead until it is known whether it is within the limits. */
static bool
count_group(Count *c)
{
	MqGroup    *group = c->group;
	MqWindowRef ref;

	(void) mq_attach_group_if_it_fits(group);
	if (group->window == NULL)
		return false;
	ref = (MqWindowRef) {group->window, mq_window_key(group, 0)};
	if (c->read_again != 0)
		mq_walk_again(&ref, c->read_again);
	for (;; c->walks--)
	{
		int64		unsure;

		CHECK_FOR_INTERRUPTS();
		if (!mq_window_counts(&ref, &c->counts))
			return false;
		unsure = not_known(&group->queue, &c->counts);
		c->bytes_each = bytes_per_message(&group->queue, &c->counts);
		c->sure = backlog_of(known(&c->counts), c->bytes_each);
		c->all = backlog_of(known(&c->counts) + unsure, c->bytes_each);
		/* one that does not fit into the memory has nothing to be read into */
		if (unsure == 0 || ref.window->root == 0 || is_within(&c->all, &c->limits) || !is_within(&c->sure, &c->limits) ||
			c->walks <= 0 || !mq_walk(group, &ref, PG_INT32_MAX))
			return true;
	}
}

/* ---- the queue ---- */

/* As long as the worker has not counted since the start, the tables are; there the caller's own rows are found, and not to be counted. */
static int64
scheduled(const MqQueue *queue)
{
	MqChain    *chain = queue->chain;
	int64		count = Max((int64) pg_atomic_read_u64(&chain->scheduled), 0);

	if (pg_atomic_read_u32(&chain->scheduled_counted) != 0)
		return count;
	return Max(count, mq_schedule_size(queue) - mq_transaction_scheduling(queue));
}

/* With what open transactions are about to put in. */
static int64
scheduled_or_about_to_be(const MqQueue *queue)
{
	int64		open = (int64) pg_atomic_read_u64(&queue->chain->bounds.scheduling);

	return Max(scheduled(queue) + open, 0);
}

/*
 * Of the slowest group, and what is scheduled; exact if it is near the limits. The schedule first: what is moved meanwhile is counted
 * twice, not left out.
 */
static Amount
count_backlog(const MqQueue *queue, const Amount *limits)
{
	int64		later = scheduled_or_about_to_be(queue);
	uint64		xid = mq_transaction_took_back(queue) ? mq_transaction_xid() : 0;
	int			count;
	MqGroup    *groups = mq_groups_of(queue, &count);
	Amount		backlog = {0, 0};

	for (int i = 0; i < count; i++)
	{
		Count		c = {&groups[i], {limits->messages - later, limits->bytes}, PG_INT32_MAX, xid};

		if (!count_group(&c))
			continue;
		backlog.messages = Max(backlog.messages, c.all.messages);
		backlog.bytes = Max(backlog.bytes, c.all.bytes);
	}
	backlog.messages += later;
	pfree(groups);
	return backlog;
}

/* Whether what is left was counted for the queue as it is. Caller holds the spinlock. */
static bool
is_current(const MqBounds *bounds, const MqQueue *queue)
{
	return bounds->max_messages == queue->max_messages && bounds->max_bytes == queue->max_bytes &&
		bounds->definition == pg_atomic_read_u32(&queue->chain->definition);
}

/* A count that is under way: what was so when it began. */
typedef struct Counting
{
	int64		admitted;
	uint32		definition;
} Counting;

/* Takes of what is left; false: there is not as much, or it is not known, and somebody has to count. */
static bool
take_of_what_is_left(const MqQueue *queue, const Amount *call, Counting *counting)
{
	MqBounds   *bounds = &queue->chain->bounds;
	bool		enough;

	SpinLockAcquire(&bounds->mutex);
	enough = is_current(bounds, queue) && bounds->messages_left >= call->messages && bounds->bytes_left >= call->bytes;
	if (enough)
	{
		bounds->messages_left -= call->messages;
		bounds->bytes_left -= call->bytes;
		bounds->admitted += call->messages;
	}
	*counting = (Counting) {bounds->admitted, pg_atomic_read_u32(&queue->chain->definition)};
	SpinLockRelease(&bounds->mutex);
	return enough;
}

typedef enum Verdict
{
	ADMITTED,
	FULL,
	COUNT_AGAIN
} Verdict;

/* The next ones may have what the call leaves. Caller holds the spinlock. */
static void
leave_rest(const MqQueue *queue, const Counting *counting, const Amount *used)
{
	MqBounds   *bounds = &queue->chain->bounds;
	Amount		soft = soft_limits(queue);

	bounds->max_messages = queue->max_messages;
	bounds->max_bytes = queue->max_bytes;
	bounds->definition = counting->definition;
	bounds->messages_left = Max(soft.messages - used->messages, 0);
	bounds->bytes_left = Max(soft.bytes - used->bytes, 0);
}

/* By what was counted. last: whoever was admitted meanwhile is taken for counted. */
static Verdict
judge(const MqQueue *queue, const Amount *backlog, const Amount *call, const Counting *counting, bool last)
{
	MqBounds   *bounds = &queue->chain->bounds;
	Amount		limits = limits_for(queue, call);
	Amount		known_of = *backlog;
	int64		meanwhile;
	Verdict		verdict = FULL;

	SpinLockAcquire(&bounds->mutex);
	meanwhile = last ? 0 : bounds->admitted - counting->admitted;
	known_of.messages += meanwhile;
	if (is_within(&known_of, &limits))
	{
		Amount		used = {known_of.messages + call->messages, known_of.bytes + call->bytes};

		leave_rest(queue, counting, &used);
		bounds->admitted += call->messages;
		verdict = ADMITTED;
	}
	else if (meanwhile > 0)
		verdict = COUNT_AGAIN;
	else
		bounds->rejected += call->messages;
	SpinLockRelease(&bounds->mutex);
	return verdict;
}

/* A queue that drops the oldest has a worker to do so: when the messages are there, or at once. */
static void
wake_worker(const MqQueue *queue, const Amount *backlog, const Amount *call, Verdict verdict)
{
	Amount		soft = soft_limits(queue);
	Amount		then = {backlog->messages + call->messages, backlog->bytes + call->bytes};

	if (!queue->drop_oldest)
		return;
	if (verdict == FULL)
		mq_worker_wake(queue->db);
	else if (!is_within(&then, &soft))
		mq_transaction_wants_worker(queue->db);
}

/* Counts if need be, and decides. */
static bool
take(const MqQueue *queue, const Amount *call)
{
	Verdict		verdict = COUNT_AGAIN;

	for (int i = 1; verdict == COUNT_AGAIN; i++)
	{
		Amount		limits = limits_for(queue, call);
		Amount		backlog;
		Counting	counting;

		if (take_of_what_is_left(queue, call, &counting))
			return true;
		backlog = count_backlog(queue, &limits);
		verdict = judge(queue, &backlog, call, &counting, i == TRIES);
		wake_worker(queue, &backlog, call, verdict);
	}
	return verdict == ADMITTED;
}

bool
mq_bounds_admit(const MqQueue *queue, int64 messages, int64 bytes)
{
	Amount		call = {messages, bytes};

	if (!take(queue, &call))
		return false;
	mq_transaction_admitted(queue);
	return true;
}

int64
mq_bounds_rejected(const MqQueue *queue)
{
	MqBounds   *bounds = &queue->chain->bounds;
	int64		rejected;

	SpinLockAcquire(&bounds->mutex);
	rejected = bounds->rejected;
	SpinLockRelease(&bounds->mutex);
	return rejected;
}

/* What only open transactions have, and may take back, is not dropped for. */
int64
mq_bounds_excess(MqGroup *group, bool *more)
{
	const MqQueue *queue = &group->queue;
	int64		excess = 0;
	Count		c = {group, {PG_INT64_MAX, PG_INT64_MAX}, WALKS_AT_ONCE};

	/* the queue too */
	(void) mq_attach_group_if_it_fits(group);
	if (queue->max_messages > 0)
		c.limits.messages = queue->max_messages - scheduled(queue);
	if (queue->max_bytes > 0)
		c.limits.bytes = queue->max_bytes;
	*more = false;
	if (!count_group(&c))
		return 0;
	*more = c.all.messages > c.sure.messages && !is_within(&c.all, &c.limits);
	if (queue->max_messages > 0)
		excess = c.sure.messages - Max(c.limits.messages, 0);
	if (queue->max_bytes > 0 && c.bytes_each >= 1)
		excess = Max(excess, c.sure.messages - (int64) (queue->max_bytes / c.bytes_each));
	return Max(excess, 0);
}
