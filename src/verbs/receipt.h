/*
 * receipt.h: names one hand-out of a message: group, level, id and fencing token, in 16 opaque bytes.
 */
#ifndef MQ_RECEIPT_H
#define MQ_RECEIPT_H

#define MQ_RECEIPT_BYTES 16

typedef struct MqReceipt
{
	int32		group_no;
	int32		level;
	int64		id;
	uint64		token;
} MqReceipt;

/* bytes: MQ_RECEIPT_BYTES of them. Any bytes can be decoded; what they name need not exist. */
extern void mq_receipt_encode(const MqReceipt *receipt, unsigned char *bytes);
extern void mq_receipt_decode(const unsigned char *bytes, MqReceipt *receipt);

#endif
