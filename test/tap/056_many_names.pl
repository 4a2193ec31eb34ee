# What one call is given is one tenant's choice: its time and memory must not grow with the square of it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use MqTest;

my $node = mq_node('names');

# the last name is given twice, so nothing is made: only the comparing is measured
sub peak_kb
{
	my ($n) = @_;
	my $s = session($node);

	is($s->try("SELECT mq.create_queue('x', groups => (SELECT array_agg('g' || i) || '{g1}' FROM generate_series(1, $n) i))"),
		'22023', "$n groups, one twice");
	my ($kb) = PostgreSQL::Test::Utils::slurp_file('/proc/' . $s->pid . '/status') =~ /VmHWM:\s+(\d+)/;
	$s->close;
	return $kb;
}

my ($one, $four) = (peak_kb(2000), peak_kb(8000));
cmp_ok($four, '<', 2 * $one, "four times the names take not sixteen times the memory ($one kB, $four kB)");
$node->stop;
done_testing();
