package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/internal/api"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// TestDoor asks for the endpoint in the ways that are let in, and in those that are not.
func TestDoor(t *testing.T) {
	t.Parallel()
	e := begin(t, func(c *api.Config) {
		c.Origins = []string{"http://app.example:5173"}
		c.Hosts = []string{"box.example"}
	})
	for _, test := range []struct {
		name    string
		method  string // default POST
		path    string // default /rpc
		headers map[string]string
		status  int
		code    string
	}{
		{name: "with the token", headers: map[string]string{"Authorization": "Bearer " + e.token}, status: 200},
		{name: "lower-case scheme", headers: map[string]string{"Authorization": "bearer " + e.token}, status: 200},
		{name: "no token", status: 401, code: "UNAUTHORIZED"},
		{name: "wrong token", headers: map[string]string{"Authorization": "Bearer " + e.token + "0"}, status: 401, code: "UNAUTHORIZED"},
		{name: "empty token", headers: map[string]string{"Authorization": "Bearer "}, status: 401, code: "UNAUTHORIZED"},
		{name: "long token", headers: map[string]string{"Authorization": "Bearer " + strings.Repeat("x", 20000)}, status: 401, code: "UNAUTHORIZED"},
		{name: "another scheme", headers: map[string]string{"Authorization": "Basic " + e.token}, status: 401, code: "UNAUTHORIZED"},
		{name: "token in the URL", path: "/rpc?token=" + e.token + "&access_token=" + e.token, status: 401, code: "UNAUTHORIZED"},
		{name: "foreign host", headers: map[string]string{"Host": "evil.example", "Authorization": "Bearer " + e.token}, status: 403, code: "FOREIGN_HOST"},
		{name: "a host of ours", headers: map[string]string{"Host": "box.example:80", "Authorization": "Bearer " + e.token}, status: 200},
		{name: "a name that ends like ours", headers: map[string]string{"Host": "3000-a.localhost", "Authorization": "Bearer " + e.token}, status: 403, code: "FOREIGN_HOST"},
		{name: "foreign origin", headers: map[string]string{"Origin": "http://evil.example", "Authorization": "Bearer " + e.token}, status: 403, code: "FOREIGN_ORIGIN"},
		{name: "a preview's origin", headers: map[string]string{"Origin": "http://3000-a.localhost:8787", "Authorization": "Bearer " + e.token}, status: 403, code: "FOREIGN_ORIGIN"},
		{name: "no origin's origin", headers: map[string]string{"Origin": "null", "Authorization": "Bearer " + e.token}, status: 403, code: "FOREIGN_ORIGIN"},
		{name: "an image of another page", headers: map[string]string{"Sec-Fetch-Site": "cross-site", "Authorization": "Bearer " + e.token}, status: 403, code: "FOREIGN_ORIGIN"},
		{name: "an origin that may", headers: map[string]string{"Origin": "http://app.example:5173", "Authorization": "Bearer " + e.token}, status: 200},
		{name: "its preflight", method: "OPTIONS", headers: map[string]string{"Origin": "http://app.example:5173", "Access-Control-Request-Method": "POST"}, status: 204},
		{name: "another's preflight", method: "OPTIONS", headers: map[string]string{"Origin": "http://evil.example"}, status: 403, code: "FOREIGN_ORIGIN"},
		{name: "a method", method: "DELETE", headers: map[string]string{"Authorization": "Bearer " + e.token}, status: 405},
		{name: "health", method: "GET", path: "/health", status: 200},
		{name: "health of a foreign host", method: "GET", path: "/health", headers: map[string]string{"Host": "evil.example"}, status: 403, code: "FOREIGN_HOST"},
		{name: "elsewhere", method: "GET", path: "/", status: 404, code: "NOT_FOUND"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			method, path := test.method, test.path
			if method == "" {
				method = "POST"
			}
			if path == "" {
				path = "/rpc"
			}
			body := ""
			if method == "POST" {
				body = `["push",["pipeline",0,["version"],[]]]` + "\n" + `["pull",1]`
			}
			request, err := http.NewRequestWithContext(deadline(t), method, e.url+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range test.headers {
				request.Header.Set(k, v)
			}
			if host := test.headers["Host"]; host != "" {
				request.Host = host
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != test.status || !strings.Contains(string(text), test.code) {
				t.Errorf("%d %s %v", response.StatusCode, text, err)
			}
			if test.status == 200 && path == "/rpc" && !strings.Contains(string(text), `"tongs":"test"`) {
				t.Errorf("the answer is %s", text)
			}
			allowed := response.Header.Get("Access-Control-Allow-Origin")
			if want := strings.HasPrefix(test.headers["Origin"], "http://app."); want != (allowed != "") || allowed == "*" {
				t.Errorf("Access-Control-Allow-Origin: %q", allowed)
			}
		})
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestBrowser comes in as a browser does: the token is a subprotocol, which is echoed.
func TestBrowser(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	conn, _, err := websocket.Dial(ctx, e.url+"/rpc", &websocket.DialOptions{Subprotocols: []string{"capnweb", remote.ProtocolPrefix + e.token}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if conn.Subprotocol() != remote.ProtocolPrefix+e.token {
		t.Errorf("the subprotocol is %q", conn.Subprotocol())
	}
	if err := conn.Write(ctx, websocket.MessageText, []byte(`["push",["pipeline",0,["version"],[]]]`)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Write(ctx, websocket.MessageText, []byte(`["pull",1]`)); err != nil {
		t.Fatal(err)
	}
	if _, text, err := conn.Read(ctx); err != nil || !strings.Contains(string(text), `"api":1`) {
		t.Errorf("%s %v", text, err)
	}
	if _, _, err := websocket.Dial(ctx, e.url+"/rpc", &websocket.DialOptions{Subprotocols: []string{remote.ProtocolPrefix + "x"}}); err == nil {
		t.Error("a wrong token was let in")
	}
}

// TestBatch makes calls in one HTTP request.
func TestBatch(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	create(t, e.connect(t, e.token), remote.CreateOptions{Name: "a"})
	s := httprpc.NewBatch(ctx, e.url+"/rpc", &httprpc.BatchClientOptions{Header: http.Header{"Authorization": {"Bearer " + e.token}}})
	box := s.Main().Call("get", "a")
	res := box.Get("native").Call("exec", sandbox.StartRequest{Spec: sandbox.ProcessSpec{Argv: []string{"echo", "hi"}}, Inline: 1 << 20})
	reply, err := capnweb.Await[sandbox.ExecReply](ctx, res)
	if err != nil || string(reply.Stdout) != "hi\n" {
		t.Errorf("%+v %v", reply, err)
	}
	<-s.Done()
	http.DefaultClient.CloseIdleConnections()
}

// TestScopedToken holds that a token of one sandbox reaches that one and nothing else, until it ends.
func TestScopedToken(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	h := e.connect(t, e.token)
	mine := create(t, h, remote.CreateOptions{Name: "mine"})
	other := create(t, h, remote.CreateOptions{Name: "other"})
	issued, err := h.IssueToken(ctx, remote.TokenOptions{Sandbox: "mine", Note: "for a test"})
	if err != nil {
		t.Fatal(err)
	}
	s := e.connect(t, issued.Token)
	if v, err := s.Version(ctx); err != nil || v.Sandbox != mine.ID {
		t.Errorf("version: %+v %v", v, err)
	}
	for _, ref := range []string{"", "mine", mine.ID} {
		box, err := s.Sandbox(ctx, ref)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := box.Exec(ctx, command("hostname")); err != nil || string(res.Stdout) != "mine\n" {
			t.Errorf("%q: %+v %v", ref, res, err)
		}
		box.Close()
	}
	if page, err := s.List(ctx, remote.ListOptions{}); err != nil || len(page.Sandboxes) != 1 || page.Sandboxes[0].ID != mine.ID {
		t.Errorf("list: %+v %v", page, err)
	}
	for _, ref := range []string{"other", other.ID, "mi", "nothing"} {
		_, err := s.Sandbox(ctx, ref)
		if sandbox.CodeOf(err) != sandbox.CodeSandboxNotFound {
			t.Errorf("get %s: %v", ref, err)
		}
		if _, err := s.Inspect(ctx, ref); sandbox.CodeOf(err) != sandbox.CodeSandboxNotFound {
			t.Errorf("inspect %s: %v", ref, err)
		}
	}
	_, createErr := s.Create(ctx, remote.CreateOptions{Name: "third"})
	_, destroyErr := s.Destroy(ctx, "mine")
	_, issueErr := s.IssueToken(ctx, remote.TokenOptions{Sandbox: "mine"})
	_, tokensErr := s.Tokens(ctx)
	_, revokeErr := s.RevokeToken(ctx, issued.ID)
	object := s.Object("mine")
	defer object.Close()
	ownErr := sandbox.FromWire("destroy", object.Call("destroy").Await(ctx, nil))
	for what, err := range map[string]error{
		"create": createErr, "destroy": destroyErr, "issue": issueErr, "tokens": tokensErr, "revoke": revokeErr, "destroy from its object": ownErr,
	} {
		if sandbox.CodeOf(err) != sandbox.CodePermissionDenied {
			t.Errorf("%s: %v", what, err)
		}
	}
	if all, err := h.Tokens(ctx); err != nil || len(all) != 1 || all[0].ID != issued.ID || all[0].Token != "" || all[0].Note != "for a test" {
		t.Errorf("tokens: %+v %v", all, err)
	}

	// Its secret is not kept, and it outlives the process.
	text, err := os.ReadFile(filepath.Join(e.home, "api-tokens.json"))
	if err != nil || strings.Contains(string(text), issued.Token) || strings.Contains(string(text), issued.Token[len(issued.Token)-64:]) {
		t.Errorf("%s %v", text, err)
	}
	again, err := api.OpenTokens(e.home)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()

	// Revoked, it ends what is open, too.
	if ok, err := h.RevokeToken(ctx, issued.ID); err != nil || !ok {
		t.Errorf("revoke: %v %v", ok, err)
	}
	select {
	case <-s.Done():
	case <-ctx.Done():
		t.Error("a connection lives on after its token was revoked")
	}
	if _, err := remote.Connect(ctx, e.url, remote.DialOptions{Token: issued.Token}); sandbox.CodeOf(err) != remote.CodeUnauthorized {
		t.Errorf("a revoked token: %v", err)
	}

	// So does the end of the sandbox, and the end of its time.
	for _, end := range []struct {
		name string
		opts remote.TokenOptions
		end  func() error
	}{
		{"expired", remote.TokenOptions{Sandbox: "other", Expires: time.Now().Add(300 * time.Millisecond)}, func() error { return nil }},
		{"destroyed", remote.TokenOptions{Sandbox: "other"}, func() error { _, err := h.Destroy(ctx, "other"); return err }},
	} {
		issued, err := h.IssueToken(ctx, end.opts)
		if err != nil {
			t.Fatal(err)
		}
		s, err := remote.Connect(ctx, e.url, remote.DialOptions{Token: issued.Token})
		if err == nil {
			if err := end.end(); err != nil {
				t.Error(err)
			}
			select {
			case <-s.Done():
			case <-ctx.Done():
				t.Errorf("%s: its connection lives on", end.name)
			}
			s.Close()
		} else if end.name != "expired" { // on a busy machine it may have
			t.Fatal(err)
		}
		if _, err := remote.Connect(ctx, e.url, remote.DialOptions{Token: issued.Token}); sandbox.CodeOf(err) != remote.CodeUnauthorized {
			t.Errorf("%s: %v", end.name, err)
		}
	}
	for what, opts := range map[string]remote.TokenOptions{
		"past":   {Sandbox: "mine", Expires: time.Now().Add(-time.Second)},
		"long":   {Sandbox: "mine", Expires: time.Now().Add(400 * 24 * time.Hour)},
		"chatty": {Sandbox: "mine", Note: strings.Repeat("x", 201)},
	} {
		if _, err := h.IssueToken(ctx, opts); sandbox.CodeOf(err) != sandbox.CodeInvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTokenFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := api.OpenTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	file := filepath.Join(dir, api.TokenFile)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	token, err := api.ReadToken(file)
	if err != nil || len(token) < 64 {
		t.Fatalf("%q %v", token, err)
	}
	second, err := api.OpenTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if again, err := api.ReadToken(file); err != nil || again != token {
		t.Errorf("the second start has another token: %v", err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := api.OpenTokens(dir); sandbox.CodeOf(err) != sandbox.CodePermissionDenied {
		t.Errorf("a token that others can read: %v", err)
	}
	for name, text := range map[string]string{"empty": "", "blank": "\n\n", "short": "abc", "two lines": "abcdefghijklmnopqrst\nabcdefghijklmnopqrst", "large": strings.Repeat("x", 1000)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
		var coded *sandbox.Error
		if _, err := api.OpenTokens(dir); !errors.As(err, &coded) || coded.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	os.Remove(file)
	if err := os.WriteFile(filepath.Join(dir, "api-tokens.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.OpenTokens(dir); err == nil {
		t.Error("broken JSON was taken")
	}
}

// TestDialSays holds what people read when they cannot get in.
func TestDialSays(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	create(t, e.connect(t, e.token), remote.CreateOptions{Name: "web-1"})
	create(t, e.connect(t, e.token), remote.CreateOptions{Name: "web-2"})
	nowhere := strings.Replace(e.url, "127.0.0.1:", "127.0.0.1:1", 1)[:len("http://127.0.0.1:1")]
	for _, test := range []struct {
		url, token, box string
		code            sandbox.Code
		text            string
	}{
		{nowhere, e.token, "web-1", sandbox.CodeConnectionLost, "tongs up"},
		{e.url, "", "web-1", remote.CodeUnauthorized, "api-token"},
		{e.url, "wrong", "web-1", remote.CodeUnauthorized, "api-token"},
		{e.url, e.token, "web", "AMBIGUOUS_NAME", "web-1, web-2"},
		{e.url, e.token, "wbe-1", sandbox.CodeSandboxNotFound, "did you mean web-1"},
		{e.url + "/health", e.token, "web-1", sandbox.CodeProtocolMismatch, "not a Tongs endpoint"},
		{"localhost", e.token, "web-1", sandbox.CodeInvalidArgument, "http://host:port"},
	} {
		_, err := remote.Dial(ctx, test.url, remote.DialOptions{Token: test.token, Sandbox: test.box})
		if sandbox.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s %s: %v", test.url, test.box, err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := remote.Dial(cancelled, e.url, remote.DialOptions{Token: e.token}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
