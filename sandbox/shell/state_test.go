package shell

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseReport(t *testing.T) {
	t.Parallel()
	report := func(items ...string) []byte { return []byte(strings.Join(items, "\x00") + "\x00") }
	for _, c := range []struct {
		name   string
		report []byte
		want   change
		ok     bool
	}{
		{"nothing changed", report("D/a\n", "VX=1", "B", "D/a\n", "VX=1", "E"), change{}, true},
		{"all changed", report("D/a\n", "VX=1", "VY=2", "VZ=", "B", "D/b\nc\n", "VX=3\n=", "VZ=", "VN=", "E"),
			change{dir: "/b\nc", set: map[string]string{"X": "3\n=", "N": ""}, unset: []string{"Y"}}, true},
		{"own variables", report("D/a\n", "V_=1", "VSHLVL=1", "VBASH_ENV=x", "B", "D/a\n", "V_=2", "VPWD=/b", "E"), change{}, true},
		{"no UTF-8", report("D/a\n", "B", "D/\xff\n", "VX=\xff", "E"), change{}, true},
		{"a relative directory", report("D/a\n", "B", "Dx\n", "E"), change{}, true},
		{"nothing", nil, change{}, false},
		{"no end", report("D/a\n", "VX=1", "B", "D/a\n", "VX=2"), change{}, false},
		{"cut off", []byte("D/a\n\x00B\x00D/a\n\x00E"), change{}, false},
		{"no beginning", report("D/a\n", "E"), change{}, false},
		{"two beginnings", report("D/a\n", "B", "B"), change{}, false},
		{"something else", report("D/a\n", "Q", "B", "E"), change{}, false},
	} {
		got, ok := parseReport(c.report)
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(change{})); ok != c.ok || diff != "" {
			t.Errorf("%s: %v, -want +got:\n%s", c.name, ok, diff)
		}
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	st := State{Unset: []string{"A"}}
	st.apply(change{dir: "/x", set: map[string]string{"A": "1", "B": "2"}})
	st.apply(change{set: map[string]string{"B": "3"}, unset: []string{"C", "A"}})
	st.apply(change{unset: []string{"C"}})
	if diff := cmp.Diff(State{Dir: "/x", Set: map[string]string{"B": "3"}, Unset: []string{"A", "C"}}, st); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func FuzzParseReport(f *testing.F) {
	f.Add([]byte("D/a\n\x00VX=1\x00B\x00D/b\n\x00VX=2\x00E\x00"))
	f.Add([]byte("D\x00\x00B\x00E\x00"))
	f.Fuzz(func(t *testing.T, report []byte) {
		c, ok := parseReport(report)
		if !ok && !c.empty() {
			t.Errorf("%+v of what is no report", c)
		}
		for name, value := range c.set {
			if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
				t.Errorf("%q=%q can't be set", name, value)
			}
		}
		for _, name := range c.unset {
			if _, both := c.set[name]; both || name == "" {
				t.Errorf("%q is unset", name)
			}
		}
		var st State
		st.apply(c)
	})
}
