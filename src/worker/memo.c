/*
 * memo.c: what a worker remembers of queues or groups. See memo.h.
 */
#include "postgres.h"

#include "worker/memo.h"

#include "utils/memutils.h"

#include "base/clock.h"

#define SWEEP_AT_LEAST	64
/* the worker asks for what is alive at each visit, that is once a minute at least */
#define KEPT			(600 * MQ_S)

static void
make(MqMemo *memo)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(int32);
	ctl.entrysize = memo->entry_size;
	memo->entries = hash_create(memo->name, SWEEP_AT_LEAST, &ctl, HASH_ELEM | HASH_BLOBS);
	memo->sweep_at = SWEEP_AT_LEAST;
}

/* What was not asked for in KEPT goes, and its data. The next sweep comes when there are twice as many as were left. */
static void
sweep(MqMemo *memo, int64 now)
{
	HASH_SEQ_STATUS status;
	MqMemoHead *entry;

	hash_seq_init(&status, memo->entries);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (now - entry->asked < KEPT)
			continue;
		if (entry->data != NULL)
			pfree(entry->data);
		(void) hash_search(memo->entries, &entry->number, HASH_REMOVE, NULL);
	}
	memo->sweep_at = Max(2 * hash_get_num_entries(memo->entries), SWEEP_AT_LEAST);
}

void *
mq_memo(MqMemo *memo, int32 number)
{
	int64		now = mq_monotonic_us();
	bool		found;
	MqMemoHead *entry;

	if (memo->entries == NULL)
		make(memo);
	if (hash_get_num_entries(memo->entries) >= memo->sweep_at)
		sweep(memo, now);
	entry = hash_search(memo->entries, &number, HASH_ENTER, &found);
	if (!found)
		memset((char *) entry + sizeof(int32), 0, memo->entry_size - sizeof(int32));
	entry->asked = now;
	return entry;
}

void *
mq_memo_find(const MqMemo *memo, int32 number)
{
	return memo->entries == NULL ? NULL : hash_search(memo->entries, &number, HASH_FIND, NULL);
}
