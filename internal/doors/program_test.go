package doors_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// beProgram makes a request for each line of standard input, on a connection of its own,
// and says the status and the body in one line.
func beProgram(url string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		f := strings.SplitN(in.Text(), " ", 3)
		if f[0] == "WATCH" {
			resp, err := http.Get(url + f[1])
			if err != nil {
				fmt.Println(err)
				continue
			}
			defer resp.Body.Close()
			fmt.Println(resp.StatusCode, "")
			continue
		}
		req, err := http.NewRequest(f[0], url+f[1], strings.NewReader(f[2]))
		if err != nil {
			fmt.Println(err)
			continue
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			fmt.Println(err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(resp.StatusCode, strings.ReplaceAll(string(body), "\n", " "), err)
	}
}

// TestProgramsOfThisMachine: two that look the same, with new connections for each request.
func TestProgramsOfThisMachine(t *testing.T) {
	t.Parallel()
	w := twoSessions(t)
	start := func() (ask func(line string) string) {
		t.Helper()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), playProgram+"="+w.url)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
		r := bufio.NewReader(out)
		return func(line string) string {
			t.Helper()
			if _, err := fmt.Fprintln(in, line); err != nil {
				t.Fatal(err)
			}
			answer, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
	}
	one, two := start(), start()
	for _, ask := range []func(string) string{one, two} {
		if got := ask("WATCH /global/event"); !strings.HasPrefix(got, "200") {
			t.Fatal(got)
		}
	}
	one(`POST /session/ses_a/message {"parts":[]}`)
	two(`POST /session/ses_b/message {"parts":[]}`)
	for _, c := range []struct {
		ask     func(string) string
		session string
	}{{one, "ses_a"}, {two, "ses_b"}, {one, "ses_a"}} {
		made := c.ask(`POST /pty {"command":"cat"}`)
		id := strings.Split(made+`""""`, `"`)[3]
		if _, list, _ := w.person("X-Tongs-Session", c.session).do("GET", "/pty", ""); !strings.HasPrefix(made, "200") || !strings.Contains(list, id) {
			t.Errorf("a terminal of %s: %s, there are %s", c.session, made, list)
		}
	}
	if three := start(); !strings.HasPrefix(three(`POST /pty {}`), "409") {
		t.Error("a program that has worked with nothing has a sandbox")
	}
}
