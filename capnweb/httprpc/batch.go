package httprpc

import "net/http"

// BatchOptions say how batches are served.
type BatchOptions struct{}

func (h *Handler) serveBatch(w http.ResponseWriter, r *http.Request) {
	http.Error(w, "batches are not served here", http.StatusNotImplemented)
}
