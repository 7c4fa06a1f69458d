package idmap

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]Range{
		"":                                   nil,
		"al:100000:65536\n":                  {{100000, 65536}},
		"7:100000:65536":                     {{100000, 65536}}, // by number
		"bo:1:2\nal:100000:10\n\nal:200:5\n": {{100000, 10}, {200, 5}},
		"bo:what:ever\nal:5:5\n":             {{5, 5}},
		"al:100:50\nal:120:50\n":             {{100, 50}}, // the second overlaps
		"al:0:50\nal:5:0\n":                  nil,
		"al:4294967290:65536\n":              {{4294967290, 5}},
	} {
		got, err := parse(strings.NewReader(text), []string{"7", "al"})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", text, err, diff)
		}
	}
	for _, text := range []string{"al\n", "al:1\n", "al:1:2:3\n", "al:x:5\n", "al:1:-5\n", "al:99999999999:5\n", "al:1:" + strings.Repeat("1", maxLine)} {
		if got, err := parse(strings.NewReader(text), []string{"al"}); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestArrange(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		given []Range
		want  []Extent
	}{
		{nil, nil},
		{[]Range{{100000, 65536}}, []Extent{{0, 100000, 65536}}},
		{[]Range{{100000, 1 << 20}}, []Extent{{0, 100000, 65536}}},
		{[]Range{{100000, 40000}, {500000, 65536}}, []Extent{{0, 100000, 40000}, {40000, 500000, 25536}}},
		{[]Range{{100000, 5000}}, []Extent{{0, 100000, 4999}, {65534, 104999, 1}}},
		{[]Range{{100000, 5000}, {7, 1}}, []Extent{{0, 100000, 5000}, {65534, 7, 1}}},
	} {
		if diff := cmp.Diff(test.want, arrange(test.given)); diff != "" {
			t.Errorf("%v: %s", test.given, diff)
		}
	}
}

func TestMap(t *testing.T) {
	t.Parallel()
	full := []Extent{{0, 100000, 65536}}
	good := Map{UIDs: full, GIDs: []Extent{{0, 7, 40000}, {40000, 90000, 25536}}}
	if err := good.Check(); err != nil || good.None() || good.IDs() != Full || len(good.Tag()) != 12 {
		t.Error(err, good.IDs(), good.Tag())
	}
	if err := (Map{}).Check(); err != nil || (Map{}).Tag() != "" || !(Map{}).None() {
		t.Error(err)
	}
	for _, bad := range []Map{
		{UIDs: full},
		{GIDs: full},
		{UIDs: full, GIDs: []Extent{{0, 0, 65536}}},                            // the host's root
		{UIDs: full, GIDs: []Extent{{0, 100000, 0}}},                           // nothing
		{UIDs: full, GIDs: []Extent{{0, 100000, 65537}}},                       // too much
		{UIDs: full, GIDs: []Extent{{0, math.MaxUint32 - 5, 2000}}},            // beyond the last
		{UIDs: full, GIDs: []Extent{{0, 100000, 2000}, {1500, 200000, 2000}}},  // twice inside
		{UIDs: full, GIDs: []Extent{{0, 100000, 2000}, {2000, 101000, 2000}}},  // twice outside
		{UIDs: full, GIDs: []Extent{{1, 100000, 2000}}},                        // no root
		{UIDs: full, GIDs: []Extent{{0, 100000, 1000}, {1001, 200000, 60000}}}, // no user
	} {
		if bad.Check() == nil {
			t.Errorf("%v passes", bad)
		}
		if bad.Tag() == good.Tag() || bad.Equal(good) {
			t.Errorf("%v is like another", bad)
		}
	}
}

func TestInstallFor(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]string{
		"NAME=x\nID=debian\n":                          "sudo apt-get install uidmap",
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n":    "sudo apt-get install uidmap",
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"": "sudo dnf install shadow-utils",
		"ID=arch\n": "sudo pacman -S shadow",
		"":          "uidmap (Debian",
	} {
		if got := installFor(release); !strings.Contains(got, want) {
			t.Errorf("%q: %s", release, got)
		}
	}
}

// FuzzParse holds that whatever the files say, a map that is made of it can be given to newuidmap, or is
// refused.
func FuzzParse(f *testing.F) {
	f.Add("al:100000:65536\nal:7:4000\n")
	f.Add("al:4294967290:65536\nal:1:4294967295\n")
	f.Add("al:1:1\nal:5:1\nal:9:70000")
	f.Fuzz(func(t *testing.T, text string) {
		given, err := parse(strings.NewReader(text), []string{"al"})
		if err != nil {
			return
		}
		m := Map{UIDs: arrange(given), GIDs: arrange(given)}
		if m.IDs() < Least {
			return
		}
		if err := m.Check(); err != nil {
			t.Errorf("%q: %v: %v", text, m, err)
		}
		if len(arguments(m.UIDs)) != 3*len(m.UIDs) {
			t.Error(arguments(m.UIDs))
		}
	})
}
