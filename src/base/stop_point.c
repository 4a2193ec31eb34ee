/*
 * stop_point.c: hold, kill or fail a process at a named place (test builds only).
 *
 * Actions: lock (waits for advisory lock (77, 1), so isolation tests see it), kill (SIGKILL to oneself),
 * error, spin (sleeps while the file mq_stop exists in the data directory; for places that may take no lock).
 */
#include "postgres.h"

#include "base/stop_point.h"

#ifdef MQ_STOP_POINTS

#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/lock.h"
#include "utils/guc.h"

/* The setting mq.stop_point. */
static char *armed = NULL;

bool		mq_wake_sweep = true;

void
mq_stop_point_define(void)
{
	DefineCustomBoolVariable("mq.wake_sweep", "Whether the worker wakes receivers that nobody else has woken.",
							 "Off, a lost wake-up is seen by tests.",
							 &mq_wake_sweep, true, PGC_SIGHUP, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomStringVariable("mq.stop_point", "Arms a stop point: <point>:<action>.", NULL,
							   &armed, "", PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
}

/* Returns when nobody has pg_advisory_lock(77, 1). */
static void
wait_for_advisory_lock(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 77, 1, 2);
	(void) LockAcquire(&tag, ShareLock, false, false);
	(void) LockRelease(&tag, ShareLock, false);
}

/* The file mq_reached tells the test that the process has come here. No interrupt ends it: it is for callbacks of transactions. */
static void
spin_while_file_exists(void)
{
	int			fd = open("mq_reached", O_CREAT | O_WRONLY, 0600);

	if (fd >= 0)
		close(fd);
	while (access("mq_stop", F_OK) == 0)
		pg_usleep(1000);
}

void
mq_stop_point(const char *name)
{
	size_t		len = strlen(name);
	const char *action;

	if (armed == NULL || strncmp(armed, name, len) != 0 || armed[len] != ':')
		return;
	action = armed + len + 1;

	if (strcmp(action, "kill") == 0)
		kill(MyProcPid, SIGKILL);
	else if (strcmp(action, "lock") == 0)
		wait_for_advisory_lock();
	else if (strcmp(action, "spin") == 0)
		spin_while_file_exists();
	else if (strcmp(action, "error") == 0)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("stop point \"%s\"", name)));
}

#endif
