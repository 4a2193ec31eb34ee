-- The same bytes as a message (pgbench).
SELECT mq.send('speed', '{"order": 4711, "customer": 17, "amount": 1999, "cur": "EUR"}');
