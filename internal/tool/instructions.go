package tool

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/internal/files"
)

const (
	// maxInstruction bounds one file of instructions.
	maxInstruction = 24 << 10
	// maxSessions bounds the sessions that are remembered.
	maxSessions = 1024
)

// instructionNames are tried in this order; the first that a directory has is
// its instructions.
var instructionNames = []string{"AGENTS.md", "CLAUDE.md", "CONTEXT.md"}

// Instructions remembers which sessions have been given which files of
// instructions, so that read attaches each once, and again when it has changed.
// The zero value is ready; it may be used by several calls at once.
type Instructions struct {
	mu    sync.Mutex
	given map[string]map[string]time.Time // by session, by path: what its time was
	order []string                        // sessions, oldest first
}

// claim reports whether a session has not been given a file as it is now.
func (in *Instructions) claim(session, path string, changed time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	files := in.given[session]
	if files == nil {
		if in.given == nil {
			in.given = map[string]map[string]time.Time{}
		}
		files = map[string]time.Time{}
		in.given[session] = files
		if in.order = append(in.order, session); len(in.order) > maxSessions {
			delete(in.given, in.order[0])
			in.order = in.order[1:]
		}
	}
	if at, ok := files[path]; ok && at.Equal(changed) {
		return false
	}
	files[path] = changed
	return true
}

// An instruction is a file of instructions that goes along with what is read.
type instruction struct {
	path string
	text string
}

// instructions gives those for a file that its session has not been given yet:
// of the directories from the file's up to, and without, the project's, whose
// own are part of the system prompt.
func (r *run) instructions(ctx context.Context, path string) []instruction {
	if r.Instructions == nil {
		return nil
	}
	var all []instruction
	for dir := filepath.Dir(path); dir != r.Directory && contains(r.Directory, dir); dir = filepath.Dir(dir) {
		for _, name := range instructionNames {
			file := filepath.Join(dir, name)
			st, err := files.Stat(file)
			if err != nil || !st.Mode().IsRegular() {
				continue
			}
			if file != path && r.inside(realPath(file)) && r.Instructions.claim(r.Session, file, st.ModTime()) {
				if data, err := readWhole(ctx, file, maxInstruction); err == nil && len(data) > 0 {
					all = append(all, instruction{file, clean(string(data))})
				}
			}
			break
		}
	}
	return all
}

func paths(all []instruction) []string {
	out := make([]string, len(all))
	for i, in := range all {
		out[i] = in.path
	}
	return out
}

// reminder is how instructions stand in an answer.
func reminder(all []instruction) string {
	if len(all) == 0 {
		return ""
	}
	texts := make([]string, len(all))
	for i, in := range all {
		texts[i] = "Instructions from: " + in.path + "\n" + in.text
	}
	return "\n\n<system-reminder>\n" + strings.Join(texts, "\n\n") + "\n</system-reminder>"
}
