# Stops one thread, as a driver that never answers would, until the process is killed: hold.pl THREAD
#
# PTRACE_SEIZE without options, so that a kill of the process is not held up. Perl is in every Debian; no compiler is needed.
use strict;
use warnings;

my ($thread) = @ARGV;
my %ptrace = (x86_64 => 101, aarch64 => 117);
chomp(my $machine = `uname -m`);
my ($seize, $interrupt, $wall) = (0x4206, 0x4207, 0x40000000);
for my $request ($seize, $interrupt) {
    syscall($ptrace{$machine}, $request, $thread + 0, 0, 0) == 0 or die "ptrace($request): $!\n";
}
waitpid($thread, $wall) == $thread or die "waitpid: $!\n";
$| = 1;
print "held\n";
waitpid($thread, $wall);
print "gone\n";
