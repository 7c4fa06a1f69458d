package drivertest

// limitEscapes are attempts to take more than there is for a sandbox. What a storm of them does to the guest is
// in testPids and testMemory. A sandbox on a kernel of its own ends when it takes too much memory (testHogEnds).
var limitEscapes = []escape{
	{name: "have more processes than allowed", attempt: forks, says: "unavailable", where: onHost, limits: true},
	{name: "take more memory than allowed", attempt: "perl -e '$x = q(x) x %MEMORY%; print length $x'", where: onHost, limits: true, shared: true},
	{name: "lock more memory than allowed", attempt: "perl -e '$x = q(x) x %MEMORY%; syscall(%MLOCKALL%, 3) == 0 or die $!; print length $x'", control: "perl -e '$x = q(x) x %MEMORY%; print length $x'", where: onHost, limits: true, shared: true},
	{name: "fill /tmp beyond its size", attempt: "head -c %TMP% /dev/zero > /tmp/big; r=$?; rm /tmp/big; exit $r", says: "No space", control: "head -c %TMP% /dev/zero > ~/big; r=$?; rm ~/big; exit $r"},
	{name: "fill /dev/shm beyond its size", attempt: "head -c 80M /dev/zero > /dev/shm/big; r=$?; rm /dev/shm/big; exit $r", control: "head -c 8M /dev/zero > /dev/shm/small && rm /dev/shm/small"},
	{name: "fill memory by files of /dev", attempt: "head -c 1M /dev/zero > /dev/big", says: denied, control: "head -c 1M /dev/zero > ~/big && rm ~/big"},
}

// forks makes processes until there are %PIDS%, and ends them all.
const forks = `perl -e 'for (1 .. %PIDS%) { $p = fork; defined $p or $e = $!, last; $p or sleep(60), exit; push @all, $p } kill 9, @all; waitpid $_, 0 for @all; @all == %PIDS% or die $e'`
