package webfetch

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/JohannesKaufmann/html-to-markdown/v2/converter"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/base"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/commonmark"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/table"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of the work of a page's conversion to Markdown; a page beyond them is given as plain text.
const (
	maxDepth = 200
	maxNodes = 200_000
)

// hidden are elements whose content is no text of a page.
var hidden = map[atom.Atom]bool{
	atom.Script: true, atom.Style: true, atom.Noscript: true, atom.Iframe: true, atom.Object: true, atom.Embed: true,
}

// plain gives the text of a page, without what is in hidden elements. It reads tokens, so that its work
// and its memory are those of the text, whatever is nested in what.
func plain(ctx context.Context, page string) (string, error) {
	var out strings.Builder
	z := html.NewTokenizer(strings.NewReader(page))
	skip := 0 // depth of elements inside a hidden one
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return "", ctx.Err()
		}
		switch kind := z.Next(); kind {
		case html.ErrorToken:
			if z.Err() != io.EOF {
				return "", z.Err()
			}
			return strings.TrimSpace(out.String()), nil
		case html.TextToken:
			if skip == 0 {
				out.Write(z.Text())
			}
		case html.StartTagToken, html.EndTagToken:
			name, _ := z.TagName()
			tag := atom.Lookup(name)
			switch {
			case void[tag]:
			case kind == html.EndTagToken && skip > 0:
				skip--
			case kind == html.StartTagToken && (skip > 0 || hidden[tag]):
				skip++
			}
		}
	}
}

// void are elements without an end.
var void = map[atom.Atom]bool{
	atom.Area: true, atom.Base: true, atom.Br: true, atom.Col: true, atom.Embed: true, atom.Hr: true, atom.Img: true, atom.Input: true,
	atom.Link: true, atom.Meta: true, atom.Param: true, atom.Source: true, atom.Track: true, atom.Wbr: true,
}

// markdown gives a page as Markdown.
func markdown(ctx context.Context, page string) (text string, err error) {
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil || !bounded(doc) {
		return plain(ctx, page)
	}
	defer func() { // the library is not ours, and the page is anybody's
		if p := recover(); p != nil {
			err = &sandbox.Error{Code: sandbox.CodeInternal, Op: "tool webfetch", Message: "The page cannot be turned into Markdown. Fetch it with format \"text\".", Err: fmt.Errorf("%v", p)}
		}
	}()
	c := converter.NewConverter(converter.WithPlugins(
		base.NewBasePlugin(),
		commonmark.NewCommonmarkPlugin(commonmark.WithHeadingStyle(commonmark.HeadingStyleATX), commonmark.WithHorizontalRule("---"), commonmark.WithBulletListMarker("-")),
		table.NewTablePlugin(),
	))
	out, err := c.ConvertNode(doc, converter.WithContext(ctx))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}

// bounded tells whether a document is small and flat enough to be worked on node by node.
func bounded(doc *html.Node) bool {
	nodes, depth := 0, 0
	for n := doc; n != nil; {
		if nodes++; nodes > maxNodes || depth > maxDepth {
			return false
		}
		switch {
		case n.FirstChild != nil:
			n = n.FirstChild
			depth++
			continue
		}
		for n != nil && n.NextSibling == nil {
			n = n.Parent
			depth--
		}
		if n != nil {
			n = n.NextSibling
		}
	}
	return true
}
