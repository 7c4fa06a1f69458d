//go:build linux

package oci

import (
	"debug/buildinfo"
	"fmt"
	"os/exec"
	"strings"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/sandbox"
)

// The names of the runtimes, as Spec.Driver and the configuration have them.
const (
	GVisor = driver.GVisor
	Runc   = driver.Runc
	Crun   = driver.Crun
)

// Platform is how gVisor catches the system calls of what it runs.
type Platform string

// The platforms that need no virtualization of the processor.
const (
	Systrap Platform = "systrap" // the faster one
	Ptrace  Platform = "ptrace"  // for kernels and machines on which systrap doesn't work
)

// runsc is gVisor.
type runsc struct {
	dir      string // where an installed one is looked for first
	platform Platform
}

// NewGVisor gives gVisor as it is installed in a directory (Install) or on PATH.
func NewGVisor(dir string, platform Platform) linux.Runtime {
	if platform == "" {
		platform = Systrap
	}
	return runsc{dir, platform}
}

func (runsc) Name() string       { return GVisor }
func (runsc) OwnKernel() bool    { return true }
func (runsc) OneHierarchy() bool { return false }
func (r runsc) Program() (string, error) {
	path, err := FindGVisor(r.dir)
	return path.Path, err
}

func (runsc) Config(p linux.Place) ([]byte, error) { return config(p, true) }

func (r runsc) Args(p linux.Place) []string {
	args := append(r.flags(p), "run", "--detach", "--bundle="+p.Bundle, "--pid-file="+p.PID)
	for i := range p.Files {
		args = append(args, fmt.Sprintf("--pass-fd=%d:%d", 3+i, 3+i))
	}
	return append(args, p.ID)
}

// FreezerArgs implements linux.Freezer.
func (r runsc) FreezerArgs(a linux.Action, p linux.Place) []string {
	args := r.flags(p)
	switch a {
	case linux.Pause:
		args = append(args, "pause")
	case linux.Resume:
		args = append(args, "resume")
	case linux.Save:
		// What fails to be saved and isn't left running would be ended all the same.
		args = append(args, "checkpoint", "--leave-running", "--image-path="+p.Image)
	case linux.Restore:
		args = append(args, "restore", "--detach", "--bundle="+p.Bundle, "--pid-file="+p.PID, "--image-path="+p.Image)
	}
	return append(args, p.ID)
}

// Build implements linux.Freezer. What a runsc that the go command has built says of its version is nothing, but
// the command has noted it.
func (r runsc) Build(program string) (string, error) {
	text, err := exec.Command(program, "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", program, err)
	}
	version, _, _ := strings.Cut(string(text), "\n")
	if info, err := buildinfo.ReadFile(program); err == nil {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == "gvisor.dev/gvisor" {
				version += " " + m.Version
			}
		}
		version += " " + info.GoVersion
	}
	return version + " " + string(r.platform), nil
}

// flags are those of all commands.
func (r runsc) flags(p linux.Place) []string {
	return []string{
		"--root=" + p.State, "--platform=" + string(r.platform),
		// The network namespace is one of ours, set up and closed like that of any sandbox.
		"--network=host",
		// The one socket that the host connects to is made by the guest, in a directory of its own.
		"--host-uds=create",
		// What is written goes to the sandbox's own layer, and is there at the next start.
		"--overlay2=none",
		// The limits are around all of it already.
		"--ignore-cgroups",
	}
}

// native is a runtime that uses the host's kernel: runc, or crun, which is called the same way.
type native struct{ name string }

// NewNative gives a runtime of the host's kernel by its name, Runc or Crun, as it is installed on PATH.
func NewNative(name string) linux.Runtime { return native{name} }

func (n native) Name() string  { return n.name }
func (native) OwnKernel() bool { return false }

// OneHierarchy: crun refuses machines with groups of both versions. It needn't make any.
func (n native) OneHierarchy() bool { return n.name == Crun }

func (n native) Program() (string, error) {
	path, err := exec.LookPath(n.name)
	if err != nil {
		return "", &sandbox.Error{Code: driver.CodeUnsupported, Op: "find " + n.name, Message: n.name + " is not installed: " + err.Error(),
			Hint: "install it (apt-get install " + n.name + "), or use another driver"}
	}
	return path, nil
}

func (native) Config(p linux.Place) ([]byte, error) { return config(p, false) }

func (n native) Args(p linux.Place) []string {
	args := []string{"--root=" + p.State}
	if n.name == Crun {
		args = append(args, "--cgroup-manager=disabled")
	}
	return append(args, "run", "--detach", "--bundle="+p.Bundle, "--pid-file="+p.PID, fmt.Sprintf("--preserve-fds=%d", p.Files), p.ID)
}

func (n native) Check() []driver.Finding {
	return check(n, n.name+" uses the host's kernel, as the driver linux does")
}

func (r runsc) Check() []driver.Finding { return check(r, "platform "+string(r.platform)) }

func check(r linux.Runtime, what string) []driver.Finding {
	name := "driver " + r.Name()
	path, err := r.Program()
	if err != nil {
		return []driver.Finding{driver.FindingOf(name, driver.Warning, err)}
	}
	text, err := exec.Command(path, "--version").CombinedOutput()
	if err != nil {
		return []driver.Finding{driver.FindingOf(name, driver.Warning, fmt.Errorf("%s --version: %w", path, err))}
	}
	version, _, _ := strings.Cut(string(text), "\n")
	return []driver.Finding{{Name: name, Level: driver.OK, Detail: fmt.Sprintf("%s (%s; %s)", path, version, what)}}
}
