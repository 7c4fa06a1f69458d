package capnweb

import (
	"slices"
	"strconv"
)

func sortedKeys(m map[string][]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// media evaluates the forms of streams, blobs and the types of fetch.
func (ev *evaluator) media(n int32, depth int) (any, error) {
	d := ev.d
	nd := &d.nodes[n]
	arg := d.nodes[nd.first].next
	switch d.text(nd.first) {
	case "url":
		if nd.count == 2 && d.isString(arg) {
			return URL(d.text(arg)), nil
		}
	case "headers":
		if nd.count == 2 && d.nodes[arg].kind == kindArray {
			return ev.headers(arg)
		}
	case "request":
		if nd.count == 3 && d.isString(arg) && d.nodes[d.nodes[arg].next].kind == kindObject {
			return ev.request(d.text(arg), d.nodes[arg].next, depth)
		}
	case "response":
		if nd.count == 3 && d.nodes[d.nodes[arg].next].kind == kindObject {
			return ev.response(arg, depth)
		}
	case "blob":
		if nd.count == 3 && d.isString(arg) {
			v, err := ev.value(d.nodes[arg].next, depth+1)
			if err != nil {
				return nil, err
			}
			s, ok := v.(*ReadableStream)
			if !ok {
				return nil, typeErrorf("Blob content must be serialized as a ReadableStream.")
			}
			ev.p.pending++
			ev.p.blobs = true
			return &Blob{Type: d.text(arg), body: s}, nil
		}
	case "writable":
		if id, ok := ev.id(arg); ok {
			s, err := ev.scope.writable(id)
			if err != nil {
				return nil, err
			}
			return ev.p.addSink(s), nil
		}
	case "readable":
		if id, ok := ev.id(arg); ok {
			s, err := ev.scope.readable(id)
			if err != nil {
				return nil, err
			}
			return ev.p.addStream(s), nil
		}
	case "remap":
		return ev.remap(n)
	}
	return nil, ev.unknown(n)
}

func (ev *evaluator) headers(n int32) (Headers, error) {
	d := ev.d
	out := Headers{}
	for c := d.nodes[n].first; c >= 0; c = d.nodes[c].next {
		pair := &d.nodes[c]
		if pair.kind != kindArray || pair.count != 2 || !d.isString(pair.first) || !d.isString(d.nodes[pair.first].next) {
			return nil, typeErrorf("Headers must be pairs of strings: %s", clip(d.raw(c)))
		}
		out = append(out, [2]string{lower(d.text(pair.first)), d.text(d.nodes[pair.first].next)})
	}
	return out, nil
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// init splits an init object into its headers, its body's node and the rest, for
// which take is asked first.
func (ev *evaluator) init(n int32, take func(name string, v int32) bool) (h Headers, rest Object, err error) {
	d := ev.d
	for c := d.nodes[n].first; c >= 0; {
		name, v := d.text(c), d.nodes[c].next
		c = d.nodes[v].next
		switch {
		case take(name, v) || onPrototype(name) || name == "toJSON":
		case name == "headers":
			if d.nodes[v].kind == kindNull {
				continue
			}
			if d.nodes[v].kind != kindArray {
				return nil, nil, typeErrorf("Request headers must be serialized as an array of pairs.")
			}
			if h, err = ev.headers(v); err != nil {
				return nil, nil, err
			}
		default:
			rest = append(rest, Member{name, d.literalValue(v)})
		}
	}
	return h, rest, nil
}

func (ev *evaluator) body(n int32, depth int, what string) (any, error) {
	v, err := ev.value(n, depth+1)
	if err != nil {
		return nil, err
	}
	switch v.(type) {
	case nil, string, []byte, *ReadableStream:
		return v, nil
	}
	return nil, typeErrorf("%s body must be of type ReadableStream.", what)
}

func (ev *evaluator) request(url string, init int32, depth int) (any, error) {
	d := ev.d
	r := &Request{URL: url}
	body := int32(-1)
	var err error
	r.Headers, r.Init, err = ev.init(init, func(name string, v int32) bool {
		switch {
		case name == "method" && d.isString(v):
			r.Method = d.text(v)
		case name == "body":
			body = v
		case name == "signal" || name == "duplex":
		default:
			return false
		}
		return true
	})
	if err == nil && body >= 0 {
		r.Body, err = ev.body(body, depth, "Request")
	}
	return r, err
}

func (ev *evaluator) response(arg int32, depth int) (any, error) {
	d := ev.d
	r := &Response{Status: 200}
	var err error
	if r.Body, err = ev.body(arg, depth, "Response"); err != nil {
		return nil, err
	}
	socket := false
	r.Headers, r.Init, err = ev.init(d.nodes[arg].next, func(name string, v int32) bool {
		switch {
		case name == "status" && d.nodes[v].kind == kindNumber:
			i, _ := d.integer(v)
			r.Status = int(i)
		case name == "statusText" && d.isString(v):
			r.StatusText = d.text(v)
		case name == "webSocket":
			socket = d.nodes[v].kind != kindNull
		default:
			return false
		}
		return true
	})
	if err == nil && socket {
		err = typeErrorf("Can't deserialize a Response containing a webSocket.")
	}
	if err == nil && (r.Status < 200 || r.Status > 599) {
		err = &Error{Name: "RangeError", Message: "Response status must be from 200 to 599."}
	}
	return r, err
}

// media writes streams, blobs and the types of fetch.
func (e *encoder) media(v any, depth int) error {
	switch x := v.(type) {
	case *ReadableStream:
		entry := e.pipes[x]
		if entry == nil {
			return errStreamGone
		}
		e.lit(`["readable",`)
		e.b = strconv.AppendInt(e.b, entry.id, 10)
		e.lit("]")
	case *WritableStream:
		return e.writable(x)
	case *Blob:
		e.lit(`["blob",`)
		e.b = append(appendString(e.b, x.Type), ',')
		if err := e.media(x.body, depth); err != nil {
			return err
		}
		e.lit("]")
	case Headers:
		e.lit(`["headers",`)
		e.headers(x)
		e.lit("]")
	case *Request:
		return e.request(x, depth)
	case *Response:
		return e.response(x, depth)
	default:
		return typeErrorf("Cannot serialize value: %T", v)
	}
	return nil
}

func (e *encoder) writable(x *WritableStream) error {
	t := x.take()
	if t == nil {
		return errStreamGone
	}
	if e.s.opts.batch {
		e.lost = append(e.lost, t.core.h)
		return plainErrorf("streams and blobs cannot travel in an HTTP batch: use a WebSocket")
	}
	id, err := e.s.export(t.core.h)
	if err != nil {
		e.lost = append(e.lost, t.core.h)
		return err
	}
	e.made = append(e.made, id)
	e.lit(`["writable",`)
	e.b = strconv.AppendInt(e.b, id, 10)
	e.lit("]")
	return nil
}

func (e *encoder) headers(h Headers) {
	e.lit("[")
	for i, f := range h {
		if i > 0 {
			e.lit(",")
		}
		e.lit("[")
		e.b = append(appendString(e.b, lower(f[0])), ',')
		e.b = appendString(e.b, f[1])
		e.lit("]")
	}
	e.lit("]")
}

// initWriter writes the members of an init object.
type initWriter struct {
	e *encoder
	n int
}

func (w *initWriter) name(s string) {
	if w.n > 0 {
		w.e.lit(",")
	}
	w.n++
	w.e.b = append(appendString(w.e.b, s), ':')
}

func (w *initWriter) rest(h Headers, init Object) error {
	if len(h) > 0 {
		w.name("headers")
		w.e.headers(h)
	}
	for _, m := range init {
		w.name(m.Key)
		b, err := appendPlainJSON(w.e.b, m.Value)
		if err != nil {
			return err
		}
		w.e.b = b
	}
	return nil
}

func (e *encoder) request(x *Request, depth int) error {
	e.lit(`["request",`)
	e.b = append(appendString(e.b, x.URL), ',', '{')
	w := initWriter{e: e}
	if x.Method != "" && x.Method != "GET" {
		w.name("method")
		e.b = appendString(e.b, x.Method)
	}
	if err := w.rest(x.Headers, x.Init); err != nil {
		return err
	}
	if x.Body != nil {
		w.name("body")
		if err := e.value(x.Body, depth+1); err != nil {
			return err
		}
		w.name("duplex")
		e.lit(`"half"`)
	}
	e.lit("}]")
	return nil
}

func (e *encoder) response(x *Response, depth int) error {
	e.lit(`["response",`)
	if err := e.value(x.Body, depth+1); err != nil {
		return err
	}
	e.lit(",{")
	w := initWriter{e: e}
	if x.Status != 0 && x.Status != 200 {
		w.name("status")
		e.b = strconv.AppendInt(e.b, int64(x.Status), 10)
	}
	if x.StatusText != "" {
		w.name("statusText")
		e.b = appendString(e.b, x.StatusText)
	}
	if err := w.rest(x.Headers, x.Init); err != nil {
		return err
	}
	e.lit("}]")
	return nil
}

// receivePipe opens a pipe for the peer to write to.
func (s *Session) receivePipe() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if len(s.exports) >= s.limits.MaxExports {
		return limitf("Too many exports on this session (limit %d).", s.limits.MaxExports)
	}
	p := newPipe(s, s.limits.MaxPipeBytes)
	s.exports[s.nextIn] = &export{h: p, refs: 1, pipe: newReadable(p)}
	s.nextIn++
	return nil
}

// readable implements scope.
func (s *Session) readable(id int64) (*ReadableStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exports[id]
	if x == nil || x.pipe == nil {
		return nil, plainErrorf("Export %d is not a pipe or its readable end was already consumed.", id)
	}
	r := x.pipe
	x.pipe = nil
	return r, nil
}

// writable implements scope.
func (s *Session) writable(id int64) (*WritableStream, error) {
	h, err := s.introduce(id, false)
	if err != nil {
		return nil, err
	}
	return &WritableStream{core: &writeCore{h: h}}, nil
}

// stream sends a call of a stream's method, whose result comes without being
// asked for. It returns the size of the message.
func (s *Session) stream(e *importEntry, method string, args *payload, done func(error)) int {
	args.prepare(s)
	for {
		s.mu.Lock()
		if err := e.unusable(); err != nil {
			s.mu.Unlock()
			args.close()
			done(err)
			return 0
		}
		if args.ready(s) {
			break
		}
		s.mu.Unlock()
		args.prepare(s)
	}
	enc := &encoder{s: s}
	err := enc.streams(args)
	enc.begin()
	start := len(enc.b)
	if err == nil && len(s.imports) >= s.limits.MaxImports {
		err = limitf("Too many imports on this session (limit %d).", s.limits.MaxImports)
	}
	if err == nil {
		err = enc.push("stream", e.id, []key{{name: method}}, args)
	}
	if err != nil {
		hooks := s.undo(enc)
		s.mu.Unlock()
		for _, h := range hooks {
			h.close()
		}
		enc.dropPipes()
		args.close()
		done(err)
		return 0
	}
	size := len(enc.b) - start
	r := &importEntry{s: s, id: s.nextOut, remote: 1, promise: true, pulled: true, stream: true}
	r.waiters = []waiter{{f: func(p *payload, err error) {
		p.close()
		done(err)
	}}}
	s.nextOut++
	s.imports[r.id] = r
	s.expect(r)
	s.out.kickers++
	s.commit(enc)
	s.mu.Unlock()
	s.kick(true, false)
	enc.after(args)
	args.recycle()
	args.close()
	return size
}
