/*
 * volume.h: how many bytes of messages lie between two places of a log, for queues with the option max_bytes.
 *
 * A message's bytes are those of its row, as it is stored: compressed, and with what goes to the TOAST table. Of what was appended
 * before this was kept the files tell. Guarded by the append lock.
 */
#ifndef MQ_VOLUME_H
#define MQ_VOLUME_H

#include "access/htup.h"

#include "base/catalog.h"

typedef struct MqVolume
{
	double		rows;
	double		bytes;
} MqVolume;

/* These were appended, in that order; the first has that id. Caller holds the append lock, and has seen that the volume is kept. */
extern void mq_volume_add(MqChain *chain, HeapTuple *tuples, int count, int64 first_id);

/*
 * What lies from an id on to the end of the log: near the truth, for places between marks are estimated. The queue is attached and has
 * max_bytes. Where it is not kept yet, or for another max_bytes, the files are measured, without waiting for those that are locked.
 */
extern MqVolume mq_volume_from(const MqQueue *queue, int level, int64 id);

#endif
