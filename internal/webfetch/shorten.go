package webfetch

import (
	"context"
	"fmt"
	"strings"
)

// Bounds of an answer: OpenCode's own for a tool's output.
const (
	maxLines = 2000
	maxText  = 51200
)

// noteRoom is kept free for the note that the text was cut.
const noteRoom = 512

// shorten cuts a text that is too long for an answer, and keeps it whole where the note says.
func shorten(ctx context.Context, keep func(context.Context, string) (string, error), text string) (string, bool) {
	lines := strings.Count(text, "\n") + 1
	if lines <= maxLines && len(text) <= maxText {
		return text, false
	}
	end, n := 0, 0
	for ; n < maxLines-8 && end < len(text); n++ {
		next := len(text)
		if at := strings.IndexByte(text[end:], '\n'); at >= 0 {
			next = end + at + 1
		}
		if next > maxText-noteRoom {
			break
		}
		end = next
	}
	left := fmt.Sprintf("...%d lines truncated...", lines-n)
	if n == 0 { // one line that is too long
		end = maxText - noteRoom
		for end > 0 && text[end]&0xC0 == 0x80 {
			end--
		}
		left = fmt.Sprintf("...%d bytes truncated...", len(text)-end)
	}
	note := "The rest could not be kept; fetch a smaller page, or save it with bash."
	if keep != nil {
		if path, err := keep(ctx, text); err == nil {
			note = "The tool call succeeded but the output was truncated. Full output saved to: " + path + "\nUse Grep to search the full content or Read with offset/limit to view specific sections."
		}
	}
	return strings.TrimSuffix(text[:end], "\n") + "\n\n" + left + "\n\n" + note, true
}
