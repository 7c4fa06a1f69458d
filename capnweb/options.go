package capnweb

import (
	"context"
	"time"
)

// Limits bound what a peer can make a session hold. A zero field means its default.
type Limits struct {
	// MaxMessageBytes is the length of one incoming message: 32 MiB. Exceeding it ends the session.
	MaxMessageBytes int
	// MaxDepth is how deep an incoming value may be nested: 256. Exceeding it ends the session.
	MaxDepth int
	// MaxBigIntDigits is the length of an incoming bigint in decimal: 16384. Exceeding it ends the session.
	MaxBigIntDigits int
	// MaxImports and MaxExports are the sizes of the tables of references: 100,000 each.
	// A peer that exceeds them ends the session; a call of ours fails.
	MaxImports, MaxExports int
	// MaxCallsInFlight is the number of handlers that run or wait for one peer:
	// 1024. Further calls are rejected.
	MaxCallsInFlight int
	// MaxQueuedBytes is what may wait to be written: 64 MiB. At half of it callers
	// wait; a peer that causes more without reading ends the session.
	MaxQueuedBytes int
	// MaxMapCalls is the number of calls that one map may make: 10,000. Further ones reject the map.
	MaxMapCalls int
	// MaxPipeBytes is what one incoming stream may hold that nobody has read: 16 MiB.
	// Exceeding it breaks the stream.
	MaxPipeBytes int
	// MaxBlobBytes is the size of one incoming blob: 64 MiB. Exceeding it rejects what it came with.
	MaxBlobBytes int
}

var defaultLimits = Limits{
	MaxMessageBytes:  32 << 20,
	MaxDepth:         256,
	MaxBigIntDigits:  16384,
	MaxImports:       100_000,
	MaxExports:       100_000,
	MaxCallsInFlight: 1024,
	MaxQueuedBytes:   64 << 20,
	MaxMapCalls:      10_000,
	MaxPipeBytes:     16 << 20,
	MaxBlobBytes:     64 << 20,
}

func (l Limits) withDefaults() Limits {
	set := func(p *int, d int) {
		if *p <= 0 {
			*p = d
		}
	}
	d := defaultLimits
	set(&l.MaxMessageBytes, d.MaxMessageBytes)
	set(&l.MaxDepth, d.MaxDepth)
	set(&l.MaxBigIntDigits, d.MaxBigIntDigits)
	set(&l.MaxImports, d.MaxImports)
	set(&l.MaxExports, d.MaxExports)
	set(&l.MaxCallsInFlight, d.MaxCallsInFlight)
	set(&l.MaxQueuedBytes, d.MaxQueuedBytes)
	set(&l.MaxMapCalls, d.MaxMapCalls)
	set(&l.MaxPipeBytes, d.MaxPipeBytes)
	set(&l.MaxBlobBytes, d.MaxBlobBytes)
	return l
}

type options struct {
	limits     Limits
	ctx        context.Context
	newer      bool
	batch      bool
	eagerGets  bool
	errorHook  func(*Error) *Error
	observer   Observer
	closeGrace time.Duration
}

func defaultOptions() options { return options{closeGrace: 2 * time.Second} }

// Option configures a session.
type Option func(*options)

// WithLimits sets the session's limits; zero fields keep their defaults.
func WithLimits(l Limits) Option { return func(o *options) { o.limits = l } }

// WithContext gives the handlers of the session values to find in their
// contexts, and their cancellation. It does not end the session.
func WithContext(ctx context.Context) Option { return func(o *options) { o.ctx = ctx } }

// WithNewerEncodings lets the session send what peers older than 0.11 do not know:
// typed arrays as such, and URLs. Without it they are sent as plain bytes and text.
func WithNewerEncodings() Option { return func(o *options) { o.newer = true } }

// WithoutStreams makes the session refuse to send streams and blobs, for transports
// on which the peer cannot acknowledge them.
func WithoutStreams() Option { return func(o *options) { o.batch = true } }

// WithEagerGets makes [Stub.Get] and [Promise.Get] send the read of a property of
// the peer's at once, as Call does, for transports on which nothing can be asked later.
// The promises they return are then independent of what they were made from.
func WithEagerGets() Option { return func(o *options) { o.eagerGets = true } }

// WithErrorHook has f see every error before it is sent. What it returns is sent
// instead, with its Stack; when it returns nil, the error is sent as it is, without a stack.
// f is called with the session locked: it must not use the session.
func WithErrorHook(f func(*Error) *Error) Option { return func(o *options) { o.errorHook = f } }

// WithObserver has o told what happens on the session.
func WithObserver(o Observer) Option { return func(opts *options) { opts.observer = o } }

// Observer is told what happens on a session. Its methods are called from the
// session's goroutines and must not block.
type Observer interface {
	// Message is called for each message, after it was written (sent) or before it is
	// handled. The text must not be kept.
	Message(s *Session, sent bool, text []byte)
	// CallEnd is called when a handler has returned.
	CallEnd(s *Session, method string, err error)
	// SessionEnd is called when the session is over, with the reason.
	SessionEnd(s *Session, err error)
}
