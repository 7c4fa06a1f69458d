package boot

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// egress turns everything that programs connect to towards listeners on the loopback, which the host
// accepts: each address is local (a route of type local to lo), and netfilter redirects what is TCP, and
// every DNS query. Special addresses are refused before that, so that a connection to one fails as such;
// the rest (other UDP, ICMP, IPv6) is refused too.
func egress() error {
	if err := transact(unix.NETLINK_ROUTE, ownAddress(), 1); err != nil {
		return fail(OpEgress, fmt.Errorf("add an address to loopback: %w", err))
	}
	if err := transact(unix.NETLINK_ROUTE, localRoute(), 1); err != nil {
		return fail(OpEgress, fmt.Errorf("route everything to loopback: %w", err))
	}
	data, last := ruleset()
	if err := transact(unix.NETLINK_NETFILTER, data, last); err != nil {
		return fail(OpEgress, fmt.Errorf("load netfilter rules: %w", err))
	}
	return nil
}

// own is the sandbox's address besides 127.0.0.1. Without one, programs that ask for the families of
// addresses that are configured (AI_ADDRCONFIG, getaddrinfo(3)) would find none, and no name either.
var own = netip.MustParsePrefix("198.19.255.254/32")

// loopbackIndex: lo is the first interface of each namespace.
const loopbackIndex = 1

// ownAddress is `ip addr add 198.19.255.254/32 dev lo`, rtnetlink(7).
func ownAddress() []byte {
	m := message{unix.AF_INET, byte(own.Bits()), 0, unix.RT_SCOPE_UNIVERSE}
	m = binary.NativeEndian.AppendUint32(m, loopbackIndex)
	m.attr(unix.IFA_LOCAL, own.Addr().AsSlice())
	m.attr(unix.IFA_ADDRESS, own.Addr().AsSlice())
	return seal(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_ACK, 1, m)
}

// localRoute is `ip route add local default dev lo src 198.19.255.254`.
func localRoute() []byte {
	m := message{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
	m.attr(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, loopbackIndex))
	m.attr(unix.RTA_PREFSRC, own.Addr().AsSlice())
	return seal(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_ACK, 1, m)
}

// closed are the ranges that programs can't connect to. A name that stands for something in one of them
// can still be allowed: it has an address of its own.
var closed = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast and everything above
}

// The table's name, and what of nf_tables.h and netfilter.h is not in x/sys.
const (
	nftTable      = "tongs"
	priorityGuard = -150 // after connection tracking (-200) and before the translation of destinations
	priorityTurn  = -100 // NF_IP_PRI_NAT_DST

	drop   = 0 // NF_DROP
	accept = 1 // NF_ACCEPT
)

// rules writes a batch of nf_tables messages.
type rules struct {
	data []byte
	seq  uint32
}

// expr is one expression of a rule: a name, and its attributes.
type expr struct {
	name  string
	write func(*message)
}

// ruleset is the whole table as one batch, and how many of its messages are acknowledged.
func ruleset() ([]byte, uint32) {
	r := &rules{}
	r.frame(unix.NFNL_MSG_BATCH_BEGIN)
	r.add(unix.NFT_MSG_NEWTABLE, func(m *message) { m.text(unix.NFTA_TABLE_NAME, nftTable) })
	r.chain("refuse")
	r.base("guard", "filter", priorityGuard, drop)
	r.base("turn", "nat", priorityTurn, accept)

	tcp, udp := l4proto(unix.IPPROTO_TCP), l4proto(unix.IPPROTO_UDP)
	ipv4, loopback := family(unix.NFPROTO_IPV4), netip.MustParsePrefix("127.0.0.0/8")

	r.rule("refuse", tcp, reject(unix.NFT_REJECT_TCP_RST))
	r.rule("refuse", reject(unix.NFT_REJECT_ICMPX_UNREACH))

	r.rule("guard", ipv4, udp, port(53), verdict(accept, ""))
	r.rule("guard", ipv4, tcp, port(53), verdict(accept, ""))
	r.rule("guard", ipv4, to(loopback), verdict(accept, ""))
	r.rule("guard", ipv4, to(own), verdict(accept, ""))
	r.rule("guard", family(unix.NFPROTO_IPV6), to(netip.MustParsePrefix("::1/128")), verdict(accept, ""))
	for _, p := range closed {
		r.rule("guard", ipv4, to(p), verdict(unix.NFT_GOTO, "refuse"))
	}
	r.rule("guard", ipv4, tcp, verdict(accept, ""))
	r.rule("guard", verdict(unix.NFT_GOTO, "refuse"))

	r.rule("turn", ipv4, udp, port(53), redirect(sandbox.EgressDNSPort))
	r.rule("turn", ipv4, tcp, port(53), redirect(sandbox.EgressDNSPort))
	r.rule("turn", ipv4, to(loopback), verdict(accept, ""))
	r.rule("turn", ipv4, to(own), verdict(accept, ""))
	r.rule("turn", ipv4, tcp, redirect(sandbox.EgressPort))
	last := r.seq
	r.frame(unix.NFNL_MSG_BATCH_END)
	return r.data, last
}

// frame begins or ends the batch.
func (r *rules) frame(kind uint16) {
	r.data = append(r.data, seal(kind, 0, 0, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES})...)
}

// add appends one message of the batch.
func (r *rules) add(kind uint16, write func(*message)) {
	r.seq++
	m := message{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}
	write(&m)
	r.data = append(r.data, seal(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_CREATE|unix.NLM_F_APPEND|unix.NLM_F_ACK, r.seq, m)...)
}

func (r *rules) chain(name string) {
	r.add(unix.NFT_MSG_NEWCHAIN, func(m *message) {
		m.text(unix.NFTA_CHAIN_TABLE, nftTable)
		m.text(unix.NFTA_CHAIN_NAME, name)
	})
}

// base is a chain that sees what is sent in this namespace.
func (r *rules) base(name, kind string, priority int32, policy uint32) {
	r.add(unix.NFT_MSG_NEWCHAIN, func(m *message) {
		m.text(unix.NFTA_CHAIN_TABLE, nftTable)
		m.text(unix.NFTA_CHAIN_NAME, name)
		m.nest(unix.NFTA_CHAIN_HOOK, func(m *message) {
			m.number(unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_LOCAL_OUT)
			m.number(unix.NFTA_HOOK_PRIORITY, uint32(priority))
		})
		m.number(unix.NFTA_CHAIN_POLICY, policy)
		m.text(unix.NFTA_CHAIN_TYPE, kind)
	})
}

// rule appends a rule to a chain: its expressions one after the other, until one doesn't match.
func (r *rules) rule(chain string, parts ...[]expr) {
	r.add(unix.NFT_MSG_NEWRULE, func(m *message) {
		m.text(unix.NFTA_RULE_TABLE, nftTable)
		m.text(unix.NFTA_RULE_CHAIN, chain)
		m.nest(unix.NFTA_RULE_EXPRESSIONS, func(m *message) {
			for _, part := range parts {
				for _, e := range part {
					m.nest(unix.NFTA_LIST_ELEM, func(m *message) {
						m.text(unix.NFTA_EXPR_NAME, e.name)
						m.nest(unix.NFTA_EXPR_DATA, e.write)
					})
				}
			}
		})
	})
}

// value is data as it is compared with a register.
func value(m *message, kind uint16, data []byte) {
	m.nest(kind, func(m *message) { m.attr(unix.NFTA_DATA_VALUE, data) })
}

func equals(data []byte) expr {
	return expr{"cmp", func(m *message) {
		m.number(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		m.number(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
		value(m, unix.NFTA_CMP_DATA, data)
	}}
}

func meta(key uint32) expr {
	return expr{"meta", func(m *message) {
		m.number(unix.NFTA_META_DREG, unix.NFT_REG_1)
		m.number(unix.NFTA_META_KEY, key)
	}}
}

func payload(base, offset, length uint32) expr {
	return expr{"payload", func(m *message) {
		m.number(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
		m.number(unix.NFTA_PAYLOAD_BASE, base)
		m.number(unix.NFTA_PAYLOAD_OFFSET, offset)
		m.number(unix.NFTA_PAYLOAD_LEN, length)
	}}
}

func family(proto byte) []expr  { return []expr{meta(unix.NFT_META_NFPROTO), equals([]byte{proto})} }
func l4proto(proto byte) []expr { return []expr{meta(unix.NFT_META_L4PROTO), equals([]byte{proto})} }

// port matches the destination's port.
func port(n uint16) []expr {
	return []expr{payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2), equals(binary.BigEndian.AppendUint16(nil, n))}
}

// to matches a range of destinations; the family must have been matched.
func to(p netip.Prefix) []expr {
	offset, length := uint32(16), p.Addr().BitLen()/8 // of an IPv4 header
	if p.Addr().Is6() {
		offset = 24
	}
	mask := make([]byte, length)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr{
		payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, uint32(length)),
		{"bitwise", func(m *message) {
			m.number(unix.NFTA_BITWISE_SREG, unix.NFT_REG_1)
			m.number(unix.NFTA_BITWISE_DREG, unix.NFT_REG_1)
			m.number(unix.NFTA_BITWISE_LEN, uint32(length))
			value(m, unix.NFTA_BITWISE_MASK, mask)
			value(m, unix.NFTA_BITWISE_XOR, make([]byte, length))
		}},
		equals(p.Masked().Addr().AsSlice()),
	}
}

// verdict ends a rule; chain is where a jump goes.
func verdict(code int32, chain string) []expr {
	return []expr{{"immediate", func(m *message) {
		m.number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		m.nest(unix.NFTA_IMMEDIATE_DATA, func(m *message) {
			m.nest(unix.NFTA_DATA_VERDICT, func(m *message) {
				m.number(unix.NFTA_VERDICT_CODE, uint32(code))
				if chain != "" {
					m.text(unix.NFTA_VERDICT_CHAIN, chain)
				}
			})
		})
	}}}
}

func reject(kind uint32) []expr {
	return []expr{{"reject", func(m *message) {
		m.number(unix.NFTA_REJECT_TYPE, kind)
		m.attr(unix.NFTA_REJECT_ICMP_CODE, []byte{unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
	}}}
}

// redirect sends a connection to a port of the loopback.
func redirect(port uint16) []expr {
	return []expr{
		{"immediate", func(m *message) {
			m.number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_1)
			value(m, unix.NFTA_IMMEDIATE_DATA, binary.BigEndian.AppendUint16(nil, port))
		}},
		{"redir", func(m *message) { m.number(unix.NFTA_REDIR_REG_PROTO_MIN, unix.NFT_REG_1) }},
	}
}
