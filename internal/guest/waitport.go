package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	opWaitPort = "wait for port"

	// The kernel tells nobody about a new listener, so it is tried again and
	// again, at growing distances.
	firstPause = 10 * time.Millisecond
	longPause  = 250 * time.Millisecond
	// onePatience bounds one try, and maxHead what is read of an answer's head.
	onePatience = 5 * time.Second
	maxHead     = 64 << 10
)

func (m *rpcMain) waitPort(id string, port int, req sandbox.PortWaitRequest) (*sandbox.TokenReply, error) {
	want := req.PortWait
	bad := func(message, hint string) error {
		return sandbox.Errf(sandbox.CodeInvalidArgument, opWaitPort, message, hint)
	}
	if want.MinStatus == 0 && want.MaxStatus == 0 {
		want.MinStatus, want.MaxStatus = 200, 399
	} else if want.MaxStatus == 0 {
		want.MaxStatus = want.MinStatus
	}
	switch {
	case port < 1 || port > 65535:
		return nil, sandbox.Errf(sandbox.CodeInvalidPort, opWaitPort, strconv.Itoa(port)+" is not a port", "ports are 1 to 65535")
	case want.Path != "" && want.Path[0] != '/':
		return nil, bad("the path does not begin with a slash", "")
	case len(want.Path) > sandbox.MaxPatternBytes:
		return nil, bad(fmt.Sprintf("the path takes more than %d bytes", sandbox.MaxPatternBytes), "")
	case strings.ContainsFunc(want.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return nil, bad("the path holds a character that no request line may have", "write it percent-encoded")
	case want.MinStatus < 100 || want.MaxStatus > 599 || want.MinStatus > want.MaxStatus:
		return nil, bad(fmt.Sprintf("%d to %d are no HTTP statuses", want.MinStatus, want.MaxStatus), "they go from 100 to 599")
	}
	var p *process
	if id != "" {
		var err error
		if p, err = m.s.engine.get(opWaitPort, id); err != nil {
			return nil, err
		}
	}
	return m.waitToken(opWaitPort, req.TimeoutMS, func(ctx context.Context) (any, error) { return waitPort(ctx, p, uint16(port), want) })
}

// waitPort tries until the port answers, the process has ended or ctx has.
func waitPort(ctx context.Context, p *process, port uint16, want sandbox.PortWait) (*sandbox.PortReady, error) {
	var exited <-chan struct{}
	if p != nil {
		exited = p.exited
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	why := ""
	for wait, last := firstPause, false; ; wait = min(2*wait, longPause) {
		ready, wrong := tryPort(ctx, port, want)
		if ready != nil {
			return ready, nil
		}
		if why == "" || ctx.Err() == nil { // a try that was cut short says nothing
			why = wrong
		}
		if last {
			return nil, exitedEarly(opWaitPort, p, fmt.Sprintf("port %d was ready: %s", port, why))
		}
		pause.Reset(wait)
		select {
		case <-pause.C:
		case <-exited:
			// One that goes on in the background answers, if it will, right now.
			last = true
		case <-ctx.Done():
			return nil, unready(ctx, opWaitPort, fmt.Sprintf("port %d was not ready in time: %s", port, why))
		}
	}
}

// tryPort tries once on each loopback. why says what was wrong.
func tryPort(ctx context.Context, port uint16, want sandbox.PortWait) (ready *sandbox.PortReady, why string) {
	ctx, cancel := context.WithTimeout(ctx, onePatience)
	defer cancel()
	why = "nothing accepts connections there"
	for _, host := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		addr := netip.AddrPortFrom(host, port).String()
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		if want.Path == "" {
			c.Close()
			return &sandbox.PortReady{Address: addr}, ""
		}
		status, err := askStatus(ctx, c, addr, want.Path)
		switch {
		case err != nil:
			why = err.Error()
		case status < want.MinStatus || status > want.MaxStatus:
			why = fmt.Sprintf("its last answer had the status %d", status)
		default:
			return &sandbox.PortReady{Address: addr, Status: status}, ""
		}
	}
	return nil, why
}

// askStatus makes one HTTP/1.1 request and reads the status of the answer. c is
// closed.
func askStatus(ctx context.Context, c net.Conn, host, path string) (int, error) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	_, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nUser-Agent: tongs\r\nAccept: */*\r\nConnection: close\r\n\r\n")
	if err != nil {
		return 0, err
	}
	r := bufio.NewReader(io.LimitReader(c, maxHead))
	for {
		text, err := r.ReadSlice('\n')
		if err != nil {
			return 0, fmt.Errorf("no status line came: %w", err)
		}
		status, err := parseStatus(text)
		if err != nil || status >= 200 || status == 101 {
			return status, err
		}
		// An interim answer: the real one follows its head.
		for len(bytes.TrimRight(text, "\r\n")) > 0 {
			if text, err = r.ReadSlice('\n'); err != nil {
				return 0, fmt.Errorf("no final answer came: %w", err)
			}
		}
	}
}

var errNotHTTP = errors.New("what answers does not speak HTTP/1")

// parseStatus reads a status line, "HTTP/1.1 200 OK".
func parseStatus(text []byte) (int, error) {
	version, rest, _ := bytes.Cut(bytes.TrimRight(text, "\r\n"), []byte{' '})
	code, _, _ := bytes.Cut(rest, []byte{' '})
	if len(version) != len("HTTP/1.1") || !bytes.HasPrefix(version, []byte("HTTP/1.")) || len(code) != 3 {
		return 0, errNotHTTP
	}
	n, err := strconv.Atoi(string(code))
	if err != nil || n < 100 {
		return 0, errNotHTTP
	}
	return n, nil
}
