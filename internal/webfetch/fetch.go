package webfetch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of one fetch; size and times are those of OpenCode 1.18.
const (
	MaxBytes       = 5 << 20 // of a body, unpacked
	DefaultTimeout = 30 * time.Second
	MaxTimeout     = 2 * time.Minute
	maxRedirects   = 10
	maxURL         = 16 << 10
	maxHeaders     = 256 << 10
	maxContentType = 256
)

// Config says how to reach what a sandbox reaches. Dial is needed.
type Config struct {
	// Dial connects as a program in the sandbox would be connected; address is HOST:PORT. It
	// is asked again for each redirect.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Ask asks whether the tool may; nil for yes. An error is the tool's.
	Ask func(ctx context.Context, request sandbox.AskRequest) error
	// Keep writes a text that is too long for an answer where the sandbox's tools can read it,
	// and gives the path. nil, or an error: the rest is lost, and the answer says so.
	Keep func(ctx context.Context, text string) (path string, err error)
}

// Arguments are those of a call.
type Arguments struct {
	URL     string
	Format  string   // "markdown", "text" or "html"; "" is markdown
	Timeout *float64 // in seconds; nil is DefaultTimeout, and more than MaxTimeout is MaxTimeout
}

// parse checks the arguments of a call.
func parse(args map[string]any) (Arguments, *url.URL, error) {
	a := Arguments{Format: "markdown"}
	raw, ok := args["url"].(string)
	switch {
	case !ok:
		return a, nil, failf(sandbox.CodeInvalidArgument, "The webfetch tool was called with invalid arguments: url must be a string, the address to fetch.")
	case len(raw) > maxURL:
		return a, nil, failf(sandbox.CodeInvalidArgument, "The webfetch tool was called with invalid arguments: url has %d bytes and may have %d.", len(raw), maxURL)
	case !strings.HasPrefix(raw, "http://") && !strings.HasPrefix(raw, "https://"):
		return a, nil, failf(sandbox.CodeInvalidArgument, "URL must start with http:// or https://")
	}
	a.URL = raw
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return a, nil, failf(sandbox.CodeInvalidArgument, "%.200q is not a valid URL.", raw)
	}
	if v, given := args["format"]; given && v != nil {
		a.Format, _ = v.(string)
		if a.Format != "markdown" && a.Format != "text" && a.Format != "html" {
			return a, nil, failf(sandbox.CodeInvalidArgument, `The webfetch tool was called with invalid arguments: format must be "markdown", "text" or "html".`)
		}
	}
	if v, given := args["timeout"]; given && v != nil {
		seconds, ok := v.(float64)
		if !ok || math.IsNaN(seconds) || seconds <= 0 {
			return a, nil, failf(sandbox.CodeInvalidArgument, "The webfetch tool was called with invalid arguments: timeout must be a number of seconds above 0, at most %d.", MaxTimeout/time.Second)
		}
		a.Timeout = &seconds
	}
	return a, u, nil
}

func (a Arguments) timeout() time.Duration {
	if a.Timeout == nil {
		return DefaultTimeout
	}
	return time.Duration(min(*a.Timeout, MaxTimeout.Seconds()) * float64(time.Second))
}

// accept is what to prefer, by format.
var accept = map[string]string{
	"markdown": "text/markdown, text/x-markdown;q=0.9, text/plain;q=0.8, text/html;q=0.7, */*;q=0.1",
	"text":     "text/plain, text/markdown;q=0.9, text/html;q=0.8, */*;q=0.1",
	"html":     "text/html, application/xhtml+xml;q=0.9, text/plain;q=0.8, text/markdown;q=0.7, */*;q=0.1",
}

// Fetch carries one call out. An error is what Ask returned, or a *sandbox.Error whose message is
// written for the model: CodeInvalidArgument, CodePermissionDenied, CodeToolFailed, CodeTimeout,
// CodeFileTooLarge, or CodeAborted when ctx has ended.
func Fetch(ctx context.Context, cfg Config, args map[string]any) (*sandbox.ToolResult, error) {
	a, u, err := parse(args)
	if err != nil {
		return nil, err
	}
	if cfg.Ask != nil {
		metadata := map[string]any{"url": a.URL, "format": a.Format}
		if a.Timeout != nil {
			metadata["timeout"] = *a.Timeout
		}
		err := cfg.Ask(ctx, sandbox.AskRequest{Permission: "webfetch", Patterns: []string{a.URL}, Always: []string{"*"}, Metadata: metadata})
		if err != nil {
			return nil, err
		}
	}
	timed, cancel := context.WithTimeoutCause(ctx, a.timeout(), errTimeout)
	defer cancel()
	contentType, body, err := get(timed, cfg.Dial, u, a.Format)
	if err != nil {
		return nil, explain(ctx, timed, u, err)
	}
	res := &sandbox.ToolResult{Title: a.URL + " (" + contentType + ")", Metadata: map[string]any{"truncated": false}}
	mime, _, _ := strings.Cut(contentType, ";")
	mime = strings.ToLower(strings.TrimSpace(mime))
	if isImage(mime) {
		res.Output = "Image fetched successfully"
		res.Attachments = []sandbox.Attachment{{Type: "file", Mime: mime, URL: "data:" + mime + ";base64," + base64.StdEncoding.EncodeToString(body)}}
		return res, nil
	}
	text := strings.TrimPrefix(strings.ToValidUTF8(string(body), "\uFFFD"), "\uFEFF")
	if strings.Contains(contentType, "text/html") && a.Format != "html" {
		convert := plain
		if a.Format == "markdown" {
			convert = markdown
		}
		if text, err = convert(timed, text); err != nil {
			return nil, explain(ctx, timed, u, err)
		}
	}
	res.Output, res.Metadata["truncated"] = shorten(ctx, cfg.Keep, text)
	return res, nil
}

// isImage tells what a model is shown as a picture; an SVG is text.
func isImage(mime string) bool {
	return strings.HasPrefix(mime, "image/") && mime != "image/svg+xml" && mime != "image/vnd.fastbidsheet"
}

var errTimeout = errors.New("the time for the request is over")

// get fetches, and follows redirects. Each fetch has connections of its own.
func get(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), u *url.URL, format string) (contentType string, body []byte, err error) {
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeaders, TLSHandshakeTimeout: 20 * time.Second}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return failf(sandbox.CodeToolFailed, "The page leads on and on: more than %d redirects.", maxRedirects)
		}
		if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
			return failf(sandbox.CodeToolFailed, "The page leads to %.100q, which is no page.", req.URL.Scheme+":")
		}
		return nil
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", nil, err
	}
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) tongs-webfetch")
	req.Header.Set("Accept", accept[format])
	req.Header.Set("Accept-Language", "en-US,en;q=0.9")
	resp, err := client.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return "", nil, failf(sandbox.CodeToolFailed, "StatusCode: non 2xx status code (%d GET %s)", resp.StatusCode, u)
	}
	if resp.ContentLength > MaxBytes {
		return "", nil, errTooLarge()
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, MaxBytes+1))
	if err != nil {
		return "", nil, err
	}
	if len(body) > MaxBytes {
		return "", nil, errTooLarge()
	}
	contentType = strings.ToValidUTF8(resp.Header.Get("Content-Type"), "\uFFFD")
	return contentType[:min(len(contentType), maxContentType)], body, nil
}

func errTooLarge() error {
	return failf(sandbox.CodeFileTooLarge, "Response too large (exceeds 5MB limit)")
}

// explain words why a fetch failed.
func explain(ctx, timed context.Context, u *url.URL, err error) error {
	var known *sandbox.Error
	switch {
	case ctx.Err() != nil:
		return &sandbox.Error{Code: sandbox.CodeAborted, Op: "tool webfetch", Message: "Tool execution aborted", Err: ctx.Err()}
	case timed.Err() != nil:
		return &sandbox.Error{Code: sandbox.CodeTimeout, Op: "tool webfetch", Message: "Request timed out", Err: err}
	case errors.As(err, &known) && known.Code == sandbox.CodePermissionDenied:
		return &sandbox.Error{Code: known.Code, Op: "tool webfetch", Message: "Cannot fetch from " + u.Host + ": " + known.Message + ".", Hint: known.Hint, Err: err}
	case errors.As(err, &known):
		return known
	}
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return &sandbox.Error{Code: sandbox.CodeToolFailed, Op: "tool webfetch", Message: fmt.Sprintf("Cannot fetch from %s: %s", u.Host, strconv.QuoteToGraphic(err.Error())), Err: err}
}

func failf(code sandbox.Code, format string, args ...any) error {
	return &sandbox.Error{Code: code, Op: "tool webfetch", Message: strings.ToValidUTF8(fmt.Sprintf(format, args...), "\uFFFD")}
}
