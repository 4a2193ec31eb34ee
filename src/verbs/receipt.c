/*
 * receipt.c: the 16 bytes of a receipt. See receipt.h.
 *
 * From the highest bit on: 24 bits group, 4 bits level, 48 bits id, 52 bits token.
 */
#include "postgres.h"

#include "verbs/receipt.h"

void
mq_receipt_encode(const MqReceipt *r, unsigned char *bytes)
{
	uint64		high = ((uint64) r->group_no << 40) | ((uint64) r->level << 36) | ((uint64) r->id >> 12);
	uint64		low = ((uint64) r->id << 52) | r->token;

	for (int i = 0; i < 8; i++)
	{
		bytes[i] = (unsigned char) (high >> (56 - 8 * i));
		bytes[8 + i] = (unsigned char) (low >> (56 - 8 * i));
	}
}

void
mq_receipt_decode(const unsigned char *bytes, MqReceipt *r)
{
	uint64		high = 0;
	uint64		low = 0;

	for (int i = 0; i < 8; i++)
	{
		high = (high << 8) | bytes[i];
		low = (low << 8) | bytes[8 + i];
	}
	r->group_no = (int32) (high >> 40);
	r->level = (int32) ((high >> 36) & 0xF);
	r->id = (int64) (((high & UINT64CONST(0xFFFFFFFFF)) << 12) | (low >> 52));
	r->token = low & ((UINT64CONST(1) << 52) - 1);
}
