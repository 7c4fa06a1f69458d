package opencode_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/modelproxy"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/scriptmodel"
)

// What Configure makes passes the check of a Host, for the scripted model and
// for a model of the gpt-5 family at a provider of the operator's, and both
// answer through the model proxy.
func TestConfigureForAHost(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the real OpenCode is not run in short mode")
	}
	binary := realBinary(t).Path
	script := scriptmodel.New(scriptmodel.Options{})
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); strings.HasPrefix(r.URL.Path, "/own/") && got != "Bearer "+canaryKey {
			t.Errorf("%s got Authorization %q", r.URL.Path, got)
		}
		script.ServeHTTP(w, r)
	}))
	t.Cleanup(model.Close)
	var proxy http.Handler
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { proxy.ServeHTTP(w, r) }))
	t.Cleanup(front.Close)

	o := configFile(t, `{"model": "tongs/scripted", "provider": {"own": {"options": {"baseURL": "`+model.URL+`/own/v1", "apiKey": "{env:OWN}"}, "models": {"gpt-5-own": {}}}}}`, "OWN="+canaryKey)
	o.Scripted, o.ModelProxy = model.URL+"/v1", front.URL
	o.Shell = filepath.Join(t.TempDir(), "refuse")
	if err := os.WriteFile(o.Shell, []byte("#!/bin/sh\nexit 126\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := opencode.Configure(o)
	if err != nil {
		t.Fatal(err)
	}
	if proxy, err = modelproxy.New(modelproxy.Config{Providers: c.Providers}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []opencode.Model{{Provider: "tongs", ID: "scripted"}, {Provider: "own", ID: "gpt-5-own"}} {
		if !slices.Contains(c.Models, m) {
			t.Errorf("%v is not among the models to check: %v", m, c.Models)
		}
	}
	home, project := places(t)
	ports := freePorts(t, 2)
	machine := newLocalMachine(t)
	host := newHost(t, opencode.HostConfig{
		Machine: func(ctx context.Context) (opencode.Machine, error) { return machine.connect(ctx) },
		Content: c.Content, Models: c.Models, Sandboxes: newFakeSandboxes(t),
		Binary: binary, Home: home, Project: project, Port: ports[0], BridgePort: ports[1], Logger: testLogger(t),
	})
	if _, err := host.Start(deadline(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	for _, m := range []opencode.Model{{Provider: "tongs", ID: "scripted"}, {Provider: "own", ID: "gpt-5-own"}} {
		var session struct{ ID string }
		if err := json.Unmarshal([]byte(ask(t, "POST", base+"/session", `{"title":"t"}`)), &session); err != nil {
			t.Fatal(err)
		}
		answer := ask(t, "POST", base+"/session/"+url.PathEscape(session.ID)+"/message",
			fmt.Sprintf(`{"model":{"providerID":%q,"modelID":%q},"parts":[{"type":"text","text":"[{\"text\":\"an answer of the script\"}]"}]}`, m.Provider, m.ID))
		if !strings.Contains(answer, "an answer of the script") {
			t.Errorf("%v answered %s", m, answer)
		}
	}
}
