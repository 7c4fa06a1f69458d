package opencode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Binary is an OpenCode executable on this machine.
type Binary struct {
	Path    string // absolute
	Version string // e.g. "1.18.33"
	Own     bool   // named by the user, not obtained by us
	Fresh   bool   // this call downloaded it
}

// Phase is what [Obtain] is doing.
type Phase string

// The phases, in their order. Waiting happens only when another process holds
// the lock; nothing is reported when the binary is there already.
const (
	PhaseWait     Phase = "wait"     // another process is obtaining the same version
	PhaseDownload Phase = "download" // Done and Total count bytes of the tarball
	PhaseUnpack   Phase = "unpack"   // Done and Total count bytes of the binary
	PhaseDone     Phase = "done"
)

// Progress is one report of [Obtain].
type Progress struct {
	Phase   Phase
	Package string // npm package name
	From    string // host of the registry, in PhaseDownload
	Done    int64  // bytes
	Total   int64  // bytes; 0 if unknown
}

// ObtainOptions says what to obtain and how. Home is required.
type ObtainOptions struct {
	// Home is the directory $TONGS_HOME. The binary becomes
	// <Home>/opencode/<version>/opencode.
	Home string

	// Package is what to fetch. Default: PackageFor(HostPlatform()).
	Package *Package

	// Npm holds the registry and logins. Default: LoadNpmConfig(NpmSources{}).
	Npm *NpmConfig

	// Progress, if not nil, is called at each change of phase and at most ten
	// times a second in between, from the goroutine that called Obtain.
	Progress func(Progress)

	// Timeout bounds the whole call. Default: 20 minutes.
	Timeout time.Duration

	// StallTimeout is how long a download may bring no byte before the attempt
	// is given up. Default: 30 seconds.
	StallTimeout time.Duration

	// RetryDelay is the wait before the second attempt; it doubles for each
	// further one. Default: 500 ms.
	RetryDelay time.Duration

	// Logger gets one line per attempt. Default: none.
	Logger *slog.Logger
}

// receipt is kept beside the binary and says what it was made from. It is
// written last: without one that fits, the binary is obtained again.
type receipt struct {
	Package    string `json:"package"`
	Version    string `json:"version"`
	Integrity  string `json:"integrity"`
	BinarySize int64  `json:"binarySize"`
}

// Obtain makes sure that the pinned OpenCode binary is in Home and returns it.
// If it is there already, nothing is downloaded and no network is needed. Only
// one process at a time obtains a version; others wait for it. The binary
// appears by rename after the digest of its tarball was checked, so there is
// never a partial one. A download that broke off goes on where it ended, also
// in a later call.
//
// Errors are of type *[ObtainError].
func Obtain(ctx context.Context, o ObtainOptions) (Binary, error) {
	const op = "obtain OpenCode"
	if o.Home == "" {
		return Binary{}, &ObtainError{Code: CodeHomeUnwritable, Op: op, Message: "no home directory is set", Hint: "set TONGS_HOME"}
	}
	if o.Timeout <= 0 {
		o.Timeout = 20 * time.Minute
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = 30 * time.Second
	}
	if o.RetryDelay <= 0 {
		o.RetryDelay = 500 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Package == nil {
		p, err := PackageFor(HostPlatform())
		if err != nil {
			return Binary{}, err
		}
		o.Package = &p
	}
	home, err := filepath.Abs(o.Home)
	if err != nil {
		return Binary{}, fileError(op, o.Home, err)
	}
	dir := filepath.Join(home, "opencode", o.Package.Version)
	bin := Binary{Path: filepath.Join(dir, "opencode"), Version: o.Package.Version}
	if isObtained(dir, *o.Package) {
		return bin, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Binary{}, fileError(op, dir, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("not done within %v", o.Timeout))
	defer cancel()

	unlock, err := lock(ctx, filepath.Join(dir, ".lock"), func() { o.report(Progress{Phase: PhaseWait}) })
	if err != nil {
		return Binary{}, ended(ctx, op, fileError(op, dir, err))
	}
	defer unlock()
	if isObtained(dir, *o.Package) { // by the process we waited for
		return bin, nil
	}
	removeLeftovers(dir)
	if o.Npm == nil {
		if o.Npm, err = LoadNpmConfig(NpmSources{}); err != nil {
			return Binary{}, err
		}
	}
	if err := checkSpace(op, dir, o.Package.Size+o.Package.BinarySize); err != nil {
		return Binary{}, err
	}
	tarball, err := download(ctx, &o, dir)
	if err != nil {
		return Binary{}, ended(ctx, op, err)
	}
	if err := unpack(ctx, &o, tarball, bin.Path); err != nil {
		return Binary{}, ended(ctx, op, err)
	}
	if err := writeReceipt(dir, *o.Package, bin.Path); err != nil {
		return Binary{}, fileError(op, dir, err)
	}
	if err := os.Remove(tarball); err != nil {
		o.Logger.Warn("tarball not removed", "file", tarball, "error", err)
	}
	bin.Fresh = true
	o.report(Progress{Phase: PhaseDone})
	return bin, nil
}

// ended turns the error of something that the context interrupted into one
// that says so.
func ended(ctx context.Context, op string, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return &ObtainError{Code: CodeObtainCanceled, Op: op, Message: "interrupted",
		Hint: "start again: a download goes on where it ended", Err: context.Cause(ctx)}
}

func (o *ObtainOptions) report(p Progress) {
	if o.Progress != nil {
		p.Package = o.Package.Name
		o.Progress(p)
	}
}

const receiptName = "receipt.json"

// isObtained tells whether dir holds the whole binary of the package.
func isObtained(dir string, p Package) bool {
	b, err := os.ReadFile(filepath.Join(dir, receiptName))
	if err != nil {
		return false
	}
	var r receipt
	if json.Unmarshal(b, &r) != nil || r.Package != p.Name || r.Version != p.Version || r.Integrity != p.Integrity {
		return false
	}
	st, err := os.Lstat(filepath.Join(dir, "opencode"))
	return err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o100 != 0 && st.Size() == r.BinarySize
}

func writeReceipt(dir string, p Package, binary string) error {
	st, err := os.Stat(binary)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(receipt{p.Name, p.Version, p.Integrity, st.Size()}, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, receiptName), 0o644, func(f io.Writer) error {
		_, err := f.Write(append(b, '\n'))
		return err
	})
}

// replaceFile writes a file beside name and renames it to name when all of it
// is on the disk. After an error name is as it was, and nothing is left behind.
func replaceFile(name string, mode fs.FileMode, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// removeLeftovers removes what replaceFile leaves behind when the process is
// killed. The caller holds the lock.
func removeLeftovers(dir string) {
	for _, name := range []string{"opencode", receiptName} {
		files, _ := filepath.Glob(filepath.Join(dir, "."+name+"-*"))
		for _, f := range files {
			os.Remove(f)
		}
	}
}

// lock takes an exclusive lock on a file, which is made if need be, and returns
// the function that gives it back. The kernel gives it back when the process
// dies. waiting is called once if another process has it.
func lock(ctx context.Context, name string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for told := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, &os.PathError{Op: "flock", Path: name, Err: err}
		}
		if !told {
			told = true
			waiting()
		}
		// flock(2) cannot wait with a deadline, so this asks again.
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// checkSpace refuses to begin when the disk cannot hold the result.
func checkSpace(op, dir string, need int64) error {
	var st syscall.Statfs_t
	if need <= 0 || syscall.Statfs(dir, &st) != nil {
		return nil // not knowable: the writes will tell
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	if free >= need {
		return nil
	}
	return &ObtainError{Code: CodeDiskFull, Op: op,
		Message: fmt.Sprintf("%d MB are needed at %s and %d MB are free", need/1e6+1, dir, free/1e6),
		Hint:    "free some there, or set TONGS_HOME to a directory on another disk"}
}

var versionLine = regexp.MustCompile(`^v?(\d+)\.(\d+)\.\d+(-[0-9A-Za-z.-]+)?$`)

// UseBinary checks an OpenCode binary that the user names: it must run and
// answer --version, within 30 seconds, with a version that has the major and
// minor number of [Version]. Another patch number is accepted; the caller can
// see it in the result. It runs with an empty directory as its HOME.
//
// Errors are of type *[ObtainError] with code BINARY_UNUSABLE.
func UseBinary(ctx context.Context, path string) (Binary, error) {
	fail := func(message, hint string, err error) (Binary, error) {
		return Binary{}, &ObtainError{Code: CodeBinaryUnusable, Op: "use the OpenCode binary " + path, Message: message, Hint: hint, Err: err}
	}
	hint := "name an executable OpenCode " + Version + ", or leave --opencode-binary away to have it downloaded"
	abs, err := filepath.Abs(path)
	if err != nil {
		return fail("it has no absolute path", hint, err)
	}
	if st, err := os.Stat(abs); err != nil {
		return fail("it cannot be found", hint, err)
	} else if !st.Mode().IsRegular() {
		return fail("it is not a regular file", hint, nil)
	}
	home, err := os.MkdirTemp("", "tongs-version-")
	if err != nil {
		return fail("no temporary directory", "set TMPDIR to a writable directory", err)
	}
	defer os.RemoveAll(home)

	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var out, stderr limitedBuffer
	for range 20 { // a fork at the wrong moment keeps a just written file open for an instant
		out, stderr = limitedBuffer{}, limitedBuffer{}
		cmd := exec.CommandContext(ctx, abs, "--version")
		cmd.Dir = home
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "OPENCODE_DISABLE_AUTOUPDATE=1", "OPENCODE_DISABLE_MODELS_FETCH=1"}
		cmd.Stdout, cmd.Stderr = &out, &stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second
		if err = cmd.Run(); !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return fail("it did not answer --version in time", hint, ctx.Err())
		}
		if s := strings.TrimSpace(stderr.String()); s != "" {
			err = fmt.Errorf("%w: %.300q", err, s)
		}
		return fail("it does not run", hint, err)
	}
	line := strings.TrimSpace(out.String())
	m := versionLine.FindStringSubmatch(line)
	if m == nil {
		return fail(fmt.Sprintf("--version answered %.80q", line), hint, nil)
	}
	want := versionLine.FindStringSubmatch(Version)
	if m[1] != want[1] || m[2] != want[2] {
		return fail("it is version "+line, hint, nil)
	}
	return Binary{Path: abs, Version: strings.TrimPrefix(line, "v"), Own: true}, nil
}

// limitedBuffer keeps the first 4 KiB written to it.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := 4096 - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
