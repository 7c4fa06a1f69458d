package egress

import (
	"net/netip"
)

// class is what kind of address a destination is.
type class int

const (
	public  class = iota
	private       // may be allowed by a rule that names it as an address
	never         // can't be allowed
)

// special lists the ranges that are not public, after the registries of special-purpose addresses
// (RFC 6890, IANA). The documentation ranges and 198.18.0.0/15 are missing on purpose: nothing of value
// lives there, and test networks use them for their registries.
var special = []struct {
	prefix netip.Prefix
	class  class
	name   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), never, "this host"},
	{netip.MustParsePrefix("127.0.0.0/8"), never, "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), never, "link-local, with the metadata service of clouds"},
	{netip.MustParsePrefix("10.0.0.0/8"), private, "private"},
	{netip.MustParsePrefix("172.16.0.0/12"), private, "private"},
	{netip.MustParsePrefix("192.168.0.0/16"), private, "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), private, "shared address space"},
	{netip.MustParsePrefix("192.0.0.0/24"), never, "protocol assignments"},
	{netip.MustParsePrefix("192.88.99.0/24"), never, "6to4 relays"},
	{netip.MustParsePrefix("224.0.0.0/4"), never, "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), never, "reserved"},
	{netip.MustParsePrefix("::/128"), never, "this host"},
	{netip.MustParsePrefix("::1/128"), never, "loopback"},
	{netip.MustParsePrefix("fe80::/10"), never, "link-local"},
	{netip.MustParsePrefix("fec0::/10"), never, "site-local"},
	{netip.MustParsePrefix("fd00:ec2::/32"), never, "the metadata service of a cloud"},
	{netip.MustParsePrefix("fc00::/7"), private, "unique local"},
	{netip.MustParsePrefix("ff00::/8"), never, "multicast"},
	{netip.MustParsePrefix("100::/64"), never, "discard"},
}

// metadata are addresses outside the link-local ranges at which clouds serve credentials.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("192.0.0.192"),
}

// inside are ranges of IPv6 addresses that carry an IPv4 address, and at which byte: what goes there
// arrives at that address, so that it is judged by it.
var inside = []struct {
	prefix netip.Prefix
	at     int
	invert bool // Teredo hides the client's address
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12, false}, // NAT64, RFC 6052
	{netip.MustParsePrefix("2002::/16"), 2, false},     // 6to4, RFC 3056
	{netip.MustParsePrefix("2001::/32"), 12, true},     // Teredo, RFC 4380
	{netip.MustParsePrefix("::/96"), 12, false},        // IPv4-compatible, RFC 4291
}

// classify tells the class of an address, and in words why it is not public.
func classify(a netip.Addr) (class, string) {
	a = a.Unmap().WithZone("")
	for _, m := range metadata {
		if a == m {
			return never, "the metadata service of a cloud"
		}
	}
	for _, s := range special {
		if s.prefix.Contains(a) {
			return s.class, s.name
		}
	}
	if a.Is6() {
		if netip.MustParsePrefix("64:ff9b:1::/48").Contains(a) { // RFC 8215: where the IPv4 address is, is local custom
			return private, "local translation to IPv4"
		}
		b := a.As16()
		for _, in := range inside {
			if !in.prefix.Contains(a) {
				continue
			}
			v4 := [4]byte(b[in.at : in.at+4])
			if in.invert {
				for i := range v4 {
					v4[i] ^= 0xff
				}
			}
			if c, name := classify(netip.AddrFrom4(v4)); c != public {
				return c, name + " (inside an IPv6 address)"
			}
		}
	}
	return public, ""
}
