INSERT INTO bench.latency SELECT extract(epoch FROM clock_timestamp() - due_at) * 1e6 FROM mq.pop('due_latency', max_messages => 1000, wait => '500 ms');
