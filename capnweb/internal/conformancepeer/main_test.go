package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The program says where it listens, serves batches to any origin, and ends when told to.
func TestProgram(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, stdout, "127.0.0.1:0", false) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "LISTEN ")
	if !ok {
		t.Fatalf("the first line is %q", line)
	}

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(method, body string) (int, string, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, method, "http://"+addr+"/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", "https://elsewhere.example")
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		b, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, response.Header.Get("Access-Control-Allow-Origin"), string(b)
	}
	status, origin, body := ask(http.MethodPost, `["push",["pipeline",0,["square"],[3]]]`+"\n"+`["pull",1]`)
	if status != http.StatusOK || origin != "*" || body != `["resolve",1,9]` {
		t.Errorf("a batch got %d, origin %q, %q", status, origin, body)
	}
	if status, _, _ := ask(http.MethodGet, ""); status != http.StatusMethodNotAllowed {
		t.Errorf("GET got %d", status)
	}

	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
