package drivertest

// networkEscapes are attempts to reach this machine, its network and other sandboxes. The agent host is one of those: the
// neighbour listens where it does.
var networkEscapes = []escape{
	{name: "reach the host's loopback", attempt: "timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/%PORT%'", says: "refused", where: onHost, network: true},
	{name: "reach the metadata address", attempt: "timeout 5 bash -c 'exec 3<>/dev/tcp/169.254.169.254/80'", says: "unreachable|refused", control: "exec 3<>/dev/tcp/127.0.0.1/%PORT%", where: onHost, network: true},
	{name: "reach a private address", attempt: "for a in 10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1; do timeout 5 bash -c \"exec 3<>/dev/tcp/$a/80\" && exit 0; done; exit 1", says: "unreachable|refused", control: "exec 3<>/dev/tcp/127.0.0.1/%PORT%", where: onHost, network: true},
	{name: "reach the internet", attempt: "timeout 5 bash -c 'exec 3<>/dev/tcp/1.1.1.1/53'", says: "unreachable|refused", control: "exec 3<>/dev/tcp/127.0.0.1/%PORT%", where: onHost, network: true},
	{name: "find the host's abstract sockets", attempt: "grep -q %ABSTRACT% /proc/net/unix", where: onHost, network: true},
	{name: "connect to the host's abstract sockets", attempt: "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) && connect(S, pack(q(Sa*), AF_UNIX, chr(0) . q(%ABSTRACT%))) or die $!'", says: "refused|not permitted", where: onHost, network: true},
	{name: "find the guest's socket", attempt: "grep -q '[.]sock' /proc/net/unix || find / -xdev -name '*.sock' -type s 2>/dev/null | grep -q .", control: "grep -q . /proc/net/unix", network: true},
	{name: "connect to a guest's socket", attempt: "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) && connect(S, sockaddr_un(q(%SOCKET%))) or die $!'", says: "No such file", where: onHost, kernel: true, network: true},
	{name: "reach another sandbox's port, the agent host's", attempt: "timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/%NEIGHBOUR%'", says: "refused", where: next, network: true},
	{name: "change the network's interfaces", attempt: "ip link set lo down || ip address add 192.0.2.9/24 dev lo", says: denied, control: "unshare -n sh -c 'ip link set lo up && ip address add 192.0.2.9/24 dev lo'", where: onHost, root: true, kernel: true, network: true},
	{name: "change the packet filter", attempt: "nft flush ruleset || iptables -F", control: "unshare -n sh -c 'nft flush ruleset || iptables -F'", where: onHost, root: true, kernel: true, network: true},
}
