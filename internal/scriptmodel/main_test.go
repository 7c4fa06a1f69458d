package scriptmodel_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/scriptmodel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// said is an answer as a client of either protocol understands it.
type said struct {
	Status int
	Text   string
	Calls  []gotCall
	Finish string
	Err    string // message of an error
	Pieces int    // deltas of the stream
}

type gotCall struct {
	ID, Name string
	Args     map[string]any
}

// client holds a conversation with the model.
type client struct {
	t        *testing.T
	url      string
	protocol string // chat or responses
	stream   bool
	model    string
	tools    []string
	system   string
	items    []any
}

// every runs a test with each protocol, streamed and whole.
func every(t *testing.T, f func(t *testing.T, c *client)) {
	t.Parallel()
	for _, protocol := range []string{"chat", "responses"} {
		for _, stream := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s,stream=%v", protocol, stream), func(t *testing.T) {
				t.Parallel()
				f(t, newClient(t, protocol, stream))
			})
		}
	}
}

func newClient(t *testing.T, protocol string, stream bool) *client {
	srv := httptest.NewServer(scriptmodel.New(scriptmodel.Options{}))
	t.Cleanup(srv.Close)
	return &client{
		t: t, url: srv.URL, protocol: protocol, stream: stream, model: "scripted",
		tools: []string{"bash", "read", "write"}, system: "You are a test.",
	}
}

func (c *client) user(text string) {
	part := map[string]any{"type": "text", "text": text}
	if c.protocol == "responses" {
		part["type"] = "input_text"
	}
	c.items = append(c.items, map[string]any{"role": "user", "content": []any{part}})
}

// result adds tool results to the conversation.
func (c *client) result(call gotCall, text string) {
	if c.protocol == "responses" {
		c.items = append(c.items, map[string]any{"type": "function_call_output", "call_id": call.ID, "output": text})
		return
	}
	c.items = append(c.items, map[string]any{"role": "tool", "tool_call_id": call.ID, "content": text})
}

func (c *client) body() []byte {
	var tools []any
	items := []any{map[string]any{"role": "system", "content": c.system}}
	req := map[string]any{"model": c.model, "stream": c.stream}
	for _, name := range c.tools {
		if c.protocol == "responses" {
			tools = append(tools, map[string]any{"type": "function", "name": name, "parameters": map[string]any{}})
		} else {
			tools = append(tools, map[string]any{"type": "function", "function": map[string]any{"name": name}})
		}
	}
	items = append(items, c.items...)
	if tools != nil {
		req["tools"] = tools
	}
	if c.protocol == "responses" {
		req["input"] = items
	} else {
		req["messages"] = items
		req["stream_options"] = map[string]any{"include_usage": true}
	}
	b, err := json.Marshal(req)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// ask sends the conversation, and adds the answer to it.
func (c *client) ask() said {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	path := "/v1/chat/completions"
	if c.protocol == "responses" {
		path = "/v1/responses"
	}
	req, err := http.NewRequestWithContext(ctx, "POST", c.url+path, bytes.NewReader(c.body()))
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	var s said
	switch {
	case resp.StatusCode != 200:
		var e struct{ Error struct{ Message string } }
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
			c.t.Fatal(err)
		}
		return said{Status: resp.StatusCode, Err: e.Error.Message}
	case !c.stream:
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			c.t.Fatal(err)
		}
		s = c.whole(b)
	case c.protocol == "chat":
		s = c.chatStream(resp.Body)
	default:
		s = c.responsesStream(resp.Body)
	}
	s.Status = 200
	if s.Err == "" {
		c.remember(s)
	}
	return s
}

func (c *client) remember(s said) {
	if c.protocol == "responses" {
		if s.Text != "" {
			c.items = append(c.items, map[string]any{"role": "assistant", "content": []any{map[string]any{"type": "output_text", "text": s.Text}}})
		}
		for _, k := range s.Calls {
			args, _ := json.Marshal(k.Args)
			c.items = append(c.items, map[string]any{"type": "function_call", "call_id": k.ID, "name": k.Name, "arguments": string(args)})
		}
		return
	}
	m := map[string]any{"role": "assistant", "content": s.Text}
	var calls []any
	for _, k := range s.Calls {
		args, _ := json.Marshal(k.Args)
		calls = append(calls, map[string]any{"id": k.ID, "type": "function", "function": map[string]any{"name": k.Name, "arguments": string(args)}})
	}
	if calls != nil {
		m["tool_calls"] = calls
	}
	c.items = append(c.items, m)
}

type chatCall struct {
	Index    int
	ID       string
	Function struct{ Name, Arguments string }
}

type outputItem struct {
	Type, Name, Arguments string
	CallID                string `json:"call_id"`
	Content               []struct{ Type, Text string }
}

func (c *client) whole(b []byte) said {
	var s said
	var in struct {
		Choices []struct {
			FinishReason string `json:"finish_reason"`
			Message      struct {
				Content   string
				ToolCalls []chatCall `json:"tool_calls"`
			}
		}
		Status string
		Output []outputItem
		Usage  map[string]any
	}
	if err := json.Unmarshal(b, &in); err != nil {
		c.t.Fatal(err)
	}
	if in.Usage == nil {
		c.t.Error("the answer has no usage")
	}
	if c.protocol == "chat" {
		s.Text, s.Finish = in.Choices[0].Message.Content, in.Choices[0].FinishReason
		for _, k := range in.Choices[0].Message.ToolCalls {
			s.Calls = append(s.Calls, c.call(k.ID, k.Function.Name, k.Function.Arguments))
		}
		return s
	}
	s.Finish = in.Status
	c.output(&s, in.Output)
	return s
}

func (c *client) output(s *said, items []outputItem) {
	for _, it := range items {
		switch it.Type {
		case "message":
			s.Text += it.Content[0].Text
		case "function_call":
			s.Calls = append(s.Calls, c.call(it.CallID, it.Name, it.Arguments))
		}
	}
}

func (c *client) call(id, name, args string) gotCall {
	k := gotCall{ID: id, Name: name}
	if err := json.Unmarshal([]byte(args), &k.Args); err != nil {
		c.t.Fatalf("arguments %q: %v", args, err)
	}
	if id == "" {
		c.t.Error("a call has no id")
	}
	return k
}

// data yields the data of each event.
func (c *client) data(r io.Reader, f func(event, data string)) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 16<<20)
	event := ""
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "event: "); ok {
			event = v
		}
		if v, ok := strings.CutPrefix(sc.Text(), "data: "); ok {
			f(event, v)
			event = ""
		}
	}
	if err := sc.Err(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) chatStream(r io.Reader) said {
	var s said
	var calls []chatCall
	done, usage := false, false
	c.data(r, func(_, data string) {
		if data == "[DONE]" {
			done = true
			return
		}
		var in struct {
			Error   *struct{ Message string }
			Usage   map[string]any
			Choices []struct {
				FinishReason string `json:"finish_reason"`
				Delta        struct {
					Content   string
					ToolCalls []chatCall `json:"tool_calls"`
				}
			}
		}
		if err := json.Unmarshal([]byte(data), &in); err != nil {
			c.t.Fatalf("%q: %v", data, err)
		}
		if in.Error != nil {
			s.Err = in.Error.Message
		}
		usage = usage || in.Usage != nil
		for _, ch := range in.Choices {
			s.Text += ch.Delta.Content
			s.Pieces++
			if ch.FinishReason != "" {
				s.Finish = ch.FinishReason
			}
			for _, k := range ch.Delta.ToolCalls {
				for len(calls) <= k.Index {
					calls = append(calls, chatCall{})
				}
				if k.ID != "" {
					calls[k.Index].ID, calls[k.Index].Function.Name = k.ID, k.Function.Name
				}
				calls[k.Index].Function.Arguments += k.Function.Arguments
			}
		}
	})
	if s.Err == "" && (!done || !usage) {
		c.t.Errorf("the stream ended without [DONE] (%v) or usage (%v)", done, usage)
	}
	for _, k := range calls {
		s.Calls = append(s.Calls, c.call(k.ID, k.Function.Name, k.Function.Arguments))
	}
	return s
}

func (c *client) responsesStream(r io.Reader) said {
	var s said
	var text, args string
	next := 0
	c.data(r, func(event, data string) {
		var in struct {
			Type     string
			Seq      int `json:"sequence_number"`
			Delta    string
			Response struct {
				Status string
				Output []outputItem
				Error  struct{ Message string }
			}
		}
		if err := json.Unmarshal([]byte(data), &in); err != nil {
			c.t.Fatalf("%q: %v", data, err)
		}
		if in.Type != event || in.Seq != next {
			c.t.Errorf("event %q has type %q and number %d, want %d", event, in.Type, in.Seq, next)
		}
		next++
		switch event {
		case "response.output_text.delta":
			text += in.Delta
			s.Pieces++
		case "response.function_call_arguments.delta":
			args += in.Delta
			s.Pieces++
		case "response.completed":
			s.Finish = in.Response.Status
			c.output(&s, in.Response.Output)
		case "response.failed":
			s.Err = in.Response.Error.Message
		}
	})
	if s.Err == "" && text != s.Text {
		c.t.Errorf("the deltas are %q, the whole is %q", text, s.Text)
	}
	return s
}
