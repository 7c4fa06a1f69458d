package gateway

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// Error is a refusal: what a client is told, and what [New] returns.
type Error struct {
	Status  int            // HTTP status; 0 for an error of New
	Code    string         // UPPER_SNAKE, stable
	Message string         // what is wrong, for a person
	Hint    string         // what to do about it
	Retry   time.Duration  // set for 503: when to try again
	Name    string         // of the error as clients see it; default by Status
	Data    map[string]any // more members of the error's data
	Tag     string         // set for the errors of OpenCode that are flat: {"_tag", "message", …}
	Err     error          // the cause
}

func (e *Error) Error() string {
	s := "gateway: " + e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// names are those that OpenCode's own errors have for a status, so that its clients
// show the message and not the whole body.
var names = map[int]string{
	http.StatusBadRequest:            "BadRequest",
	http.StatusUnauthorized:          "UnauthorizedError",
	http.StatusForbidden:             "ForbiddenError",
	http.StatusRequestEntityTooLarge: "BadRequest",
	http.StatusUnsupportedMediaType:  "BadRequest",
	http.StatusRequestTimeout:        "BadRequest",
	http.StatusServiceUnavailable:    "ServiceUnavailableError",
}

// WriteError answers with an error in the shape of OpenCode's own,
// {"name", "data": {"message", "code"}}. The cause stays here.
func WriteError(w http.ResponseWriter, e *Error) {
	name := cmp.Or(e.Name, names[e.Status])
	if name == "" {
		name = "UnknownError"
	}
	message := e.Message
	if e.Hint != "" {
		message += ": " + e.Hint
	}
	data := map[string]any{"message": message}
	maps.Copy(data, e.Data)
	if e.Code != "" {
		data["code"] = e.Code
	}
	shape := map[string]any{"name": name, "data": data}
	if e.Tag != "" {
		data["_tag"] = e.Tag
		shape = data
	}
	body, err := json.Marshal(shape)
	if err != nil { // strings always encode
		body = []byte(`{"name":"UnknownError","data":{"message":"the error could not be written"}}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if e.Retry > 0 {
		h.Set("Retry-After", strconv.Itoa(max(1, int(e.Retry/time.Second))))
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // the client may be gone
}
