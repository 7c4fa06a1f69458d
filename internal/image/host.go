package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/sandbox"
)

// The places that every tree of ours has, and who owns them.
const (
	UserID  = 1000
	Home    = "/home/user"
	Project = "/home/user/project"
)

// HostConfig says how to make the host image. Only Dir is required.
type HostConfig struct {
	// Dir is where images are kept; it is made if need be.
	Dir string

	// Environ is the environment from which PATH and the variables about certificates are taken.
	// Default: the process's own.
	Environ []string

	// OneID makes a tree whose files all belong to the calling user, also where that user has a range of
	// ids. Root has no use for it.
	OneID bool

	// Git is the git with which the project's repository is made. Default: the first on PATH.
	Git string

	// etc and homes are replaced in tests.
	etc   string
	homes []string
}

// Note is something worth telling about an image: a toolchain that is visible inside, or one that
// isn't and why.
type Note struct {
	Subject string // "git", or a directory of the host
	Visible bool
	Detail  string
}

// hostPrefix begins the names of trees of the host image.
const hostPrefix = "host-"

// staleAfter is when a build that never finished may be removed.
const staleAfter = time.Hour

// Host makes the host image, or finds it when nothing it is made from has changed since. Made by an ordinary
// user who has a range of ids, it has a Map.
func Host(ctx context.Context, cfg HostConfig) (Root, []Note, error) {
	var m idmap.Map
	if !cfg.OneID {
		m, _ = idmap.Find() // why there is none is told by whoever examines the machine
	}
	root, notes, err := host(ctx, cfg, m)
	if sandbox.CodeOf(err) == sandbox.CodeMachineNotSupported && !m.None() {
		// The ranges are there and can't be used. One id is better than no sandbox.
		note := Note{Subject: "user ids", Detail: err.Error()}
		root, notes, err = host(ctx, cfg, idmap.Map{})
		notes = append(notes, note)
	}
	return root, notes, err
}

func host(ctx context.Context, cfg HostConfig, m idmap.Map) (Root, []Note, error) {
	if cfg.Environ == nil {
		cfg.Environ = os.Environ()
	}
	if cfg.etc == "" {
		cfg.etc = "/etc"
	}
	t := &tree{visible: []string{"/usr"}}
	t.layout()
	tools := findTools(cfg, t)
	if err := t.addEtc(cfg.etc); err != nil {
		return Root{}, nil, err
	}
	env := environment(cfg, t, tools)
	git, gitNote := findGit(cfg)
	t.repository(git)

	sum := sha256.New()
	if err := t.describe(sum); err != nil {
		return Root{}, nil, err
	}
	fmt.Fprint(sum, m.Tag())
	root := Root{
		Map:   m,
		ID:    hostPrefix + hex.EncodeToString(sum.Sum(nil))[:16],
		Small: true,
		Binds: t.binds,
		Env:   env,
		Shell: shell(),
	}
	dir := filepath.Join(cfg.Dir, root.ID)
	root.Lower = []string{dir}
	notes := append(tools.notes, gitNote)
	if _, err := os.Stat(dir); err == nil {
		return root, notes, nil
	}
	if err := build(ctx, cfg.Dir, dir, t, git, m); err != nil {
		return Root{}, nil, err
	}
	return root, notes, nil
}

// build writes the tree beside its place and moves it there in one step.
func build(ctx context.Context, parent, dir string, t *tree, git string, m idmap.Map) (err error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("image: make directory for images: %w", err)
	}
	removeStale(ctx, parent, m)
	tmp, err := os.MkdirTemp(parent, ".new-")
	if err != nil {
		return fmt.Errorf("image: make directory for a new image: %w", err)
	}
	defer func() {
		if _, serr := os.Lstat(tmp); serr == nil {
			err = errors.Join(err, idmap.RemoveAll(context.WithoutCancel(ctx), m, tmp))
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := t.write(ctx, tmp); err != nil {
		return err
	}
	if git != "" {
		if err := makeRepository(ctx, git, filepath.Join(tmp, Project)); err != nil {
			return err
		}
	}
	if m.None() {
		err = chownHome(filepath.Join(tmp, Home))
	} else {
		err = unreached(parent, giveAway.Run(ctx, m, tmp, idmap.Streams{}))
	}
	if err != nil {
		return err
	}
	err = os.Rename(tmp, dir)
	if err != nil {
		if _, serr := os.Stat(dir); serr == nil {
			return nil // somebody else was quicker; theirs is the same
		}
		return fmt.Errorf("image: put the new image in place: %w", err)
	}
	return nil
}

// unreached says what keeps the ids of sandboxes from a directory: rights over what is on the way there take that both
// its owner and its group are the user's own (capabilities(7), user_namespaces(7)), or that everybody may pass.
func unreached(dir string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return &sandbox.Error{Code: sandbox.CodePermissionDenied, Op: "make image", Message: err.Error(), Err: err,
		Hint: fmt.Sprintf("a directory on the way to %s is closed to others and of another group than yours: chgrp %d it, or chmod o+x it", dir, os.Getgid())}
}

func removeStale(ctx context.Context, parent string, m idmap.Map) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), ".new-") && time.Since(info.ModTime()) > staleAfter {
			_ = idmap.RemoveAll(ctx, m, filepath.Join(parent, e.Name())) // the next one tries again
		}
	}
}

func shell() string {
	for _, p := range []string{"/bin/bash", "/usr/bin/bash"} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return "/bin/sh"
}
