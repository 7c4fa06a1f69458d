package httprpc_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

func TestHandlerChoosesSubprotocol(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(&httprpc.Handler{
		Main: func(*http.Request) (any, error) { return "main", nil },
		Protocol: func(r *http.Request) string {
			if strings.Contains(r.Header.Get("Sec-WebSocket-Protocol"), "v2") {
				return "v2"
			}
			return "never.offered"
		},
	})
	defer server.Close()
	for _, test := range []struct {
		offered []string
		chosen  string
	}{{[]string{"v1", "v2"}, "v2"}, {[]string{"v1"}, ""}, {nil, ""}} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		conn, _, err := websocket.Dial(ctx, server.URL, &websocket.DialOptions{Subprotocols: test.offered})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.Subprotocol(); got != test.chosen {
			t.Errorf("of %v the handler chose %q, want %q", test.offered, got, test.chosen)
		}
		_ = conn.CloseNow()
		cancel()
	}
}
