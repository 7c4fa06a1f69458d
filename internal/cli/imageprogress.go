package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/tongs-dev/tongs/internal/image"
)

// imageProgress shows how far the making of an image is: one line that changes on a terminal, a line for
// each layer and step elsewhere, or JSON.
type imageProgress struct {
	w      io.Writer
	json   *json.Encoder // nil: for people
	bar    bool
	what   string
	layers map[string]image.Progress
	steps  map[string]string // what was said of each layer
	shown  bool
}

func newImageProgress(s *streams, asJSON bool, what string) *imageProgress {
	p := &imageProgress{w: s.stderr, bar: isTerminal(s.stderr), what: printable(what), layers: make(map[string]image.Progress), steps: make(map[string]string)}
	if asJSON {
		p.json = json.NewEncoder(s.stdout)
	}
	return p
}

var imageSteps = map[string]string{"manifest": "asking for it", "download": "downloading", "unpack": "unpacking"}

// report shows one more step.
func (p *imageProgress) report(now image.Progress) {
	if p.w == nil {
		return
	}
	if p.json != nil {
		if p.steps[now.Layer] != now.Step || now.Done == now.Total { // not each of thousands of bits
			p.steps[now.Layer] = now.Step
			_ = p.json.Encode(map[string]image.Progress{"progress": now}) // the image itself is worth an error
		}
		return
	}
	if now.Step == "done" {
		return
	}
	fresh := p.steps[now.Layer] != now.Step
	p.steps[now.Layer] = now.Step
	if p.bar {
		p.layers[now.Layer] = now
		var done, total int64
		for _, l := range p.layers {
			done += l.Done
			total += l.Total
		}
		line := fmt.Sprintf("%s: %s", p.what, imageSteps[now.Step])
		if total > 0 {
			line += fmt.Sprintf("  %d layers, %s of %s", len(p.layers)-1, size(done), size(total))
		}
		p.shown = true
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		return
	}
	switch {
	case !fresh:
	case now.Layer == "":
		fmt.Fprintf(p.w, "%s: %s\n", p.what, imageSteps[now.Step])
	case now.Total > 0:
		fmt.Fprintf(p.w, "%s: layer %s: %s %s\n", p.what, now.Layer, imageSteps[now.Step], size(now.Total))
	default:
		fmt.Fprintf(p.w, "%s: layer %s: %s\n", p.what, now.Layer, imageSteps[now.Step])
	}
}

// end clears the line.
func (p *imageProgress) end() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
