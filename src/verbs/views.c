/*
 * views.c: the functions behind the views mq.queues, mq.groups and mq.in_flight.
 *
 * They show only queues on which the caller has some right, or all to roles for monitoring, and cost what they show, not the
 * backlog. A standby shows what is on disk.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "log/log.h"
#include "offset/rebuild.h"
#include "verbs/verbs.h"

#define ROWS_PER_LOOK 1024

/* A role for monitoring sees that there is something and how much of it, never what is in a message. */
static bool
sees_all(void)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

static bool
may_see_group(const MqGroup *group, bool all)
{
	return all || mq_has_right(&group->queue, MQ_RIGHT_BROWSE | MQ_RIGHT_MANAGE) || mq_may_consume(group);
}

static bool
may_see_queue(const MqQueue *queue, bool all)
{
	int			count;
	MqGroup    *groups;

	if (all || mq_has_right(queue, MQ_RIGHT_SEND | MQ_RIGHT_BROWSE | MQ_RIGHT_MANAGE))
		return true;
	groups = mq_groups_of(queue, &count);
	for (int i = 0; i < count; i++)
		if (mq_may_consume(&groups[i]))
			return true;
	return false;
}

/*
 * Whether what is in shared memory of the queue can be shown: not on a standby, nor where there is no room for it, nor while
 * the worker takes over another table. The view then has nulls: that it is not known is not that it is nothing.
 */
static bool
attach_to_show(MqQueue *queue)
{
	MqChainKey	key = mq_chain_key(queue, 0);

	if (RecoveryInProgress() || queue->replaced || (mq_chain_slot(&key, false, NULL) == NULL && mq_chains_are_full()))
		return false;
	mq_attach_queue(queue);
	return true;
}

MQ_FUNCTION(mq_queue_state);
Datum
mq_queue_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		all = sees_all();
	int			count;
	MqQueue    *queues;

	InitMaterializedSRF(fcinfo, 0);
	queues = mq_queues_all(&count);
	for (int i = 0; i < count; i++)
	{
		Datum		v[4];
		bool		isnull[4] = {false};
		MqTail		tail;

		CHECK_FOR_INTERRUPTS();
		if (!may_see_queue(&queues[i], all))
			continue;
		v[0] = Int32GetDatum(queues[i].queue_no);
		v[1] = ObjectIdGetDatum(queues[i].table);
		v[2] = ObjectIdGetDatum(mq_queue_owner(&queues[i]));
		isnull[3] = !attach_to_show(&queues[i]) || !mq_log_tail(&queues[i], 0, &tail);
		v[3] = isnull[3] ? (Datum) 0 : Int64GetDatum(tail.next_id);
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

/* fits: what is unfinished in it is in memory; else there are counts only of what is not. */
static bool
attach_group_to_show(MqGroup *group, MqWindowRef *ref, bool *fits)
{
	MqWindowKey key = mq_window_key(group, 0);

	if (!attach_to_show(&group->queue) || (mq_window_slot(&key, false, NULL) == NULL && mq_windows_are_full()))
		return false;
	*fits = mq_attach_group_if_it_fits(group);
	*ref = (MqWindowRef) {group->window, key};
	return group->window != NULL;
}

#define GROUP_COLUMNS 12

MQ_FUNCTION(mq_group_state);
Datum
mq_group_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		all = sees_all();
	int			count;
	MqGroup    *groups;

	InitMaterializedSRF(fcinfo, 0);
	groups = mq_groups_all(&count);
	for (int i = 0; i < count; i++)
	{
		Datum		v[GROUP_COLUMNS] = {0};
		bool		isnull[GROUP_COLUMNS] = {false};
		MqWindowCounts counts;
		MqWindowRef ref;
		bool		fits;

		CHECK_FOR_INTERRUPTS();
		if (!may_see_group(&groups[i], all))
			continue;
		v[0] = Int32GetDatum(groups[i].group_no);
		v[1] = ObjectIdGetDatum(groups[i].rights);
		v[2] = Int32GetDatum(groups[i].epoch);
		if (attach_group_to_show(&groups[i], &ref, &fits) && mq_window_counts(&ref, &counts))
		{
			v[2] = Int32GetDatum(counts.epoch);
			v[3] = Int64GetDatum(counts.low_watermark);
			v[4] = Int64GetDatum(counts.next_id);
			v[5] = Int64GetDatum(counts.ids[MQ_READY]);
			v[6] = Int64GetDatum(counts.ids[MQ_LEASED]);
			v[7] = Int64GetDatum(counts.ids[MQ_SETTLING]);
			v[8] = Int64GetDatum(counts.pending);
			v[9] = Int64GetDatum(unread_estimate(&groups[i], &counts));
			v[10] = Int64GetDatum(counts.held_back);
			v[11] = Int32GetDatum(counts.waiting);
		}
		else
			memset(isnull + 3, true, (GROUP_COLUMNS - 3) * sizeof(bool));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, isnull);
	}
	return (Datum) 0;
}

/* ---- sizes ---- */

/* Segments of one queue, ascending, with the bytes of each and all after it. For one statement. */
typedef struct Sizes
{
	int32		queue_no;
	int			count;
	int64	   *segments;
	int64	   *bytes;
} Sizes;

/* Calls a size function of PostgreSQL, which says null for what was dropped meanwhile. */
static int64
ask_size(PGFunction function, Oid relid, const char *fork)
{
	/* cppcheck-suppress unusedStructMember; a member of PostgreSQL's macro */
	LOCAL_FCINFO(fcinfo, 2);
	Datum		size;

	InitFunctionCallInfoData(*fcinfo, NULL, fork == NULL ? 1 : 2, InvalidOid, NULL, NULL);
	fcinfo->args[0] = (NullableDatum) {ObjectIdGetDatum(relid), false};
	fcinfo->args[1] = (NullableDatum) {fork == NULL ? (Datum) 0 : CStringGetTextDatum(fork), false};
	size = function(fcinfo);
	return fcinfo->isnull ? 0 : DatumGetInt64(size);
}

static Oid
toast_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			toast;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	toast = ((Form_pg_class) GETSTRUCT(tuple))->reltoastrelid;
	ReleaseSysCache(tuple);
	return toast;
}

/* Most partitions of idle queues are made ahead and empty: all that there is of one is a page of the TOAST table's index. */
static int64
size_of(Oid relid)
{
	Oid			toast = toast_of(relid);

	if (OidIsValid(toast) && ask_size(pg_relation_size, relid, "main") == 0 && ask_size(pg_relation_size, toast, "main") == 0)
		return BLCKSZ;
	return ask_size(pg_total_relation_size, relid, NULL);
}

static void
measure(Sizes *sizes, MemoryContext context)
{
	MqQueue		queue = {.queue_no = sizes->queue_no};
	int			count;
	MqSegmentInfo *list = mq_segment_list(&queue, &count);
	int64		sum = 0;

	sizes->count = count;
	sizes->segments = MemoryContextAlloc(context, (count + 1) * sizeof(int64));
	sizes->bytes = MemoryContextAlloc(context, (count + 1) * sizeof(int64));
	for (int i = count - 1; i >= 0; i--)
	{
		CHECK_FOR_INTERRUPTS();
		if (OidIsValid(list[i].relid))
			sum += size_of(list[i].relid);
		sizes->segments[i] = list[i].segment;
		sizes->bytes[i] = sum;
	}
	pfree(list);
}

static HTAB *
sizes_of_statement(FmgrInfo *flinfo)
{
	HASHCTL		ctl;

	if (flinfo->fn_extra == NULL)
	{
		ctl.keysize = sizeof(int32);
		ctl.entrysize = sizeof(Sizes);
		ctl.hcxt = flinfo->fn_mcxt;
		flinfo->fn_extra = hash_create("mq sizes", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	return flinfo->fn_extra;
}

/* A queue's groups ask for the same partitions: each is measured once in a statement. */
MQ_FUNCTION(mq_segment_bytes);
Datum
mq_segment_bytes(PG_FUNCTION_ARGS)
{
	int32		queue_no = PG_GETARG_INT32(0);
	int64		from = PG_GETARG_INT64(1);
	bool		found;
	Sizes	   *sizes = hash_search(sizes_of_statement(fcinfo->flinfo), &queue_no, HASH_ENTER, &found);
	int			lo = 0;

	if (!found)
		measure(sizes, fcinfo->flinfo->fn_mcxt);
	for (int hi = sizes->count; lo < hi;)
	{
		int			middle = (lo + hi) / 2;

		if (sizes->segments[middle] < from)
			lo = middle + 1;
		else
			hi = middle;
	}
	PG_RETURN_INT64(lo < sizes->count ? sizes->bytes[lo] : 0);
}

MQ_FUNCTION(mq_table_bytes);
Datum
mq_table_bytes(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(size_of(PG_GETARG_OID(0)));
}

/* ---- in flight ---- */

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
	bool		all = sees_all();
	int			count;
	MqGroup    *groups;

	InitMaterializedSRF(fcinfo, 0);
	if (RecoveryInProgress())
	{
		ereport(NOTICE,
				(errmsg("what is in flight is known on the primary only")));
		return (Datum) 0;
	}
	groups = mq_groups_all(&count);
	for (int i = 0; i < count; i++)
	{
		MqWindowRef ref;
		bool		fits;
		int64		id = 0;
		int			n;

		if (!may_see_group(&groups[i], all) || !attach_group_to_show(&groups[i], &ref, &fits) || !fits)
			continue;
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
