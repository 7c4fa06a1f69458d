package scriptmodel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// maxExpanded bounds a string after its references are filled in.
const maxExpanded = 32 << 20

// reference is {{name}}, {{name number}} or {{name /expression/}}; the expression
// ends at "/}}", so that it can hold slashes and braces.
var reference = regexp.MustCompile(`(?s)\{\{\s*(last|result|system|prompt|tools)(?:\s+(-?\d{1,6}))?(?:\s+/(.*?)/)?\s*\}\}`)

// expand fills in the references of a string.
func (c *conversation) expand(s string) (string, error) {
	if !strings.Contains(s, "{{") {
		return s, nil
	}
	var out strings.Builder
	at := 0
	for _, m := range reference.FindAllStringSubmatchIndex(s, -1) {
		out.WriteString(s[at:m[0]])
		at = m[1]
		group := func(n int) string {
			if m[2*n] < 0 {
				return ""
			}
			return s[m[2*n]:m[2*n+1]]
		}
		value, err := c.lookup(group(1), group(2))
		if err == nil && m[6] >= 0 {
			value, err = extract(value, group(3))
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", s[m[0]:m[1]], err)
		}
		if out.Len()+len(value) > maxExpanded {
			return "", fmt.Errorf("%s: the text grows beyond %d bytes", s[m[0]:m[1]], maxExpanded)
		}
		out.WriteString(value)
	}
	out.WriteString(s[at:])
	return out.String(), nil
}

func (c *conversation) lookup(name, index string) (string, error) {
	results := c.results()
	switch name {
	case "system":
		return c.system, nil
	case "prompt":
		return c.prompt(), nil
	case "tools":
		return strings.Join(c.tools, ","), nil
	case "last":
		index = "-1"
	}
	n, err := strconv.Atoi(index)
	if err != nil {
		return "", fmt.Errorf("result needs a number, such as {{result 0}}")
	}
	if n < 0 {
		n += len(results)
	}
	if n < 0 || n >= len(results) {
		return "", fmt.Errorf("there are %d tool results so far", len(results))
	}
	return results[n], nil
}

// extract returns the first group of the first match, or the match.
func extract(text, expr string) (string, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return "", err
	}
	m := re.FindStringSubmatch(text)
	switch {
	case m == nil:
		return "", fmt.Errorf("no match in %q", clip(text, 200))
	case len(m) > 1:
		return m[1], nil
	}
	return m[0], nil
}

// expandArgs fills in the references of every string in a JSON value; keys, numbers
// and the order of keys stay as they are written.
func (c *conversation) expandArgs(raw json.RawMessage) (json.RawMessage, error) {
	if !bytes.Contains(raw, []byte("{{")) {
		var out bytes.Buffer
		if err := json.Compact(&out, raw); err != nil {
			return nil, err
		}
		return out.Bytes(), nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	v, err := c.expandValue(v)
	if err != nil {
		return nil, err
	}
	return encode(v)
}

func (c *conversation) expandValue(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case string:
		return c.expand(v)
	case []any:
		for i := range v {
			if v[i], err = c.expandValue(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = c.expandValue(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// encode is json.Marshal without the escapes for HTML.
func encode(v any) (json.RawMessage, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}

// clip shortens s to at most n bytes, at a rune's border.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
