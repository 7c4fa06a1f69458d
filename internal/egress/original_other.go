//go:build !linux

package egress

import (
	"errors"
	"net"
	"net/netip"
)

func original(net.Conn) (netip.AddrPort, error) {
	return netip.AddrPort{}, errors.New("only Linux tells where a redirected connection was going")
}
