package plainjson_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/tongs-dev/tongs/internal/plainjson"
)

type document struct {
	Text  string          `json:"text"`
	Int   int64           `json:"int"`
	Bool  bool            `json:"bool"`
	Texts []string        `json:"texts"`
	Ints  []int           `json:"ints"`
	Raw   json.RawMessage `json:"raw"`
	Sub   struct {
		Int int64 `json:"int"`
	} `json:"sub"`
}

func read(data []byte) (d document, ok bool) {
	r := plainjson.New(data)
	r.Object(func(key string) {
		switch key {
		case "text":
			d.Text = r.Text()
		case "int":
			d.Int = r.Int()
		case "bool":
			d.Bool = r.Bool()
		case "texts":
			d.Texts = r.Texts()
		case "ints":
			d.Ints = r.Ints()
		case "raw":
			d.Raw = append(d.Raw[:0], r.Raw()...)
		case "sub":
			r.Object(func(key string) {
				if key != "int" {
					r.Fail()
				}
				d.Sub.Int = r.Int()
			})
		default:
			r.Fail()
		}
	})
	return d, r.OK()
}

var documents = []struct {
	text string
	ok   bool
}{
	{`{}`, true},
	{`{"text":"a b","int":-12,"bool":true,"texts":["","x"],"ints":[1,2,0],"raw":{"a":[true,{"b":"c"},-3]},"sub":{"int":9223372036854775807}}`, true},
	{`{"texts":[],"ints":[],"bool":false,"raw":"text"}`, true},
	{`{"int":1,"int":2}`, true},
	{``, false},
	{`[]`, false},
	{`{"text":"a\n"}`, false},
	{`{"text":"é"}`, false},
	{`{"text": "a"}`, false},
	{`{"text":"a"} `, false},
	{`{"text":"a"}{}`, false},
	{`{"text":"a",}`, false},
	{`{"text":null}`, false},
	{`{"text":"a`, false},
	{`{"Text":"a"}`, false},
	{`{"other":1}`, false},
	{`{"int":01}`, false},
	{`{"int":-}`, false},
	{`{"int":1.0}`, false},
	{`{"int":1e3}`, false},
	{`{"int":9223372036854775808}`, false},
	{`{"ints":[1,]}`, false},
	{`{"ints":[1 2]}`, false},
	{`{"bool":tru}`, false},
	{`{"raw":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}`, false},
}

// TestRead understands what is written in the plain way, and nothing else.
func TestRead(t *testing.T) {
	t.Parallel()
	for _, c := range documents {
		got, ok := read([]byte(c.text))
		if ok != c.ok {
			t.Errorf("%s: understood: %v", c.text, ok)
		}
		if ok {
			compare(t, []byte(c.text), got)
		}
	}
}

// FuzzRead compares what is understood with what the standard library reads.
func FuzzRead(f *testing.F) {
	for _, c := range documents {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, ok := read(data); ok {
			compare(t, data, got)
		}
	})
}

func compare(t *testing.T, data []byte, got document) {
	t.Helper()
	var want document
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatalf("%q is understood, but %v", data, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q: %+v, want %+v", data, got, want)
	}
}
