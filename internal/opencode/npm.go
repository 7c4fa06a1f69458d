package opencode

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// DefaultRegistry is the npm registry used when nothing names another.
const DefaultRegistry = "https://registry.npmjs.org/"

// NpmConfig is what the user has told npm about registries: the settings of
// npm's environment variables and of the .npmrc files, each setting from the
// strongest place that has it. Read it with [LoadNpmConfig].
type NpmConfig struct {
	values map[string]npmValue
	getenv func(string) string
}

type npmValue struct {
	text  string
	list  []string // of "key[] =" lines
	where string   // for messages: a file name or the name of a variable
}

// Registry returns the URL of the registry that serves a package, ending in a
// slash, and where it was set ("" for the default).
func (c *NpmConfig) Registry(pkg string) (u *url.URL, where string, err error) {
	raw := npmValue{text: DefaultRegistry}
	if v, ok := c.get("registry"); ok {
		raw = v
	}
	if scope, _, ok := strings.Cut(pkg, "/"); ok && strings.HasPrefix(scope, "@") {
		if v, ok := c.get(scope + ":registry"); ok {
			raw = v
		}
	}
	u, err = url.Parse(raw.text)
	if err == nil && (u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		err = fmt.Errorf("not an http or https URL")
	}
	if err != nil {
		return nil, raw.where, &ObtainError{
			Code:    CodeRegistryConfig,
			Op:      "find the npm registry",
			Message: fmt.Sprintf("the registry set in %s cannot be used", raw.where),
			Hint:    "set it like " + DefaultRegistry,
			Err:     stripURL(err),
		}
	}
	if !strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath("/")
	}
	return u, raw.where, nil
}

// Authorize sets the header Authorization of a request if there is a login for
// its URL. As in npm, a login belongs to a host and a path prefix
// ("//host/path/:_authToken"); the longest prefix wins. A user and password in
// the URL itself are used when there is no other login.
func (c *NpmConfig) Authorize(r *http.Request) {
	for _, prefix := range npmPrefixes(r.URL) {
		if v, ok := c.get(prefix + ":_authToken"); ok && v.text != "" {
			r.Header.Set("Authorization", "Bearer "+v.text)
			return
		}
		if v, ok := c.get(prefix + ":_auth"); ok && v.text != "" {
			r.Header.Set("Authorization", "Basic "+v.text)
			return
		}
		user, ok1 := c.get(prefix + ":username")
		pass, ok2 := c.get(prefix + ":_password")
		if ok1 && ok2 {
			if plain, err := base64.StdEncoding.DecodeString(pass.text); err == nil {
				r.SetBasicAuth(user.text, string(plain))
				return
			}
		}
	}
}

// npmPrefixes lists the keys under which npm looks for the login of a URL,
// longest first: //host/a/b/, //host/a/b, //host/a/, … //host.
func npmPrefixes(u *url.URL) []string {
	path := u.EscapedPath()
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		path = path[:i+1]
	}
	var keys []string
	for n := 0; n < 32; n++ { // deeper paths have no login of their own
		keys = append(keys, "//"+u.Host+path)
		switch {
		case path == "":
			return keys
		case strings.HasSuffix(path, "/"):
			path = strings.TrimSuffix(path, "/")
		default:
			path = path[:strings.LastIndexByte(path, '/')+1]
		}
	}
	return keys
}

// Transport returns a transport for talking to a registry: with the proxy and
// the certificate authorities that npm's settings name beside those of the
// system, and with limits on how long a connection may take. The caller closes
// its idle connections.
func (c *NpmConfig) Transport(registry *url.URL) (*http.Transport, error) {
	fail := func(where, what string, err error) error {
		return &ObtainError{Code: CodeRegistryConfig, Op: "set up the connection to the npm registry",
			Message: fmt.Sprintf("%s, set in %s", what, where),
			Hint:    "correct that setting or remove it", Err: err}
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	var extra []byte
	for _, key := range []string{"cafile", "NODE_EXTRA_CA_CERTS"} {
		v, ok := c.get(key)
		if key == "NODE_EXTRA_CA_CERTS" {
			v = npmValue{text: c.getenv(key), where: "the variable " + key}
			ok = v.text != ""
		}
		if !ok || v.text == "" || v.text == "null" {
			continue
		}
		b, err := os.ReadFile(v.text)
		if err != nil {
			return nil, fail(v.where, "the file of certificate authorities cannot be read", err)
		}
		extra = append(append(extra, '\n'), b...)
	}
	if v, ok := c.get("ca"); ok {
		for _, pem := range append([]string{v.text}, v.list...) {
			extra = append(append(extra, '\n'), strings.ReplaceAll(pem, `\n`, "\n")...)
		}
	}
	if len(strings.TrimSpace(string(extra))) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pool.AppendCertsFromPEM(extra)
		conf.RootCAs = pool
	}
	if v, ok := c.get("strict-ssl"); ok && v.text == "false" {
		conf.InsecureSkipVerify = true // asked for; the content is checked against a pinned digest anyway
	}
	for _, prefix := range npmPrefixes(registry) {
		cert, ok1 := c.get(prefix + ":certfile")
		key, ok2 := c.get(prefix + ":keyfile")
		if !ok1 || !ok2 {
			continue
		}
		pair, err := tls.LoadX509KeyPair(cert.text, key.text)
		if err != nil {
			return nil, fail(cert.where, "the client certificate cannot be loaded", err)
		}
		conf.Certificates = []tls.Certificate{pair}
		break
	}
	proxy, err := c.proxy(registry)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                 proxy,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       conf,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       30 * time.Second,
	}, nil
}

// proxy returns the proxy function: npm's own setting if there is one, else
// HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
func (c *NpmConfig) proxy(registry *url.URL) (func(*http.Request) (*url.URL, error), error) {
	v, ok := c.get("https-proxy")
	if !ok || v.text == "" || registry.Scheme == "http" {
		v, ok = c.get("proxy")
	}
	if !ok || v.text == "" || v.text == "null" {
		return http.ProxyFromEnvironment, nil
	}
	if v.text == "false" {
		return nil, nil
	}
	u, err := url.Parse(v.text)
	if err != nil || u.Host == "" {
		return nil, &ObtainError{Code: CodeRegistryConfig, Op: "set up the connection to the npm registry",
			Message: "the proxy set in " + v.where + " is not a URL",
			Hint:    "set it like http://proxy.example:3128", Err: stripURL(err)}
	}
	none, _ := c.get("noproxy")
	return func(r *http.Request) (*url.URL, error) {
		host := r.URL.Hostname()
		for _, d := range strings.Split(none.text, ",") {
			d = strings.TrimPrefix(strings.TrimSpace(d), ".")
			if d != "" && (d == "*" || host == d || strings.HasSuffix(host, "."+d)) {
				return nil, nil
			}
		}
		return u, nil
	}, nil
}

func (c *NpmConfig) get(key string) (npmValue, bool) {
	v, ok := c.values[key]
	return v, ok
}

// stripURL removes the URL from an error of net/url or net/http: it may hold a
// password.
func stripURL(err error) error {
	if ue, ok := err.(*url.Error); ok {
		return ue.Err
	}
	return err
}
