package driver

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/tongs-dev/tongs/sandbox"
)

// Codes of drivers.
const (
	// CodeNotRunning: the sandbox exists and its guest doesn't run. Start it.
	CodeNotRunning = sandbox.CodeSandboxNotRunning
	// CodeBusy: another process is working on the same sandbox right now.
	CodeBusy = sandbox.CodeSandboxBusy
	// CodeUnsupported: this machine can't run sandboxes this way; the hint says what would change that.
	CodeUnsupported = sandbox.CodeMachineNotSupported
	// CodeNoEgress: this machine can't give a sandbox NetworkEgress.
	CodeNoEgress = sandbox.CodeEgressNotSupported
	// CodeGuestFailed: the guest didn't start or died while it did.
	CodeGuestFailed = sandbox.CodeGuestFailed
)

// Wrap gives a system error of the host a code, the operation and a cure. An error that already is a
// *sandbox.Error or a context's stays what it is, and so does nil.
func Wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	var done *sandbox.Error
	if errors.As(err, &done) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &sandbox.Error{Code: sandbox.CodeInternal, Op: op, Message: err.Error(), Err: err}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.ENOSPC, syscall.EDQUOT:
			e.Code, e.Hint = sandbox.CodeNoSpace, SpaceHint(errno)
		case syscall.EROFS:
			e.Code, e.Hint = sandbox.CodeReadOnly, "point TONGS_HOME to a directory that can be written"
		case syscall.EACCES, syscall.EPERM:
			e.Code, e.Hint = sandbox.CodePermissionDenied, "run as root, or run `tongs doctor` to see what is missing"
		case syscall.EMFILE, syscall.ENFILE:
			e.Code, e.Hint = sandbox.CodeTooManyFiles, "raise the limit of open files: `ulimit -n 65536`"
		case syscall.ENOMEM, syscall.EAGAIN:
			e.Code, e.Hint = sandbox.CodeNoSpace, "the machine is out of memory or processes: end something, or raise kernel.pid_max and `ulimit -u`"
		}
	}
	return e
}

// SpaceHint is the cure for ENOSPC and EDQUOT on the host.
func SpaceHint(errno syscall.Errno) string {
	if errno == syscall.EDQUOT {
		return "the sandbox's own limit of disk or files is too small for what it begins with: raise it (disk and disk_files in [sandbox], or --disk)"
	}
	return "free some space or inodes on the file system that holds TONGS_HOME"
}

// Invalid is the error for a Spec that makes no sense.
func Invalid(op, format string, args ...any) error {
	return &sandbox.Error{Code: sandbox.CodeInvalidArgument, Op: op, Message: fmt.Sprintf(format, args...)}
}

// NotFound is the error for an id that no sandbox has.
func NotFound(op, id string) error {
	return &sandbox.Error{Code: sandbox.CodeSandboxNotFound, Op: op, Message: fmt.Sprintf("there is no sandbox %q", id),
		Hint: "it may have been destroyed; make it again"}
}
