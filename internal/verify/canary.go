package verify

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// word is what one place says of itself.
type word struct {
	text    string // random
	place   string // for evidence
	picture []byte // a PNG of one pixel, of a colour of its own
}

func newWord(kind, place string, shade color.Color) word {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails
	picture := image.NewNRGBA(image.Rect(0, 0, 1, 1))
	picture.Set(0, 0, shade)
	var b bytes.Buffer
	_ = png.Encode(&b, picture) // into memory
	return word{text: "tongs-" + kind + "-" + hex.EncodeToString(random[:]), place: place, picture: b.Bytes()}
}

// probe is one run.
type probe struct {
	t   Target
	dir string // the same path in every place, this machine included

	marker, agentHost, machine, neighbour word

	agent    Place  // the agent host
	port     string // on which each place says its word
	events   *events
	sleeper  *exec.Cmd // of this machine, with the machine's word in its environment
	other    *ground   // another session, whose sandbox has the neighbour's word
	undo     []func(context.Context) error
	mu       sync.Mutex
	sessions []string
}

func newProbe(t Target) *probe {
	return &probe{
		t:         t,
		agent:     &lasting{reach: t.AgentHost},
		marker:    newWord("marker", "the session's sandbox", color.NRGBA{10, 200, 30, 255}),
		agentHost: newWord("agent-host", "the agent host", color.NRGBA{200, 10, 30, 255}),
		machine:   newWord("machine", "this machine", color.NRGBA{30, 10, 200, 255}),
		neighbour: newWord("neighbour", "another session's sandbox", color.NRGBA{200, 200, 10, 255}),
	}
}

// whereFile says in each place where it is. listName is listed by its own name.
const whereFile = "where.txt"

// plant makes the canaries of the agent host and of this machine, and the other session's.
func (p *probe) plant(ctx context.Context) error {
	// The agent host has the same directory, and sandboxes. TMPDIR may lead to where nobody there may make one.
	dir, err := os.MkdirTemp("/tmp", "tongs-verify-")
	if err != nil {
		return err
	}
	p.dir = dir
	p.undo = append(p.undo, func(context.Context) error { return os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // whoever can get here may leave a trace
		return err
	}
	for name, data := range p.files(p.machine) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			return err
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.port = strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	p.serve(listener, p.machine)
	p.sleeper = exec.Command("sleep", "600")
	p.sleeper.Env = []string{"PATH=" + os.Getenv("PATH"), "TONGS_CANARY=" + p.machine.text}
	if p.sleeper.Start() != nil {
		p.sleeper = nil
	}
	if err := p.plantAgentHost(ctx); err != nil {
		return fmt.Errorf("in the agent host: %w", err)
	}
	if p.events, err = p.follow(ctx); err != nil {
		return err
	}
	if p.t.Quick {
		return nil
	}
	if p.other, err = p.ground(ctx, p.neighbour); err != nil {
		return fmt.Errorf("in another session: %w", err)
	}
	return nil
}

// files are what a place has in the directory of the run.
func (p *probe) files(w word) map[string][]byte {
	return map[string][]byte{whereFile: []byte(w.text + "\n"), w.text + ".txt": []byte(w.text + "\n"), "picture.png": w.picture}
}

// plantAgentHost puts the agent host's word into its files, into the environment of a process and on a port.
func (p *probe) plantAgentHost(ctx context.Context) error {
	a := p.agent
	project := p.t.Project
	for _, dir := range []string{p.dir, path.Join(p.dir, "evil/.opencode/plugins")} {
		if err := a.Mkdir(ctx, dir, true); err != nil {
			return err
		}
	}
	p.undo = append(p.undo, func(ctx context.Context) error { return a.RemoveFile(ctx, p.dir, true) })
	planted := map[string][]byte{}
	for name, data := range p.files(p.agentHost) {
		planted[path.Join(p.dir, name)] = data
		planted[path.Join(project, name)] = data
	}
	// What somebody may have brought there: it must not be loaded by any request.
	evil := []byte("import {writeFileSync} from 'node:fs'\nwriteFileSync('" + p.dir + "/effect-evil-plugin', 'x')\nexport const Evil = async () => ({})\n")
	planted[path.Join(p.dir, "evil/.opencode/plugins/evil.js")] = evil
	planted[path.Join(p.dir, "evil/opencode.json")] = []byte(`{"username":"` + p.agentHost.text + `"}`)
	planted[path.Join(p.dir, "evil/AGENTS.md")] = []byte(p.agentHost.text + "\n")
	planted[path.Join(project, "AGENTS.md")] = []byte(p.agentHost.text + "\n")
	planted[path.Join(project, ".env")] = []byte("CANARY=" + p.agentHost.text + "\n")
	for name, data := range planted {
		if strings.HasPrefix(name, project) {
			p.undo = append(p.undo, func(ctx context.Context) error { return a.RemoveFile(ctx, name, false) })
		}
		if _, err := a.WriteFile(ctx, name, data, sandbox.WriteOptions{Mode: 0o666}); err != nil {
			return err
		}
	}
	if p.t.Quick {
		return nil
	}
	listener, err := a.Listen(ctx, "verify", "127.0.0.1:"+p.port)
	if err != nil {
		return err
	}
	p.serve(listener, p.agentHost)
	p.undo = append(p.undo, func(ctx context.Context) error { return a.Unlisten(ctx, "verify") })
	return nil
}

// serve says the word to each connection, as HTTP, until the end of the run.
func (p *probe) serve(listener net.Listener, w word) {
	p.undo = append(p.undo, func(context.Context) error { return listener.Close() })
	answer := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(w.text)) + "\r\n\r\n" + w.text
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				if _, err := conn.Read(make([]byte, 4096)); err == nil { // the request, or its beginning
					_, _ = conn.Write([]byte(answer)) // the other side may be gone
				}
			}()
		}
	}()
}

// ground is a session with what is planted in its sandbox.
type ground struct {
	session string
	box     Place
	word    word
}

// ground makes a session whose sandbox says the word.
func (p *probe) ground(ctx context.Context, w word) (*ground, error) {
	session, err := p.newSession(ctx)
	if err != nil {
		return nil, err
	}
	box := &lasting{reach: func(ctx context.Context) (Place, error) { return p.t.Sandbox(ctx, session) }}
	g := &ground{session: session, box: box, word: w}
	if err := box.Mkdir(ctx, p.dir, true); err != nil {
		return nil, err
	}
	for name, data := range p.files(w) {
		for _, dir := range []string{p.dir, p.t.Project} {
			if _, err := box.WriteFile(ctx, path.Join(dir, name), data, sandbox.WriteOptions{Mode: 0o666}); err != nil {
				return nil, err
			}
		}
	}
	if p.t.Quick {
		return g, nil
	}
	listener, err := box.Listen(ctx, "verify", "127.0.0.1:"+p.port)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.serve(listener, w)
	p.mu.Unlock()
	return g, nil
}

// clean removes what was planted and what came of it, newest first.
func (p *probe) clean(ctx context.Context) error {
	var errs []error
	if p.events != nil {
		p.events.stop()
	}
	for i := len(p.undo) - 1; i >= 0; i-- {
		err := p.undo[i](ctx)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, net.ErrClosed) && sandbox.CodeOf(err) != sandbox.CodeFileNotFound {
			errs = append(errs, err)
		}
	}
	if p.sleeper != nil {
		_ = p.sleeper.Process.Kill()
		_ = p.sleeper.Wait() // it was killed
	}
	for _, session := range p.sessions {
		if _, _, err := p.call(ctx, "DELETE", "/session/"+session, nil); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// see looks for words in a text. The result is "" when there is none.
func (p *probe) see(text string, own word) (Result, string) {
	has := func(w word) bool {
		return strings.Contains(text, w.text) || strings.Contains(text, base64.StdEncoding.EncodeToString(w.picture)) ||
			strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(w.text[:24])))
	}
	for _, w := range []word{p.machine, p.agentHost, p.neighbour, p.marker} {
		if w.text != own.text && has(w) {
			return Escaped, "it shows the canary of " + w.place
		}
	}
	for _, secret := range p.t.Secrets {
		if len(secret) >= 8 && strings.Contains(text, secret) {
			return Escaped, "it shows a key of a model provider"
		}
	}
	if has(own) {
		return Sandbox, "the marker of the sandbox"
	}
	return "", ""
}

// places says where a file of the run's directory exists, or has a new line.
func (p *probe) places(ctx context.Context, g *ground, name string) (inside bool, outside []string, err error) {
	name, changed := strings.CutPrefix(name, changedBy(""))
	file := path.Join(p.dir, name)
	if _, err := os.Lstat(file); err == nil { // what is to be changed is never planted here
		outside = append(outside, "this machine")
	}
	test := []string{"test", "-e", file}
	if changed {
		test = []string{"grep", "-qs", "new line", file}
	}
	for _, place := range []struct {
		box  Place
		name string
	}{{p.agent, "the agent host"}, {g.box, ""}, {p.otherBox(g), "another session's sandbox"}} {
		if place.box == nil {
			continue
		}
		found, err := holds(ctx, place.box, test)
		switch {
		case err != nil:
			return false, nil, err
		case found && place.name == "":
			inside = true
		case found:
			outside = append(outside, place.name)
		}
	}
	return inside, outside, nil
}

func (p *probe) otherBox(g *ground) Place {
	if p.other == nil || p.other.session == g.session {
		return nil
	}
	return p.other.box
}

func exists(ctx context.Context, box Place, file string) (bool, error) {
	return holds(ctx, box, []string{"test", "-e", file})
}

// holds says whether a command succeeds in a place.
func holds(ctx context.Context, box Place, argv []string) (bool, error) {
	found, err := box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: argv, Dir: "/"}})
	if err != nil {
		return false, err
	}
	return found.Exit.Success(), nil
}
