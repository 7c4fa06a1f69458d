package httprpc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/tongs-dev/tongs/capnweb"
)

// RequestOf makes a fetch Request of an outgoing or incoming HTTP request. Its
// body is streamed; passing the result gives the body away. An incoming request's URL is
// completed from its Host.
func RequestOf(r *http.Request) *capnweb.Request {
	u := *r.URL
	if u.Host == "" {
		u.Host = r.Host
		u.Scheme = "http"
		if r.TLS != nil {
			u.Scheme = "https"
		}
	}
	out := &capnweb.Request{URL: u.String(), Method: r.Method, Headers: capnweb.HeadersOf(r.Header)}
	if r.Body != nil && r.Body != http.NoBody {
		out.Body = capnweb.NewReader(r.Body)
	}
	return out
}

// HTTPRequest makes an outgoing HTTP request of a fetch Request, whose body it
// takes over. Its redirect, cache and similar settings are for the caller to heed.
func HTTPRequest(ctx context.Context, r *capnweb.Request) (*http.Request, error) {
	body, err := bodyOf(r.Body)
	if err != nil {
		return nil, err
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	out, err := http.NewRequestWithContext(ctx, method, r.URL, body)
	if err != nil {
		return nil, err
	}
	out.Header = r.Headers.Map()
	return out, nil
}

// ResponseOf makes a fetch Response of an HTTP response. Its body is streamed.
func ResponseOf(r *http.Response) *capnweb.Response {
	out := &capnweb.Response{Status: r.StatusCode, Headers: capnweb.HeadersOf(r.Header)}
	if _, text, ok := strings.Cut(r.Status, " "); ok {
		out.StatusText = text
	}
	if r.Body != nil && r.Body != http.NoBody {
		out.Body = capnweb.NewReader(r.Body)
	}
	return out
}

// HTTPResponse makes an HTTP response of a fetch Response, whose body it takes
// over: it is to be read to its end or closed.
func HTTPResponse(r *capnweb.Response) (*http.Response, error) {
	body, err := bodyOf(r.Body)
	if err != nil {
		return nil, err
	}
	status := r.Status
	if status == 0 {
		status = http.StatusOK
	}
	text := r.StatusText
	if text == "" {
		text = http.StatusText(status)
	}
	out := &http.Response{
		StatusCode: status, Status: fmt.Sprintf("%d %s", status, text),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: r.Headers.Map(), ContentLength: -1, Body: http.NoBody,
	}
	switch b := body.(type) {
	case nil:
		out.ContentLength = 0
	case io.ReadCloser:
		out.Body = b
	default:
		out.Body = io.NopCloser(b)
		if l, ok := b.(interface{ Len() int }); ok {
			out.ContentLength = int64(l.Len())
		}
	}
	return out, nil
}

func bodyOf(v any) (io.Reader, error) {
	switch b := v.(type) {
	case nil:
		return nil, nil
	case string:
		return strings.NewReader(b), nil
	case []byte:
		return bytes.NewReader(b), nil
	case *capnweb.ReadableStream:
		return b.Keep(), nil
	}
	return nil, fmt.Errorf("httprpc: a body cannot be a %T", v)
}
