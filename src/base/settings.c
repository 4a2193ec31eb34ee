/*
 * settings.c: the mq.* configuration parameters.
 *
 * Sizes of shared memory are fixed at server start; everything else can be changed at run time.
 */
#include "postgres.h"

#include "base/settings.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "base/stop_point.h"

int			mq_shared_memory_mb = 128;
int			mq_max_queues = 1000;
int			mq_max_groups = 2000;
int			mq_max_queues_per_role = -1;
int			mq_max_groups_per_role = -1;
int			mq_max_message_size = 16 * 1024 * 1024;
int			mq_visibility_timeout = 30 * 1000;
int			mq_drop_delay = 60;
int			mq_offset_log_size = 16 * 1024;
int			mq_segment_max_size = 1024;
int			mq_segment_wait = 30 * 1000;

/* Shared memory is sized once, while the postmaster loads the library. */
static void
define_sizes(void)
{
	DefineCustomIntVariable("mq.max_groups",
							"Sets how many consumer groups can be in use at once, in all databases.",
							NULL, &mq_max_groups, 2000, 16, 1000000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("mq.max_queues",
							"Sets how many queues can be in use at once, in all databases.",
							NULL, &mq_max_queues, 1000, 16, 1000000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("mq.shared_memory",
							"Sets the shared memory that holds the state of unfinished messages.",
							"A leased message costs up to 80 bytes, a run of messages on one page as much as one.",
							&mq_shared_memory_mb, 128, 1, 1024 * 1024,
							PGC_POSTMASTER, GUC_UNIT_MB, NULL, NULL, NULL);
}

void
mq_settings_define(void)
{
	if (process_shared_preload_libraries_in_progress)
		define_sizes();

	DefineCustomIntVariable("mq.drop_delay",
							"Sets how long a finished segment or offset log table is kept.",
							"A dump that has taken its snapshot needs it until it has locked the tables.",
							&mq_drop_delay, 60, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("mq.max_groups_per_role",
							"Sets how many consumer groups the queues of one role may have in a database.",
							"-1 is half of mq.max_groups. What superusers make is not limited.",
							&mq_max_groups_per_role, -1, -1, 1000000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("mq.max_message_size",
							"Sets the largest payload, headers and body of one message together.",
							NULL, &mq_max_message_size, 16 * 1024 * 1024, 1024, 256 * 1024 * 1024,
							PGC_SUSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("mq.max_queues_per_role",
							"Sets how many queues one role may have in a database.",
							"-1 is half of mq.max_queues. What superusers make is not limited.",
							&mq_max_queues_per_role, -1, -1, 1000000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("mq.offset_log_size",
							"Sets the size of an offset log table at which the next one is taken.",
							NULL, &mq_offset_log_size, 16 * 1024, 64, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("mq.segment_max_size",
							"Sets the size of a segment at which the next one is taken, however many ids are left.",
							NULL, &mq_segment_max_size, 1024, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("mq.segment_wait",
							"Sets how long a sender waits for the worker to make a missing segment.",
							NULL, &mq_segment_wait, 30 * 1000, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("mq.visibility_timeout",
							"Sets how long a received message is leased when the call does not say.",
							NULL, &mq_visibility_timeout, 30 * 1000, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
#ifdef MQ_STOP_POINTS
	mq_stop_point_define();
#endif

	/* Without preload the sizes are not defined: their values in the file must not be thrown away. */
	if (process_shared_preload_libraries_in_progress)
		MarkGUCPrefixReserved("mq");
}
