package opencode

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tailscale/hujson"
)

// A JSON value is one of: *object, []any, string, number, bool, nil. Objects
// keep their order, since it means something to OpenCode: of the permission
// rules that match, the last one holds.
type object struct{ members []member }

type member struct {
	name  string
	value any
}

// number is a JSON number as it was written.
type number string

func (o *object) index(name string) int {
	return slices.IndexFunc(o.members, func(m member) bool { return m.name == name })
}

func (o *object) get(name string) (any, bool) {
	if i := o.index(name); i >= 0 {
		return o.members[i].value, true
	}
	return nil, false
}

// object returns a member that is an object, nil if there is none.
func (o *object) object(name string) *object {
	v, _ := o.get(name)
	child, _ := v.(*object)
	return child
}

// text returns a member that is a string, "" if there is none.
func (o *object) text(name string) string {
	v, _ := o.get(name)
	s, _ := v.(string)
	return s
}

// set replaces a member where it is, or adds it at the end.
func (o *object) set(name string, value any) {
	if i := o.index(name); i >= 0 {
		o.members[i].value = value
		return
	}
	o.members = append(o.members, member{name, value})
}

// put makes a member the last one.
func (o *object) put(name string, value any) {
	o.remove(name)
	o.members = append(o.members, member{name, value})
}

func (o *object) remove(name string) {
	o.members = slices.DeleteFunc(o.members, func(m member) bool { return m.name == name })
}

// newObject makes an object of names and values in turn.
func newObject(pairs ...any) *object {
	o := &object{}
	for i := 0; i+1 < len(pairs); i += 2 {
		o.members = append(o.members, member{pairs[i].(string), pairs[i+1]})
	}
	return o
}

// maxDepth bounds the nesting of a configuration.
const maxDepth = 100

// parseObject reads JSON that may have comments and trailing commas. Names
// that occur twice are an error.
func parseObject(text []byte) (*object, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	plain, err := hujson.Standardize(slices.Clone(text))
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "hujson: "))
	}
	dec := jsontext.NewDecoder(bytes.NewReader(plain))
	v, err := parseValue(dec, 0)
	if err != nil {
		var syn *jsontext.SyntacticError
		if errors.As(err, &syn) {
			before := plain[:min(int(syn.ByteOffset), len(plain))] // Standardize keeps places
			return nil, fmt.Errorf("line %d: %w", 1+bytes.Count(before, []byte("\n")), syn.Err)
		}
		return nil, err
	}
	o, ok := v.(*object)
	if !ok {
		return nil, errors.New("it is not an object: it must begin with {")
	}
	return o, nil
}

func parseValue(dec *jsontext.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("it is nested more than %d deep", maxDepth)
	}
	tok, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	switch tok.Kind() {
	case '{':
		o := &object{}
		for dec.PeekKind() != '}' {
			name, err := dec.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String() // before the next token voids it
			v, err := parseValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			o.members = append(o.members, member{key, v})
		}
		_, err := dec.ReadToken()
		return o, err
	case '[':
		list := []any{}
		for dec.PeekKind() != ']' {
			v, err := parseValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.ReadToken()
		return list, err
	case '"':
		return tok.String(), nil
	case '0':
		return number(tok.String()), nil
	case 't', 'f':
		return tok.Bool(), nil
	}
	return nil, nil
}

// encode writes a value so that OpenCode replaces nothing in it: before parsing
// it looks for {env:…} and {file:…} in the text, so that the brace of such a
// string is written as an escape.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := jsontext.NewEncoder(&b)
	if err := encodeValue(enc, v); err != nil {
		return nil, err
	}
	text := bytes.TrimSpace(b.Bytes())
	for _, word := range []string{"env:", "file:"} {
		text = bytes.ReplaceAll(text, []byte("{"+word), []byte(`\u007b`+word))
	}
	return text, nil
}

func encodeValue(enc *jsontext.Encoder, v any) error {
	switch v := v.(type) {
	case *object:
		if err := enc.WriteToken(jsontext.BeginObject); err != nil {
			return err
		}
		for _, m := range v.members {
			if err := enc.WriteToken(jsontext.String(m.name)); err != nil {
				return err
			}
			if err := encodeValue(enc, m.value); err != nil {
				return err
			}
		}
		return enc.WriteToken(jsontext.EndObject)
	case []any:
		if err := enc.WriteToken(jsontext.BeginArray); err != nil {
			return err
		}
		for _, e := range v {
			if err := encodeValue(enc, e); err != nil {
				return err
			}
		}
		return enc.WriteToken(jsontext.EndArray)
	case string:
		return enc.WriteToken(jsontext.String(v))
	case number:
		return enc.WriteValue(jsontext.Value(v))
	case bool:
		return enc.WriteToken(jsontext.Bool(v))
	case nil:
		return enc.WriteToken(jsontext.Null)
	}
	return fmt.Errorf("a value of type %T cannot be JSON", v)
}
