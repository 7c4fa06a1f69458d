package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCodes(t *testing.T) {
	t.Parallel()
	for _, c := range sandbox.Codes() {
		if s := c.HTTPStatus(); s < 400 || s > 599 {
			t.Errorf("%s has status %d", c, s)
		}
		if string(c) != strings.ToUpper(string(c)) || strings.ContainsAny(string(c), " -") || !c.Known() {
			t.Errorf("%q is no code", c)
		}
		if c.Meaning() == "" || c.Advice() == "" {
			t.Errorf("%s has no meaning or no advice", c)
		}
	}
	if c := sandbox.Code("WHAT"); c.Known() || c.HTTPStatus() != 500 || c.Meaning()+c.Advice() != "" {
		t.Errorf("%q: %v, %d, %q", c, c.Known(), c.HTTPStatus(), c.Advice())
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]*sandbox.Error{
		"read: no (try again)": {Code: sandbox.CodeInternal, Op: "read", Message: "no", Hint: "try again"},
		"cause":                {Code: sandbox.CodeInternal, Err: errors.New("cause")},
		"x: TIMEOUT":           {Code: sandbox.CodeTimeout, Op: "x"},
	} {
		if got := e.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestErrorIs(t *testing.T) {
	t.Parallel()
	err := error(sandbox.Errf(sandbox.CodeFileNotFound, "read", "gone", ""))
	wrapped := errors.Join(errors.New("more"), err)
	if !errors.Is(wrapped, fs.ErrNotExist) || !errors.Is(wrapped, &sandbox.Error{Code: sandbox.CodeFileNotFound}) || sandbox.CodeOf(wrapped) != sandbox.CodeFileNotFound {
		t.Error("the error isn't what it is")
	}
	if errors.Is(err, fs.ErrExist) || errors.Is(err, &sandbox.Error{Code: sandbox.CodeFileExists}) || errors.Is(err, &sandbox.Error{Code: sandbox.CodeFileNotFound, Op: "other"}) {
		t.Error("the error is what it isn't")
	}
	if !errors.Is(sandbox.Errf(sandbox.CodeTimeout, "", "", ""), context.DeadlineExceeded) || sandbox.CodeOf(errors.New("x")) != "" {
		t.Error("codes")
	}
}

func TestFileError(t *testing.T) {
	t.Parallel()
	if sandbox.FileError("x", nil) != nil {
		t.Error("nothing became something")
	}
	err := sandbox.FileError("rename", &os.LinkError{Op: "rename", Old: "a", New: "b", Err: syscall.ENOSPC})
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != sandbox.CodeNoSpace || e.Hint == "" || !strings.Contains(e.Message, "a → b") {
		t.Errorf("%#v", err)
	}
	if again := sandbox.FileError("other", err); again != err {
		t.Errorf("%#v", again)
	}
	if sandbox.CodeOf(sandbox.FileError("x", errors.New("odd"))) != sandbox.CodeFilesystemError {
		t.Error("an unknown error has another code")
	}
}

// An error is the same on both sides of a session.
func TestErrorsTravel(t *testing.T) {
	t.Parallel()
	a, b := capnweb.Pipe()
	sent := &sandbox.Error{Code: sandbox.CodePortInUse, Op: "listen", Message: "taken", Hint: "another"}
	server := capnweb.NewSession(a, capnweb.NewTarget(capnweb.Methods{
		"fail":  func() error { return sent },
		"plain": func() error { return errors.New("plain") },
		"hang":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	}))
	client := capnweb.NewSession(b, nil)
	main := client.Main()
	defer main.Close()
	call := func(ctx context.Context, method string) error {
		_, err := capnweb.Call[any](ctx, main, method)
		return sandbox.FromWire("op", err)
	}
	ctx := t.Context()
	var got *sandbox.Error
	if err := call(ctx, "fail"); !errors.As(err, &got) {
		t.Fatal(err)
	}
	got.Err = nil
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Error(diff)
	}
	if err := call(ctx, "plain"); !errors.As(err, &got) || got.Code != sandbox.CodeInternal || got.Op != "op" || got.Message != "plain" {
		t.Errorf("%#v", err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := call(short, "hang"); !errors.Is(err, context.Canceled) || sandbox.CodeOf(err) != "" {
		t.Errorf("%#v", err)
	}
	done := make(chan error)
	go func() { done <- call(ctx, "hang") }()
	server.Close(nil)
	if err := <-done; sandbox.CodeOf(err) != sandbox.CodeConnectionLost {
		t.Errorf("%#v", err)
	}
	client.Close(nil)
	if sandbox.FromWire("x", nil) != nil {
		t.Error("nothing became something")
	}
}

func TestSignalNames(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"SIGTERM", "TERM", "term", "15"} {
		if sig, err := sandbox.ParseSignal(s); err != nil || sig != syscall.SIGTERM {
			t.Errorf("%q is %v, %v", s, sig, err)
		}
	}
	for _, s := range []string{"", "0", "65", "-1", "SIG", "SIGSIGTERM", "9 "} {
		if sig, err := sandbox.ParseSignal(s); err == nil {
			t.Errorf("%q is %v", s, sig)
		}
	}
	if n := sandbox.SignalName(40); n != "SIG40" {
		t.Errorf("signal 40 is %q", n)
	}
	for _, e := range []struct {
		exit sandbox.Exit
		want int
	}{{sandbox.Exit{Code: 3}, 3}, {sandbox.Exit{Code: -1, Signal: "SIGKILL"}, 137}, {sandbox.Exit{Code: -1, Signal: "SIG40"}, 168}} {
		if got := e.exit.ShellCode(); got != e.want {
			t.Errorf("%+v: %d", e.exit, got)
		}
	}
}

// TestCodesAreWrittenDown holds docs/errors.md to the registry. With TONGS_UPDATE=1 it writes the page's table.
func TestCodesAreWrittenDown(t *testing.T) {
	t.Parallel()
	const page, first = "../docs/errors.md", "| code | status | what has happened | what to do |\n|---|---|---|---|\n"
	codes := sandbox.Codes()
	slices.Sort(codes)
	var table strings.Builder
	for _, c := range codes {
		fmt.Fprintf(&table, "| `%s` | %d | %s | %s |\n", c, c.HTTPStatus(), c.Meaning(), c.Advice())
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, now, ok := strings.Cut(string(text), first)
	if !ok {
		t.Fatalf("%s has no table of codes", page)
	}
	if os.Getenv("TONGS_UPDATE") != "" {
		if err := os.WriteFile(page, []byte(before+first+table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(table.String(), now); diff != "" {
		t.Errorf("%s is not what the registry says; TONGS_UPDATE=1 go test -run Written ./sandbox writes it: %s", page, diff)
	}
}
