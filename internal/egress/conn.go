package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// maxHello bounds what is read of a connection before it is passed on. A ClientHello with keys of all
// kinds has 2 KiB; TLS allows 16 KiB in one record.
const maxHello = 17 << 10

// serve carries one connection out of the sandbox, or refuses it.
func (g *Gate) serve(conn net.Conn) {
	handed := false
	defer func() {
		if !handed {
			g.untrack(conn)
		}
	}()
	dst, err := g.cfg.Original(conn)
	if err != nil {
		g.refuse(netip.AddrPort{}, "", "where it was going is not known: "+err.Error())
		reset(conn)
		return
	}
	t := target{addr: dst.Addr().Unmap(), port: dst.Port()}
	if name, ours := g.names.name(t.addr); ours {
		if name == "" {
			g.refuse(dst, "", "the address stands for no name that was asked for; look the name up again")
			reset(conn)
			return
		}
		t = target{name: name, port: dst.Port()}
	}
	verdict := g.judge(t)

	// A look at what comes first: TLS and HTTP say the name themselves.
	in := bufio.NewReaderSize(conn, maxHello)
	wait := lastWord
	if verdict.Allowed {
		wait = firstByte
	}
	_ = conn.SetReadDeadline(time.Now().Add(wait)) // fails only on a closed connection, and so does Peek
	first, err := in.Peek(1)
	if err != nil && (!isTimeout(err) || !verdict.Allowed) {
		if !verdict.Allowed {
			g.refuse(dst, t.name, verdict.Reason)
		}
		reset(conn)
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	switch {
	case len(first) == 1 && first[0] == 0x16: // a TLS handshake, RFC 8446, 5.1
		name, err := serverName(conn, in)
		if err != nil {
			g.refuse(dst, t.name, "its TLS handshake can't be read: "+err.Error())
			reset(conn)
			return
		}
		if name != "" && name != t.name {
			// What is named inside needs to be allowed as well, and an address alone gives way to it.
			named := target{name: name, port: t.port}
			if inner := g.judge(named); !inner.Allowed {
				g.refuse(dst, name, inner.Reason)
				reset(conn)
				return
			} else if t.name == "" {
				t, verdict = named, inner
			}
		}
	case len(first) == 1 && first[0] >= 'A' && first[0] <= 'Z' && isHTTP(in):
		handed = g.plain.hand(&plainConn{Conn: conn, in: in, to: t, dst: dst, done: make(chan struct{})})
		if !handed {
			reset(conn)
		}
		return
	}
	if !verdict.Allowed {
		g.refuse(dst, t.name, verdict.Reason)
		reset(conn)
		return
	}
	_ = conn.SetReadDeadline(time.Time{})

	out, err := g.dial(g.ctx, t)
	if err != nil {
		reset(conn)
		return
	}
	if !g.track(out) {
		return
	}
	defer g.untrack(out)
	g.stats.connections.Add(1)
	g.splice(conn, in, out)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// isHTTP tells whether the connection begins with an HTTP/1 request line: a method of upper-case letters
// and a blank. The preface of HTTP/2 (RFC 9113, 3.4) begins alike and is passed on as any other protocol.
func isHTTP(in *bufio.Reader) bool {
	for n := 2; n <= 20; n++ {
		b, err := in.Peek(n)
		if err != nil {
			return false
		}
		switch c := b[n-1]; {
		case c == ' ':
			return string(b[:n]) != "PRI "
		case (c < 'A' || c > 'Z') && c != '-' && c != '_':
			return false
		}
	}
	return false
}

// serverName reads a ClientHello without taking it, and gives the name in it, "" if there is none.
func serverName(conn net.Conn, in *bufio.Reader) (string, error) {
	name, seen := "", false
	peek := &peeker{in: in}
	err := tls.Server(helloConn{conn, peek}, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name, seen = h.ServerName, true
			return nil, errSeen
		},
	}).HandshakeContext(context.Background()) // the connection has a deadline
	if !seen {
		return "", err
	}
	if name == "" {
		return "", nil
	}
	return normalName(name)
}

var errSeen = errors.New("seen")

// peeker reads what a buffered reader holds, and more as it comes, without taking it.
type peeker struct {
	in *bufio.Reader
	at int
}

func (p *peeker) Read(b []byte) (int, error) {
	if p.at >= maxHello {
		return 0, errors.New("it is too long")
	}
	have := max(p.in.Buffered(), p.at+1)
	all, err := p.in.Peek(min(have, maxHello))
	if len(all) <= p.at {
		return 0, err
	}
	n := copy(b, all[p.at:])
	p.at += n
	return n, nil
}

// helloConn is what tls reads a handshake from: nothing of what it answers goes anywhere.
type helloConn struct {
	net.Conn
	r io.Reader
}

func (c helloConn) Read(b []byte) (int, error)       { return c.r.Read(b) }
func (c helloConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c helloConn) Close() error                     { return nil }
func (c helloConn) SetDeadline(time.Time) error      { return nil }
func (c helloConn) SetReadDeadline(time.Time) error  { return nil }
func (c helloConn) SetWriteDeadline(time.Time) error { return nil }

// splice passes bytes both ways until both sides have ended. The end of one side's bytes is passed on as
// such; an error ends both.
func (g *Gate) splice(conn net.Conn, in *bufio.Reader, out net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err := io.Copy(conn, out)
		g.stats.down.Add(n)
		finish(conn, out, err)
	}()
	// What has been read already, and then directly, so that the kernel can move it.
	held, _ := in.Peek(in.Buffered())
	n, err := out.Write(held)
	if err == nil {
		var m int64
		m, err = io.Copy(out, conn)
		n += int(m)
	}
	g.stats.up.Add(int64(n))
	finish(out, conn, err)
	<-done
}

func finish(to, from net.Conn, err error) {
	if err != nil {
		to.Close()
		from.Close()
		return
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // fails if it is closed already
		return
	}
	to.Close()
}
