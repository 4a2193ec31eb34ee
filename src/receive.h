/*
 * receive.h: handing out messages.
 */
#ifndef MQ_RECEIVE_H
#define MQ_RECEIVE_H

#include "window.h"

/* A receipt: group, level, id and fencing token, in 16 opaque bytes. */
typedef struct MqReceipt
{
	int32		group_no;
	int32		level;
	int64		id;
	uint64		token;
} MqReceipt;

extern void mq_receipt_decode(const unsigned char *bytes, MqReceipt *receipt);

#endif
