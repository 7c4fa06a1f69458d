package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tongs-dev/tongs/sandbox"
)

// errStall ends a request whose answer doesn't come.
var errStall = errors.New("the registry stalls")

// Blob downloads a blob into f, and goes on where an earlier download into it ended. When it returns nil, f
// holds all of it, checked, and nothing else. progress, if not nil, is told how many bytes there are.
func (c *Client) Blob(ctx context.Context, repo name.Repository, d v1.Descriptor, f *os.File, progress func(int64)) error {
	const op = "pull image"
	if progress == nil {
		progress = func(int64) {}
	}
	have, sum, err := begun(f, d.Size)
	if err != nil {
		return sandbox.FileError(op, err)
	}
	progress(have)
	failures := 0
	for have < d.Size {
		before := have
		have, err = c.part(ctx, op, repo, d, f, have, sum, progress)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if have > before {
			failures = 0
		}
		failures++
		if code := sandbox.CodeOf(err); code != sandbox.CodeRegistryError || failures >= c.opts.Attempts {
			return err
		}
		if err := pause(ctx, c.opts.Pause<<(failures-1)); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != d.Digest.Hex {
		// What is there is no beginning of the right one.
		return errors.Join(invalid(op, "%s: the blob %s that the registry sent has the digest sha256:%s", repo.Name(), d.Digest, got), f.Truncate(0))
	}
	return nil
}

// begun sums what an earlier download has left.
func begun(f *os.File, size int64) (int64, hash.Hash, error) {
	sum := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, nil, err
	}
	have, err := io.Copy(sum, f)
	if err != nil {
		return 0, nil, err
	}
	if have > size {
		sum.Reset()
		have = 0
	}
	if err := f.Truncate(have); err != nil {
		return 0, nil, err
	}
	_, err = f.Seek(have, io.SeekStart)
	return have, sum, err
}

// part downloads as much as one answer gives, and returns how much there is now.
func (c *Client) part(ctx context.Context, op string, repo name.Repository, d v1.Descriptor, f *os.File, have int64, sum hash.Hash, progress func(int64)) (int64, error) {
	registry := repo.RegistryStr()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(2*c.opts.Stall, func() { cancel(errStall) })
	defer stall.Stop()
	header := http.Header{}
	if have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", have, d.Size-1))
	}
	res, err := c.get(ctx, op, repo, "blobs/"+d.Digest.String(), header)
	if err != nil {
		return have, stalled(op, registry, c.opts.Stall, err)
	}
	defer res.Body.Close()
	skip := int64(0)
	switch res.StatusCode {
	case http.StatusOK:
		skip = have // it knows no ranges; what there is already is read once more
		if res.ContentLength >= 0 && res.ContentLength != d.Size {
			return have, invalid(op, "%s: the manifest says that the blob %s has %d bytes, the registry sends %d", repo.Name(), d.Digest, d.Size, res.ContentLength)
		}
	case http.StatusPartialContent:
		if begin, ok := rangeBegin(res.Header.Get("Content-Range")); !ok || begin != have {
			return have, invalid(op, "%s: the registry sends another part of the blob %s than was asked for", repo.Name(), d.Digest)
		}
	default:
		return have, refused(op, repo.Name()+"@"+d.Digest.String(), res)
	}
	buf := make([]byte, 128<<10)
	for {
		stall.Reset(c.opts.Stall)
		n, err := res.Body.Read(buf)
		data := buf[:n]
		if cut := min(skip, int64(n)); cut > 0 {
			skip -= cut
			data = data[cut:]
		}
		if have+int64(len(data)) > d.Size {
			return have, invalid(op, "%s: the manifest says that the blob %s has %d bytes, the registry sends more", repo.Name(), d.Digest, d.Size)
		}
		if len(data) > 0 {
			if _, err := f.Write(data); err != nil {
				return have, full(op, err)
			}
			sum.Write(data)
			have += int64(len(data))
			progress(have)
		}
		switch {
		case err == io.EOF && have == d.Size:
			return have, nil
		case err == io.EOF:
			return have, failure(op, registry, io.ErrUnexpectedEOF, "it ended a blob after %d of %d bytes", have, d.Size)
		case err != nil:
			return have, stalled(op, registry, c.opts.Stall, err, ctx)
		case have == d.Size && skip == 0:
			return have, nil
		}
	}
}

func full(op string, err error) error {
	err = sandbox.FileError(op, err)
	if e := new(sandbox.Error); errors.As(err, &e) && e.Code == sandbox.CodeNoSpace {
		e.Hint = "free some space on the file system that holds TONGS_HOME; `tongs image gc` removes images that nothing uses"
	}
	return err
}

// stalled says that a registry has stalled, if that is why a request failed.
func stalled(op, registry string, after time.Duration, err error, ctxs ...context.Context) error {
	why := err
	for _, ctx := range ctxs {
		if cause := context.Cause(ctx); cause != nil {
			why = cause
		}
	}
	if errors.Is(why, errStall) {
		return failure(op, registry, errStall, "it sent nothing for %s", after)
	}
	if sandbox.CodeOf(err) != "" {
		return err
	}
	return failure(op, registry, err, "%s", withoutURL(err))
}

// rangeBegin reads the first number of "bytes 5-9/10".
func rangeBegin(text string) (int64, bool) {
	text, ok := strings.CutPrefix(text, "bytes ")
	if !ok {
		return 0, false
	}
	first, _, ok := strings.Cut(text, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, ok && err == nil
}
