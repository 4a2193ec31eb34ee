/*
 * compat.h: the only file that knows PostgreSQL's version number.
 *
 * Each wrapper carries the newest spelling of what changed between 15 and 18.
 */
#ifndef MQ_COMPAT_H
#define MQ_COMPAT_H

#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/rel.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "mq needs PostgreSQL 15 or newer"
#endif

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16: RelFileNode became RelFileLocator. */
#if PG_VERSION_NUM < 160000
typedef Oid RelFileNumber;
#define InvalidRelFileNumber InvalidOid
#define MqRelFileNumber(rel) ((rel)->rd_node.relNode)
#else
#define MqRelFileNumber(rel) ((rel)->rd_locator.relNumber)
#endif

/* 16: one function checks ownership of any kind of object. */
#if PG_VERSION_NUM < 160000
#define MqDatabaseOwnerCheck(oid, role) pg_database_ownercheck(oid, role)
#else
#define MqDatabaseOwnerCheck(oid, role) object_ownercheck(DatabaseRelationId, oid, role)
#endif

/* 16: being a member is no longer enough to become another role. */
#if PG_VERSION_NUM < 160000
#define MqCheckCanSetRole(member, role) check_is_member_of_role(member, role)
#else
#define MqCheckCanSetRole(member, role) check_can_set_role(member, role)
#endif

/*
 * 17: a process is named by its ProcNumber, and the local xid moved. Before, local xids were counted per backend id,
 * which is not the process number: 14 bits of it tell apart two that used the same process slot.
 */
#if PG_VERSION_NUM < 170000
#define MqMyProcNumber() (MyProc->pgprocno)
#define MqProcLxid(proc) ((proc)->lxid)
#define MqProcBackendBits(proc) ((uint64) (proc)->backendId & 0x3FFF)
#else
#define MqProcBackendBits(proc) (UINT64CONST(0))
#define MqMyProcNumber() (MyProcNumber)
#define MqProcLxid(proc) ((proc)->vxid.lxid)
#endif

/* 17: LockHeldByMe learnt to count stronger modes. */
static inline bool
MqLockHeldByMe(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM < 170000
	return LockHeldByMe(tag, mode);
#else
	return LockHeldByMe(tag, mode, false);
#endif
}

/* 17: wait events with names of their own. */
#if PG_VERSION_NUM < 170000
#define MqWaitEventNew(name) PG_WAIT_EXTENSION
#else
#define MqWaitEventNew(name) WaitEventExtensionNew(name)
#endif

/*
 * What libpq/libpq.h declares, which needs headers of GSSAPI that Debian's server headers come without: the set of events that a
 * backend waits for while it reads from its client. The same from 15 to 18.
 */
extern PGDLLIMPORT struct WaitEventSet *FeBeWaitSet;
#define FeBeWaitSetSocketPos 0

/* 18: attributes are reached through TupleDescAttr only (true everywhere here); MAGIC gained a name. */
#if PG_VERSION_NUM >= 180000
#define MQ_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "mq", .version = MQ_VERSION)
#else
#define MQ_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* 18: ExecutorRun lost its last argument. */
#if PG_VERSION_NUM < 180000
#define MQ_EXECUTOR_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once
#define MQ_EXECUTOR_RUN_ARGUMENTS query, direction, count, execute_once
#else
#define MQ_EXECUTOR_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count
#define MQ_EXECUTOR_RUN_ARGUMENTS query, direction, count
#endif

/* 18: an index scan counts its searches for EXPLAIN. */
#if PG_VERSION_NUM < 180000
#define MqIndexBeginScan(heap, index, snapshot, nkeys) index_beginscan(heap, index, snapshot, nkeys, 0)
#else
#define MqIndexBeginScan(heap, index, snapshot, nkeys) index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#endif

/* 17: infinite intervals. */
#if PG_VERSION_NUM >= 170000
#define MqIntervalIsFinite(i) (!INTERVAL_NOT_FINITE(i))
#else
#define MqIntervalIsFinite(i) ((void) (i), true)
#endif

/* 18: DefineCustom... and bgworker main functions are unchanged; pg_noreturn moved to the front. */
#if PG_VERSION_NUM >= 180000
#define MQ_NORETURN_PREFIX pg_noreturn
#define MQ_NORETURN_SUFFIX
#else
#define MQ_NORETURN_PREFIX
#define MQ_NORETURN_SUFFIX pg_attribute_noreturn()
#endif

#endif
