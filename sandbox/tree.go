package sandbox

import (
	"context"
	"io"
	"time"
)

// Trees of files as streams: what archives and copies in and out of a sandbox are
// made of. Package sandbox/archive makes tar files of them and back.

// TreeOptions say which part of a tree to read. Patterns are those of WatchOptions.
type TreeOptions struct {
	Include []string `json:"include,omitempty"` // only files and links that match one; directories always
	Exclude []string `json:"exclude,omitempty"` // not these; of a directory nothing
	// Ignored leaves out what .gitignore, .ignore and .rgignore files leave out
	// of a search, and .git.
	Ignored bool `json:"ignored,omitempty"`
}

// TreeType is what an entry of a tree is.
type TreeType string

const (
	TreeFile      TreeType = "file"
	TreeDirectory TreeType = "directory"
	TreeSymlink   TreeType = "symlink"
	TreeHardlink  TreeType = "hardlink" // to a file that came before; in a TreeWriter only
)

// TreeEntry is one file, directory or link.
type TreeEntry struct {
	// Name is the path below the tree's root: parts that are no "." or "..",
	// joined by single slashes, byte for byte as in the file system.
	Name     string
	Type     TreeType
	Mode     uint32 // permission bits and sticky, & 01777: setuid and setgid are dropped
	Size     int64  // bytes, of a file
	Modified time.Time
	Target   string // of a link; of a hard link a Name
}

// TreeReader reads a tree, sorted by path, directories before what is in them.
// FIFOs, sockets and devices are left out. Not for several goroutines at once.
type TreeReader interface {
	// Next goes to the next entry; io.EOF at the end of the tree.
	Next() (*TreeEntry, error)
	// Read reads the current entry's content: exactly Size bytes. A file that
	// becomes shorter meanwhile is filled up with zeros.
	Read(p []byte) (int, error)
	Close() error
}

// WriteTreeOptions say how to write a tree.
type WriteTreeOptions struct {
	// Overwrite replaces files and links that are in the way; without it they are
	// CodeFileExists. Directories that are there stay, and get mode and time.
	Overwrite bool `json:"overwrite,omitempty"`
	// LinksOut allows symbolic links that are absolute or lead out of the root.
	// They are made, but never followed while the tree is written.
	LinksOut bool `json:"linksOut,omitempty"`
}

// TreeResult counts what was written.
type TreeResult struct {
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"` // named in the tree
	Links       int64 `json:"links"`
	Bytes       int64 `json:"bytes"`
}

// TreeWriter writes a tree below a directory of the sandbox. Nothing is written
// outside of it: a name that leads out, or through a symbolic link, is
// CodeUnsafeArchive and ends the writing. Not for several goroutines at once.
type TreeWriter interface {
	// Add writes one entry; content, exactly Size bytes, is for a file. An error
	// ends the writing. One about an earlier entry may come late.
	Add(e *TreeEntry, content io.Reader) error
	// Finish waits until all of it is written.
	Finish() (*TreeResult, error)
	// Close gives up, if Finish was not called. What was written stays, but for
	// a file that is not whole.
	Close() error
}

// Trees reads and writes whole trees.
type Trees interface {
	// ReadTree reads what is below a directory, or a single file by its name. ctx
	// covers the whole reading.
	ReadTree(ctx context.Context, path string, opts TreeOptions) (TreeReader, error)
	// WriteTree writes below dir, which is made if it is not there. ctx covers
	// the whole writing.
	WriteTree(ctx context.Context, dir string, opts WriteTreeOptions) (TreeWriter, error)
}

// TreeHeader is a TreeEntry on the wire, the payload of a FrameEntry. Names are
// bytes, because they need not be UTF-8.
type TreeHeader struct {
	Name     []byte   `json:"name"`
	Type     TreeType `json:"type"`
	Mode     uint32   `json:"mode,omitempty"`
	Size     int64    `json:"size,omitempty"`
	Modified int64    `json:"modified,omitempty"` // nanoseconds since 1970
	Target   []byte   `json:"target,omitempty"`
}

// FrameEntry begins an entry of a tree; frames of data with its content follow.
const FrameEntry FrameKind = 'H'

// MaxTreeName bounds Name and Target.
const MaxTreeName = 4095

// CheckTreeName says what is wrong with the name of an entry; nil is nothing.
func CheckTreeName(name string) error {
	bad := func(why string) error {
		return Errf(CodeUnsafeArchive, "", "the entry "+quoteName(name)+" "+why, "make the archive of paths below one directory")
	}
	if name == "" || len(name) > MaxTreeName {
		return bad("has no name, or one that is too long")
	}
	if name[0] == '/' {
		return bad("has an absolute path")
	}
	part := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] == 0 {
			return bad("has a NUL byte in its name")
		}
		if i < len(name) && name[i] != '/' {
			continue
		}
		switch p := name[part:i]; {
		case p == "..":
			return bad("leads out by ..")
		case p == "" || p == ".":
			return bad("has an empty part in its name")
		case len(p) > 255:
			return Errf(CodeNameTooLong, "", "a part of the entry "+quoteName(name)+" has more than 255 bytes", "")
		}
		part = i + 1
	}
	return nil
}

// CheckTreeLink says whether a symbolic link of that name leads out of its tree;
// nil is no. ".." counts at a target's beginning only: behind another part it may
// mean anything.
func CheckTreeLink(name, target string) error {
	if target == "" || len(target) > MaxTreeName {
		return Errf(CodeInvalidArchive, "", "the link "+quoteName(name)+" has no target, or one that is too long", "")
	}
	depth := 0
	for i := range len(name) {
		if name[i] == '/' {
			depth++
		}
	}
	out := target[0] == '/'
	down := false
	for rest := target; !out && rest != ""; {
		part := rest
		rest = ""
		for i := range len(part) {
			if part[i] == '/' {
				part, rest = part[:i], part[i+1:]
				break
			}
		}
		switch part {
		case "", ".":
		case "..":
			depth--
			out = depth < 0 || down
		default:
			down = true
		}
	}
	if out {
		return Errf(CodeUnsafeArchive, "", "the link "+quoteName(name)+" leads to "+quoteName(target)+", out of its tree", "allow links that lead out, if that is meant")
	}
	return nil
}
