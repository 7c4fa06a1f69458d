package doors

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of what git says, in bytes; OpenCode has the same for patches.
const (
	maxPatch   = 10_000_000
	maxGit     = 8 << 20
	maxChanges = 2000 // files with a patch or a count of their own
)

// change is OpenCode's VcsFileDiff, and without a patch its VcsFileStatus.
type change struct {
	File      string  `json:"file"`
	Patch     *string `json:"patch,omitempty"`
	Additions int     `json:"additions"`
	Deletions int     `json:"deletions"`
	Status    string  `json:"status"` // added, deleted or modified
	untracked bool
}

// git runs git in the project. A status other than 0 is no error.
func (d *Doors) git(a *asked, limit int64, args ...string) (*sandbox.ExecResult, error) {
	return d.gitWith(a, limit, nil, args...)
}

func (d *Doors) gitWith(a *asked, limit int64, input []byte, args ...string) (*sandbox.ExecResult, error) {
	argv := append([]string{"git", "--no-optional-locks", "-c", "core.autocrlf=false", "-c", "core.fsmonitor=false", "-c", "core.symlinks=true", "-c", "core.quotepath=false"}, args...)
	return a.box.Exec(a.ctx, sandbox.ExecSpec{ProcessSpec: d.spec(argv...), Input: input, MaxOutput: limit})
}

// isRepository says whether the project is in a git repository. Without git it is not.
func (d *Doors) isRepository(a *asked) (bool, error) {
	res, err := d.git(a, 64, "rev-parse", "--is-inside-work-tree")
	switch {
	case sandbox.CodeOf(err) == sandbox.CodeCommandNotFound:
		return false, nil
	case err != nil:
		return false, err
	}
	return res.Exit.Success() && strings.TrimSpace(string(res.Stdout)) == "true", nil
}

// said is the one line that a command of git's says, empty when it failed.
func (d *Doors) said(a *asked, args ...string) (string, error) {
	res, err := d.git(a, 64<<10, args...)
	if err != nil || !res.Exit.Success() {
		return "", err
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(res.Stdout), "\uFFFD")), nil
}

// vcs answers GET /vcs.
func (d *Doors) vcs(a *asked) (any, error) {
	info := struct {
		Branch  string `json:"branch,omitempty"`
		Default string `json:"default_branch,omitempty"`
	}{}
	if a.box == nil {
		return info, nil
	}
	if ok, err := d.isRepository(a); err != nil || !ok {
		return info, err
	}
	var err error
	if info.Branch, err = d.said(a, "symbolic-ref", "--quiet", "--short", "HEAD"); err != nil {
		return nil, err
	}
	info.Default, _, err = d.defaultBranch(a)
	return info, err
}

// defaultBranch returns the name and the ref of the branch from which others start:
// what the remote says, else init.defaultBranch, main or master.
func (d *Doors) defaultBranch(a *asked) (name, ref string, err error) {
	said, err := d.said(a, "remote")
	if err != nil {
		return "", "", err
	}
	if remotes := strings.Fields(said); len(remotes) > 0 {
		remote := remotes[0]
		switch {
		case slices.Contains(remotes, "origin"):
			remote = "origin"
		case len(remotes) > 1 && slices.Contains(remotes, "upstream"):
			remote = "upstream"
		}
		head, err := d.said(a, "symbolic-ref", "refs/remotes/"+remote+"/HEAD")
		if err != nil {
			return "", "", err
		}
		ref := strings.TrimPrefix(head, "refs/remotes/")
		if name, ok := strings.CutPrefix(ref, remote+"/"); ok && name != "" {
			return name, ref, nil
		}
	}
	if said, err = d.said(a, "for-each-ref", "--format=%(refname:short)", "refs/heads"); err != nil {
		return "", "", err
	}
	heads := strings.Fields(said)
	configured, err := d.said(a, "config", "init.defaultBranch")
	if err != nil {
		return "", "", err
	}
	for _, name := range []string{configured, "main", "master"} {
		if name != "" && slices.Contains(heads, name) {
			return name, name, nil
		}
	}
	return "", "", nil
}

// head is what the work tree is compared with: HEAD, or nothing in a repository without a commit.
func (d *Doors) head(a *asked) (string, error) {
	res, err := d.git(a, 1024, "rev-parse", "--verify", "HEAD")
	if err != nil || !res.Exit.Success() {
		return "", err
	}
	return "HEAD", nil
}

// status lists the changes of the work tree, without counts.
func (d *Doors) status(a *asked) ([]change, error) {
	res, err := d.git(a, maxGit, "status", "--porcelain=v1", "--untracked-files=all", "--no-renames", "-z", "--", ".")
	if err != nil {
		return nil, err
	}
	var out []change
	for _, item := range d.items(a, res) {
		if len(item) > 3 {
			out = append(out, change{File: item[3:], Status: statusOf(item[:2]), untracked: item[:2] == "??"})
		}
	}
	return out, nil
}

// items splits what git says with -z. A last one that was cut off is left out.
func (d *Doors) items(a *asked, res *sandbox.ExecResult) []string {
	all := strings.Split(strings.ToValidUTF8(string(res.Stdout), "\uFFFD"), "\x00")
	if res.Truncated {
		a.truncated()
	}
	return all[:len(all)-1]
}

func statusOf(code string) string {
	switch {
	case code == "??":
		return "added"
	case strings.Contains(code, "U"):
	case strings.Contains(code, "A") && !strings.Contains(code, "D"):
		return "added"
	case strings.Contains(code, "D") && !strings.Contains(code, "A"):
		return "deleted"
	}
	return "modified"
}

// counts are the added and deleted lines by file, compared with base.
func (d *Doors) counts(a *asked, base string) (map[string][2]int, error) {
	out := map[string][2]int{}
	if base == "" {
		return out, nil
	}
	res, err := d.git(a, maxGit, "diff", "--no-ext-diff", "--no-renames", "--numstat", "-z", base, "--", ".")
	if err != nil {
		return nil, err
	}
	for _, item := range d.items(a, res) {
		if f := strings.SplitN(item, "\t", 3); len(f) == 3 {
			out[f[2]] = [2]int{number(f[0]), number(f[1])}
		}
	}
	return out, nil
}

// number is a count; of a binary file git says "-".
func number(s string) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// count fills in the lines of each change, those of untracked files one by one.
func (d *Doors) count(a *asked, base string, changes []change) ([]change, error) {
	slices.SortFunc(changes, func(x, y change) int { return collate(x.File, y.File) })
	if len(changes) > maxChanges {
		changes = changes[:maxChanges]
		a.truncated()
	}
	counts, err := d.counts(a, base)
	if err != nil {
		return nil, err
	}
	for i, c := range changes {
		n, ok := counts[c.File]
		if !ok && c.Status == "added" {
			res, err := d.git(a, 4096, "diff", "--no-index", "--numstat", "--", "/dev/null", c.File)
			if err != nil {
				return nil, err
			}
			if f := strings.Split(string(res.Stdout), "\t"); len(f) >= 2 {
				n = [2]int{number(f[0]), number(f[1])}
			}
		}
		changes[i].Additions, changes[i].Deletions = n[0], n[1]
	}
	return changes, nil
}

// vcsStatus answers GET /vcs/status.
func (d *Doors) vcsStatus(a *asked) (any, error) {
	if a.box == nil {
		return []change{}, nil
	}
	if ok, err := d.isRepository(a); err != nil || !ok {
		return []change{}, err
	}
	base, err := d.head(a)
	if err != nil {
		return nil, err
	}
	changes, err := d.status(a)
	if err != nil {
		return nil, err
	}
	if changes, err = d.count(a, base, changes); err != nil {
		return nil, err
	}
	return append([]change{}, changes...), nil
}

// vcsApply answers POST /vcs/apply: it applies a patch to the files of the session.
func (d *Doors) vcsApply(a *asked) (any, error) {
	if err := a.need("a patch"); err != nil {
		return nil, err
	}
	var in struct {
		Patch *string `json:"patch"`
	}
	if err := body(a.Request, &in); err != nil {
		return nil, err
	}
	if in.Patch == nil {
		return nil, badInput("the body has no patch", "see GET /doc")
	}
	if ok, err := d.isRepository(a); err != nil {
		return nil, err
	} else if !ok {
		return nil, notApplied("Patch can't be applied because the project is not git-based", "non-git")
	}
	res, err := d.gitWith(a, 64<<10, []byte(*in.Patch), "apply", "-")
	if err != nil {
		return nil, err
	}
	if !res.Exit.Success() {
		return nil, notApplied("Patch can't be applied", "not-clean")
	}
	return map[string]bool{"applied": true}, nil
}

// notApplied is OpenCode's own error.
func notApplied(message, reason string) error {
	return &gateway.Error{Status: http.StatusBadRequest, Name: "VcsApplyError", Message: message, Data: map[string]any{"reason": reason}}
}

// body decodes a request's body, which the gateway has bounded and read.
func body(r *http.Request, v any) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return badInput("the body could not be read", "send it again")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = []byte("{}")
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return badInput("the body is not what this route takes", "see GET /doc")
	}
	return nil
}
