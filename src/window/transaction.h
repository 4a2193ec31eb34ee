/*
 * transaction.h: what the running transaction received and acked, and how it is undone.
 */
#ifndef MQ_TRANSACTION_H
#define MQ_TRANSACTION_H

#include "window/failure.h"
#include "window/window.h"

extern void mq_transaction_init(void);	/* once per process, from _PG_init */

/*
 * Remember, before the shared mark is made, that the current subtransaction is about to receive with this token, or to
 * settle a range. May raise out-of-memory, nothing else. It covers nothing until mq_undo_widen says, right after the
 * mark, what was marked: a refused ack must not undo one that an outer level made. Ranges that do not touch are kept apart as
 * far as mq_undo_room was asked for (a first one needs none); else the last one grows over what lies between, which costs time only.
 */
typedef struct MqUndo MqUndo;

extern MqUndo *mq_undo_receive(const MqWindowRef *ref);
extern void mq_undo_token(MqUndo *undo, uint64 token);	/* nothing leased with another one is left; before it is used */
extern MqUndo *mq_undo_borrow(const MqWindowRef *ref, uint64 token);	/* leased for a moment: undone without a trace */
extern MqUndo *mq_undo_settle(const MqWindowRef *ref);
extern MqUndo *mq_undo_leave(const MqWindowRef *ref, const MqCause *cause);	/* a nack, or (NULL) release, of what the transaction has popped */
extern void mq_undo_room(MqUndo *undo, int ranges);	/* for so many more; may raise out-of-memory */
extern void mq_undo_widen(MqUndo *undo, int64 lo, int64 hi);

/* Names the running transaction for settling; assigns an xid. */
extern uint64 mq_transaction_xid(void);

/* The next n of the offset log for a row of this transaction, and the ring table the row goes to. */
extern int64 mq_transaction_next_n(MqDatabase *db, int *table);

/*
 * At commit the window gets other content, in that epoch (mq_window_replace). Returns the empty content for the caller to
 * fill; nobody else knows it. Undone by rollback, also to a savepoint. May raise out-of-memory.
 */
extern MqWindow *mq_transaction_replace(const MqWindowRef *ref, int32 epoch, int64 oldest_needed);

/* Entries in all the contents that the transaction has made so, and keeps until its end. */
extern int64 mq_transaction_replacing_cells(void);

/* This transaction sent to the queue (which is attached): a receiver of each group is woken at commit. */
extern void mq_transaction_sent(const MqQueue *queue);

/*
 * This transaction is about to send to the queue, which has bounds; and whether some of that was rolled back to a savepoint since this was
 * asked last: what is unfinished may have it still. The first may raise out-of-memory.
 */
extern void mq_transaction_admitted(const MqQueue *queue);
extern bool mq_transaction_took_back(const MqQueue *queue);

/* This transaction changed what receivers of the queue (which is attached) may have: all of them are woken at commit. */
extern void mq_transaction_changed(const MqQueue *queue);

/*
 * This transaction puts so many messages into the schedule of the queue (which is attached), or takes them out (negative); the first of
 * them is due then. At its end, or that of its savepoint, the worker learns when to look. May raise out-of-memory.
 */
extern void mq_transaction_schedules(const MqQueue *queue, TimestampTz due, int64 count);

/* The worker's form: it has taken so many out, and appended them to the log in this transaction. */
extern void mq_transaction_moves(const MqQueue *queue, int64 count);

/* How many of the messages that MqBounds.scheduling has are this transaction's. */
extern int64 mq_transaction_scheduling(const MqQueue *queue);

/* This transaction drops the group: who waits for it is sent away at commit. */
extern void mq_transaction_drops(const MqWindowRef *ref);

/* From the commit on failures of the group are judged by this policy. A commit of a prepared transaction leaves that to the worker. */
extern void mq_transaction_changes_retry(const MqWindowRef *ref, const MqRetryPolicy *policy);

/* A statement begins: what error there was before was caught. */
extern void mq_transaction_goes_on(void);

/*
 * A statement fails, with this error; is_timeout: a cancel that nobody asked for. 0: none has failed yet. If the transaction
 * or savepoint is undone because of it, it decides whether that is a failure of the messages.
 */
extern void mq_transaction_failed(int sqlstate, bool is_timeout, const char *message);

/* Whether it has received or acked anything: then the message of an error is of use. */
extern bool mq_transaction_holds_messages(void);

/* At commit, see that the database has a worker (a queue was made). */
extern void mq_transaction_wants_worker(MqDatabase *db);

#endif
