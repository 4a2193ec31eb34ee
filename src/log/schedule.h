/*
 * schedule.h: messages that are not due yet.
 *
 * One row each in mq_internal.scheduled_*, by when they are due: tables of an hour, of a day, and one for all that is later. The worker
 * moves what comes nearer from table to table, at most twice, and what is due to the log of its queue. A row is inserted once and
 * deleted once and never updated; tables of an hour and of a day are emptied by TRUNCATE when their time is over.
 *
 * Where a row is says nothing about when it is due: whoever looks for one looks in all tables. A reschedule makes another row, with the
 * next version.
 */
#ifndef MQ_SCHEDULE_H
#define MQ_SCHEDULE_H

#include "access/htup.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "base/catalog.h"

/* Columns of a row, by number: the tables are written without the executor. */
typedef enum MqScheduleColumn
{
	MQ_SCHED_ID = 1,
	MQ_SCHED_DUE_AT,
	MQ_SCHED_SENT_AT,
	MQ_SCHED_QUEUE_NO,
	MQ_SCHED_VERSION,
	MQ_SCHED_KIND,
	MQ_SCHED_SENDER,
	MQ_SCHED_HEADERS,
	MQ_SCHED_PAYLOAD,
	MQ_SCHED_BODY,
	MQ_SCHED_EXPIRES_IN,
	MQ_SCHED_ORIGIN_ID,
	MQ_SCHED_ORIGIN_QUEUE,
	MQ_SCHED_TARGET_GROUP,
	MQ_SCHED_TARGET_EPOCH,
	MQ_SCHED_PRIORITY,
	MQ_SCHED_ATTEMPT,
	MQ_SCHED_FAILURES,
	MQ_SCHED_REPLY_TO,
	MQ_SCHED_KEY,
	MQ_SCHED_ROUTING_KEY,
	MQ_SCHED_DEDUP_ID,
	MQ_SCHED_REASON,
	MQ_SCHED_DEATH,
	MQ_SCHED_COLUMNS = MQ_SCHED_DEATH
} MqScheduleColumn;

/* Values of the column kind. */
#define MQ_SCHED_KIND_SEND	's'
#define MQ_SCHED_KIND_REDRIVE	'd'

/* A row's values, those that are varlena in memory of the caller's. */
typedef struct MqScheduledRow
{
	Datum		v[MQ_SCHED_COLUMNS];
	bool		isnull[MQ_SCHED_COLUMNS];
	int			table;			/* where it is, once it is read */
	ItemPointerData tid;
} MqScheduledRow;

#define MQ_SCHEDULE_TABLES	7

/* The tables that have been opened for one call. They are locked until the transaction ends. A static or palloc'd, zeroed one. */
typedef struct MqScheduleTables
{
	Relation	rel[MQ_SCHEDULE_TABLES];
	struct ResultRelInfo *indexes[MQ_SCHEDULE_TABLES];
	bool		parent_locked;
} MqScheduleTables;

extern void mq_schedule_close(MqScheduleTables *tables);

/*
 * Who puts rows in, or takes them out, first locks the schedule of the queue to the end of the transaction; who drops the queue locks it
 * against all of them before any other lock (drop true). 42704 if the queue was dropped meanwhile. The second does not wait; false:
 * somebody drops the queue.
 */
extern void mq_schedule_lock(const MqQueue *queue, bool drop);
extern bool mq_schedule_lock_at_once(const MqQueue *queue);

/*
 * Inserts a row, into the table for its due time. 42704 if the extension was dropped, 55000 if a superuser has altered the table. Waits
 * for nobody but who drops or empties a table. Returns the size of the row.
 */
extern Size mq_schedule_insert(MqScheduleTables *tables, MqScheduledRow *row);

/*
 * Inserts the row of a message (of any number of columns, MqColumn) that is due then, under that id. kind: by whom it was put in; a send
 * notes the current role as its sender. Errors and locks as above.
 */
extern void mq_schedule_put(MqScheduleTables *tables, const MqQueue *queue, HeapTuple message, char kind, TimestampTz due, int64 id);

/* The message of a row, for the log, which gives it an id; palloc'd. */
extern HeapTuple mq_schedule_message(const MqScheduledRow *row);

/*
 * The row of the message that mq.send returned this id for, also one of this transaction; false: there is none now, which is for good but
 * for senders that are undecided. Values are copied.
 */
extern bool mq_schedule_find(MqScheduleTables *tables, int32 queue_no, int64 id, MqScheduledRow *row);

/*
 * Deletes a row that was found. Waits for who is about to do so too. False: that one has, and committed; then it is to be looked for again.
 */
extern bool mq_schedule_delete(MqScheduleTables *tables, const MqScheduledRow *row);

/*
 * Deletes all rows of a queue, whatever snapshot the transaction has. Nobody is writing any more: the caller has locked the queue's table.
 */
extern void mq_schedule_delete_all(int32 queue_no);

/* The rows of a queue that a snapshot sees, by id, above one id and at most so many; palloc'd, and values copied. */
extern MqScheduledRow *mq_schedule_after(int32 queue_no, int64 after, int max, Snapshot snapshot, int *count);

/* How many there are in the queue, by a snapshot of now: counted row by row; or from what is known of it in shared memory, if it is. */
extern int64 mq_schedule_count(int32 queue_no);
extern int64 mq_schedule_size(const MqQueue *queue);	/* -1: somebody has a table locked */

/* Whether all tables could be locked ACCESS SHARE at once, which they are then until the transaction ends. */
extern bool mq_schedule_lock_tables_at_once(void);

/* The greatest id in rows of the queue, whether they are visible or not; -1: none. */
extern int64 mq_schedule_max_id(int32 queue_no);

/* ---- in the order of due times ---- */

/* A place in that order: of two messages that are due at once, the one that was sent first comes first. */
typedef struct MqDuePlace
{
	TimestampTz due;
	int64		id;
} MqDuePlace;

typedef struct MqScheduleScan MqScheduleScan;

/* The row a scan is at. */
typedef struct MqDueRow
{
	MqDuePlace	place;
	TransactionId sender;		/* undecided; InvalidTransactionId: committed */
	int			table;
} MqDueRow;

/*
 * Goes through the rows of a queue that are behind a place, whoever has inserted or deleted them, unless that is over and done: a row
 * with an undecided sender, or that somebody is about to delete, is among them. Tables: those of a tier, or all.
 */
typedef enum MqScheduleTier
{
	MQ_SCHEDULE_ALL,
	MQ_SCHEDULE_HOURS,
	MQ_SCHEDULE_DAYS,
	MQ_SCHEDULE_LATER
} MqScheduleTier;

extern MqScheduleScan *mq_schedule_scan_begin(int32 queue_no, MqDuePlace behind, MqScheduleTier tier);
extern bool mq_schedule_scan_next(MqScheduleScan *scan, MqDueRow *row);

/* The values of the row that it is at; those that are varlena lie in a page that stays pinned until the next one. */
extern void mq_schedule_scan_values(MqScheduleScan *scan, MqScheduledRow *row);

/* Deletes the row that it is at, unless somebody else is about to, or has. Never waits. */
typedef enum MqTaken
{
	MQ_TAKEN,
	MQ_TAKEN_BY_OTHERS,			/* it is gone */
	MQ_BUSY						/* *deleter will have it, or not; InvalidTransactionId: it is not known who has it locked */
} MqTaken;

extern MqTaken mq_schedule_scan_take(MqScheduleScan *scan, TransactionId *deleter);
extern void mq_schedule_scan_end(MqScheduleScan *scan);

/* ---- tables ---- */

/* Who writes to one of them has this locked ROW EXCLUSIVE. */
extern Oid	mq_schedule_parent(void);

/* For the worker, who waits for no lock: their oids, with which it locks them first. InvalidOid: it is gone. */
extern Oid	mq_schedule_table(int table);

/* Until when rows go to the tables of a day, or to the one for later; those that are due earlier belong nearer. */
extern TimestampTz mq_schedule_begin_of_tier(MqScheduleTier tier, TimestampTz now);

/* Whether rows that are due now or later can come to the table. */
extern bool mq_schedule_table_is_in_use(int table, TimestampTz now);

/* Whether mq_schedule_truncate, asked now, would empty it, and it has a page. The caller has it locked ACCESS SHARE. */
extern bool mq_schedule_may_be_empty(int table);

/* Empties a table if nobody can see a row of it, or will. The caller has locked it ACCESS EXCLUSIVE; false: somebody can. */
extern bool mq_schedule_truncate(int table);

#endif
