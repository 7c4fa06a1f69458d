package scriptmodel

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// decodeChat reads a request of POST /chat/completions.
func decodeChat(body []byte) (*conversation, error) {
	var in struct {
		Model         string `json:"model"`
		Stream        bool   `json:"stream"`
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
		Tools []struct {
			Function struct {
				Name string `json:"name"`
			} `json:"function"`
		} `json:"tools"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("the body is not a chat completion request: %w", err)
	}
	if len(in.Messages) == 0 {
		return nil, errors.New("messages is empty")
	}
	c := &conversation{model: in.Model, stream: in.Stream, usage: in.StreamOptions.IncludeUsage}
	for _, t := range in.Tools {
		if t.Function.Name != "" {
			c.tools = append(c.tools, t.Function.Name)
		}
	}
	for i, m := range in.Messages {
		text := contentText(m.Content)
		switch m.Role {
		case "system", "developer":
			c.addSystem(text)
		case "user":
			c.add(user, text)
		case "assistant":
			c.add(assistant, text)
		case "tool":
			c.add(toolResult, text)
		default:
			return nil, fmt.Errorf("messages[%d]: unknown role %q", i, clip(m.Role, 40))
		}
	}
	return c, nil
}

// chat writes the answer of POST /chat/completions.
func (w *writer) chat() {
	msg := id("chatcmpl-")
	finish := "stop"
	if len(w.a.calls) > 0 {
		finish = "tool_calls"
	}
	if !w.c.stream {
		w.chatWhole(msg, finish)
		return
	}
	w.stream()
	chunk := func(delta map[string]any, finish any) bool {
		return w.event("", map[string]any{
			"id": msg, "object": "chat.completion.chunk", "created": w.now.Unix(), "model": w.c.model,
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
		})
	}
	if !chunk(map[string]any{"role": "assistant", "content": ""}, nil) {
		return
	}
	for _, p := range w.a.pieces {
		if !wait(w.ctx, p.delay) {
			return
		}
		for _, s := range parts(p.text) {
			w.sent += len(s)
			if !chunk(map[string]any{"content": s}, nil) {
				return
			}
		}
	}
	if w.a.fail != nil {
		w.event("", map[string]any{"error": errorBody("scripted_error", w.a.fail.Message)})
		return
	}
	for i, k := range w.a.calls {
		head := map[string]any{"index": i, "id": id("call_"), "type": "function", "function": map[string]any{"name": k.Tool, "arguments": ""}}
		if !chunk(map[string]any{"tool_calls": []any{head}}, nil) {
			return
		}
		for _, s := range parts(string(k.Args)) {
			w.sent += len(s)
			more := map[string]any{"index": i, "function": map[string]any{"arguments": s}}
			if !chunk(map[string]any{"tool_calls": []any{more}}, nil) {
				return
			}
		}
	}
	if !chunk(map[string]any{}, finish) {
		return
	}
	if w.c.usage && !w.event("", map[string]any{
		"id": msg, "object": "chat.completion.chunk", "created": w.now.Unix(), "model": w.c.model,
		"choices": []any{}, "usage": w.chatUsage(),
	}) {
		return
	}
	if _, err := w.w.Write([]byte("data: [DONE]\n\n")); err == nil {
		w.flush()
	}
}

func (w *writer) chatWhole(msg, finish string) {
	text, ok := w.text()
	if !ok {
		return
	}
	w.sent = len(text)
	m := map[string]any{"role": "assistant", "content": text}
	var calls []any
	for _, k := range w.a.calls {
		w.sent += len(k.Args)
		calls = append(calls, map[string]any{"id": id("call_"), "type": "function", "function": map[string]any{"name": k.Tool, "arguments": string(k.Args)}})
	}
	if calls != nil {
		m["tool_calls"] = calls
	}
	writeJSON(w.w, http.StatusOK, map[string]any{
		"id": msg, "object": "chat.completion", "created": w.now.Unix(), "model": w.c.model,
		"choices": []any{map[string]any{"index": 0, "message": m, "finish_reason": finish}},
		"usage":   w.chatUsage(),
	})
}

func (w *writer) chatUsage() any {
	in, out := w.tokens()
	return map[string]any{"prompt_tokens": in, "completion_tokens": out, "total_tokens": in + out}
}
