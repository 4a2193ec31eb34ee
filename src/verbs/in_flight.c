/*
 * in_flight.c: the functions behind the views mq.in_flight and mq.consumers: who holds what, and who waits.
 *
 * What is in flight is copied from a window a lot at a time, under its lock. They cost what is in flight, not the backlog.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/definitions.h"
#include "verbs/verbs.h"
#include "verbs/views.h"
#include "window/consumer.h"
#include "window/settle.h"
#include "window/tree.h"
#include "window/wake.h"

#define ROWS_PER_LOOK 1024

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

/* For each_in_flight: a row for each message of the entry. context: the ReturnSetInfo. */
static void
show_entry(void *context, const MqGroup *group, const InFlight *entry, int pid)
{
	ReturnSetInfo *rsinfo = context;
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
		isnull[5] = !mq_has_lease_end(node);
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

/* Calls visit for each entry in flight in the groups that the caller may see; pid: who has it, see holder. */
static void
each_in_flight(void (*visit) (void *context, const MqGroup *group, const InFlight *entry, int pid), void *context)
{
	InFlight   *entries = palloc(ROWS_PER_LOOK * sizeof(InFlight));
	Acker		acker = {0};
	bool		all = mq_view_sees_all();
	int			count;
	MqGroup    *groups = mq_groups_all(&count);

	for (int i = 0; i < count; i++)
	{
		MqWindowRef ref;
		bool		fits;
		int64		id = 0;
		int			n;

		if (!mq_view_may_see(&groups[i], all) || !mq_view_attach(&groups[i], &ref, &fits) || !fits)
			continue;
		/* one look shows a moment; only who has more in flight than fits into one sees several */
		do
		{
			n = look(&ref, id, entries);
			for (int j = 0; j < n; j++)
				visit(context, &groups[i], &entries[j], holder(&entries[j], &acker));
			id = n > 0 ? entries[n - 1].node.hi + 1 : id;
		} while (n == ROWS_PER_LOOK);
	}
	pfree(entries);
}

/* A standby has no windows: the views are empty there, with a NOTICE. */
static bool
is_standby(void)
{
	if (!RecoveryInProgress())
		return false;
	ereport(NOTICE,
			(errmsg("what is in flight is known on the primary only")));
	return true;
}

MQ_FUNCTION(mq_in_flight_state);
Datum
mq_in_flight_state(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	if (!is_standby())
		each_in_flight(show_entry, fcinfo->resultinfo);
	return (Datum) 0;
}

/* ---- consumers ---- */

/* A consumer is its name, or the process of a call that gave none; one that is gone has neither. */
typedef struct ConsumerKey
{
	int32		group_no;
	int			pid;			/* of one without a name; 0: not known any more */
	char		name[MQ_NAME_LENGTH_MAX + 1];
} ConsumerKey;

/* A row of mq.consumers. All but the key begins at zero. */
typedef struct ConsumerState
{
	ConsumerKey key;
	int64		leased;
	int64		settling;
	int64		waiting;
	TimestampTz oldest_lease;	/* 0: it has none */
	TimestampTz last_call;
	int			pid;			/* of an open transaction or a waiting call; 0: none */
} ConsumerState;

static HTAB *
consumer_table(void)
{
	HASHCTL		ctl = {.keysize = sizeof(ConsumerKey),.entrysize = sizeof(ConsumerState),.hcxt = CurrentMemoryContext};

	return hash_create("mq consumers", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* The entry of a consumer; a new one is made. With a name the process does not matter: several may share one. */
static ConsumerState *
consumer_of(HTAB *consumers, int32 group_no, const char *name, int pid)
{
	ConsumerKey key;
	ConsumerState *state;
	bool		found;

	memset(&key, 0, sizeof(key));
	key.group_no = group_no;
	strlcpy(key.name, name, sizeof(key.name));
	if (name[0] == '\0')
		key.pid = pid;
	state = hash_search(consumers, &key, HASH_ENTER, &found);
	if (!found)
		memset((char *) state + sizeof(ConsumerKey), 0, sizeof(ConsumerState) - sizeof(ConsumerKey));
	if (pid != 0)
		state->pid = pid;
	return state;
}

/*
 * For each_in_flight; context: the hash table. Times come from tokens; a settling entry without a token (discarded, or acked
 * before a restart) has none.
 */
static void
count_entry(void *context, const MqGroup *group, const InFlight *entry, int pid)
{
	ConsumerState *state = consumer_of(context, group->group_no, entry->consumer, pid);
	const MqNode *node = &entry->node;
	TimestampTz leased_at = node->token == 0 ? 0 : mq_token_time(node->token);

	CHECK_FOR_INTERRUPTS();
	if (node->state == MQ_LEASED)
		state->leased += node->hi - node->lo + 1;
	else
		state->settling += node->hi - node->lo + 1;
	if (leased_at == 0)
		return;
	state->oldest_lease = state->oldest_lease == 0 ? leased_at : Min(state->oldest_lease, leased_at);
	state->last_call = Max(state->last_call, leased_at);
}

/* Those that wait, of the groups that the caller may see. */
static void
count_waiting(HTAB *consumers)
{
	bool		all = mq_view_sees_all();

	for (uint32 procno = 0; procno < mq_shared->nprocs; procno++)
	{
		MqWaiting	waiting;
		MqGroup		group;
		MqWindowKey key;
		ConsumerState *state;

		if (!mq_wait_look_at((int) procno, &waiting) || waiting.window.db.database != MyDatabaseId ||
			!mq_group_by_number(waiting.window.group_no, &group) || !mq_view_may_see(&group, all))
			continue;
		key = mq_window_key(&group, 0);
		/* in an extension that was dropped since, the number was another group's */
		if (memcmp(&key, &waiting.window, sizeof(key)) != 0)
			continue;
		state = consumer_of(consumers, group.group_no, waiting.consumer, waiting.pid);
		state->waiting++;
		state->last_call = Max(state->last_call, waiting.since);
	}
}

static void
show_consumer(ReturnSetInfo *rsinfo, const ConsumerState *state)
{
	Datum		v[8];
	bool		isnull[8] = {false};

	v[0] = Int32GetDatum(state->key.group_no);
	v[1] = CStringGetTextDatum(state->key.name);
	isnull[1] = state->key.name[0] == '\0';
	v[2] = Int64GetDatum(state->leased);
	v[3] = Int64GetDatum(state->settling);
	v[4] = TimestampTzGetDatum(state->oldest_lease);
	isnull[4] = state->oldest_lease == 0;
	v[5] = TimestampTzGetDatum(state->last_call);
	isnull[5] = state->last_call == 0;
	v[6] = Int64GetDatum(state->waiting);
	v[7] = Int32GetDatum(state->pid);
	isnull[7] = state->pid == 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, isnull);
	pfree(DatumGetPointer(v[1]));
}

MQ_FUNCTION(mq_consumer_state);
Datum
mq_consumer_state(PG_FUNCTION_ARGS)
{
	HTAB	   *consumers;
	HASH_SEQ_STATUS scan;
	const ConsumerState *state;

	InitMaterializedSRF(fcinfo, 0);
	if (is_standby())
		return (Datum) 0;
	consumers = consumer_table();
	each_in_flight(count_entry, consumers);
	count_waiting(consumers);
	hash_seq_init(&scan, consumers);
	while ((state = hash_seq_search(&scan)) != NULL)
		show_consumer((ReturnSetInfo *) fcinfo->resultinfo, state);
	hash_destroy(consumers);
	return (Datum) 0;
}
