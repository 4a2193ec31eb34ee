# max_lease counts from the hand-out, whatever was extended in between, and survives a restart.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use lib $FindBin::RealBin;
use MqTest;

my $node = mq_node('max_lease');
one($node, q{SELECT mq.create_queue('q', groups => '{}'); SELECT mq.create_group('q', 'g', options => '{"max_lease": "1 hour"}'); SELECT t.put('q', 'm', 3)});
$node->restart;
my $receipt = one($node, q{SELECT receipt FROM mq.receive('q', 'g', visibility_timeout => '1 hour')});
is(sqlstate($node, "SELECT mq.extend('$receipt', '1 min')"), '', 'an extension within it');
is(sqlstate($node, "SELECT mq.extend('$receipt', '1 hour')"), '22023', 'the whole time once more');
like(err($node, "SELECT mq.extend('$receipt', '1 hour')"), qr/DETAIL:  A message can be held for 3600.000 s from its hand-out on; 3[56]\d\d.\d{3} s are left/, 'it says what is left');
is(sqlstate($node, "SELECT mq.extend('$receipt', '50 min')"), '', 'what is left of it');
is(sqlstate($node, "SELECT * FROM mq.receive('q', 'g', visibility_timeout => '61 min')"), '22023', 'a receive of more');
is(one($node, "SET mq.visibility_timeout = '3 h'; SELECT lease_until < now() + interval '2 hours' FROM mq.receive('q', 'g')"), 't', 'the default is cut');
one($node, "SELECT mq.release('$receipt')");
is(sqlstate($node, "SELECT mq.extend('$receipt', '2 hours')"), 'MQ001', 'a lost lease is lost, whatever is asked for');
$node->stop;
done_testing();
