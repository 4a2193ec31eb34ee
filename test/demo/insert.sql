-- The yardstick (pgbench): a plain INSERT into a table with a primary key.
INSERT INTO plain (payload) VALUES ('{"order": 4711, "customer": 17, "amount": 1999, "cur": "EUR"}');
