package drivertest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// world is what the attempts of the table are about: a host with something to reach, and a sandbox beside.
type world struct {
	b         *bed
	s         Suite
	neighbour *sandbox.Client
	shared    string // directory of the host that all sandboxes see at /opt/shared
	scratch   string
	words     []string // what stands for what in scripts
	controls  *controls
}

// prison is the sandbox that an attempt is made in.
type prison struct {
	*world
	t    *testing.T
	c    *sandbox.Client
	user string
}

// The limits of a prison, and what rows take to go beyond them.
const (
	prisonPids   = 200
	prisonMemory = 192 << 20
	prisonTmp    = 16 << 20
)

// The neighbour listens where an agent host does, and keeps this.
const (
	neighbourPort = 4100
	neighbourWord = "secret of the neighbour"
)

func newWorld(t *testing.T, s Suite) *world {
	b := newBed(t, s)
	self, err := os.Executable()
	must(t, err)
	w := &world{b: b, s: s, scratch: t.TempDir(), controls: &controls{done: make(map[string]error)}}
	// What is bound is on a mount that passes on what is mounted below it, where the host's root can make one.
	w.shared, err = os.MkdirTemp("", "tongs-shared-") // whose parents everybody may enter
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(w.shared) })
	if os.Geteuid() == 0 {
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=0755", "tongs-test", w.shared).CombinedOutput(); err == nil {
			t.Cleanup(func() { exec.Command("umount", "-l", w.shared).Run() })
			must(t, exec.Command("mount", "--make-shared", w.shared).Run())
		} else {
			t.Logf("no mount of their own for shared files: %s", out)
		}
	}
	must(t, os.Chmod(w.shared, 0o755))
	must(t, os.Mkdir(filepath.Join(w.shared, "later"), 0o755))
	file := func(name string, mode os.FileMode) string {
		p := filepath.Join(w.shared, name)
		must(t, os.WriteFile(p, []byte(canaryText), 0o600))
		must(t, os.Chmod(p, mode))
		return p
	}
	file("secret", 0o600)
	file("readable", 0o644)
	w.hostFiles(t)
	probe, err := os.ReadFile(self)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(w.shared, "probe"), probe, 0o755))
	must(t, os.Chmod(filepath.Join(w.shared, "probe"), 0o755))

	spec := w.spec("agent-host")
	b.create(t, spec)
	w.neighbour = b.connect(t, "agent-host")
	output(t, w.neighbour, "echo '"+neighbourWord+"' | tee ~/secret /tmp/secret /dev/shm/secret && ipcmk -M 4096 >/dev/null; nohup sleep 98765 >/dev/null 2>&1 & true")
	l, err := w.neighbour.Listen(t.Context(), "models", fmt.Sprintf("127.0.0.1:%d", neighbourPort))
	must(t, err)
	t.Cleanup(func() { l.Close() })

	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { tcp.Close() })
	port := tcp.Addr().(*net.TCPAddr).Port
	abstract := fmt.Sprintf("tongs-canary-%d", port)
	u, err := net.Listen("unix", "@"+abstract)
	must(t, err)
	t.Cleanup(func() { u.Close() })
	sockets, _ := filepath.Glob(filepath.Join(b.home, "run", "*.sock"))
	w.words = append(callNumbers, "%PORT%", fmt.Sprint(port), "%ABSTRACT%", abstract, "%SHARED%", w.shared, "%HOME%", b.home,
		"%SOCKET%", strings.Join(sockets[:min(1, len(sockets))], ""), "%NEIGHBOUR%", fmt.Sprint(neighbourPort),
		"%PIDS%", fmt.Sprint(2*prisonPids), "%MEMORY%", fmt.Sprint(2*prisonMemory), "%TMP%", fmt.Sprint(2*prisonTmp))
	return w
}

// hostFiles puts into the shared directory what only root can make: a device, and a program that becomes its owner.
func (w *world) hostFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	for _, argv := range [][]string{
		{"mknod", "-m", "0666", "zero", "c", "1", "5"},
		{"cp", "/usr/bin/id", "become-owner"}, {"chmod", "4755", "become-owner"},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = w.shared
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
}

func (w *world) spec(id string) driver.Spec {
	spec := w.b.spec(id)
	spec.Binds = []driver.Bind{{Source: w.shared, Target: "/opt/shared"}, {Source: w.shared, Target: "/opt/writable", Writable: true}}
	spec.Files = []driver.File{{Path: "/etc/of-root", Data: []byte(canaryText), Mode: 0o600}}
	spec.Limits = driver.Limits{Pids: prisonPids, MemoryBytes: prisonMemory, TmpBytes: prisonTmp}
	return spec
}

func (w *world) prison(t *testing.T, user string, rooted, egress bool) *prison {
	id := strings.ReplaceAll(fmt.Sprintf("prison-%s-%v-%v", user, rooted, egress), "prison--", "prison-")
	spec := w.spec(id)
	spec.Root = rooted
	if egress {
		spec.Network = driver.NetworkEgress
	}
	// Not while another pass has something mounted for a moment (later), which would be the new sandbox's too.
	w.controls.mu.Lock()
	defer w.controls.mu.Unlock()
	w.b.create(t, spec)
	return &prison{world: w, t: t, c: w.b.connect(t, id), user: user}
}

func (p *prison) fill(script string) string { return strings.NewReplacer(p.words...).Replace(script) }

// exec runs a program as the attempt's user.
func (p *prison) exec(spec sandbox.ProcessSpec) (*sandbox.ExecResult, error) {
	spec.User = p.user
	spec.Timeout = patience / 2
	return p.c.Exec(p.t.Context(), sandbox.ExecSpec{ProcessSpec: spec})
}
