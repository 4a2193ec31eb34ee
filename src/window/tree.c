/*
 * tree.c: the ranges of a delivery window, ordered by id. See tree.h.
 */
#include "postgres.h"

#include "window/tree.h"

#include "common/hashfn.h"

#define STATE_BIT(state) ((uint8) (1 << (state)))

StaticAssertDecl(MQ_NODE_OVERDUE == 1 << MQ_STATES, "it stands behind the bits of the states");

#define DELAYED_BIT 0x80		/* READY, and has a due time, whether that has come or not */

/* What a node adds to the masks of the subtrees it is in. */
static inline uint8
own_bits(const MqNode *n)
{
	return STATE_BIT(n->state) | (n->flags & MQ_NODE_OVERDUE) | (n->state == MQ_READY && n->due != 0 ? DELAYED_BIT : 0);
}

/* A hash of the cell number is as good as random, needs no state, and is the same as long as the node is linked. */
static inline uint32
priority(uint32 node)
{
	return murmurhash32(node);
}

/* Recomputes the summaries of one node from its own fields and its children. */
static void
summarize(uint32 index)
{
	MqNode	   *n = MqNodeAt(index);

	n->states = own_bits(n);
	n->min_ready = n->state == MQ_READY ? n->due : PG_INT64_MAX;
	/* LEASED and nothing else: one that is overdue does not end by the clock */
	n->min_deadline = n->states == STATE_BIT(MQ_LEASED) ? n->due : PG_INT64_MAX;
	for (int side = 0; side < 2; side++)
	{
		uint32		child = side ? n->right : n->left;

		if (child == 0)
			continue;
		n->states |= MqNodeAt(child)->states;
		n->min_ready = Min(n->min_ready, MqNodeAt(child)->min_ready);
		n->min_deadline = Min(n->min_deadline, MqNodeAt(child)->min_deadline);
	}
}

/* All nodes below key to *left, the others to *right. */
static void
split(uint32 tree, int64 key, uint32 *left, uint32 *right)
{
	if (tree == 0)
	{
		*left = *right = 0;
		return;
	}
	if (MqNodeAt(tree)->lo < key)
	{
		split(MqNodeAt(tree)->right, key, &MqNodeAt(tree)->right, right);
		*left = tree;
	}
	else
	{
		split(MqNodeAt(tree)->left, key, left, &MqNodeAt(tree)->left);
		*right = tree;
	}
	summarize(tree);
}

/* The nodes of both as one tree, whose root is returned; every id in left must be smaller than every id in right. */
static uint32
join(uint32 left, uint32 right)
{
	if (left == 0)
		return right;
	if (right == 0)
		return left;
	if (priority(left) > priority(right))
	{
		MqNodeAt(left)->right = join(MqNodeAt(left)->right, right);
		summarize(left);
		return left;
	}
	MqNodeAt(right)->left = join(left, MqNodeAt(right)->left);
	summarize(right);
	return right;
}

/* Returns the root of the tree with the node in it; its range must be free. */
static uint32
insert(uint32 tree, uint32 node)
{
	if (tree == 0 || priority(node) > priority(tree))
	{
		split(tree, MqNodeAt(node)->lo, &MqNodeAt(node)->left, &MqNodeAt(node)->right);
		summarize(node);
		return node;
	}
	if (MqNodeAt(node)->lo < MqNodeAt(tree)->lo)
		MqNodeAt(tree)->left = insert(MqNodeAt(tree)->left, node);
	else
		MqNodeAt(tree)->right = insert(MqNodeAt(tree)->right, node);
	summarize(tree);
	return tree;
}

/* Returns the root of what is left. The node is found by its lo; its cell is not freed. */
static uint32
unlink_node(uint32 tree, uint32 node)
{
	Assert(tree != 0);
	if (tree == 0)
		return 0;
	if (tree == node)
		return join(MqNodeAt(node)->left, MqNodeAt(node)->right);
	if (MqNodeAt(node)->lo < MqNodeAt(tree)->lo)
		MqNodeAt(tree)->left = unlink_node(MqNodeAt(tree)->left, node);
	else
		MqNodeAt(tree)->right = unlink_node(MqNodeAt(tree)->right, node);
	summarize(tree);
	return tree;
}

/* Recomputes the summaries on the way from the node, which is found by its lo, up to the root. */
static void
refresh(uint32 tree, uint32 node)
{
	Assert(tree != 0);
	if (tree == 0)
		return;
	if (tree != node)
		refresh(MqNodeAt(node)->lo < MqNodeAt(tree)->lo ? MqNodeAt(tree)->left : MqNodeAt(tree)->right, node);
	summarize(tree);
}

/* Messages in a node; the endless last range counts as none. */
static int64
node_ids(const MqNode *n)
{
	return n->hi == PG_INT64_MAX ? 0 : n->hi - n->lo + 1;
}

uint32
mq_tree_seek(const MqWindow *window, int64 id)
{
	uint32		tree = window->root;
	uint32		best = 0;

	while (tree != 0)
	{
		/* ranges never overlap: they are in the order of their ends, too */
		if (MqNodeAt(tree)->hi < id)
			tree = MqNodeAt(tree)->right;
		else
		{
			best = tree;
			tree = MqNodeAt(tree)->left;
		}
	}
	return best;
}

/* 0: none. A subtree in which nothing is due is passed over by its summary. */
static uint32
first_ready(uint32 tree, int64 after, TimestampTz now)
{
	const MqNode *n;
	uint32		found;

	if (tree == 0 || MqNodeAt(tree)->min_ready > now)
		return 0;
	n = MqNodeAt(tree);
	if (n->hi > after)
	{
		found = first_ready(n->left, after, now);
		if (found != 0)
			return found;
		if (n->state == MQ_READY && n->due <= now)
			return tree;
	}
	return first_ready(n->right, after, now);
}

uint32
mq_tree_first_ready(const MqWindow *window, int64 after, TimestampTz now)
{
	return first_ready(window->root, after, now);
}

uint32
mq_tree_first_expired(const MqWindow *window, TimestampTz now)
{
	uint32		tree = window->root;

	while (tree != 0 && MqNodeAt(tree)->min_deadline <= now)
	{
		const MqNode *n = MqNodeAt(tree);

		if (n->left != 0 && MqNodeAt(n->left)->min_deadline <= now)
			tree = n->left;
		else if (own_bits(n) == STATE_BIT(MQ_LEASED) && n->due <= now)
			return tree;
		else
			tree = n->right;
	}
	return 0;
}

/* The first one, at or behind id, that has the bit (own_bits); 0: none. Subtrees in which nobody has it are passed over. */
static uint32
first_with(uint32 tree, uint8 bit, int64 id)
{
	const MqNode *n;
	uint32		found;

	if (tree == 0 || (MqNodeAt(tree)->states & bit) == 0)
		return 0;
	n = MqNodeAt(tree);
	if (n->hi >= id)
	{
		found = first_with(n->left, bit, id);
		if (found != 0)
			return found;
		if (own_bits(n) & bit)
			return tree;
	}
	return first_with(n->right, bit, id);
}

uint32
mq_tree_first_in_state(const MqWindow *window, MqState state, int64 id)
{
	return first_with(window->root, STATE_BIT(state), id);
}

uint32
mq_tree_first_delayed(const MqWindow *window, int64 id)
{
	return first_with(window->root, DELAYED_BIT, id);
}

uint32
mq_tree_first_overdue(const MqWindow *window, int64 id)
{
	return first_with(window->root, MQ_NODE_OVERDUE, id);
}

/* Links a node whose range is known to be free. */
static void
link_node(MqWindow *window, uint32 node)
{
	MqNode	   *n = MqNodeAt(node);

	n->left = n->right = 0;
	window->root = insert(window->root, node);
	window->ids[n->state] += node_ids(n);
	window->nodes++;
}

bool
mq_tree_insert(MqWindow *window, uint32 node)
{
	const MqNode *n = MqNodeAt(node);
	uint32		next = mq_tree_seek(window, n->lo);

	if (n->lo > n->hi || (next != 0 && MqNodeAt(next)->lo <= n->hi))
	{
		mq_cell_free(node);
		return false;
	}
	link_node(window, node);
	return true;
}

/* The cell is freed. */
void
mq_tree_remove(MqWindow *window, uint32 node)
{
	MqNode	   *n = MqNodeAt(node);

	window->root = unlink_node(window->root, node);
	window->ids[n->state] -= node_ids(n);
	window->nodes--;
	mq_cell_free(node);
}

void
mq_tree_refresh(MqWindow *window, uint32 node)
{
	refresh(window->root, node);
}

void
mq_tree_set_state(MqWindow *window, uint32 node, MqState state)
{
	MqNode	   *n = MqNodeAt(node);

	window->ids[n->state] -= node_ids(n);
	n->state = state;
	window->ids[state] += node_ids(n);
	refresh(window->root, node);
}

/* A copy of node for [lo, hi], linked; node itself must have been shrunk already. */
static uint32
link_part(MqWindow *window, uint32 node, int64 lo, int64 hi, MqCellList *cells)
{
	uint32		part = mq_cell_take(cells);

	*MqNodeAt(part) = *MqNodeAt(node);
	MqNodeAt(part)->lo = lo;
	MqNodeAt(part)->hi = hi;
	link_node(window, part);
	return part;
}

/* The node becomes the part that is wanted; what is left on either side gets cells of its own, alike but for the range. */
uint32
mq_tree_cut(MqWindow *window, uint32 node, int64 lo, int64 hi, MqCellList *cells)
{
	MqNode	   *n = MqNodeAt(node);
	int64		old_lo = n->lo;
	int64		old_hi = n->hi;

	lo = Max(lo, old_lo);
	hi = Min(hi, old_hi);
	if (lo == old_lo && hi == old_hi)
		return node;

	window->ids[n->state] -= node_ids(n);
	n->lo = lo;
	n->hi = hi;
	window->ids[n->state] += node_ids(n);
	refresh(window->root, node);
	if (old_lo < lo)
		link_part(window, node, old_lo, lo - 1, cells);
	if (hi < old_hi)
		link_part(window, node, hi + 1, old_hi, cells);
	return node;
}

/* Whether one entry can stand for both; that they are neighbours the caller has seen. */
static bool
alike(const MqNode *a, const MqNode *b)
{
	return (a->state == MQ_READY || a->state == MQ_DEAD) && a->state == b->state && a->block == b->block && a->due == b->due &&
		a->attempts == b->attempts && a->failures == b->failures && a->unexplained == b->unexplained && a->flags == b->flags;
}

/* Lets first swallow second, its right neighbour. */
static void
swallow(MqWindow *window, uint32 first, uint32 second)
{
	int64		hi = MqNodeAt(second)->hi;

	mq_tree_remove(window, second);
	window->ids[MqNodeAt(first)->state] += hi - MqNodeAt(first)->hi;
	/* no summary depends on hi */
	MqNodeAt(first)->hi = hi;
}

/* The node may be swallowed by the one before it: its number means nothing afterwards. */
void
mq_tree_coalesce(MqWindow *window, uint32 node)
{
	MqNode	   *n = MqNodeAt(node);
	uint32		other;

	other = mq_tree_seek(window, n->hi + 1);
	if (other != 0 && MqNodeAt(other)->lo == n->hi + 1 && alike(n, MqNodeAt(other)))
		swallow(window, node, other);
	other = mq_tree_seek(window, n->lo - 1);
	if (other != 0 && other != node && MqNodeAt(other)->hi == n->lo - 1 && alike(n, MqNodeAt(other)))
		swallow(window, other, node);
}

/* In the order of ids. What is visited may not be linked or unlinked meanwhile. */
static void
each(uint32 tree, void (*visit) (const MqNode *node, void *arg), void *arg)
{
	for (; tree != 0; tree = MqNodeAt(tree)->right)
	{
		each(MqNodeAt(tree)->left, visit, arg);
		visit(MqNodeAt(tree), arg);
	}
}

void
mq_tree_each(const MqWindow *window, void (*visit) (const MqNode *node, void *arg), void *arg)
{
	each(window->root, visit, arg);
}

/* Only frees the cells: the caller forgets the root. */
static void
clear(uint32 tree)
{
	if (tree == 0)
		return;
	clear(MqNodeAt(tree)->left);
	clear(MqNodeAt(tree)->right);
	mq_cell_free(tree);
}

void
mq_tree_clear(MqWindow *window)
{
	clear(window->root);
	window->root = 0;
	memset(window->ids, 0, sizeof(window->ids));
}
