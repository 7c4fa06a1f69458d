package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDetachKeys types keys in pieces of every size; what is passed on must not depend on that.
func TestDetachKeys(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		keys, typed, passed string
		left                bool
	}{
		{"ctrl-],d", "ls\r", "ls\r", false},
		{"ctrl-],d", "ls\x1dd", "ls", true},
		{"ctrl-],d", "ls\x1dddd", "ls", true},
		{"ctrl-],d", "a\x1dx", "a\x1dx", false},
		{"ctrl-],d", "a\x1d\x1db", "a\x1db", false},
		{"ctrl-],d", "a\x1d\x1ddb", "a\x1ddb", false},
		{"ctrl-p,ctrl-q", "\x10\x11", "", true},
		{"ctrl-p,ctrl-q", "\x10ls", "\x10ls", false},
		{"x,y,z", "xyxyz", "xy", true},
		{"q", "abq", "ab", true},
	} {
		for size := 1; size <= len(test.typed); size++ {
			d, err := parseDetachKeys(test.keys)
			if err != nil {
				t.Fatal(err)
			}
			var passed []byte
			left := false
			for rest := test.typed; rest != "" && !left; {
				n := min(size, len(rest))
				var p []byte
				p, left = d.filter([]byte(rest[:n]))
				passed, rest = append(passed, p...), rest[n:]
			}
			if string(passed) != test.passed || left != test.left {
				t.Errorf("%s, %q in pieces of %d: %q %v, want %q %v", test.keys, test.typed, size, passed, left, test.passed, test.left)
			}
		}
	}
	if d, err := parseDetachKeys("none"); d != nil || err != nil {
		t.Errorf("none: %v %v", d, err)
	}
	for _, text := range []string{"ctrl-1", "ctrl-", "ab", ",", "ctrl-],"} {
		if _, err := parseDetachKeys(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]place{
		"web:":          {"web", ""},
		"web:/tmp/a":    {"web", "/tmp/a"},
		"web:a:b":       {"web", "a:b"},
		"ses_Ab:x":      {"ses_Ab", "x"},
		"file":          {"", "file"},
		"./web:x":       {"", "./web:x"},
		"/a:b":          {"", "/a:b"},
		"../a:b":        {"", "../a:b"},
		"dir/file:name": {"", "dir/file:name"},
		":x":            {"", ":x"},
		"-":             {"", "-"},
	} {
		if diff := cmp.Diff(want, parsePlace(text), cmp.AllowUnexported(place{})); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func FuzzDetachKeys(f *testing.F) {
	f.Add("ctrl-],d", []byte("a\x1dd"))
	f.Add("x,y,x", []byte("xyxyx"))
	f.Fuzz(func(t *testing.T, keys string, typed []byte) {
		d, err := parseDetachKeys(keys)
		if err != nil || d == nil {
			return
		}
		if pass, _ := d.filter(typed); len(pass) > len(typed) {
			t.Errorf("%q became %q", typed, pass)
		}
	})
}
