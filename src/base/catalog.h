/*
 * catalog.h: definitions of queues and consumer groups, as this backend sees them.
 */
#ifndef MQ_CATALOG_H
#define MQ_CATALOG_H

#include "access/skey.h"
#include "utils/acl.h"
#include "utils/relcache.h"

#include "base/shmem.h"

#define MQ_DEFAULT_GROUP	"default"

#define MQ_DEAD_LETTER_SUFFIX	".dead"	/* of the name of a queue, for the one that has its dead letters */
#define MQ_DEAD_LETTERS_OWN		0	/* that one */
#define MQ_DEAD_LETTERS_NONE	(-1)	/* they stay where they are */

typedef struct MqQueue
{
	NameData	name;
	int32		queue_no;		/* never reused */
	int64		segment_size;	/* ids per segment */
	Oid			table;			/* mq.q_<name> */
	Oid			rights;			/* whose ACL counts: table, or that of the queue whose dead letters are here */
	int32		dead_letter_of; /* number of that queue; 0: an ordinary one */
	Oid			sequence;		/* mq_internal.i_<queue_no> */
	bool		foreign;		/* last used in another place: restored, copied or upgraded */
	bool		replaced;		/* its table is another one than when it was last used */
	bool		paused;
	bool		closed;			/* nothing can be sent */
	int32		max_message_bytes;	/* 0: no limit of its own */
	int64		expires_us;		/* dropped when it was not used for that long; 0: never */
	bool		drop_oldest;	/* past its bounds the worker drops; else senders are refused at once */
	int32		max_send_per_second;	/* messages; 0: no limit */
	int64		max_messages;	/* unfinished ones; 0: no such bound */
	int64		max_bytes;		/* of those; 0: no such bound */
	int64		dedup_us;		/* how long a deduplication id is kept; 0: for ever */
	int64		notify_us;		/* interval of NOTIFY; 0: off */
	int64		retention_us;	/* finished messages are kept as long; 0: not for their own sake */
	int64		retention_bytes;	/* or as much; -1: no such limit */
	bool		drop_unread;	/* past the limit, unfinished ones go too */
	Oid			extension;		/* whose queue it is: after DROP and CREATE EXTENSION names and numbers start again */
	MqDatabase *db;
	MqChain    *chain;			/* filled by mq_attach; check its key under the append lock */
} MqQueue;

typedef struct MqGroup
{
	NameData	name;
	int32		group_no;		/* never reused */
	int32		epoch;
	int64		start_id;
	Oid			rights;			/* sequence mq_internal.g_<group_no>: USAGE on it is the right to consume */
	bool		paused;
	int32		max_in_flight;	/* 0: no limit */
	int32		max_per_consumer;	/* 0: no limit */
	int64		tick_ns;		/* between two messages at max_per_second; 0: no limit */
	int64		lease_us;		/* 0: mq.visibility_timeout */
	uint32		retry_hash;		/* of its MqRetryPolicy */
	int32		dead_letters;	/* number of the queue that its dead letters go to; MQ_DEAD_LETTERS_OWN, MQ_DEAD_LETTERS_NONE */
	int64		expires_us;		/* dropped when nobody received for that long; 0: never */
	int64		max_lease_us;	/* from the hand-out on, with all extensions; 0: no limit */
	MqQueue		queue;
	MqWindow   *window;			/* filled by mq_attach; check its key under the window lock */
} MqGroup;

/* What the extension is in this database; error if it is not installed. Valid until the next look-up. */
typedef struct MqExtension
{
	Oid			oid;
	Oid			schema;			/* mq: what people call and read */
	Oid			internal;		/* mq_internal: everything else */
	Oid			owner;
	Oid			queue_rel;
	Oid			group_rel;
	Oid			segment_rel;
	Oid			guard_function;	/* mq_internal.refuse_direct_write() */
	MqDatabase *db;
} MqExtension;

extern void mq_catalog_init(void);	/* once per process, from _PG_init */

/* NULL when missing_ok and the extension is not installed. */
extern const MqExtension *mq_extension(bool missing_ok);

/* What mq makes is made with the rights of the extension's owner: 55000 if that is no superuser any more. */
extern void mq_check_extension_owner(void);

/* Whether the queue is one of the extension that is there now; 42704 when there is none. Cheap. */
extern bool mq_queue_is_current(const MqQueue *queue);

/* Opens a table or sequence that belongs to the extension; 42704 if that was dropped meanwhile. */
extern Relation mq_own_relation_open(Oid relid, LOCKMODE mode);

/*
 * Look-ups copy into the caller's struct; results are cached until a definition changes. The by-name ones raise
 * 42704 when there is none (mq_group_by_name 42501, if the caller may not know the queue's groups), the others return false.
 */
extern void mq_queue_by_name(const char *name, MqQueue *queue);
extern bool mq_queue_find(const char *name, MqQueue *queue);
extern void mq_group_by_name(const char *queue, const char *group, MqGroup *result);
extern bool mq_group_find(const MqQueue *queue, const char *name, MqGroup *result);
extern bool mq_group_by_number(int32 group_no, MqGroup *result);
extern bool mq_queue_by_number(int32 queue_no, MqQueue *result);	/* not from the cache */

/* After a wait for a lock, or when nothing was found: 42704 if the queue was dropped meanwhile. */
extern void mq_queue_check_not_dropped(const MqQueue *queue);
extern void mq_queue_dropped(const MqQueue *queue);

/*
 * Looks the definition up again; false: it is gone. past_cache: what a commit has just made visible may not have come
 * round yet.
 */
extern bool mq_group_refresh(MqGroup *group, bool past_cache);

/* Whether the table of that name is still the one that was found with the definition. */
extern bool mq_queue_keeps_table(const MqQueue *queue);

/*
 * Whether a queue, a group (by number; relid: mq_internal.queue or consumer_group) or the extension (by oid) exists, or may
 * come to exist or not because its transaction is undecided.
 */
extern bool mq_catalog_may_exist(Oid relid, int32 number);
extern bool mq_extension_may_exist(Oid extension);

/* Whether there is a row with these keys in a table of ours, or may come to be or not because its transaction is undecided. */
extern bool mq_any_row(Oid relid, Oid index, int nkeys, ScanKey keys);

/* The greatest group number that was ever given, or a greater one. */
extern int64 mq_catalog_last_group(void);

/* Makes what other transactions have committed known to this one, in the middle of a transaction too. Cheap if there is nothing. */
extern void mq_catalog_catch_up(void);

/* Definitions changed: this transaction sees it from here on, every other backend when this one commits. */
extern void mq_catalog_changed(void);

/* Remember slots found in shared memory, so that the next look-up has them. */
extern void mq_catalog_remember(const MqGroup *group);
extern void mq_catalog_remember_chain(const MqQueue *queue);

/* Real ACLs: of the queue's table, and of the group's sequence. manage: TRUNCATE, which itself is refused by a trigger. */
#define MQ_RIGHT_SEND		ACL_INSERT
#define MQ_RIGHT_BROWSE		ACL_SELECT
#define MQ_RIGHT_MANAGE		ACL_TRUNCATE
#define MQ_RIGHT_CONSUME	ACL_USAGE

/* Raise 42501 unless the current user may; 42704 if the queue went as a table. */
extern void mq_check_right(const MqQueue *queue, AclMode mode);
extern void mq_check_consume(const MqGroup *group);
extern void mq_check_owner(const MqQueue *queue);

/*
 * The owner of a queue is who has the right manage with grant option; its table belongs to the owner of the extension, as
 * everything that mq makes.
 */
extern bool mq_is_owner(const MqQueue *queue);

/* Whether the current user has one of these rights on the queue, or may consume in the group. */
extern bool mq_has_right(const MqQueue *queue, AclMode modes);
extern bool mq_may_consume(const MqGroup *group);

extern MqChainKey mq_chain_key(const MqQueue *queue, int level);
extern MqWindowKey mq_window_key(const MqGroup *group, int level);

#endif
