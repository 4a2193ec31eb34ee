/*
 * sizes.h: how large the tables of queues are, by their files. Nobody's lock is waited for.
 */
#ifndef MQ_SIZES_H
#define MQ_SIZES_H

/* Bytes of the table's own rows, without TOAST and indexes; 0: it was dropped meanwhile. */
extern int64 mq_main_bytes(Oid relid);

/*
 * Sizes of segments for one statement: those of a queue are measured once, by the function, however often they are asked for.
 * All is in memory of the context.
 */
typedef struct MqSizes MqSizes;

extern MqSizes *mq_sizes_begin(MemoryContext context, int64 (*measure) (Oid relid));

/* Bytes of a queue's segments from that number on. */
extern int64 mq_sizes_from(MqSizes *sizes, int32 queue_no, int64 segment);

#endif
