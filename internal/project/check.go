package project

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// check refuses what could do harm outside: names that git or a file system would take for something else, links
// that lead out, and more bytes than anybody wants.
func (w *Work) check(ctx context.Context, all []Change, opts BringOptions) error {
	sizes := map[string]int64{}
	var links []Change
	var ask bytes.Buffer
	for _, c := range all {
		if c.Status == 'D' || c.NewMode == gitlink {
			continue
		}
		if why := badPath(c.Path); why != "" {
			return unsafe(fmt.Sprintf("the name %q is refused: %s", c.Path, why))
		}
		switch c.NewMode {
		case "100644", "100755":
		case linkMode:
			links = append(links, c)
		default:
			return unsafe(fmt.Sprintf("%q is of the kind %s, which is refused", c.Path, c.NewMode))
		}
		if _, ok := sizes[c.NewID]; !ok {
			sizes[c.NewID] = 0
			ask.WriteString(c.NewID + "\n")
		}
	}
	out, err := w.git.run(ctx, ask.Bytes(), maxListing, "cat-file", "--batch-check=%(objectname) %(objectsize)")
	if err != nil {
		return err
	}
	var sum int64
	for line := range strings.Lines(string(out)) {
		id, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return unsafe(fmt.Sprintf("the object %.64q is missing", id))
		}
		sizes[id] = n
		if sum += n; n > MaxFileBytes || sum > MaxAllBytes {
			return sandbox.Errf(sandbox.CodeFileTooLarge, "bring out work", fmt.Sprintf("what changed in the sandbox is larger than is brought out: %d MiB for one file, %d MiB together", MaxFileBytes>>20, MaxAllBytes>>20),
				"let a .gitignore there leave out large files, or copy what you need: tongs sandbox cp")
		}
	}
	if opts.OutsideLinks || len(links) == 0 {
		return nil
	}
	return w.checkLinks(ctx, links, sizes)
}

// checkLinks refuses links that lead out of the project.
func (w *Work) checkLinks(ctx context.Context, links []Change, sizes map[string]int64) error {
	const longest = 4096 // no link is longer
	var ask bytes.Buffer
	for _, c := range links {
		if sizes[c.NewID] > longest {
			return unsafe(fmt.Sprintf("the link %q is longer than any can be", c.Path))
		}
		ask.WriteString(c.NewID + "\n")
	}
	out, err := w.git.run(ctx, ask.Bytes(), int64(len(links))*(longest+128), "cat-file", "--batch=%(objectsize)")
	if err != nil {
		return err
	}
	r := bufio.NewReader(bytes.NewReader(out))
	for _, c := range links {
		line, err := r.ReadString('\n')
		n, nerr := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || nerr != nil || n < 0 || n > longest {
			return fmt.Errorf("git gives %.100q for an object", line)
		}
		target := make([]byte, n+1)
		if _, err := io.ReadFull(r, target); err != nil {
			return err
		}
		if to := string(target[:n]); leadsOut(c.Path, to) {
			return sandbox.Errf(CodeUnsafe, "bring out work", fmt.Sprintf("the link %q leads out of the project, to %q", c.Path, to),
				"remove it in the sandbox; or, if that is meant, allow it: --outside-links")
		}
	}
	return nil
}

// leadsOut says whether a link at name goes to a place above or beside the project, or into its .git.
func leadsOut(name, target string) bool {
	if strings.HasPrefix(target, "/") {
		return true
	}
	at := path.Dir(name)
	for _, part := range strings.Split(target, "/") {
		at = path.Join(at, part)
		if at == ".." || strings.HasPrefix(at, "../") {
			return true
		}
	}
	return at != "." && badPath(at) != ""
}

// badPath says why a name is refused, or "".
func badPath(name string) string {
	if name == "" || len(name) > 4096 {
		return "no file can be called so"
	}
	for _, part := range strings.Split(name, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return "it leads elsewhere"
		case len(part) > 255:
			return "no file can be called so"
		case isDotGit(part):
			return "some system takes a part of it for .git"
		}
	}
	return ""
}

// isDotGit says whether some file system would take a name for .git: case, trailing dots and spaces, streams, short
// names, and characters that a file system ignores.
func isDotGit(part string) bool {
	part = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, part)
	part, _, _ = strings.Cut(part, ":")
	part, _, _ = strings.Cut(part, `\`)
	part = strings.ToLower(strings.TrimRight(part, ". "))
	return part == ".git" || part == "git~1"
}
