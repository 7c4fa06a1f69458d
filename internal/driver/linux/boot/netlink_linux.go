package boot

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// message is a netlink message that is being written, netlink(7): a header, and attributes after it.
type message []byte

// attr appends an attribute: its length and kind, and the value, padded to four bytes.
func (m *message) attr(kind uint16, value []byte) {
	b := binary.NativeEndian.AppendUint16(*m, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	*m = b
}

func (m *message) text(kind uint16, s string)   { m.attr(kind, append([]byte(s), 0)) }
func (m *message) number(kind uint16, n uint32) { m.attr(kind, binary.BigEndian.AppendUint32(nil, n)) } // as nfnetlink wants them

// nest appends an attribute that holds others.
func (m *message) nest(kind uint16, write func(*message)) {
	var inner message
	write(&inner)
	m.attr(kind|unix.NLA_F_NESTED, inner)
}

// seal puts the header before what has been written.
func seal(kind, flags uint16, seq uint32, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(b, body...)
}

// transact sends messages in one datagram and waits until each with a sequence number of 1 to last has
// been acknowledged, or one has failed.
func transact(protocol int, data []byte, last uint32) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	tv := unix.Timeval{Sec: 5}
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	if err := unix.Sendto(s, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 16<<10)
	for acked := uint32(0); acked < last; {
		n, _, err := unix.Recvfrom(s, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				return errors.New("the kernel's answer is cut")
			}
			if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR && size >= unix.NLMSG_HDRLEN+4 {
				if code := int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); code != 0 {
					return unix.Errno(-code)
				}
				acked = max(acked, binary.NativeEndian.Uint32(b[8:]))
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
	return nil
}
