package sandbox

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/tongs-dev/tongs/capnweb"
)

// This file and frame.go are the guest's socket protocol, for those who write a
// guest, a driver, or another client. Users of a sandbox don't need them.
//
// Each connection begins with one line from the client,
//
//	TONGS 1 RPC
//	TONGS 1 RAW <token>
//
// which the guest answers with one line, `OK <protocol> <incarnation>` or
// `ERR <CODE> <text>`. After OK, an RPC connection carries Cap'n Web messages
// ended by newlines, and a RAW connection the bytes that its token stands for:
// a token is given out by a call, is good for one connection, and expires.

// Protocol is the number of the guest protocol that this package speaks.
const Protocol = 1

// MaxGreetingBytes bounds either greeting line, newline included.
const MaxGreetingBytes = 512

// TokenBytes is the length of a token before it is written in hex.
const TokenBytes = 16

// Greeting is the client's first line.
type Greeting struct {
	Protocol int
	Token    string // "" for RPC
}

// String is the line, newline included.
func (g Greeting) String() string {
	if g.Token == "" {
		return fmt.Sprintf("TONGS %d RPC\n", g.Protocol)
	}
	return fmt.Sprintf("TONGS %d RAW %s\n", g.Protocol, g.Token)
}

// ParseGreeting reads a client's line, without its newline. A line of another
// protocol number gives CodeProtocolMismatch, so that its sender can be told.
func ParseGreeting(line string) (Greeting, error) {
	const op = "greeting"
	f := strings.Split(line, " ")
	if len(f) < 3 || f[0] != "TONGS" {
		return Greeting{}, Errf(CodeInvalidArgument, op, "this is not a greeting of the guest protocol", "")
	}
	n, err := strconv.Atoi(f[1])
	if err != nil || n <= 0 || strconv.Itoa(n) != f[1] {
		return Greeting{}, Errf(CodeInvalidArgument, op, "the protocol number is not one", "")
	}
	g := Greeting{Protocol: n}
	if n != Protocol {
		return g, mismatch(op, n, Protocol)
	}
	switch {
	case f[2] == "RPC" && len(f) == 3:
		return g, nil
	case f[2] == "RAW" && len(f) == 4:
		if b, err := hex.DecodeString(f[3]); err != nil || len(b) != TokenBytes || strings.ToLower(f[3]) != f[3] {
			return g, Errf(CodeInvalidToken, op, "the token is not one", "")
		}
		g.Token = f[3]
		return g, nil
	}
	return g, Errf(CodeInvalidArgument, op, "the greeting names neither RPC nor RAW with a token", "")
}

func mismatch(op string, client, guest int) *Error {
	e := Errf(CodeProtocolMismatch, op, fmt.Sprintf("the client speaks guest protocol %d, the guest %d", client, guest), "")
	if client > guest {
		e.Hint = "the sandbox was started by an older version: stop it and start it again"
	} else {
		e.Hint = "the sandbox was started by a newer version: use that one"
	}
	return e
}

// Welcome is the guest's answer.
type Welcome struct {
	Protocol    int
	Incarnation string
}

// String is the line, newline included.
func (w Welcome) String() string { return fmt.Sprintf("OK %d %s\n", w.Protocol, w.Incarnation) }

// Refusal is the guest's line that refuses a connection, newline included.
func Refusal(err error) string {
	code, text := CodeInternal, "refused"
	var e *Error
	if errors.As(err, &e) {
		code, text = e.Code, e.Message
		if e.Hint != "" {
			text += " (" + e.Hint + ")"
		}
	}
	line := "ERR " + string(code) + " " + strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	if len(line) > MaxGreetingBytes-1 {
		line = line[:MaxGreetingBytes-1]
	}
	return line + "\n"
}

// ParseWelcome reads the guest's line, without its newline. A refusal comes
// back as the *Error it carries.
func ParseWelcome(line string) (Welcome, error) {
	const op = "connect"
	bad := Errf(CodeProtocolMismatch, op, "what answers is not a guest", "look at what listens on the sandbox's socket")
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "ERR":
		code, text, _ := strings.Cut(rest, " ")
		if !Code(code).Known() {
			text, code = rest, string(CodeInternal)
		}
		return Welcome{}, Errf(Code(code), op, text, "")
	case "OK":
		num, inc, ok := strings.Cut(rest, " ")
		n, err := strconv.Atoi(num)
		if err != nil || !ok || inc == "" || strings.ContainsRune(inc, ' ') {
			return Welcome{}, bad
		}
		if n != Protocol {
			return Welcome{}, mismatch(op, Protocol, n)
		}
		return Welcome{Protocol: n, Incarnation: inc}, nil
	}
	return Welcome{}, bad
}

// GuestInfo is what the guest says of itself.
type GuestInfo struct {
	Protocol    int    `json:"protocol"`
	Incarnation string `json:"incarnation"`
	Version     string `json:"version"`
	PID         int    `json:"pid"`
	Hostname    string `json:"hostname"`
	User        string `json:"user"`
	Home        string `json:"home"`
	Project     string `json:"project"`
	UptimeMS    int64  `json:"uptimeMs"`
	Processes   int    `json:"processes"` // running now
	MemoryBytes int64  `json:"memoryBytes"`
}

// StartRequest is ProcessSpec on the wire.
type StartRequest struct {
	Spec      ProcessSpec `json:"spec"`
	TimeoutMS int64       `json:"timeoutMs,omitempty"`

	// For exec: what standard input is, and how much output may come back in
	// the answer.
	Input  []byte `json:"input,omitempty"`
	Inline int64  `json:"inline,omitempty"`
	// Forget the process once its output has come back in the answer.
	Forget bool `json:"forget,omitempty"`
}

// ExecReply answers exec: the output, if the command ended with so little of
// it, else a token for its log from the first byte on.
type ExecReply struct {
	Info   ProcessInfo `json:"info"`
	Stdout []byte      `json:"stdout,omitempty"`
	Stderr []byte      `json:"stderr,omitempty"`
	Token  string      `json:"token,omitempty"`
}

// ReadReply answers readFile: the body, or a token for it.
type ReadReply struct {
	Info  FileInfo `json:"info"`
	Data  []byte   `json:"data,omitempty"`
	Token string   `json:"token,omitempty"`
}

// TokenReply gives the token of a raw connection.
type TokenReply struct {
	Token string `json:"token"`
}

// ToolRequest is ToolCall on the wire, with its hooks.
type ToolRequest struct {
	Name      string         `json:"name"`
	Args      map[string]any `json:"args"`
	CallID    string         `json:"callID"`
	SessionID string         `json:"sessionID,omitempty"`
	MessageID string         `json:"messageID,omitempty"`
	Agent     string         `json:"agent,omitempty"`
	Again     bool           `json:"again,omitempty"`
	Ask       *capnweb.Stub  `json:"ask,omitempty"`
	Progress  *capnweb.Stub  `json:"progress,omitempty"`
}

// ProgressReport is what a progress hook is called with.
type ProgressReport struct {
	Title    string         `json:"title,omitempty"`
	Metadata map[string]any `json:"metadata"`
}

// OutputRequest is OutputOptions on the wire.
type OutputRequest struct {
	Offset int64 `json:"offset,omitempty"`
	Follow bool  `json:"follow,omitempty"`
}

// OutputReply answers output: a token for the log, and the log's bound, by which
// a reader knows how often to confirm.
type OutputReply struct {
	Token    string `json:"token"`
	LogBytes int64  `json:"logBytes"`
}

// ReadGreetingLine reads the first line of a connection, without its newline, and
// not one byte more: what follows belongs to what the connection is for. It
// honours the connection's read deadline.
func ReadGreetingLine(c net.Conn) (string, error) {
	if u, ok := c.(*net.UnixConn); ok {
		return peekLine(u)
	}
	var line [MaxGreetingBytes]byte
	for i := range line {
		if _, err := io.ReadFull(c, line[i:i+1]); err != nil {
			return "", err
		}
		if line[i] == '\n' {
			return string(line[:i]), nil
		}
	}
	return "", Errf(CodeInvalidArgument, "greeting", "the greeting line is too long", "")
}

// peekLine looks before it reads. What has been peeked is read in pieces, so that
// a line that arrives in pieces is waited for and not spun upon.
func peekLine(u *net.UnixConn) (string, error) {
	rc, err := u.SyscallConn()
	if err != nil {
		return "", err
	}
	line := make([]byte, 0, MaxGreetingBytes)
	for len(line) < cap(line) {
		var n int
		var perr error
		rest := line[len(line):cap(line)]
		err := rc.Read(func(fd uintptr) bool {
			for {
				n, _, perr = syscall.Recvfrom(int(fd), rest, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
				if perr != syscall.EINTR {
					return perr != syscall.EAGAIN
				}
			}
		})
		if err != nil {
			return "", err
		}
		if perr != nil {
			return "", os.NewSyscallError("recvfrom", perr)
		}
		if n == 0 {
			return "", io.EOF
		}
		take, whole := n, false
		if i := bytes.IndexByte(rest[:n], '\n'); i >= 0 {
			take, whole = i+1, true
		}
		if _, err := io.ReadFull(u, rest[:take]); err != nil {
			return "", err
		}
		line = line[:len(line)+take]
		if whole {
			return string(line[:len(line)-1]), nil
		}
	}
	return "", Errf(CodeInvalidArgument, "greeting", "the greeting line is too long", "")
}

// MaxMessageBytes is the longest message of a guest's RPC session, in both directions: as long as a
// session lets one be that it sends (a longer one fails the call that it belongs to). One that was
// sent is thus never too long for its reader, which would end a session that many share.
const MaxMessageBytes = 64 << 20

// SessionLimits are those of both ends of a guest's RPC session.
var SessionLimits = capnweb.Limits{MaxMessageBytes: MaxMessageBytes, MaxQueuedBytes: MaxMessageBytes}
