package capnweb_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
)

// Group "Fetch API types over RPC".
func TestFetchOverRPC(t *testing.T) {
	t.Parallel()
	server := func() *capnweb.Target {
		return capnweb.NewTarget(capnweb.Methods{
			"headers": func(h capnweb.Headers) string { return h.Get("Content-Type") + " " + h.Get("x-custom") },
			"request": func(r *capnweb.Request) (string, error) {
				body, err := bodyText(r.Body)
				return r.Method + " " + r.URL + " " + r.Headers.Get("x-custom") + " " + body, err
			},
			"response": func(status int, body any) *capnweb.Response {
				r := &capnweb.Response{Status: status, StatusText: "text", Headers: capnweb.Headers{{"x-custom", "value"}}}
				if s, ok := body.(string); ok {
					r.Body = capnweb.NewReader(strings.NewReader(s))
				}
				return r
			},
		})
	}
	headers := capnweb.Headers{{"content-type", "text/plain"}, {"x-custom", "value"}}
	t.Run("headers", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		want[string](t, "text/plain value")(capnweb.Call[string](h.ctx, h.api, "headers", headers))
	})
	t.Run("a request with a body", func(t *testing.T) {
		t.Parallel()
		for _, body := range []any{"hello", []byte("hello"), capnweb.NewReader(strings.NewReader("hello"))} {
			h := newHarness(t, server())
			want[string](t, "POST http://example.com/ value hello")(capnweb.Call[string](h.ctx, h.api, "request",
				&capnweb.Request{URL: "http://example.com/", Method: "POST", Headers: headers, Body: body}))
		}
	})
	t.Run("a response with a body", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		r, err := capnweb.Call[*capnweb.Response](h.ctx, h.api, "response", 201, "the body")
		if err != nil || r.Status != 201 || r.StatusText != "text" || r.Headers.Get("x-custom") != "value" {
			t.Fatal(r, err)
		}
		want[string](t, "the body")(bodyText(r.Body))
	})
	t.Run("a request without a body", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		want[string](t, "DELETE http://example.com/  ")(capnweb.Call[string](h.ctx, h.api, "request", &capnweb.Request{URL: "http://example.com/", Method: "DELETE"}))
		if n := h.said.count("pipe"); n != 0 {
			t.Errorf("%d pipes were made for no body", n)
		}
	})
	t.Run("a response without a body", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		r, err := capnweb.Call[*capnweb.Response](h.ctx, h.api, "response", 204, nil)
		if err != nil || r.Status != 204 || r.Body != nil {
			t.Error(r, err)
		}
	})
}

func bodyText(body any) (string, error) {
	switch b := body.(type) {
	case string:
		return b, nil
	case []byte:
		return string(b), nil
	case io.Reader:
		text, err := io.ReadAll(b)
		return string(text), err
	}
	return "", nil
}

// Group "Blob over RPC".
func TestBlobOverRPC(t *testing.T) {
	t.Parallel()
	server := func() *capnweb.Target {
		return capnweb.NewTarget(capnweb.Methods{
			"echoBlob": func(b *capnweb.Blob) *capnweb.Blob { return b },
			"payload": func() any {
				return map[string]any{"name": "test.txt", "blob": capnweb.NewBlob("text/plain", []byte("file content")), "size": 12}
			},
			"concatenate": func(a, b *capnweb.Blob) string { return string(a.Data) + "|" + string(b.Data) },
			"several": func() []*capnweb.Blob {
				return []*capnweb.Blob{
					capnweb.NewBlob("text/plain", []byte("first")), capnweb.NewBlob("text/plain", []byte("second")), capnweb.NewBlob("text/plain", []byte("third")),
				}
			},
		})
	}
	echo := func(t *testing.T, kind string, data []byte) {
		t.Helper()
		h := newHarness(t, server())
		b, err := capnweb.Call[*capnweb.Blob](h.ctx, h.api, "echoBlob", capnweb.NewBlob(kind, data))
		if err != nil {
			t.Fatal(err)
		}
		if b.Type != kind || !bytes.Equal(b.Data, data) {
			t.Errorf("%q with %d bytes came back", b.Type, len(b.Data))
		}
	}
	ordered := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i)
		}
		return b
	}
	t.Run("bytes", func(t *testing.T) { t.Parallel(); echo(t, "", []byte{0, 1, 2, 254, 255}) })
	t.Run("the media type", func(t *testing.T) { t.Parallel(); echo(t, "image/png", []byte("x")) })
	t.Run("an empty blob", func(t *testing.T) { t.Parallel(); echo(t, "application/octet-stream", []byte{}) })
	t.Run("in an object", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		v, err := capnweb.Call[struct {
			Name string        `json:"name"`
			Blob *capnweb.Blob `json:"blob"`
			Size int           `json:"size"`
		}](h.ctx, h.api, "payload")
		if err != nil || v.Name != "test.txt" || v.Blob.Type != "text/plain" || string(v.Blob.Data) != "file content" || v.Size != 12 {
			t.Error(v, err)
		}
	})
	t.Run("two in one call", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		want[string](t, "hello|world")(capnweb.Call[string](h.ctx, h.api, "concatenate",
			capnweb.NewBlob("text/plain", []byte("hello")), capnweb.NewBlob("text/plain", []byte("world"))))
	})
	t.Run("three in one result", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		list, err := capnweb.Call[[]*capnweb.Blob](h.ctx, h.api, "several")
		if err != nil || len(list) != 3 || string(list[0].Data) != "first" || string(list[1].Data) != "second" || string(list[2].Data) != "third" {
			t.Error(list, err)
		}
	})
	t.Run("no media type", func(t *testing.T) { t.Parallel(); echo(t, "", []byte("untyped content")) })
	t.Run("every byte", func(t *testing.T) { t.Parallel(); echo(t, "application/octet-stream", ordered(256)) })
	t.Run("a large blob", func(t *testing.T) { t.Parallel(); echo(t, "application/octet-stream", ordered(1<<20)) })
	t.Run("within the process", func(t *testing.T) {
		t.Parallel()
		s := capnweb.NewStub(server())
		defer s.Close()
		b, err := capnweb.Call[*capnweb.Blob](testContext(t), s, "echoBlob", capnweb.NewBlob("text/plain", []byte("loopback content")))
		if err != nil || b.Type != "text/plain" || string(b.Data) != "loopback content" {
			t.Error(b, err)
		}
	})
	t.Run("a result with a blob is dropped", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		p := h.api.Call("payload")
		if err := p.Await(h.ctx, nil); err != nil {
			t.Error(err)
		}
		p.Close()
		h.api.Call("several").Close()
	})
	t.Run("a blob is a pipe on the wire", func(t *testing.T) {
		t.Parallel()
		p := newRawPeer(t, nil)
		call := p.s.Main().Call("receiveBlob", capnweb.NewBlob("text/plain", []byte("hello")))
		p.expect(`["pipe"]`, `["push",["pipeline",0,["receiveBlob"],[["blob","text/plain",["readable",1]]]]]`,
			`["stream",["pipeline",1,["write"],[["bytes","aGVsbG8"]]]]`)
		p.send(`["resolve",3,["undefined"]]`)
		p.expect(`["stream",["pipeline",1,["close"],[]]]`)
		p.send(`["resolve",4,["undefined"]]`)
		p.expect(`["release",1,1]`)
		call.Close()
		p.expect(`["release",2,1]`)
		p.stats(1, 1)
	})
}

// Group "deserialization and transport correctness". The fourth of its cases, the reason in
// WebSocket's close frame, is package httprpc's.
func TestHardening(t *testing.T) {
	t.Parallel()
	inherited := []string{"toString", "valueOf", "hasOwnProperty", "toJSON", "__proto__"}
	t.Run("inherited names in an error's properties", func(t *testing.T) {
		t.Parallel()
		e, ok := received(t, `["error","Error","boom","at test (x:1:1)",{"code":"E_TEST","toString":"nope","valueOf":"nope","hasOwnProperty":"nope","toJSON":"nope","__proto__":{"polluted":true}}]`).(*capnweb.Error)
		if !ok || e.Message != "boom" || e.Code() != "E_TEST" || len(e.Props) != 1 {
			t.Error(e)
		}
		for _, name := range inherited {
			if _, there := e.Props.Get(name); there {
				t.Error(name)
			}
		}
	})
	t.Run("an inherited name as an error's class", func(t *testing.T) {
		t.Parallel()
		for _, name := range append(inherited, "constructor", "isPrototypeOf", "propertyIsEnumerable", "TypeError") {
			e, ok := received(t, `["error","`+name+`","msg",null,{"injected":true}]`).(*capnweb.Error)
			// Names are kept in Go, where they select nothing.
			if !ok || e.Name != name || e.Message != "msg" || len(e.Props) != 1 {
				t.Errorf("%s: %#v", name, e)
			}
		}
	})
	t.Run("the reason of an abort is the error itself", func(t *testing.T) {
		t.Parallel()
		p := newRawPeer(t, nil)
		main := p.s.Main()
		defer main.Close()
		seen := make(chan error, 1)
		main.OnBroken(func(err error) { seen <- err })
		p.send(`["abort",["error","TypeError","bad RPC message: [\"x\"]"]]`)
		var e *capnweb.Error
		if err := soon(t, seen); !errors.As(err, &e) || e.Name != "TypeError" || e.Message != `bad RPC message: ["x"]` || !errors.Is(err, capnweb.ErrDisconnected) {
			t.Error(err)
		}
	})
}
