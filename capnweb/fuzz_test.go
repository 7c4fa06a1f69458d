package capnweb_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tongs-dev/tongs/capnweb"
)

// seedFrames are the frames of all recordings.
func seedFrames(f *testing.F) [][]string {
	f.Helper()
	var out [][]string
	b, err := os.ReadFile("testdata/transcripts.txt")
	if err != nil {
		f.Fatal(err)
	}
	var cur []string
	for _, l := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(l, "## ") {
			out = append(out, cur)
			cur = nil
		}
		if strings.HasPrefix(l, "C> ") {
			cur = append(cur, l[3:])
		}
	}
	b, err = os.ReadFile("testdata/probes.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, l := range strings.Split(string(b), "\n") {
		if _, s, ok := strings.Cut(l, "in :"); ok {
			out = append(out, strings.Split(strings.TrimSpace(s), "  "))
		}
	}
	return append(out, cur)
}

// FuzzSession plays frames against a session. Whatever they are, the session ends
// in time and takes its goroutines with it.
func FuzzSession(f *testing.F) {
	for _, s := range seedFrames(f) {
		f.Add([]byte(strings.Join(s, "\n")))
	}
	f.Add([]byte(`["push",["promise",-1]]` + "\n" + `["resolve",-1,["pipeline",1]]` + "\n" + `["pull",1]`))
	f.Add([]byte(`["push",["promise",-1]]` + "\n" + `["resolve",-1,{"a":["pipeline",1],"b":["pipeline",1]}]` + "\n" + `["pull",1]`))
	f.Add([]byte(`["pipe"]` + "\n" + `["push",["readable",1]]` + "\n" + `["push",["pipeline",2]]` + "\n" + `["pull",2]` + "\n" + `["pull",3]`))
	f.Add([]byte(`["push",["pipeline",0,["echo"],[["writable",-1]]]]` + "\n" + `["pull",1]` + "\n" + `["push",["blob","",["readable",1]]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		mine, theirs := capnweb.Pipe()
		s := capnweb.NewSession(theirs, recordedMain(), capnweb.WithLimits(capnweb.Limits{
			MaxExports: 200, MaxImports: 200, MaxMapCalls: 100, MaxQueuedBytes: 1 << 20, MaxPipeBytes: 1 << 16, MaxMessageBytes: 1 << 16,
		}))
		go func() {
			for {
				if _, err := mine.ReadMessage(); err != nil {
					return
				}
			}
		}()
		for _, l := range bytes.Split(data, []byte("\n")) {
			if mine.WriteMessages([][]byte{l}) != nil {
				break
			}
		}
		_ = mine.Close(nil)
		select {
		case <-s.Done():
		case <-time.After(20 * time.Second):
			buf := make([]byte, 1<<20)
			t.Fatalf("the session does not end\n%s", buf[:runtime.Stack(buf, true)])
		}
		if st := s.Stats(); st.Imports != 0 || st.Exports != 0 {
			t.Fatalf("tables after the end: %+v", st)
		}
	})
}

// FuzzJSON compares the parser with jsontext.
func FuzzJSON(f *testing.F) {
	for _, s := range seedFrames(f) {
		for _, l := range s {
			f.Add([]byte(l))
		}
	}
	for _, s := range []string{`"\ud83d\ude00\u0000\/"`, `[1.5e+10,-0,0.1E-2]`, `01`, `"\x"`, "\"\xff\"", `{"a":1,"a":2}`, `[1,]`, `nul`, ` [ ] `, `"a`, `-`, `1.`, `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := capnweb.ParseJSON(data)
		d := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		want, werr := d.ReadValue()
		want = want.Clone() // it is only valid until the next read
		if werr == nil {
			if _, e := d.ReadToken(); e == nil || e.Error() != "EOF" {
				werr = json.Unmarshal(data, new(any))
				if werr == nil {
					t.Skip()
				}
			}
		}
		if (err == nil) != (werr == nil) {
			t.Fatalf("%q: %v, jsontext says %v", data, err, werr)
		}
		if err != nil {
			return
		}
		var v any
		if json.Unmarshal(want, &v) != nil {
			return // numbers out of range
		}
		x, err1 := json.Marshal(v)
		y, err2 := json.Marshal(got)
		if err1 != nil || err2 != nil || !bytes.Equal(x, y) {
			t.Fatalf("%q: %s, want %s", data, y, x)
		}
	})
}

// FuzzValue evaluates an expression and sends it back.
func FuzzValue(f *testing.F) {
	for _, s := range []string{
		`1`, `[[1,["date",5.5]]]`, `["bytes","AQ==","Int16Array"]`, `["bigint","0x10"]`, `["error","E","m",null,{"a":["error","x","y"]}]`,
		`["headers",[["A","b"]]]`, `["request","http://x",{"method":"PUT","body":["bytes","AA"]}]`, `["response",null,{"status":404}]`, `["url","x"]`,
		`{"__proto__":1,"a":["undefined"],"a":2}`, `["bytes","_-!!"]`, `["date",1e300]`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		if strings.ContainsAny(expr, "\n") {
			return
		}
		// What is decoded and encoded once stays the same from then on.
		once, err := capnweb.Reencode([]byte(expr))
		if err != nil {
			return
		}
		twice, err := capnweb.Reencode(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s\n%s\n%s %v", expr, once, twice, err)
		}
	})
}

// FuzzBase64 compares the codec with the standard library's.
func FuzzBase64(f *testing.F) {
	for n := range 40 {
		f.Add(bytes.Repeat([]byte{0xfb}, n), "AAAA")
	}
	f.Add([]byte("x"), "////++++////++++")
	f.Add([]byte("x"), "AAAAAAAAAAAAAAA=")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		want := base64.RawStdEncoding.AppendEncode([]byte("p"), data)
		got := capnweb.AppendBase64([]byte("p"), data)
		if !bytes.Equal(got, want) {
			t.Fatalf("%x: %s, want %s", data, got, want)
		}
		out := make([]byte, len(data))
		if !capnweb.DecodeStrict(out, got[1:]) || !bytes.Equal(out, data) {
			t.Fatalf("%x does not come back", data)
		}
		if strings.ContainsAny(text, "\r\n") {
			return // the standard library skips them; a JSON string has none
		}
		plain, err := base64.RawStdEncoding.DecodeString(text)
		out = make([]byte, base64.RawStdEncoding.DecodedLen(len(text)))
		ok := capnweb.DecodeStrict(out, []byte(text))
		if ok != (err == nil) || ok && !bytes.Equal(out, plain) {
			t.Fatalf("%q: %v, %x; want %v, %x", text, ok, out, err, plain)
		}
	})
}
