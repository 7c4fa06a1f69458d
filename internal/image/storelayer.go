package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/image/layer"
	"github.com/tongs-dev/tongs/sandbox"
)

// parallelLayers is how many layers of an image are downloaded or unpacked at a time.
const parallelLayers = 3

// Progress tells how far the making of an image is.
type Progress struct {
	Step  string `json:"step"`            // "manifest", "download", "unpack", "done"
	Layer string `json:"layer,omitempty"` // whose, the beginning of its digest
	Done  int64  `json:"done,omitempty"`  // bytes
	Total int64  `json:"total,omitempty"` // 0 when it isn't known
}

// part is a layer that an image needs.
type part struct {
	diffID string
	size   int64 // of its archive, compressed or not; 0 when it isn't known
	// open gives the archive. keep says whether what was downloaded for it is to stay: it will be asked for again.
	open func(ctx context.Context) (r io.Reader, done func(keep bool), err error)
}

// share keeps others from removing what is being made or used.
func (s *Store) share(ctx context.Context, op string) (func(), error) {
	f, err := lockFile(ctx, op, s.path(storeLock), shared)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// layerName is the name of a layer's directory.
func (s *Store) layerName(diffID string) string {
	n := strings.TrimPrefix(diffID, "sha256:")
	if tag := s.ids.Tag(); tag != "" {
		n += "-" + tag
	}
	return n
}

func (s *Store) tree(diffID string) string { return s.path(layersDir, s.layerName(diffID), treeName) }

// result reads what is known of a layer that is there.
func (s *Store) result(diffID string) (layer.Result, error) {
	var res layer.Result
	data, err := os.ReadFile(s.path(layersDir, s.layerName(diffID), layerFile))
	if err == nil {
		err = json.Unmarshal(data, &res)
	}
	return res, err
}

// need makes the layers that aren't there yet, and gives what they hold together.
func (s *Store) need(ctx context.Context, op string, parts []part, report func(Progress)) (all layer.Result, err error) {
	s.removeUnfinished(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLayers)
	seen := make(map[string]bool)
	for _, p := range parts {
		if seen[p.diffID] {
			continue
		}
		seen[p.diffID] = true
		group.Go(func() error { return s.layer(ctx, op, p, report) })
	}
	if err := group.Wait(); err != nil {
		return all, err
	}
	for diffID := range seen {
		res, err := s.result(diffID)
		if err != nil {
			return all, sandbox.FileError(op, err)
		}
		all.Bytes += res.Bytes
		all.Entries += res.Entries
		all.Left.Devices += res.Left.Devices
		all.Left.Setuid += res.Left.Setuid
		all.Left.Attributes += res.Left.Attributes
		all.Left.Owners += res.Left.Owners
	}
	return all, nil
}

// layer makes a layer if it isn't there. Processes that want the same one wait for each other.
func (s *Store) layer(ctx context.Context, op string, p part, report func(Progress)) (err error) {
	if _, err := s.result(p.diffID); err == nil {
		return nil
	}
	lock, err := lockFile(ctx, op, s.path(layersDir, ".lock-"+s.layerName(p.diffID)), exclusive)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := s.result(p.diffID); err == nil {
		return nil
	}
	r, done, err := p.open(ctx)
	if err != nil {
		return err
	}
	kept := true
	defer func() { done(err != nil && kept) }()
	short := ShortID(p.diffID)
	report(Progress{Step: "unpack", Layer: short, Total: p.size})
	_, err = s.unpack(ctx, op, p.diffID, &reportingReader{r: r, report: func(n int64) {
		report(Progress{Step: "unpack", Layer: short, Done: n, Total: p.size})
	}})
	switch sandbox.CodeOf(err) {
	case sandbox.CodeImageInvalid, sandbox.CodeInvalidArchive, sandbox.CodeUnsafeArchive, sandbox.CodeArchiveTooLarge, sandbox.CodeNameTooLong:
		kept = false // it won't get better
	}
	return err
}

// reportingReader tells now and then how much has been read.
type reportingReader struct {
	r      io.Reader
	report func(int64)
	n      int64
	told   int64
}

func (r *reportingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.n += int64(n); r.n-r.told >= 1<<20 {
		r.told = r.n
		r.report(r.n)
	}
	return n, err
}

// unpackTask unpacks with an ordinary user's range of ids.
var unpackTask = idmap.Task{Name: "image.unpack"}

type unpackArgument struct {
	Dir    string
	Limits layer.Limits
}

func init() {
	unpackTask.Serve(func(ctx context.Context, argument func(any) error) error {
		var a unpackArgument
		if err := argument(&a); err != nil {
			return err
		}
		if err := os.Lchown(a.Dir, 0, 0); err != nil {
			return err
		}
		res, err := layer.Unpack(ctx, a.Dir, os.Stdin, layer.Options{Limits: a.Limits, Owners: true})
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(res)
	})
}

// unpack makes a layer of an archive, all or nothing, and gives its digest, which must be the wanted one,
// if one is wanted.
func (s *Store) unpack(ctx context.Context, op, want string, r io.Reader) (res layer.Result, err error) {
	tmp, lock, err := s.newDir(ctx, op)
	if err != nil {
		return res, sandbox.FileError(op, err)
	}
	defer lock.Close()
	defer func() {
		if _, serr := os.Lstat(tmp); serr == nil {
			err = errors.Join(err, idmap.RemoveAll(context.WithoutCancel(ctx), s.ids, tmp))
		}
	}()
	tree := filepath.Join(tmp, treeName)
	if err = os.Mkdir(tree, 0o755); err == nil {
		err = os.Chmod(tree, 0o755)
	}
	if err != nil {
		return res, sandbox.FileError(op, err)
	}
	if s.ids.None() {
		res, err = layer.Unpack(ctx, tree, r, layer.Options{Limits: s.cfg.Limits, Owners: os.Geteuid() == 0})
	} else {
		var answer bytes.Buffer
		err = unpackTask.Run(ctx, s.ids, unpackArgument{tree, s.cfg.Limits}, idmap.Streams{Stdin: r, Stdout: &answer})
		if err == nil {
			err = json.Unmarshal(answer.Bytes(), &res)
		}
		err = beyond(op, s.ids, err)
	}
	if err != nil {
		return res, err
	}
	if want != "" && res.DiffID != want {
		return res, sandbox.Errf(sandbox.CodeImageInvalid, op, fmt.Sprintf("a layer has the digest %s, the image's configuration says %s", res.DiffID, want), "do not trust this image")
	}
	data, err := json.Marshal(res)
	if err == nil {
		err = os.WriteFile(filepath.Join(tmp, layerFile), data, 0o600)
	}
	if err == nil {
		err = syncTree(lock) // after a failure of power it is there whole, or not at all
	}
	if err != nil {
		return res, sandbox.FileError(op, err)
	}
	final := s.path(layersDir, s.layerName(res.DiffID))
	err = os.Rename(tmp, final)
	if errors.Is(err, fs.ErrExist) {
		if _, rerr := s.result(res.DiffID); rerr == nil {
			return res, nil // it is there already
		}
	}
	return res, sandbox.FileError(op, err)
}

// newDir makes a directory for what isn't finished yet, and locks it. Before it is locked it has another name,
// with which nobody takes it for what a dead process has left.
func (s *Store) newDir(ctx context.Context, op string) (dir string, lock *os.File, err error) {
	made, err := os.MkdirTemp(s.path(layersDir), makingPrefix)
	if err != nil {
		return "", nil, err
	}
	if lock, err = os.Open(made); err == nil {
		err = waitLock(ctx, op, lock, exclusive)
	}
	dir = s.path(layersDir, newPrefix+strings.TrimPrefix(filepath.Base(made), makingPrefix))
	if err == nil {
		err = os.Rename(made, dir)
	}
	if err != nil {
		if lock != nil {
			lock.Close()
		}
		return "", nil, errors.Join(err, os.Remove(made))
	}
	return dir, lock, nil
}

// removeUnfinished removes what processes that are gone have left half done.
func (s *Store) removeUnfinished(ctx context.Context) {
	entries, err := os.ReadDir(s.path(layersDir))
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), makingPrefix) {
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > staleAfter {
				_ = os.Remove(s.path(layersDir, e.Name())) // it is empty
			}
			continue
		}
		if !strings.HasPrefix(e.Name(), newPrefix) {
			continue
		}
		dir := s.path(layersDir, e.Name())
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		if got, err := tryLock(f, exclusive); got && err == nil {
			_ = idmap.RemoveAll(ctx, s.ids, dir) // the next one tries again
		}
		f.Close()
	}
}
