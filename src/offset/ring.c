/*
 * ring.c: moving on in the offset log, and emptying what is superfluous.
 *
 * A table may be emptied when every row in it has an n below what any group needs and below what any open transaction
 * may have written. Both bounds only grow, and no new row with a smaller n can come, for a writer publishes its n
 * together with the table it is going to write to.
 */
#include "postgres.h"

#include "offset/ring.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"

#include "base/clock.h"
#include "base/owner.h"
#include "base/settings.h"
#include "base/stop_point.h"
#include "log/segment.h"
#include "log/segment_table.h"
#include "offset/checkpoint.h"
#include "offset/rebuild.h"

#define CHECKPOINTS_PER_TABLE 4
#define MEMBER_TABLES 4			/* made by the script of the extension */

/* Every row with a smaller n is superfluous for all groups of the database. */
static int64
oldest_needed(MqDatabase *db)
{
	int64		oldest = mq_oldest_undecided_n(db);

	for (int i = 0; i < mq_max_groups; i++)
	{
		int64		needed;

		if (mq_windows[i].key.level < 0 || memcmp(&mq_windows[i].key.db, &db->key, sizeof(db->key)) != 0)
			continue;
		needed = (int64) pg_atomic_read_u64(&mq_windows[i].oldest_needed);
		if (needed != 0)
			oldest = Min(oldest, needed);
	}
	return oldest;
}

/*
 * A table made at run time is not a member of the extension, so that dumps have it whole; but DROP EXTENSION takes it along,
 * and nobody else has a privilege on it. Neither is in a dump.
 */
static void
own_table(int table)
{
	ObjectAddress made;
	ObjectAddress extension;

	ObjectAddressSet(made, RelationRelationId, mq_offset_log_table(table));
	ObjectAddressSet(extension, ExtensionRelationId, mq_extension(false)->oid);
	(void) deleteDependencyRecordsForClass(made.classId, made.objectId, extension.classId, DEPENDENCY_AUTO);
	recordDependencyOn(&made, &extension, DEPENDENCY_AUTO);
	mq_reset_privileges(made.objectId);
}

/* In the current transaction; in use after its commit only (mq_ring_grown). 55000: somebody's event trigger has altered it. */
static void
make_table(int table)
{
	MqSqlContext context;
	Relation	model;

	mq_sql_begin(&context);
	mq_sql("CREATE TABLE mq_internal.consumer_offset_%d (LIKE mq_internal.consumer_offset_0 INCLUDING ALL) "
		   "WITH (autovacuum_enabled = false, vacuum_truncate = false)", table);
	model = table_open(mq_offset_log_table(0), AccessShareLock);
	mq_check_made(mq_offset_log_table(table), RelationGetDescr(model));
	table_close(model, NoLock);
	mq_sql_end(&context);
	CommandCounterIncrement();
	own_table(table);
}

void
mq_ring_own_tables(void)
{
	for (int table = MEMBER_TABLES; OidIsValid(mq_offset_log_table(table)); table++)
		own_table(table);
}

/* The first table behind the current one, around the ring, that holds no rows; -1: none. */
static int
find_empty(MqDatabase *db)
{
	int			found = -1;

	SpinLockAcquire(&db->mutex);
	for (int i = 1; i < db->ring_count && found < 0; i++)
	{
		int			table = (db->ring_current + i) % db->ring_count;

		if (db->max_n[table] == 0)
			found = table;
	}
	SpinLockRelease(&db->mutex);
	return found;
}

/* A table is full at its set size, but large enough for several checkpoints of all groups in any case. */
static uint64
full_size(const MqDatabase *db)
{
	uint64		checkpoints = 0;

	for (int i = 0; i < mq_max_groups; i++)
		if (mq_windows[i].key.level >= 0 && memcmp(&mq_windows[i].key.db, &db->key, sizeof(db->key)) == 0)
			checkpoints += mq_windows[i].checkpoint_bytes;
	return Max((uint64) mq_offset_log_size * 1024, CHECKPOINTS_PER_TABLE * checkpoints);
}

bool
mq_ring_move_on(MqDatabase *db)
{
	Relation	rel = mq_own_relation_open(mq_offset_log_table(db->ring_current), AccessShareLock);
	uint64		size = (uint64) RelationGetNumberOfBlocks(rel) * BLCKSZ;
	int			next;

	table_close(rel, AccessShareLock);
	if (size < full_size(db))
		return false;
	next = find_empty(db);
	if (next < 0 && db->ring_count < MQ_MAX_OFFSET_TABLES)
	{
		ereport(WARNING,
				(errmsg("the offset log of mq grows to %d tables", db->ring_count + 1),
				 errdetail("No table could be emptied: a transaction that acked is open or prepared, or a dump is running."),
				 errhint("Look for old transactions in pg_stat_activity and pg_prepared_xacts.")));
		make_table(db->ring_count);
		return true;
	}
	/* no more tables may be made: the current one grows beyond its size */
	if (next < 0)
		return false;
	SpinLockAcquire(&db->mutex);
	db->ring_current = next;
	SpinLockRelease(&db->mutex);
	return false;
}

void
mq_ring_grown(MqDatabase *db)
{
	SpinLockAcquire(&db->mutex);
	db->ring_count++;
	SpinLockRelease(&db->mutex);
}

int64
mq_ring_blocked_by(MqDatabase *db)
{
	int64		undecided = mq_oldest_undecided_n(db);
	int64		n = 0;

	SpinLockAcquire(&db->mutex);
	for (int table = 0; table < db->ring_count; table++)
		if (table != db->ring_current && db->max_n[table] < undecided)
			n = Max(n, db->max_n[table]);
	SpinLockRelease(&db->mutex);
	return n;
}

int
mq_ring_superfluous(MqDatabase *db, int64 *since)
{
	int64		needed = oldest_needed(db);
	int64		now = mq_monotonic_us();

	for (int table = 0; table < db->ring_count; table++)
	{
		int64		max_n;

		SpinLockAcquire(&db->mutex);
		max_n = table == db->ring_current ? PG_INT64_MAX : db->max_n[table];
		SpinLockRelease(&db->mutex);
		if (max_n == 0 || max_n >= needed)
		{
			since[table] = 0;
			continue;
		}
		if (since[table] == 0)
			since[table] = now;
		if (now - since[table] >= (int64) mq_drop_delay * USECS_PER_SEC)
			return table;
	}
	return -1;
}

bool
mq_ring_truncate(MqDatabase *db, int table)
{
	MqSqlContext context;

	/* once it is locked: who wrote to it has decided, and can be seen */
	if (!mq_lock_table_conditionally(mq_offset_log_table(table), AccessExclusiveLock) || !mq_all_attached(db))
		return false;
	MQ_STOP_POINT("truncate_before");
	mq_sql_begin(&context);
	mq_sql("TRUNCATE mq_internal.consumer_offset_%d", table);
	mq_sql_end(&context);
	return true;
}

void
mq_ring_emptied(MqDatabase *db, int table)
{
	SpinLockAcquire(&db->mutex);
	db->max_n[table] = 0;
	SpinLockRelease(&db->mutex);
}
