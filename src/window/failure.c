/*
 * failure.c: why messages failed, noted in shared memory until the worker writes it down. See failure.h.
 *
 * A note is a cell, its texts are in cells behind it. The list of a database is guarded by its mutex, held for a few instructions: notes
 * are made before and linked then. How many a group has noted since the worker took the list is guarded by the window lock, or by nothing
 * (mq_failure_note_range): one too many does no harm. A crash loses what was not written.
 */
#include "postgres.h"

#include "window/failure.h"

#include "mb/pg_wchar.h"
#include "utils/timestamp.h"

#define NOTES_PER_GROUP	256

static MqDatabase *
database_of(const MqWindow *window)
{
	for (int i = 0; i < MQ_MAX_DATABASES; i++)
		if (memcmp(&mq_databases[i].key, &window->key.db, sizeof(MqDatabaseKey)) == 0)
			return &mq_databases[i];
	return NULL;
}

/* Appends bytes to the chain of text cells of which *last is the last one, with *used bytes in it. The list has the cells. */
static void
add_text(MqNote *note, uint32 *last, int *used, const char *text, int length, MqCellList *cells)
{
	while (length > 0)
	{
		MqText	   *chunk = *last == 0 ? NULL : MqTextAt(*last);
		int			n;

		if (chunk == NULL || *used == MQ_TEXT_BYTES)
		{
			uint32		cell = mq_cell_take(cells);

			if (chunk == NULL)
				note->text = cell;
			else
				chunk->next = cell;
			*last = cell;
			*used = 0;
			chunk = MqTextAt(cell);
		}
		n = Min(length, MQ_TEXT_BYTES - *used);
		memcpy(chunk->bytes + *used, text, n);
		*used += n;
		text += n;
		length -= n;
	}
}

/* Last in, first out: the worker sorts by time. False: the database is no more. */
static bool
link_note(MqDatabase *db, const MqWindow *window, uint32 cell)
{
	bool		same;

	SpinLockAcquire(&db->mutex);
	same = memcmp(&db->key, &window->key.db, sizeof(MqDatabaseKey)) == 0;
	if (same)
	{
		MqNoteAt(cell)->next = db->notes;
		db->notes = cell;
	}
	SpinLockRelease(&db->mutex);
	return same;
}

/* Frees a note and its texts. */
static void
free_note(uint32 cell)
{
	for (uint32 text = MqNoteAt(cell)->text; text != 0;)
	{
		uint32		next = MqTextAt(text)->next;

		mq_cell_free(text);
		text = next;
	}
	mq_cell_free(cell);
}

/* Its next is set when it is linked. */
static void
note(MqWindow *window, const MqNote *content, const char *consumer, const char *reason)
{
	MqDatabase *db = database_of(window);
	int			consumer_length = (int) strlen(consumer);
	int			reason_length = reason == NULL ? 0 : pg_mbcliplen(reason, (int) strlen(reason), MQ_REASON_MAX);
	MqCellList	cells;
	uint32		cell;
	uint32		last = 0;
	int			used = 0;

	if (db == NULL)
		return;
	if (window->drains != db->drains)
	{
		window->drains = db->drains;
		window->noted = 0;
	}
	if (window->noted >= NOTES_PER_GROUP ||
		!mq_cells_reserve(&cells, 1 + (consumer_length + reason_length + MQ_TEXT_BYTES - 1) / MQ_TEXT_BYTES, false))
	{
		window->not_noted++;
		return;
	}
	window->noted++;
	cell = mq_cell_take(&cells);
	*MqNoteAt(cell) = *content;
	MqNoteAt(cell)->consumer_length = (uint16) consumer_length;
	MqNoteAt(cell)->reason_length = (uint16) reason_length;
	MqNoteAt(cell)->has_reason = reason != NULL;
	add_text(MqNoteAt(cell), &last, &used, consumer, consumer_length, &cells);
	if (reason != NULL)
		add_text(MqNoteAt(cell), &last, &used, reason, reason_length, &cells);
	mq_cells_return(&cells);
	if (link_note(db, window, cell))
		mq_worker_nudge(db);
	else
		free_note(cell);
}

void
mq_failure_note(MqWindow *window, const MqNode *n, TimestampTz due, const MqCause *cause)
{
	MqNote		content = {.group_no = window->key.group_no,.lo = n->lo,.hi = n->hi,.at = GetCurrentTimestamp(),.due = due,
		.attempts = n->attempts,.failures = n->failures,.kind = (uint8) cause->kind,.sqlstate = cause->sqlstate};
	bool		has_name = (n->state == MQ_LEASED || n->state == MQ_SETTLING) && n->consumer != 0;

	if (!cause->noted)
		note(window, &content, has_name ? MqConsumerAt(n->consumer)->name : "", cause->reason);
}

void
mq_failure_note_range(MqWindow *window, int64 lo, int64 hi, const MqCause *cause)
{
	MqNote		content = {.group_no = window->key.group_no,.lo = lo,.hi = hi,.at = GetCurrentTimestamp(),
		.kind = (uint8) cause->kind,.sqlstate = cause->sqlstate};

	note(window, &content, "", cause->reason);
}

uint32
mq_failures_take(MqDatabase *db)
{
	uint32		first;

	SpinLockAcquire(&db->mutex);
	first = db->notes;
	db->notes = 0;
	db->drains++;
	SpinLockRelease(&db->mutex);
	return first;
}

void
mq_failures_put_back(MqDatabase *db, uint32 first)
{
	uint32		last = first;

	while (MqNoteAt(last)->next != 0)
		last = MqNoteAt(last)->next;
	SpinLockAcquire(&db->mutex);
	MqNoteAt(last)->next = db->notes;
	db->notes = first;
	SpinLockRelease(&db->mutex);
}

uint32
mq_failure_read(uint32 cell, MqNotedFailure *failure)
{
	const MqNote *n = MqNoteAt(cell);
	char		text[MQ_NAME_LENGTH_MAX + MQ_REASON_MAX + 1];
	int			length = 0;

	for (uint32 t = n->text; t != 0; t = MqTextAt(t)->next)
	{
		int			part = Min(n->consumer_length + n->reason_length - length, MQ_TEXT_BYTES);

		memcpy(text + length, MqTextAt(t)->bytes, part);
		length += part;
	}
	*failure = (MqNotedFailure) {.group_no = n->group_no,.lo = n->lo,.hi = n->hi,.at = n->at,.due = n->due,.attempts = n->attempts,
		.failures = n->failures,.kind = (MqFailureKind) n->kind,.sqlstate = n->sqlstate,.has_reason = n->has_reason};
	memcpy(failure->consumer, text, n->consumer_length);
	failure->consumer[n->consumer_length] = '\0';
	memcpy(failure->reason, text + n->consumer_length, n->reason_length);
	failure->reason[n->reason_length] = '\0';
	return n->next;
}

void
mq_failures_free(uint32 first)
{
	while (first != 0)
	{
		uint32		next = MqNoteAt(first)->next;

		free_note(first);
		first = next;
	}
}
