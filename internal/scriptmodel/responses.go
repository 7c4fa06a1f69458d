package scriptmodel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// decodeResponses reads a request of POST /responses.
func decodeResponses(body []byte) (*conversation, error) {
	var in struct {
		Model        string          `json:"model"`
		Stream       bool            `json:"stream"`
		Instructions string          `json:"instructions"`
		Input        json.RawMessage `json:"input"`
		Tools        []struct {
			Name string `json:"name"`
		} `json:"tools"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("the body is not a responses request: %w", err)
	}
	c := &conversation{model: in.Model, stream: in.Stream}
	if in.Instructions != "" {
		c.addSystem(in.Instructions)
	}
	for _, t := range in.Tools {
		if t.Name != "" {
			c.tools = append(c.tools, t.Name)
		}
	}
	if input := bytes.TrimSpace(in.Input); len(input) > 0 && input[0] == '"' {
		c.add(user, contentText(input))
		return c, nil
	}
	var items []struct {
		Type    string          `json:"type"`
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
		Output  json.RawMessage `json:"output"`
	}
	if err := json.Unmarshal(in.Input, &items); err != nil {
		return nil, fmt.Errorf("input is neither a text nor a list of items: %w", err)
	}
	if len(items) == 0 {
		return nil, errors.New("input is empty")
	}
	// One answer is several items here: its reasoning, its text, its calls.
	said := func(text string) {
		if n := len(c.turns); n > 0 && c.turns[n-1].role == assistant {
			c.turns[n-1].text += text
			return
		}
		c.add(assistant, text)
	}
	for i, it := range items {
		switch it.Type {
		case "", "message":
			text := contentText(it.Content)
			switch it.Role {
			case "system", "developer":
				c.addSystem(text)
			case "user":
				c.add(user, text)
			case "assistant":
				said(text)
			default:
				return nil, fmt.Errorf("input[%d]: unknown role %q", i, clip(it.Role, 40))
			}
		case "function_call_output", "custom_tool_call_output":
			c.add(toolResult, contentText(it.Output))
		default: // function_call, reasoning, item_reference and what else a model says
			said("")
		}
	}
	return c, nil
}

// responses writes the answer of POST /responses.
func (w *writer) responses() {
	resp := id("resp_")
	if !w.c.stream {
		text, ok := w.text()
		if !ok {
			return
		}
		var output []any
		if text != "" {
			w.sent += len(text)
			output = append(output, messageItem(id("msg_"), "completed", text))
		}
		for _, k := range w.a.calls {
			w.sent += len(k.Args)
			output = append(output, callItem(id("fc_"), id("call_"), "completed", k.Tool, string(k.Args)))
		}
		writeJSON(w.w, http.StatusOK, w.response(resp, "completed", output))
		return
	}
	w.stream()
	if !w.emit("response.created", map[string]any{"response": w.response(resp, "in_progress", nil)}) ||
		!w.emit("response.in_progress", map[string]any{"response": w.response(resp, "in_progress", nil)}) {
		return
	}
	output, ok := w.messageEvents(nil)
	if !ok {
		return
	}
	if w.a.fail != nil {
		failed := w.response(resp, "failed", output)
		failed["error"] = map[string]any{"code": "server_error", "message": w.a.fail.Message}
		w.emit("response.failed", map[string]any{"response": failed})
		return
	}
	for _, k := range w.a.calls {
		if output, ok = w.callEvents(k, output); !ok {
			return
		}
	}
	w.emit("response.completed", map[string]any{"response": w.response(resp, "completed", output)})
}

// emit writes an event with its type and number.
func (w *writer) emit(kind string, fields map[string]any) bool {
	fields["type"], fields["sequence_number"] = kind, w.seq
	w.seq++
	return w.event(kind, fields)
}

// messageEvents streams the text of the answer; an answer without text has no message.
func (w *writer) messageEvents(output []any) ([]any, bool) {
	msg, at, text := id("msg_"), len(output), ""
	begun := false
	for _, p := range w.a.pieces {
		if !wait(w.ctx, p.delay) {
			return nil, false
		}
		if p.text == "" {
			continue
		}
		if !begun {
			begun = true
			if !w.emit("response.output_item.added", map[string]any{"output_index": at, "item": messageItem(msg, "in_progress", "")}) ||
				!w.emit("response.content_part.added", map[string]any{"item_id": msg, "output_index": at, "content_index": 0, "part": textPart("")}) {
				return nil, false
			}
		}
		for _, s := range parts(p.text) {
			text += s
			w.sent += len(s)
			if !w.emit("response.output_text.delta", map[string]any{"item_id": msg, "output_index": at, "content_index": 0, "delta": s, "logprobs": []any{}}) {
				return nil, false
			}
		}
	}
	if !begun {
		return output, true
	}
	item := messageItem(msg, "completed", text)
	ok := w.emit("response.output_text.done", map[string]any{"item_id": msg, "output_index": at, "content_index": 0, "text": text, "logprobs": []any{}}) &&
		w.emit("response.content_part.done", map[string]any{"item_id": msg, "output_index": at, "content_index": 0, "part": textPart(text)}) &&
		w.emit("response.output_item.done", map[string]any{"output_index": at, "item": item})
	return append(output, item), ok
}

// callEvents streams one tool call.
func (w *writer) callEvents(k call, output []any) ([]any, bool) {
	item, callID, at, args := id("fc_"), id("call_"), len(output), string(k.Args)
	if !w.emit("response.output_item.added", map[string]any{"output_index": at, "item": callItem(item, callID, "in_progress", k.Tool, "")}) {
		return nil, false
	}
	for _, s := range parts(args) {
		w.sent += len(s)
		if !w.emit("response.function_call_arguments.delta", map[string]any{"item_id": item, "output_index": at, "delta": s}) {
			return nil, false
		}
	}
	done := callItem(item, callID, "completed", k.Tool, args)
	ok := w.emit("response.function_call_arguments.done", map[string]any{"item_id": item, "output_index": at, "name": k.Tool, "arguments": args}) &&
		w.emit("response.output_item.done", map[string]any{"output_index": at, "item": done})
	return append(output, done), ok
}

// response is the object that the events and the whole answer carry.
func (w *writer) response(resp, status string, output []any) map[string]any {
	if output == nil {
		output = []any{}
	}
	r := map[string]any{
		"id": resp, "object": "response", "created_at": w.now.Unix(), "status": status, "model": w.c.model,
		"output": output, "error": nil, "incomplete_details": nil, "instructions": nil, "metadata": map[string]any{},
		"parallel_tool_calls": true, "tool_choice": "auto", "tools": []any{}, "usage": nil,
	}
	if status == "completed" {
		in, out := w.tokens()
		r["usage"] = map[string]any{
			"input_tokens": in, "input_tokens_details": map[string]any{"cached_tokens": 0},
			"output_tokens": out, "output_tokens_details": map[string]any{"reasoning_tokens": 0},
			"total_tokens": in + out,
		}
	}
	return r
}

func messageItem(id, status, text string) map[string]any {
	content := []any{}
	if status == "completed" {
		content = append(content, textPart(text))
	}
	return map[string]any{"id": id, "type": "message", "role": "assistant", "status": status, "content": content}
}

func textPart(text string) map[string]any {
	return map[string]any{"type": "output_text", "text": text, "annotations": []any{}, "logprobs": []any{}}
}

func callItem(item, callID, status, name, args string) map[string]any {
	return map[string]any{"id": item, "type": "function_call", "call_id": callID, "status": status, "name": name, "arguments": args}
}
