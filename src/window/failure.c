/*
 * failure.c: why messages failed, noted in shared memory until the worker writes it down. See failure.h.
 *
 * A note is a cell, its texts are in cells behind it. The lists of a database are guarded by its mutex, held for a few instructions: notes
 * are made before and linked then; those that the worker is writing stay on the second list until they are written, whatever becomes of
 * the worker. How many a group has noted since is guarded by the window lock. A crash loses what was not written.
 */
#include "postgres.h"

#include "window/failure.h"

#include "utils/timestamp.h"

#include "window/window.h"

#define NOTES_PER_GROUP	256
#define NOTES_PER_DATABASE 4096

/* What messages need comes first: with so much of the memory in use there are notes without texts, or none. */
#define FREE_FOR_TEXTS	(mq_shared->total_cells / 2)
#define FREE_FOR_NOTES	(mq_shared->total_cells / 4)

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

/* Last in, first out: each has its time. *first: the worker has nothing to write down so far. False: the database is no more. */
static bool
link_note(MqDatabase *db, const MqWindow *window, uint32 cell, bool *first)
{
	bool		same;

	SpinLockAcquire(&db->mutex);
	same = memcmp(&db->key, &window->key.db, sizeof(MqDatabaseKey)) == 0;
	if (same)
	{
		*first = db->notes == 0;
		MqNoteAt(cell)->next = db->notes;
		db->notes = cell;
		db->nnotes++;
	}
	SpinLockRelease(&db->mutex);
	return same;
}

/* Whether the group may note one more; read without locks, for one too many does no harm. */
static bool
has_share(MqWindow *window, const MqDatabase *db)
{
	if (window->drains != db->drains)
	{
		window->drains = db->drains;
		window->noted = 0;
	}
	return window->noted < NOTES_PER_GROUP && db->nnotes < NOTES_PER_DATABASE && mq_shared->free_cells > FREE_FOR_NOTES;
}

/* reason: no longer than is kept. */
static void
note(MqWindow *window, const MqNote *content, const char *consumer, const char *reason)
{
	MqDatabase *db = database_of(window);
	bool		with_texts = mq_shared->free_cells > FREE_FOR_TEXTS;
	MqCellList	cells;
	uint32		cell;
	uint32		last = 0;
	int			used = 0;
	int			consumer_length;
	int			reason_length;
	bool		first;

	if (db == NULL)
		return;
	if (!has_share(window, db))
	{
		window->not_noted++;
		return;
	}
	consumer_length = with_texts ? (int) strlen(consumer) : 0;
	reason_length = with_texts && reason != NULL ? (int) strlen(reason) : 0;
	if (!mq_cells_reserve(&cells, 1 + (consumer_length + reason_length + MQ_TEXT_BYTES - 1) / MQ_TEXT_BYTES, false))
	{
		window->not_noted++;
		return;
	}
	window->noted++;
	cell = mq_cell_take(&cells);
	*MqNoteAt(cell) = *content;
	MqNoteAt(cell)->consumer_length = (uint16) consumer_length;
	MqNoteAt(cell)->reason_length = (uint16) reason_length;
	MqNoteAt(cell)->has_reason = reason != NULL && with_texts;
	add_text(MqNoteAt(cell), &last, &used, consumer, consumer_length, &cells);
	if (reason_length > 0)
		add_text(MqNoteAt(cell), &last, &used, reason, reason_length, &cells);
	mq_cells_return(&cells);
	if (!link_note(db, window, cell, &first))
	{
		MqNoteAt(cell)->next = 0;
		mq_notes_free(cell);
	}
	else if (first)
		mq_worker_nudge(db);
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
mq_failure_note_range(const MqWindowRef *ref, int64 lo, int64 hi, const MqCause *cause)
{
	MqNote		content = {.group_no = ref->key.group_no,.lo = lo,.hi = hi,.at = GetCurrentTimestamp(),
		.kind = (uint8) cause->kind,.sqlstate = cause->sqlstate};

	/* the slot may have become another group's */
	if (!mq_window_lock(ref, LW_EXCLUSIVE))
		return;
	note(ref->window, &content, "", cause->reason);
	mq_window_unlock(ref);
}

uint32
mq_failures_take(MqDatabase *db)
{
	uint32		first;

	SpinLockAcquire(&db->mutex);
	if (db->notes_written == 0)
	{
		db->notes_written = db->notes;
		db->nnotes_written = db->nnotes;
		db->notes = 0;
	}
	first = db->notes_written;
	SpinLockRelease(&db->mutex);
	return first;
}

void
mq_failures_done(MqDatabase *db)
{
	uint32		first;

	SpinLockAcquire(&db->mutex);
	first = db->notes_written;
	db->notes_written = 0;
	db->nnotes -= db->nnotes_written;
	db->nnotes_written = 0;
	db->drains++;
	SpinLockRelease(&db->mutex);
	mq_notes_free(first);
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
