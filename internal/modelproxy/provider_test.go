package modelproxy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/modelproxy"
)

// custom is a provider as an operator configures it.
func custom(t testing.TB, base string) modelproxy.Provider {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	return modelproxy.Provider{ID: "mine", Upstream: u, Key: modelproxy.NewSecret(canary), Operator: true}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	table, _ := modelproxy.LookupKnown("openai")
	for name, tc := range map[string]struct {
		change func(*modelproxy.Provider)
		base   string
		table  bool
		word   string
	}{
		"good":                   {},
		"loopback of operator":   {base: "http://127.0.0.1:11434/v1"},
		"loopback of the table":  {base: "https://127.0.0.1/v1", table: true, word: "private network"},
		"localhost of the table": {base: "https://localhost/v1", table: true, word: "private network"},
		"metadata of the table":  {base: "https://169.254.169.254/", table: true, word: "private network"},
		"mapped of the table":    {base: "https://[::ffff:10.0.0.1]/", table: true, word: "private network"},
		"http of the table":      {base: "http://api.openai.com", table: true, word: "https"},
		"user":                   {base: "https://me:" + canary + "@x.example/", word: "no user"},
		"query":                  {base: "https://x.example/?key=" + canary, word: "no user, query"},
		"scheme":                 {base: "file:///etc/passwd", word: "http or https"},
		"dots":                   {base: "https://x.example/a/../b", word: "dots"},
		"id":                     {change: func(p *modelproxy.Provider) { p.ID = "a/b" }, word: "letters"},
		"no id":                  {change: func(p *modelproxy.Provider) { p.ID = "" }, word: "letters"},
		"dots as id":             {change: func(p *modelproxy.Provider) { p.ID = ".." }, word: "letters"},
		"key":                    {change: func(p *modelproxy.Provider) { p.Key = modelproxy.NewSecret(canary + "\r\nX: 1") }, word: "line break"},
		"header name":            {change: func(p *modelproxy.Provider) { p.Headers = secrets("a b", "1") }, word: "header name"},
		"header value":           {change: func(p *modelproxy.Provider) { p.Headers = secrets("a", canary+"\n") }, word: "line break"},
		"header of connection":   {change: func(p *modelproxy.Provider) { p.Headers = secrets("host", "x") }, word: "cannot be set"},
		"header of model": {change: func(p *modelproxy.Provider) {
			p.ModelHeaders = map[string]map[string]modelproxy.Secret{"m": secrets("te", "x")}
		}, word: "cannot be set"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := table.Provider(modelproxy.NewSecret(canary))
			if !tc.table {
				p = custom(t, "https://x.example/v1")
			}
			if tc.base != "" {
				p.Upstream, _ = url.Parse(tc.base)
			}
			if tc.change != nil {
				tc.change(&p)
			}
			_, err := modelproxy.New(modelproxy.Config{Providers: []modelproxy.Provider{p}})
			if (err == nil) != (tc.word == "") || err != nil && !strings.Contains(err.Error(), tc.word) {
				t.Errorf("error %v, want one with %q", err, tc.word)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
	p := custom(t, "https://x.example")
	if _, err := modelproxy.New(modelproxy.Config{Providers: []modelproxy.Provider{p, p}}); err == nil {
		t.Error("the same provider twice was accepted")
	}
}

func secrets(name, value string) map[string]modelproxy.Secret {
	return map[string]modelproxy.Secret{name: modelproxy.NewSecret(value)}
}

func TestSecretIsNeverShown(t *testing.T) {
	t.Parallel()
	p := custom(t, "https://x.example")
	p.Headers = secrets("Authorization", canary)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", p.Key, "provider", p, "pointer", &p)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", p.Key, "provider", p, "headers", p.Headers)
	js, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(js) + fmt.Sprint(&p, p.Headers, struct{ hidden modelproxy.Secret }{p.Key})
	for _, verb := range "vsqxXdTbop" {
		all += fmt.Sprintf("%"+string(verb)+" %+"+string(verb)+" %#"+string(verb), p, p.Key, p.Key)
	}
	if strings.Contains(all, canary) || strings.Contains(all, fmt.Sprintf("%x", canary)) || strings.Contains(all, fmt.Sprintf("%d", []byte(canary))) {
		t.Errorf("a secret is shown: %s", all)
	}
	if p.Key.Reveal() != canary {
		t.Error("Reveal lost the secret")
	}
}
