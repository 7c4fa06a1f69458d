package project

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/sandbox"
)

// repo is what is taken of one repository besides its files and objects.
type repo struct {
	Plain  bool   // it is none: one is made
	Prefix string // its directory below the project's; "" for the project's own

	Dir, Common string   // of git: what belongs to this work tree, and what to all of them
	Alternates  []string // further directories of objects
	Format      string   // of objects: sha1 or sha256
	Head        string   // the branch's full name, or "" when none is checked out
	Commit      string   // that is checked out; "" before the first one
	Refs        []ref
	Config      []setting
	Index       stat // of the index; zero when there is none
	Shared      []string
	Files       map[string][]byte // of its git directory: small ones
}

type ref struct{ Name, Object, Symbolic string }

type setting struct{ Key, Value string }

// smallFiles are the files of a git directory that are taken, and the directory that has them.
var smallFiles = []struct {
	name   string
	common bool
}{
	{"shallow", true}, {"info/exclude", true}, {"info/attributes", true}, {"info/sparse-checkout", false},
	{"MERGE_HEAD", false}, {"MERGE_MSG", false}, {"MERGE_MODE", false}, {"CHERRY_PICK_HEAD", false}, {"REVERT_HEAD", false},
}

// maxSmallFile bounds each of them.
const maxSmallFile = 4 << 20

var validOID = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// readRepo asks git about the repository whose work tree is g's directory.
func readRepo(ctx context.Context, g *git, prefix string) (*repo, error) {
	out, err := g.run(ctx, nil, maxSmall, "rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir", "--show-object-format", "--is-bare-repository", "--show-toplevel")
	if err != nil {
		return nil, notReadable(g.dir, err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != 5 || lines[3] == "true" {
		return nil, sandbox.Errf(sandbox.CodeNotSupported, opTake, fmt.Sprintf("the repository of %s has no work tree, or an odd path", g.dir), "name a directory with a work tree")
	}
	if top, err := filepath.EvalSymlinks(lines[4]); err != nil || top != g.dir {
		return nil, sandbox.Errf(sandbox.CodeNotSupported, opTake, fmt.Sprintf("the work tree of the repository in %s is %s", g.dir, lines[4]), "name that directory")
	}
	r := &repo{Prefix: prefix, Dir: lines[0], Common: lines[1], Format: lines[2], Files: map[string][]byte{}}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { r.Refs, err = readRefs(gctx, g); return err })
	group.Go(func() (err error) { r.Config, err = readConfig(gctx, g); return err })
	group.Go(func() (err error) { r.Alternates, err = readAlternates(gctx, g); return err })
	group.Go(func() error {
		head, err := g.line(gctx, "symbolic-ref", "-q", "HEAD")
		if err != nil && exitCode(err) != 1 {
			return err
		}
		r.Head = head
		commit, err := g.line(gctx, "rev-parse", "--verify", "-q", "HEAD^0")
		if err != nil && exitCode(err) != 1 {
			return err
		}
		if err == nil && !validOID.MatchString(commit) {
			return fmt.Errorf("git gives %.80q for HEAD", commit)
		}
		r.Commit = commit
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := r.readFiles(ctx, g); err != nil {
		return nil, err
	}
	return r, nil
}

func notReadable(dir string, err error) error {
	hint := "look at what `git -C " + dir + " status` says"
	var f *gitFailure
	if errors.As(err, &f) && strings.Contains(f.said, "dubious ownership") {
		hint = "it belongs to another user; if you trust it: git config --global --add safe.directory " + dir
	}
	return &sandbox.Error{Code: sandbox.CodeInvalidArgument, Op: opTake, Message: "git cannot read " + dir + ": " + err.Error(), Hint: hint, Err: err}
}

func readRefs(ctx context.Context, g *git) ([]ref, error) {
	out, err := g.run(ctx, nil, maxListing, "for-each-ref", "--format=%(objectname) %(refname) %(symref)")
	if err != nil {
		return nil, err
	}
	var refs []ref
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) != 3 || !validOID.MatchString(f[0]) || !validRef(f[1]) || f[2] != "" && !validRef(f[2]) {
			return nil, fmt.Errorf("git for-each-ref gives %.200q", line)
		}
		refs = append(refs, ref{f[1], f[0], f[2]})
	}
	return refs, nil
}

// validRef says whether a name can be a file of a repository.
func validRef(name string) bool {
	return strings.HasPrefix(name, "refs/") && filepath.IsLocal(name) && filepath.Clean(name) == name &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// readAlternates gives the directories whose objects are the repository's too.
func readAlternates(ctx context.Context, g *git) ([]string, error) {
	out, err := g.run(ctx, nil, maxSmall, "count-objects", "-v")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for line := range strings.Lines(string(out)) {
		dir, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "alternate: ")
		if !ok {
			continue
		}
		if !filepath.IsAbs(dir) {
			return nil, sandbox.Errf(sandbox.CodeNotSupported, opTake, fmt.Sprintf("the repository in %s borrows objects from %.200s", g.dir, dir), "git repack -a -d && rm .git/objects/info/alternates")
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// keptSettings are the settings that decide how files and history are read. Everything else stays outside: it
// may hold secrets or name programs.
var keptSettings = []string{
	"core.autocrlf", "core.eol", "core.filemode", "core.symlinks", "core.ignorecase", "core.sparsecheckout", "core.sparsecheckoutcone", "index.sparse",
	"extensions.partialclone",
}

func readConfig(ctx context.Context, g *git) ([]setting, error) {
	out, err := g.run(ctx, nil, maxListing, "config", "-z", "--list")
	if err != nil {
		return nil, err
	}
	var all []setting
	for raw := range bytes.SplitSeq(out, []byte{0}) {
		key, value, _ := strings.Cut(string(raw), "\n")
		if v, ok := keptSetting(key, value); ok {
			all = append(all, setting{key, v})
		}
	}
	return all, nil
}

// keptSetting says whether a setting is taken, and as what.
func keptSetting(key, value string) (string, bool) {
	if slices.Contains(keptSettings, key) {
		return value, true
	}
	first, last := strings.IndexByte(key, '.'), strings.LastIndexByte(key, '.')
	if first < 0 || first == last || strings.ContainsAny(key, "\n\x00") || strings.ContainsRune(value, 0) {
		return "", false
	}
	switch key[:first] + "." + key[last+1:] {
	case "remote.url", "submodule.url":
		return cleanURL(value)
	case "remote.fetch", "remote.promisor", "remote.partialclonefilter", "branch.remote", "branch.merge", "branch.rebase", "submodule.active":
		return value, true
	}
	return "", false
}

var scpLike = regexp.MustCompile(`^[A-Za-z0-9._~-]+@[A-Za-z0-9.-]+:[^:]`)

// cleanURL takes the secrets out of a URL; one that means nothing in a sandbox is left out.
func cleanURL(text string) (string, bool) {
	if scpLike.MatchString(text) && !strings.Contains(text, "://") {
		return text, true
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "", false
	}
	switch u.Scheme {
	case "https", "http", "git":
		u.User, u.RawQuery, u.Fragment = nil, "", ""
	case "ssh":
		if u.User != nil {
			u.User = url.User(u.User.Username())
		}
	default:
		return "", false
	}
	return u.String(), true
}

// readFiles looks at the index and reads the small files.
func (r *repo) readFiles(ctx context.Context, g *git) error {
	read := func(dir, name string) ([]byte, error) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		info, err := root.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil
		case err != nil:
			return nil, err
		case !info.Mode().IsRegular() || info.Size() > maxSmallFile:
			return nil, nil
		}
		return root.ReadFile(name)
	}
	for _, f := range smallFiles {
		dir := r.Dir
		if f.common {
			dir = r.Common
		}
		data, err := read(dir, f.name)
		if err != nil {
			return err
		}
		if data != nil {
			r.Files[f.name] = data
		}
	}
	// What the user ignores everywhere is ignored in the sandbox too.
	if own, err := g.line(ctx, "config", "--type=path", "--get", "core.excludesFile"); err == nil || exitCode(err) == 1 {
		r.addExcludes(g, own)
	}
	names, err := os.ReadDir(r.Dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		if strings.HasPrefix(e.Name(), "sharedindex.") && e.Type().IsRegular() {
			r.Shared = append(r.Shared, e.Name())
		}
	}
	dir, err := os.Open(r.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	st, err := statAt(int(dir.Fd()), "index")
	if err == nil {
		r.Index = st
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sparse says whether the index may leave directories out.
func (r *repo) sparse() bool {
	for _, s := range r.Config {
		if s.Key == "index.sparse" && s.Value == "true" {
			return true
		}
	}
	return false
}

// lister gives a git that lists the files and touches nothing. A split index is read from a copy, since git marks the shared part as used
// whenever it reads it.
func (r *repo) lister(g *git, owner stat) (lister *git, done func(), err error) {
	if len(r.Shared) == 0 {
		return g, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "tongs-index-")
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	put := func(name string, data []byte) error { return os.WriteFile(filepath.Join(dir, name), data, 0o644) }
	err = errors.Join(put("HEAD", []byte("ref: refs/heads/none\n")), put("commondir", []byte(r.Common+"\n")))
	root, oerr := os.OpenRoot(r.Dir)
	if err = errors.Join(err, oerr); err != nil {
		return nil, nil, err
	}
	defer root.Close()
	for _, name := range append([]string{"index"}, r.Shared...) {
		data, err := root.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		if err == nil {
			if err := put(name, data); err != nil {
				return nil, nil, err
			}
		}
	}
	if g.as != nil {
		if err := os.Chown(dir, int(owner.UID), int(owner.GID)); err != nil {
			return nil, nil, err
		}
	}
	return g.with("GIT_DIR="+dir, "GIT_WORK_TREE="+g.dir), func() { os.RemoveAll(dir) }, nil
}

// addExcludes adds the patterns of the user's own file to those of the repository.
func (r *repo) addExcludes(g *git, own string) {
	if own == "" {
		for _, kv := range g.env {
			if home, ok := strings.CutPrefix(kv, "HOME="); ok && own == "" {
				own = filepath.Join(home, ".config/git/ignore")
			} else if config, ok := strings.CutPrefix(kv, "XDG_CONFIG_HOME="); ok {
				own = filepath.Join(config, "git/ignore")
			}
		}
	}
	if g.as != nil { // root does not read a file that another user has named
		return
	}
	info, err := os.Stat(own)
	if err != nil || !info.Mode().IsRegular() || info.Size() > 256<<10 {
		return
	}
	if data, err := os.ReadFile(own); err == nil {
		r.Files["info/exclude"] = slices.Concat(data, []byte("\n"), r.Files["info/exclude"])
	}
}

// describe adds all that to a fingerprint.
func (r *repo) describe(w hash.Hash) {
	fmt.Fprintf(w, "repo %v %q %q %q %q %q %q %q %+v %q\n", r.Plain, r.Prefix, r.Dir, r.Common, r.Alternates, r.Format, r.Head, r.Commit, r.Index, r.Shared)
	for _, ref := range r.Refs {
		fmt.Fprintf(w, "%q\n", ref)
	}
	for _, s := range r.Config {
		fmt.Fprintf(w, "%q\n", s)
	}
	for _, f := range smallFiles {
		writeText(w, string(r.Files[f.name]))
	}
}
