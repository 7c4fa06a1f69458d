package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// verified is what `tongs verify --json` prints.
type verified struct {
	Families []string `json:"families"`
	Rows     []struct {
		Group string `json:"group"`
		Door  string `json:"door"`
		Cells []struct {
			Family   string `json:"family"`
			Result   string `json:"result"`
			Evidence string `json:"evidence"`
		} `json:"cells"`
	} `json:"rows"`
}

// TestVerify drives every door with every family of models: none escapes, none is broken.
func TestVerify(t *testing.T) {
	needSandboxes(t)
	home := newHome(t)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "tongs"), "verify", "--json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &stdout, &stderr, environ(home)
	err := cmd.Run()
	var report verified
	if decoded := json.Unmarshal(stdout.Bytes(), &report); decoded != nil {
		t.Fatalf("%v, %v\n%s%s", err, decoded, stdout.String(), stderr.String())
	}
	cells, inSandbox := 0, 0
	for _, row := range report.Rows {
		if len(row.Cells) == 0 {
			t.Errorf("%s was not driven", row.Door)
		}
		for _, c := range row.Cells {
			cells++
			switch c.Result {
			case "sandbox":
				inSandbox++
			case "refused":
			default:
				t.Errorf("%s (%s): %s: %s", row.Door, c.Family, c.Result, c.Evidence)
			}
		}
	}
	if err != nil {
		t.Errorf("tongs verify: %v\n%s", err, stderr.String())
	}
	if len(report.Families) != 6 || len(report.Rows) < 130 || inSandbox < 80 {
		t.Errorf("%d families, %d doors, %d checks, %d of them in the sandbox", len(report.Families), len(report.Rows), cells, inSandbox)
	}
}
