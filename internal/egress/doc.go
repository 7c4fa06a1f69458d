// Package egress decides what may leave a sandbox, and carries it.
//
// A sandbox has no network but its own loopback. Whatever its programs connect to, the kernel hands to
// listeners inside it whose connections a [Gate] accepts, in the host's process; the gate decides by a
// [Policy] and dials for them. Programs notice nothing: no proxy variables, no certificates of ours.
//
// # Names
//
// The gate answers the sandbox's DNS itself. A name gets an address of its own out of 198.18.0.0/15 (RFC
// 2544, which no public host has), so that a connection says by its destination which name was meant,
// whatever the protocol, and nothing is asked of any name server for a name that is not allowed: there is
// no tunnel through DNS. TLS (SNI) and HTTP (Host) are looked at besides: a name in them that differs
// needs to be allowed too. TLS is passed on as it is, never opened.
//
// # Addresses
//
// An allowed name is resolved by the host, once, and the addresses that came back are checked before one
// of them is dialled: a name that resolves to a loopback, link-local, private or otherwise special address
// is refused (DNS rebinding). A private address can be allowed by a rule that names it as an address;
// the host's loopback, link-local addresses and with them the metadata services of clouds never can.
//
// # Refusals
//
// A plain HTTP request that is refused gets 403 with a JSON body {code, message, host, port, hint};
// everything else is reset. Both are counted and logged with the reason.
package egress
