/*
 * rights.h: the rights on queues and groups, as statements.
 */
#ifndef MQ_RIGHTS_H
#define MQ_RIGHTS_H

#include "lib/stringinfo.h"

#include "base/catalog.h"

/*
 * Appends calls of mq.grant, one a line, that give what the ACLs of the queue's table (group NULL), or of a group, give as a whole;
 * and of mq.revoke for what the owner of the queue has not. Column privileges and grant options are left out.
 */
extern void mq_rights_statements(StringInfo out, const MqQueue *queue, const MqGroup *group);

#endif
