package scriptmodel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Limits of a script. They keep a hostile prompt from holding the server.
const (
	maxSteps      = 1000             // steps in a script
	maxParallel   = 64               // calls in one "tools" step
	maxDelay      = 10 * time.Minute // one delay
	maxCandidates = 64               // places in a prompt tried as the start of a bare script
)

// call is one tool call: a name and a JSON object of arguments.
type call struct {
	Tool string
	Args json.RawMessage
}

// failure is an answer that refuses the request.
type failure struct {
	Status  int
	Message string
	Times   int // how often; 0: always
}

// piece is a part of an answer's text, or a wait.
type piece struct {
	text  string
	delay time.Duration
}

// answer is what the model says in one turn: pieces, then calls or a failure. The
// request is refused first as often as refusals say.
type answer struct {
	refusals []failure // each with Times > 0
	pieces   []piece
	calls    []call
	fail     *failure
}

// step is a step as it is written.
type step struct {
	Tool  *string         `json:"tool"`
	Args  json.RawMessage `json:"args"`
	Tools []struct {
		Tool string          `json:"tool"`
		Args json.RawMessage `json:"args"`
	} `json:"tools"`
	Text  *string `json:"text"`
	Delay *string `json:"delay"`
	Error *struct {
		Status  int    `json:"status"`
		Message string `json:"message"`
		Times   int    `json:"times"`
	} `json:"error"`
}

// findScript looks for a script in the text of a prompt. It returns ok=false when
// there is none, and an error when there is one that is wrong.
func findScript(prompt string) (answers []answer, ok bool, err error) {
	// `opencode run` puts an argument that has spaces between double quotes and
	// writes \" for the quotes in it, nothing else. Undo exactly that.
	unescaped := strings.ReplaceAll(prompt, `\"`, `"`)
	var firstErr error
	for _, text := range []string{prompt, unescaped} {
		answers, ok, err := findPlain(text)
		if ok && err == nil {
			return answers, true, nil
		}
		if ok && firstErr == nil {
			firstErr = err
		}
	}
	return nil, firstErr != nil, firstErr
}

// findPlain is findScript for a text that is not escaped.
func findPlain(text string) ([]answer, bool, error) {
	if body, ok := fenced(text); ok {
		steps, _, err := decodeSteps(body, true)
		if err != nil {
			return nil, true, err
		}
		answers, err := compile(steps)
		return answers, true, err
	}
	var firstErr error
	rest, tries := text, 0
	for tries < maxCandidates {
		i := strings.IndexByte(rest, '[')
		if i < 0 {
			break
		}
		rest = rest[i:]
		if after := strings.TrimLeft(rest[1:], " \t\r\n"); !strings.HasPrefix(after, "{") {
			rest = rest[1:]
			continue
		}
		tries++
		steps, looks, err := decodeSteps(rest, false)
		if err == nil {
			answers, err := compile(steps)
			return answers, true, err
		}
		if looks && firstErr == nil {
			firstErr = err
		}
		rest = rest[1:]
	}
	return nil, firstErr != nil, firstErr
}

// fenced returns the body of the first code fence named tongs-script. A fence
// that is not closed reaches to the end of the text.
func fenced(text string) (string, bool) {
	const open = "```tongs-script"
	_, body, ok := strings.Cut(text, open)
	if !ok {
		return "", false
	}
	body, _, _ = strings.Cut(body, "```")
	return body, true
}

// decodeSteps decodes one JSON list of steps at the start of text; whole says that
// nothing may follow. looks reports whether the text seems to be meant as a script.
func decodeSteps(text string, whole bool) (steps []step, looks bool, err error) {
	looks = whole
	if !whole {
		head := text[:min(len(text), 200)]
		for _, key := range []string{`"tool"`, `"tools"`, `"text"`, `"delay"`, `"error"`} {
			looks = looks || strings.Contains(head, key)
		}
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&steps); err != nil {
		return nil, looks, fmt.Errorf("it is not a JSON list of steps: %w", err)
	}
	if whole {
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return nil, true, errors.New("something follows the list of steps")
		}
	}
	if len(steps) == 0 {
		return nil, looks, errors.New("it has no steps")
	}
	return steps, true, nil
}

// compile checks the steps and groups them into answers.
func compile(steps []step) ([]answer, error) {
	if len(steps) > maxSteps {
		return nil, fmt.Errorf("it has %d steps, and %d are the limit", len(steps), maxSteps)
	}
	var answers []answer
	var cur answer
	open := false
	end := func() {
		answers, cur, open = append(answers, cur), answer{}, false
	}
	for i, s := range steps {
		fail := func(format string, args ...any) ([]answer, error) {
			return nil, fmt.Errorf("step %d: %s", i, fmt.Sprintf(format, args...))
		}
		kinds := 0
		for _, has := range []bool{s.Tool != nil, s.Tools != nil, s.Text != nil, s.Delay != nil, s.Error != nil} {
			if has {
				kinds++
			}
		}
		if kinds != 1 {
			return fail("it needs exactly one of tool, tools, text, delay, error")
		}
		if s.Args != nil && s.Tool == nil {
			return fail("args belongs to tool")
		}
		open = true
		switch {
		case s.Tool != nil:
			c, err := newCall(*s.Tool, s.Args)
			if err != nil {
				return fail("%v", err)
			}
			cur.calls = []call{c}
			end()
		case s.Tools != nil:
			if len(s.Tools) == 0 || len(s.Tools) > maxParallel {
				return fail("tools takes 1 to %d calls, not %d", maxParallel, len(s.Tools))
			}
			for _, t := range s.Tools {
				c, err := newCall(t.Tool, t.Args)
				if err != nil {
					return fail("%v", err)
				}
				cur.calls = append(cur.calls, c)
			}
			end()
		case s.Text != nil:
			cur.pieces = append(cur.pieces, piece{text: *s.Text})
		case s.Delay != nil:
			d, err := time.ParseDuration(*s.Delay)
			if err != nil || d < 0 || d > maxDelay {
				return fail("delay is a duration such as \"2s\", at most %v", maxDelay)
			}
			cur.pieces = append(cur.pieces, piece{delay: d})
		case s.Error != nil:
			f := &failure{Status: s.Error.Status, Message: s.Error.Message, Times: s.Error.Times}
			if f.Status == 0 {
				f.Status = 500
			}
			if f.Status < 400 || f.Status > 599 {
				return fail("status is 400 to 599, not %d", f.Status)
			}
			if f.Message == "" {
				f.Message = "scripted error"
			}
			if f.Times < 0 {
				return fail("times is not negative")
			}
			if f.Times == 0 {
				cur.fail = f
				end()
				continue
			}
			// A request refused leaves no answer in the conversation, so it must not
			// count as one: it belongs to the answer behind it.
			if cur.pieces != nil {
				return fail("an error with times stands first in its answer, before text and delay")
			}
			cur.refusals = append(cur.refusals, *f)
		}
	}
	if open {
		end()
	}
	return answers, nil
}

func newCall(tool string, args json.RawMessage) (call, error) {
	if tool == "" {
		return call{}, errors.New("tool needs a name")
	}
	args = bytes.TrimSpace(args)
	if len(args) == 0 || bytes.Equal(args, []byte("null")) {
		args = json.RawMessage("{}")
	}
	return call{Tool: tool, Args: args}, nil
}
