package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// client talks to the front as OpenCode's own clients do.
type client struct {
	url  string
	http *http.Client
}

// promptTimeout bounds one turn of the demo.
const promptTimeout = 2 * time.Minute

func newClient(url string) *client {
	return &client{url: url, http: &http.Client{}}
}

// toolCall is a tool call that has ended.
type toolCall struct {
	tool, title, output string
	failed              string // why, when it failed
	milliseconds        float64
}

// toolPart is what OpenCode says of a tool call.
type toolPart struct {
	ID        string `json:"id"`
	SessionID string `json:"sessionID"`
	Type      string `json:"type"`
	Text      string `json:"text"`
	Tool      string `json:"tool"`
	State     struct {
		Status string                       `json:"status"`
		Title  string                       `json:"title"`
		Output string                       `json:"output"`
		Error  string                       `json:"error"`
		Time   struct{ Start, End float64 } `json:"time"`
	} `json:"state"`
}

func (c *client) do(ctx context.Context, method, path string, body, answer any) error {
	var reader io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, reader)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 32<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %.500s", method, path, response.Status, text)
	}
	return json.Unmarshal(text, answer)
}

func (c *client) createSession(ctx context.Context) (string, error) {
	var made struct{ ID string }
	err := c.do(ctx, http.MethodPost, "/session", map[string]any{}, &made)
	return made.ID, err
}

// prompt sends text to a session, tells of each tool call as it ends, and returns the answer's text.
func (c *client) prompt(ctx context.Context, session, model, text string, ended func(toolCall)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, promptTimeout)
	defer cancel()
	events, err := c.events(ctx)
	if err != nil {
		return "", err
	}
	type answer struct {
		Info struct {
			Error json.RawMessage `json:"error"`
		} `json:"info"`
		Parts []toolPart `json:"parts"`
	}
	type reply struct {
		answer answer
		err    error
	}
	replies := make(chan reply, 1)
	go func() {
		provider, id, _ := strings.Cut(model, "/")
		var r reply
		r.err = c.do(ctx, http.MethodPost, "/session/"+session+"/message", map[string]any{
			"model": map[string]string{"providerID": provider, "modelID": id},
			"parts": []any{map[string]string{"type": "text", "text": text}},
		}, &r.answer)
		replies <- r
	}()

	var last *reply
	idle := false
	seen := make(map[string]bool)
	for last == nil || !idle { // the stream may say "idle" before or after the reply is here
		select {
		case r := <-replies:
			if r.err != nil {
				return "", r.err
			}
			last = &r
		case e, ok := <-events:
			if !ok {
				return "", fmt.Errorf("the event stream broke off: %w", context.Cause(ctx))
			}
			part := e.Properties.Part
			finished := part.State.Status == "completed" || part.State.Status == "error"
			switch {
			case e.Type == "session.idle" && e.Properties.SessionID == session:
				idle = true
			case e.Type == "message.part.updated" && part.SessionID == session && part.Type == "tool" && finished && !seen[part.ID]:
				seen[part.ID] = true
				ended(toolCall{part.Tool, part.State.Title, part.State.Output, part.State.Error, part.State.Time.End - part.State.Time.Start})
			}
		case <-ctx.Done():
			return "", fmt.Errorf("the turn did not end: %w", context.Cause(ctx))
		}
	}
	if len(last.answer.Info.Error) > 0 {
		return "", fmt.Errorf("the turn ended with an error: %s", last.answer.Info.Error)
	}
	var texts []string
	for _, part := range last.answer.Parts {
		if part.Type == "text" {
			texts = append(texts, part.Text)
		}
	}
	return strings.Join(texts, "\n"), nil
}

// event is one of OpenCode's, as far as the demo looks at it.
type event struct {
	Type       string `json:"type"`
	Properties struct {
		SessionID string   `json:"sessionID"`
		Part      toolPart `json:"part"`
	} `json:"properties"`
}

// maxEvent bounds one event's size.
const maxEvent = 16 << 20

// events follows /event. The channel is closed when the stream ends; it ends with ctx.
func (c *client) events(ctx context.Context) (<-chan event, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/event", nil)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("GET /event: %s", response.Status)
	}
	events := make(chan event)
	go func() {
		defer close(events)
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, maxEvent)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var e event
			if json.Unmarshal([]byte(data), &e) != nil {
				continue // not one that is looked at
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events, nil
}
