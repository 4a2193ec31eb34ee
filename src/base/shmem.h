/*
 * shmem.h: what the backends share. Which lock guards a field is written beside it.
 *
 * Everything here is lost in a crash and made anew: append positions from the heaps and the sequence, delivery
 * windows from the offset log. Slots of the three arrays are reused; whoever kept a pointer checks the key again
 * once it holds the slot's lock.
 */
#ifndef MQ_SHMEM_H
#define MQ_SHMEM_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/block.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "base/compat.h"

StaticAssertDecl(sizeof(Datum) == sizeof(int64), "mq needs a 64-bit platform");

#define MQ_MAX_DATABASES		128
#define MQ_MAX_OFFSET_TABLES	256

/* An extension in a database. Both oids: DROP and CREATE EXTENSION begin anew, with numbers that start again. */
typedef struct MqDatabaseKey
{
	Oid			database;
	Oid			extension;
} MqDatabaseKey;

/*
 * One database that has the extension.
 *
 * The spinlock guards the counter and the ring; it is held for a few instructions only.
 */
typedef struct MqDatabase
{
	MqDatabaseKey key;			/* registry lock; InvalidOid: free slot */
	slock_t		mutex;
	bool		rebuilt;		/* mutex; windows of all native groups are in memory */
	int64		last_group;		/* mutex; greatest number that a group, or a row of the offset log, has had */
	int64		known_groups;	/* mutex; groups with greater numbers were made since the rebuild: no rows before it */
	int64		counter;		/* mutex; last n given to a row of the offset log */
	int			ring_count;		/* mutex; number of offset log tables */
	int			ring_current;	/* mutex; where new rows go */
	int64		max_n[MQ_MAX_OFFSET_TABLES];	/* mutex; largest n that may be in each table, 0: empty */
	uint32		prepared;		/* mutex; list of MqPrepared: prepared transactions that acked */
	uint32		prepared_emptied;	/* mutex; goes up when the list is thrown away */
	int64		prepared_first_n;	/* mutex; no row of them has a smaller n; PG_INT64_MAX: there is none */
	int64		prepared_since_sweep;	/* mutex; the same of those that came since the worker's last sweep of the list began */
	int			worker_procno;	/* mutex; -1: none */
	pid_t		worker_pid;		/* mutex; 0: none */
	bool		worker_wanted;	/* mutex; somebody asks the launcher for a worker */
	bool		turn_wanted;	/* mutex; somebody asks the worker for a turn at once */
	int64		paused_until;	/* mutex; no worker before this time of clock.h (DROP DATABASE in progress) */
	uint32		notes;			/* mutex; list of MqNote: failures that the worker has to write down */
	uint32		notes_written;	/* mutex; those of them that it is writing down, or was when it ended */
	uint32		nnotes;			/* mutex; how many there are in both lists, */
	uint32		nnotes_written; /* and in the second one */
	uint32		drains;			/* mutex to write; how often the second list was done with */
	pg_atomic_uint32 moved_current;	/* the table that rows about moved messages go to (moved.c; no lock) */
	pg_atomic_uint64 next_due;	/* when something may be due in one of the queues (no lock) */
	pg_atomic_uint64 sleeps_until;	/* the worker looks at the schedules then; PG_INT64_MAX: it is looking, 0: there is none (no lock) */
} MqDatabase;

typedef struct MqChainKey
{
	MqDatabaseKey db;
	int32		queue_no;
	int32		level;
} MqChainKey;

/* Ids, both ends included. */
typedef struct MqRange
{
	int64		lo;
	int64		hi;
} MqRange;

#define MQ_GAPS 16

#define MQ_VOLUME_MARKS 32

/* So many rows, and their bytes, were appended before an id. */
typedef struct MqVolumeMark
{
	int64		id;
	double		rows;
	double		bytes;
} MqVolumeMark;

/* How much there is in a log (volume.h). Guarded by the append lock; a crash leaves nothing, and the files are measured again. */
typedef struct MqVolumeMarks
{
	int64		spacing;		/* bytes from one mark to the next, by the queue's max_bytes; 0: it is not kept */
	double		rows;			/* in all */
	double		bytes;
	int			count;
	MqVolumeMark mark[MQ_VOLUME_MARKS];	/* ascending */
} MqVolumeMarks;

/*
 * Bounds of a queue: how much senders may still send before somebody counts again what is unfinished (bounds.c), and what it was
 * counted for. The spinlock is held for a few instructions. A crash leaves nothing: the first sender counts.
 */
typedef struct MqBounds
{
	slock_t		mutex;			/* guards all but scheduling */
	int64		max_messages;	/* by these options and with this definition of the chain; else count again */
	int64		max_bytes;
	uint32		definition;
	int64		messages_left;
	int64		bytes_left;
	int64		admitted;		/* messages, ever */
	int64		rejected;		/* messages, since the start of the server */
	int64		paid_until;		/* ns of clock.h, at that rate: see rate.c */
	int32		rate;
	pg_atomic_uint64 scheduling;	/* put into the schedule, or being taken out by the worker, by open transactions (no lock) */
} MqBounds;
#define MQ_DEDUP_TABLES 10		/* dedup.h */

/* Append position of one chain of segments: one per queue and priority level. All guarded by the append lock. */
typedef struct MqChain
{
	MqChainKey	key;			/* registry lock to change; level -1: free slot */
	bool		ready;			/* the fields below are valid */
	int64		next_id;		/* the next message gets this id */
	int64		reserved_end;	/* ids below this are reserved from the sequence */
	int64		segment_size;
	int64		first_id;		/* ids below are from before the start of the server */
	MqRange		gaps[MQ_GAPS];	/* the last ids that were passed over and never given, ascending; by a start, or a segment's early end */
	int			ngaps;
	TimestampTz last_time;		/* enqueued_at never goes back */
	/* where the last message went; only meaningful while the segment's file is this one */
	int64		tail_segment;
	RelFileNumber tail_file;	/* InvalidRelFileNumber: not known, look it up */
	BlockNumber tail_block;
	uint32		truncations;	/* how often the end was found to be another: pages gone (VACUUM (TRUNCATE)), or ids skipped */
	int64		wanted_segment;	/* a sender waits for this segment; -1: none */
	bool		adopt_wanted;	/* a client used a queue that came from elsewhere */
	ConditionVariable segment_made;
	/* receivers that wait (wake.h) */
	slock_t		wait_mutex;		/* guards first_waiting, and of the windows and processes in line what wake.c says */
	int			first_waiting;	/* wait_mutex; slot of a window that has receivers in line, -1: none */
	pg_atomic_uint32 waiters;	/* in line, in all groups (written under wait_mutex, read without) */
	pg_atomic_uint32 notify;	/* MqNotify (no lock) */
	pg_atomic_uint32 definition;	/* goes up when the definition of the queue or a group of it changes (no lock) */
	/* messages that are not due (schedule.h) */
	pg_atomic_uint64 next_due;	/* the first that was put in since the worker's last look, or given back; PG_INT64_MAX: none (no lock) */
	pg_atomic_uint64 seen_due;	/* the first that this look has left, PG_INT64_MAX: none; 0: there was no look (the worker; no lock) */
	pg_atomic_uint64 scheduled; /* how many there are, once they have been counted: (no lock) */
	pg_atomic_uint32 scheduled_known;	/* set by the worker, unset by a PREPARE (no lock) */
	pg_atomic_uint32 scheduled_counted; /* set by the worker: not known or not, `scheduled` is near the truth (no lock) */
	MqBounds	bounds;
	MqVolumeMarks volume;
	/* deduplication ids (dedup.h) */
	pg_atomic_uint64 duplicates;	/* messages that were not sent, for their ids had been used (no lock) */
	pg_atomic_uint64 dedup_ids[MQ_DEDUP_TABLES];	/* about how many there are in each table, once they have been counted: (no lock) */
	pg_atomic_uint32 dedup_known;	/* set by the worker (no lock) */
} MqChain;

/* Whether the worker sends NOTIFY for the queue, and has been told that there is something new. */
typedef enum MqNotify
{
	MQ_NOTIFY_OFF,				/* -> IDLE, by the worker */
	MQ_NOTIFY_IDLE,				/* -> PENDING, by a sender; -> OFF */
	MQ_NOTIFY_PENDING			/* -> IDLE, by the worker before it looks */
} MqNotify;

typedef struct MqWindowKey
{
	MqDatabaseKey db;
	int32		group_no;
	int32		level;
} MqWindowKey;

/* States of an entry. Pending messages (sender undecided) are kept as chunks, outside the tree. */
typedef enum MqState
{
	MQ_READY,					/* may be handed out once due; -> LEASED, SETTLING (pop) */
	MQ_LEASED,					/* handed out; -> SETTLING, READY, UNREAD */
	MQ_SETTLING,				/* acked by an undecided transaction; -> gone, LEASED, READY, UNREAD */
	MQ_UNREAD,					/* to be read from the heap; -> READY, DEAD, pending chunks, gone */
	MQ_DEAD,					/* has failed too often; -> SETTLING (moved, discarded), UNREAD (retried) */
	MQ_STATES
} MqState;

#define MQ_NODE_OWN_SENT	0x01	/* its sender was undecided at hand-out: goes back to UNREAD */
#define MQ_NODE_OWN_LEASE	0x02	/* SETTLING: leased by the very transaction that acked it */
#define MQ_NODE_POPPED		0x04	/* SETTLING: by mq.pop, so the transaction may still nack or release it */
#define MQ_NODE_NACKED		0x08	/* ... and has: at the commit a failure is counted, and due is the due time */
#define MQ_NODE_RELEASED	0x10	/* ... the same without a failure */
#define MQ_NODE_LEFT		(MQ_NODE_NACKED | MQ_NODE_RELEASED)
#define MQ_NODE_OVERDUE		0x20	/* LEASED: was seen past its end, its transaction still open; that ends it at its commit */

/* As the due time of a message: it is dead, or will be once it is read. */
#define MQ_DUE_NEVER PG_INT64_MAX

#define MQ_RETRY_DELAYS_MAX	32

/* What becomes of a message that has failed. */
typedef struct MqRetryPolicy
{
	uint32		hash;			/* of all that follows */
	int32		max_failures;	/* it is dead then; 0: never */
	int32		ndelays;		/* 0: it comes back at once */
	int64		delays[MQ_RETRY_DELAYS_MAX];	/* microseconds; after the first failure, the second, ...; the last one repeats */
} MqRetryPolicy;

/*
 * A range of ids of one window in one state. Ranges of a window never overlap; an id below the window's end that is
 * in no range and no chunk is finished. Nodes are linked by index into the arena, 0 is none.
 */
typedef struct MqNode
{
	int64		lo;
	int64		hi;				/* inclusive; PG_INT64_MAX for the last one, the part nobody has read */
	uint64		token;			/* LEASED, SETTLING: fencing token */
	uint64		owner;			/* LEASED: session transaction that took it; SETTLING: full xid */
	TimestampTz due;			/* READY, UNREAD: not before this; LEASED, SETTLING: end of the lease; DEAD: MQ_DUE_NEVER */
	TimestampTz min_ready;		/* subtree: earliest due of READY */
	TimestampTz min_deadline;	/* subtree: earliest end of a LEASED that is not overdue */
	uint32		left;
	uint32		right;
	BlockNumber block;			/* where lo is, or was: a hint. UNREAD: no row of it is before this block */
	union
	{
		uint32		file_tag;	/* UNREAD: what the block is valid for (walk.c) */
		uint32		consumer;	/* LEASED, SETTLING: MqConsumer, 0: not known; READY: 0 */
	};
	uint16		attempts;
	uint16		failures;
	uint8		state;
	uint8		states;			/* subtree: bit mask of states, of MQ_NODE_OVERDUE, and whether a READY one has a due time */
	uint8		flags;
	uint8		unexplained;	/* of the failures, those of which no cause is known: they count half */
} MqNode;

#define MQ_CHUNK_BITS 256

/* Ids of one undecided sender, exactly: a range, or a bit map over MQ_CHUNK_BITS ids from lo. */
typedef struct MqChunk
{
	int64		lo;
	int64		hi;				/* the largest id in it */
	TimestampTz due;			/* its sender nacked them with a delay: not before this */
	uint64		bits[MQ_CHUNK_BITS / 64];
	uint32		next;
	BlockNumber block;			/* no row of it is before this block */
	uint32		file_tag;		/* what the block is valid for (walk.c) */
	uint16		attempts;		/* its sender received them itself and rolled back to a savepoint */
	uint16		failures;
	uint8		unexplained;
	bool		is_bitmap;
} MqChunk;

/* A sender that was undecided when its messages were seen. */
typedef struct MqPending
{
	uint64		xid;			/* full xid of its top transaction */
	uint32		first;			/* chunks, ascending */
	uint32		last;
	uint32		next;
	int64		count;			/* messages */
} MqPending;

/* A prepared transaction that acked: holds back the offset log. */
typedef struct MqPrepared
{
	uint64		xid;
	int64		first_n;
	uint32		next;
} MqPrepared;

#define MQ_NAME_LENGTH_MAX	48	/* bytes: "q_" and the name must fit an identifier */

#define MQ_CONSUMER_LISTS	64

/* A consumer with a name that has messages in flight. */
typedef struct MqConsumer
{
	int			list;			/* of the window */
	uint32		previous;		/* in it; 0: the first one */
	char		name[MQ_NAME_LENGTH_MAX + 1];
	uint32		next;
	int64		in_flight;		/* messages in LEASED and SETTLING entries that point here; 0: the cell is freed */
} MqConsumer;

/* Messages from lo to hi have failed. */
typedef struct MqNote
{
	uint32		next;
	uint32		text;			/* list of MqText: the consumer's name, then the reason */
	int32		group_no;
	int32		sqlstate;
	int64		lo;
	int64		hi;
	TimestampTz at;
	TimestampTz due;
	uint16		attempts;
	uint16		failures;
	uint16		consumer_length;
	uint16		reason_length;
	uint8		kind;			/* MqFailureKind */
	bool		has_reason;
} MqNote;

#define MQ_TEXT_BYTES	76

typedef struct MqText
{
	uint32		next;
	char		bytes[MQ_TEXT_BYTES];
} MqText;

/* One slot of the arena. */
typedef union MqCell
{
	MqNode		node;
	MqChunk		chunk;
	MqPending	pending;
	MqPrepared	prepared;
	MqConsumer	consumer;
	MqNote		note;
	MqText		text;
	uint32		next_free;
} MqCell;

/* Why a receiver in line can take nothing, though there may be something. */
typedef enum MqBlocked
{
	MQ_NOT_BLOCKED,
	MQ_BLOCKED_BY_STATEMENT,	/* what is new is too new for its statement: only the next one can have it */
	MQ_BLOCKED_BY_LIMIT,		/* its consumer has as many messages as it may */
	MQ_BLOCKED_BY_SNAPSHOT		/* they are newer than its transaction's snapshot */
} MqBlocked;

#define MQ_LINES 4				/* one for each, in every group */

/* Process numbers of the first and the last in line, -1: none. */
typedef struct MqLine
{
	int			first;
	int			last;
} MqLine;

/*
 * The delivery window of one consumer group (and priority level). All guarded by the window lock, but the key, which
 * changes under the registry lock and the window lock together.
 */
typedef struct MqWindow
{
	MqWindowKey key;			/* level -1: free slot */
	int32		queue_no;
	int32		epoch;
	uint32		root;			/* tree of MqNode by id; the last node is UNREAD up to PG_INT64_MAX */
	uint32		pending;		/* list of MqPending */
	uint32		consumers[MQ_CONSUMER_LISTS];	/* lists of MqConsumer, by their names' hashes */
	int64		named;			/* messages in flight that have a consumer with a name */
	uint32		rewalk;			/* list of MqChunk whose sender is decided: to be read again */
	uint64		walk_seq;		/* changes whenever a walker's finding is applied or its work changes */
	int64		ids[MQ_STATES];	/* messages in each state (UNREAD: without the last range) */
	int64		pending_ids;	/* in pending chunks and in rewalk */
	int64		nodes;			/* cells in use */
	int64		held_back;		/* how often something was given up for lack of memory */
	int64		left_out;		/* without entries, for that many did not fit at the rebuild; 0: not so */
	int64		left_out_low;	/* then: what is unfinished begins here, */
	int64		left_out_next_id;	/* and everything from here on is */
	TimestampTz pending_checked;	/* when the senders were last looked at */
	bool		after_crash;	/* hand-outs of messages from before the start are noted on disk first */
	uint64		changes;		/* goes up with every change that a checkpoint would record */
	uint64		checkpointed;	/* value of changes in the last committed checkpoint */
	bool		failures_changed;	/* only a checkpoint remembers failures */
	pg_atomic_uint64 log_bytes; /* offset log written since the last checkpoint (no lock) */
	int64		checkpoint_bytes;	/* size of that checkpoint */
	pg_atomic_uint64 oldest_needed; /* rows of this group with a smaller n are superfluous; 0: none (no lock) */
	pg_atomic_uint64 overflowed;	/* messages dropped for the queue's bounds that its definition has not counted yet (no lock) */
	bool		dropped;		/* the group is no more: nobody waits for it */
	bool		limited;		/* somebody could not take for a limit: room wakes */
	MqRetryPolicy retry;		/* of the group */
	uint32		drains;			/* the database's, when something was noted last (failure.c), as is */
	uint32		noted;			/* how much was noted since then, */
	int64		not_noted;		/* and how much was not, for lack of room */
	pg_atomic_uint64 used_at;	/* when somebody looked for messages last, of mq_monotonic_us; only with expires_after (no lock) */
	int64		rate_used;		/* max_per_second: how far time is used up, in nanoseconds (rate.c) */
	TimestampTz room_at;		/* when there is room again, where there was none for that */
	bool		overdue;		/* some entry may be MQ_NODE_OVERDUE (read without lock by who commits, lease.c) */
	/* receivers that wait (wake.h) */
	int			chain;			/* slot of the queue's chain; valid while there are any */
	int			next_waiting;	/* the chain's wait_mutex: slot of the next window with receivers in line, -1: none */
	MqLine		lines[MQ_LINES];	/* the chain's wait_mutex; by MqBlocked */
	int			timekeeper;		/* the chain's wait_mutex to write: who wakes when something is due, -1: nobody */
	TimestampTz clock;			/* when that will be */
	pg_atomic_uint32 waiters;	/* in line (written under wait_mutex, read without) */
} MqWindow;

/* A process as a receiver that waits. Guarded by the wait_mutex of the chain it waits for. */
typedef struct MqWaiter
{
	int			next;			/* in line behind it, -1: none */
	int			previous;
	bool		listed;			/* in line */
	bool		woken;			/* was taken out of the line by a waker */
	MqBlocked	blocked;		/* which line: others are woken by room, or what comes back, only (wake.h) */
	/* for who looks at it in a view; written by the process itself, under a spinlock that nobody holds for long */
	slock_t		shown_mutex;
	bool		shown;			/* the fields below are valid */
	MqWindowKey shown_window;
	TimestampTz shown_since;
	char		shown_consumer[MQ_NAME_LENGTH_MAX + 1]; /* empty: it gave no name */
} MqWaiter;

typedef struct MqShared
{
	LWLock	   *registry_lock;
	LWLockPadded *append_locks;
	LWLockPadded *window_locks;
	pg_atomic_uint64 last_token_time;
	uint64		token_mask;		/* constant; tokens are times, made unlike those of an earlier life */
	slock_t		arena_mutex;	/* guards the three below */
	uint32		free_list;
	uint32		free_cells;
	uint32		never_used;		/* cells from here on were never used */
	uint32		total_cells;
	uint32		nprocs;
	int			launcher_procno;	/* one word, no lock: a stale one wakes the wrong latch, no more; -1: none */
} MqShared;

extern MqShared *mq_shared;
extern MqDatabase *mq_databases;
extern MqChain *mq_chains;
extern MqWindow *mq_windows;
extern MqCell *mq_cells;
extern MqWaiter *mq_waiters;		/* per process */
extern int64 *mq_first_n;		/* per process: n of its transaction's first ack, 0: none; MqDatabase.mutex */

#define MqNodeAt(index) (&mq_cells[index].node)
#define MqChunkAt(index) (&mq_cells[index].chunk)
#define MqPendingAt(index) (&mq_cells[index].pending)
#define MqConsumerAt(index) (&mq_cells[index].consumer)
#define MqNoteAt(index) (&mq_cells[index].note)
#define MqTextAt(index) (&mq_cells[index].text)
#define MqPreparedAt(index) (&mq_cells[index].prepared)

#define MqAppendLock(chain) (&mq_shared->append_locks[(chain) - mq_chains].lock)
#define MqWindowLock(window) (&mq_shared->window_locks[(window) - mq_windows].lock)

/* Hooks, installed by _PG_init while preloading. */
extern void mq_shmem_request(void);
extern void mq_shmem_startup(void);

/* Raises an error unless the library was preloaded. */
extern void mq_require_preload(void);

/*
 * Find or make slots, under the registry lock. Making fails with an error when all are in use (created: set when the
 * slot is new; its state is then empty). The database's slot is found by the caller's database.
 */
extern MqDatabase *mq_database_slot(Oid extension);
extern MqChain *mq_chain_slot(const MqChainKey *key, bool create, bool *created);
extern MqWindow *mq_window_slot(const MqWindowKey *key, bool create, bool *created);

/* Whether a queue that has no slot yet would get none, at this moment. */
extern bool mq_chains_are_full(void);
extern bool mq_windows_are_full(void);

/*
 * Forget a slot. Caller holds no lock. detach takes what is in the window out of it, into content; it is called in the same hold
 * of the registry lock and the window lock in which the key goes, so that nobody finds the one without the other. However much
 * it is, it can be freed afterwards.
 */
extern void mq_chain_forget(const MqChainKey *key);
extern void mq_window_slot_free(const MqWindowKey *key, void (*detach) (MqWindow *window, MqWindow *content),
								MqWindow *content);
extern void mq_database_forget(MqDatabase *db);

/* Raises last_group to a number, and returns it. */
extern int64 mq_database_last_group(MqDatabase *db, int64 number);

/* One part in so many of the arena is kept for what frees memory. */
#define MQ_RESERVE_PART 8

/*
 * Cells. Two ways of asking: hand-outs and look-ahead leave a reserve, so that what frees memory (ack, nack) goes on.
 * mq_cells_reserve takes count cells into a list that the caller owns, or returns false; mq_cell_take pops one of
 * them (never fails while some are left); mq_cells_return gives back the rest. None of these throws.
 */
typedef struct MqCellList
{
	uint32		head;
	int			count;
} MqCellList;

extern bool mq_cells_reserve(MqCellList *list, int count, bool may_use_reserve);

/* The same, but raises 53200 when there are not enough. */
extern void mq_out_of_cells(int64 needed); /* raises that */
extern void mq_need_cells(MqCellList *list, int64 count, bool may_use_reserve);
extern uint32 mq_cell_take(MqCellList *list);
extern void mq_cells_return(MqCellList *list);
extern void mq_cell_free(uint32 cell);

/* Frees a list of MqNote with their texts. */
extern void mq_notes_free(uint32 first);

/*
 * A new fencing token: 52 bits, never given before in this life of the shared memory, unlikely before it. It tells when it
 * was made: now, or a little later where several are made at once or the clock was set back.
 */
extern uint64 mq_new_token(TimestampTz now);
extern TimestampTz mq_token_time(uint64 token);

/* Names the running top-level transaction without an xid: process number and local xid. */
extern uint64 mq_session_transaction(void);
extern bool mq_session_transaction_open(uint64 owner);

/* The process whose open transaction that is; 0: it is over. */
extern int	mq_session_transaction_pid(uint64 owner);

/*
 * A message of the queue is due at that time: the worker looks at the schedule no later. Never throws. To be called when the message
 * can be seen, and for who takes it out when that is undone.
 */
extern void mq_note_due(MqDatabase *db, MqChain *chain, TimestampTz due);

/* The worker's part of it: lowers a time of the above. */
extern void mq_lower_due(pg_atomic_uint64 *next_due, TimestampTz due);

/*
 * Asks the worker of a database for a turn at once, or the launcher to start one; mq_worker_nudge only wakes it, to look at
 * the queues that notify. Never throw.
 */
extern void mq_worker_wake(MqDatabase *db);
extern void mq_worker_nudge(MqDatabase *db);

#endif
