# shellcheck shell=bash disable=SC2034
# What tools/instructions counts.  A session is one connection to the server under callgrind: before_<session> prints the SQL
# that warms it up, work_<session> the SQL that is counted.  Then each row of `verbs` is
#     name  session  function  calls or messages by which its inclusive count is divided  reference  room
# The reference is PostgreSQL's own work of the same kind, counted in the same run: "-" for a reference itself.  Room is what
# a small count may grow by, in instructions, before its percentage is looked at.
# Each session has a queue of its own (with as many messages as it takes: so looking ahead is counted whole) and one to
# warm up with.
sessions=(insert small insert_many lookup fetch send send_batch single bulk pop pop_bulk)
verbs='insert        insert      standard_ExecutorRun  1000   -            0
       small         small       standard_ExecutorRun  1000   -            0
       insert_many   insert_many standard_ExecutorRun  10000  -            0
       lookup        lookup      standard_ExecutorRun  1000   -            0
       fetch         fetch       standard_ExecutorRun  10000  -            0
       send          send        mq_send               1000   insert       0
       send_batch    send_batch  mq_send_batch         10000  insert_many  0
       receive       single      mq_receive            1000   lookup       0
       ack           single      mq_ack                1000   small        0
       commit        single      xact_callback         1000   small        40
       receive_1000  bulk        mq_receive            10000  fetch        0
       ack_1000      bulk        mq_ack_batch          10000  small        10
       pop           pop         mq_pop                1000   lookup       0
       pop_1000      pop_bulk    mq_pop                10000  fetch        0'

payload='{"order": 4711, "customer": "Miller", "amount": 19.99}'

prepare() {
	local session
	q -c 'CREATE EXTENSION mq' -c 'CREATE TABLE plain (id bigint, enqueued_at timestamptz, payload jsonb)' \
	  -c 'CREATE TABLE small (a bigint, b integer, c integer, d integer, e bigint, f bigint, g bigint[], h bigint)' -c 'CREATE TABLE many (LIKE plain)' \
	  -c "CREATE TABLE filled AS SELECT id, now() AS enqueued_at, '$payload'::jsonb AS payload FROM generate_series(1::bigint, 1000) AS id" \
	  -c 'ALTER TABLE filled ADD PRIMARY KEY (id)'
	for session in warm "${sessions[@]}"; do q -o /dev/null -c "SELECT mq.create_queue('$session')"; done
	q -o /dev/null -c "SELECT mq.send_batch(queue, array_fill('$payload'::jsonb, ARRAY[n]))
	                   FROM (VALUES ('warm', 1000), ('single', 1000), ('bulk', 10000), ('pop', 1000), ('pop_bulk', 10000)) AS w (queue, n)"
	q -c VACUUM -c CHECKPOINT
}

before_insert()     { lines "PREPARE i AS INSERT INTO plain VALUES (\$1, now(), '$payload')"; times 2 'EXECUTE i (1)'; }
work_insert()       { times 1000 'EXECUTE i (1)'; }

before_small()      { lines 'PREPARE i AS INSERT INTO small VALUES ($1, 2, 0, 1, 11, 12)'; times 2 'EXECUTE i (1)'; }
work_small()        { times 1000 'EXECUTE i (1)'; }

before_insert_many() { lines "PREPARE i AS INSERT INTO many SELECT i, now(), '$payload' FROM generate_series(1, 1000) AS i"; times 2 'EXECUTE i'; }
work_insert_many()  { times 10 'EXECUTE i'; }

before_lookup()     { lines 'PREPARE l AS SELECT id FROM filled WHERE id = $1'; times 6 'EXECUTE l (1)'; }
work_lookup()       { times 1000 'EXECUTE l (7)'; }

before_fetch()      { lines 'PREPARE f AS WITH m AS MATERIALIZED (SELECT * FROM filled) SELECT count(*) FROM m'; times 2 'EXECUTE f'; }
work_fetch()        { times 10 'EXECUTE f'; }

before_send()       { times 2 "SELECT mq.send('send', '$payload'::jsonb)"; }
work_send()         { times 1000 "SELECT mq.send('send', '$payload'::jsonb)"; }

before_send_batch() { times 2 "SELECT mq.send_batch('send_batch', array_fill('$payload'::jsonb, ARRAY[1000]))"; }
work_send_batch()   { times 10 "SELECT mq.send_batch('send_batch', array_fill('$payload'::jsonb, ARRAY[1000]))"; }

before_single()     { times 2 "$(receive_and_ack warm)"; }
work_single()       { times 1000 "$(receive_and_ack single)"; }
receive_and_ack()   { lines "SELECT receipt FROM mq.receive('$1', max_messages => 1, visibility_timeout => '1 day') \\gset" "SELECT mq.ack(:'receipt'::uuid)"; }

before_bulk()       { times 2 "$(receive_and_ack_many warm 10)"; }
work_bulk()         { times 10 "$(receive_and_ack_many bulk 1000)"; }
receive_and_ack_many() {
	lines "SELECT array_agg(receipt) AS receipts FROM mq.receive('$1', max_messages => $2, visibility_timeout => '1 day') \\gset" "SELECT mq.ack_batch(:'receipts'::uuid[])"
}

before_pop()        { times 2 "SELECT * FROM mq.pop('warm', max_messages => 1)"; }
work_pop()          { times 1000 "SELECT * FROM mq.pop('pop', max_messages => 1)"; }

before_pop_bulk()   { times 2 "SELECT * FROM mq.pop('warm', max_messages => 10)"; }
work_pop_bulk()     { times 10 "SELECT * FROM mq.pop('pop_bulk', max_messages => 1000)"; }

# statements, each its own transaction
lines() { local line; for line in "$@"; do if [[ $line == *\; || $line == *\\gset ]]; then say "$line"; else say "$line;"; fi; done; }
times() { local i; for ((i = 0; i < $1; i++)); do lines "$2"; done; }
