package project

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// seedDir has what package snapshot begins with in a sandbox: objects, and the name of a tree of them that is the project as it was taken
// in. Without it the first state of a large project takes many times longer, and a turn of the agent waits for that.
const seedDir = insideOwn + "/seed"

// MaxSeedFile is the size of a file from which on it is not in that tree; snapshot.MaxFileBytes.
const MaxSeedFile = 2 << 20

// seed makes it: the objects are other names of the repository's own, which the agent may remove there.
func (b *builder) seed() error {
	if b.l.Format != "sha1" {
		return nil // as which package snapshot keeps its states
	}
	tree := filepath.Join(b.l.Root(), inside)
	dir := filepath.Join(tree, ".git")
	index := filepath.Join(b.l.dir, "seed.index")
	defer os.Remove(index)
	g := ourGit(b.sc.program, dir, tree).with("GIT_INDEX_FILE=" + index)
	if _, err := g.line(b.ctx, "read-tree", b.l.Base); err != nil {
		return err
	}
	out, err := g.run(b.ctx, nil, maxListing, "ls-files", "-s", "-z")
	if err != nil {
		return err
	}
	large := map[string]bool{}
	for _, e := range b.st.entries {
		large[e.Path] = e.Stat.Size > MaxSeedFile
	}
	var not []byte
	for line := range bytes.SplitSeq(out, []byte{0}) {
		about, name, _ := strings.Cut(string(line), "\t")
		if strings.HasPrefix(about, gitlink+" ") || large[name] {
			not = append(append(not, name...), 0)
		}
	}
	if len(not) > 0 {
		if _, err := g.run(b.ctx, not, maxSmall, "update-index", "-z", "--force-remove", "--stdin"); err != nil {
			return err
		}
	}
	id, err := g.line(b.ctx, "write-tree")
	if err != nil {
		return err
	}
	from, to := filepath.Join(dir, "objects"), filepath.Join(b.l.Root(), seedDir)
	err = filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if err == nil {
			err = b.ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, "objects", rel), 0o755)
		}
		return os.Link(p, filepath.Join(to, "objects", rel))
	})
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrInvalid) {
		return os.RemoveAll(to) // no links here: it is only slower without
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "tree"), []byte(id+"\n"), 0o644)
}
