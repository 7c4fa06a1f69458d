package capnweb_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
)

// TestPathsThatEndNowhere: what paths below values lead to, and how a call of
// what is no function is refused. The texts are the reference's.
func TestPathsThatEndNowhere(t *testing.T) {
	t.Parallel()
	main := capnweb.NewTarget(capnweb.Methods{
		"config": capnweb.Getter(func() any {
			return capnweb.Object{{Key: "deep", Value: capnweb.Object{}}, {Key: "none", Value: nil}}
		}),
		"object": func() any { return capnweb.Object{{Key: "a", Value: capnweb.Object{}}} },
		"square": func(i int) int { return i * i },
	})
	p := newRawPeer(t, main)
	p.send(`["push",null]`, `["push",["pipeline",0,["object"],[]]]`)
	notAFunction := func(path string) string {
		return `["error","TypeError","'` + path + `' is not a function.`
	}
	for i, c := range []struct{ expr, kind, want string }{
		{`["pipeline",0,["config","deep","nope"],[]]`, "reject", notAFunction("config.deep.nope")},
		{`["pipeline",0,["config"],[]]`, "reject", notAFunction("config")},
		{`["pipeline",0,["config","none","x"],[]]`, "reject", notAFunction("config.none.x")},
		{`["pipeline",0,["square","x"],[]]`, "reject", notAFunction("square.x")},
		{`["pipeline",0,["square","__proto__"],[]]`, "reject", notAFunction("square.__proto__")},
		{`["pipeline",2,["a","b"],[]]`, "reject", notAFunction("a.b")},
		{`["pipeline",1,["x"]]`, "resolve", `["undefined"]`},
		{`["pipeline",1,["x","y"]]`, "reject", `["error","TypeError","undefined is not an object`},
		{`["pipeline",1,["x"],[]]`, "reject", notAFunction("x")},
		{`["pipeline",0,["config","none","x"]]`, "resolve", `["undefined"]`},
		{`["pipeline",0,["square","0","__proto__"]]`, "resolve", `["undefined"]`},
		{`["pipeline",2,["nope","toString"]]`, "resolve", `["undefined"]`},
		{`["pipeline",2,["nope","x"]]`, "reject", `["error","TypeError","undefined is not an object`},
	} {
		p.send(`["stream",` + c.expr + `]`)
		want := fmt.Sprintf(`["%s",%d,%s`, c.kind, i+3, c.want)
		if got := <-p.in; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s…", c.expr, got, want)
		}
	}
}

// TestUnknownRejection: the rejection of something that we gave up is ignored,
// whatever is in it; a resolution is not.
func TestUnknownRejection(t *testing.T) {
	t.Parallel()
	for _, expr := range []string{`["readable",0]`, `["pipeline",99]`, `["bogus"]`, `1`} {
		p := newRawPeer(t, recordedMain())
		p.send(`["reject",-3,`+expr+`]`, `["reject",7,`+expr+`]`, `["push",["pipeline",0,["square"],[3]]]`, `["pull",1]`)
		p.expect(`["resolve",1,9]`)
	}
	p := newRawPeer(t, recordedMain())
	p.send(`["resolve",-3,["pipeline",99]]`)
	if err := p.ended(); !strings.Contains(err.Error(), "no such entry on exports table: 99") {
		t.Fatal(err)
	}
}
