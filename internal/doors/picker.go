package doors

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// above returns the directory that a request names when the project lies below it. The web page
// lets a person choose a project in such directories; the project is all there is in them.
func (d *Doors) above(r *http.Request) (dir string, ok bool) {
	dir = r.URL.Query().Get("directory")
	if dir == "" {
		dir, _ = url.PathUnescape(r.Header.Get("X-Opencode-Directory")) // none, if it cannot be read
	}
	if !path.IsAbs(dir) || strings.ContainsRune(dir, 0) {
		return "", false
	}
	dir = path.Clean(dir)
	return dir, d.below(dir) != ""
}

// below is the way from a directory down to the project: "project" for /home/user. It is empty when the
// directory is not above the project.
func (d *Doors) below(dir string) string {
	way, ok := strings.CutPrefix(d.cfg.Directory, strings.TrimSuffix(dir, "/")+"/")
	if !ok {
		return ""
	}
	return way
}

// listAbove lists a directory above the project: the one directory that leads there.
func (d *Doors) listAbove(dir, p string) []node {
	at := path.Join(dir, p)
	way := d.below(at)
	if way == "" {
		return []node{}
	}
	name, _, _ := strings.Cut(way, "/")
	return []node{{Name: name, Path: strings.TrimPrefix(path.Join(p, name), "/") + "/", Absolute: path.Join(at, name), Type: "directory"}}
}

// namedAbove finds the directories between one above the project and the project.
func (d *Doors) namedAbove(dir, query, kind string, limit int) []entry {
	var all []entry
	if kind != "file" {
		steps := strings.Split(d.below(dir), "/")
		for i := range steps {
			all = append(all, entry{strings.Join(steps[:i+1], "/") + "/", "directory"})
		}
	}
	return best(all, query, limit)
}
