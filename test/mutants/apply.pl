#!/usr/bin/perl
# apply.pl <mutant file> <tree> [look]: makes one planted fault in a copy of the tree; look: only whether it can be made.
#
# A mutant file:
#     # what is broken, in words (the first line is the title)
#     file: src/verbs/ack.c
#     tests: isolation:settling tap:005            rings and patterns that ought to notice, cheapest first
#     --- find
#     literal text that occurs exactly once (leading white space of the first line does not matter)
#     --- replace
#     what stands there instead
# More than one edit: further file/find/replace groups.  Exit 1: the text is not there any more, or more than once;
# then the mutant has to be rewritten, it proves nothing.
use strict;
use warnings;

my ($mutant, $tree, $look) = @ARGV;
open my $f, '<', $mutant or die "$mutant: $!\n";
my ($file, $part, @edits);
while (<$f>)
{
	if (!defined $part || $part eq 'replace')
	{
		if (/^file:\s*(\S+)/) { $file = $1; undef $part; next; }
	}
	if (/^--- find/) { push @edits, { file => $file, find => '', replace => '' }; $part = 'find'; next; }
	if (/^--- replace/) { $part = 'replace'; next; }
	$edits[-1]{$part} .= $_ if defined $part;
}
die "$mutant: no edit\n" if !@edits;
for my $e (@edits)
{
	my $path = "$tree/$e->{file}";
	open my $in, '<', $path or die "$path: $!\n";
	my $text = do { local $/; <$in> };
	close $in;
	for my $t (qw(find replace)) { $e->{$t} =~ s/\A\n+//; $e->{$t} =~ s/\s+\z//; }
	# white space may have been touched by a formatter
	my $pattern = join '\s+', map { quotemeta } split ' ', $e->{find};
	my $n = () = $text =~ /$pattern/g;
	if ($n != 1) { print STDERR "$mutant: the text to replace occurs $n times in $e->{file}\n"; exit 1; }
	next if $look;
	$text =~ s/$pattern/$e->{replace}/;
	open my $out, '>', $path or die "$path: $!\n";
	print $out $text;
	close $out;
}
