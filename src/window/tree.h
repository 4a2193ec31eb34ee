/*
 * tree.h: the ranges of a delivery window, ordered by id.
 *
 * A treap over cells of the arena (priorities are hashes of the cell numbers, so no state and no failure), each node
 * with three summaries of its subtree, so that the first message to hand out, the first lease to end and the first
 * range to read are found in logarithmic time whatever lies in front of them. All functions need the window lock,
 * none allocates or throws: commit callbacks use them.
 */
#ifndef MQ_TREE_H
#define MQ_TREE_H

#include "base/shmem.h"

/* The node that holds id, or the first behind it; 0: none. */
extern uint32 mq_tree_seek(const MqWindow *window, int64 id);

/* The first READY node that is due and ends behind `after`. */
extern uint32 mq_tree_first_ready(const MqWindow *window, int64 after, TimestampTz now);

/* The first READY entry from id on that has a due time, whether that has come or not; 0: none. */
extern uint32 mq_tree_first_delayed(const MqWindow *window, int64 id);

/* Any LEASED node whose lease has ended, but no overdue one; the first in that state, or overdue, at or behind id. */
extern uint32 mq_tree_first_expired(const MqWindow *window, TimestampTz now);
extern uint32 mq_tree_first_in_state(const MqWindow *window, MqState state, int64 id);
extern uint32 mq_tree_first_overdue(const MqWindow *window, int64 id);

/*
 * Link and unlink. Counts of the window follow. Insert: false, and the cell is freed, if the range is empty or a part of
 * it is in the tree already: whatever was read from disk, two nodes never overlap.
 */
extern bool mq_tree_insert(MqWindow *window, uint32 node);
extern void mq_tree_remove(MqWindow *window, uint32 node);

/* To be called when state, due, MQ_NODE_OVERDUE or lo of a linked node changed (lo only without passing a neighbour). */
extern void mq_tree_refresh(MqWindow *window, uint32 node);

/* Changes the state of a linked node; keeps the counts. The caller sets the other fields first. */
extern void mq_tree_set_state(MqWindow *window, uint32 node, MqState state);

/*
 * Cuts node so that one node covers exactly the part of [lo, hi] that it holds, and returns that one. Takes up to two
 * cells from the list.
 */
extern uint32 mq_tree_cut(MqWindow *window, uint32 node, int64 lo, int64 hi, MqCellList *cells);

/* Joins a READY node with neighbours that are alike and on the same page. */
extern void mq_tree_coalesce(MqWindow *window, uint32 node);

/* Visits every node, by id. */
extern void mq_tree_each(const MqWindow *window, void (*visit) (const MqNode *node, void *arg), void *arg);

/* Frees every node. */
extern void mq_tree_clear(MqWindow *window);

#endif
