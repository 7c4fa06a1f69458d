package capnweb

import "reflect"

// Headers are HTTP header fields in order, names in lower case.
type Headers [][2]string

func (p *payload) copyMedia(v any) any { return v }
func kindNameMedia(v any) string       { return "value" }

func (b *builder) media(v any) (any, bool, error) { return nil, false, nil }
func (d *decoder) media(v any) any                { return v }
func (d *decoder) storeMedia(v any, rv reflect.Value, at string) (bool, error) {
	return false, nil
}

type ReadableStream struct{}

func (*ReadableStream) dropUnused() {}

type WritableStream struct{}

func (*WritableStream) dropUnused() {}

type Blob struct{}

func (*Blob) arriving() bool               { return false }
func (*Blob) collect(*Limits, func(error)) {}

type mapping struct{}

func (m *mapping) close() {}

func (e errorHook) none() {}

func (h *valueHook) remap(path []key, m *mapping) hook   { return nil }
func (t *Target) remap(path []key, m *mapping) hook      { return nil }
func (e *importEntry) remap(path []key, m *mapping) hook { return nil }
func (e *methodHook) remap(path []key, m *mapping) hook  { return nil }

func (ev *evaluator) media(n int32, depth int) (any, error)     { return nil, ev.unknown(n) }
func (e *encoder) media(v any, depth int) error                 { return typeErrorf("Cannot serialize value: %T", v) }
func (e *encoder) streams(p *payload) error                     { return nil }
func (e *encoder) flow(p *payload)                              {}
func (e *encoder) remap(id int64, path []key, m *mapping) error { return nil }
func (s *Session) receivePipe() error                           { return nil }
func (s *Session) readable(id int64) (*ReadableStream, error)   { return nil, nil }
func (s *Session) writable(id int64) (*WritableStream, error)   { return nil, nil }
