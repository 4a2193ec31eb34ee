/*
 * ddl.c: mq.ddl: a queue as statements that make an equal one in another database.
 *
 * Options come out by the tables of options and the columns of the definitions: a new one needs nothing here. Takes no lock but ACCESS
 * SHARE on our own tables for each look; writes nothing.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "base/definitions.h"
#include "base/owner.h"
#include "verbs/options.h"
#include "verbs/rights.h"
#include "verbs/verbs.h"

/* Of the queue itself. 42704 if it was dropped meanwhile. */
static char *
queue_options(const MqQueue *queue)
{
	int			count;
	const MqOption *options = mq_queue_options(&count);
	char	   *set = mq_options_set(options, count, "queue", psprintf("queue_no = %d", queue->queue_no));
	StringInfoData object;

	if (set == NULL)
		mq_queue_dropped(queue);
	Assert(set != NULL);
	initStringInfo(&object);
	appendStringInfoString(&object, "{\"owner\": ");
	escape_json(&object, GetUserNameFromId(mq_queue_owner(queue), false));
	appendStringInfo(&object, "%s%s", strcmp(set, "{}") == 0 ? "" : ", ", set + 1);
	return object.data;
}

/* Groups begin where the queue does: so they miss nothing that is sent while the statements run. */
static void
add_group(StringInfo out, const MqGroup *group)
{
	const char *queue = quote_literal_cstr(NameStr(group->queue.name));
	const char *name = quote_literal_cstr(NameStr(group->name));
	int			count;
	const MqOption *options = mq_group_options(&count);
	char	   *set = mq_options_set(options, count, "consumer_group", psprintf("group_no = %d", group->group_no));

	/* dropped meanwhile */
	if (set == NULL)
		return;
	appendStringInfo(out, "SELECT mq.create_group(%s, %s, start => 'earliest'", queue, name);
	if (strcmp(set, "{}") != 0)
		appendStringInfo(out, ", options => %s", quote_literal_cstr(set));
	appendStringInfoString(out, ");\n");
	mq_rights_statements(out, &group->queue, group);
	if (group->paused)
		appendStringInfo(out, "SELECT mq.pause(%s, %s);\n", queue, name);
}

/* Needs the right to browse. Works in a read-only transaction. */
MQ_FUNCTION(mq_ddl);
Datum
mq_ddl(PG_FUNCTION_ARGS)
{
	char	   *name = mq_text_arg(fcinfo, 0, "queue");
	MqQueue		queue;
	MqGroup    *groups;
	int			count;
	StringInfoData out;

	mq_require_preload();
	mq_check_primary("mq.ddl()");
	mq_catalog_catch_up();
	mq_queue_by_name(name, &queue);
	mq_check_right(&queue, MQ_RIGHT_BROWSE);
	if (queue.dead_letter_of != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" is made by mq itself", name),
				 errhint("It comes with the first dead letter of the queue whose dead letters it has.")));
	initStringInfo(&out);
	appendStringInfo(&out, "SELECT mq.create_queue(%s, groups => '{}', options => %s);\n", quote_literal_cstr(name),
					 quote_literal_cstr(queue_options(&queue)));
	mq_rights_statements(&out, &queue, NULL);
	groups = mq_groups_of(&queue, &count);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		add_group(&out, &groups[i]);
	}
	if (queue.paused)
		appendStringInfo(&out, "SELECT mq.pause(%s);\n", quote_literal_cstr(name));
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}
