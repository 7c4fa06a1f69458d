//go:build linux

package oci

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// Program is a runtime that was found.
type Program struct {
	Path   string
	Pinned bool // it is of Version, which this Tongs was tested with
}

// Version is the version of gVisor that Install builds. It names a commit of the branch that holds generated
// sources, which the go command can build.
const Version = "v0.0.0-20260905035102-160fafc42237"

// runscMod and runscSum are the go.mod and go.sum of a module that has runsc as its tool. They hold the
// version and the hash of each module that goes into it, so that what is built is what was looked at here.
var (
	//go:embed runsc/mod.txt
	runscMod []byte
	//go:embed runsc/sum.txt
	runscSum []byte
)

// runscPackages is about how many packages are compiled, for people who wait.
const runscPackages = 496

// buildTimeout bounds a build: on a machine with two busy processors it takes four minutes.
const buildTimeout = time.Hour

// InstalledDir is where, in a home, runtimes are installed.
func InstalledDir(home string) string { return filepath.Join(home, "runtimes") }

func installed(dir string) string { return filepath.Join(dir, "runsc-"+Version) }

// FindGVisor finds runsc: the one that Install has put into dir, else the first on PATH.
func FindGVisor(dir string) (Program, error) {
	const op = "find gVisor"
	if p := installed(dir); executable(p) {
		return Program{p, true}, nil
	}
	p, err := exec.LookPath("runsc")
	if err == nil {
		p, err = filepath.Abs(p)
	}
	if err != nil {
		return Program{}, &sandbox.Error{Code: driver.CodeUnsupported, Op: op, Message: "gVisor is not installed: no runsc in " + dir + " nor on PATH", Err: err,
			Hint: "run `tongs driver install gvisor`, which builds it in some minutes, or install runsc"}
	}
	return Program{p, false}, nil
}

func executable(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Install builds the pinned gVisor with the go command into dir, unless it is there. It takes its sources from
// where the go command is told to (GOPROXY) and checks each module's hash. What was compiled before it was cut
// short is in the go command's cache the next time. progress, which may be nil, is told how many packages of
// how many have been compiled.
//
// Errors: CodeUnsupported without a go command; a build's own errors with the end of what it said; a context's.
func Install(ctx context.Context, dir string, progress func(done, of int)) (Program, error) {
	const op = "install gVisor"
	path := installed(dir)
	if executable(path) {
		return Program{path, true}, nil
	}
	gocmd, err := exec.LookPath("go")
	if err != nil {
		return Program{}, &sandbox.Error{Code: driver.CodeUnsupported, Op: op, Message: "gVisor is built from source, and there is no go command on PATH", Err: err,
			Hint: "install Go 1.26 or later from your distribution or go.dev, or install runsc itself"}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Program{}, driver.Wrap(op, err)
	}
	work, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return Program{}, driver.Wrap(op, err)
	}
	defer os.RemoveAll(work)
	for name, data := range map[string][]byte{"go.mod": runscMod, "go.sum": runscSum} {
		if err := os.WriteFile(filepath.Join(work, name), data, 0o644); err != nil {
			return Program{}, driver.Wrap(op, err)
		}
	}
	if err := build(ctx, gocmd, work, progress); err != nil {
		return Program{}, err
	}
	built := filepath.Join(work, "runsc")
	if out, err := exec.CommandContext(ctx, built, "--version").CombinedOutput(); err != nil {
		return Program{}, &sandbox.Error{Code: sandbox.CodeInternal, Op: op, Message: fmt.Sprintf("what was built doesn't run: %v: %.200s", err, out), Err: err}
	}
	if err := os.Rename(built, path); err != nil {
		return Program{}, driver.Wrap(op, err)
	}
	return Program{path, true}, nil
}

func build(ctx context.Context, gocmd, dir string, progress func(done, of int)) error {
	const op = "build gVisor"
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, gocmd, "build", "-v", "-trimpath", "-mod=readonly", "-ldflags=-s -w", "-o", "runsc", "gvisor.dev/gvisor/runsc")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GO111MODULE=on", "PWD="+dir)
	// Its compilers end with it.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StderrPipe()
	if err != nil {
		return driver.Wrap(op, err)
	}
	if err := cmd.Start(); err != nil {
		return driver.Wrap(op, err)
	}
	said := watchBuild(out, progress)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &sandbox.Error{Code: sandbox.CodeInternal, Op: op, Message: err.Error() + ": " + said, Err: err,
			Hint: "is the module proxy reachable (go env GOPROXY), and is there 2 GiB of space for the go command's cache?"}
	}
	return nil
}

// maxSaid bounds what is kept of a build's words.
const maxSaid = 2000

// watchBuild counts the packages that `go build -v` names, one a line, and gives the end of what else it says.
func watchBuild(r io.Reader, progress func(done, of int)) (said string) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	done := 0
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "go: downloading "):
		case !strings.ContainsAny(line, " \t:#"):
			done++
		default:
			said += line + "\n"
			if len(said) > maxSaid {
				said = said[len(said)-maxSaid:]
			}
			continue
		}
		if progress != nil {
			progress(min(done, runscPackages), runscPackages)
		}
	}
	if err := lines.Err(); err != nil {
		_, cerr := io.Copy(io.Discard, r) // so that the command can end
		said += errors.Join(err, cerr).Error()
	}
	return strings.TrimSpace(said)
}
