/*
 * checkpoint.h: writing down what is unfinished.
 */
#ifndef MQ_CHECKPOINT_H
#define MQ_CHECKPOINT_H

#include "offset/offset_log.h"
#include "window/window.h"

/* Entries of a window whose checkpoint costs next to nothing; larger ones have to be worth it. */
#define MQ_SMALL_CHECKPOINT 32768

typedef struct MqCheckpoint
{
	MqGroup		group;
	int32		epoch;			/* in which the window was when it was read */
	int64		low;
	int64		next_id;
	int64		replay_from;
	MqWritten	written;
	uint64		changes;
	bool		failures_changed;
	MqUnfinished *unfinished;	/* palloc'd */
	int			count;
} MqCheckpoint;

/* Whether a checkpoint is worth its size by now. */
extern bool mq_checkpoint_is_due(const MqWindowRef *ref);

/* Writes a checkpoint in the current transaction; false: the window is gone. Errors as heap_insert. */
extern bool mq_checkpoint_write(const MqGroup *group, MqCheckpoint *checkpoint);

/* To be called after that transaction has committed, or failed. */
extern void mq_checkpoint_committed(const MqCheckpoint *checkpoint);
extern void mq_checkpoint_failed(const MqCheckpoint *checkpoint);

/* No row with a smaller n can still be undecided. */
extern int64 mq_oldest_undecided_n(MqDatabase *db);

#endif
