/*
 * views.c: the functions behind the views mq.queues, mq.groups and mq.in_flight.
 *
 * They show only queues on which the caller has some right, and cost what they show, not the backlog.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "log/log.h"
#include "offset/rebuild.h"
#include "verbs/verbs.h"

#define ROWS_PER_LOOK 1024

static bool
may_see_group(const MqGroup *group)
{
	return mq_has_right(&group->queue, MQ_RIGHT_BROWSE | MQ_RIGHT_MANAGE) || mq_may_consume(group);
}

static bool
may_see_queue(const MqQueue *queue)
{
	int			count;
	MqGroup    *groups;

	if (mq_has_right(queue, MQ_RIGHT_SEND | MQ_RIGHT_BROWSE | MQ_RIGHT_MANAGE))
		return true;
	groups = mq_groups_of(queue, &count);
	for (int i = 0; i < count; i++)
		if (mq_may_consume(&groups[i]))
			return true;
	return false;
}

static bool
in_memory_only(void)
{
	mq_require_preload();
	return RecoveryInProgress();
}

MQ_FUNCTION(mq_queue_state);
Datum
mq_queue_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			count;
	MqQueue    *queues;

	InitMaterializedSRF(fcinfo, 0);
	if (in_memory_only())
		return (Datum) 0;
	queues = mq_queues_all(&count);
	for (int i = 0; i < count; i++)
	{
		Datum		v[2];
		bool		isnull[2] = {false};
		MqTail		tail;

		if (!may_see_queue(&queues[i]))
			continue;
		mq_attach_queue(&queues[i]);
		if (!mq_log_tail(&queues[i], 0, &tail))
			continue;
		v[0] = Int32GetDatum(queues[i].queue_no);
		v[1] = Int64GetDatum(tail.next_id);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, isnull);
	}
	return (Datum) 0;
}

static int64
unread_estimate(const MqGroup *group, const MqWindowCounts *counts)
{
	MqTail		tail;

	if (!mq_log_tail(&group->queue, 0, &tail))
		return counts->ids[MQ_UNREAD];
	return counts->ids[MQ_UNREAD] + Max(tail.next_id - counts->next_id, 0);
}

MQ_FUNCTION(mq_group_state);
Datum
mq_group_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			count;
	MqGroup    *groups;

	InitMaterializedSRF(fcinfo, 0);
	if (in_memory_only())
		return (Datum) 0;
	groups = mq_groups_all(&count);
	for (int i = 0; i < count; i++)
	{
		Datum		v[11];
		bool		isnull[11] = {false};
		MqWindowRef ref;
		MqWindowCounts counts;

		if (!may_see_group(&groups[i]))
			continue;
		(void) mq_attach_group_if_it_fits(&groups[i]);
		ref = (MqWindowRef) {groups[i].window, mq_window_key(&groups[i], 0)};
		if (!mq_window_counts(&ref, &counts))
			continue;
		v[0] = Int32GetDatum(groups[i].group_no);
		v[1] = Int32GetDatum(counts.epoch);
		v[2] = Int64GetDatum(counts.low_watermark);
		v[3] = Int64GetDatum(counts.next_id);
		v[4] = Int64GetDatum(counts.ids[MQ_READY]);
		v[5] = Int64GetDatum(counts.ids[MQ_LEASED]);
		v[6] = Int64GetDatum(counts.ids[MQ_SETTLING]);
		v[7] = Int64GetDatum(counts.pending);
		v[8] = Int64GetDatum(unread_estimate(&groups[i], &counts));
		v[9] = Int64GetDatum(counts.held_back);
		v[10] = Int32GetDatum(counts.waiting);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, isnull);
	}
	return (Datum) 0;
}

/* An entry in flight and who has it. */
typedef struct InFlight
{
	MqNode		node;
	char		consumer[MQ_NAME_LENGTH_MAX + 1];
	int			pid;			/* of the open transaction that leased it; 0: none */
} InFlight;

/* Copies the leased and settling entries from id on; the lock is held for one lot only. */
static int
look(const MqWindowRef *ref, int64 id, InFlight *entries)
{
	int			count = 0;

	if (!mq_window_lock(ref, LW_SHARED))
		return 0;
	while (count < ROWS_PER_LOOK)
	{
		uint32		leased = mq_tree_first_in_state(ref->window, MQ_LEASED, id);
		uint32		settling = mq_tree_first_in_state(ref->window, MQ_SETTLING, id);
		uint32		node = leased;

		if (leased == 0 || (settling != 0 && MqNodeAt(settling)->lo < MqNodeAt(leased)->lo))
			node = settling;
		if (node == 0)
			break;
		entries[count].node = *MqNodeAt(node);
		strlcpy(entries[count].consumer, MqNodeAt(node)->consumer == 0 ? "" : MqConsumerAt(MqNodeAt(node)->consumer)->name,
				sizeof(entries[count].consumer));
		entries[count].pid = node == leased ? mq_session_transaction_pid(MqNodeAt(node)->owner) : 0;
		id = entries[count++].node.hi + 1;
	}
	mq_window_unlock(ref);
	return count;
}

/* Who acked what is settling: found once for all messages of a transaction. */
typedef struct Acker
{
	uint64		xid;
	int			pid;
} Acker;

/* The process whose open transaction leased the messages, or acked them; 0: none, or a prepared one. */
static int
holder(const InFlight *entry, Acker *acker)
{
	if (entry->node.state == MQ_LEASED)
		return entry->pid;
	if (entry->node.owner != acker->xid)
	{
		acker->xid = entry->node.owner;
		acker->pid = BackendXidGetPid(XidFromFullTransactionId(FullTransactionIdFromU64(acker->xid)));
	}
	return acker->pid;
}

static void
show_entry(ReturnSetInfo *rsinfo, const MqGroup *group, const InFlight *entry, int pid)
{
	const MqNode *node = &entry->node;

	for (int64 id = node->lo; id <= node->hi; id++)
	{
		Datum		v[9];
		bool		isnull[9] = {false};

		CHECK_FOR_INTERRUPTS();
		v[0] = Int32GetDatum(group->group_no);
		v[1] = Int64GetDatum(id);
		v[2] = CStringGetTextDatum(node->state == MQ_LEASED ? "leased" : "settling");
		v[3] = Int32GetDatum(node->attempts);
		v[4] = Int32GetDatum(node->failures);
		v[5] = TimestampTzGetDatum(node->due);
		isnull[5] = node->token == 0;
		v[6] = CStringGetTextDatum(entry->consumer);
		isnull[6] = entry->consumer[0] == '\0';
		v[7] = TimestampTzGetDatum(mq_token_time(node->token));
		isnull[7] = node->token == 0;
		v[8] = Int32GetDatum(pid);
		isnull[8] = pid == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, isnull);
		pfree(DatumGetPointer(v[2]));
		pfree(DatumGetPointer(v[6]));
	}
}

MQ_FUNCTION(mq_in_flight_state);
Datum
mq_in_flight_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	InFlight   *entries = palloc(ROWS_PER_LOOK * sizeof(InFlight));
	Acker		acker = {0};
	int			count;
	MqGroup    *groups;

	InitMaterializedSRF(fcinfo, 0);
	if (in_memory_only())
		return (Datum) 0;
	groups = mq_groups_all(&count);
	for (int i = 0; i < count; i++)
	{
		MqWindowRef ref;
		int64		id = 0;
		int			n;

		if (!may_see_group(&groups[i]) || !mq_attach_group_if_it_fits(&groups[i]))
			continue;
		ref = (MqWindowRef) {groups[i].window, mq_window_key(&groups[i], 0)};
		/* one look shows a moment; only who has more in flight than fits into one sees several */
		do
		{
			n = look(&ref, id, entries);
			for (int j = 0; j < n; j++)
				show_entry(rsinfo, &groups[i], &entries[j], holder(&entries[j], &acker));
			id = n > 0 ? entries[n - 1].node.hi + 1 : id;
		} while (n == ROWS_PER_LOOK);
	}
	return (Datum) 0;
}
