package egress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tongs-dev/tongs/sandbox"
)

// DefaultTotalConns bounds the connections of all sandboxes of a host together: each takes two descriptors.
const DefaultTotalConns = 8192

// KeeperConfig is what a keeper needs. Default, Dir and Logger are required.
type KeeperConfig struct {
	Default *Policy      // of a sandbox without a policy of its own
	Dir     string       // where the policies of single sandboxes are kept; made when needed
	Logger  *slog.Logger // its events carry the sandbox's id
	Gate    Config       // the rest of every gate's configuration: Resolver, Dial, Proxied, Conns
	Conns   int          // of all gates together; default DefaultTotalConns
}

// A Keeper has a gate for each sandbox. It is safe for use by many goroutines.
type Keeper struct {
	cfg    KeeperConfig
	shared chan struct{}

	mu     sync.Mutex
	gates  map[string]*kept
	closed bool
}

type kept struct {
	gate    *Gate
	own     bool // the policy is not the default
	sockets []interface{ Close() error }
}

// NewKeeper makes a keeper. Close ends it.
func NewKeeper(cfg KeeperConfig) *Keeper {
	if cfg.Conns <= 0 {
		cfg.Conns = DefaultTotalConns
	}
	return &Keeper{cfg: cfg, shared: make(chan struct{}, cfg.Conns), gates: make(map[string]*kept)}
}

// Box is the part of a sandbox's client that a keeper uses.
type Box interface {
	Listen(ctx context.Context, name, address string) (net.Listener, error)
	ListenPacket(ctx context.Context, name, address string) (net.PacketConn, error)
}

// Serve opens the way out of a sandbox that has been reached, or takes it over: from a host that is gone,
// or after the sandbox was started anew. Connections that waited meanwhile are served.
func (k *Keeper) Serve(ctx context.Context, id string, box Box) error {
	gate, err := k.gate(id)
	if err != nil {
		return err
	}
	listener, err := box.Listen(ctx, "tongs.egress", fmt.Sprintf("127.0.0.1:%d", sandbox.EgressPort))
	if err != nil {
		return err
	}
	dnsTCP, err := box.Listen(ctx, "tongs.dns", fmt.Sprintf("127.0.0.1:%d", sandbox.EgressDNSPort))
	if err != nil {
		listener.Close()
		return err
	}
	dns, err := box.ListenPacket(ctx, "tongs.dns.udp", fmt.Sprintf("127.0.0.1:%d", sandbox.EgressDNSPort))
	if err != nil {
		listener.Close()
		dnsTCP.Close()
		return err
	}
	k.mu.Lock()
	one := k.gates[id]
	if one == nil || one.gate != gate { // ended meanwhile
		k.mu.Unlock()
		listener.Close()
		dnsTCP.Close()
		dns.Close()
		return net.ErrClosed
	}
	old := one.sockets
	one.sockets = []interface{ Close() error }{listener, dnsTCP, dns}
	k.mu.Unlock()
	for _, s := range old {
		s.Close()
	}
	log := k.cfg.Logger.With("sandbox", id)
	for what, serve := range map[string]func() error{
		"connections": func() error { return gate.ServeTCP(listener) },
		"dns":         func() error { return gate.ServeDNS(dns) },
		"dns-tcp":     func() error { return gate.ServeDNSTCP(dnsTCP) },
	} {
		go func() { // ends with its socket, which Serve, End and Close close
			if err := serve(); err != nil {
				log.Error("egress ended", "what", what, "error", err)
			}
		}()
	}
	return nil
}

func (k *Keeper) gate(id string) (*Gate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, net.ErrClosed
	}
	if one := k.gates[id]; one != nil {
		return one.gate, nil
	}
	policy, own, err := k.load(id)
	if err != nil {
		return nil, err
	}
	cfg := k.cfg.Gate
	cfg.Policy, cfg.Logger, cfg.Shared = policy, k.cfg.Logger.With("sandbox", id), k.shared
	one := &kept{gate: New(cfg), own: own}
	k.gates[id] = one
	return one.gate, nil
}

// document is the file of a policy.
type document struct {
	Allow []string `json:"allow"`
	Deny  []string `json:"deny"`
}

func (k *Keeper) file(id string) string {
	return filepath.Join(k.cfg.Dir, strings.ReplaceAll(id, string(filepath.Separator), "_")+".json")
}

// load reads a sandbox's policy. One that can't be read is an error, not the default: it may deny more.
func (k *Keeper) load(id string) (*Policy, bool, error) {
	data, err := os.ReadFile(k.file(id))
	if errors.Is(err, fs.ErrNotExist) {
		return k.cfg.Default, false, nil
	}
	var d document
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	var p *Policy
	if err == nil {
		p, err = ParsePolicy(d.Allow, d.Deny)
	}
	if err != nil {
		return nil, false, &sandbox.Error{Code: sandbox.CodeFilesystemError, Op: "read egress policy", Err: err,
			Message: fmt.Sprintf("the policy of sandbox %s in %s can't be used: %v", id, k.file(id), err), Hint: "repair the file, or remove it for the default policy"}
	}
	return p, true, nil
}

// Set gives a sandbox a policy of its own, which outlives this process. A policy with an error changes
// nothing. The sandbox must have been served.
func (k *Keeper) Set(id string, allow, deny []string) error {
	p, err := ParsePolicy(allow, deny)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(document{allow, deny}, "", "  ")
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.gates[id]
	if one == nil {
		return notServed(id)
	}
	if err := os.MkdirAll(k.cfg.Dir, 0o700); err != nil {
		return sandbox.FileError("write egress policy", err)
	}
	if err := replace(k.file(id), append(data, '\n')); err != nil {
		return sandbox.FileError("write egress policy", err)
	}
	one.own = true
	one.gate.SetPolicy(p)
	return nil
}

// Reset gives a sandbox the default policy again.
func (k *Keeper) Reset(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.gates[id]
	if one == nil {
		return notServed(id)
	}
	if err := os.Remove(k.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sandbox.FileError("remove egress policy", err)
	}
	one.own = false
	one.gate.SetPolicy(k.cfg.Default)
	return nil
}

func notServed(id string) error {
	return sandbox.Errf(sandbox.CodeSandboxNotFound, "find egress", fmt.Sprintf("sandbox %s has no way out now", id), "it is there once the sandbox has been used; sandboxes without a network have none")
}

// replace writes a file so that a reader sees the old one or the new one.
func replace(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Status is a sandbox's way out.
type Status struct {
	Allow   []string `json:"allow"`
	Deny    []string `json:"deny"`
	Default bool     `json:"default"` // the policy is the default one
	Stats   Stats    `json:"stats"`
}

// Status tells a sandbox's policy and what has passed.
func (k *Keeper) Status(id string) (Status, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.gates[id]
	if one == nil {
		return Status{}, notServed(id)
	}
	allow, deny := one.gate.Policy().Rules()
	return Status{Allow: allow, Deny: deny, Default: !one.own, Stats: one.gate.Stats()}, nil
}

// Gate gives a sandbox's gate, nil if it has none: what the host does for a sandbox goes the same way.
func (k *Keeper) Gate(id string) *Gate {
	k.mu.Lock()
	defer k.mu.Unlock()
	if one := k.gates[id]; one != nil {
		return one.gate
	}
	return nil
}

// End forgets a sandbox that is destroyed, its policy too.
func (k *Keeper) End(id string) {
	k.mu.Lock()
	one := k.gates[id]
	delete(k.gates, id)
	k.mu.Unlock()
	if one != nil {
		one.close()
	}
	if err := os.Remove(k.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.cfg.Logger.Warn("a sandbox's egress policy is left", "sandbox", id, "error", err)
	}
}

func (o *kept) close() {
	for _, s := range o.sockets {
		s.Close()
	}
	o.gate.Close()
}

// Close ends every gate. The sandboxes' listeners stay in their guests, for the next host.
func (k *Keeper) Close() {
	k.mu.Lock()
	gates := k.gates
	k.gates, k.closed = nil, true
	k.mu.Unlock()
	for _, one := range gates {
		one.close()
	}
}
