/*
 * owner.h: what belongs to the owner of the extension: SQL with that role's rights, and who has which privilege on what it
 * has made.
 *
 * Everything that mq makes at run time belongs to the owner of the extension, a superuser. Nobody else can alter it, add to
 * it or attach anything to it, so SQL with that role's rights meets no code of anybody's.
 */
#ifndef MQ_OWNER_H
#define MQ_OWNER_H

#include "nodes/pg_list.h"
#include "utils/acl.h"

#include "base/catalog.h"

/*
 * Runs SQL as the extension's owner, with a safe search_path and as a restricted operation. Returns SPI_processed.
 * mq_sql_begin/end bracket several calls.
 */
typedef struct MqSqlContext
{
	Oid			user;
	int			security;
	int			nest;
} MqSqlContext;

extern void mq_sql_begin(MqSqlContext *context);
extern void mq_sql_begin_as(MqSqlContext *context, Oid role);	/* with the rights of another role */
extern void mq_sql_end(MqSqlContext *context);
extern uint64 mq_sql(const char *format,...) pg_attribute_printf(1, 2);

/* The first column, an integer and not null, of the first row that the last mq_sql returned. */
extern int32 mq_sql_int32(void);

/* The first columns of all its rows. */
extern List *mq_sql_int32_list(void);

/*
 * Leaves a relation to its owner alone: takes back what ALTER DEFAULT PRIVILEGES gave when it was made. The caller has made
 * it in this transaction, or has it locked against others who change its privileges.
 */
extern void mq_reset_privileges(Oid relid);

/*
 * mq gives no privileges on columns, but who has one on the whole table with grant option can. Takes those back that a role (PUBLIC:
 * ACL_ID_PUBLIC) has, and those that were given by somebody who may not pass the right on any more: to be called when the rights on the
 * table are what they shall be. Lock as above. Waits for whoever gives some in a transaction that is still open.
 */
extern void mq_forget_column_privileges(Oid relid, Oid role, AclMode rights);

/* All of them. */
extern void mq_reset_column_privileges(Oid relid);

/*
 * PUBLIC has USAGE on each row type, and a client can give one by its number (the type of a parameter): takes that back, so that
 * nobody has a column of it.
 */
extern void mq_close_row_type(Oid relid);

/*
 * Who owns a queue: the role that was given the right manage with grant option by the table's owner, else that one. 42704 if
 * the table is gone.
 */
extern Oid	mq_queue_owner(const MqQueue *queue);
extern Oid	mq_queue_owner_if_there(const MqQueue *queue); /* InvalidOid if it is gone */
extern bool mq_queue_is_owned_by(const MqQueue *queue, Oid role);	/* false, too, if it is gone */

/*
 * Keeps everybody else from changing the rights on a relation of a queue, its table or a group's sequence, until the
 * transaction ends. Whose rights they are is to be asked afterwards. 42704 if it is gone.
 */
extern void mq_lock_rights(const MqQueue *queue, Oid relid);

/* The relation's ACL (copied, NULL: none) and owner; if it is gone that is InvalidOid. */
extern Acl *mq_acl_if_there(Oid relid, Oid *owner);

/* A list of the roles from whom a role (ACL_ID_PUBLIC: everybody) has a privilege on a relation as a whole. */
extern List *mq_grantors(Oid relid, Oid grantee, AclMode mode);

#endif
