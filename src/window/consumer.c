/*
 * consumer.c: consumers with a name, and how much may be in flight. See consumer.h.
 */
#include "postgres.h"

#include "window/consumer.h"

#include "common/hashfn.h"

/* With a number of this start of the server, so that nobody can choose names that are all in one list. */
static int
list_of(const char *name)
{
	return (int) (hash_bytes_extended((const unsigned char *) name, (int) strlen(name), mq_shared->token_mask) % MQ_CONSUMER_LISTS);
}

/* The cell of the name; 0: it has none. */
static uint32
find(const MqWindow *window, const char *name)
{
	uint32		c = window->consumers[list_of(name)];

	while (c != 0 && strcmp(MqConsumerAt(c)->name, name) != 0)
		c = MqConsumerAt(c)->next;
	return c;
}

/* Takes one cell, which the list must have. It counts as an entry of the window, as every cell that hangs on it. */
static uint32
add(MqWindow *window, const char *name, MqCellList *cells)
{
	uint32		c = mq_cell_take(cells);
	MqConsumer *consumer = MqConsumerAt(c);

	strlcpy(consumer->name, name, sizeof(consumer->name));
	consumer->list = list_of(name);
	consumer->previous = 0;
	consumer->next = window->consumers[consumer->list];
	if (consumer->next != 0)
		MqConsumerAt(consumer->next)->previous = c;
	window->consumers[consumer->list] = c;
	window->nodes++;
	return c;
}

/* No entry may point to it any more: its cell is freed. */
static void
remove_name(MqWindow *window, uint32 consumer)
{
	const MqConsumer *c = MqConsumerAt(consumer);

	if (c->previous == 0)
		window->consumers[c->list] = c->next;
	else
		MqConsumerAt(c->previous)->next = c->next;
	if (c->next != 0)
		MqConsumerAt(c->next)->previous = c->previous;
	window->nodes--;
	mq_cell_free(consumer);
}

uint32
mq_consumer_of(MqWindow *window, const MqTaker *taker, MqCellList *for_name)
{
	uint32		c;

	if (taker->consumer == NULL)
		return 0;
	c = find(window, taker->consumer);
	return c != 0 || for_name->count == 0 ? c : add(window, taker->consumer, for_name);
}

void
mq_consumer_remove_if_idle(MqWindow *window, uint32 consumer)
{
	if (consumer != 0 && MqConsumerAt(consumer)->in_flight == 0)
		remove_name(window, consumer);
}

void
mq_consumer_join(MqWindow *window, MqNode *n, uint32 consumer)
{
	n->consumer = consumer;
	if (consumer == 0)
		return;
	MqConsumerAt(consumer)->in_flight += n->hi - n->lo + 1;
	window->named += n->hi - n->lo + 1;
}

/* The name goes with the last of its messages in flight. */
void
mq_consumer_leave(MqWindow *window, MqNode *n)
{
	uint32		c = n->consumer;

	/* of what is not read the field means something else */
	Assert(n->state != MQ_UNREAD);
	if (c == 0)
		return;
	n->consumer = 0;
	MqConsumerAt(c)->in_flight -= n->hi - n->lo + 1;
	window->named -= n->hi - n->lo + 1;
	mq_consumer_remove_if_idle(window, c);
}

int64
mq_consumer_in_flight(const MqWindow *window)
{
	return window->ids[MQ_LEASED] + window->ids[MQ_SETTLING];
}

/* In flight for a name; all that no name is counted for belong together. */
static int64
in_flight_of(const MqWindow *window, const char *name)
{
	uint32		c = name == NULL ? 0 : find(window, name);

	if (name == NULL)
		return mq_consumer_in_flight(window) - window->named;
	return c == 0 ? 0 : MqConsumerAt(c)->in_flight;
}

int
mq_consumer_room(MqWindow *window, MqTaker *taker, int max)
{
	int64		room = max;

	if (taker->max_in_flight > 0)
		room = Min(room, taker->max_in_flight - mq_consumer_in_flight(window));
	if (taker->max_per_consumer > 0)
		room = Min(room, taker->max_per_consumer - in_flight_of(window, taker->consumer));
	taker->limited = room <= 0;
	window->limited |= taker->limited;
	taker->blocked = taker->limited && taker->max_per_consumer > 0;
	return (int) Max(room, 0);
}

void
mq_consumer_clear(MqWindow *window)
{
	for (int i = 0; i < MQ_CONSUMER_LISTS; i++)
		while (window->consumers[i] != 0)
			remove_name(window, window->consumers[i]);
	window->named = 0;
}
