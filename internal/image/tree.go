package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of what is taken over from the host.
const (
	maxEntries   = 20_000
	maxFileBytes = 16 << 20
	maxAllBytes  = 128 << 20
)

// entry is one thing to be written. Exactly one of Dir, Link, Data and From says what it is.
type entry struct {
	Path string // absolute inside
	Mode fs.FileMode
	Dir  bool   `json:",omitempty"`
	Link string `json:",omitempty"`
	Data string `json:",omitempty"`
	From string `json:",omitempty"` // a file of the host to copy
	Size int64  `json:",omitempty"` // of From, with its time: a change makes another image
	Time int64  `json:",omitempty"`
}

// tree is what is going to be written, before anything is.
type tree struct {
	entries map[string]entry
	order   []string
	binds   []Bind
	visible []string // directories of the host whose files are visible at the same path inside
	bytes   int64
}

func (t *tree) add(e entry) {
	if t.entries == nil {
		t.entries = make(map[string]entry)
	}
	if parent := path.Dir(e.Path); parent != "/" {
		if _, ok := t.entries[parent]; !ok {
			t.dir(parent, 0o755)
		}
	}
	if _, ok := t.entries[e.Path]; !ok {
		t.order = append(t.order, e.Path)
	}
	t.entries[e.Path] = e
}

func (t *tree) dir(p string, mode fs.FileMode)     { t.add(entry{Path: p, Dir: true, Mode: mode}) }
func (t *tree) link(p, to string)                  { t.add(entry{Path: p, Link: to}) }
func (t *tree) text(p, data string, m fs.FileMode) { t.add(entry{Path: p, Data: data, Mode: m}) }
func (t *tree) bind(source, target string)         { t.binds = append(t.binds, Bind{source, target}) }
func (t *tree) copy(p, from string, i fs.FileInfo) {
	t.add(entry{Path: p, From: from, Mode: i.Mode().Perm() &^ 0o022, Size: i.Size(), Time: i.ModTime().UnixNano()})
}
func under(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}
func underAny(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return under(p, d) })
}

// layout adds the directories that every tree has, and the host's programs.
func (t *tree) layout() {
	for _, d := range []string{"/dev", "/etc", "/home", "/media", "/mnt", "/opt", "/proc", "/run", "/run/lock", "/srv", "/sys", "/usr",
		"/var", "/var/cache", "/var/lib", "/var/log", "/var/mail", "/var/spool", Home, Project} {
		t.dir(d, 0o755)
	}
	t.dir("/root", 0o711)
	t.dir("/tmp", fs.ModeSticky|0o777)
	t.dir("/var/tmp", fs.ModeSticky|0o777)
	t.link("/var/run", "/run")
	t.link("/var/lock", "/run/lock")
	t.bind("/usr", "/usr")
	for _, name := range []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		info, err := os.Lstat(name)
		switch {
		case err != nil:
		case info.Mode()&fs.ModeSymlink != 0:
			if to, err := os.Readlink(name); err == nil && under(path.Join("/", to), "/usr") {
				t.link(name, to)
			}
		case info.IsDir():
			t.dir(name, 0o755)
			t.bind(name, name)
			t.visible = append(t.visible, name)
		}
	}
}

// describe writes everything that decides what the tree will be.
func (t *tree) describe(w io.Writer) error {
	enc := json.NewEncoder(w)
	const format = 1 // raise it when the same entries come to mean another tree
	if err := enc.Encode(format); err != nil {
		return err
	}
	for _, p := range slices.Sorted(slices.Values(t.order)) {
		if err := enc.Encode(t.entries[p]); err != nil {
			return err
		}
	}
	return enc.Encode(t.binds)
}

// write makes the tree below dir, which is empty.
func (t *tree) write(ctx context.Context, dir string) error {
	for _, p := range slices.Sorted(slices.Values(t.order)) { // parents come first
		if err := ctx.Err(); err != nil {
			return err
		}
		e, to := t.entries[p], filepath.Join(dir, p)
		var err error
		switch {
		case e.Dir:
			if err = os.Mkdir(to, 0o700); err == nil {
				err = os.Chmod(to, e.Mode)
			}
		case e.Link != "":
			err = os.Symlink(e.Link, to)
		case e.From != "":
			err = copyFile(to, e)
		default:
			if err = os.WriteFile(to, []byte(e.Data), e.Mode); err == nil {
				err = os.Chmod(to, e.Mode)
			}
		}
		if err != nil {
			return fmt.Errorf("image: write %s: %w", p, err)
		}
	}
	return nil
}

func copyFile(to string, e entry) error {
	from, err := os.Open(e.From)
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.LimitReader(from, maxFileBytes))
	return errors.Join(err, f.Chmod(e.Mode), f.Close())
}
