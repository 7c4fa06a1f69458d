package surface

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/sandbox"
)

// answerTimeout bounds how long a server in the sandbox may take for the head of its
// answer. The body may take any time.
const answerTimeout = 10 * time.Minute

// portHeader names the port of a fetch.
const portHeader = "cf-container-target-port"

var fetchMethods = capnweb.Methods{
	"fetch":          guarded("port.fetch", "", (*box).fetch),
	"containerFetch": guarded("port.fetch", "", (*box).containerFetch),
	"wsConnect":      guarded("port.connect", "", (*box).wsConnect),
}

// fetch sends a request to the port that its header cf-container-target-port names, or else its URL.
func (b *box) fetch(ctx context.Context, request any, init *requestInit) (*capnweb.Response, error) {
	const op = "fetch"
	r, err := requestOf(op, request, init)
	if err != nil {
		return nil, err
	}
	port := r.Headers.Get(portHeader)
	if port == "" {
		u, err := url.Parse(r.URL)
		if err != nil {
			return nil, invalid(op, "the URL can't be read: "+err.Error(), "")
		}
		if port = u.Port(); port == "" {
			return nil, sandbox.Errf(sandbox.CodeInvalidPort, op, "the request names no port", "write it in the URL, or use containerFetch(request, port)")
		}
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, sandbox.Errf(sandbox.CodeInvalidPort, op, clipped(port)+" is not a port", "ports are 1 to 65535")
	}
	return b.send(ctx, r, n)
}

// containerFetch is containerFetch(request, port) or containerFetch(url, init, port).
func (b *box) containerFetch(ctx context.Context, request any, rest ...any) (*capnweb.Response, error) {
	const op = "fetch"
	var init *requestInit
	port := -1
	for i, x := range rest {
		switch x := x.(type) {
		case float64:
			port = int(x)
		case map[string]any:
			if i > 0 {
				break
			}
			var err error
			if init, err = initOf(op, x); err != nil {
				return nil, err
			}
		}
	}
	if port == -1 {
		return b.fetch(ctx, request, init)
	}
	r, err := requestOf(op, request, init)
	if err != nil {
		return nil, err
	}
	return b.send(ctx, r, port)
}

// requestInit is the second argument of fetch.
type requestInit struct {
	Method  string            `json:"method"`
	Headers map[string]string `json:"headers"`
	Body    any               `json:"body"`
}

func initOf(op string, x map[string]any) (*requestInit, error) {
	init := &requestInit{Body: x["body"]}
	init.Method, _ = x["method"].(string)
	switch h := x["headers"].(type) {
	case nil:
	case capnweb.Headers:
		init.Headers = map[string]string{}
		for _, f := range h {
			init.Headers[f[0]] = f[1]
		}
	case map[string]any:
		init.Headers = map[string]string{}
		for name, v := range h {
			s, ok := v.(string)
			if !ok {
				return nil, invalid(op, "the header "+clipped(name)+" is no text", "")
			}
			init.Headers[name] = s
		}
	default:
		return nil, invalid(op, "the headers are neither an object nor Headers", "")
	}
	return init, nil
}

func requestOf(op string, request any, init *requestInit) (*capnweb.Request, error) {
	var r *capnweb.Request
	switch x := request.(type) {
	case *capnweb.Request:
		return x, nil
	case string:
		r = &capnweb.Request{URL: x}
	case capnweb.URL:
		r = &capnweb.Request{URL: string(x)}
	default:
		return nil, invalid(op, "the request is neither a Request nor a URL", "")
	}
	if init != nil {
		r.Method, r.Body = init.Method, init.Body
		for name, value := range init.Headers {
			r.Headers = append(r.Headers, [2]string{name, value})
		}
	}
	return r, nil
}

// transport speaks HTTP to one port of the sandbox, once.
func (b *box) transport(port int) *http.Transport {
	return &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return b.DialPort(ctx, port) },
		DisableKeepAlives: true, DisableCompression: true, ResponseHeaderTimeout: answerTimeout,
		MaxResponseHeaderBytes: 1 << 20,
	}
}

// send sends a request and gives the answer as it is: redirects are not followed.
func (b *box) send(ctx context.Context, r *capnweb.Request, port int) (*capnweb.Response, error) {
	const op = "fetch"
	// The body of the answer outlives the call.
	all, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	request, err := b.request(all, r, port)
	if err != nil {
		cancel()
		return nil, err
	}
	if request.Header.Get("Upgrade") != "" {
		cancel()
		return nil, sandbox.Errf(sandbox.CodeNotSupported, op, "a WebSocket cannot be opened by a fetch here", "use wsConnect")
	}
	answer, err := b.transport(port).RoundTrip(request)
	if err != nil {
		stop()
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if sandbox.CodeOf(err) != "" {
			return nil, err
		}
		return nil, &sandbox.Error{Code: sandbox.CodeServiceNotResponding, Op: op, Message: fmt.Sprintf("port %d did not answer in HTTP: %v", port, err), Hint: "look at the logs of the process that serves it", Err: err}
	}
	stop()
	answer.Body = &lastBody{answer.Body, cancel}
	return httprpc.ResponseOf(answer), nil
}

func (b *box) request(ctx context.Context, r *capnweb.Request, port int) (*http.Request, error) {
	const op = "fetch"
	if port < 1 || port > 65535 {
		return nil, sandbox.Errf(sandbox.CodeInvalidPort, op, strconv.Itoa(port)+" is not a port", "ports are 1 to 65535")
	}
	request, err := httprpc.HTTPRequest(ctx, r)
	if err != nil {
		return nil, invalid(op, "the request can't be sent: "+err.Error(), "")
	}
	request.URL.Scheme, request.URL.User = "http", nil
	request.URL.Host = "localhost:" + strconv.Itoa(port)
	request.Host = request.URL.Host
	request.Header.Del(portHeader)
	return request, nil
}

// lastBody ends the request's context with its answer.
type lastBody struct {
	rc interface {
		Read([]byte) (int, error)
		Close() error
	}
	cancel func()
}

func (l *lastBody) Read(p []byte) (int, error) { return l.rc.Read(p) }

func (l *lastBody) Close() error {
	defer l.cancel()
	return l.rc.Close()
}
