package doors

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// findWithout searches in a sandbox that has no ripgrep: its guest finds the lines, and
// where they begin in their files is counted here.
func (d *Doors) findWithout(a *asked, pattern string) (any, error) {
	found := []match{}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, badInput("the pattern cannot be searched for: "+clip(err.Error(), maxMessage), "send a regular expression")
	}
	res, err := a.box.Grep(a.ctx, pattern, sandbox.GrepOptions{Scope: sandbox.Scope{Path: d.cfg.Directory, Hidden: true, Timeout: d.cfg.Timeout}, Limit: maxMatches})
	if err != nil {
		return nil, err
	}
	for _, m := range res.Matches[:min(len(res.Matches), maxMatches)] {
		abs, err := d.inside(m.Path)
		if err != nil {
			return nil, err // the guest says something else than it was asked
		}
		data, _, err := d.read(a.ctx, a.box, abs, maxContent)
		if err != nil {
			if a.ctx.Err() != nil {
				return nil, a.ctx.Err()
			}
			continue // it is gone meanwhile
		}
		data = bytes.TrimPrefix(data, []byte("\ufeff")) // ripgrep does not count it
		at, line := 0, data
		for n := 1; n < m.Line && at < len(data); n++ {
			end := bytes.IndexByte(data[at:], '\n')
			if end < 0 {
				at = len(data)
				break
			}
			at += end + 1
		}
		line = data[at:]
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			line = line[:end+1]
		}
		one := match{Path: texted{Text: d.relative(abs)}, Lines: texted{Text: shorten(strings.ToValidUTF8(string(line), "\uFFFD"))},
			LineNumber: int64(m.Line), AbsoluteOffset: int64(at), Submatches: []submatch{}}
		for _, span := range re.FindAllIndex(bytes.TrimSuffix(line, []byte("\n")), maxSubmatches) {
			one.Submatches = append(one.Submatches, submatch{Match: texted{Text: clip(string(line[span[0]:span[1]]), maxMatchText)}, Start: int64(span[0]), End: int64(span[1])})
		}
		found = append(found, one)
	}
	return found, nil
}
