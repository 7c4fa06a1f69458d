package tool

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/internal/files"
)

// maxProjectInstruction bounds one file of instructions in the system prompt, in bytes.
const maxProjectInstruction = 64 << 10

// A Project is what the system prompt says about a project.
type Project struct {
	Directory string `json:"directory"` // absolute
	Worktree  string `json:"worktree"`  // absolute
	Git       bool   `json:"git"`       // the directory is in a git repository
	Platform  string `json:"platform"`  // as Node.js names it

	// Instructions are the files of instructions, each below a line that names it. "" if there are none, or Version is the one that the caller knows.
	Instructions string `json:"instructions,omitempty"`
	// Version is another one when anything of the above is.
	Version string `json:"version"`
}

// DescribeProject tells of the project in env. Instructions are those that OpenCode takes: of the user,
// the first there is of ~/.config/opencode/AGENTS.md and ~/.claude/CLAUDE.md, and of the project, the
// first of AGENTS.md, CLAUDE.md and CONTEXT.md in its directory. Of each, the first 64 KiB count. Files
// that cannot be read, or are none, are passed over. Text of the version that is known is not told again.
func DescribeProject(ctx context.Context, env Env, known string) (Project, error) {
	if err := env.complete(""); err != nil {
		return Project{}, err
	}
	p := Project{Directory: env.Directory, Worktree: env.Worktree, Platform: "linux"}
	for dir := p.Directory; ; dir = filepath.Dir(dir) {
		if _, err := files.Lstat(filepath.Join(dir, ".git")); err == nil {
			p.Git = true
		}
		if p.Git || dir == "/" {
			break
		}
	}
	var found []string
	version := fnv.New128a()
	fmt.Fprintf(version, "%q %q %v\n", p.Directory, p.Worktree, p.Git)
	for _, group := range [][]string{
		{filepath.Join(env.Home, ".config/opencode/AGENTS.md"), filepath.Join(env.Home, ".claude/CLAUDE.md")},
		{filepath.Join(p.Directory, "AGENTS.md"), filepath.Join(p.Directory, "CLAUDE.md"), filepath.Join(p.Directory, "CONTEXT.md")},
	} {
		for _, path := range group {
			if !filepath.IsAbs(path) {
				continue // there is no home
			}
			if st, err := files.Stat(path); err == nil && st.Mode().IsRegular() {
				fmt.Fprintf(version, "%q %d %d %v\n", path, st.Size(), st.ModTime().UnixNano(), identity(st))
				found = append(found, path)
				break
			}
		}
	}
	p.Version = hex.EncodeToString(version.Sum(nil))
	if p.Version == known {
		return p, nil
	}
	var texts []string
	for _, path := range found {
		if text := head(ctx, path, maxProjectInstruction); text != "" {
			texts = append(texts, "Instructions from: "+path+"\n"+text)
		}
	}
	p.Instructions = strings.Join(texts, "\n")
	return p, ctx.Err()
}

// identity tells a file from another one of the same name, size and time.
func identity(st fs.FileInfo) [2]int64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return [2]int64{int64(sys.Ino), sys.Ctim.Nano()}
	}
	return [2]int64{}
}

// head reads the beginning of a file; "" if it cannot be read.
func head(ctx context.Context, path string, limit int) string {
	f, _, err := openRegular(ctx, path)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return ""
	}
	if len(data) <= limit {
		return clean(string(data))
	}
	for data = data[:limit]; len(data) > limit-utf8.UTFMax && !utf8.RuneStart(data[len(data)-1]); {
		data = data[:len(data)-1]
	}
	return clean(string(data[:len(data)-1])) + fmt.Sprintf("\n\n(These are its first %d KiB. Read the rest with the read tool if you need it.)", limit>>10)
}
