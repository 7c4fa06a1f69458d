package drivertest

// kernelEscapes are attempts at what the host's kernel shows and takes in /proc and /sys.
var kernelEscapes = []escape{
	{name: "change the host name", attempt: "hostname other", says: denied, control: "unshare -u hostname other", where: onHost, root: true},
	{name: "have the kernel run a program when another crashes", attempt: "echo '|/x' > /proc/sys/kernel/core_pattern", says: denied, control: "test -w /proc/sys/kernel/core_pattern", where: onHost, root: true},
	{name: "have the kernel run a program for events of devices", attempt: "echo /x > /sys/kernel/uevent_helper", control: "test -w /sys/kernel/uevent_helper", where: onHost, root: true, kernel: true},
	{name: "have the kernel run a program to load a module", attempt: "echo /x > /proc/sys/kernel/modprobe", control: "test -w /proc/sys/kernel/modprobe", where: onHost, root: true, kernel: true},
	{name: "have the kernel run a program for files of a kind", attempt: "mount -t binfmt_misc x /mnt || echo ':t:M::tt::/x:' > /proc/sys/fs/binfmt_misc/register", control: "unshare -m mount -t binfmt_misc x /mnt || test -w /proc/sys/fs/binfmt_misc/register", where: onHost, root: true, kernel: true},
	{name: "have the kernel run a program when a control group is empty", attempt: "mount -t cgroup -o memory x /mnt && echo /x > /mnt/release_agent || find / -xdev -name release_agent 2>/dev/null | grep -q .", control: "find /sys/fs/cgroup -name release_agent 2>/dev/null | grep -q .", where: onHost, root: true, kernel: true},
	{name: "write network settings", attempt: "echo 1 > /proc/sys/net/ipv4/ip_forward", says: denied, control: "test -w /proc/sys/net/ipv4/ip_forward", where: onHost, root: true},
	{name: "trigger sysrq", attempt: "echo h > /proc/sysrq-trigger && test ! -c /proc/sysrq-trigger", control: "test -w /proc/sysrq-trigger", where: onHost, root: true, kernel: true},
	{name: "read the kernel's memory", attempt: "test $(head -c 64 /proc/kcore | wc -c) -gt 0", control: "test $(head -c 64 /proc/kcore | wc -c) -gt 0", where: onHost, root: true, kernel: true, shared: true},
	{name: "read the kernel's log", attempt: "dmesg | grep -q . || head -c 1 /dev/kmsg | grep -q .", control: "dmesg | grep -q .", where: onHost, root: true, kernel: true, shared: true},
	{name: "read the kernel's timers", attempt: "grep -q . /proc/timer_list", where: onHost, root: true, kernel: true},
	{name: "read where the kernel's functions are", attempt: "grep -qv '^0*0 ' /proc/kallsyms", where: onHost, root: true, kernel: true},
	{name: "read keys", attempt: "test -s /proc/keys", control: "test -e /proc/keys", shared: true},
	{name: "write to parts of /proc that are the machine's", attempt: machineWritable, where: onHost, root: true, kernel: true, shared: true},
	{name: "see what belongs to the machine's firmware", attempt: "find /proc/acpi /proc/scsi /sys/firmware -type f 2>/dev/null | grep -q .", where: onHost, kernel: true},
	{name: "write to /sys", attempt: "for f in /sys/kernel/mm/transparent_hugepage/enabled /sys/power/state; do echo x > $f && exit 0; done; exit 1", control: "test -w /sys/kernel/mm", where: onHost, root: true},
	{name: "write to a file of /proc that is open to everybody", attempt: "echo x > /proc/self/comm", says: denied, where: onHost, as: "user", fence: true, plain: true},
	{name: "change what /proc/meminfo says", attempt: "f=/proc/meminfo; " + rewrite, says: denied, control: "f=~/meminfo; cp /proc/meminfo $f; " + rewrite},
	{name: "find control groups", attempt: "ls -A /sys/fs/cgroup | grep -q .", control: "ls -A /sys/fs/cgroup | grep -q .", where: onHost, shared: true},
	{name: "mount control groups", attempt: "mount -t cgroup -o memory x /mnt || mount -t cgroup2 x /mnt", control: "unshare -m mount -t cgroup2 x /mnt", where: onHost, root: true},
	{name: "see the host's System V objects", attempt: "test $(tail -n +2 /proc/sysvipc/shm | wc -l) -gt 0", control: "id=$(ipcmk -M 4096 | grep -o '[0-9]*$') && test $(tail -n +2 /proc/sysvipc/shm | wc -l) -gt 0; r=$?; ipcrm -m $id; exit $r", where: onHost},
}

// rewrite tries in all ways to change what is in the file $f, and looks whether it has.
const rewrite = `b=$(head -n 1 $f); chmod 666 $f; echo x > $f; echo x >> $f; (echo x > /proc/self/fd/9) 9< $f; truncate -s 0 $f; test ! -e /tmp/meminfo || echo x > /tmp/meminfo
	ln $f ~/link && echo x > ~/link; mv $f ~/moved; rm -f $f; test "$(head -n 1 $f)" != "$b"; r=$?; rm -f ~/link ~/moved; exit $r`

// machineWritable looks for settings that aren't a process's own, nor those that the kernel makes one's own.
const machineWritable = `find /proc/bus /proc/fs /proc/irq /proc/acpi /proc/scsi /proc/sys/kernel /proc/sys/vm /proc/sys/fs /proc/mtrr /proc/driver -type f -writable 2>/dev/null | grep -q .`
