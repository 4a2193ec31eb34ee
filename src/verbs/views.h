/*
 * views.h: what the functions behind the views have in common: whose groups are shown.
 */
#ifndef MQ_VIEWS_H
#define MQ_VIEWS_H

#include "window/window.h"

/* Whether the caller has a role for monitoring: it sees that there is something and how much, never what is in a message. */
extern bool mq_view_sees_all(void);

/* Whether the group is shown to the caller; all: what mq_view_sees_all said. */
extern bool mq_view_may_see(const MqGroup *group, bool all);

/*
 * Finds the group's window; false: what is in memory of it cannot be shown. *fits: what is unfinished in it is in memory; else
 * there are counts only of what is not.
 */
extern bool mq_view_attach(MqGroup *group, MqWindowRef *ref, bool *fits);

#endif
