package image

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/internal/idmap"
)

// Who the first commit is by, and every commit that a command makes unless it says otherwise.
const (
	authorName  = "OpenCode Agent"
	authorEmail = "agent@opencode.ai"
)

const gitConfig = "[user]\n\tname = " + authorName + "\n\temail = " + authorEmail + "\n[init]\n\tdefaultBranch = main\n"

// gitTimeout bounds each run of git while an image is made.
const gitTimeout = 30 * time.Second

// repository adds what commands need to use git. The repository itself is made by git.
func (t *tree) repository(git string) {
	t.text(Home+"/.gitconfig", gitConfig, 0o644)
	if git == "" {
		t.text("/etc/tongs-no-repository", "There was no git on the host when this image was made.\n", 0o644)
	}
}

func findGit(cfg HostConfig) (string, Note) {
	git := cfg.Git
	if git == "" {
		for _, dir := range append(filepath.SplitList(lookup(cfg.Environ, "PATH")), standardPath...) {
			if p := filepath.Join(dir, "git"); filepath.IsAbs(p) && executable(p) {
				git = p
				break
			}
		}
	}
	if git == "" || !executable(git) {
		return "", Note{Subject: "git", Detail: "is not installed: " + Project + " is an empty directory and no repository; install git, and new sandboxes have one"}
	}
	return git, Note{Subject: "git", Visible: true, Detail: git + " makes the repository in " + Project}
}

func executable(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// makeRepository makes dir a repository with one empty commit on main, the same bytes each time.
func makeRepository(ctx context.Context, git, dir string) error {
	for _, args := range [][]string{
		{"init", "--quiet", "--template="},
		{"symbolic-ref", "HEAD", "refs/heads/main"},
		{"commit", "--quiet", "--allow-empty", "--no-gpg-sign", "--message", "Initial commit"},
	} {
		ctx, cancel := context.WithTimeout(ctx, gitTimeout)
		cmd := exec.CommandContext(ctx, git, args...)
		cmd.Dir = dir
		cmd.Env = []string{
			"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
			"GIT_CEILING_DIRECTORIES=" + filepath.Dir(dir), "GIT_TERMINAL_PROMPT=0",
			"GIT_AUTHOR_NAME=" + authorName, "GIT_AUTHOR_EMAIL=" + authorEmail, "GIT_AUTHOR_DATE=2026-01-01T00:00:00Z",
			"GIT_COMMITTER_NAME=" + authorName, "GIT_COMMITTER_EMAIL=" + authorEmail, "GIT_COMMITTER_DATE=2026-01-01T00:00:00Z",
		}
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			return fmt.Errorf("image: git %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// giveAway gives a tree to the ids that its files have inside.
var giveAway = idmap.Task{Name: "image.giveAway"}

func init() {
	giveAway.Serve(func(_ context.Context, argument func(any) error) error {
		var dir string
		if err := argument(&dir); err != nil {
			return err
		}
		return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			id := 0
			if rel, err := filepath.Rel(filepath.Join(dir, Home), p); err == nil && filepath.IsLocal(rel) {
				id = UserID
			}
			return os.Lchown(p, id, id)
		})
	})
}

// chownHome gives the home and everything in it to the sandbox's user. Without the right to, which only
// root has, everything stays the builder's.
func chownHome(home string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(home, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, UserID, UserID)
	})
}
