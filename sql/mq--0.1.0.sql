/*
 * mq 0.1.0: definitions. Queues themselves are made by mq.create_queue and are not part of the extension.
 *
 * Both schemas are made here, so that nobody else's objects are in them; where one of them is there already, CREATE EXTENSION
 * fails. mq has what people call and read, mq_internal the rest, with USAGE for nobody. Operators, functions and types are
 * written with their schema: a view may be read under any search_path.
 */

\echo Use "CREATE EXTENSION mq" to load this file. \quit

CREATE SCHEMA mq;
COMMENT ON SCHEMA mq IS 'Message queues: what is called and read. The tables mq.q_<queue> are the queues.';
CREATE SCHEMA mq_internal;
COMMENT ON SCHEMA mq_internal IS 'Message queues: definitions, partitions, sequences, offset log. Nothing in here is for users.';

-- ---------------------------------------------------------------------------------------------------------------
-- Definitions. Dumped as data; queue and group numbers are never used again.

CREATE SEQUENCE mq_internal.queue_no AS integer;
CREATE SEQUENCE mq_internal.group_no AS integer MAXVALUE 16777215;

CREATE TABLE mq_internal.queue (
    queue_no          integer NOT NULL,
    name              name    NOT NULL,
    segment_size      bigint  NOT NULL DEFAULT 1048576,
    levels            integer NOT NULL DEFAULT 1,
    paused            boolean NOT NULL DEFAULT false,
    retention         interval,
    retention_bytes   bigint,
    drop_unread       boolean NOT NULL DEFAULT false,
    notify_interval   interval,
    closed            boolean NOT NULL DEFAULT false,
    max_message_bytes integer,
    dead_letter_of    integer,
    expires_after     interval,
    max_messages      bigint,
    max_bytes         bigint,
    overflow          text    NOT NULL DEFAULT 'reject',
    max_send_per_second integer,
    dedup_window      interval DEFAULT '1 day',
    system_identifier bigint  NOT NULL,
    database          oid     NOT NULL,
    extension         oid     NOT NULL,
    queue_table       oid     NOT NULL,
    CONSTRAINT queue_pkey PRIMARY KEY (queue_no),
    CONSTRAINT queue_name_key UNIQUE (name)
);
COMMENT ON TABLE mq_internal.queue IS 'Queues. system_identifier, database, extension and queue_table say where the queue was last used.';

CREATE TABLE mq_internal.consumer_group (
    group_no                   integer NOT NULL,
    queue_no                   integer NOT NULL,
    name                       name    NOT NULL,
    epoch                      integer NOT NULL DEFAULT 1,
    start_id                   bigint  NOT NULL DEFAULT 1,
    paused                     boolean NOT NULL DEFAULT false,
    max_in_flight              integer,
    max_in_flight_per_consumer integer,
    visibility_timeout         interval,
    retry_delays               interval[] DEFAULT '{0 s,1 s,10 s,1 min,5 min,15 min,1 h}',
    max_failures               integer DEFAULT 20,
    dead_letter_queue          integer DEFAULT 0,
    max_lease                  interval,
    max_per_second             double precision,
    expires_after              interval,
    dropped                    bigint  NOT NULL DEFAULT 0,
    CONSTRAINT consumer_group_pkey PRIMARY KEY (group_no),
    CONSTRAINT consumer_group_queue_no_name_key UNIQUE (queue_no, name)
);
COMMENT ON TABLE mq_internal.consumer_group IS 'Consumer groups. Rows of the offset log with another epoch are void; seek raises it. dropped: messages that retention dropped unread, or that went because the queue was over its bounds.';

CREATE TABLE mq_internal.segment (
    queue_no integer NOT NULL,
    level    integer NOT NULL,
    segment  bigint  NOT NULL,
    file     oid     NOT NULL,
    sealed   boolean NOT NULL DEFAULT false,
    sealed_at timestamptz,
    CONSTRAINT segment_pkey PRIMARY KEY (queue_no, level, segment)
);
COMMENT ON TABLE mq_internal.segment IS 'Partitions of the queues. file: the relation file a segment was made with; its pages are in the order of ids only while it has that file. sealed_at: all messages in it are older.';

-- ---------------------------------------------------------------------------------------------------------------
-- The offset log: a ring of append-only tables (offset_log.h has the format).

CREATE TABLE mq_internal.consumer_offset_0 (
    n           bigint  NOT NULL,
    group_no    integer NOT NULL,
    level       integer NOT NULL,
    epoch       integer NOT NULL,
    lo          bigint  NOT NULL,
    hi          bigint  NOT NULL,
    ranges      bigint[],
    replay_from bigint
) WITH (autovacuum_enabled = false, vacuum_truncate = false);
CREATE TABLE mq_internal.consumer_offset_1 (LIKE mq_internal.consumer_offset_0) WITH (autovacuum_enabled = false, vacuum_truncate = false);
CREATE TABLE mq_internal.consumer_offset_2 (LIKE mq_internal.consumer_offset_0) WITH (autovacuum_enabled = false, vacuum_truncate = false);
CREATE TABLE mq_internal.consumer_offset_3 (LIKE mq_internal.consumer_offset_0) WITH (autovacuum_enabled = false, vacuum_truncate = false);
COMMENT ON TABLE mq_internal.consumer_offset_0 IS 'Offset log: acks and checkpoints, append-only; emptied when superfluous.';
COMMENT ON TABLE mq_internal.consumer_offset_1 IS 'Offset log: acks and checkpoints, append-only; emptied when superfluous.';
COMMENT ON TABLE mq_internal.consumer_offset_2 IS 'Offset log: acks and checkpoints, append-only; emptied when superfluous.';
COMMENT ON TABLE mq_internal.consumer_offset_3 IS 'Offset log: acks and checkpoints, append-only; emptied when superfluous.';

-- ---------------------------------------------------------------------------------------------------------------
-- The schedule: messages that are not due yet (schedule.h). Tables of an hour and of a day are used in turn.

CREATE TABLE mq_internal.scheduled (
    id            bigint      NOT NULL,
    due_at        timestamptz NOT NULL,
    sent_at       timestamptz NOT NULL,
    queue_no      integer     NOT NULL,
    version       integer     NOT NULL,
    kind          "char"      NOT NULL,
    sender        text,
    headers       jsonb,
    payload       jsonb,
    body          bytea,
    expires_in    bigint,
    origin_id     bigint,
    origin_queue  integer,
    target_group  integer,
    target_epoch  integer,
    priority      integer,
    attempt       integer,
    failures      integer,
    reply_to      uuid,
    key           text,
    routing_key   text,
    dedup_id      text,
    reason        text,
    death         jsonb
);
COMMENT ON TABLE mq_internal.scheduled IS 'Messages that are not due yet, in the tables that inherit from it.';
CREATE TABLE mq_internal.scheduled_hour_0 () INHERITS (mq_internal.scheduled);
CREATE INDEX scheduled_hour_0_due ON mq_internal.scheduled_hour_0 (queue_no, due_at, id);
CREATE INDEX scheduled_hour_0_id ON mq_internal.scheduled_hour_0 (queue_no, id, version);
CREATE TABLE mq_internal.scheduled_hour_1 () INHERITS (mq_internal.scheduled);
CREATE INDEX scheduled_hour_1_due ON mq_internal.scheduled_hour_1 (queue_no, due_at, id);
CREATE INDEX scheduled_hour_1_id ON mq_internal.scheduled_hour_1 (queue_no, id, version);
CREATE TABLE mq_internal.scheduled_hour_2 () INHERITS (mq_internal.scheduled);
CREATE INDEX scheduled_hour_2_due ON mq_internal.scheduled_hour_2 (queue_no, due_at, id);
CREATE INDEX scheduled_hour_2_id ON mq_internal.scheduled_hour_2 (queue_no, id, version);
CREATE TABLE mq_internal.scheduled_day_0 () INHERITS (mq_internal.scheduled);
CREATE INDEX scheduled_day_0_due ON mq_internal.scheduled_day_0 (queue_no, due_at, id);
CREATE INDEX scheduled_day_0_id ON mq_internal.scheduled_day_0 (queue_no, id, version);
CREATE TABLE mq_internal.scheduled_day_1 () INHERITS (mq_internal.scheduled);
CREATE INDEX scheduled_day_1_due ON mq_internal.scheduled_day_1 (queue_no, due_at, id);
CREATE INDEX scheduled_day_1_id ON mq_internal.scheduled_day_1 (queue_no, id, version);
CREATE TABLE mq_internal.scheduled_day_2 () INHERITS (mq_internal.scheduled);
CREATE INDEX scheduled_day_2_due ON mq_internal.scheduled_day_2 (queue_no, due_at, id);
CREATE INDEX scheduled_day_2_id ON mq_internal.scheduled_day_2 (queue_no, id, version);
CREATE TABLE mq_internal.scheduled_later () INHERITS (mq_internal.scheduled);
CREATE INDEX scheduled_later_due ON mq_internal.scheduled_later (queue_no, due_at, id);
CREATE INDEX scheduled_later_id ON mq_internal.scheduled_later (queue_no, id, version);

-- ---------------------------------------------------------------------------------------------------------------
-- Where messages are that have moved (moved.h).

CREATE TABLE mq_internal.moved_0 (
    queue_no integer  NOT NULL,
    block    bigint   NOT NULL,
    last_id  bigint   NOT NULL,
    pairs    bigint[] NOT NULL
);
CREATE INDEX moved_0_block ON mq_internal.moved_0 (queue_no, block);
CREATE TABLE mq_internal.moved_1 (LIKE mq_internal.moved_0);
CREATE INDEX moved_1_block ON mq_internal.moved_1 (queue_no, block);
CREATE TABLE mq_internal.moved_2 (LIKE mq_internal.moved_0);
CREATE INDEX moved_2_block ON mq_internal.moved_2 (queue_no, block);
CREATE TABLE mq_internal.moved_3 (LIKE mq_internal.moved_0);
CREATE INDEX moved_3_block ON mq_internal.moved_3 (queue_no, block);
CREATE TABLE mq_internal.moved_4 (LIKE mq_internal.moved_0);
CREATE INDEX moved_4_block ON mq_internal.moved_4 (queue_no, block);
CREATE TABLE mq_internal.moved_5 (LIKE mq_internal.moved_0);
CREATE INDEX moved_5_block ON mq_internal.moved_5 (queue_no, block);
CREATE TABLE mq_internal.moved_6 (LIKE mq_internal.moved_0);
CREATE INDEX moved_6_block ON mq_internal.moved_6 (queue_no, block);
CREATE TABLE mq_internal.moved_7 (LIKE mq_internal.moved_0);
CREATE INDEX moved_7_block ON mq_internal.moved_7 (queue_no, block);
COMMENT ON TABLE mq_internal.moved_0 IS 'Ids that mq.send returned, and where the messages are in their logs: pairs of an id and a place.';

-- ---------------------------------------------------------------------------------------------------------------
-- Why messages failed, a table for each day, used in turn (failure_log.h).

CREATE TABLE mq_internal.failure (
    group_no integer     NOT NULL,
    block    bigint      NOT NULL,
    lo       bigint      NOT NULL,
    hi       bigint      NOT NULL,
    at       timestamptz NOT NULL,
    due_at   timestamptz,
    kind     text        NOT NULL,
    sqlstate text,
    reason   text,
    consumer text,
    attempt  integer,
    failures integer
);
COMMENT ON TABLE mq_internal.failure IS 'Failures of messages, in the tables that inherit from it; block is lo / 256.';
CREATE TABLE mq_internal.failure_0 () INHERITS (mq_internal.failure);
CREATE INDEX failure_0_block ON mq_internal.failure_0 (group_no, block);
CREATE TABLE mq_internal.failure_1 () INHERITS (mq_internal.failure);
CREATE INDEX failure_1_block ON mq_internal.failure_1 (group_no, block);
CREATE TABLE mq_internal.failure_2 () INHERITS (mq_internal.failure);
CREATE INDEX failure_2_block ON mq_internal.failure_2 (group_no, block);
CREATE TABLE mq_internal.failure_3 () INHERITS (mq_internal.failure);
CREATE INDEX failure_3_block ON mq_internal.failure_3 (group_no, block);
CREATE TABLE mq_internal.failure_4 () INHERITS (mq_internal.failure);
CREATE INDEX failure_4_block ON mq_internal.failure_4 (group_no, block);
CREATE TABLE mq_internal.failure_5 () INHERITS (mq_internal.failure);
CREATE INDEX failure_5_block ON mq_internal.failure_5 (group_no, block);
CREATE TABLE mq_internal.failure_6 () INHERITS (mq_internal.failure);
CREATE INDEX failure_6_block ON mq_internal.failure_6 (group_no, block);
CREATE TABLE mq_internal.failure_7 () INHERITS (mq_internal.failure);
CREATE INDEX failure_7_block ON mq_internal.failure_7 (group_no, block);

-- ---------------------------------------------------------------------------------------------------------------
-- Deduplication ids (dedup.h). Tables are used in turn, by when a row is needed no more.

CREATE TABLE mq_internal.dedup_hour_0 (
    id           bigint      NOT NULL,
    counted_from timestamptz NOT NULL,
    queue_no     integer     NOT NULL,
    dedup_id     text        COLLATE pg_catalog."C" NOT NULL
);
COMMENT ON TABLE mq_internal.dedup_hour_0 IS 'Deduplication ids, and the messages that have them. counted_from: infinity where an id was freed.';
CREATE INDEX dedup_hour_0_id ON mq_internal.dedup_hour_0 (queue_no, dedup_id, id, counted_from);
CREATE TABLE mq_internal.dedup_hour_1 (LIKE mq_internal.dedup_hour_0);
CREATE INDEX dedup_hour_1_id ON mq_internal.dedup_hour_1 (queue_no, dedup_id, id, counted_from);
CREATE TABLE mq_internal.dedup_hour_2 (LIKE mq_internal.dedup_hour_0);
CREATE INDEX dedup_hour_2_id ON mq_internal.dedup_hour_2 (queue_no, dedup_id, id, counted_from);
CREATE TABLE mq_internal.dedup_day_0 (LIKE mq_internal.dedup_hour_0);
CREATE INDEX dedup_day_0_id ON mq_internal.dedup_day_0 (queue_no, dedup_id, id, counted_from);
CREATE TABLE mq_internal.dedup_day_1 (LIKE mq_internal.dedup_hour_0);
CREATE INDEX dedup_day_1_id ON mq_internal.dedup_day_1 (queue_no, dedup_id, id, counted_from);
CREATE TABLE mq_internal.dedup_day_2 (LIKE mq_internal.dedup_hour_0);
CREATE INDEX dedup_day_2_id ON mq_internal.dedup_day_2 (queue_no, dedup_id, id, counted_from);
CREATE TABLE mq_internal.dedup_month_0 (LIKE mq_internal.dedup_hour_0);
CREATE INDEX dedup_month_0_id ON mq_internal.dedup_month_0 (queue_no, dedup_id, id, counted_from);
CREATE TABLE mq_internal.dedup_month_1 (LIKE mq_internal.dedup_hour_0);
CREATE INDEX dedup_month_1_id ON mq_internal.dedup_month_1 (queue_no, dedup_id, id, counted_from);
CREATE TABLE mq_internal.dedup_month_2 (LIKE mq_internal.dedup_hour_0);
CREATE INDEX dedup_month_2_id ON mq_internal.dedup_month_2 (queue_no, dedup_id, id, counted_from);
CREATE TABLE mq_internal.dedup_later (LIKE mq_internal.dedup_hour_0);
CREATE INDEX dedup_later_id ON mq_internal.dedup_later (queue_no, dedup_id, id, counted_from);

SELECT pg_catalog.pg_extension_config_dump('mq_internal.queue_no', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.group_no', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.queue', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.consumer_group', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.segment', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.consumer_offset_0', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.consumer_offset_1', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.consumer_offset_2', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.consumer_offset_3', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.scheduled_hour_0', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.moved_0', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.moved_1', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.moved_2', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.moved_3', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.moved_4', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.moved_5', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.moved_6', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.moved_7', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.scheduled_hour_1', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.scheduled_hour_2', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.scheduled_day_0', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.scheduled_day_1', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.scheduled_day_2', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.scheduled_later', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.failure_0', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.failure_1', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.failure_2', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.failure_3', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.failure_4', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.failure_5', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.failure_6', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.failure_7', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.dedup_hour_0', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.dedup_hour_1', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.dedup_hour_2', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.dedup_day_0', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.dedup_day_1', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.dedup_day_2', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.dedup_month_0', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.dedup_month_1', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.dedup_month_2', '');
SELECT pg_catalog.pg_extension_config_dump('mq_internal.dedup_later', '');

-- ---------------------------------------------------------------------------------------------------------------
-- Messages as a consumer gets them.

CREATE TYPE mq.message AS (
    queue          text,
    consumer_group text,
    id             bigint,
    receipt        uuid,
    payload        jsonb,
    headers        jsonb,
    body           bytea,
    key            text,
    routing_key    text,
    priority       integer,
    attempt        integer,
    failures       integer,
    last_reason    text,
    sent_at        timestamptz,
    enqueued_at    timestamptz,
    due_at         timestamptz,
    expires_at     timestamptz,
    lease_until    timestamptz,
    origin_queue   text,
    origin_id      bigint,
    dedup_id       text,
    death          jsonb,
    reply_wanted   boolean
);
COMMENT ON TYPE mq.message IS 'A message as handed out by mq.receive and mq.pop.';
COMMENT ON COLUMN mq.message.queue IS 'Name of the queue.';
COMMENT ON COLUMN mq.message.consumer_group IS 'Name of the group that it is handed out to.';
COMMENT ON COLUMN mq.message.id IS 'Its place in the queue: greater than that of every message appended before.';
COMMENT ON COLUMN mq.message.receipt IS 'Names this hand-out: what mq.ack, nack, release and extend take.';
COMMENT ON COLUMN mq.message.payload IS 'As sent.';
COMMENT ON COLUMN mq.message.headers IS 'As sent: a JSON object, or null.';
COMMENT ON COLUMN mq.message.body IS 'As sent, byte for byte.';
COMMENT ON COLUMN mq.message.key IS 'Not filled yet: null.';
COMMENT ON COLUMN mq.message.routing_key IS 'Not filled yet: null.';
COMMENT ON COLUMN mq.message.priority IS '0, the lowest; there is no other one yet.';
COMMENT ON COLUMN mq.message.attempt IS 'How often it was handed out to the group, with this time.';
COMMENT ON COLUMN mq.message.failures IS 'How often it came back as failed.';
COMMENT ON COLUMN mq.message.last_reason IS 'Of a dead letter: why it died.';
COMMENT ON COLUMN mq.message.sent_at IS 'When it was sent first.';
COMMENT ON COLUMN mq.message.enqueued_at IS 'When it was appended to this queue.';
COMMENT ON COLUMN mq.message.due_at IS 'When it was due, if it was sent with a delay or a time of delivery; else null.';
COMMENT ON COLUMN mq.message.expires_at IS 'Not filled yet: null.';
COMMENT ON COLUMN mq.message.lease_until IS 'Until then it is held for the receiver; null for mq.pop.';
COMMENT ON COLUMN mq.message.origin_queue IS 'The queue that it was sent to first.';
COMMENT ON COLUMN mq.message.origin_id IS 'The id that mq.send returned.';
COMMENT ON COLUMN mq.message.death IS 'Where and how it has died, the latest time first: an array of objects; null: never.';
COMMENT ON COLUMN mq.message.dedup_id IS 'As sent: the id by which a repeat is known.';
COMMENT ON COLUMN mq.message.reply_wanted IS 'Not used yet: false.';

CREATE TYPE mq.browsed AS (
    queue             text,
    consumer_group    text,
    id                bigint,
    payload           jsonb,
    headers           jsonb,
    body              bytea,
    key               text,
    routing_key       text,
    priority          integer,
    attempt           integer,
    failures          integer,
    last_reason       text,
    sent_at           timestamptz,
    enqueued_at       timestamptz,
    due_at            timestamptz,
    expires_at        timestamptz,
    lease_until       timestamptz,
    origin_queue      text,
    origin_id         bigint,
    dedup_id          text,
    death             jsonb,
    reply_wanted      boolean,
    state             text,
    consumer          text,
    leased_at         timestamptz,
    first_received_at timestamptz
);
COMMENT ON TYPE mq.browsed IS 'A message as shown by mq.browse: mq.message without a receipt, and its state for the group.';
COMMENT ON COLUMN mq.browsed.due_at IS 'retrying: when it is ready again; else when it was due, if it was sent with a delay or a time of delivery.';
COMMENT ON COLUMN mq.browsed.lease_until IS 'leased, settling: the end of the lease.';
COMMENT ON COLUMN mq.browsed.state IS 'scheduled, ready, retrying, blocked, leased, settling, dead, expired, filtered or finished.';
COMMENT ON COLUMN mq.browsed.consumer IS 'leased, settling: the name that the receiver gave.';
COMMENT ON COLUMN mq.browsed.leased_at IS 'leased, settling: when it was handed out.';
COMMENT ON COLUMN mq.browsed.first_received_at IS 'Not filled yet: null.';

CREATE TYPE mq.event AS (
    at             timestamptz,
    consumer_group text,
    kind           text,
    attempt        integer,
    consumer       text,
    reason         text
);
COMMENT ON TYPE mq.event IS 'Something that happened to a message, as shown by mq.history.';
COMMENT ON COLUMN mq.event.at IS 'When.';
COMMENT ON COLUMN mq.event.consumer_group IS 'In which group; null: in none.';
COMMENT ON COLUMN mq.event.kind IS '''sent'', ''enqueued'', ''due'', ''dead'', or a kind of mq.failures.';
COMMENT ON COLUMN mq.event.attempt IS 'Which hand-out it was; null: none, or not known.';
COMMENT ON COLUMN mq.event.consumer IS 'Name that the consumer gave; null: none.';
COMMENT ON COLUMN mq.event.reason IS 'Why, as far as that is known.';

-- ---------------------------------------------------------------------------------------------------------------
-- Queues

CREATE FUNCTION mq.create_queue(queue text, groups text[] DEFAULT '{default}', options jsonb DEFAULT NULL,
    if_not_exists boolean DEFAULT false)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_create_queue';
COMMENT ON FUNCTION mq.create_queue(text, text[], jsonb, boolean) IS
    'Creates a queue with consumer groups, owned by the caller. Options: owner, segment_size, retention, retention_bytes, drop_unread, notify_interval, closed, expires_after, max_message_bytes, max_messages, max_bytes, overflow, max_send_per_second, dedup_window. Undone by rollback.';

CREATE FUNCTION mq.alter_queue(queue text, options jsonb)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_alter_queue';
COMMENT ON FUNCTION mq.alter_queue(text, jsonb) IS
    'Changes options of a queue: those that are given; null turns one off, "reset" names those that get their default, owner hands the queue on. Undone by rollback.';

CREATE FUNCTION mq.drop_queue(queue text, force boolean DEFAULT false)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_drop_queue';
COMMENT ON FUNCTION mq.drop_queue(text, boolean) IS
    'Drops a queue; refuses while it has unfinished messages unless forced. Undone by rollback.';

CREATE FUNCTION mq.purge(queue text, consumer_group text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_purge';
COMMENT ON FUNCTION mq.purge(text, text) IS
    'All groups of the queue, or one, skip what is committed by now. At commit; undone by rollback.';

CREATE FUNCTION mq.pause(queue text, consumer_group text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_pause';
COMMENT ON FUNCTION mq.pause(text, text) IS
    'Stops handing out messages of a queue, or of one of its groups; sending goes on. Undone by rollback.';

CREATE FUNCTION mq.resume(queue text, consumer_group text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_resume';
COMMENT ON FUNCTION mq.resume(text, text) IS 'Ends what mq.pause began. Undone by rollback.';

CREATE FUNCTION mq_internal.create_dead_letter_queue(queue_no integer)
RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_create_dead_letter_queue';
COMMENT ON FUNCTION mq_internal.create_dead_letter_queue(integer) IS
    'Makes the queue for the dead letters of a queue. For the worker, when there is the first one.';

CREATE FUNCTION mq_internal.refuse_direct_write()
RETURNS trigger LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_refuse_direct_write';
COMMENT ON FUNCTION mq_internal.refuse_direct_write() IS
    'Trigger on the tables of queues: messages come by mq.send and never change.';

-- ---------------------------------------------------------------------------------------------------------------
-- Consumer groups

CREATE FUNCTION mq.create_group(queue text, consumer_group text, start text DEFAULT NULL, start_id bigint DEFAULT NULL,
    start_time timestamptz DEFAULT NULL, options jsonb DEFAULT NULL, if_not_exists boolean DEFAULT false)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_create_group';
COMMENT ON FUNCTION mq.create_group(text, text, text, bigint, timestamptz, jsonb, boolean) IS
    'Creates a consumer group that begins at ''latest'' (what commits from now on), ''earliest'', an id or a time. Options: visibility_timeout, max_in_flight, max_in_flight_per_consumer, max_per_second, expires_after, max_lease, retry_delays, max_failures, dead_letter_queue. Undone by rollback.';

CREATE FUNCTION mq.alter_group(queue text, consumer_group text, options jsonb)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_alter_group';
COMMENT ON FUNCTION mq.alter_group(text, text, jsonb) IS
    'Changes options of a group: those that are given; null turns one off, "reset" names those that get their default. Undone by rollback.';

CREATE FUNCTION mq.drop_group(queue text, consumer_group text, force boolean DEFAULT false)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_drop_group';
COMMENT ON FUNCTION mq.drop_group(text, text, boolean) IS
    'Drops a consumer group; refuses while it has unfinished messages unless forced. Its receipts are refused from then on. Undone by rollback.';

CREATE FUNCTION mq.seek(queue text, consumer_group text, start text DEFAULT NULL, start_id bigint DEFAULT NULL,
    start_time timestamptz DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_seek';
COMMENT ON FUNCTION mq.seek(text, text, text, bigint, timestamptz) IS
    'Moves a group to ''earliest'', ''latest'', an id or a time; its receipts die at the commit. Undone by rollback.';

CREATE FUNCTION mq.count_from(queue text, consumer_group text, start text DEFAULT NULL, start_id bigint DEFAULT NULL,
    start_time timestamptz DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_count_from';
COMMENT ON FUNCTION mq.count_from(text, text, text, bigint, timestamptz) IS
    'How many messages a group would have to do after mq.seek to that place. Exact up to 128 MB of the log, else an estimate, with a NOTICE.';

-- ---------------------------------------------------------------------------------------------------------------
-- Rights: send, browse, manage: INSERT, SELECT, TRUNCATE on mq.q_<queue>; consume: USAGE on mq_internal.g_<number of the group>.

CREATE FUNCTION mq.grant(queue text, privilege text, role text, consumer_group text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_grant';
COMMENT ON FUNCTION mq.grant(text, text, text, text) IS
    'Gives a role the right to send, browse, manage, or consume (in one group, or in all there are). Undone by rollback.';

CREATE FUNCTION mq.revoke(queue text, privilege text, role text, consumer_group text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_revoke';
COMMENT ON FUNCTION mq.revoke(text, text, text, text) IS 'Takes a right back, whoever gave it; fails if the role has it by other ways still. Undone by rollback.';

-- ---------------------------------------------------------------------------------------------------------------
-- Sending

CREATE FUNCTION mq.send(queue text, payload jsonb DEFAULT NULL, headers jsonb DEFAULT NULL, body bytea DEFAULT NULL,
    key text DEFAULT NULL, routing_key text DEFAULT NULL, priority integer DEFAULT NULL, dedup_id text DEFAULT NULL,
    delay interval DEFAULT NULL, deliver_at timestamptz DEFAULT NULL, expires_in interval DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_send';
COMMENT ON FUNCTION mq.send(text, jsonb, jsonb, bytea, text, text, integer, text, interval, timestamptz, interval) IS
    'Sends a message and returns its id. It exists when the transaction commits, and is handed out when it is due: after a delay, or from deliver_at on. If its dedup_id was used within the queue''s dedup_window, nothing is sent, and the id of the first is returned. The arguments key, routing_key, priority and expires_in are not supported yet.';

CREATE FUNCTION mq.send_batch(queue text, payloads jsonb[] DEFAULT NULL, headers jsonb[] DEFAULT NULL,
    bodies bytea[] DEFAULT NULL, keys text[] DEFAULT NULL, routing_keys text[] DEFAULT NULL, priorities integer[] DEFAULT NULL,
    dedup_ids text[] DEFAULT NULL, delays interval[] DEFAULT NULL, deliver_at timestamptz[] DEFAULT NULL,
    expires_in interval[] DEFAULT NULL)
RETURNS bigint[] LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_send_batch';
COMMENT ON FUNCTION mq.send_batch(text, jsonb[], jsonb[], bytea[], text[], text[], integer[], text[], interval[], timestamptz[], interval[]) IS
    'Sends a message for each element and returns the ids in the same order. An array of one element is for all of them. The arguments keys, routing_keys, priorities and expires_in are not supported yet.';

CREATE FUNCTION mq.send_list(queue text, messages jsonb)
RETURNS bigint[] LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_send_list';
COMMENT ON FUNCTION mq.send_list(text, jsonb) IS
    'Sends a message for each element of a JSON array of objects, whose keys are named like the arguments of mq.send, and returns the ids in the same order. body is base64.';

CREATE FUNCTION mq.cancel(queue text, id bigint)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_cancel';
COMMENT ON FUNCTION mq.cancel(text, bigint) IS
    'Takes a message that is not due yet out of the schedule; false: it is not in it (any more). For who sent it, or may manage. Undone by rollback.';

CREATE FUNCTION mq.reschedule(queue text, id bigint, deliver_at timestamptz)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_reschedule';
COMMENT ON FUNCTION mq.reschedule(text, bigint, timestamptz) IS
    'Gives a message that is not due yet another due time, the past is now; false: it is not in the schedule (any more). For who sent it, or may manage. Undone by rollback.';

CREATE FUNCTION mq.dedup_find(queue text, dedup_id text)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_dedup_find_message';
COMMENT ON FUNCTION mq.dedup_find(text, text) IS
    'The id of the message that was sent with this dedup_id within the queue''s dedup_window; null: there is none. For who may send.';

CREATE FUNCTION mq.dedup_forget(queue text, dedup_id text)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_dedup_forget_id';
COMMENT ON FUNCTION mq.dedup_forget(text, text) IS
    'Frees a dedup_id, so that the next message with it is sent; false: it is free. For who may manage. Undone by rollback.';

CREATE FUNCTION mq.make_due(queue text, within interval DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_make_due';
COMMENT ON FUNCTION mq.make_due(text, interval) IS
    'Makes what is due within that time due now, null: all that is scheduled, and returns how many messages that are. Undone by rollback.';

-- ---------------------------------------------------------------------------------------------------------------
-- Receiving

CREATE FUNCTION mq.receive(queue text, consumer_group text DEFAULT 'default', max_messages integer DEFAULT 1,
    wait interval DEFAULT NULL, consumer text DEFAULT NULL, max_bytes integer DEFAULT NULL,
    visibility_timeout interval DEFAULT NULL, ack uuid[] DEFAULT NULL, strict boolean DEFAULT true)
RETURNS SETOF mq.message LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'mq_receive';
COMMENT ON FUNCTION mq.receive(text, text, integer, interval, text, integer, interval, uuid[], boolean) IS
    'Hands out up to max_messages, leased until the visibility timeout; waits for the first one if told to. Rollback gives them back. The argument ack is not supported yet.';

CREATE FUNCTION mq.pop(queue text, consumer_group text DEFAULT 'default', max_messages integer DEFAULT 1,
    wait interval DEFAULT NULL, consumer text DEFAULT NULL, max_bytes integer DEFAULT NULL)
RETURNS SETOF mq.message LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'mq_pop';
COMMENT ON FUNCTION mq.pop(text, text, integer, interval, text, integer) IS
    'Receives and acks in the current transaction. Rollback gives the messages back.';

CREATE PROCEDURE mq.wait(queue text, consumer_group text DEFAULT 'default', timeout interval DEFAULT '60 s')
LANGUAGE c AS 'MODULE_PATHNAME', 'mq_wait';
COMMENT ON PROCEDURE mq.wait(text, text, interval) IS
    'Waits until there is something to receive, or the time is over; takes nothing. Outside a transaction block without a snapshot.';

-- ---------------------------------------------------------------------------------------------------------------
-- Settling: one message, or with _batch an array of receipts.

CREATE FUNCTION mq.ack(receipt uuid)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_ack';
COMMENT ON FUNCTION mq.ack(uuid) IS
    'Finishes a message when the transaction commits. Raises lease_lost (MQ001) if it is no longer ours.';

CREATE FUNCTION mq.ack_batch(receipts uuid[], strict boolean DEFAULT true)
RETURNS uuid[] LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_ack_batch';
COMMENT ON FUNCTION mq.ack_batch(uuid[], boolean) IS
    'Finishes messages when the transaction commits. strict: all or error; otherwise returns the receipts refused.';

CREATE FUNCTION mq.nack(receipt uuid, delay interval DEFAULT NULL, reason text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_nack';
COMMENT ON FUNCTION mq.nack(uuid, interval, text) IS
    'Gives a message back as failed, ready after the delay, or as the ladder of the group says. At once; rollback does not undo it.';

CREATE FUNCTION mq.nack_batch(receipts uuid[], delay interval DEFAULT NULL, reason text DEFAULT NULL, strict boolean DEFAULT true)
RETURNS uuid[] LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_nack_batch';
COMMENT ON FUNCTION mq.nack_batch(uuid[], interval, text, boolean) IS
    'Gives messages back as failed. strict: all or error; otherwise returns the receipts refused.';

CREATE FUNCTION mq.release(receipt uuid, delay interval DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_release';
COMMENT ON FUNCTION mq.release(uuid, interval) IS
    'Gives a message back without counting a failure, ready after the delay. At once; rollback does not undo it.';

CREATE FUNCTION mq.release_batch(receipts uuid[], delay interval DEFAULT NULL, strict boolean DEFAULT true)
RETURNS uuid[] LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_release_batch';
COMMENT ON FUNCTION mq.release_batch(uuid[], interval, boolean) IS
    'Gives messages back without counting failures. strict: all or error; otherwise returns the receipts refused.';

CREATE FUNCTION mq.dead_letter(receipt uuid, reason text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_dead_letter';
COMMENT ON FUNCTION mq.dead_letter(uuid, text) IS
    'Gives a message up: it is dead, however often it has failed. At once; rollback does not undo it.';

CREATE FUNCTION mq.dead_letter_batch(receipts uuid[], reason text DEFAULT NULL, strict boolean DEFAULT true)
RETURNS uuid[] LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_dead_letter_batch';
COMMENT ON FUNCTION mq.dead_letter_batch(uuid[], text, boolean) IS
    'Gives messages up. strict: all or error; otherwise returns the receipts refused.';

CREATE FUNCTION mq.extend(receipt uuid, visibility_timeout interval)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_extend';
COMMENT ON FUNCTION mq.extend(uuid, interval) IS
    'Lets the lease end that long from now. At once; rollback does not undo it.';

CREATE FUNCTION mq.extend_batch(receipts uuid[], visibility_timeout interval, strict boolean DEFAULT true)
RETURNS uuid[] LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_extend_batch';
COMMENT ON FUNCTION mq.extend_batch(uuid[], interval, boolean) IS
    'Lets the leases end that long from now. strict: all or error; otherwise returns the receipts refused.';

CREATE FUNCTION mq.history(queue text, id bigint)
RETURNS SETOF mq.event LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'mq_history';
COMMENT ON FUNCTION mq.history(text, bigint) IS
    'What is known of a message, by the id that mq.send returned or its id in the queue: when it was sent and appended, how it failed in the last seven days, where it died.';

CREATE FUNCTION mq.redrive(queue text, ids bigint[] DEFAULT NULL, max_messages bigint DEFAULT NULL, spread interval DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_redrive';
COMMENT ON FUNCTION mq.redrive(text, bigint[], bigint, interval) IS
    'Sends dead letters of a queue (all, or these) back to the consumer groups they died in, at once or evenly over a time; returns how many. Undone by rollback.';

CREATE FUNCTION mq.retry(queue text, consumer_group text, ids bigint[])
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_retry';
COMMENT ON FUNCTION mq.retry(text, text, bigint[]) IS
    'Makes messages that wait for a retry ready now, and dead ones again, as if they had never failed; returns how many that were. At once; rollback does not undo it.';

CREATE FUNCTION mq.discard(queue text, consumer_group text, ids bigint[], reason text DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_discard';
COMMENT ON FUNCTION mq.discard(text, text, bigint[], text) IS
    'Finishes messages by id, whoever holds them; for the owner of the queue. Returns how many were unfinished. The argument reason is not supported yet.';

-- ---------------------------------------------------------------------------------------------------------------
-- A look at messages

CREATE FUNCTION mq.browse(queue text, consumer_group text DEFAULT 'default', states text[] DEFAULT NULL,
    max_messages integer DEFAULT 100, after_id bigint DEFAULT 0, filter text DEFAULT NULL, key text DEFAULT NULL)
RETURNS SETOF mq.browsed LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'mq_browse';
COMMENT ON FUNCTION mq.browse(text, text, text[], integer, bigint, text, text) IS
    'Messages of a group in some states (all but finished), by ascending id, from after_id on. Takes and changes nothing. The arguments filter and key are not supported yet.';

CREATE FUNCTION mq.ddl(queue text)
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_ddl';
COMMENT ON FUNCTION mq.ddl(text) IS
    'Statements that make an equal queue, without messages, in another database: options, groups, rights, pauses.';

-- ---------------------------------------------------------------------------------------------------------------
-- Views. They show queues on which the caller has some right: the functions below them ask. To roles for monitoring
-- (pg_read_all_stats) they show all.

CREATE FUNCTION mq_internal.queue_state(OUT queue_no integer, OUT queue_table oid, OUT owner oid, OUT next_id bigint,
    OUT scheduled bigint, OUT dedup_ids bigint, OUT duplicates bigint, OUT rejected bigint)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_queue_state';
COMMENT ON FUNCTION mq_internal.queue_state() IS 'The queues that the caller may see, for the views.';

CREATE FUNCTION mq_internal.group_state(OUT group_no integer, OUT rights oid, OUT epoch integer, OUT low_watermark bigint,
    OUT next_id bigint, OUT ready bigint, OUT retrying bigint, OUT leased bigint, OUT settling bigint, OUT dead bigint,
    OUT pending bigint, OUT unread bigint, OUT oldest_ready_at timestamptz, OUT oldest_unfinished_at timestamptz,
    OUT oldest_dead_at timestamptz, OUT next_due_at timestamptz,
    OUT held_back bigint, OUT waiting bigint, OUT overflowed bigint)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_group_state';
COMMENT ON FUNCTION mq_internal.group_state() IS 'The groups that the caller may see, for the views.';

CREATE FUNCTION mq_internal.segment_bytes(queue_no integer, from_segment bigint)
RETURNS bigint LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_segment_bytes';
COMMENT ON FUNCTION mq_internal.segment_bytes(integer, bigint) IS
    'Bytes on disk of a queue''s partitions from one on, for the views. Each is measured once in a statement.';

CREATE FUNCTION mq_internal.table_bytes(partition oid)
RETURNS bigint LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_table_bytes';
COMMENT ON FUNCTION mq_internal.table_bytes(oid) IS 'Bytes on disk of one partition, for the view mq.segments.';

CREATE FUNCTION mq_internal.segment_table(queue_no integer, level integer, segment bigint)
RETURNS oid LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_segment_table';
COMMENT ON FUNCTION mq_internal.segment_table(integer, integer, bigint) IS
    'The partition, null if it is gone, for the view mq.segments: a join with pg_class by a made-up name is planned badly.';

CREATE FUNCTION mq_internal.in_flight_state(OUT group_no integer, OUT id bigint, OUT state text, OUT attempt integer,
    OUT failures integer, OUT lease_until timestamptz, OUT consumer text, OUT leased_at timestamptz, OUT pid integer)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_in_flight_state';
COMMENT ON FUNCTION mq_internal.in_flight_state() IS 'Messages handed out, for the view mq.in_flight.';

CREATE FUNCTION mq_internal.consumer_state(OUT group_no integer, OUT consumer text, OUT leased bigint, OUT settling bigint,
    OUT oldest_lease_at timestamptz, OUT last_call_at timestamptz, OUT waiting bigint, OUT pid integer)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_consumer_state';
COMMENT ON FUNCTION mq_internal.consumer_state() IS 'Who holds messages or waits for some, for the view mq.consumers.';

CREATE VIEW mq.queues WITH (security_barrier) AS
SELECT q.name::pg_catalog.text AS queue,
       pg_catalog.pg_get_userbyid(s.owner)::pg_catalog.text AS owner,
       s.queue_table::pg_catalog.regclass AS queue_table,
       (SELECT p.name FROM mq_internal.queue p WHERE p.queue_no OPERATOR(pg_catalog.=) q.dead_letter_of)::pg_catalog.text AS dead_letter_of,
       s.next_id,
       (SELECT pg_catalog.count(*) FROM mq_internal.segment g WHERE g.queue_no OPERATOR(pg_catalog.=) q.queue_no) AS segments,
       mq_internal.segment_bytes(q.queue_no, 0) AS bytes,
       s.scheduled, s.dedup_ids,
       q.paused, q.closed, s.duplicates, s.rejected,
       q.segment_size, q.retention, q.retention_bytes, q.drop_unread, q.notify_interval, q.dedup_window,
       q.expires_after, q.max_messages, q.max_bytes, q.overflow, q.max_message_bytes, q.max_send_per_second
FROM mq_internal.queue_state() s
JOIN mq_internal.queue q ON q.queue_no OPERATOR(pg_catalog.=) s.queue_no;
COMMENT ON VIEW mq.queues IS 'The queues the caller has some right on.';
COMMENT ON COLUMN mq.queues.queue IS 'Name of the queue.';
COMMENT ON COLUMN mq.queues.owner IS 'Who has the right manage with grant option: may drop the queue and give rights.';
COMMENT ON COLUMN mq.queues.queue_table IS 'Table with the messages; SELECT on it is the right to browse.';
COMMENT ON COLUMN mq.queues.dead_letter_of IS 'The queue whose dead letters are here, and whose rights count for this one; null: an ordinary queue.';
COMMENT ON COLUMN mq.queues.next_id IS 'The next message gets this id or a greater one (exact).';
COMMENT ON COLUMN mq.queues.segments IS 'Partitions that exist (exact).';
COMMENT ON COLUMN mq.queues.bytes IS 'Size of the partitions on disk (exact).';
COMMENT ON COLUMN mq.queues.scheduled IS 'Messages that are not due yet (exact).';
COMMENT ON COLUMN mq.queues.dedup_ids IS 'Deduplication ids that are kept, for a while also those whose window is over (about); null: not counted yet.';
COMMENT ON COLUMN mq.queues.paused IS 'Nothing is handed out to any group.';
COMMENT ON COLUMN mq.queues.closed IS 'Nothing can be sent to it.';
COMMENT ON COLUMN mq.queues.rejected IS 'Messages that were refused because the queue was full, or got too many (exact, since the start of the server).';
COMMENT ON COLUMN mq.queues.duplicates IS 'Messages that were not sent because their dedup_id had been used (exact, since the start of the server).';
COMMENT ON COLUMN mq.queues.segment_size IS 'Ids per segment.';
COMMENT ON COLUMN mq.queues.retention IS 'How long finished messages are kept; null: not for their own sake.';
COMMENT ON COLUMN mq.queues.retention_bytes IS 'How much is kept of finished messages; null: nothing for its own sake.';
COMMENT ON COLUMN mq.queues.drop_unread IS 'Retention also drops what groups have not finished.';
COMMENT ON COLUMN mq.queues.notify_interval IS 'NOTIFY is sent at most so often; null: never.';
COMMENT ON COLUMN mq.queues.expires_after IS 'Dropped when nobody has used it for that long, and nothing is unfinished; null: never.';
COMMENT ON COLUMN mq.queues.max_messages IS 'So many messages may be unfinished in the slowest group, with those that are scheduled; null: no bound.';
COMMENT ON COLUMN mq.queues.max_bytes IS 'So many bytes of messages may be unfinished in the slowest group; null: no bound.';
COMMENT ON COLUMN mq.queues.overflow IS 'At these bounds: ''reject'' refuses what is sent, ''drop_oldest'' drops what is oldest.';
COMMENT ON COLUMN mq.queues.dedup_window IS 'How long a dedup_id is known, from the later of send and due; null: for ever.';
COMMENT ON COLUMN mq.queues.max_message_bytes IS 'A message may have so many bytes; null: only mq.max_message_size limits it.';
COMMENT ON COLUMN mq.queues.max_send_per_second IS 'So many messages may be sent to it in a second; null: no limit.';

CREATE VIEW mq.groups WITH (security_barrier) AS
SELECT q.name::pg_catalog.text AS queue,
       g.name::pg_catalog.text AS consumer_group,
       q.paused OR g.paused AS paused,
       s.ready, s.retrying, s.leased, s.settling, s.dead, s.pending, s.unread AS unread_at_most,
       s.ready OPERATOR(pg_catalog.+) s.retrying OPERATOR(pg_catalog.+) s.leased OPERATOR(pg_catalog.+) s.settling
           OPERATOR(pg_catalog.+) s.dead OPERATOR(pg_catalog.+) s.pending OPERATOR(pg_catalog.+) s.unread AS unfinished_at_most,
       s.oldest_ready_at, s.oldest_unfinished_at, s.oldest_dead_at, s.next_due_at, s.waiting,
       g.dropped OPERATOR(pg_catalog.+) COALESCE(s.overflowed, 0) AS dropped, s.held_back,
       mq_internal.segment_bytes(q.queue_no, s.low_watermark OPERATOR(pg_catalog./) q.segment_size) AS held_bytes,
       s.low_watermark, s.next_id, s.epoch,
       CASE WHEN g.retry_delays IS NULL OR g.max_failures OPERATOR(pg_catalog.=) 1 THEN CASE WHEN g.max_failures IS NOT NULL THEN '0 s'::pg_catalog.interval END
            ELSE (SELECT pg_catalog.sum(d) FROM pg_catalog.unnest(g.retry_delays[1:g.max_failures OPERATOR(pg_catalog.-) 1]) d)
                 OPERATOR(pg_catalog.+) (GREATEST(g.max_failures OPERATOR(pg_catalog.-) 1 OPERATOR(pg_catalog.-) pg_catalog.cardinality(g.retry_delays), 0)
                                         OPERATOR(pg_catalog.*) g.retry_delays[pg_catalog.cardinality(g.retry_delays)])
       END AS retry_span,
       s.rights::pg_catalog.regclass AS rights,
       g.visibility_timeout, g.max_in_flight, g.max_in_flight_per_consumer,
       g.max_per_second, g.expires_after, g.max_lease, g.retry_delays, g.max_failures,
       CASE WHEN g.dead_letter_queue OPERATOR(pg_catalog.<>) 0
            THEN (SELECT d.name FROM mq_internal.queue d WHERE d.queue_no OPERATOR(pg_catalog.=) g.dead_letter_queue)::pg_catalog.text
            WHEN g.dead_letter_queue IS NOT NULL AND q.dead_letter_of IS NULL THEN q.name::pg_catalog.text OPERATOR(pg_catalog.||) '.dead'
       END AS dead_letter_queue
FROM mq_internal.group_state() s
JOIN mq_internal.consumer_group g ON g.group_no OPERATOR(pg_catalog.=) s.group_no
JOIN mq_internal.queue q ON q.queue_no OPERATOR(pg_catalog.=) g.queue_no;
COMMENT ON VIEW mq.groups IS 'The consumer groups the caller may manage, browse or consume in, and what is unfinished in them.';
COMMENT ON COLUMN mq.groups.queue IS 'Name of the queue.';
COMMENT ON COLUMN mq.groups.consumer_group IS 'Name of the group.';
COMMENT ON COLUMN mq.groups.paused IS 'Nothing is handed out: the group or its queue is paused.';
COMMENT ON COLUMN mq.groups.ready IS 'Messages seen that can be handed out now (exact).';
COMMENT ON COLUMN mq.groups.retrying IS 'Messages that came back and wait for the end of a delay (exact).';
COMMENT ON COLUMN mq.groups.leased IS 'Messages handed out (exact).';
COMMENT ON COLUMN mq.groups.settling IS 'Messages acked by transactions that are not decided (exact).';
COMMENT ON COLUMN mq.groups.dead IS 'Messages that have failed too often, or were given up for dead, and are still in this queue (exact).';
COMMENT ON COLUMN mq.groups.pending IS 'Messages seen whose sender is, or was when last looked at, not decided (exact).';
COMMENT ON COLUMN mq.groups.unread_at_most IS 'Ids that were given and not looked at: an upper bound of the messages there.';
COMMENT ON COLUMN mq.groups.unfinished_at_most IS 'All that is not finished: the sum of ready to unread_at_most.';
COMMENT ON COLUMN mq.groups.oldest_ready_at IS 'When the first message came that can be handed out, or was not looked at; null: there is none, or its partition is locked.';
COMMENT ON COLUMN mq.groups.oldest_unfinished_at IS 'When the first message came that is not finished; null: there is none, or its partition is locked.';
COMMENT ON COLUMN mq.groups.oldest_dead_at IS 'When the first dead message came; null: there is none, or its partition is locked.';
COMMENT ON COLUMN mq.groups.next_due_at IS 'When the next retrying message is ready.';
COMMENT ON COLUMN mq.groups.waiting IS 'Receivers that wait now (exact).';
COMMENT ON COLUMN mq.groups.dropped IS 'Messages that retention, or a bound of the queue, dropped before the group had finished them (upper bound).';
COMMENT ON COLUMN mq.groups.held_back IS 'How often a hand-out or look-ahead was given up because shared memory was full (exact, since the start of the server).';
COMMENT ON COLUMN mq.groups.held_bytes IS 'Size on disk of the partitions from low_watermark on: what is kept for this group (exact).';
COMMENT ON COLUMN mq.groups.low_watermark IS 'Every message below is finished (exact).';
COMMENT ON COLUMN mq.groups.next_id IS 'Look-ahead has seen every message below (exact).';
COMMENT ON COLUMN mq.groups.epoch IS 'Goes up with every seek and purge.';
COMMENT ON COLUMN mq.groups.retry_span IS 'How long a message that always fails is tried, with the delays alone; null: for ever.';
COMMENT ON COLUMN mq.groups.rights IS 'Sequence that carries the rights of the group: USAGE on it is the right to consume.';
COMMENT ON COLUMN mq.groups.visibility_timeout IS 'Length of a lease when the call does not say; null: mq.visibility_timeout.';
COMMENT ON COLUMN mq.groups.max_in_flight IS 'Messages handed out and not finished at most; null: no limit.';
COMMENT ON COLUMN mq.groups.max_in_flight_per_consumer IS 'The same for each consumer name; null: no limit.';
COMMENT ON COLUMN mq.groups.max_per_second IS 'Messages handed out in a second at most; null: no limit.';
COMMENT ON COLUMN mq.groups.expires_after IS 'Dropped when nobody has received for that long; null: never.';
COMMENT ON COLUMN mq.groups.max_lease IS 'How long a message may be held from its hand-out on, with all extensions; null: no limit.';

COMMENT ON COLUMN mq.groups.retry_delays IS 'After the n-th failure a message comes back after the n-th delay, the last one repeats; null: at once.';
COMMENT ON COLUMN mq.groups.dead_letter_queue IS 'Where dead messages go; null: they stay.';
COMMENT ON COLUMN mq.groups.max_failures IS 'So often a message may fail: then it is dead; null: any number of times.';

CREATE VIEW mq.segments WITH (security_barrier) AS
SELECT q.name::pg_catalog.text AS queue,
       g.level,
       g.segment,
       c.oid::pg_catalog.regclass AS segment_table,
       g.segment OPERATOR(pg_catalog.*) q.segment_size AS first_id,
       (g.segment OPERATOR(pg_catalog.+) 1::pg_catalog.int8) OPERATOR(pg_catalog.*) q.segment_size OPERATOR(pg_catalog.-) 1::pg_catalog.int8 AS last_id,
       g.sealed,
       g.sealed_at,
       mq_internal.table_bytes(c.oid) AS bytes
FROM mq_internal.queue_state() s
JOIN mq_internal.queue q ON q.queue_no OPERATOR(pg_catalog.=) s.queue_no
JOIN mq_internal.segment g ON g.queue_no OPERATOR(pg_catalog.=) q.queue_no
CROSS JOIN LATERAL (SELECT mq_internal.segment_table(g.queue_no, g.level, g.segment) AS oid OFFSET 0) c
WHERE c.oid IS NOT NULL;
COMMENT ON VIEW mq.segments IS 'The partitions of those queues.';
COMMENT ON COLUMN mq.segments.queue IS 'Name of the queue.';
COMMENT ON COLUMN mq.segments.level IS 'Priority level; there is one, 0.';
COMMENT ON COLUMN mq.segments.segment IS 'Number of the partition: first_id / segment_size.';
COMMENT ON COLUMN mq.segments.segment_table IS 'The partition itself.';
COMMENT ON COLUMN mq.segments.first_id IS 'Smallest id that may be in it.';
COMMENT ON COLUMN mq.segments.last_id IS 'Greatest id that may be in it.';
COMMENT ON COLUMN mq.segments.sealed IS 'Nothing is appended any more; a BRIN index helps browsing.';
COMMENT ON COLUMN mq.segments.sealed_at IS 'When that was: all messages in it are older.';
COMMENT ON COLUMN mq.segments.bytes IS 'Size on disk, with TOAST table and indexes (exact).';

CREATE VIEW mq.in_flight WITH (security_barrier) AS
SELECT q.name::pg_catalog.text AS queue,
       g.name::pg_catalog.text AS consumer_group,
       s.id, s.id AS origin_id, s.state, s.attempt, s.failures, s.consumer, s.pid, s.leased_at, s.lease_until
FROM mq_internal.in_flight_state() s
JOIN mq_internal.consumer_group g ON g.group_no OPERATOR(pg_catalog.=) s.group_no
JOIN mq_internal.queue q ON q.queue_no OPERATOR(pg_catalog.=) g.queue_no;
COMMENT ON VIEW mq.in_flight IS 'The messages of those groups that are handed out, or acked by an undecided transaction (exact).';
COMMENT ON COLUMN mq.in_flight.queue IS 'Name of the queue.';
COMMENT ON COLUMN mq.in_flight.consumer_group IS 'Name of the group.';
COMMENT ON COLUMN mq.in_flight.id IS 'Id of the message.';
COMMENT ON COLUMN mq.in_flight.origin_id IS 'The id that mq.send returned.';
COMMENT ON COLUMN mq.in_flight.state IS '''leased'' or ''settling'' (acked by an undecided transaction).';
COMMENT ON COLUMN mq.in_flight.attempt IS 'How often it was handed out.';
COMMENT ON COLUMN mq.in_flight.failures IS 'How often it came back as failed.';
COMMENT ON COLUMN mq.in_flight.lease_until IS 'End of the lease; null: it was popped or discarded.';
COMMENT ON COLUMN mq.in_flight.consumer IS 'Name the receiver gave; null: none.';
COMMENT ON COLUMN mq.in_flight.leased_at IS 'When it was handed out; null: it was discarded.';
COMMENT ON COLUMN mq.in_flight.pid IS 'Process whose open transaction took the lease, or acked the message; null: none.';

CREATE VIEW mq.consumers WITH (security_barrier) AS
SELECT q.name::pg_catalog.text AS queue,
       g.name::pg_catalog.text AS consumer_group,
       s.consumer, s.leased, s.settling, s.oldest_lease_at, s.last_call_at, s.waiting, s.pid
FROM mq_internal.consumer_state() s
JOIN mq_internal.consumer_group g ON g.group_no OPERATOR(pg_catalog.=) s.group_no
JOIN mq_internal.queue q ON q.queue_no OPERATOR(pg_catalog.=) g.queue_no;
COMMENT ON VIEW mq.consumers IS 'Who holds messages of those groups, or waits for some.';
COMMENT ON COLUMN mq.consumers.queue IS 'Name of the queue.';
COMMENT ON COLUMN mq.consumers.consumer_group IS 'Name of the group.';
COMMENT ON COLUMN mq.consumers.consumer IS 'Name that the consumer gave; null: none, then each process is one, and what processes hold that are not known any more is one row.';
COMMENT ON COLUMN mq.consumers.leased IS 'Messages it holds (exact).';
COMMENT ON COLUMN mq.consumers.settling IS 'Messages it has acked in transactions that are not decided (exact).';
COMMENT ON COLUMN mq.consumers.oldest_lease_at IS 'When the first of them was handed out.';
COMMENT ON COLUMN mq.consumers.last_call_at IS 'When the last of them was handed out, or since when it waits.';
COMMENT ON COLUMN mq.consumers.waiting IS 'Its calls that wait now.';
COMMENT ON COLUMN mq.consumers.pid IS 'A process of its that waits or has an open transaction with such messages; null: none.';

CREATE VIEW mq.scheduled WITH (security_barrier) AS
SELECT q.name::pg_catalog.text AS queue,
       m.id, m.due_at, m.sent_at, m.sender,
       g.name::pg_catalog.text AS consumer_group,
       CASE m.kind WHEN 's' THEN 'send' WHEN 'r' THEN 'retry' ELSE 'redrive' END AS kind,
       CASE WHEN s.may_browse THEN m.key END AS key,
       COALESCE(m.priority, 0) AS priority,
       COALESCE(pg_catalog.pg_column_size(m.payload), 0) OPERATOR(pg_catalog.+) COALESCE(pg_catalog.pg_column_size(m.headers), 0)
           OPERATOR(pg_catalog.+) COALESCE(pg_catalog.pg_column_size(m.body), 0) AS size,
       CASE WHEN s.may_browse THEN m.dedup_id END AS dedup_id,
       NULL::pg_catalog.text AS held_reason
FROM (SELECT queue_no, pg_catalog.has_table_privilege(queue_table, 'SELECT') AS may_browse FROM mq_internal.queue_state()) s
JOIN mq_internal.queue q ON q.queue_no OPERATOR(pg_catalog.=) s.queue_no
JOIN mq_internal.scheduled m ON m.queue_no OPERATOR(pg_catalog.=) s.queue_no
LEFT JOIN mq_internal.consumer_group g ON g.group_no OPERATOR(pg_catalog.=) m.target_group;
COMMENT ON VIEW mq.scheduled IS 'The messages of those queues that are not due yet.';
COMMENT ON COLUMN mq.scheduled.queue IS 'Name of the queue.';
COMMENT ON COLUMN mq.scheduled.id IS 'The id that mq.send returned: what mq.cancel and mq.reschedule take.';
COMMENT ON COLUMN mq.scheduled.due_at IS 'When it comes.';
COMMENT ON COLUMN mq.scheduled.sent_at IS 'When it was sent.';
COMMENT ON COLUMN mq.scheduled.sender IS 'Role that sent it.';
COMMENT ON COLUMN mq.scheduled.consumer_group IS 'Group that it is for; null: all.';
COMMENT ON COLUMN mq.scheduled.kind IS '''send'' or ''redrive''; ''retry'' is not used yet.';
COMMENT ON COLUMN mq.scheduled.key IS 'Not filled yet: null. For who may browse.';
COMMENT ON COLUMN mq.scheduled.priority IS '0, the lowest; there is no other one yet.';
COMMENT ON COLUMN mq.scheduled.size IS 'Bytes of payload, headers and body, as stored.';
COMMENT ON COLUMN mq.scheduled.dedup_id IS 'As sent. For who may browse.';
COMMENT ON COLUMN mq.scheduled.held_reason IS 'Not filled yet: null.';

CREATE FUNCTION mq_internal.group_sight(group_no integer)
RETURNS boolean LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_group_sight';
COMMENT ON FUNCTION mq_internal.group_sight(integer) IS
    'Null: the caller may not see the group; true: reasons as well, which may say something of messages. For the view mq.failures.';

CREATE VIEW mq.failures WITH (security_barrier) AS
SELECT q.name::pg_catalog.text AS queue,
       g.name::pg_catalog.text AS consumer_group,
       i.id, i.id AS origin_id, f.at AS failed_at, f.kind, f.sqlstate,
       CASE WHEN g.sight THEN f.reason END AS reason,
       f.consumer, f.attempt, f.due_at AS next_due_at
FROM (SELECT group_no, queue_no, name, mq_internal.group_sight(group_no) AS sight FROM mq_internal.consumer_group OFFSET 0) g
JOIN mq_internal.queue q ON q.queue_no OPERATOR(pg_catalog.=) g.queue_no
JOIN mq_internal.failure f ON f.group_no OPERATOR(pg_catalog.=) g.group_no
CROSS JOIN LATERAL pg_catalog.generate_series(f.lo, f.hi) i(id)
WHERE g.sight IS NOT NULL;
COMMENT ON VIEW mq.failures IS 'The failures of messages in those groups, of the last seven days; written a moment after they happen.';
COMMENT ON COLUMN mq.failures.queue IS 'Name of the queue.';
COMMENT ON COLUMN mq.failures.consumer_group IS 'Name of the group.';
COMMENT ON COLUMN mq.failures.id IS 'Id of the message.';
COMMENT ON COLUMN mq.failures.origin_id IS 'The same.';
COMMENT ON COLUMN mq.failures.failed_at IS 'When it failed.';
COMMENT ON COLUMN mq.failures.kind IS '''nack'', ''error'', ''timeout'', ''rollback'' (of no known cause), ''lease_end'', ''lost'' (the session ended) or ''crash''.';
COMMENT ON COLUMN mq.failures.sqlstate IS 'error, timeout: of the error.';
COMMENT ON COLUMN mq.failures.reason IS 'nack: what was given; error: the message of the error; for who may browse.';
COMMENT ON COLUMN mq.failures.consumer IS 'Name that the consumer gave; null: none.';
COMMENT ON COLUMN mq.failures.attempt IS 'Which hand-out it was; null: not known.';
COMMENT ON COLUMN mq.failures.next_due_at IS 'When it comes back; null: at once, or never, for it is dead.';

-- ---------------------------------------------------------------------------------------------------------------
-- Rights on all of the above. What ALTER DEFAULT PRIVILEGES would give away is taken back first.

CREATE FUNCTION mq_internal.reset_privileges()
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_reset_all_privileges';
COMMENT ON FUNCTION mq_internal.reset_privileges() IS
    'Gives every relation, function and both schemas of mq the privileges that PostgreSQL gives without ALTER DEFAULT PRIVILEGES. For this script.';
CREATE FUNCTION mq_internal.pass_on_privileges(was regprocedure, now_is regprocedure)
RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mq_pass_on_privileges';
COMMENT ON FUNCTION mq_internal.pass_on_privileges(regprocedure, regprocedure) IS
    'Gives one function the privileges of another one, whose place it takes. For upgrade scripts.';
SELECT mq_internal.reset_privileges();

GRANT USAGE ON SCHEMA mq TO PUBLIC;
GRANT SELECT ON mq.queues, mq.groups, mq.segments, mq.in_flight, mq.consumers, mq.scheduled, mq.failures TO PUBLIC;
REVOKE ALL ON FUNCTION mq.create_queue(text, text[], jsonb, boolean) FROM PUBLIC;
