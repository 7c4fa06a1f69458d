package opencode

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// maxIdleAttempts is how many attempts in a row may bring no byte.
	maxIdleAttempts = 5
	// maxAttempts bounds the attempts that did bring some.
	maxAttempts = 40
	// maxTarball bounds a tarball whose size is not pinned.
	maxTarball = 1 << 30
	// maxManifest bounds the registry's description of one version.
	maxManifest = 1 << 20
	// maxRetryDelay bounds the wait between two attempts, also when the
	// registry asks for a longer one.
	maxRetryDelay = 15 * time.Second
)

// fetcher downloads one tarball into one file.
type fetcher struct {
	o        *ObtainOptions
	client   *http.Client
	registry *url.URL
	url      string // of the tarball
	askedURL bool   // the registry was asked where the tarball is
	part     *os.File
	digest   hash.Hash
	have     int64 // bytes in part and in digest
	lastTold time.Time
}

// errFinal marks an error after which another attempt is pointless.
type errFinal struct{ error }

// download returns the name of a file in dir that holds the tarball of the
// package, its digest checked.
func download(ctx context.Context, o *ObtainOptions, dir string) (string, error) {
	const op = "download OpenCode"
	registry, where, err := o.Npm.Registry(o.Package.Name)
	if err != nil {
		return "", err
	}
	transport, err := o.Npm.Transport(registry)
	if err != nil {
		return "", err
	}
	defer transport.CloseIdleConnections()
	newHash, want, err := parseIntegrity(o.Package.Integrity)
	if err != nil {
		return "", err
	}
	base := o.Package.Name[strings.LastIndexByte(o.Package.Name, '/')+1:]
	name := filepath.Join(dir, ".download-"+base+".tgz.part")
	part, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", fileError(op, dir, err)
	}
	defer part.Close()
	f := &fetcher{
		o: o, registry: registry, part: part, digest: newHash(),
		url: registry.JoinPath(o.Package.Name, "-", base+"-"+o.Package.Version+".tgz").String(),
		client: &http.Client{
			Transport: transport,
			// net/http drops Authorization when a redirect leaves the host.
			CheckRedirect: func(r *http.Request, via []*http.Request) error {
				if len(via) >= 10 {
					return errors.New("more than 10 redirects")
				}
				if via[len(via)-1].URL.Scheme == "https" && r.URL.Scheme != "https" {
					return errors.New("redirected from https to http")
				}
				return nil
			},
		},
	}
	// A rest of an earlier download counts, if it is one.
	if f.have, err = io.Copy(f.digest, part); err != nil {
		return "", fileError(op, dir, err)
	}
	resumed := f.have > 0
	for {
		if err := f.fetchAll(ctx, where); err != nil {
			if f.have == 0 {
				os.Remove(name)
			}
			var oe *ObtainError
			if errors.As(err, &oe) {
				return "", err
			}
			return "", fileError(op, dir, err)
		}
		got := f.digest.Sum(nil)
		if string(got) == string(want) {
			break
		}
		if resumed { // what was on the disk may be what is wrong: once more from the start
			resumed = false
			if err := f.restart(); err != nil {
				return "", fileError(op, dir, err)
			}
			continue
		}
		os.Remove(name)
		return "", &ObtainError{Code: CodeDigestMismatch, Op: op,
			Message: fmt.Sprintf("%s %s from %s is not the package that is pinned (%d bytes, digest %s, wanted %s)",
				o.Package.Name, o.Package.Version, registry.Host, f.have, base64.StdEncoding.EncodeToString(got), o.Package.Integrity),
			Hint: "the registry, a proxy or a cache in between serves something else: nothing of it was kept; try another registry with npm_config_registry"}
	}
	return name, nil
}

// parseIntegrity reads a digest in SRI form.
func parseIntegrity(s string) (newHash func() hash.Hash, want []byte, err error) {
	alg, text, _ := strings.Cut(s, "-")
	want, err = base64.StdEncoding.DecodeString(text)
	switch {
	case err == nil && alg == "sha512" && len(want) == sha512.Size:
		return sha512.New, want, nil
	case err == nil && alg == "sha256" && len(want) == sha256.Size:
		return sha256.New, want, nil
	}
	return nil, nil, &ObtainError{Code: CodeDigestMismatch, Op: "download OpenCode", Message: fmt.Sprintf("the pinned digest %q is not one", s),
		Hint: "it must be sha512-<base64> or sha256-<base64>"}
}

// restart forgets what was downloaded.
func (f *fetcher) restart() error {
	f.digest.Reset()
	f.have = 0
	if _, err := f.part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return f.part.Truncate(0)
}

// fetchAll makes attempts until the tarball is whole.
func (f *fetcher) fetchAll(ctx context.Context, where string) error {
	delay, idle := f.o.RetryDelay, 0
	for n := 1; ; n++ {
		before := f.have
		err := f.attempt(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var final errFinal
		if errors.As(err, &final) {
			return final.error
		}
		if f.have > before {
			idle, delay = 0, f.o.RetryDelay
		} else {
			idle++
		}
		f.o.Logger.Info("download of OpenCode interrupted", "attempt", n, "bytes", f.have, "error", err)
		if idle >= maxIdleAttempts || n >= maxAttempts {
			return f.gaveUp(err, n, where)
		}
		wait := delay
		var busy *busyError
		if errors.As(err, &busy) && busy.after > wait {
			wait = busy.after
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(wait, maxRetryDelay)):
		}
		delay = min(2*delay, maxRetryDelay)
	}
}

// gaveUp words the error after the last attempt.
func (f *fetcher) gaveUp(err error, attempts int, where string) error {
	e := &ObtainError{Code: CodeRegistryUnreachable, Op: "download OpenCode", Err: stripURL(err),
		Message: fmt.Sprintf("the npm registry %s gave no answer that helps in %d attempts", f.registry.Host, attempts)}
	if f.have > 0 {
		e.Code = CodeDownloadTruncated
		e.Message = fmt.Sprintf("the connection to the npm registry %s broke again and again, last after %d of %d bytes", f.registry.Host, f.have, f.o.Package.Size)
	}
	e.Hint = "check the network, HTTPS_PROXY and the registry"
	if where != "" {
		e.Hint += " (set in " + where + ")"
	}
	e.Hint += ", then start again; without a network install OpenCode " + f.o.Package.Version + " yourself and name it with --opencode-binary"
	return e
}

// busyError is an answer that may be another one later.
type busyError struct {
	status string
	after  time.Duration
}

func (e *busyError) Error() string { return "the registry answered " + e.status }

// attempt fetches what is missing. An error that is not errFinal allows
// another attempt.
func (f *fetcher) attempt(ctx context.Context) error {
	size := f.o.Package.Size
	if size > 0 && f.have == size {
		return nil
	}
	if size > 0 && f.have > size {
		if err := f.restart(); err != nil {
			return errFinal{err}
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(f.o.StallTimeout, func() { cancel(fmt.Errorf("no byte for %v", f.o.StallTimeout)) })
	defer stall.Stop()
	cause := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return stripURL(err)
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return errFinal{err}
	}
	f.o.Npm.Authorize(req)
	req.Header.Set("User-Agent", "tongs")
	req.Header.Set("Accept-Encoding", "identity")
	if f.have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", f.have))
	}
	f.report(true)
	resp, err := f.client.Do(req)
	if err != nil {
		return cause(err)
	}
	defer resp.Body.Close()
	switch code := resp.StatusCode; {
	case code == http.StatusOK, code == http.StatusPartialContent && !startsAt(resp, f.have):
		if f.have > 0 { // the registry does not resume
			if err := f.restart(); err != nil {
				return errFinal{err}
			}
		}
		if code != http.StatusOK {
			return errors.New("the registry answered with another range")
		}
	case code == http.StatusPartialContent:
	case code == http.StatusRequestedRangeNotSatisfiable:
		if err := f.restart(); err != nil {
			return errFinal{err}
		}
		return errors.New("the registry has nothing after the bytes that are here")
	case code == http.StatusNotFound && !f.askedURL:
		f.askedURL = true
		stall.Stop()
		if err := f.locate(ctx); err != nil {
			return err
		}
		return f.attempt(ctx) // once: askedURL is set
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &busyError{resp.Status, time.Duration(max(after, 0)) * time.Second}
	default:
		return errFinal{f.refused(resp.StatusCode)}
	}

	limit := size
	if limit == 0 {
		limit = maxTarball
	}
	buf := make([]byte, 128<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			stall.Reset(f.o.StallTimeout)
			if f.have+int64(n) > limit {
				// More than the pinned package has: the digest will be wrong.
				n = int(limit - f.have)
				err = io.EOF
			}
			if _, werr := f.part.Write(buf[:n]); werr != nil {
				return errFinal{werr}
			}
			f.digest.Write(buf[:n])
			f.have += int64(n)
			f.report(false)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return cause(err)
		}
	}
	if size > 0 && f.have < size {
		return fmt.Errorf("the download ended after %d of %d bytes", f.have, size)
	}
	f.report(true)
	return nil
}

// startsAt tells whether a partial answer begins at the byte asked for.
func startsAt(resp *http.Response, at int64) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", at))
}

// refused words an answer that no further attempt changes.
func (f *fetcher) refused(code int) error {
	e := &ObtainError{Op: "download OpenCode",
		Message: fmt.Sprintf("the npm registry %s answered %d %s for %s %s", f.registry.Host, code, http.StatusText(code), f.o.Package.Name, f.o.Package.Version)}
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		e.Code = CodeRegistryDenied
		e.Hint = "log in to it with npm login, or put //" + f.registry.Host + f.registry.Path + ":_authToken=… into ~/.npmrc"
	case http.StatusNotFound, http.StatusGone:
		e.Code = CodePackageNotFound
		e.Hint = "use a registry that has it (npm_config_registry=" + DefaultRegistry + "), or name an own binary with --opencode-binary"
	default:
		e.Code = CodeRegistryUnreachable
		e.Hint = "check npm_config_registry and the proxy"
	}
	return e
}

// locate asks the registry where the tarball is; some keep it elsewhere than at
// the usual place. Where it comes from does not matter: the digest is pinned.
func (f *fetcher) locate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.o.StallTimeout)
	defer cancel()
	u := f.registry.JoinPath(strings.ReplaceAll(f.o.Package.Name, "/", "%2f"), f.o.Package.Version)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return errFinal{err}
	}
	f.o.Npm.Authorize(req)
	req.Header.Set("User-Agent", "tongs")
	req.Header.Set("Accept", "application/json")
	resp, err := f.client.Do(req)
	if err != nil {
		return stripURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 500 {
		return &busyError{status: resp.Status}
	}
	if resp.StatusCode != http.StatusOK {
		return errFinal{f.refused(resp.StatusCode)}
	}
	var manifest struct {
		Dist struct {
			Tarball string `json:"tarball"`
		} `json:"dist"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxManifest)).Decode(&manifest); err != nil {
		return errFinal{f.refused(http.StatusNotFound)}
	}
	t, err := url.Parse(manifest.Dist.Tarball)
	if err != nil || t.Host == "" || t.Scheme != "https" && t.Scheme != f.registry.Scheme {
		return errFinal{f.refused(http.StatusNotFound)}
	}
	f.url = t.String()
	return nil
}

func (f *fetcher) report(always bool) {
	if now := time.Now(); always || now.Sub(f.lastTold) >= 100*time.Millisecond {
		f.lastTold = now
		f.o.report(Progress{Phase: PhaseDownload, From: f.registry.Host, Done: f.have, Total: f.o.Package.Size})
	}
}
