package api

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// checkOrigin refuses a Host that is not ours (a name that somebody else's DNS leads here) and
// requests that pages of other origins make. It returns the origin of a page that may read the
// answer, if it is a page of another server.
func (s *Server) checkOrigin(r *http.Request) (string, *refusal) {
	if !s.knownHost(r) {
		return "", &refusal{403, "FOREIGN_HOST", "the Host header names a host that this server is not known by", "call it by localhost, or add the name to its configuration"}
	}
	foreign := &refusal{403, "FOREIGN_ORIGIN", "pages of this origin may not use the endpoint", "name the origin in api_origins in Tongs' configuration"}
	values := r.Header.Values("Origin")
	if len(values) > 1 {
		return "", foreign
	}
	if len(values) == 0 || values[0] == "" {
		switch r.Header.Get("Sec-Fetch-Site") { // a browser says so even where it sends no Origin
		case "", "same-origin", "none":
			return "", nil
		}
		return "", foreign
	}
	if contains(s.cfg.Origins, values[0]) {
		return values[0], nil
	}
	u, err := url.Parse(values[0])
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || !strings.EqualFold(u.Host, r.Host) {
		return "", foreign
	}
	return "", nil
}

func (s *Server) knownHost(r *http.Request) bool {
	host := r.Host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if port == "" || strings.Trim(port, "0123456789") != "" {
			return false
		}
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || contains(s.cfg.Hosts, host) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" {
		return false
	}
	if ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback() {
		return true
	}
	// An address cannot be led astray by DNS: it is ours if the connection came to it.
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	at, err := netip.ParseAddrPort(local.String())
	return err == nil && at.Addr().Unmap().WithZone("") == ip.Unmap()
}

// originHosts are the hosts of origins.
func originHosts(origins []string) []string {
	var hosts []string
	for _, o := range origins {
		if u, err := url.Parse(o); err == nil && u.Host != "" {
			hosts = append(hosts, u.Host)
		}
	}
	return hosts
}
