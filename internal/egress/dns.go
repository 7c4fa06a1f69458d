package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	maxQuery   = 4096 // bytes; a question has at most 255 and some
	nameTTL    = 60   // seconds
	maxQueries = 64   // at a time, of one gate
	dnsIdle    = 10 * time.Second
)

// ServeDNS answers queries over UDP until the connection or the gate is closed.
func (g *Gate) ServeDNS(c net.PacketConn) error {
	stop := context.AfterFunc(g.ctx, func() { c.Close() })
	defer stop()
	room := make(chan struct{}, maxQueries)
	buf := make([]byte, maxQuery)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if g.ctx.Err() != nil || closed(err) {
				return nil
			}
			return err
		}
		select {
		case room <- struct{}{}:
		default:
			continue // it will ask again
		}
		query := append([]byte(nil), buf[:n]...)
		g.work.Go(func() {
			defer func() { <-room }()
			if reply := g.reply(query); reply != nil {
				_, _ = c.WriteTo(reply, from) // it will ask again
			}
		})
	}
}

// ServeDNSTCP answers queries over TCP until the listener or the gate is closed.
func (g *Gate) ServeDNSTCP(l net.Listener) error {
	room := make(chan struct{}, maxQueries)
	return g.accept(l, func(conn net.Conn) {
		select {
		case room <- struct{}{}:
		default:
			reset(conn)
			return
		}
		if !g.track(conn) {
			<-room
			return
		}
		g.work.Go(func() {
			defer func() { <-room }()
			defer g.untrack(conn)
			g.converse(conn)
		})
	})
}

// converse answers the queries of one connection, each after its length (RFC 1035, 4.2.2).
func (g *Gate) converse(conn net.Conn) {
	for {
		_ = conn.SetDeadline(time.Now().Add(dnsIdle)) // fails only on a closed connection
		var head [2]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[:]))
		if n > maxQuery {
			return
		}
		query := make([]byte, n)
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		reply := g.reply(query)
		if reply == nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(dnsIdle + dialTimeout))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// reply answers a query; nil for what is none.
func (g *Gate) reply(query []byte) []byte {
	var parser dnsmessage.Parser
	head, err := parser.Start(query)
	if err != nil || head.Response {
		return nil
	}
	q, err := parser.Question()
	if err != nil {
		return build(dnsmessage.Header{ID: head.ID, Response: true, RCode: dnsmessage.RCodeFormatError}, nil, nil)
	}
	g.stats.queries.Add(1)
	reply := dnsmessage.Header{ID: head.ID, Response: true, OpCode: head.OpCode, RecursionDesired: head.RecursionDesired, RecursionAvailable: true}
	if head.OpCode != 0 || q.Class != dnsmessage.ClassINET {
		reply.RCode = dnsmessage.RCodeNotImplemented
		return build(reply, &q, nil)
	}
	name, err := normalName(q.Name.String())
	if err != nil {
		reply.RCode = dnsmessage.RCodeNameError
		return build(reply, &q, nil)
	}
	var answer dnsmessage.ResourceBody
	if literal, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		if back := g.reverse(literal); q.Type != dnsmessage.TypePTR || back == "" {
			reply.RCode = dnsmessage.RCodeNameError
		} else if ptr, err := dnsmessage.NewName(back + "."); err == nil {
			answer = &dnsmessage.PTRResource{PTR: ptr}
		}
		return build(reply, &q, answer)
	}
	if reply.RCode = g.exists(name); reply.RCode == dnsmessage.RCodeSuccess && q.Type == dnsmessage.TypeA {
		answer = &dnsmessage.AResource{A: g.names.address(name).As4()}
	}
	// Everything else (AAAA, HTTPS, MX, TXT …) exists and is empty: one way out is enough.
	return build(reply, &q, answer)
}

// exists asks whether an allowed name resolves, so that a program is told of a misspelt one. For a name
// that is not allowed nobody is asked: it gets an address, and its connection the refusal with the reason.
func (g *Gate) exists(name string) dnsmessage.RCode {
	if g.cfg.Proxied || !g.Policy().knows(name) {
		return dnsmessage.RCodeSuccess
	}
	ctx, cancel := context.WithTimeout(g.ctx, dialTimeout)
	defer cancel()
	_, err := g.cache.lookup(ctx, g.cfg.Resolver, name)
	var failure *net.DNSError
	switch {
	case err == nil:
		return dnsmessage.RCodeSuccess
	case errors.As(err, &failure) && failure.IsNotFound:
		return dnsmessage.RCodeNameError
	}
	return dnsmessage.RCodeServerFailure
}

// knows tells whether the name is allowed on any port.
func (p *Policy) knows(name string) bool {
	for i := range p.allow {
		r := p.allow[i]
		ports := r.ports
		r.ports = nil
		if !r.matchName(name, 0) {
			continue
		}
		if ports == nil {
			ports = []uint16{443}
		}
		for _, port := range ports {
			if p.Name(name, port).Allowed {
				return true
			}
		}
	}
	return false
}

// reverse gives the name of an address that was given out, from the four numbers in reverse order.
func (g *Gate) reverse(labels string) string {
	parts := strings.Split(labels, ".")
	if len(parts) != 4 {
		return ""
	}
	addr, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	if err != nil {
		return ""
	}
	name, _ := g.names.name(addr)
	return name
}

func build(head dnsmessage.Header, q *dnsmessage.Question, answer dnsmessage.ResourceBody) []byte {
	m := dnsmessage.Message{Header: head}
	if q != nil {
		m.Questions = []dnsmessage.Question{*q}
	}
	if answer != nil {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: nameTTL}, Body: answer}}
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}
