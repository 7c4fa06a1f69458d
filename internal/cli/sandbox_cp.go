package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

type sandboxCpCommand struct {
	JSON  bool     `name:"json" help:"Print one JSON object at the end: files and bytes."`
	Place []string `arg:"" name:"place" help:"SOURCE… TARGET: NAME:PATH in a sandbox, a path of this machine, or - for standard input or output."`
}

// Help is the long help text.
func (sandboxCpCommand) Help() string {
	return `  tongs sandbox cp notes.txt web:              into the project directory
  tongs sandbox cp src web:/tmp/               a directory, as /tmp/src
  tongs sandbox cp web:out.log .
  tongs sandbox cp web:dist ./dist             a directory; into ./dist/dist if there is a ./dist
  pg_dump | tongs sandbox cp - web:dump.sql

Paths in a sandbox begin at its project directory. Files of any size pass; rights (without setuid), times and
symbolic links are kept, owners are not. A single file replaces one of its name in one step. What comes out of a
sandbox stays inside the target, whatever the sandbox says.

A path of this machine that has a colon begins with ./ or /.

EXIT STATUS
  0  everything was copied
  1  it could not be copied, or not all of it; the message says what
  2  wrong usage`
}

// copied counts.
type copied struct {
	Files int64 `json:"files"` // symbolic links, too
	Bytes int64 `json:"bytes"`
}

// maxCopied bounds how many things one cp copies: a sandbox can list for ever.
const maxCopied = 5_000_000

// Run copies.
func (c *sandboxCpCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	if len(c.Place) < 2 {
		return usageError{errors.New("a source and a target are needed: tongs sandbox cp SOURCE… TARGET, with NAME:PATH for what is in a sandbox")}
	}
	var sources []place
	for _, text := range c.Place[:len(c.Place)-1] {
		sources = append(sources, parsePlace(text))
	}
	target := parsePlace(c.Place[len(c.Place)-1])
	name := target.box
	for _, source := range sources {
		switch {
		case source.box == "" && target.box == "":
			return usageError{fmt.Errorf("neither %q nor %q is in a sandbox: write NAME:PATH for that", source.path, target.path)}
		case source.box != "" && target.box != "":
			return usageError{errors.New("from sandbox to sandbox nothing is copied: copy it out and in, or cp A:FILE - | cp - B:FILE")}
		case name != "" && source.box != "" && source.box != name:
			return usageError{errors.New("the sources are of several sandboxes: copy from one at a time")}
		case source.path == "-" && len(sources) > 1 || target.path == "-" && len(sources) > 1:
			return usageError{errors.New("- stands for one file")}
		}
		if source.box != "" {
			name = source.box
		}
	}
	return a.with(ctx, g, name, func(box *sandbox.Client) error {
		k := &copier{box: box, s: s}
		for _, source := range sources {
			var err error
			if source.box == "" {
				err = k.in(ctx, source.path, target.path, len(sources) > 1)
			} else {
				err = k.out(ctx, source.path, target.path, len(sources) > 1)
			}
			if err != nil {
				return err
			}
		}
		if c.JSON {
			return json.NewEncoder(s.stdout).Encode(k.done)
		}
		if isTerminal(s.stderr) && target.path != "-" {
			fmt.Fprintf(s.stderr, "copied: files %d, %s\n", k.done.Files, size(k.done.Bytes))
		}
		return nil
	})
}

// copier copies between this machine and a sandbox.
type copier struct {
	box  *sandbox.Client
	s    *streams
	done copied
}

func (k *copier) count(files, bytes int64) error {
	k.done.Files += files
	k.done.Bytes += bytes
	if k.done.Files > maxCopied {
		return fmt.Errorf("there are more than %d files: copy parts, or an archive (… exec NAME tar c DIR)", maxCopied)
	}
	return nil
}

// in copies into the sandbox.
func (k *copier) in(ctx context.Context, from, to string, several bool) error {
	if from == "-" {
		if to == "" || strings.HasSuffix(to, "/") {
			return usageError{errors.New("standard input needs the name of a file: NAME:FILE")}
		}
		n := &counter{r: k.s.stdin}
		if _, err := k.box.WriteFrom(ctx, to, n, sandbox.WriteOptions{}); err != nil {
			return err
		}
		return k.count(1, n.n)
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	into := to == "" || strings.HasSuffix(to, "/") || several
	target, err := k.box.Stat(ctx, orDot(to))
	switch {
	case err == nil && target.Type == sandbox.TypeDirectory:
		into = true
	case err == nil && into:
		return sandbox.Errf(sandbox.CodeNotDirectory, "copy", to+" is no directory", "")
	case err != nil && sandbox.CodeOf(err) != sandbox.CodeFileNotFound:
		return err
	case err != nil && into && !info.IsDir():
		return sandbox.Errf(sandbox.CodeFileNotFound, "copy", "there is no directory "+to, "make it with: tongs sandbox exec NAME mkdir -p "+to)
	}
	if into {
		abs, err := filepath.Abs(from)
		if err != nil {
			return err
		}
		to = path.Join(orDot(to), filepath.Base(abs))
	}
	if info.IsDir() {
		return k.inTree(ctx, from, to)
	}
	return k.inFile(ctx, from, to, info)
}

func orDot(p string) string {
	if p == "" {
		return "."
	}
	return p
}

func (k *copier) inFile(ctx context.Context, from, to string, info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return sandbox.Errf(sandbox.CodeNotRegular, "copy", from+" is no regular file", "copy - to read a pipe")
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	n := &counter{r: f}
	if _, err := k.box.WriteFrom(ctx, to, n, sandbox.WriteOptions{Mode: uint32(info.Mode().Perm())}); err != nil {
		return err
	}
	// An existing file keeps its rights when it is replaced.
	if err := k.box.Chmod(ctx, to, uint32(info.Mode().Perm())); err != nil {
		return err
	}
	return k.count(1, n.n)
}

// inTree copies a directory: what is there already stays.
func (k *copier) inTree(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		there := path.Join(to, filepath.ToSlash(rel))
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case info.IsDir():
			if err := k.box.Mkdir(ctx, there, true); err != nil {
				return err
			}
			return k.box.Chmod(ctx, there, uint32(info.Mode().Perm()|0o700))
		case info.Mode()&os.ModeSymlink != 0:
			link, err := os.Readlink(name)
			if err != nil {
				return err
			}
			err = k.box.Symlink(ctx, link, there)
			if sandbox.CodeOf(err) == sandbox.CodeFileExists {
				if err = k.box.RemoveFile(ctx, there, false); err == nil {
					err = k.box.Symlink(ctx, link, there)
				}
			}
			if err != nil {
				return err
			}
			return k.count(1, 0)
		case !info.Mode().IsRegular():
			fmt.Fprintf(k.s.stderr, "tongs: left out: %s is no regular file\n", printable(name))
			return nil
		}
		return k.inFile(ctx, name, there, info)
	})
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
