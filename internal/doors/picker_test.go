package doors_test

import (
	"net/url"
	"testing"
)

// TestDirectoriesAboveTheProject asks as the web page does when a person chooses a project: with a
// session and without, there is only the way to the project.
func TestDirectoriesAboveTheProject(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "/home/user/project")
	for _, tc := range []struct{ dir, ask, want string }{
		{"/home/user", "/file?path=", `[{"name":"project","path":"project/","absolute":"/home/user/project","type":"directory","ignored":false}]`},
		{"/home", "/file?path=user", `[{"name":"project","path":"user/project/","absolute":"/home/user/project","type":"directory","ignored":false}]`},
		{"/home", "/file?path=root", `[]`},
		{"/home/user", "/file?path=../../etc", `[]`},
		{"/home/user", "/find/file?query=&dirs=true", `["project/"]`},
		{"/home/user", "/find/file?query=&dirs=false", `[]`},
		{"/", "/find/file?query=proj", `["home/user/project/"]`},
		{"/home/user/project", "/file?path=", `[]`},
		{"/home/other", "/file?path=", `[]`},
	} {
		status, body, _ := w.person().do("GET", tc.ask+"&directory="+url.QueryEscape(tc.dir), "")
		if status != 200 || body != tc.want {
			t.Errorf("%s in %s: %d %s, want %s", tc.ask, tc.dir, status, body, tc.want)
		}
	}
}
