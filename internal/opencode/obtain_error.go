package opencode

import (
	"errors"
	"io/fs"
	"syscall"
)

// Codes of [ObtainError].
const (
	CodeUnsupportedPlatform = "UNSUPPORTED_PLATFORM" // no pinned package for this machine
	CodeRegistryUnreachable = "REGISTRY_UNREACHABLE" // no connection, TLS failure, time-out, 5xx
	CodeRegistryDenied      = "REGISTRY_DENIED"      // 401 or 403
	CodePackageNotFound     = "PACKAGE_NOT_FOUND"    // 404
	CodeRegistryConfig      = "REGISTRY_CONFIG"      // an .npmrc or a variable cannot be used
	CodeDownloadTruncated   = "DOWNLOAD_TRUNCATED"   // the connection ended early, on every attempt
	CodeDigestMismatch      = "DIGEST_MISMATCH"      // the content is not the pinned one
	CodeArchiveInvalid      = "ARCHIVE_INVALID"      // the tarball lacks the binary or cannot be unpacked
	CodeDiskFull            = "DISK_FULL"            // ENOSPC, EDQUOT, or too little free space
	CodeHomeUnwritable      = "HOME_UNWRITABLE"      // the directory cannot be written
	CodeObtainCanceled      = "CANCELED"             // the context ended
	CodeBinaryUnusable      = "BINARY_UNUSABLE"      // an own binary does not run or is of another kind
)

// ObtainError is what the functions that obtain OpenCode return.
type ObtainError struct {
	Code    string // one of the codes above
	Op      string // what was being done
	Message string // what went wrong
	Hint    string // what to do about it
	Err     error  // the cause; may be nil
}

// Error says what was being done, what went wrong and what to do, in one line.
func (e *ObtainError) Error() string {
	s := e.Op + ": " + e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *ObtainError) Unwrap() error { return e.Err }

// fileError words a failed file operation below dir.
func fileError(op, dir string, err error) error {
	var oe *ObtainError
	if errors.As(err, &oe) {
		return err
	}
	e := &ObtainError{Op: op, Err: err}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Code, e.Message = CodeDiskFull, "the disk is full at "+dir
		e.Hint = "free about 300 MB there, or set TONGS_HOME to a directory on another disk"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		e.Code, e.Message = CodeHomeUnwritable, "cannot write in "+dir
		e.Hint = "make it writable for this user, or set TONGS_HOME to a directory that is"
	default:
		e.Code, e.Message = CodeHomeUnwritable, "cannot use "+dir
		e.Hint = "check the directory, or set TONGS_HOME to another one"
	}
	return e
}
