package doors

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// vcsDiff answers GET /vcs/diff: mode=git compares with HEAD, mode=branch with the
// point at which the branch left the default branch.
func (d *Doors) vcsDiff(a *asked) (any, error) {
	mode, err := oneQuery(a, "mode")
	if err != nil {
		return nil, err
	}
	if mode != "git" && mode != "branch" {
		return nil, badInput("mode is neither git nor branch", "see GET /doc")
	}
	lines := 2147483647 // whole files, as OpenCode shows them
	if s := a.URL.Query().Get("context"); s != "" {
		if lines, err = strconv.Atoi(s); err != nil || lines < 0 || lines > 2147483647 {
			return nil, badInput("context is no number of lines", "see GET /doc")
		}
	}
	if a.box == nil {
		return []change{}, nil
	}
	if ok, err := d.isRepository(a); err != nil || !ok {
		return []change{}, err
	}
	changes, err := d.status(a)
	if err != nil {
		return nil, err
	}
	base, err := d.head(a)
	if err != nil {
		return nil, err
	}
	if mode == "branch" {
		name, ref, err := d.defaultBranch(a)
		if err != nil {
			return nil, err
		}
		at, err := d.said(a, "symbolic-ref", "--quiet", "--short", "HEAD")
		if err != nil {
			return nil, err
		}
		if ref == "" || at == name || base == "" {
			return []change{}, nil
		}
		if base, err = d.said(a, "merge-base", ref, "HEAD"); err != nil {
			return nil, err
		}
		if base == "" {
			return []change{}, nil
		}
	}
	if base != "" {
		if changes, err = d.since(a, base, changes); err != nil {
			return nil, err
		}
	}
	if changes, err = d.count(a, base, changes); err != nil {
		return nil, err
	}
	return d.patches(a, base, lines, changes)
}

// since lists the changes since base, and the untracked files among those of the work tree.
func (d *Doors) since(a *asked, base string, tree []change) ([]change, error) {
	res, err := d.git(a, maxGit, "diff", "--no-ext-diff", "--no-renames", "--name-status", "-z", base, "--", ".")
	if err != nil {
		return nil, err
	}
	var out []change
	seen := map[string]bool{}
	items := d.items(a, res)
	for i := 0; i+1 < len(items); i += 2 {
		out = append(out, change{File: items[i+1], Status: statusOf(items[i])})
		seen[items[i+1]] = true
	}
	for _, c := range tree {
		if c.untracked && !seen[c.File] {
			out = append(out, c)
		}
	}
	return out, nil
}

// patches fills in each change's patch, up to maxPatch bytes in all; behind that a
// patch has no lines.
func (d *Doors) patches(a *asked, base string, lines int, changes []change) ([]change, error) {
	left := maxPatch
	out := append([]change{}, changes...)
	for i, c := range out {
		diff := ""
		if left > 0 {
			args := []string{"diff", "--patch", "--no-ext-diff", "--no-renames", fmt.Sprintf("--unified=%d", lines)}
			if c.untracked || base == "" {
				args = append(args, "--no-index", "--", "/dev/null", c.File)
			} else {
				args = append(args, base, "--", c.File)
			}
			res, err := d.git(a, int64(left), args...)
			if err != nil {
				return nil, err
			}
			if !res.Truncated {
				diff = strings.ToValidUTF8(string(res.Stdout), "\uFFFD")
			}
			left -= len(res.Stdout)
		}
		if diff == "" {
			a.truncated()
			diff = emptyPatch(c.File)
		}
		out[i].Patch = &diff
	}
	return out, nil
}

// emptyPatch is what OpenCode shows of a file whose patch is too long.
func emptyPatch(file string) string {
	return "Index: " + file + "\n===================================================================\n--- " + file + "\t\n+++ " + file + "\t\n"
}

// vcsDiffRaw answers GET /vcs/diff/raw: one patch of the whole work tree.
func (d *Doors) vcsDiffRaw(a *asked) (any, error) {
	if a.box == nil {
		return patch{}, nil
	}
	if ok, err := d.isRepository(a); err != nil || !ok {
		return patch{}, err
	}
	base, err := d.head(a)
	if err != nil {
		return nil, err
	}
	changes, err := d.status(a)
	if err != nil {
		return nil, err
	}
	var parts [][]byte
	left := int64(maxPatch)
	add := func(args ...string) error {
		if left <= 0 {
			a.truncated()
			return nil
		}
		res, err := d.git(a, left, append([]string{"diff", "--patch", "--no-ext-diff", "--no-renames", "--unified=3"}, args...)...)
		if err != nil {
			return err
		}
		if res.Truncated {
			a.truncated()
		}
		if len(res.Stdout) > 0 {
			left -= int64(len(res.Stdout))
			parts = append(parts, res.Stdout)
		}
		return nil
	}
	if base != "" {
		if err := add(base, "--", "."); err != nil {
			return nil, err
		}
	}
	untracked := 0
	for _, c := range changes {
		if !c.untracked {
			continue
		}
		if untracked++; untracked > maxChanges {
			a.truncated()
			break
		}
		if err := add("--no-index", "--", "/dev/null", c.File); err != nil {
			return nil, err
		}
	}
	return patch(bytes.Join(parts, []byte("\n"))), nil
}
