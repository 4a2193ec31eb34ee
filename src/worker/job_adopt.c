/*
 * job_adopt.c: the worker's jobs on queues that it finds on disk as it did not leave them: restored, copied, upgraded, or with
 * a table that was replaced under a living definition.
 *
 * Owns nothing in shared memory but frees the windows and the chain of a replaced queue. Each job is one transaction, so a
 * crash leaves the queue to be adopted again.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"

#include "base/owner.h"
#include "log/segment_table.h"
#include "offset/ring.h"
#include "window/window.h"
#include "worker/jobs.h"

/* Says where the queue is used from now on. */
static void
record_place(const MqQueue *queue)
{
	mq_sql("UPDATE mq_internal.queue SET system_identifier = " INT64_FORMAT ", database = %u, extension = %u, queue_table = %u "
		   "WHERE queue_no = %d", (int64) GetSystemIdentifier(), MyDatabaseId, mq_worker_database->key.extension, queue->table,
		   queue->queue_no);
}

/* A queue restored, copied or upgraded is ours from the first use on. The order of its pages is not known. */
static bool
adopt(void *arg)
{
	MqQueue    *queue = arg;
	MqSqlContext context;

	/* before there are locks on rows that drop_queue takes after the table's own */
	mq_segment_close_all(queue);
	mq_sql_begin(&context);
	mq_sql("UPDATE mq_internal.segment SET file = 0 WHERE queue_no = %d", queue->queue_no);
	record_place(queue);
	mq_sql_end(&context);
	mq_ring_own_tables();
	mq_catalog_changed();
	return true;
}

bool
mq_job_adopt_queue(MqQueue *queue)
{
	return mq_job_run(adopt, queue, MQ_JOB_FOR(queue->queue_no), "adopting a queue");
}

/* What groups have finished was in the table that is no more: in a new epoch the rows about it are void. */
static bool
begin_anew(void *arg)
{
	MqQueue    *queue = arg;
	MqSqlContext context;

	mq_sql_begin(&context);
	/* row and table at one moment: it may have been dropped and made again since they were looked up */
	if (mq_sql("SELECT FROM mq_internal.queue q JOIN pg_class c ON relnamespace = 'mq'::regnamespace AND relname = 'q_' || q.name "
			   "WHERE queue_no = %d AND c.oid = %u AND queue_table <> c.oid FOR UPDATE OF q SKIP LOCKED", queue->queue_no, queue->table) == 0)
	{
		mq_sql_end(&context);
		return false;
	}
	ereport(WARNING,
			(errmsg("the table of queue \"%s\" was replaced by another one", NameStr(queue->name)),
			 errdetail("Its consumer groups begin at the start of what is there.")));
	mq_sql("DELETE FROM mq_internal.segment WHERE queue_no = %d", queue->queue_no);
	mq_sql("UPDATE mq_internal.consumer_group SET epoch = epoch + 1, start_id = 1 WHERE queue_no = %d", queue->queue_no);
	record_place(queue);
	mq_sql_end(&context);
	/* the partitions that the table has now */
	(void) mq_segment_record_all(queue);
	mq_segment_close_all(queue);
	mq_catalog_changed();
	return true;
}

/* Slots are freed when the new epoch is committed, so that whoever makes them again finds it. */
bool
mq_job_take_over_table(MqQueueItem *item)
{
	MqChainKey	chain = mq_chain_key(&item->queue, 0);

	if (!mq_job_run(begin_anew, &item->queue, MQ_JOB_FOR(item->queue.queue_no), "taking over a table"))
		return false;
	for (int i = 0; i < item->ngroups; i++)
	{
		MqWindowKey key = mq_window_key(&item->groups[i], 0);

		mq_window_forget(&key);
	}
	mq_chain_forget(&chain);
	return true;
}
