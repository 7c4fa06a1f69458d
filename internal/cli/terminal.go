package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tongs-dev/tongs/internal/opencode"
)

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && file.Name() != os.DevNull
}

// progress prints how far obtaining OpenCode has come: a bar on a terminal, plain lines elsewhere
// (one for each phase and each quarter).
type progress struct {
	w       io.Writer
	bar     bool
	phase   opencode.Phase
	quarter int64
}

func newProgress(w io.Writer) *progress { return &progress{w: w, bar: isTerminal(w)} }

var phases = map[opencode.Phase]string{
	opencode.PhaseWait:     "waiting for another tongs that is fetching OpenCode",
	opencode.PhaseDownload: "fetching OpenCode " + opencode.Version,
	opencode.PhaseUnpack:   "unpacking OpenCode",
}

func (p *progress) report(now opencode.Progress) {
	text := phases[now.Phase]
	fresh := now.Phase != p.phase
	p.phase = now.Phase
	if now.Phase == opencode.PhaseDone {
		if p.bar {
			fmt.Fprint(p.w, "\r\x1b[K")
		}
		return
	}
	if now.From != "" {
		text += " from " + now.From
	}
	if p.bar {
		const width = 30
		line := text
		if now.Total > 0 {
			full := int(now.Done * width / now.Total)
			line = fmt.Sprintf("%s  %s%s %3d%%  %s of %s", text, strings.Repeat("█", full), strings.Repeat("░", width-full),
				now.Done*100/now.Total, size(now.Done), size(now.Total))
		} else if now.Done > 0 {
			line = fmt.Sprintf("%s  %s", text, size(now.Done))
		}
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		return
	}
	if now.Total == 0 {
		if fresh {
			fmt.Fprintln(p.w, text)
		}
		return
	}
	if quarter := now.Done * 4 / now.Total; fresh || quarter != p.quarter {
		p.quarter = quarter
		fmt.Fprintf(p.w, "%s: %s of %s\n", text, size(now.Done), size(now.Total))
	}
}

// size writes a number of bytes for people.
func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
