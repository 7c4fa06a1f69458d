package gateway

import (
	"encoding/json"
	"net/http"
)

// emptyAnswer is what a row says that is answered here without a sandbox.
type emptyAnswer func(g *gateway, w http.ResponseWriter)

func emptyList(_ *gateway, w http.ResponseWriter)   { writeJSON(w, []any{}) }
func emptyObject(_ *gateway, w http.ResponseWriter) { writeJSON(w, map[string]any{}) }
func emptyData(_ *gateway, w http.ResponseWriter) {
	writeJSON(w, map[string]any{"data": map[string]any{}})
}
func emptyListData(_ *gateway, w http.ResponseWriter) { writeJSON(w, map[string]any{"data": []any{}}) }

// emptyLocated is an empty list of the second engine, which says where it looked.
func emptyLocated(g *gateway, w http.ResponseWriter) {
	writeJSON(w, map[string]any{
		"location": map[string]any{
			"directory": g.cfg.Directory,
			"project":   map[string]any{"id": "global", "directory": g.cfg.Directory},
		},
		"data": []any{},
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil { // maps and lists of strings always encode
		WriteError(w, &Error{Status: 500, Code: "INTERNAL", Message: "the answer could not be written"})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // the client may be gone
}
