/*
 * fill.h: what is unfinished, as entries of an empty delivery window: UNREAD ranges, or bit maps of what is to be read.
 */
#ifndef MQ_FILL_H
#define MQ_FILL_H

#include "offset/offset_log.h"

/*
 * Inserts the entries for parts (ascending; the last one ends at PG_INT64_MAX), with one cell for each from the list; with a null
 * window only counts them. may_pack: short stretches that lie together become one bit map, which the tree does not show.
 * The caller owns the window: it is not linked yet, or locked. Never throws.
 */
extern int64 mq_fill(MqWindow *window, const MqUnfinished *parts, int64 count, bool may_pack, MqCellList *cells);

#endif
