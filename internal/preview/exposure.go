package preview

import (
	"cmp"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// ExposeOptions may be zero.
type ExposeOptions struct {
	// Name is kept and given back: at most 128 bytes.
	Name string
	// Token is the secret part of the host name: 1 to 26 of a-z 0-9 _, and at
	// least 16 of them where the front isn't open. Default: 128 random bits.
	Token string
}

// Exposed is a port that is served under a name with a token.
type Exposed struct {
	Sandbox string    `json:"sandbox"` // as a host name has it: see Label
	Port    int       `json:"port"`
	Name    string    `json:"name,omitempty"`
	Token   string    `json:"token"`
	Since   time.Time `json:"since"`
	URL     string    `json:"-"`
}

// Expose serves a port of a sandbox, whether something listens there yet or not. A
// port that is exposed already keeps its token unless another is asked for.
// Errors: CodeInvalidPort, CodeInvalidArgument, CodeAlreadyExists when the token is
// that of another port of the sandbox, CodeTooManyConnections over MaxExposures,
// and what writing the file gave.
func (h *Handler) Expose(box string, port int, opts ExposeOptions) (Exposed, error) {
	const op = "expose port"
	label := Label(box)
	if port < 1 || port > 65535 || slices.Contains(h.cfg.Reserved, port) {
		return Exposed{}, sandbox.Errf(sandbox.CodeInvalidPort, op, fmt.Sprintf("port %d can't be exposed", port), "ports are 1 to 65535, but for those that the host uses itself")
	}
	if !isLabel(label) {
		return Exposed{}, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the sandbox %.80q has a name that can't be part of a host name", box), "use its id")
	}
	if len(opts.Name) > 128 {
		return Exposed{}, sandbox.Errf(sandbox.CodeInvalidArgument, op, "the name is longer than 128 bytes", "")
	}
	if err := h.checkToken(opts.Token); err != nil {
		return Exposed{}, err
	}
	token := len(opts.Token)
	if token == 0 {
		token = tokenLength
	}
	if long := len(strconv.Itoa(port)) + len(label) + token + 2 - maxLabel; long > 0 {
		return Exposed{}, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the host name would have %d characters too many", long), "use the sandbox's id")
	}
	e, err := h.exposed.add(Exposed{Sandbox: label, Port: port, Name: opts.Name, Token: opts.Token, Since: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return Exposed{}, err
	}
	return h.withURL(e), nil
}

func (h *Handler) checkToken(token string) error {
	const op = "expose port"
	least := 16
	if h.cfg.Open {
		least = 1
	}
	if token == "" {
		return nil
	}
	if len(token) < least || len(token) > tokenLength || strings.ContainsRune(token, '-') || !isLabel(token) {
		return sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the token is not %d to %d of a-z 0-9 _", least, tokenLength), "leave it out to get one")
	}
	return nil
}

func (h *Handler) withURL(e Exposed) Exposed {
	e.URL = h.url(strconv.Itoa(e.Port) + "-" + e.Sandbox + "-" + e.Token)
	return e
}

// Unexpose revokes a port's URL. Requests that are under way go on.
// CodeInvalidPort when the port isn't exposed.
func (h *Handler) Unexpose(box string, port int) error {
	found, err := h.exposed.remove(func(e Exposed) bool { return e.Sandbox == Label(box) && e.Port == port })
	if err == nil && !found {
		return sandbox.Errf(sandbox.CodeInvalidPort, "unexpose port", fmt.Sprintf("port %d is not exposed", port), "")
	}
	return err
}

// Forget revokes all of a sandbox that is no more.
func (h *Handler) Forget(box string) error {
	_, err := h.exposed.remove(func(e Exposed) bool { return e.Sandbox == Label(box) })
	return err
}

// List gives the exposed ports of a sandbox, sorted.
func (h *Handler) List(box string) []Exposed {
	all := h.exposed.of(Label(box))
	for i := range all {
		all[i] = h.withURL(all[i])
	}
	return all
}

// PlainURL gives the URL without a token that every port has where the front is open; else "".
func (h *Handler) PlainURL(box string, port int) string {
	label := Label(box)
	name := strconv.Itoa(port) + "-" + label
	if !h.cfg.Open || !isLabel(label) || len(name) > maxLabel || port < 1 || port > 65535 || slices.Contains(h.cfg.Reserved, port) {
		return ""
	}
	return h.url(name)
}

// Valid says whether the port is exposed with that token.
func (h *Handler) Valid(box string, port int, token string) bool {
	return h.exposed.valid(Label(box), port, token)
}

// tokenLength is that of 128 bits in base 32.
const tokenLength = 26

func newToken() string {
	var b [16]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

type place struct {
	sandbox string
	port    int
}

// exposures are kept in memory and, if there is a file, in that.
type exposures struct {
	file string

	writing sync.Mutex // held over a change and its writing
	mu      sync.Mutex
	all     map[place]Exposed
}

const (
	maxFile     = 16 << 20
	fileVersion = 1
)

type exposureFile struct {
	Version int       `json:"version"`
	Exposed []Exposed `json:"exposed"`
}

func loadExposures(file string) (*exposures, error) {
	const op = "read exposed ports"
	x := &exposures{file: file, all: map[place]Exposed{}}
	if file == "" {
		return x, nil
	}
	if st, err := os.Stat(file); err == nil && st.Size() > maxFile {
		return nil, sandbox.Errf(sandbox.CodeFileTooLarge, op, file+" is too large to be what was written there", "remove it; ports have to be exposed again")
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	}
	if err != nil {
		return nil, sandbox.FileError(op, err)
	}
	var f exposureFile
	if err := json.Unmarshal(data, &f); err != nil || f.Version != fileVersion {
		return nil, &sandbox.Error{Code: sandbox.CodeFilesystemError, Op: op, Err: err, Message: file + " can't be read by this version", Hint: "remove it; ports have to be exposed again"}
	}
	for _, e := range f.Exposed {
		if isLabel(e.Sandbox) && e.Port >= 1 && e.Port <= 65535 && e.Token != "" {
			x.all[place{e.Sandbox, e.Port}] = e
		}
	}
	return x, nil
}

// valid compares in a time that doesn't depend on the token.
func (x *exposures) valid(box string, port int, token string) bool {
	x.mu.Lock()
	e, ok := x.all[place{box, port}]
	x.mu.Unlock()
	return same(e.Token, token) && ok
}

func (x *exposures) of(box string) []Exposed {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := []Exposed{}
	for _, e := range x.all {
		if e.Sandbox == box {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b Exposed) int { return cmp.Compare(a.Port, b.Port) })
	return all
}

func (x *exposures) add(e Exposed) (Exposed, error) {
	const op = "expose port"
	x.writing.Lock()
	defer x.writing.Unlock()
	siblings := x.of(e.Sandbox)
	for _, s := range siblings {
		if s.Port == e.Port && (e.Token == "" || e.Token == s.Token) {
			e.Token, e.Since, e.Name = s.Token, s.Since, cmp.Or(e.Name, s.Name)
		} else if s.Port != e.Port && s.Token == e.Token {
			return Exposed{}, sandbox.Errf(sandbox.CodeAlreadyExists, op, fmt.Sprintf("port %d has that token", s.Port), "choose another token")
		}
	}
	if x.has(e) {
		return e, nil
	}
	if len(siblings) >= MaxExposures {
		return Exposed{}, sandbox.Errf(sandbox.CodeTooManyConnections, op, fmt.Sprintf("%d ports of this sandbox are exposed, and no more are allowed", MaxExposures), "unexpose some")
	}
	if e.Token == "" {
		e.Token = newToken()
	}
	return e, x.change(func(all map[place]Exposed) { all[place{e.Sandbox, e.Port}] = e })
}

func (x *exposures) has(e Exposed) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.all[place{e.Sandbox, e.Port}] == e
}

func (x *exposures) remove(match func(Exposed) bool) (bool, error) {
	x.writing.Lock()
	defer x.writing.Unlock()
	found := false
	x.mu.Lock()
	for _, e := range x.all {
		found = found || match(e)
	}
	x.mu.Unlock()
	if !found {
		return false, nil
	}
	return true, x.change(func(all map[place]Exposed) {
		for k, e := range all {
			if match(e) {
				delete(all, k)
			}
		}
	})
}

// change writes the new state before it holds, so that what was promised is kept.
func (x *exposures) change(f func(map[place]Exposed)) error {
	x.mu.Lock()
	next := make(map[place]Exposed, len(x.all)+1)
	for k, e := range x.all {
		next[k] = e
	}
	x.mu.Unlock()
	f(next)
	if err := x.write(next); err != nil {
		return err
	}
	x.mu.Lock()
	x.all = next
	x.mu.Unlock()
	return nil
}

func (x *exposures) write(all map[place]Exposed) error {
	if x.file == "" {
		return nil
	}
	const op = "keep exposed ports"
	f := exposureFile{Version: fileVersion, Exposed: make([]Exposed, 0, len(all))}
	for _, e := range all {
		f.Exposed = append(f.Exposed, e)
	}
	slices.SortFunc(f.Exposed, func(a, b Exposed) int {
		return cmp.Or(cmp.Compare(a.Sandbox, b.Sandbox), cmp.Compare(a.Port, b.Port))
	})
	data, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return sandbox.FileError(op, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(x.file), ".previews-*") // mode 0600
	if err != nil {
		return sandbox.FileError(op, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), x.file)
	}
	return sandbox.FileError(op, err)
}
