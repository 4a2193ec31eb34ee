--
-- settings: what can be set, by whom, within which bounds
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS mq;
\set VERBOSITY sqlstate

-- mq.stop_point and mq.wake_sweep exist in test builds only
SELECT name, context, boot_val, unit
  FROM pg_settings WHERE name LIKE 'mq.%' AND name NOT IN ('mq.stop_point', 'mq.wake_sweep')
 ORDER BY name COLLATE "C";
SELECT count(*) AS without_description
  FROM pg_settings WHERE name LIKE 'mq.%' AND coalesce(short_desc, '') = '';

SET mq.visibility_timeout = '5s';
SHOW mq.visibility_timeout;
SET mq.visibility_timeout = 0;          -- 22023
SET mq.visibility_timeout = -1;         -- 22023
SET mq.segment_wait = '10s';
SHOW mq.segment_wait;
SET mq.segment_wait = -1;               -- 22023
SET mq.max_message_size = '1MB';
SHOW mq.max_message_size;
SET mq.max_message_size = -1;           -- 22023
SET mq.shared_memory = '64MB';          -- 55P02
SET mq.max_queues = 10;                 -- 55P02
SET mq.max_groups = 10;                 -- 55P02
SET mq.drop_delay = '1s';               -- 55P02
SET mq.offset_log_size = '1MB';         -- 55P02
SET mq.no_such_setting = 1;             -- 42602: the prefix is reserved

-- the size limit is the administrator's
CREATE ROLE regress_mq_setter;
SET ROLE regress_mq_setter;
SET mq.max_message_size = '2MB';        -- 42501
SET mq.visibility_timeout = '6s';
RESET ROLE;
DROP ROLE regress_mq_setter;
