package guest

import (
	"encoding/hex"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	tokenLife = 30 * time.Second // from the call to its raw connection
	maxTokens = 1024             // that wait at a time
)

// tokens are the promises of raw connections that calls have given out.
type tokens struct {
	mu     sync.Mutex
	byID   map[string]*ticket
	closed bool
}

// ticket is what one raw connection will be for. Exactly one of serve and drop is
// called, once.
type ticket struct {
	serve func(*net.UnixConn)
	drop  func() // releases what serve would have used; may be nil
	timer *time.Timer
}

func newTokens() *tokens { return &tokens{byID: map[string]*ticket{}} }

// issue makes a token. On error drop has been called.
func (t *tokens) issue(serve func(*net.UnixConn), drop func()) (sandbox.TokenReply, error) {
	var b [sandbox.TokenBytes]byte
	secret(b[:])
	id := hex.EncodeToString(b[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.byID) >= maxTokens {
		if drop != nil {
			drop()
		}
		return sandbox.TokenReply{}, sandbox.Errf(sandbox.CodeTooManyConnections, "open", "too many raw connections are waited for", "use the tokens you have, or wait 30 seconds")
	}
	tk := &ticket{serve: serve, drop: drop}
	tk.timer = time.AfterFunc(tokenLife, func() {
		if t.take(id) != nil && drop != nil {
			drop()
		}
	})
	t.byID[id] = tk
	return sandbox.TokenReply{Token: id}, nil
}

// take redeems a token; nil when it isn't one, or not any more.
func (t *tokens) take(id string) *ticket {
	t.mu.Lock()
	defer t.mu.Unlock()
	tk := t.byID[id]
	if tk != nil {
		delete(t.byID, id)
		tk.timer.Stop()
	}
	return tk
}

func (t *tokens) close() {
	t.mu.Lock()
	all := t.byID
	t.byID, t.closed = map[string]*ticket{}, true
	t.mu.Unlock()
	for _, tk := range all {
		if tk.timer.Stop(); tk.drop != nil {
			tk.drop()
		}
	}
}

// secret fills b from the kernel. crypto/rand would do the same and bring a
// twentieth of the guest's size with it.
func secret(b []byte) {
	for len(b) > 0 {
		n, err := unix.Getrandom(b, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic("guest: the kernel gives no random bytes: " + err.Error())
		}
		b = b[max(n, 0):]
	}
}
