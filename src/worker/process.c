/*
 * process.c: what the processes of mq have in common. See process.h.
 */
#include "postgres.h"

#include "worker/process.h"

#include "utils/guc.h"

typedef struct Setting
{
	const char *name;
	const char *value;
} Setting;

/* Set as PGC_S_OVERRIDE, so that nothing in files or catalogs takes precedence, now or later. */
static const Setting settings[] = {
	/* jobs write, and look again after each lock */
	{"default_transaction_read_only", "off"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_deferrable", "off"},
	/* nobody was promised what the worker does: it need not wait for a standby that may be gone */
	{"synchronous_commit", "local"},
	/* what cannot be locked conditionally (TOAST tables in DDL) must not hold up everything else; less in jobs (job.c) */
	{"lock_timeout", "1s"},
	/* in a circle with somebody's DROP it is the worker that gives up: it tries again */
	{"deadlock_timeout", "100ms"},
	{"statement_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"transaction_timeout", "0"},
	/* a job that fails is tried again */
	{"exit_on_error", "off"},
	/* triggers, row security and who runs all this are as for a superuser's ordinary session */
	{"role", "none"},
	{"session_replication_role", "origin"},
	{"row_security", "on"},
	/* an index is built by this process */
	{"max_parallel_maintenance_workers", "0"},
};

void
mq_process_override_settings(void)
{
	for (int i = 0; i < lengthof(settings); i++)
		/* some are not there in every version */
		if (GetConfigOption(settings[i].name, true, false) != NULL)
			SetConfigOption(settings[i].name, settings[i].value, PGC_SUSET, PGC_S_OVERRIDE);
}
