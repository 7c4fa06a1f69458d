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

// LineOptions say which lines to read.
type LineOptions struct {
	First    int64 `json:"first,omitempty"`    // the first line, counted from 1; default 1
	Count    int64 `json:"count,omitempty"`    // at most so many; default 2,000
	MaxBytes int64 `json:"maxBytes,omitempty"` // of all lines together; default 256 KiB, at most 8 MiB
}

// Lines is a range of a file's lines.
type Lines struct {
	Info FileInfo `json:"info"`
	// First is the number of the first line in Text, Count how many there are.
	First int64 `json:"first"`
	Count int64 `json:"count"`
	// Text is the lines with their ends, byte for byte as in the file. It is
	// empty for a file that is Binary.
	Text []byte `json:"text"`
	// Total is how many lines the file has, a last one without an end counted.
	// Counting stops after 1 GiB of the file: then it is -1.
	Total int64 `json:"total"`
	// Truncated: the file goes on behind Text. LineCut: of the last line in Text
	// only the beginning is there, because it alone is longer than MaxBytes.
	Truncated bool `json:"truncated,omitempty"`
	LineCut   bool `json:"lineCut,omitempty"`
	// Binary and MIME are what DetectContent says of the file's first 4 KiB.
	Binary bool   `json:"binary,omitempty"`
	MIME   string `json:"mime"`
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
	// ReadLines reads a range of a text's lines.
	ReadLines(ctx context.Context, path string, opts LineOptions) (*Lines, error)
	// Exists reports whether Stat would find something. A path that leads through
	// what is no directory names nothing; other failures are errors.
	Exists(ctx context.Context, path string) (bool, error)
	// RemoveFile removes a file or an empty directory; recursive, all below it.
	RemoveFile(ctx context.Context, path string, recursive bool) error
	// Rename moves a file or a directory, also to another directory of the same
	// file system, in one step. It replaces a file, or an empty directory, at the
	// new path. Between file systems it is CodeCrossDevice: Copy, then RemoveFile.
	Rename(ctx context.Context, from, to string) error
	// Copy copies a file, a symbolic link (as a link) or a whole directory.
	Copy(ctx context.Context, from, to string, opts CopyOptions) (*CopyResult, error)
	// Edit replaces text in a file: old by new, where old stands exactly once
	// unless opts.All. It compares and swaps, so that no other change is lost.
	// CodeTextNotFound and CodeTextNotUnique leave the file as it is. Files of
	// at most MaxEditBytes, CodeFileTooLarge.
	Edit(ctx context.Context, path, old, new string, opts EditOptions) (*EditResult, error)
	// ApplyPatch carries out a patch: all of it or nothing. It reads unified
	// diffs (also git's) and the format of OpenCode's apply_patch.
	// CodePatchFailed when it cannot be read or does not fit.
	ApplyPatch(ctx context.Context, patch string, opts PatchOptions) (*PatchResult, error)
	Chmod(ctx context.Context, path string, mode uint32) error
	Symlink(ctx context.Context, target, path string) error
}
