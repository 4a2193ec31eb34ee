/*
 * dedup.c: mq.dedup_find and mq.dedup_forget.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "log/dedup.h"
#include "log/schedule.h"
#include "offset/rebuild.h"
#include "verbs/verbs.h"

MQ_FUNCTION(mq_dedup_find_message);
Datum
mq_dedup_find_message(PG_FUNCTION_ARGS)
{
	MqQueue		queue;
	int64		id;

	mq_check_primary("mq.dedup_find()");
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), &queue);
	mq_check_right(&queue, MQ_RIGHT_SEND);
	id = mq_dedup_find(&queue, cstring_to_text(mq_text_arg(fcinfo, 1, "dedup_id")));
	if (id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(id);
}

MQ_FUNCTION(mq_dedup_forget_id);
Datum
mq_dedup_forget_id(PG_FUNCTION_ARGS)
{
	MqQueue		queue;

	mq_check_writable("mq.dedup_forget()");
	mq_queue_by_name(mq_text_arg(fcinfo, 0, "queue"), &queue);
	mq_check_right(&queue, MQ_RIGHT_MANAGE);
	mq_check_not_null(fcinfo, 1, "dedup_id");
	mq_attach_queue(&queue);
	/* a drop of the queue has to wait for the row that is made here */
	mq_schedule_lock(&queue, false);
	PG_RETURN_BOOL(mq_dedup_forget(&queue, cstring_to_text(mq_text_arg(fcinfo, 1, "dedup_id"))));
}
