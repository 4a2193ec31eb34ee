SELECT pgq.insert_event('bench', 'order', '{"order": 4711, "customer": "c-0815", "total": 129.90, "n": 1}');
