package surface

import (
	"cmp"
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// failure is an error in the SDK's shape: its own properties are code, httpStatus,
// context, operation, timestamp and suggestion, which is the hint or the code's advice; beside them
// the contract's own op and hint.
type failure struct {
	err       *sandbox.Error
	operation string
	context   capnweb.Object
	at        time.Time
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func (f *failure) RPCError() *capnweb.Error {
	e := f.err.RPCError()
	if f.context == nil {
		f.context = capnweb.Object{}
	}
	e.Props = append(e.Props,
		capnweb.Member{Key: "httpStatus", Value: f.err.Code.HTTPStatus()},
		capnweb.Member{Key: "operation", Value: f.operation},
		capnweb.Member{Key: "context", Value: f.context},
		capnweb.Member{Key: "timestamp", Value: timestamp(f.at)})
	if todo := cmp.Or(f.err.Hint, f.err.Code.Advice()); todo != "" {
		e.Props = append(e.Props, capnweb.Member{Key: "suggestion", Value: todo})
	}
	return e
}

// asFailure gives an error the SDK's shape. The end of the caller itself stays as it is.
func asFailure(operation string, about capnweb.Object, err error) error {
	var done *failure
	if err == nil || errors.As(err, &done) {
		return err
	}
	err = sandbox.FromWire(operation, err)
	var e *sandbox.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.DeadlineExceeded) {
			e = &sandbox.Error{Code: sandbox.CodeTimeout, Op: operation, Message: "it took too long", Err: err}
		} else {
			return err
		}
	}
	return &failure{err: e, operation: operation, context: about, at: time.Now()}
}

var errorType = reflect.TypeFor[error]()

// guarded wraps a method, a function whose last result is an error, so that
// its errors have the SDK's shape. subject names the first argument that is text: it is
// told in the error's context; "" is none.
func guarded(operation, subject string, f any) any {
	v := reflect.ValueOf(f)
	t := v.Type()
	if n := t.NumOut(); n == 0 || t.Out(n-1) != errorType {
		panic("surface: " + operation + " returns no error")
	}
	return reflect.MakeFunc(t, func(in []reflect.Value) []reflect.Value {
		var out []reflect.Value
		if t.IsVariadic() {
			out = v.CallSlice(in)
		} else {
			out = v.Call(in)
		}
		last := len(out) - 1
		if err, _ := out[last].Interface().(error); err != nil {
			var about capnweb.Object
			for _, arg := range in {
				if subject != "" && arg.Kind() == reflect.String {
					about = capnweb.Object{{Key: subject, Value: clipped(arg.String())}}
					break
				}
			}
			out[last] = reflect.ValueOf(&[]error{asFailure(operation, about, err)}[0]).Elem()
		}
		return out
	}).Interface()
}

// clipped bounds what an error repeats of its caller's words.
func clipped(s string) string {
	const most = 1024
	if len(s) > most {
		return valid([]byte(s[:most])) + "…"
	}
	return s
}

func invalid(op, message, hint string) error {
	return sandbox.Errf(sandbox.CodeInvalidArgument, op, message, hint)
}
