/*
 * memo.c: what a worker remembers of queues or groups. See memo.h.
 */
#include "memo.h"

#include "utils/memutils.h"

/* fewer entries than this are kept, whatever they are about */
#define KEPT 64

static void
start_afresh(MqMemo *memo)
{
	HASHCTL		ctl;

	if (memo->context == NULL)
		memo->context = AllocSetContextCreate(TopMemoryContext, "mq worker memo", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(memo->context);
	ctl.keysize = sizeof(int32);
	ctl.entrysize = memo->entry_size;
	ctl.hcxt = memo->context;
	memo->entries = hash_create(memo->name, KEPT, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void *
mq_memo(MqMemo *memo, int32 number, int alive)
{
	bool		found;
	char	   *entry;

	if (memo->entries == NULL || hash_get_num_entries(memo->entries) > KEPT + 2L * alive)
		start_afresh(memo);
	entry = hash_search(memo->entries, &number, HASH_ENTER, &found);
	if (!found)
		memset(entry + sizeof(int32), 0, memo->entry_size - sizeof(int32));
	return entry;
}
