package sandbox

import (
	"context"
	"time"
)

// Scope says where a search looks. The rules are ripgrep's: left out are hidden
// files, what .gitignore (in a repository), .ignore and .rgignore say, git's own
// exclude files, and .git always. Symbolic links are not followed. It is the
// sandbox's guest that searches, so that the answers are the same whatever is
// installed there.
type Scope struct {
	Path string `json:"path,omitempty"` // directory (or, for Grep, file); default the project directory
	// Include, if any: only files that match one of these patterns, also ones
	// that would be left out, unless a directory above them is. Exclude: not those that match one of these.
	// Lines as in a .gitignore file, relative to Path.
	Include  []string `json:"include,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`
	Hidden   bool     `json:"hidden,omitempty"`   // hidden files too
	NoIgnore bool     `json:"noIgnore,omitempty"` // what ignore files leave out too
	// Timeout bounds the search: default 30 s, at most 120 s. What was found until
	// then is the answer.
	Timeout time.Duration `json:"timeout,omitempty"` // nanoseconds on the wire
}

// Bounds of searches.
const (
	DefaultSearchTimeout = 30 * time.Second
	MaxSearchTimeout     = 120 * time.Second
	MaxSearchNames       = 2_000_000 // names that one search looks at
	MaxSearchBytes       = 8 << 20   // of text and paths in one answer
	MaxSearchLine        = 2048      // bytes of a line that are shown
)

// A SearchLimit says which bound ended a search early. Then there may be more.
type SearchLimit string

const (
	LimitMatches SearchLimit = "matches" // as many as were asked for
	LimitNames   SearchLimit = "names"   // MaxSearchNames
	LimitBytes   SearchLimit = "bytes"   // MaxSearchBytes
	LimitTime    SearchLimit = "time"    // Timeout
)

// GlobOptions say which files to list.
type GlobOptions struct {
	Scope
	Limit int `json:"limit,omitempty"` // files; default 1,000, at most 10,000
}

// GlobResult lists files: absolute paths, sorted by path, part by part.
type GlobResult struct {
	Paths     []string    `json:"paths"`
	Truncated SearchLimit `json:"truncated,omitempty"`
}

// GrepOptions say what to look for. A pattern is an RE2 expression (regexp/syntax)
// that is matched against each line by itself; a carriage return before the line's
// end belongs to the line. Of a line longer than 1 MiB each MiB is matched alone.
type GrepOptions struct {
	Scope
	Fixed      bool `json:"fixed,omitempty"`      // the pattern is plain text
	IgnoreCase bool `json:"ignoreCase,omitempty"` // by Unicode's simple folding
	Context    int  `json:"context,omitempty"`    // lines before and after each match, at most 20
	Limit      int  `json:"limit,omitempty"`      // matching lines; default 1,000, at most 10,000
}

// GrepMatch is a line that matches. Texts are without their line ends; what is no
// UTF-8 in them is shown as U+FFFD.
type GrepMatch struct {
	Path string `json:"path"` // absolute
	Line int    `json:"line"` // from 1
	// Text is the line, of a longer one the first MaxSearchLine bytes. The first
	// match in it is Text[Start:End]; both are 0 if it lies behind what is shown.
	Text   string   `json:"text"`
	Start  int      `json:"start"`
	End    int      `json:"end"`
	Before []string `json:"before,omitempty"`
	After  []string `json:"after,omitempty"`
}

// GrepResult lists matches by path and line. Files with a NUL byte in their first
// 64 KiB are no text and have none; a later one ends the file.
type GrepResult struct {
	Matches   []GrepMatch `json:"matches"`
	Truncated SearchLimit `json:"truncated,omitempty"`
}

// FindOptions say how to find files by what is remembered of their names.
type FindOptions struct {
	Scope
	Limit int `json:"limit,omitempty"` // default 100, at most 1,000
}

// FindMatch is a file whose path, relative to the scope, holds the letters of the
// query in their order. Better ones have a higher score: letters in a row, at the
// beginnings of words, in the file's own name, in a short path.
type FindMatch struct {
	Path  string `json:"path"` // absolute
	Score int    `json:"score"`
}

// FindResult lists the best matches, best first.
type FindResult struct {
	Matches   []FindMatch `json:"matches"`
	Truncated SearchLimit `json:"truncated,omitempty"`
}

// Search looks for files and for text in them.
type Search interface {
	// Glob lists the files of a scope.
	Glob(ctx context.Context, opts GlobOptions) (*GlobResult, error)
	// Grep finds lines. CodeInvalidArgument for a pattern that is none.
	Grep(ctx context.Context, pattern string, opts GrepOptions) (*GrepResult, error)
	// Find finds files by name, loosely. Capitals in the query are meant; small
	// letters match both. Blanks are passed over.
	Find(ctx context.Context, query string, opts FindOptions) (*FindResult, error)
}
