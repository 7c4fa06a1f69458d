package surface

import (
	"net"
	"sync"
)

// duplex is a connection whose two directions end by themselves.
type duplex struct {
	conn net.Conn
	mu   sync.Mutex
	open int
}

func (d *duplex) leave() error {
	d.mu.Lock()
	d.open--
	last := d.open == 0
	d.mu.Unlock()
	if last {
		return d.conn.Close()
	}
	return nil
}

type duplexReader duplex

func (r *duplexReader) Read(p []byte) (int, error) { return r.conn.Read(p) }

// Close ends the whole connection: nobody would notice what still comes.
func (r *duplexReader) Close() error {
	_ = r.conn.Close()
	return (*duplex)(r).leave()
}

type duplexWriter duplex

func (w *duplexWriter) Write(p []byte) (int, error) { return w.conn.Write(p) }

func (w *duplexWriter) Close() error {
	if c, ok := w.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	return (*duplex)(w).leave()
}

func (w *duplexWriter) CloseWithError(error) error {
	_ = w.conn.Close()
	return (*duplex)(w).leave()
}
