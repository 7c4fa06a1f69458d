package opencode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// maxAPIBytes bounds an answer of OpenCode's API that is read into memory.
const maxAPIBytes = 32 << 20 // 32 MiB

// Transport carries requests to OpenCode's port in the agent host, whatever
// host their URL names. Each waits until OpenCode is ready, for as long as its
// context allows. It compresses, caches and redirects nothing, and passes
// upgrades (WebSocket) on.
func (h *Host) Transport() http.RoundTripper { return readyTransport{h} }

// Client returns an HTTP client over [Host.Transport]. Redirects are not followed.
func (h *Host) Client() *http.Client {
	return &http.Client{
		Transport:     readyTransport{h},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type readyTransport struct{ host *Host }

func (t readyTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, err := t.host.Ready(req.Context()); err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return t.host.ready.RoundTrip(req)
	}
	// A request that must not be sent twice is lost when the kept connection it is written to turns
	// out to be dead. A new connection to an OpenCode that has ended is refused, and then made again.
	return t.host.fresh.RoundTrip(req)
}

// getJSON asks OpenCode, ready or not, and decodes its answer into v, which may
// be nil. The request is about the project directory.
func (h *Host) getJSON(ctx context.Context, path string, query url.Values, v any) error {
	const op = "ask OpenCode"
	if query == nil {
		query = url.Values{}
	}
	query.Set("directory", h.cfg.Project)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL()+path+"?"+query.Encode(), nil)
	if err != nil {
		return &sandbox.Error{Code: CodeOpenCodeAPI, Op: op, Message: err.Error(), Err: err}
	}
	resp, err := h.raw.RoundTrip(req)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return &sandbox.Error{Code: CodeOpenCodeAPI, Op: op, Message: fmt.Sprintf("GET %s: %v", path, err), Err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAPIBytes+1))
	switch {
	case err != nil:
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return &sandbox.Error{Code: CodeOpenCodeAPI, Op: op, Message: fmt.Sprintf("GET %s: %v", path, err), Err: err}
	case len(body) > maxAPIBytes:
		return sandbox.Errf(CodeOpenCodeAPI, op, fmt.Sprintf("GET %s: the answer is longer than %d bytes", path, maxAPIBytes), "")
	case resp.StatusCode != http.StatusOK:
		return &sandbox.Error{Code: CodeOpenCodeAPI, Op: op, Message: fmt.Sprintf("GET %s: status %d: %s", path, resp.StatusCode, excerpt(body)), Err: statusError(resp.StatusCode)}
	case v == nil:
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return &sandbox.Error{Code: CodeOpenCodeAPI, Op: op, Message: fmt.Sprintf("GET %s: the answer is not what was expected: %v", path, err),
			Hint: "use the OpenCode version that this Tongs was made for", Err: err}
	}
	return nil
}

// statusError is the cause of an error: OpenCode answered with this status.
type statusError int

func (s statusError) Error() string { return http.StatusText(int(s)) }

func isNotFound(err error) bool {
	var status statusError
	return errors.As(err, &status) && status == http.StatusNotFound
}

func excerpt(body []byte) string {
	text := strings.ToValidUTF8(string(body[:min(len(body), 300)]), "\uFFFD")
	return strings.Join(strings.Fields(text), " ")
}

// probe asks whether OpenCode answers, on a connection of its own: one that was
// accepted too early is never answered.
func (h *Host) probe(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL()+"/global/health", nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := h.raw.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return statusError(resp.StatusCode)
	}
	return nil
}
