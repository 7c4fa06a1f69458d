package egress

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	cacheFor  = 30 * time.Second
	cacheSize = 1024
)

// cache remembers for a short time what names resolve to, so that a query and the connection after it ask
// once. Failures are not remembered.
type cache struct {
	mu      sync.Mutex
	entries map[string]cached
}

type cached struct {
	addrs []netip.Addr
	until time.Time
}

// lookup gives the addresses of a name, IPv4 first.
func (c *cache) lookup(ctx context.Context, r Resolver, name string) ([]netip.Addr, error) {
	now := time.Now()
	c.mu.Lock()
	e, ok := c.entries[name]
	c.mu.Unlock()
	if ok && now.Before(e.until) {
		return e.addrs, nil
	}
	found, err := r.LookupNetIP(ctx, "ip", name+".") // the dot keeps the host's search domains out
	if err != nil {
		return nil, err
	}
	var v4, v6 []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	addrs := append(v4, v6...)
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: name, IsNotFound: true}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil || len(c.entries) >= cacheSize {
		c.entries = make(map[string]cached)
	}
	c.entries[name] = cached{addrs, now.Add(cacheFor)}
	return addrs, nil
}
