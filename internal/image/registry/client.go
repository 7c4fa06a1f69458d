package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of what a registry may answer.
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	maxToken    = 1 << 20
	maxRedirect = 5
)

// Options say how registries are asked. The zero value will do.
type Options struct {
	// Credentials gives what a registry, named host or host:port, is to be asked with. Default:
	// DockerCredentials.
	Credentials func(ctx context.Context, registry string) (Credential, error)
	// Stall is how long a registry may send nothing. Default 30 s.
	Stall time.Duration
	// Attempts is how often a download is tried again, each time from where it was cut off, without a byte
	// in between. Default 5.
	Attempts int
	// Pause is how long to wait before the second of them; each wait is twice the one before. Default 500 ms.
	Pause time.Duration
	// Transport carries the requests. Default: that of net/http, with its proxies from the environment.
	Transport http.RoundTripper
	// UserAgent names the program. Default "tongs".
	UserAgent string
}

// Client asks registries. It is safe for use by many goroutines.
type Client struct {
	opts Options
	http *http.Client

	mu      sync.Mutex
	schemes map[string]string // by registry
	tokens  map[string]string // Authorization by registry and repository
}

// New makes a client.
func New(opts Options) *Client {
	opts.Stall = cmp.Or(opts.Stall, 30*time.Second)
	opts.Attempts = cmp.Or(opts.Attempts, 5)
	opts.Pause = cmp.Or(opts.Pause, 500*time.Millisecond)
	opts.UserAgent = cmp.Or(opts.UserAgent, "tongs")
	if opts.Credentials == nil {
		opts.Credentials = DockerCredentials
	}
	if opts.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DisableCompression = true // bytes are counted and summed as they come
		opts.Transport = t
	}
	c := &Client{opts: opts, schemes: make(map[string]string), tokens: make(map[string]string)}
	c.http = &http.Client{Transport: opts.Transport, CheckRedirect: checkRedirect}
	return c
}

// Close lets go of connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// checkRedirect follows redirections, to where blobs are kept, for instance; not from TLS to plain text.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirect {
		return errors.New("too many redirections")
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("it redirects to plain text at %s", req.URL.Host)
	}
	return nil
}

// Failure is the error of a registry that can't be reached or fails.
func failure(op, registry string, err error, format string, args ...any) error {
	return &sandbox.Error{Code: sandbox.CodeRegistryError, Op: op, Message: registry + ": " + fmt.Sprintf(format, args...), Err: err,
		Hint: "look at the name and at this machine's network, then try again: what was downloaded is kept"}
}

func invalid(op, format string, args ...any) error {
	return sandbox.Errf(sandbox.CodeImageInvalid, op, fmt.Sprintf(format, args...), "what the registry sent is wrong: try again, and tell whoever runs it")
}

// onLoopback says whether a registry is on this machine.
func onLoopback(registry string) bool {
	host, _, err := net.SplitHostPort(registry)
	if err != nil {
		host = registry
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// scheme finds out whether a registry on this machine speaks TLS. All others must.
func (c *Client) scheme(ctx context.Context, registry string) string {
	if !onLoopback(registry) {
		return "https"
	}
	c.mu.Lock()
	known := c.schemes[registry]
	c.mu.Unlock()
	if known != "" {
		return known
	}
	scheme := "https"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+registry+"/v2/", nil)
	if err == nil {
		if res, err := c.http.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusUnauthorized {
				scheme = "http"
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.schemes[registry] = scheme
	return scheme
}

// get asks for something of a repository, with what authorization it takes.
func (c *Client) get(ctx context.Context, op string, repo name.Repository, path string, header http.Header) (*http.Response, error) {
	registry := repo.RegistryStr()
	address := c.scheme(ctx, registry) + "://" + registry + "/v2/" + repo.RepositoryStr() + "/" + path
	key := registry + "/" + repo.RepositoryStr()
	for attempt := 0; ; attempt++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, failure(op, registry, err, "%v", err)
		}
		for name, values := range header {
			req.Header[name] = values
		}
		req.Header.Set("User-Agent", c.opts.UserAgent)
		c.mu.Lock()
		if auth := c.tokens[key]; auth != "" {
			req.Header.Set("Authorization", auth)
		}
		c.mu.Unlock()
		res, err := c.http.Do(req)
		if err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, failure(op, registry, err, "%s", withoutURL(err))
		}
		if res.StatusCode != http.StatusUnauthorized || attempt > 0 {
			return res, nil
		}
		res.Body.Close()
		auth, err := c.authorize(ctx, op, repo, res.Header.Values("WWW-Authenticate"))
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.tokens[key] = auth
		c.mu.Unlock()
	}
}

// withoutURL leaves the address out of an error: that of a blob may be signed.
func withoutURL(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

// refused turns an answer that is not the wanted one into an error.
func refused(op string, ref string, res *http.Response) error {
	registry := res.Request.URL.Host
	switch res.StatusCode {
	case http.StatusNotFound:
		return sandbox.Errf(sandbox.CodeImageNotFound, op, ref+": the registry has no such image", "look at the spelling; the name of a registry that is not Docker Hub comes first: ghcr.io/owner/name:tag")
	case http.StatusUnauthorized, http.StatusForbidden:
		return sandbox.Errf(sandbox.CodeRegistryAuth, op, ref+": the registry refuses it: it is not there, or not for you", "look at the spelling, then `docker login` (or write ~/.docker/config.json), as the user who runs this")
	case http.StatusTooManyRequests:
		return sandbox.Errf(sandbox.CodeRegistryError, op, ref+": the registry says that you ask too often", "wait, or log in: `docker login`")
	}
	return failure(op, registry, nil, "%s", res.Status)
}

// bearer is what a token service answers.
type bearer struct {
	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
}

// authorize gets what a registry that answers 401 wants to see.
func (c *Client) authorize(ctx context.Context, op string, repo name.Repository, challenges []string) (string, error) {
	registry := repo.RegistryStr()
	cred, err := c.opts.Credentials(ctx, registry)
	if err != nil {
		return "", &sandbox.Error{Code: sandbox.CodeRegistryAuth, Op: op, Message: registry + ": its credentials can't be had: " + err.Error(), Hint: "correct ~/.docker/config.json, or `docker login` again", Err: err}
	}
	for _, text := range challenges {
		kind, params := parseChallenge(text)
		switch kind {
		case "basic":
			if cred.Username != "" {
				return cred.basic(), nil
			}
		case "bearer":
			return c.token(ctx, op, repo, params, cred)
		}
	}
	return "", sandbox.Errf(sandbox.CodeRegistryAuth, op, registry+" wants to know who asks", "`docker login "+registry+"`, as the user who runs this")
}

// token asks the service that a registry names for a token (distribution-spec, "Token authentication").
func (c *Client) token(ctx context.Context, op string, repo name.Repository, params map[string]string, cred Credential) (string, error) {
	registry := repo.RegistryStr()
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && !(realm.Scheme == "http" && onLoopback(registry) && onLoopback(realm.Host)) {
		return "", failure(op, registry, err, "it names no service for tokens that can be asked")
	}
	query := url.Values{"scope": {"repository:" + repo.RepositoryStr() + ":pull"}}
	if s := params["service"]; s != "" {
		query.Set("service", s)
	}
	var req *http.Request
	if cred.IdentityToken != "" {
		query.Set("grant_type", "refresh_token")
		query.Set("refresh_token", cred.IdentityToken)
		query.Set("client_id", c.opts.UserAgent)
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(query.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
	} else {
		more := realm.Query()
		for k, v := range query {
			more[k] = v
		}
		realm.RawQuery = more.Encode()
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
		if err == nil && cred.Username != "" {
			req.Header.Set("Authorization", cred.basic())
		}
	}
	if err != nil {
		return "", failure(op, registry, err, "%v", err)
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	ctx, cancel := context.WithTimeoutCause(ctx, 2*c.opts.Stall, errStall)
	defer cancel()
	res, err := c.http.Do(req.WithContext(ctx))
	if err != nil {
		return "", failure(op, registry, err, "its service for tokens can't be asked: %s", withoutURL(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", refused(op, repo.Name(), res)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxToken))
	var b bearer
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	token := cmp.Or(b.Token, b.AccessToken)
	if err != nil || token == "" {
		return "", failure(op, registry, err, "its service for tokens gave none")
	}
	return "Bearer " + token, nil
}

// small gets a document of at most so many bytes whole, and its digest.
func (c *Client) small(ctx context.Context, op string, ref name.Reference, path string, most int64, accept []string) ([]byte, string, http.Header, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*c.opts.Stall, errStall)
	defer cancel()
	var res *http.Response
	var data []byte
	for attempt := 0; ; attempt++ {
		var err error
		res, err = c.get(ctx, op, ref.Context(), path, http.Header{"Accept": accept})
		if err == nil && res.StatusCode == http.StatusOK {
			data, err = io.ReadAll(io.LimitReader(res.Body, most+1))
			res.Body.Close()
		} else if err == nil {
			res.Body.Close()
			err = refused(op, ref.Name(), res)
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			if cause := context.Cause(ctx); errors.Is(cause, errStall) {
				return nil, "", nil, failure(op, ref.Context().RegistryStr(), cause, "it sent nothing for %s", 2*c.opts.Stall)
			}
			return nil, "", nil, context.Cause(ctx)
		}
		if code := sandbox.CodeOf(err); attempt+1 >= c.opts.Attempts || code != sandbox.CodeRegistryError && code != "" || res != nil && res.StatusCode/100 == 4 {
			return nil, "", nil, err
		}
		if err := pause(ctx, c.opts.Pause<<attempt); err != nil {
			return nil, "", nil, err
		}
	}
	if int64(len(data)) > most {
		return nil, "", nil, invalid(op, "%s: the registry sends more than %d MiB for %s", ref.Name(), most>>20, path)
	}
	return data, fmt.Sprintf("sha256:%x", sha256.Sum256(data)), res.Header, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Config gets and checks the configuration of an image.
func (c *Client) Config(ctx context.Context, ref name.Reference, m *v1.Manifest) ([]byte, error) {
	const op = "pull image"
	if m.Config.Size < 0 || m.Config.Size > maxConfig {
		return nil, invalid(op, "%s: a configuration of %d bytes, the most is %d MiB", ref.Name(), m.Config.Size, maxConfig>>20)
	}
	data, digest, _, err := c.small(ctx, op, ref, "blobs/"+m.Config.Digest.String(), maxConfig, nil)
	if err != nil {
		return nil, err
	}
	if digest != m.Config.Digest.String() || int64(len(data)) != m.Config.Size {
		return nil, invalid(op, "%s: the registry sends another configuration than the manifest names", ref.Name())
	}
	return data, nil
}
