SELECT receipt FROM mq.receive('receive_ack') \gset
SELECT mq.ack(:receipt);
