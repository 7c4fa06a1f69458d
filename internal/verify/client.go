package verify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Limits of what is read.
const (
	maxAnswer      = 16 << 20
	maxEvents      = 4 << 20
	requestTimeout = time.Minute
)

// call makes one request. A body that is not nil is sent as JSON; header is names and
// values, of which "Host" and "Session" mean the Host header and the session's.
func (p *probe) call(ctx context.Context, method, route string, body any, header ...string) (status int, text string, err error) {
	timeout := requestTimeout
	if strings.HasSuffix(route, "/message") || strings.HasSuffix(route, "/command") || strings.HasSuffix(route, "/shell") {
		timeout = doorTimeout // a whole turn
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%s %s: no answer in %v", method, clip(route, 60), timeout))
	defer cancel()
	request, err := p.request(ctx, method, route, body, header...)
	if err != nil {
		return 0, "", err
	}
	response, err := p.t.Client.Do(request)
	if err != nil {
		return 0, "", causeOf(ctx, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, "", causeOf(ctx, err)
	}
	return response.StatusCode, string(data), nil
}

func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (p *probe) request(ctx context.Context, method, route string, body any, header ...string) (*http.Request, error) {
	var reader io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, p.t.URL+route, reader)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("User-Agent", "tongs-verify")
	if p.t.Password != "" {
		request.SetBasicAuth(p.t.Username, p.t.Password)
	}
	for i := 0; i+1 < len(header); i += 2 {
		switch name, value := header[i], header[i+1]; name {
		case "Host":
			request.Host = value
		case "Session":
			request.Header.Set("X-Tongs-Session", value)
		default:
			if value == "" {
				request.Header.Del(name)
			} else {
				request.Header.Set(name, value)
			}
		}
	}
	return request, nil
}

// newSession makes a session. It has a title, so that no model is asked for one.
func (p *probe) newSession(ctx context.Context) (string, error) {
	status, text, err := p.call(ctx, "POST", "/session", map[string]any{"title": "tongs verify"})
	if err != nil {
		return "", err
	}
	var made struct{ ID string }
	if json.Unmarshal([]byte(text), &made) != nil || made.ID == "" {
		return "", fmt.Errorf("POST /session: %d %s", status, clip(text, 300))
	}
	p.mu.Lock()
	p.sessions = append(p.sessions, made.ID)
	p.mu.Unlock()
	return made.ID, nil
}

// part is what is looked at of a message's part.
type part struct {
	Type  string `json:"type"`
	Text  string `json:"text"`
	Tool  string `json:"tool"`
	State struct {
		Status string          `json:"status"`
		Output string          `json:"output"`
		Error  string          `json:"error"`
		Title  string          `json:"title"`
		Meta   json.RawMessage `json:"metadata"`
		Files  json.RawMessage `json:"attachments"`
	} `json:"state"`
}

// shown is everything that a tool's part shows.
func (p part) shown() string {
	return strings.Join([]string{p.State.Output, p.State.Error, p.State.Title, string(p.State.Meta), string(p.State.Files)}, "\n")
}

// step is one step of a script for the scripted model.
type step map[string]any

func toolStep(tool string, args map[string]any) step { return step{"tool": tool, "args": args} }

// prompt is the body of a prompt that carries its script.
func prompt(f Family, steps []step, more ...any) map[string]any {
	script, _ := json.Marshal(steps) // strings, numbers and maps of them
	parts := append([]any{map[string]any{"type": "text", "text": "```tongs-script\n" + string(script) + "\n```"}}, more...)
	return map[string]any{"model": map[string]string{"providerID": f.Provider, "modelID": f.Model}, "parts": parts}
}

// turn sends a prompt, waits for its end, and returns the tool parts and the texts that answer it.
func (p *probe) turn(ctx context.Context, session string, body map[string]any) (tools []part, texts string, err error) {
	status, text, err := p.call(ctx, "POST", "/session/"+session+"/message", body)
	if err != nil {
		return nil, "", err
	}
	var last struct {
		Info struct {
			ParentID string          `json:"parentID"`
			Error    json.RawMessage `json:"error"`
		} `json:"info"`
	}
	if status != http.StatusOK || json.Unmarshal([]byte(text), &last) != nil {
		return nil, "", fmt.Errorf("the prompt was answered with %d: %s", status, clip(text, 300))
	}
	_, history, err := p.call(ctx, "GET", "/session/"+session+"/message", nil)
	if err != nil {
		return nil, "", err
	}
	var all []struct {
		Info struct {
			Role     string `json:"role"`
			ParentID string `json:"parentID"`
		} `json:"info"`
		Parts []part `json:"parts"`
	}
	if err := json.Unmarshal([]byte(history), &all); err != nil {
		return nil, "", fmt.Errorf("the messages cannot be read back: %w", err)
	}
	for _, m := range all {
		if m.Info.Role != "assistant" || m.Info.ParentID != last.Info.ParentID {
			continue
		}
		for _, one := range m.Parts {
			switch one.Type {
			case "tool":
				tools = append(tools, one)
			case "text":
				texts += one.Text + "\n"
			}
		}
	}
	if len(last.Info.Error) > 0 {
		return tools, texts, fmt.Errorf("the turn ended with an error: %s", clip(string(last.Info.Error), 300))
	}
	return tools, texts, nil
}

// events follows what the service tells its clients: it answers the questions of tools
// with yes, as a person would who sees nothing, and keeps the text for a look at it.
type events struct {
	stop func()

	mu   sync.Mutex
	text strings.Builder
}

func (e *events) add(line string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.text.Len()+len(line) < maxEvents {
		e.text.WriteString(line + "\n")
	}
}

// seen says whether an event had this text in it.
func (e *events) seen(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Contains(e.text.String(), text)
}

func (p *probe) follow(ctx context.Context) (*events, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	request, err := p.request(ctx, "GET", "/event", nil)
	if err != nil {
		cancel()
		return nil, err
	}
	response, err := p.t.Client.Do(request)
	if err == nil && response.StatusCode != http.StatusOK {
		response.Body.Close()
		err = fmt.Errorf("GET /event: %s", response.Status)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	e, done := &events{}, make(chan struct{})
	e.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, maxAnswer)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var said struct {
				Type       string `json:"type"`
				Properties struct {
					ID string `json:"id"`
				} `json:"properties"`
			}
			if json.Unmarshal([]byte(data), &said) != nil {
				continue
			}
			switch said.Type {
			case "permission.asked":
				p.answer(ctx, "/permission/"+said.Properties.ID+"/reply", map[string]any{"reply": "once"})
			case "question.asked":
				p.answer(ctx, "/question/"+said.Properties.ID+"/reject", map[string]any{})
			case "message.part.delta", "message.part.updated", "message.updated":
			default:
				e.add(data)
			}
		}
	}()
	return e, nil
}

func (p *probe) answer(ctx context.Context, route string, body any) {
	if _, _, err := p.call(ctx, "POST", route, body); err != nil && ctx.Err() == nil {
		p.t.Logger.Warn("a question of a tool could not be answered", "error", err)
	}
}

// message is what an error says, from OpenCode's shapes of it; "" when the text is none.
func message(text string) string {
	var shape struct {
		Message string `json:"message"`
		Data    struct {
			Message string `json:"message"`
			Code    string `json:"code"`
		} `json:"data"`
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal([]byte(text), &shape) != nil {
		return ""
	}
	if shape.Data.Message != "" {
		return shape.Data.Message
	}
	return shape.Message
}
