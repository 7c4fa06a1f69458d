package api

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// Files of a home that hold tokens. Both have mode 0600.
const (
	TokenFile  = "api-token"       // the host's own token, made at the first start
	issuedFile = "api-tokens.json" // the issued ones: hashes only
)

const (
	maxIssued       = 10_000
	maxIssuedBytes  = 16 << 20
	maxNoteBytes    = 200
	defaultLifetime = 24 * time.Hour
	maxLifetime     = 366 * 24 * time.Hour
	issuedPrefix    = "tongs-sandbox-"
	hostPrefix      = "tongs-host-"
)

// Tokens knows which tokens are good. It is safe for use by many goroutines.
type Tokens struct {
	dir  string
	host [sha256.Size]byte

	mu     sync.Mutex
	issued map[string]*issued // by id
	timer  *time.Timer        // for the one that expires next
	closed bool
	ended  func(id string)
}

// issued is a token as it is kept.
type issued struct {
	ID      string    `json:"id"`
	Hash    string    `json:"sha256"`
	Sandbox string    `json:"sandbox"` // id
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Note    string    `json:"note,omitempty"`
}

// OpenTokens reads the tokens of a home, and makes the host's own at the first time. A file that
// others can read is an error: the token in it is no secret any more.
func OpenTokens(dir string) (*Tokens, error) {
	t := &Tokens{dir: dir, issued: make(map[string]*issued), ended: func(string) {}}
	text, err := t.hostToken()
	if err != nil {
		return nil, err
	}
	t.host = sha256.Sum256([]byte(text))
	file := filepath.Join(dir, issuedFile)
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, tokenError(file, err)
	default:
		var all []*issued
		if err := json.Unmarshal(data, &all); err != nil || len(data) > maxIssuedBytes {
			return nil, sandbox.Errf(sandbox.CodeInternal, "read tokens", file+" cannot be read: "+fmt.Sprint(err), "remove it: all issued tokens end then")
		}
		for _, i := range all {
			if i != nil && i.ID != "" && time.Now().Before(i.Expires) {
				t.issued[i.ID] = i
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.schedule()
	return t, nil
}

func tokenError(file string, err error) error {
	return &sandbox.Error{Code: sandbox.CodeFilesystemError, Op: "read tokens", Message: err.Error(), Hint: "correct the rights of " + file + ", or remove it: a new one is made", Err: err}
}

// ReadToken reads a token from a file, for clients.
func ReadToken(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	if info.Size() > maxTokenBytes || !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s holds no token", file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s holds no token", file)
	}
	return token, nil
}

// hostToken reads the host's own token, or makes it.
func (t *Tokens) hostToken() (string, error) {
	file := filepath.Join(t.dir, TokenFile)
	info, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		text := hostPrefix + random(32)
		return text, t.write(TokenFile, []byte(text+"\n"))
	}
	if err != nil {
		return "", tokenError(file, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", sandbox.Errf(sandbox.CodePermissionDenied, "read tokens", file+" can be read by others", "remove it: a new token is made at the next start. (chmod 600 would keep the old one)")
	}
	text, err := ReadToken(file)
	if err != nil {
		return "", tokenError(file, err)
	}
	if len(text) < 16 {
		return "", sandbox.Errf(sandbox.CodeInvalidArgument, "read tokens", "the token in "+file+" is too short to be a secret", "remove the file: a new one is made")
	}
	return text, nil
}

// random is n random bytes in hex.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// write replaces a file of the home, mode 0600.
func (t *Tokens) write(name string, data []byte) (err error) {
	f, err := os.CreateTemp(t.dir, "."+name+"-*") // has mode 0600
	if err != nil {
		return tokenError(filepath.Join(t.dir, name), err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = tokenError(filepath.Join(t.dir, name), err)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(t.dir, name))
}

// onEnd has f told of each issued token that ends. It is set once, before the first request.
func (t *Tokens) onEnd(f func(id string)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = f
}

// check returns whom a token is of; nil for nobody. It takes the same time whatever is wrong with it.
func (t *Tokens) check(token string) *peer {
	sum := sha256.Sum256([]byte(token))
	host := subtle.ConstantTimeCompare(sum[:], t.host[:])
	id, _, _ := strings.Cut(strings.TrimPrefix(token, issuedPrefix), ".")
	t.mu.Lock()
	i := t.issued[id]
	t.mu.Unlock()
	known := &issued{Hash: strings.Repeat("0", 2*sha256.Size)}
	if i != nil {
		known = i
	}
	same := subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(known.Hash))
	switch {
	case host == 1:
		return &peer{}
	case i != nil && same == 1 && time.Now().Before(i.Expires):
		return &peer{token: i.ID, sandbox: i.Sandbox}
	}
	return nil
}

// good reports whether an issued token is still one.
func (t *Tokens) good(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.issued[id]
	return i != nil && time.Now().Before(i.Expires)
}

// issue makes a token for one sandbox.
func (t *Tokens) issue(sandboxID string, expires time.Time, note string) (*remote.TokenInfo, error) {
	const op = "issue token"
	now := time.Now()
	if expires.IsZero() {
		expires = now.Add(defaultLifetime)
	}
	switch {
	case !expires.After(now):
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "the token would have expired already", "give a time in the future")
	case expires.Sub(now) > maxLifetime:
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "the token would be good for more than 366 days", "issue a new one before it ends")
	case len(note) > maxNoteBytes || !utf8.ValidString(note):
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "the note is too long or no text", fmt.Sprintf("at most %d bytes", maxNoteBytes))
	}
	i := &issued{ID: random(6), Sandbox: sandboxID, Created: now.UTC().Truncate(time.Second), Expires: expires.UTC(), Note: note}
	token := issuedPrefix + i.ID + "." + random(32)
	sum := sha256.Sum256([]byte(token))
	i.Hash = hex.EncodeToString(sum[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.issued) >= maxIssued {
		return nil, sandbox.Errf(sandbox.CodeTooManyConnections, op, fmt.Sprintf("%d tokens are good already", maxIssued), "revoke some")
	}
	t.issued[i.ID] = i
	if err := t.save(); err != nil {
		delete(t.issued, i.ID)
		return nil, err
	}
	t.schedule()
	out := i.info()
	out.Token = token
	return &out, nil
}

func (i *issued) info() remote.TokenInfo {
	return remote.TokenInfo{ID: i.ID, Sandbox: i.Sandbox, Created: i.Created, Expires: i.Expires, Note: i.Note}
}

// list gives the issued tokens, oldest first.
func (t *Tokens) list() []remote.TokenInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]remote.TokenInfo, 0, len(t.issued))
	for _, i := range t.issued {
		all = append(all, i.info())
	}
	slices.SortFunc(all, func(a, b remote.TokenInfo) int { return a.Created.Compare(b.Created) })
	return all
}

// revoke ends the tokens that match. It returns how many there were.
func (t *Tokens) revoke(match func(*issued) bool) (int, error) {
	t.mu.Lock()
	var ended []string
	for id, i := range t.issued {
		if match(i) {
			ended = append(ended, id)
			delete(t.issued, id)
		}
	}
	var err error
	if len(ended) > 0 {
		err = t.save() // they have ended in this process in any case
		t.schedule()
	}
	tell := t.ended
	t.mu.Unlock()
	for _, id := range ended {
		tell(id)
	}
	return len(ended), err
}

// save writes the issued tokens; t is locked.
func (t *Tokens) save() error {
	all := make([]*issued, 0, len(t.issued))
	for _, i := range t.issued {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b *issued) int { return strings.Compare(a.ID, b.ID) })
	data, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return t.write(issuedFile, append(data, '\n'))
}

// schedule has the next token that expires ended in time; t is locked.
func (t *Tokens) schedule() {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	var next time.Time
	for _, i := range t.issued {
		if next.IsZero() || i.Expires.Before(next) {
			next = i.Expires
		}
	}
	if t.closed || next.IsZero() {
		return
	}
	t.timer = time.AfterFunc(time.Until(next), func() {
		now := time.Now()
		_, _ = t.revoke(func(i *issued) bool { return !now.Before(i.Expires) }) // the file is cleaned next time
	})
}

// Close ends the watch over what expires.
func (t *Tokens) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.schedule()
}
