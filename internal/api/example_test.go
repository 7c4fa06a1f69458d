package api_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/sandbox/remote"
)

// TestExampleRuns runs the example of sandbox/remote, the first program that people write, as a program.
func TestExampleRuns(t *testing.T) {
	t.Parallel()
	e := begin(t)
	create(t, e.connect(t, e.token), remote.CreateOptions{Name: "web"})
	text, err := os.ReadFile("../../sandbox/remote/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	program := string(text)
	for _, change := range [][2]string{
		{"package remote_test", "package main"}, {"func ExampleDial()", "func main()"}, {`"http://127.0.0.1:8788"`, `"` + e.url + `"`},
	} {
		if strings.Count(program, change[0]) != 1 {
			t.Fatalf("the example has not one %s", change[0])
		}
		program = strings.Replace(program, change[0], change[1], 1)
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(deadline(t), "go", "run", file)
	cmd.Dir = "../.." // whose module it imports
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "TONGS_API_TOKEN="+e.token)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil || string(out) != "Linux\n(status 0)\n" {
		t.Errorf("%q, %v\n%s", out, err, complaint.String())
	}
}
