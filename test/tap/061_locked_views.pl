# The views wait for nobody: while somebody holds a lock on the tables of a queue they show what is known without it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('views', conf => "max_prepared_transactions = 10\nautovacuum = off\n");
one($node, "CREATE ROLE $_ LOGIN; GRANT EXECUTE ON FUNCTION mq.create_queue TO $_") for qw(mallory alice);
one($node, 'CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor');
one($node, "SET ROLE mallory; SELECT mq.create_queue('open', options => jsonb_build_object('segment_size', 1024)); SELECT mq.grant('open', r, 'public') FROM unnest('{send,browse,manage}'::text[]) r; SELECT mq.grant('open', 'consume', 'public', 'default')");
one($node, "SET ROLE alice; SELECT mq.create_queue('hers'); SELECT mq.send('hers', '1')");
one($node, "SELECT count(*) FROM mq.send_batch('open', array_fill(to_jsonb(repeat('x', 100)), ARRAY[3000]))");
one($node, "SELECT mq.send('open', to_jsonb((SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i)))");
one($node, "SELECT count(*) FROM mq.receive('open', max_messages => 10, visibility_timeout => '1 day')");
ok(poll_until('old segments to be sealed', sub { one($node, "SELECT count(*) FROM mq.segments WHERE queue = 'open' AND sealed") eq '2' }), 'sealed segments, one with large values');

my @views = qw(queues groups segments in_flight);

# every row with all columns, as the role
sub looks
{
	my ($who, $what) = @_;
	my $s = session($node, $who eq '' ? () : (user => $who));
	$s->q("SET statement_timeout = '5s'");
	my $rows = {};
	for my $view (@views)
	{
		my ($state, $out) = $s->try("SELECT coalesce(string_agg(r, E'\\n' ORDER BY r), '') FROM (SELECT (to_jsonb(v) - 'oldest_ready_at' - 'oldest_unfinished_at')::text AS r, queue FROM mq.$view v) v WHERE queue = 'open'");
		is($state, '', "$what: " . ($who || 'a superuser') . " looks at mq.$view");
		isnt($s->q("SELECT count(*) FROM mq.$view WHERE queue = 'hers'"), '0', "$what: $who sees the others too") if $who eq 'alice' && $view ne 'in_flight';
		$rows->{$view} = $out;
	}
	$s->close;
	return $rows;
}

# what the views say of sizes is what PostgreSQL says
is(one($node, "SELECT count(*) FROM mq.segments WHERE bytes <> pg_total_relation_size(segment_table)"), '0', 'sizes of segments are right');
is(one($node, "SELECT count(*) FROM mq.queues q WHERE bytes <> (SELECT sum(pg_total_relation_size(segment_table)) FROM mq.segments s WHERE s.queue = q.queue)"), '0', 'and so are those of queues');

my $before = looks('', 'in peace');
my $h = session($node);
my $leaf = one($node, "SELECT segment_table FROM mq.segments WHERE queue = 'open' AND sealed ORDER BY segment LIMIT 1");
my $active = one($node, "SELECT segment_table FROM mq.segments WHERE queue = 'open' AND NOT sealed ORDER BY segment LIMIT 1");
my $toast = one($node, "SELECT reltoastrelid::regclass FROM pg_class WHERE oid = '$active'::regclass");
for my $how ("LOCK TABLE mq.q_open IN ACCESS EXCLUSIVE MODE", "LOCK TABLE ONLY mq.q_open IN ACCESS EXCLUSIVE MODE", "LOCK TABLE $leaf IN ACCESS EXCLUSIVE MODE",
	"ALTER INDEX " . one($node, "SELECT indexrelid::regclass FROM pg_index WHERE indrelid = '$leaf'::regclass") . " SET (autosummarize = on)",
	"REINDEX TABLE $leaf", "REINDEX TABLE $toast")
{
	$h->q("BEGIN; $how");
	looks($_, $how) for 'monitor', 'alice';
	is_deeply(looks('', $how), $before, "$how: and all is known but the times that are in the rows");
	$h->q('ROLLBACK');
}
{
	$h->q("BEGIN; SELECT mq.drop_queue('open', force => true)");
	is_deeply(looks('', 'a drop that is open'), $before, 'a drop that is open: all is known');
	$h->q('ROLLBACK');
}

# --- nobody has used the queue since the start of the server: a prepared transaction has it locked since before ---------------------------
$h->q("BEGIN; LOCK TABLE mq.q_open IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'lock'");
$h->close;
$node->restart;
looks($_, 'after a start') for 'monitor', 'alice';
is(one($node, "SELECT next_id IS NULL AND bytes > 0 FROM mq.queues WHERE queue = 'open'"), 't', 'after a start: what is not known is null, sizes are known');
is(one($node, "SELECT low_watermark IS NULL AND ready IS NULL AND held_bytes IS NULL AND waiting IS NULL FROM mq.groups WHERE queue = 'open'"), 't', 'after a start: so in mq.groups');
is(one($node, "SELECT ready + unread_at_most FROM mq.groups WHERE queue = 'hers'"), '1', 'after a start: the other queue is known');
one($node, "ROLLBACK PREPARED 'lock'");
ok(poll_until('it to be known', sub { one($node, "SELECT next_id > 3000 FROM mq.queues WHERE queue = 'open'") eq 't' }), 'when the lock is gone it is known');
is(one($node, "SELECT low_watermark FROM mq.groups WHERE queue = 'open'"), '1', 'so is the group');
$node->stop;
done_testing();
