package verify

import (
	"context"
	"strings"
)

// frontDoors are requests of those who have no business here.
func frontDoors() []door {
	// read asks for the sandbox's file as somebody who must not get it.
	read := func(name string, header ...string) door {
		return door{Door: Door{Group: "strangers at the front", Name: name, Quick: true}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			status, text, err := p.call(ctx, "GET", "/file/content?path="+whereFile, nil, append([]string{"Session", g.session}, header...)...)
			if result, _ := p.see(text, g.word); result != "" {
				return escaped("it was given the sandbox's file")
			}
			return p.judge(g, status, text, err)
		}}
	}
	password := read("a client without the password", "Authorization", "")
	inner := password.run
	password.run = func(ctx context.Context, p *probe, g *ground, f Family) Cell {
		if p.t.Password == "" {
			return refused("no password is set: the address is this machine's loopback")
		}
		return inner(ctx, p, g, f)
	}
	return []door{
		read("a page of another origin", "Origin", "https://evil.example"),
		read("a page of another port", "Origin", "http://localhost:1"),
		read("a page that sends no Origin", "Sec-Fetch-Site", "cross-site"),
		read("a name that somebody's DNS leads here", "Host", "evil.example"),
		password,
		{Door: Door{Group: "strangers at the front", Name: "a session id that leads elsewhere", Quick: true}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			for _, id := range []string{"..%2f..%2fapi%2fsession", "ses_x%2f..%2f..%2fapi%2ffs%2fread%2f" + whereFile, "%2e%2e"} {
				status, text, err := p.call(ctx, "GET", "/session/"+id+"/message", nil)
				if cell := p.judge(g, status, text, err); cell.Result != Refused {
					return cell
				}
			}
			return refused("each of them")
		}},
		{Door: Door{Group: "strangers at the front", Name: "a route that OpenCode does not have"}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			var said []string
			for _, route := range []string{"/api/shell", "/api/fs/../fs/read/" + whereFile, "//file/content?path=" + whereFile, "/FILE/content?path=" + whereFile, "/file/content/?path=" + whereFile, "/%66ile/content?path=" + whereFile} {
				status, text, err := p.call(ctx, "GET", route, nil)
				if result, what := p.see(text, g.word); result == Escaped {
					return escaped("%s, by %s", what, route)
				}
				if err != nil {
					return broken("%v", err)
				}
				if status >= 500 {
					return broken("%d %s: %s", status, route, text)
				}
				said = append(said, message(text))
			}
			return refused("%s", strings.Join(said[:1], ""))
		}},
	}
}
