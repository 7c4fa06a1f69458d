package gateway

import (
	"net/http"
	"time"
)

// stallWriter gives every write to a client a deadline of its own, so that a client
// that does not read ends its connection and holds nothing.
type stallWriter struct {
	http.ResponseWriter
	rc     *http.ResponseController
	limit  time.Duration
	wrote  bool
	status int
}

func newStallWriter(w http.ResponseWriter, limit time.Duration) *stallWriter {
	s := &stallWriter{ResponseWriter: w, rc: http.NewResponseController(w), limit: limit, status: 200}
	s.extend()
	return s
}

// extend is without effect on a writer that has no deadlines, as in tests.
func (s *stallWriter) extend() { _ = s.rc.SetWriteDeadline(time.Now().Add(s.limit)) }

// end leaves time for what the server writes behind the handler.
func (s *stallWriter) end() { s.extend() }

func (s *stallWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		s.wrote, s.status = true, status
	}
	s.extend()
	s.ResponseWriter.WriteHeader(status)
}

func (s *stallWriter) Write(p []byte) (int, error) {
	s.wrote = true
	s.extend()
	return s.ResponseWriter.Write(p)
}

// FlushError is found by http.ResponseController.
func (s *stallWriter) FlushError() error {
	s.wrote = true
	s.extend()
	return s.rc.Flush()
}

// Unwrap lets http.ResponseController reach what is not here, such as Hijack.
func (s *stallWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
