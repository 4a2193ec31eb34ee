/*
 * dead_letter.c: the row of a message that has died, and of one that is sent back. See dead_letter.h.
 *
 * The column target_group of a dead letter is the group that it has died in, and its target_epoch is null: that is what tells it from a
 * message that is for one group only.
 */
#include "postgres.h"

#include "log/dead_letter.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#define SET(column, value) (v[(column) - 1] = (value), n[(column) - 1] = false)
#define UNSET(column) (n[(column) - 1] = true)

static void
push_key(JsonbParseState **state, const char *key)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = (char *) key;
	value.val.string.len = (int) strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

static void
push_text(JsonbParseState **state, const char *key, const char *text)
{
	JsonbValue	value = {.type = jbvNull};

	if (text != NULL)
	{
		value.type = jbvString;
		value.val.string.val = (char *) text;
		value.val.string.len = (int) strlen(text);
	}
	push_key(state, key);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_number(JsonbParseState **state, const char *key, int64 number)
{
	JsonbValue	value = {.type = jbvNumeric};

	value.val.numeric = int64_to_numeric(number);
	push_key(state, key);
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* The deaths so far, but for the oldest ones. */
static void
push_earlier(JsonbParseState **state, Jsonb *earlier)
{
	uint32		count = JB_ROOT_IS_ARRAY(earlier) ? Min(JB_ROOT_COUNT(earlier), MQ_DEATHS_MAX - 1) : 0;

	for (uint32 i = 0; i < count; i++)
		pushJsonbValue(state, WJB_ELEM, getIthJsonbValueFromContainer(&earlier->root, i));
}

/* earlier: NULL if it is the first one. */
static Datum
deaths(const MqGroup *group, const MqDeath *death, Jsonb *earlier)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, "queue", NameStr(group->queue.name));
	push_text(&state, "consumer_group", NameStr(group->name));
	push_number(&state, "id", death->id);
	push_number(&state, "attempt", death->attempts);
	push_number(&state, "failures", death->failures);
	push_text(&state, "reason", death->reason);
	push_text(&state, "dead_at", DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(death->at))));
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	if (earlier != NULL)
		push_earlier(&state, earlier);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)));
}

/* What a message keeps wherever it goes: when it was sent first, where, and under which id. */
static void
keep_origin(Datum *v, bool *n, int32 queue_no, int64 id)
{
	if (n[MQ_COL_SENT_AT - 1])
		SET(MQ_COL_SENT_AT, v[MQ_COL_ENQUEUED_AT - 1]);
	if (n[MQ_COL_ORIGIN_QUEUE - 1])
		SET(MQ_COL_ORIGIN_QUEUE, Int32GetDatum(queue_no));
	if (n[MQ_COL_ORIGIN_ID - 1])
		SET(MQ_COL_ORIGIN_ID, Int64GetDatum(id));
}

HeapTuple
mq_dead_letter_form(const Datum *values, const bool *isnull, const MqGroup *group, const MqDeath *death)
{
	Datum		v[MQ_COLUMNS];
	bool		n[MQ_COLUMNS];
	Jsonb	   *earlier = isnull[MQ_COL_DEATH - 1] ? NULL : DatumGetJsonbP(values[MQ_COL_DEATH - 1]);

	memcpy(v, values, sizeof(v));
	memcpy(n, isnull, sizeof(n));
	keep_origin(v, n, group->queue.queue_no, death->id);
	/* a dead letter never expires */
	UNSET(MQ_COL_EXPIRES_AT);
	UNSET(MQ_COL_TARGET_EPOCH);
	SET(MQ_COL_TARGET_GROUP, Int32GetDatum(group->group_no));
	SET(MQ_COL_ATTEMPT, Int32GetDatum(death->attempts));
	SET(MQ_COL_FAILURES, Int32GetDatum(death->failures));
	if (death->reason != NULL)
		SET(MQ_COL_REASON, CStringGetTextDatum(death->reason));
	else
		UNSET(MQ_COL_REASON);
	SET(MQ_COL_DEATH, deaths(group, death, earlier));
	return heap_form_tuple(mq_row_descriptor(), v, n);
}

int32
mq_dead_letter_group(const Datum *values, const bool *isnull)
{
	if (isnull[MQ_COL_TARGET_GROUP - 1] || !isnull[MQ_COL_TARGET_EPOCH - 1])
		return 0;
	return DatumGetInt32(values[MQ_COL_TARGET_GROUP - 1]);
}

HeapTuple
mq_dead_letter_revive(const Datum *values, const bool *isnull, int32 group_no, int32 epoch)
{
	Datum		v[MQ_COLUMNS];
	bool		n[MQ_COLUMNS];

	memcpy(v, values, sizeof(v));
	memcpy(n, isnull, sizeof(n));
	SET(MQ_COL_TARGET_GROUP, Int32GetDatum(group_no));
	SET(MQ_COL_TARGET_EPOCH, Int32GetDatum(epoch));
	UNSET(MQ_COL_ATTEMPT);
	UNSET(MQ_COL_FAILURES);
	/* the window of its first send is none of its */
	UNSET(MQ_COL_DEDUP_ID);
	return heap_form_tuple(mq_row_descriptor(), v, n);
}
