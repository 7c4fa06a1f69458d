package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tongs-dev/tongs/internal/image/layer"
	"github.com/tongs-dev/tongs/sandbox"
)

func digest(data []byte) string { sum := sha256.Sum256(data); return hex.EncodeToString(sum[:]) }

// additionsTime is the time of all that is added: the same additions are the same bytes.
var additionsTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// maxAccounts bounds the files of accounts that are read.
const maxAccounts = 1 << 20

// hostBundles are where machines keep the certificates that they trust, all in one file.
var hostBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/ca-bundle.pem", "/var/lib/ca-certificates/ca-bundle.pem", "/etc/ssl/cert.pem",
}

// localCertificates is where Debian's update-ca-certificates looks for what it doesn't know itself.
const localCertificates = "/usr/local/share/ca-certificates"

// addition is one thing that a sandbox needs and an image lacks.
type addition struct {
	tar.Header
	data []byte
}

// additions are the topmost layer of an image: what sandboxes have whatever they are made from.
type additions struct {
	under layer.Union
	list  []addition
	there map[string]bool
}

// dir adds a directory, with those around it. One that the image has stays what it is.
func (a *additions) dir(p string, mode int64, uid int) {
	if p == "." || p == "" || a.there[p] {
		return
	}
	a.dir(path.Dir(p), 0o755, 0)
	a.there[p] = true
	h := tar.Header{Typeflag: tar.TypeDir, Name: p, Mode: mode, Uid: uid, Gid: uid}
	if info, err := a.under.Lstat(p); err == nil && info.IsDir() {
		st := info.Sys().(*syscall.Stat_t)
		h.Mode, h.Uid, h.Gid = int64(st.Mode&0o7777), int(st.Uid), int(st.Gid)
		if h.Uid >= layer.IDs || h.Gid >= layer.IDs || os.Geteuid() != 0 {
			h.Uid, h.Gid = uid, uid // an ordinary user's files have other owners outside
		}
	}
	a.list = append(a.list, addition{Header: h})
}

func (a *additions) file(p string, data []byte, mode int64, uid int) {
	a.dir(path.Dir(p), 0o755, uid)
	a.there[p] = true
	a.list = append(a.list, addition{tar.Header{Typeflag: tar.TypeReg, Name: p, Mode: mode, Uid: uid, Gid: uid, Size: int64(len(data))}, data})
}

func (a *additions) has(p string) bool { _, err := a.under.Lstat(p); return err == nil }

func (a *additions) isDir(p string) bool {
	info, err := a.under.Lstat(p)
	return err == nil && info.IsDir()
}

// archive gives the additions as a layer.
func (a *additions) archive() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range a.list {
		e.ModTime, e.Format = additionsTime, tar.FormatPAX
		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// Root gives the root file system of an image for a sandbox: its layers, and on top of them one of ours,
// made once, that adds what the image lacks. The image must be kept from being removed: see Use.
func (s *Store) root(ctx context.Context, op string, im Image) (Root, error) {
	lower := s.lower(im)
	u, err := layer.OpenUnion(lower)
	if err != nil {
		return Root{}, sandbox.FileError(op, err)
	}
	defer u.Close()
	a := &additions{under: u, there: make(map[string]bool)}
	for _, d := range []struct {
		path string
		mode int64
	}{{"dev", 0o755}, {"etc", 0o755}, {"proc", 0o555}, {"sys", 0o555}, {"run", 0o755}, {"root", 0o700}, {"tmp", 0o1777}, {"var/tmp", 0o1777}} {
		if !a.isDir(d.path) {
			a.dir(d.path, d.mode, 0)
		}
	}
	a.accounts()
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		a.file("etc/"+name, []byte(etcOwn[name]), 0o644, 0)
	}
	if !a.has("etc/nsswitch.conf") {
		a.file("etc/nsswitch.conf", []byte(etcOwn["nsswitch.conf"]), 0o644, 0)
	}
	if err := s.home(ctx, a); err != nil {
		return Root{}, err
	}
	env := a.environment(im.Env, s.cfg.Environ)
	data, err := a.archive()
	if err != nil {
		return Root{}, &sandbox.Error{Code: sandbox.CodeInternal, Op: op, Message: "what sandboxes need besides the image can't be put together: " + err.Error(), Err: err}
	}
	own := "sha256:" + digest(data)
	err = s.layer(ctx, op, part{own, int64(len(data)), func(context.Context) (io.Reader, func(bool), error) {
		return bytes.NewReader(data), func(bool) {}, nil
	}}, func(Progress) {})
	if err != nil {
		return Root{}, err
	}
	shell := im.Shell
	if shell == "" {
		shell = "/bin/sh"
	}
	return Root{ID: im.ID + "-" + ShortID(own), Lower: slices.Concat([]string{s.tree(own)}, lower), Map: s.ids, Env: env, Shell: shell}, nil
}

// accounts adds the sandbox's user, and root, where the image has no such ids.
func (a *additions) accounts() {
	read := func(p string) [][]string {
		data, err := a.under.ReadFile(p, maxAccounts)
		if err != nil {
			return nil
		}
		var all [][]string
		for line := range strings.SplitSeq(string(data), "\n") {
			if line != "" {
				all = append(all, strings.Split(line, ":"))
			}
		}
		return all
	}
	write := func(p string, all [][]string) {
		var b strings.Builder
		for _, fields := range all {
			b.WriteString(strings.Join(fields, ":") + "\n")
		}
		a.file(p, []byte(b.String()), 0o644, 0)
	}
	field := func(all [][]string, i int, value string) int {
		return slices.IndexFunc(all, func(f []string) bool { return len(f) > i && f[i] == value })
	}
	id := strconv.Itoa(UserID)
	free := func(all [][]string) string {
		for _, name := range []string{"user", "sandbox", "tongs"} {
			if field(all, 0, name) < 0 {
				return name
			}
		}
		return "user" + id
	}
	shell := "/bin/sh"
	if a.under.Executable("/bin/bash") {
		shell = "/bin/bash"
	}
	passwd, group := read("etc/passwd"), read("etc/group")
	if field(passwd, 2, "0") < 0 {
		passwd = append(passwd, []string{"root", "x", "0", "0", "root", "/root", shell})
	}
	if i := field(passwd, 2, id); i < 0 {
		passwd = append(passwd, []string{free(passwd), "x", id, id, "user", Home, shell})
	} else if len(passwd[i]) > 5 { // it keeps its name; what is its home is the sandbox's home
		passwd[i][5] = Home
	}
	if field(passwd, 0, "nobody") < 0 && field(passwd, 2, "65534") < 0 {
		passwd = append(passwd, []string{"nobody", "x", "65534", "65534", "nobody", "/nonexistent", "/bin/false"})
	}
	for _, g := range []struct{ name, id string }{{"root", "0"}, {"tty", "5"}, {free(group), id}} {
		if field(group, 2, g.id) < 0 && field(group, 0, g.name) < 0 {
			group = append(group, []string{g.name, "x", g.id, ""})
		}
	}
	write("etc/passwd", passwd)
	write("etc/group", group)
}

// home adds the user's home, and in it the project: a git repository, where this machine has git.
func (s *Store) home(ctx context.Context, a *additions) error {
	home, project := strings.TrimPrefix(Home, "/"), strings.TrimPrefix(Project, "/")
	a.dir(home, 0o755, UserID)
	if !a.has(home + "/.gitconfig") {
		a.file(home+"/.gitconfig", []byte(gitConfig), 0o644, UserID)
	}
	if a.has(project) {
		a.dir(project, 0o755, UserID)
		return nil
	}
	a.dir(project, 0o755, UserID)
	repository, err := s.projectRepository(ctx, project)
	a.list = append(a.list, repository...)
	return err
}

// projectRepository gives the files of a repository with one empty commit. It is made once in each process.
func (s *Store) projectRepository(ctx context.Context, project string) ([]addition, error) {
	const op = "make repository"
	git, _ := findGit(HostConfig{Environ: s.cfg.Environ, Git: s.cfg.Git})
	if git == "" {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.repository != nil {
		return s.repository, nil
	}
	tmp, err := os.MkdirTemp("", "tongs-repository-")
	if err != nil {
		return nil, sandbox.FileError(op, err)
	}
	defer os.RemoveAll(tmp)
	if err := makeRepository(ctx, git, tmp); err != nil {
		return nil, err
	}
	var all []addition
	err = filepath.WalkDir(tmp, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == tmp {
			return err
		}
		rel, err := filepath.Rel(tmp, p)
		if err != nil {
			return err
		}
		h := tar.Header{Name: path.Join(project, filepath.ToSlash(rel)), Uid: UserID, Gid: UserID}
		switch {
		case e.IsDir():
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
			all = append(all, addition{Header: h})
		case e.Type().IsRegular() && e.Name() != "index": // that one holds times
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			h.Typeflag, h.Mode, h.Size = tar.TypeReg, 0o644, int64(len(data))
			all = append(all, addition{h, data})
		}
		return nil
	})
	if err != nil {
		return nil, sandbox.FileError(op, err)
	}
	s.repository = all
	return all, nil
}

// dropped are variables of an image that the sandbox decides.
var dropped = []string{"HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "HOSTNAME", "TMPDIR"}

// environment gives what commands start with: the image's, and the certificates that this machine trusts.
func (a *additions) environment(image, host []string) []string {
	var env []string
	for _, kv := range image {
		if name, _, ok := strings.Cut(kv, "="); ok && name != "" && !slices.Contains(dropped, name) && name != "PATH" && !strings.ContainsRune(kv, 0) {
			env = append(env, kv)
		}
	}
	env = append(env, "PATH="+Home+"/.local/bin:"+imagePath(image))
	if lookup(env, "LANG") == "" && lookup(env, "LC_ALL") == "" {
		env = append(env, "LANG=C.UTF-8")
	}
	bundle, places := "", a.bundles()
	if bundle = firstFile(hostBundles); bundle != "" {
		if data, err := readBounded(bundle); err == nil {
			for _, p := range places {
				have, _ := a.under.ReadFile(p, maxFileBytes)
				a.file(p, mergeCertificates(have, data), 0o644, 0)
			}
		}
	}
	if names, err := filepath.Glob(localCertificates + "/*.crt"); err == nil {
		for _, p := range names[:min(len(names), 100)] {
			if data, err := readBounded(p); err == nil && !a.has(p[1:]) {
				a.file(p[1:], data, 0o644, 0)
			}
		}
	}
	copies := make(map[string]string)
	for _, name := range certificateVars {
		value := lookup(host, name)
		if !filepath.IsAbs(value) {
			continue
		}
		inside := copies[value]
		if slices.Contains(hostBundles, filepath.Clean(value)) && bundle != "" {
			inside = "/" + places[0]
		}
		if inside == "" {
			data, err := readBounded(value)
			if err != nil {
				continue
			}
			inside = fmt.Sprintf("/etc/ssl/tongs/%d-%s", len(copies)+1, filepath.Base(value))
			copies[value] = inside
			a.file(inside[1:], data, 0o644, 0)
		}
		env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		env = append(env, name+"="+inside)
	}
	return env
}

// bundles gives where the image keeps all certificates in one file, links followed; where it has none, the
// place that most programs look at.
func (a *additions) bundles() []string {
	var places []string
	for _, p := range hostBundles {
		at, info, err := a.under.Resolve(p)
		if err == nil && info.Mode().IsRegular() && !slices.Contains(places, at) {
			places = append(places, at)
		}
	}
	if len(places) == 0 {
		dir := "etc/ssl/certs"
		if at, info, err := a.under.Resolve(dir); err == nil && info.IsDir() {
			dir = at
		}
		places = []string{dir + "/ca-certificates.crt"}
	}
	return places
}

func firstFile(paths []string) string {
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
			return p
		}
	}
	return ""
}

// readBounded reads a file of the host that everybody may read.
func readBounded(p string) ([]byte, error) {
	info, err := os.Stat(p)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o004 == 0 || info.Size() > maxFileBytes {
		return nil, errors.New("not a file of moderate size that everybody may read")
	}
	return os.ReadFile(p)
}

// mergeCertificates gives have with those of more that it lacks.
func mergeCertificates(have, more []byte) []byte {
	known := make(map[[sha256.Size]byte]bool)
	for rest := have; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		known[sha256.Sum256(b.Bytes)] = true
	}
	out := bytes.NewBuffer(slices.Clone(have))
	if n := len(have); n > 0 && have[n-1] != '\n' {
		out.WriteByte('\n')
	}
	for rest := more; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if sum := sha256.Sum256(b.Bytes); b.Type == "CERTIFICATE" && !known[sum] {
			known[sum] = true
			_ = pem.Encode(out, &pem.Block{Type: b.Type, Bytes: b.Bytes}) // into memory
		}
	}
	return out.Bytes()
}

// imagePath is the PATH of an image.
func imagePath(env []string) string {
	if p := lookup(env, "PATH"); p != "" {
		return p
	}
	return strings.Join(standardPath, ":")
}

// wanted are the programs that agents and Tongs make use of.
var wanted = []string{"bash", "git", "rg", "python3", "node"}

// look says which shell and which tools an image has.
func look(u layer.Union, env []string) (shell string, all []Tool) {
	find := func(name string) string {
		for dir := range strings.SplitSeq(imagePath(env), ":") {
			if p := path.Join(dir, name); path.IsAbs(p) && u.Executable(p) {
				return p
			}
		}
		return ""
	}
	for _, name := range wanted {
		all = append(all, Tool{name, find(name)})
	}
	if shell = all[0].Path; shell == "" {
		shell = find("sh")
	}
	return shell, all
}
