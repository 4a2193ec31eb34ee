/*
 * order.c: whether the pages of a segment are in the order of ids. See order.h.
 *
 * Owns nothing but what it is given. A segment is read under ACCESS SHARE, page by page; a crash loses how far that was.
 */
#include "postgres.h"

#include "log/order.h"

#include "miscadmin.h"
#include "storage/bufmgr.h"

#include "log/page.h"

bool
mq_order_check(const MqQueue *queue, int64 segment, Relation rel, MqOrderCheck *check, BlockNumber pages)
{
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);
	int64		lo = segment * queue->segment_size;
	int64		hi = lo + queue->segment_size - 1;

	/* also when the file is shorter than what was looked at */
	if (check->file != MqRelFileNumber(rel) || check->next > blocks)
		*check = (MqOrderCheck) {.file = MqRelFileNumber(rel), .max_id = -1, .max_time = -1, .in_order = true};
	for (; pages > 0 && check->next < blocks && check->in_order; pages--, check->next++)
	{
		MqPageRange page = mq_log_page_range(rel, check->next, lo, hi, &check->has_others);

		CHECK_FOR_INTERRUPTS();
		if (page.max_id < 0)
			continue;
		check->in_order = page.min_id > check->max_id && page.max_time >= check->max_time;
		check->max_id = Max(check->max_id, page.max_id);
		check->max_time = Max(check->max_time, page.max_time);
	}
	check->in_order &= !check->has_others;
	return check->next >= blocks || !check->in_order;
}

bool
mq_order_holds(const MqQueue *queue, int level, int64 segment, Relation rel)
{
	MqOrderCheck check = {0};

	switch (mq_segment_trust(queue, level, segment, rel))
	{
		case MQ_TRUST_NONE:
		case MQ_TRUST_OUT_OF_ORDER:
			return false;
		case MQ_TRUST_IN_ORDER:
			return true;
		case MQ_TRUST_UNKNOWN:
			break;
	}
	while (!mq_order_check(queue, segment, rel, &check, MaxBlockNumber))
		;
	mq_segment_found_order(queue, level, segment, rel, check.in_order);
	return check.in_order;
}
