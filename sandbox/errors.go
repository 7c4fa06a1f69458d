package sandbox

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/tongs-dev/tongs/capnweb"
)

// Error is a failure of something asked of a sandbox. It is the only error
// type that this package's calls return, contexts' own errors apart.
type Error struct {
	Code    Code   // what kind
	Op      string // what was being done: "exec", "read file", …
	Message string // what went wrong, for a person
	Hint    string // what to do about it; may be empty
	Err     error  // the cause, where there is one on this side
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
		b.WriteString(": ")
	}
	switch {
	case e.Message != "":
		b.WriteString(e.Message)
	case e.Err != nil:
		b.WriteString(e.Err.Error())
	default:
		b.WriteString(string(e.Code))
	}
	if e.Hint != "" {
		b.WriteString(" (")
		b.WriteString(e.Hint)
		b.WriteString(")")
	}
	return b.String()
}

// Unwrap gives the cause. A connection that ended too early is never the end of what was read from it:
// its cause does not match io.EOF.
func (e *Error) Unwrap() error {
	if e.Code == CodeConnectionLost && errors.Is(e.Err, io.EOF) {
		return lostCause{e.Err}
	}
	return e.Err
}

// lostCause is an error that matches all that it did, but io.EOF.
type lostCause struct{ err error }

func (l lostCause) Error() string        { return l.err.Error() }
func (l lostCause) Is(target error) bool { return target != io.EOF && errors.Is(l.err, target) }
func (l lostCause) As(target any) bool   { return errors.As(l.err, target) }

// Is makes errors.Is work for the standard library's meanings: fs.ErrNotExist,
// fs.ErrExist, fs.ErrPermission, context.DeadlineExceeded for a command's own
// deadline, and for another *Error with the same Code and nothing else set.
func (e *Error) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e.Code == CodeFileNotFound
	case fs.ErrExist:
		return e.Code == CodeFileExists
	case fs.ErrPermission:
		return e.Code == CodePermissionDenied || e.Code == CodeReadOnly
	case context.DeadlineExceeded:
		return e.Code == CodeTimeout
	}
	var t *Error
	return errors.As(target, &t) && t.Code == e.Code && *t == Error{Code: t.Code}
}

// CodeOf gives the code of an error from this package; "" for any other.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Errf makes an Error from a code, an operation, a message and a hint.
func Errf(code Code, op, message, hint string) *Error {
	return &Error{Code: code, Op: op, Message: message, Hint: hint}
}

// FileError turns what a system call said about a path into an Error. nil stays
// nil, and an *Error stays what it is.
func FileError(op string, err error) error {
	if err == nil {
		return nil
	}
	var done *Error
	if errors.As(err, &done) {
		return done
	}
	e := &Error{Code: CodeFilesystemError, Op: op, Err: err}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		if row, ok := errnos()[errno]; ok {
			e.Code, e.Hint = row.code, row.hint
		}
	}
	e.Message = err.Error()
	// The operation is said already.
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		e.Message = pe.Path + ": " + pe.Err.Error()
	case errors.As(err, &le):
		e.Message = le.Old + " → " + le.New + ": " + le.Err.Error()
	}
	return e
}

var errnos = sync.OnceValue(func() map[syscall.Errno]errnoRow {
	return map[syscall.Errno]errnoRow{
		syscall.ENOENT:       {CodeFileNotFound, ""},
		syscall.EEXIST:       {CodeFileExists, ""},
		syscall.EISDIR:       {CodeIsDirectory, "name a file, or list the directory"},
		syscall.ENOTDIR:      {CodeNotDirectory, ""},
		syscall.ENOTEMPTY:    {CodeDirNotEmpty, "ask for a recursive removal"},
		syscall.EACCES:       {CodePermissionDenied, "the sandbox's user has no right to it"},
		syscall.EPERM:        {CodePermissionDenied, "the sandbox's user has no right to it"},
		syscall.ENOSPC:       {CodeNoSpace, "remove something in the sandbox, or give it more disk"},
		syscall.EDQUOT:       {CodeNoSpace, "remove something in the sandbox, or raise its quota"},
		syscall.EFBIG:        {CodeNoSpace, "the file would pass the sandbox's limit for one file"},
		syscall.EROFS:        {CodeReadOnly, "write under the home directory or /tmp"},
		syscall.ENAMETOOLONG: {CodeNameTooLong, "a name may take 255 bytes, a path 4,095"},
		syscall.ELOOP:        {CodeSymlinkLoop, ""},
		syscall.EMFILE:       {CodeTooManyFiles, "close something and try again"},
		syscall.ENFILE:       {CodeTooManyFiles, "close something and try again"},
		syscall.EXDEV:        {CodeCrossDevice, "copy it, then remove the old one"},
		syscall.EINVAL:       {CodeInvalidPath, ""},
		syscall.ENXIO:        {CodeNotRegular, "only regular files can be read and written"},
		syscall.ENODEV:       {CodeNotRegular, "only regular files can be read and written"},
	}
})

type errnoRow struct {
	code Code
	hint string
}

// RPCError says how the error travels: an Error whose own properties are code,
// op and hint.
func (e *Error) RPCError() *capnweb.Error {
	msg := e.Message
	if msg == "" {
		if msg = string(e.Code); e.Err != nil {
			msg = e.Err.Error()
		}
	}
	props := capnweb.Object{{Key: "code", Value: string(e.Code)}}
	if e.Op != "" {
		props = append(props, capnweb.Member{Key: "op", Value: e.Op})
	}
	if e.Hint != "" {
		props = append(props, capnweb.Member{Key: "hint", Value: e.Hint})
	}
	return &capnweb.Error{Name: "Error", Message: msg, Props: props}
}

var _ capnweb.WireError = (*Error)(nil)

// asError turns any error into an *Error: one from the wire is decoded, a
// broken session is CodeConnectionLost, all else is CodeInternal.
func asError(op string, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, capnweb.ErrDisconnected) {
		return &Error{Code: CodeConnectionLost, Op: op, Message: "the connection to the sandbox broke", Err: err,
			Hint: "connect again; what was running in the sandbox still is"}
	}
	if errors.Is(err, capnweb.ErrClosed) {
		return &Error{Code: CodeConnectionLost, Op: op, Message: "the client is closed", Err: err, Hint: "connect again; what was running in the sandbox still is"}
	}
	var w *capnweb.Error
	if errors.As(err, &w) {
		prop := func(key string) string {
			v, _ := w.Props.Get(key)
			s, _ := v.(string)
			return s
		}
		e := &Error{Code: Code(prop("code")), Op: prop("op"), Message: w.Message, Hint: prop("hint"), Err: err}
		if e.Code == "" {
			e.Code = CodeInternal
		}
		if e.Op == "" {
			e.Op = op
		}
		return e
	}
	return &Error{Code: CodeInternal, Op: op, Message: err.Error(), Err: err}
}

// FromWire decodes an error that a Cap'n Web call returned. Contexts' own
// errors stay as they are, nil stays nil.
func FromWire(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, capnweb.ErrDisconnected), errors.Is(err, capnweb.ErrClosed):
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return asError(op, err)
}
