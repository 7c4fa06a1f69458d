package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Each line of bad input about files ends in a typed error or a stated bound, and
// the sandbox answers the next call at once.
func testBadInputFiles(t *testing.T, h Harness) {
	cases{
		"NoFile":       noFile,
		"FullDisk":     fullDisk,
		"FileLimit":    fileLimit,
		"ManyFiles":    manyFiles,
		"SparseStream": sparseStream,
		"ReaderLeaves": fileReaderLeaves,
	}.run(t, h)
}

func noFile(t *test) {
	t.out("mkfifo fifo; : > plain; mkdir dir; ln -s loop2 loop1; ln -s loop1 loop2")
	for _, c := range []struct {
		path        string
		read, write sandbox.Code // "" where it works
	}{
		{"", sandbox.CodeInvalidPath, sandbox.CodeInvalidPath},
		{"a\x00b", sandbox.CodeInvalidPath, sandbox.CodeInvalidPath},
		{"absent/x", sandbox.CodeFileNotFound, sandbox.CodeFileNotFound},
		{"plain/x", sandbox.CodeNotDirectory, sandbox.CodeNotDirectory},
		{"dir", sandbox.CodeIsDirectory, sandbox.CodeIsDirectory},
		{"..", sandbox.CodeIsDirectory, sandbox.CodeIsDirectory},
		{"../../../../../../../../..", sandbox.CodeIsDirectory, sandbox.CodeIsDirectory},
		{"fifo", sandbox.CodeNotRegular, sandbox.CodeNotRegular},
		{"/dev/zero", sandbox.CodeNotRegular, sandbox.CodeNotRegular},
		{"/dev/null", sandbox.CodeNotRegular, sandbox.CodeNotRegular},
		{"loop1", sandbox.CodeSymlinkLoop, sandbox.CodeSymlinkLoop},
		{"/proc/self/root/etc/passwd", sandbox.CodeSymlinkLoop, sandbox.CodeSymlinkLoop},
		{strings.Repeat("n", 4096), sandbox.CodeNameTooLong, sandbox.CodeNameTooLong},
		{strings.Repeat("n", 256), sandbox.CodeNameTooLong, sandbox.CodeNameTooLong},
		{strings.Repeat("d/", 4096), sandbox.CodeNameTooLong, sandbox.CodeNameTooLong},
	} {
		name := fmt.Sprintf("%.40q", c.path)
		for what, err := range map[string]error{
			"read": second(t.box.ReadLines(t.ctx, c.path, sandbox.LineOptions{})),
			"open": second(t.box.OpenFile(t.ctx, c.path, sandbox.ReadOptions{})),
			"edit": second(t.box.Edit(t.ctx, c.path, "a", "b", sandbox.EditOptions{})),
		} {
			if sandbox.CodeOf(err) != c.read {
				t.Errorf("%s %s: %v, want %s", what, name, err, c.read)
			}
		}
		for _, o := range []sandbox.WriteOptions{{}, {InPlace: true}, {Append: true}} {
			if _, err := t.box.WriteFile(t.ctx, c.path, []byte("x"), o); sandbox.CodeOf(err) != c.write {
				t.Errorf("write %s %+v: %v, want %s", name, o, err, c.write)
			}
		}
	}
	_, err := t.box.ListFiles(t.ctx, "plain", sandbox.ListOptions{})
	t.wantCode(err, sandbox.CodeNotDirectory)
	_, err = t.box.ListFiles(t.ctx, ".", sandbox.ListOptions{Limit: 1 << 30})
	t.wantCode(err, sandbox.CodeInvalidArgument)
	_, err = t.box.ListFiles(t.ctx, ".", sandbox.ListOptions{Cursor: "../../..//\x00"})
	t.ok(err)
	t.answers()
}

func second[T any](_ T, err error) error { return err }

// A full file system is a typed error, and the old file stays.
func fullDisk(t *test) {
	t.need(t.h.Root, "Root")
	info, err := t.box.Info(t.ctx)
	t.ok(err)
	spec := bash(fmt.Sprintf("mkdir -p small && mount -t tmpfs -o size=512k,mode=0777 tmpfs small && chown %[1]s small 2>/dev/null; findmnt small >/dev/null", info.User))
	spec.User = "root"
	res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: spec})
	t.ok(err)
	if !res.Exit.Success() {
		t.Skipf("no file system can be mounted in this sandbox: %s", res.Stderr)
	}
	t.Cleanup(func() { // the test's own context has ended by then
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), 30*time.Second)
		defer cancel()
		un := bash("umount -l small")
		un.User = "root"
		if res, err := t.box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: un}); err != nil || !res.Exit.Success() {
			t.Errorf("a mount is left: %v, %+v", err, res)
		}
	})
	t.write("small/f", "old")
	for _, size := range []int{sandbox.InlineBytes, 600 << 10, 5 << 20} {
		_, err := t.box.WriteFrom(t.ctx, "small/f", io.LimitReader(zeros{}, int64(size)+300<<10), sandbox.WriteOptions{})
		t.wantCode(err, sandbox.CodeNoSpace)
		t.holds("small/f", "old")
	}
	t.out("head -c 2M /dev/urandom > big")
	_, err = t.box.Copy(t.ctx, "big", "small/big", sandbox.CopyOptions{})
	t.wantCode(err, sandbox.CodeNoSpace)
	t.wantCode(t.box.Rename(t.ctx, "big", "small/big"), sandbox.CodeCrossDevice)
	if left := t.out("ls -A small"); left != "f\n" {
		t.Errorf("left over: %s", left)
	}
	t.answers()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A limit on the size of files is one on disk space, not the end of the guest.
func fileLimit(t *test) {
	t.out("truncate -s 8E huge 2>/dev/null || truncate -s 8T huge || true")
	_, err := t.box.WriteFile(t.ctx, "huge", []byte("x"), sandbox.WriteOptions{Append: true})
	if err != nil {
		t.wantCode(err, sandbox.CodeNoSpace)
	}
	t.ok(t.box.RemoveFile(t.ctx, "huge", false))
	t.answers()
}

// 100,000 files are listed page by page, and removed, in time that grows with
// them and not with their square.
func manyFiles(t *test) {
	count := 20_000
	if os.Getenv("TONGS_TEST_LONG") != "" {
		count = 100_000
	}
	t.out(fmt.Sprintf("mkdir many && cd many && seq -w %d | xargs touch", count))
	opts, seen := sandbox.ListOptions{Limit: 500}, 0
	for {
		res, err := t.box.ListFiles(t.ctx, "many", opts)
		t.ok(err)
		seen += len(res.Entries)
		if opts.Cursor = res.Next; res.Next == "" {
			break
		}
	}
	if seen != count {
		t.Errorf("%d entries of %d", seen, count)
	}
	if in, err := t.box.Info(t.ctx); err != nil || in.MemoryBytes > 96<<20 {
		t.Errorf("the guest takes %d MiB, %v", in.MemoryBytes>>20, err)
	}
	t.ok(t.box.RemoveFile(t.ctx, "many", true))
	t.answers()
}

// A file of 10 GiB streams through bounded memory. Here it is a part of it, unless
// the long tests are asked for.
func sparseStream(t *test) {
	size := int64(10 << 30)
	t.out(fmt.Sprintf("truncate -s %d huge && printf end | dd of=huge bs=1 seek=%d conv=notrunc status=none", size, size-3))
	opts := sandbox.ReadOptions{Offset: size - 128<<20}
	if os.Getenv("TONGS_TEST_LONG") != "" {
		opts.Offset = 0
	}
	r, err := t.box.OpenFile(t.ctx, "huge", opts)
	t.ok(err)
	defer r.Close()
	n, last := int64(0), make([]byte, 3)
	buf := make([]byte, 1<<20)
	for {
		k, err := r.Read(buf)
		n += int64(k)
		if k >= 3 {
			copy(last, buf[k-3:k])
		}
		if errors.Is(err, io.EOF) {
			break
		}
		t.ok(err)
	}
	if n != size-opts.Offset {
		t.Errorf("%d bytes of %d", n, size-opts.Offset)
	}
	in, err := t.box.Info(t.ctx)
	t.ok(err)
	if in.MemoryBytes > 64<<20 {
		t.Errorf("the guest takes %d MiB", in.MemoryBytes>>20)
	}
	if got, _, err := t.box.ReadFile(t.ctx, "huge", sandbox.ReadOptions{Offset: size - 3}); err != nil || string(got) != "end" {
		t.Errorf("%q, %v", got, err)
	}
}

// A reader that stops in the middle of a file, and one that never begins, hold
// nothing up.
func fileReaderLeaves(t *test) {
	t.out("truncate -s 1G big")
	for range 5 {
		r, err := t.box.OpenFile(t.ctx, "big", sandbox.ReadOptions{})
		t.ok(err)
		_, err = io.ReadFull(r, make([]byte, 1000))
		t.ok(err)
		r.Close()
	}
	slow, err := t.box.OpenFile(t.ctx, "big", sandbox.ReadOptions{})
	t.ok(err)
	defer slow.Close()
	t.answers()
}

// eventually waits for what happens in the sandbox by itself.
func (t *test) eventually(what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-t.ctx.Done():
			t.Fatalf("no %s", what)
		}
	}
}
