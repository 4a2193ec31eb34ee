/*
 * statement.c: the statements that run in this process, one inside the other, and why they fail.
 *
 * Owns the hooks of the executor and of utility commands, and with them a stack of the queries that run, each entry in the C
 * stack of the hook that runs it. An error on its way out is noted for the abort callback, which cannot see it. (What fails
 * outside of them, in the parser or planner, or a RAISE that the same block catches, is not known.) No locks, nothing shared.
 */
#include "postgres.h"

#include "window/statement.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "nodes/plannodes.h"
#include "tcop/utility.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "window/transaction.h"

/* A query that runs. It lies in the C stack of the hook that runs it, which takes it out again in any case. */
typedef struct Running
{
	struct Running *outer;
	const QueryDesc *query;
} Running;

/* The query that runs at this moment, those around it behind it; NULL: none. */
static Running *innermost = NULL;
/* The hooks that were there before ours: they are called from ours. */
static ExecutorRun_hook_type previous_run = NULL;
static ExecutorFinish_hook_type previous_finish = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

/* The tables that an INSERT of this plan goes to are not read by it. */
static Bitmapset *
add_insert_targets(Bitmapset *targets, const Plan *plan)
{
	const ModifyTable *modify = (const ModifyTable *) plan;
	ListCell   *cell;

	if (plan == NULL || !IsA(plan, ModifyTable) || modify->operation != CMD_INSERT)
		return targets;
	foreach(cell, modify->resultRelations)
		targets = bms_add_member(targets, lfirst_int(cell));
	return targets;
}

static bool
is_table(const RangeTblEntry *rte)
{
	/* 15 keeps entries for views beside the tables behind them */
	return rte->rtekind == RTE_RELATION && (rte->relkind == RELKIND_RELATION || rte->relkind == RELKIND_PARTITIONED_TABLE ||
											rte->relkind == RELKIND_MATVIEW || rte->relkind == RELKIND_FOREIGN_TABLE);
}

/* A table that it only inserts into does not count, nor what a function reads in a query of its own. */
static bool
reads_table(const PlannedStmt *stmt)
{
	Bitmapset  *targets = add_insert_targets(NULL, stmt->planTree);
	bool		reads = false;
	ListCell   *cell;

	foreach(cell, stmt->subplans)
		targets = add_insert_targets(targets, lfirst(cell));
	foreach(cell, stmt->rtable)
		reads |= is_table(lfirst(cell)) && !bms_is_member(foreach_current_index(cell) + 1, targets);
	bms_free(targets);
	return reads;
}

Snapshot
mq_statement_reads_with(void)
{
	Snapshot	snapshot = NULL;

	for (const Running *r = innermost; r != NULL; r = r->outer)
		if (reads_table(r->query->plannedstmt))
			snapshot = r->query->snapshot;
	return snapshot;
}

/* Whoever calls this has to set innermost back to the outer one, also after an error. */
static void
enter(Running *running, const QueryDesc *query)
{
	*running = (Running) {innermost, query};
	innermost = running;
}

/* A user's cancel and a timeout have one SQLSTATE; the message, before it is translated, tells them apart. */
static bool
is_timeout(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED && error->message_id != NULL &&
		strcmp(error->message_id, "canceling statement due to statement timeout") == 0;
}

/* In PG_CATCH only. The text is wanted only where a message may have failed for it. */
static void
note_error(void)
{
	MemoryContext old;
	ErrorData  *error;

	if (!mq_transaction_holds_messages())
	{
		mq_transaction_failed(geterrcode(), false, NULL);
		return;
	}
	/* an error is not to be copied into ErrorContext, which is the current one */
	old = MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	mq_transaction_failed(error->sqlerrcode, is_timeout(error), error->message);
	FreeErrorData(error);
	MemoryContextSwitchTo(old);
}

/* ExecutorRun_hook. That something is executed shows that an error which came before was caught. */
static void
executor_run(MQ_EXECUTOR_RUN_PARAMETERS)
{
	Running		running;

	mq_transaction_goes_on();
	enter(&running, query);
	PG_TRY();
	{
		if (previous_run)
			previous_run(MQ_EXECUTOR_RUN_ARGUMENTS);
		else
			standard_ExecutorRun(MQ_EXECUTOR_RUN_ARGUMENTS);
	}
	PG_CATCH();
	{
		innermost = running.outer;
		note_error();
		PG_RE_THROW();
	}
	PG_END_TRY();
	innermost = running.outer;
}

/* What of the statement was not run yet (WITH parts that write), and AFTER triggers. */
static void
executor_finish(QueryDesc *query)
{
	Running		running;

	enter(&running, query);
	PG_TRY();
	{
		if (previous_finish)
			previous_finish(query);
		else
			standard_ExecutorFinish(query);
	}
	PG_CATCH();
	{
		innermost = running.outer;
		note_error();
		PG_RE_THROW();
	}
	PG_END_TRY();
	innermost = running.outer;
}

static void
next_utility(PlannedStmt *pstmt, const char *text, bool read_only_tree, ProcessUtilityContext context, ParamListInfo params,
			 QueryEnvironment *env, DestReceiver *dest, QueryCompletion *completion)
{
	if (previous_utility)
		previous_utility(pstmt, text, read_only_tree, context, params, env, dest, completion);
	else
		standard_ProcessUtility(pstmt, text, read_only_tree, context, params, env, dest, completion);
}

/* ProcessUtility_hook. A query that a command runs (CREATE TABLE AS, EXPLAIN ANALYZE) gets into the stack by executor_run. */
static void
utility(PlannedStmt *pstmt, const char *text, bool read_only_tree, ProcessUtilityContext context, ParamListInfo params,
		QueryEnvironment *env, DestReceiver *dest, QueryCompletion *completion)
{
	/* a ROLLBACK after an error is because of it */
	if (!IsAbortedTransactionBlockState())
		mq_transaction_goes_on();
	/* they only note what is to be done when the statement has ended */
	if (IsA(pstmt->utilityStmt, TransactionStmt))
	{
		next_utility(pstmt, text, read_only_tree, context, params, env, dest, completion);
		return;
	}
	PG_TRY();
	{
		next_utility(pstmt, text, read_only_tree, context, params, env, dest, completion);
	}
	PG_CATCH();
	{
		note_error();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

void
mq_statement_init(void)
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = executor_run;
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = executor_finish;
}
