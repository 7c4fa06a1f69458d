package modelproxy_test

import (
	"bytes"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tongs-dev/tongs/internal/modelproxy"
)

// The proxy and the certificate authorities that the host's environment names
// are used. net/http and crypto/x509 read it once per process, so that the test
// runs again in another one.
func TestEnvironmentIsHonoured(t *testing.T) {
	t.Parallel()
	const mark = "TONGS_TEST_ENVIRONMENT"
	if os.Getenv(mark) != "" {
		srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{custom(t, "https://example.com/v1")}})
		resp, body := send(t, "POST", srv.URL+"/mine/chat", "{}")
		if resp.StatusCode != 200 || body != "through the tunnel" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		return
	}
	var mu sync.Mutex
	var key string
	upstream := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // its certificate is for example.com
		mu.Lock()
		key = r.Header.Get("Authorization")
		mu.Unlock()
		io.WriteString(w, "through the tunnel")
	}))
	t.Cleanup(upstream.Close)
	var asked []string
	tunnel := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Method+" "+r.Host+" "+r.Header.Get("Authorization"))
		mu.Unlock()
		far, err := net.Dial("tcp", upstream.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		near, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer near.Close()
		io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() {
			defer close(done)
			io.Copy(far, near)
			far.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(near, far)
		near.Close()
		<-done
	}))
	t.Cleanup(tunnel.Close)

	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = []string{mark + "=1", "HTTPS_PROXY=" + tunnel.URL, "SSL_CERT_FILE=" + ca, "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("%v\n%s", err, out)
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(asked, ";"); got != "CONNECT example.com:443 " {
		t.Errorf("the proxy of the environment was asked %q", got)
	}
	if key != "Bearer "+canary {
		t.Errorf("the upstream got %q", key)
	}
}
