package capnweb

import (
	"context"
	"io"
	"reflect"
	"strings"
)

// Headers are HTTP header fields in order, with names in lower case, as the
// fetch API has them.
type Headers [][2]string

// Get returns the values of a field, joined by commas.
func (h Headers) Get(name string) string {
	var vs []string
	for _, f := range h {
		if strings.EqualFold(f[0], name) {
			vs = append(vs, f[1])
		}
	}
	return strings.Join(vs, ", ")
}

// HeadersOf converts a map of fields such as http.Header, with names in
// alphabetical order.
func HeadersOf(m map[string][]string) Headers {
	var out Headers
	for _, name := range sortedKeys(m) {
		for _, v := range m[name] {
			out = append(out, [2]string{strings.ToLower(name), v})
		}
	}
	return out
}

// Map converts to the form of http.Header.
func (h Headers) Map() map[string][]string {
	m := make(map[string][]string, len(h))
	for _, f := range h {
		k := canonical(f[0])
		m[k] = append(m[k], f[1])
	}
	return m
}

// canonical is the form of a field's name that http.Header uses: Content-Type.
func canonical(name string) string {
	b := []byte(name)
	up := true
	for i, c := range b {
		switch {
		case up && c >= 'a' && c <= 'z':
			b[i] = c - 'a' + 'A'
		case !up && c >= 'A' && c <= 'Z':
			b[i] = c - 'A' + 'a'
		}
		up = c == '-'
	}
	return string(b)
}

// Request is a fetch Request. httprpc converts it to and from net/http's.
type Request struct {
	URL string
	// Method is GET if empty.
	Method  string
	Headers Headers
	// Body is nil, a string, a []byte or a *ReadableStream.
	Body any
	// Init holds the further members of the request's init object, such as
	// redirect or cache, as plain JSON values.
	Init Object
}

// Response is a fetch Response. httprpc converts it to and from net/http's.
type Response struct {
	// Status is 200 if 0.
	Status     int
	StatusText string
	Headers    Headers
	// Body is nil, a string, a []byte or a *ReadableStream.
	Body any
	// Init holds the further members of the response's init object, such as
	// encodeBody, as plain JSON values.
	Init Object
}

// Blob is a piece of bytes with a media type. Blobs always travel as streams, and
// are whole when they are delivered.
type Blob struct {
	Type string
	Data []byte
	body *ReadableStream // a blob that is still arriving
}

// NewBlob makes a blob.
func NewBlob(mediaType string, data []byte) *Blob { return &Blob{Type: mediaType, Data: data} }

func (b *Blob) arriving() bool { return b.body != nil }

// collect reads a blob that is arriving, and calls f with it.
func (b *Blob) collect(l *Limits, f func(*payload, error)) {
	s := b.body.take()
	if s == nil {
		f(nil, errStreamGone)
		return
	}
	go func() {
		data, err := io.ReadAll(io.LimitReader(s, int64(l.MaxBlobBytes)+1))
		if err == nil && len(data) > l.MaxBlobBytes {
			err = limitf("A blob is larger than %d bytes.", l.MaxBlobBytes)
		}
		_ = s.Close()
		if err != nil {
			f(nil, err)
			return
		}
		f(&payload{v: &Blob{Type: b.Type, Data: data}, blobs: true}, nil)
	}()
}

func (p *payload) addStream(s *ReadableStream) *ReadableStream {
	p.streams = append(p.streams, s)
	return s
}

func (p *payload) addSink(s *WritableStream) *WritableStream {
	p.sinks = append(p.sinks, s)
	return s
}

// copyMedia copies what copyValue does not know. A stream moves to the copy.
func (p *payload) copyMedia(v any) any {
	switch x := v.(type) {
	case *ReadableStream:
		return p.addStream(x.orGone())
	case *WritableStream:
		return p.addSink(x.Keep())
	case *Request:
		c := *x
		c.Body = p.copyMedia(x.Body)
		return &c
	case *Response:
		c := *x
		c.Body = p.copyMedia(x.Body)
		return &c
	case *Blob:
		p.blobs = true
		if x.body == nil {
			return x
		}
		p.pending++
		return &Blob{Type: x.Type, body: p.addStream(x.body.orGone())}
	}
	return v
}

func (s *ReadableStream) orGone() *ReadableStream {
	if t := s.take(); t != nil {
		return t
	}
	return newReadable(errorSource{errStreamGone})
}

func kindNameMedia(v any) string {
	switch v.(type) {
	case *Request:
		return "request"
	case *Response:
		return "response"
	case *Blob:
		return "blob"
	case Headers:
		return "headers"
	}
	return "value"
}

// media builds streams, blobs and the types of fetch. A stream is given away.
func (b *builder) media(v any) (any, bool, error) {
	switch x := v.(type) {
	case *ReadableStream:
		if x == nil {
			return nil, true, nil
		}
		s := x.take()
		if s == nil {
			return nil, true, errStreamGone
		}
		return b.p.addStream(s), true, nil
	case *WritableStream:
		if x == nil {
			return nil, true, nil
		}
		s := x.take()
		if s == nil {
			return nil, true, errStreamGone
		}
		return b.p.addSink(s), true, nil
	case *Blob:
		if x == nil {
			return nil, true, nil
		}
		if x.body != nil {
			return nil, true, errStreamGone
		}
		b.p.blobs = true
		return x, true, nil
	case Headers:
		return x, true, nil
	case *Request:
		if x == nil {
			return nil, true, nil
		}
		c := *x
		var err error
		c.Body, err = b.body(x.Body)
		return &c, true, err
	case *Response:
		if x == nil {
			return nil, true, nil
		}
		c := *x
		var err error
		c.Body, err = b.body(x.Body)
		return &c, true, err
	}
	return nil, false, nil
}

func (b *builder) body(v any) (any, error) {
	switch x := v.(type) {
	case nil, string, []byte:
		return v, nil
	case *ReadableStream:
		y, _, err := b.media(x)
		return y, err
	}
	return nil, typeErrorf("a body is nil, a string, a []byte or a *ReadableStream, not %T", v)
}

var (
	readableType   = reflect.TypeFor[*ReadableStream]()
	writableType   = reflect.TypeFor[*WritableStream]()
	blobType       = reflect.TypeFor[*Blob]()
	requestType    = reflect.TypeFor[*Request]()
	responseType   = reflect.TypeFor[*Response]()
	headersType    = reflect.TypeFor[Headers]()
	readerType     = reflect.TypeFor[io.Reader]()
	readCloserType = reflect.TypeFor[io.ReadCloser]()
	writerType     = reflect.TypeFor[io.Writer]()
	writeCloseType = reflect.TypeFor[io.WriteCloser]()
)

// media gives streams and the like to the application: lent, or moved.
func (d *decoder) media(v any) any {
	switch x := v.(type) {
	case *ReadableStream:
		if d.move {
			return x.orGone()
		}
	case *WritableStream:
		if d.move {
			return x.Keep()
		}
	case *Request:
		c := *x
		c.Body = d.media(x.Body)
		return &c
	case *Response:
		c := *x
		c.Body = d.media(x.Body)
		return &c
	case *Blob:
		return &Blob{Type: x.Type, Data: d.bytes(x.Data)}
	}
	return v
}

func (d *decoder) storeMedia(v any, rv reflect.Value, at string) (bool, error) {
	want := ""
	switch rv.Type() {
	case readableType, readerType, readCloserType:
		if x, ok := v.(*ReadableStream); ok {
			rv.Set(reflect.ValueOf(d.media(x)))
			return true, nil
		}
		want = "readable stream"
	case writableType, writerType, writeCloseType:
		if x, ok := v.(*WritableStream); ok {
			rv.Set(reflect.ValueOf(d.media(x)))
			return true, nil
		}
		want = "writable stream"
	case blobType:
		if x, ok := v.(*Blob); ok {
			rv.Set(reflect.ValueOf(d.media(x)))
			return true, nil
		}
		want = "blob"
	case requestType:
		if x, ok := v.(*Request); ok {
			rv.Set(reflect.ValueOf(d.media(x)))
			return true, nil
		}
		want = "request"
	case responseType:
		if x, ok := v.(*Response); ok {
			rv.Set(reflect.ValueOf(d.media(x)))
			return true, nil
		}
		want = "response"
	case headersType:
		if x, ok := v.(Headers); ok {
			rv.Set(reflect.ValueOf(x))
			return true, nil
		}
		want = "headers"
	default:
		return false, nil
	}
	if v == nil || v == any(Undefined) {
		rv.SetZero()
		return true, nil
	}
	return true, mismatch(at, want, v)
}

// streams opens a pipe for each readable stream in p. The session is locked, and
// the frames go out before the message that mentions the pipes.
func (e *encoder) streams(p *payload) error {
	if p == nil {
		return nil
	}
	if p.blobs {
		slotsOfBlobs(p)
	}
	if len(p.streams) == 0 {
		return nil
	}
	s := e.s
	if s.opts.batch {
		return plainErrorf("streams and blobs cannot travel in an HTTP batch: use a WebSocket")
	}
	e.pipes = make(map[*ReadableStream]*importEntry, len(p.streams))
	for _, r := range p.streams {
		if r.gone.Load() {
			continue
		}
		if len(s.imports) >= s.limits.MaxImports {
			return limitf("Too many imports on this session (limit %d).", s.limits.MaxImports)
		}
		entry := &importEntry{s: s, id: s.nextOut, refs: 1, remote: 1}
		s.nextOut++
		s.imports[entry.id] = entry
		s.commit(&encoder{s: s, b: append(s.out.buf, `["pipe"]`...)})
		e.pipes[r] = entry
	}
	return nil
}

// slotsOfBlobs gives each blob in p that is whole a stream to travel in.
func slotsOfBlobs(p *payload) {
	if p.shared {
		p.v, p.shared = p.copyValue(p.v), false
	}
	eachBlob(&p.v, func(v *any, b *Blob) {
		if b.body == nil {
			*v = &Blob{Type: b.Type, body: p.addStream(newReadable(&bytesSource{data: b.Data}))}
		}
	})
}

func eachBlob(v *any, f func(*any, *Blob)) {
	switch x := (*v).(type) {
	case *Blob:
		f(v, x)
	case []any:
		for i := range x {
			eachBlob(&x[i], f)
		}
	case Object:
		for i := range x {
			eachBlob(&x[i].Value, f)
		}
	}
}

// flow starts the streams of a message that is on its way, or drops those of one
// that is not.
func (e *encoder) flow(p *payload) {
	for r, entry := range e.pipes {
		if t := r.take(); t != nil {
			go pump(context.Background(), t, entry)
		} else {
			entry.close()
		}
	}
	e.pipes = nil
}

// dropPipes gives up the pipes of a message that failed.
func (e *encoder) dropPipes() {
	for _, entry := range e.pipes {
		entry.close()
	}
	e.pipes = nil
}
