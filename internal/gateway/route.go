package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// router finds the row of a request.
type router struct {
	byMethod map[string][]*route
	paths    []*route
}

// route is a row made ready for matching.
type route struct {
	row
	segments []string
	handler  http.Handler // answer: set by the caller of New
}

func newRouter(rows []row, answers map[string]http.Handler) (*router, error) {
	rt := &router{byMethod: map[string][]*route{}}
	seen := map[string]bool{}
	for _, r := range rows {
		key := r.method + " " + r.pattern
		if seen[key] {
			return nil, fmt.Errorf("the table has two rows for %s", key)
		}
		seen[key] = true
		one := &route{row: r, segments: strings.Split(r.pattern[1:], "/"), handler: answers[key]}
		if one.handler != nil {
			one.kind, one.page = answer, false
		}
		rt.byMethod[r.method] = append(rt.byMethod[r.method], one)
		rt.paths = append(rt.paths, one)
	}
	for key := range answers {
		if !seen[key] {
			return nil, fmt.Errorf("%q is no row of the table", key)
		}
	}
	return rt, nil
}

// find returns the row for a method and a path, and the values of its parameters.
// known says that the path has a row for another method.
func (rt *router) find(method, path string) (best *route, params map[string]string, known bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	segments := strings.Split(path[1:], "/")
	for _, r := range rt.byMethod[method] {
		if p, ok := r.match(segments); ok && (best == nil || r.closer(best)) {
			best, params = r, p
		}
	}
	if best == nil {
		for _, r := range rt.paths {
			if _, ok := r.match(segments); ok && !r.page {
				return nil, nil, true
			}
		}
	}
	return best, params, false
}

func (r *route) match(segments []string) (map[string]string, bool) {
	var params map[string]string
	for i, want := range r.segments {
		name, isParam := strings.CutPrefix(want, "{")
		name = strings.TrimSuffix(name, "}")
		rest, isRest := strings.CutSuffix(name, "...")
		if isParam && isRest {
			if i >= len(segments) || segments[i] == "" {
				return nil, false
			}
			if params == nil {
				params = map[string]string{}
			}
			params[rest] = strings.Join(segments[i:], "/")
			return params, true
		}
		if i >= len(segments) {
			return nil, false
		}
		switch {
		case isParam && segments[i] != "":
			if params == nil {
				params = map[string]string{}
			}
			params[name] = segments[i]
		case want != segments[i]:
			return nil, false
		}
	}
	return params, len(segments) == len(r.segments)
}

// closer says whether r describes a path more closely than o, both matching it: at
// the first difference a fixed segment beats a parameter, which beats the rest.
func (r *route) closer(o *route) bool {
	for i := range min(len(r.segments), len(o.segments)) {
		if a, b := width(r.segments[i]), width(o.segments[i]); a != b {
			return a < b
		}
	}
	return len(r.segments) > len(o.segments)
}

func width(segment string) int {
	switch {
	case !strings.HasPrefix(segment, "{"):
		return 0
	case !strings.HasSuffix(segment, "...}"):
		return 1
	}
	return 2
}

// cleanPath returns the path of a request as every reader of it understands it. It
// refuses what two readers could read differently: escapes, dot segments, doubled
// slashes, characters that no route has.
func cleanPath(u *url.URL) (string, bool) {
	p := u.Path
	if p == "" || p[0] != '/' || len(p) > 2048 || u.EscapedPath() != p {
		return "", false
	}
	if p == "/" {
		return p, true
	}
	for s := range strings.SplitSeq(p[1:], "/") {
		if s == "" || s == "." || s == ".." {
			return "", false
		}
		for _, c := range []byte(s) {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			case strings.IndexByte("-._~:@=+,", c) >= 0:
			default:
				return "", false
			}
		}
	}
	return p, true
}
