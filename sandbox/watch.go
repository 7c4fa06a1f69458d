package sandbox

import "context"

// WatchOptions say what of a tree is watched. Patterns are lines as in a
// .gitignore file, relative to the watched directory: "*.go" matches at any depth,
// "/a" and "a/b" from the top, "a/" directories only, "**" any number of parts.
type WatchOptions struct {
	// Recursive watches all directories below too, those made later included.
	Recursive bool `json:"recursive,omitempty"`
	// Include, if any: only events about paths that match one of the patterns.
	// Directories are watched whether they match or not.
	Include []string `json:"include,omitempty"`
	// Exclude leaves out paths that match. A directory that matches is not
	// watched at all, which is what keeps node_modules cheap.
	Exclude []string `json:"exclude,omitempty"`
}

// Bounds of watches.
const (
	MaxWatches         = 64      // in one sandbox at a time
	MaxWatchedDirs     = 65_536  // of one watch; the kernel may allow fewer
	MaxWatchQueue      = 8_192   // events that wait for a slow reader
	MaxWatchQueueBytes = 4 << 20 // of their paths
	MaxWatchPatterns   = 256     // of Include and Exclude together
)

// FileEventType is what happened.
type FileEventType string

const (
	FileCreated FileEventType = "create"
	FileChanged FileEventType = "modify" // content; several in a row may be one event
	FileDeleted FileEventType = "delete"
	// A move within the watched tree is a FileMovedFrom and a FileMovedTo with
	// the same Cookie, the latter with From. One half alone is a move out of the
	// tree, or into it. A directory that comes without From brings its content:
	// FileCreated for each thing in it follows.
	FileMovedFrom FileEventType = "move_from"
	FileMovedTo   FileEventType = "move_to"
	FileAttrib    FileEventType = "attrib" // mode, owner, times or links
	// FileOverflow: events were lost, because they came faster than they were
	// read, or because a directory could not be watched. Look at the tree below
	// Path anew. Events after it are whole again.
	FileOverflow FileEventType = "overflow"
)

// FileEvent is one change of a watched tree.
type FileEvent struct {
	Type      FileEventType `json:"type"`
	Path      string        `json:"path"`                // absolute
	From      string        `json:"from,omitempty"`      // of FileMovedTo: the old path, where it and what is in it are known
	Cookie    uint32        `json:"cookie,omitempty"`    // of the two halves of a move
	Directory bool          `json:"directory,omitempty"` // the thing is, or was, a directory
	Reason    string        `json:"reason,omitempty"`    // of FileOverflow
}

// FileWatch is a stream of events. It is not safe for use by several goroutines at
// once, Close apart.
type FileWatch interface {
	// Next waits for the next event. io.EOF says that the watched thing itself
	// was removed or moved away; its own event came before. When ctx ends, Next
	// can be called again.
	Next(ctx context.Context) (FileEvent, error)
	// Close stops the watch and releases all of it, here and in the sandbox.
	Close() error
}

// Watches tells what happens to files.
type Watches interface {
	// Watch begins to watch a directory, or a single file (also when that is
	// replaced). When it returns, nothing that happens from then on is missed.
	// ctx bounds the opening only.
	//
	// A file that is written in one step (WriteFile) is one FileCreated or
	// FileChanged. What is in a new directory before it could be watched comes as
	// FileCreated; when directories are moved about while this happens, a thing
	// may be told twice, but never not at all. CodeTooManyWatches when a bound is reached, ours or the
	// kernel's: the error says which.
	Watch(ctx context.Context, path string, opts WatchOptions) (FileWatch, error)
}
