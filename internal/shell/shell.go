package shell

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// Address is where the host accepts shells, inside the agent host.
	Address = "127.0.0.1:4101"
	// AddressEnv names another address, for tests.
	AddressEnv = "TONGS_SHELL_ADDRESS"
	// SessionEnv names the session in the shell's environment.
	SessionEnv = "TONGS_SESSION"

	// Refused is the exit status of a command that was not run.
	Refused = 126
	// Lost is the exit status of a command whose end nobody knows.
	Lost = 125

	// MaxRequest bounds a request's line, in bytes.
	MaxRequest = 1 << 20

	dialTimeout  = 10 * time.Second
	writeTimeout = 30 * time.Second
)

// Request asks for a command.
type Request struct {
	Session string `json:"session"` // empty: the shell was given none
	Command string `json:"command"`
	Dir     string `json:"dir"`
	Term    string `json:"term,omitempty"`
}

// Result is how a command ended.
type Result struct {
	// Code is the exit status as a shell says it, 0 to 255.
	Code int `json:"code"`
}

// Main is the program: it runs the command of args, which are those behind the
// program's name, and returns the exit status.
func Main(args []string, env func(string) string, dir string, stdout, stderr io.Writer) int {
	refuse := func(format string, v ...any) int {
		fmt.Fprintf(stderr, "tongs: "+format+"\n", v...)
		return Refused
	}
	command, ok := commandOf(args)
	if !ok {
		return refuse("this shell runs one command, given by -c; an interactive shell is a terminal of the session")
	}
	address := env(AddressEnv)
	if address == "" {
		address = Address
	}
	conn, err := net.DialTimeout("tcp", address, dialTimeout)
	if err != nil {
		return refuse("a shell in the agent host is refused, and no host leads to the session's sandbox (%v)", err)
	}
	defer conn.Close()
	line, err := json.Marshal(Request{Session: env(SessionEnv), Command: command, Dir: dir, Term: env("TERM")})
	if err != nil || len(line) >= MaxRequest {
		return refuse("the command is too long")
	}
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return refuse("the command could not be handed over (%v)", err)
	}
	return follow(conn, stdout, stderr)
}

// commandOf finds the command among the ways in which OpenCode calls a shell.
func commandOf(args []string) (string, bool) {
	at := slices.Index(args, "-c")
	if at < 0 || at+1 >= len(args) {
		return "", false
	}
	for _, a := range args[:at] {
		if a != "-l" {
			return "", false
		}
	}
	return args[at+1], true
}

// follow copies the output and returns the exit status.
func follow(conn io.Reader, stdout, stderr io.Writer) int {
	frames := sandbox.NewFrameReader(conn)
	for {
		kind, data, err := frames.Next()
		var refused *sandbox.Error
		switch {
		case errors.As(err, &refused):
			message := refused.Message
			if refused.Hint != "" {
				message += ": " + refused.Hint
			}
			fmt.Fprintf(stderr, "tongs: %s\n", message)
			return Refused
		case err != nil:
			fmt.Fprintln(stderr, "tongs: the connection to the session's sandbox broke; the command may have been ended")
			return Lost
		}
		switch kind {
		case sandbox.FrameStdout:
			_, err = stdout.Write(data)
		case sandbox.FrameStderr:
			_, err = stderr.Write(data)
		case sandbox.FrameEnd:
			var r Result
			if json.Unmarshal(data, &r) != nil || r.Code < 0 || r.Code > 255 {
				return Lost
			}
			return r.Code
		}
		if err != nil {
			return Lost // nobody reads it: the host ends the command with the connection
		}
	}
}

// ReadRequest reads the line of a shell. r has to be what the rest is read from.
func ReadRequest(r *bufio.Reader) (Request, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > MaxRequest {
			return Request{}, fmt.Errorf("shell: the request is longer than %d bytes", MaxRequest)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return Request{}, fmt.Errorf("shell: read the request: %w", err)
		}
		break
	}
	var req Request
	if err := json.Unmarshal(line, &req); err != nil {
		return Request{}, fmt.Errorf("shell: the request is no JSON: %w", err)
	}
	if strings.ContainsRune(req.Command, 0) || strings.ContainsRune(req.Dir, 0) || strings.ContainsRune(req.Term, 0) || len(req.Session) > 128 {
		return Request{}, errors.New("shell: the request has a NUL byte or an overlong session")
	}
	return req, nil
}
