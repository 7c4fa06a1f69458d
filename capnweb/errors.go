package capnweb

import (
	"context"
	"errors"
	"fmt"
)

// ErrDisconnected is matched, through errors.Is, by every error that says the
// session is over (the line broke, a peer aborted, Close was called), and by no
// error that a peer returned from a call.
var ErrDisconnected = errors.New("capnweb: session is over")

// ErrClosed is matched by the error of using a stub or promise after its Close.
var ErrClosed = errors.New("capnweb: reference used after it was closed")

// ErrLimit is matched by the error of exceeding one of the [Limits].
var ErrLimit = errors.New("capnweb: limit exceeded")

// Error is a JavaScript Error as it travels: what a peer threw, or what a
// method here returns to be thrown there. Everything in it is sent to the
// peer, except Stack, which only an error hook adds ([WithErrorHook]).
type Error struct {
	// Name is the class: Error, TypeError, RangeError, … Empty means Error.
	Name    string
	Message string
	// Stack is the peer's stack trace, if it sent one.
	Stack string
	// Props are the error's own properties, such as code.
	Props Object
	// Cause is the error's cause: an error, any other value, or nil.
	Cause any
	// Errors are the parts of an AggregateError.
	Errors []any

	// thrown is set when the peer threw something that is not an Error.
	thrown    any
	hasThrown bool
}

// Thrown makes an error of a value that is not an Error, as `throw "text"` does
// in JavaScript. The peer sees the bare value.
func Thrown(v any) *Error {
	return &Error{thrown: v, hasThrown: true}
}

// ThrownValue returns the value that was thrown, if it was not an Error.
func (e *Error) ThrownValue() (any, bool) { return e.thrown, e.hasThrown }

func (e *Error) Error() string {
	if e.hasThrown {
		return fmt.Sprintf("thrown value: %v", plain(e.thrown))
	}
	if e.Name == "" || e.Name == "Error" {
		return e.Message
	}
	return e.Name + ": " + e.Message
}

// Unwrap returns the causes that are errors.
func (e *Error) Unwrap() []error {
	var list []error
	if c, ok := e.Cause.(error); ok {
		list = append(list, c)
	}
	for _, x := range e.Errors {
		if c, ok := x.(error); ok {
			list = append(list, c)
		}
	}
	return list
}

// Code returns the property named code when it is a string.
func (e *Error) Code() string {
	c, _ := e.Props.Get("code")
	s, _ := c.(string)
	return s
}

// Is reports equality of name and message, so that a decoded error can be
// compared with errors.Is against a package-level *Error.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	if !ok {
		return false
	}
	return e.Name == t.Name && e.Message == t.Message && e.Code() == t.Code()
}

// WireError is implemented by errors that choose how they travel.
type WireError interface {
	error
	// RPCError returns what the peer shall see. It must not be nil.
	RPCError() *Error
}

func typeErrorf(format string, args ...any) *Error {
	return &Error{Name: "TypeError", Message: fmt.Sprintf(format, args...)}
}

func plainErrorf(format string, args ...any) *Error {
	return &Error{Name: "Error", Message: fmt.Sprintf(format, args...)}
}

// toWire makes the *Error that stands for err on the wire.
func toWire(err error) *Error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // the outermost error is meant
		return e
	}
	var w WireError
	if errors.As(err, &w) {
		if e := w.RPCError(); e != nil {
			return e
		}
	}
	var broken *brokenError
	if errors.As(err, &broken) {
		return plainErrorf("%s", broken.reasonText())
	}
	var e *Error
	if errors.As(err, &e) {
		// Keep what was decided about the inner error, say what the outer one says.
		return &Error{Name: e.Name, Message: err.Error(), Props: e.Props, Cause: e.Cause, Errors: e.Errors}
	}
	return plainErrorf("%s", err.Error())
}

// brokenError is what every call on a dead session fails with.
type brokenError struct{ reason error }

func (e *brokenError) Error() string { return "capnweb: session is over: " + e.reasonText() }

func (e *brokenError) reasonText() string {
	if e.reason == nil {
		return "closed"
	}
	return e.reason.Error()
}

func (e *brokenError) Is(target error) bool { return target == ErrDisconnected }
func (e *brokenError) Unwrap() error        { return e.reason }

func broken(reason error) error {
	var b *brokenError
	if errors.As(reason, &b) {
		return b
	}
	return &brokenError{reason: reason}
}

// limitError is a limit that was exceeded.
type limitError struct{ msg string }

func (e *limitError) Error() string        { return e.msg }
func (e *limitError) Is(target error) bool { return target == ErrLimit }
func (e *limitError) RPCError() *Error     { return &Error{Name: "TypeError", Message: e.msg} }

func limitf(format string, args ...any) error {
	return &limitError{msg: fmt.Sprintf(format, args...)}
}

var (
	errPromiseClosed = &closedError{"RPC was canceled because the RpcPromise was disposed."}
	errStubClosed    = &closedError{"Attempted to use an RPC StubHook after it was disposed."}
	errNoMain        = &Error{Name: "Error", Message: "This connection has no main object."}
)

type closedError struct{ msg string }

func (e *closedError) Error() string        { return e.msg }
func (e *closedError) Is(target error) bool { return target == ErrClosed || target == context.Canceled }
func (e *closedError) RPCError() *Error     { return &Error{Name: "Error", Message: e.msg} }

var (
	errTooDeep  = limitf("JSON is nested too deeply.")
	errNotReady = plainErrorf("capnweb: a property was passed that cannot be read")
)
