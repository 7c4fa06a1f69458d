package opencode_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/tongs-dev/tongs/internal/tool/tooltest"
)

// stagehand is a language model that makes one call after the other. Between two of them nothing
// runs: then it looks what became of the project, and lays the next call's files there.
type stagehand struct {
	t       *testing.T
	project string
	web     string // address of tooltest.Web

	mu    sync.Mutex
	cases []tooltest.Case
	at    int                 // the case whose call is under way; -1 before the first
	files []map[string]string // after each
}

// set gives it the cases of the next prompt.
func (m *stagehand) set(cases []tooltest.Case) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cases, m.at, m.files = cases, -1, make([]map[string]string, len(cases))
}

// callID is the id of a case's call.
func callID(at int) string { return fmt.Sprintf("call_case_%04d", at) }

func (m *stagehand) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<20))
	var in struct{ Tools []any }
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	delta, reason := map[string]any{"role": "assistant", "content": "ok"}, "stop"
	if len(in.Tools) > 0 { // else it is asked for a title
		if call := m.next(); call != nil {
			delta, reason = map[string]any{"role": "assistant", "tool_calls": []any{call}}, "tool_calls"
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, choice := range []map[string]any{
		{"index": 0, "delta": delta}, {"index": 0, "delta": map[string]any{}, "finish_reason": reason},
	} {
		text, _ := json.Marshal(map[string]any{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []any{choice}})
		fmt.Fprintf(w, "data: %s\n\n", text)
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}

func (m *stagehand) next() map[string]any {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at >= len(m.cases) {
		return nil
	}
	if m.at >= 0 {
		files, err := tooltest.Tree(m.project)
		if err != nil {
			m.t.Errorf("%v: the project after it: %v", m.cases[m.at], err)
		}
		m.files[m.at] = files
	}
	if m.at++; m.at == len(m.cases) {
		return nil
	}
	c := m.cases[m.at]
	if err := c.Lay(m.project); err != nil {
		m.t.Errorf("%v: its files: %v", c, err)
	}
	arguments, err := json.Marshal(c.Arguments(m.project, m.web))
	if err != nil {
		m.t.Errorf("%v: %v", c, err)
	}
	return map[string]any{"index": 0, "id": callID(m.at), "type": "function", "function": map[string]any{"name": c.Tool, "arguments": string(arguments)}}
}
