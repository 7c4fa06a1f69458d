package sandbox

import (
	"context"
	"io"
	"time"
)

// InlineBytes is the largest file body that travels inside a call; larger ones
// go over a raw connection. Callers see no difference.
const InlineBytes = 256 << 10

// FileType is what a directory entry is.
type FileType string

const (
	TypeFile      FileType = "file"
	TypeDirectory FileType = "directory"
	TypeSymlink   FileType = "symlink"
	TypeOther     FileType = "other" // FIFO, socket, device
)

// FileInfo describes a file, without following a last symbolic link unless it
// is said otherwise.
type FileInfo struct {
	Path     string    `json:"path"` // absolute
	Name     string    `json:"name"`
	Type     FileType  `json:"type"`
	Size     int64     `json:"size"` // bytes
	Mode     uint32    `json:"mode"` // permission bits with setuid, setgid and sticky as in stat(2), & 07777
	UID      uint32    `json:"uid"`
	GID      uint32    `json:"gid"`
	Modified time.Time `json:"modified"`
	Target   string    `json:"target,omitempty"` // of a symbolic link
	// Version changes whenever the content may have: WriteOptions.IfVersion
	// takes it. It is opaque.
	Version string `json:"version"`
}

// ReadOptions say which part of a file to read.
type ReadOptions struct {
	Offset int64 `json:"offset,omitempty"` // first byte
	Length int64 `json:"length,omitempty"` // at most so many; 0 is all
}

// WriteOptions say how to write. The zero value makes or replaces a file
// atomically: a reader sees the old content or the new, and a failure leaves
// the old. A replaced file keeps its permission bits; a symbolic link is
// followed, and its target replaced.
type WriteOptions struct {
	Parents   bool   `json:"parents,omitempty"`   // make missing directories, 0777 & ^umask
	Append    bool   `json:"append,omitempty"`    // add at the end, in place
	InPlace   bool   `json:"inPlace,omitempty"`   // truncate and write the same inode, for hard links and watchers; not atomic
	Exclusive bool   `json:"exclusive,omitempty"` // CodeFileExists when there is anything
	IfVersion string `json:"ifVersion,omitempty"` // CodeVersionMismatch unless the file has this version
	Mode      uint32 `json:"mode,omitempty"`      // permission bits of a new file; default 0666 & ^umask
	Sync      bool   `json:"sync,omitempty"`      // fsync before it counts as written
}

// ListOptions say what to list.
type ListOptions struct {
	Recursive bool `json:"recursive,omitempty"` // depth first, symbolic links not followed
	Hidden    bool `json:"hidden,omitempty"`    // names that begin with a dot too
	// Limit is the most entries in one answer: default 1,000, at most 10,000.
	// Cursor is ListResult.Next of the page before.
	Limit  int    `json:"limit,omitempty"`
	Cursor string `json:"cursor,omitempty"`
}

// ListResult is one page of a listing, sorted by path.
type ListResult struct {
	Entries []FileInfo `json:"entries"`
	Next    string     `json:"next,omitempty"` // "" on the last page
}

// Files works on the sandbox's files with the rights of its user. FIFOs,
// sockets and devices are refused with CodeNotRegular and never waited for.
type Files interface {
	// ReadFile reads a whole file, or the part opts name, into memory.
	ReadFile(ctx context.Context, path string, opts ReadOptions) ([]byte, *FileInfo, error)
	// OpenFile reads as a stream of any length.
	OpenFile(ctx context.Context, path string, opts ReadOptions) (io.ReadCloser, error)
	// WriteFile writes data.
	WriteFile(ctx context.Context, path string, data []byte, opts WriteOptions) (*FileInfo, error)
	// WriteFrom writes all that r gives. If r fails or ctx ends, nothing is
	// changed (unless Append or InPlace was asked for).
	WriteFrom(ctx context.Context, path string, r io.Reader, opts WriteOptions) (*FileInfo, error)
	// Stat describes what the path names, after a last symbolic link; Lstat
	// describes the link itself.
	Stat(ctx context.Context, path string) (*FileInfo, error)
	Lstat(ctx context.Context, path string) (*FileInfo, error)
	ListFiles(ctx context.Context, path string, opts ListOptions) (*ListResult, error)
	Mkdir(ctx context.Context, path string, parents bool) error
	// RemoveFile removes a file or an empty directory; recursive, all below it.
	RemoveFile(ctx context.Context, path string, recursive bool) error
	// Rename replaces a file at the new path.
	Rename(ctx context.Context, from, to string) error
	Chmod(ctx context.Context, path string, mode uint32) error
	Symlink(ctx context.Context, target, path string) error
}
