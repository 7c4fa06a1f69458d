package opencode

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// maxEventBytes is the longest event that is looked at; a longer one (a message's text, say) is
// skipped. Those about sessions have some hundred bytes.
const maxEventBytes = 64 << 10

// RootWatcher is told of root sessions, those that no agent has started. Its methods are called one
// after the other and must not block for long.
type RootWatcher struct {
	Created func(id string)
	Deleted func(id string)
	// Step, if set, is told that an agent has begun a message in a session, be that a root or not, possibly
	// more than once. The tools of the message come later.
	Step func(session, message string)
}

// WatchRoots tells w of root sessions until ctx ends. It reconnects when OpenCode has ended and is
// back; what happens in between is not told.
func (h *Host) WatchRoots(ctx context.Context, w RootWatcher) {
	pause := newBackoff(100*time.Millisecond, 5*time.Second)
	for ctx.Err() == nil {
		began := time.Now()
		err := h.followEvents(ctx, w)
		if ctx.Err() != nil {
			return
		}
		h.logger.Debug("the event stream ended", "error", err)
		if time.Since(began) > time.Minute {
			pause.reset()
		}
		pause.wait(ctx)
	}
}

func (h *Host) followEvents(ctx context.Context, w RootWatcher) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL()+"/global/event", nil)
	if err != nil {
		return err
	}
	response, err := h.Client().Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return statusError(response.StatusCode)
	}
	lines := bufio.NewReaderSize(response.Body, maxEventBytes)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if err := skipLine(lines); err != nil {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("read events: %w", err)
		}
		if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			w.tell(data)
		}
	}
}

// skipLine reads to the end of the line.
func skipLine(lines *bufio.Reader) error {
	for {
		_, err := lines.ReadSlice('\n')
		if err == nil || !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// tell looks at one event.
func (w RootWatcher) tell(data []byte) {
	if bytes.Contains(data, []byte(`"message.updated"`)) && w.Step != nil {
		w.tellStep(data)
		return
	}
	if !bytes.Contains(data, []byte(`"session.created"`)) && !bytes.Contains(data, []byte(`"session.deleted"`)) {
		return
	}
	var event struct {
		Payload struct {
			Type       string `json:"type"`
			Properties struct {
				Info struct {
					ID       string `json:"id"`
					ParentID string `json:"parentID"`
				} `json:"info"`
			} `json:"properties"`
		} `json:"payload"`
	}
	if json.NewDecoder(io.LimitReader(bytes.NewReader(data), maxEventBytes)).Decode(&event) != nil {
		return // an event of another shape, which is none of these
	}
	info := event.Payload.Properties.Info
	if info.ParentID != "" || !sessionPattern.MatchString(info.ID) {
		return
	}
	switch event.Payload.Type {
	case "session.created":
		w.Created(info.ID)
	case "session.deleted":
		w.Deleted(info.ID)
	}
}

// tellStep looks at an event about a message.
func (w RootWatcher) tellStep(data []byte) {
	var event struct {
		Payload struct {
			Type       string `json:"type"`
			Properties struct {
				Info struct {
					ID        string `json:"id"`
					SessionID string `json:"sessionID"`
					Role      string `json:"role"`
					Time      struct {
						Completed float64 `json:"completed"`
					} `json:"time"`
				} `json:"info"`
			} `json:"properties"`
		} `json:"payload"`
	}
	if json.Unmarshal(data, &event) != nil {
		return // an event of another shape
	}
	info := event.Payload.Properties.Info
	if event.Payload.Type == "message.updated" && info.Role == "assistant" && info.Time.Completed == 0 && sessionPattern.MatchString(info.SessionID) {
		w.Step(info.SessionID, info.ID)
	}
}
