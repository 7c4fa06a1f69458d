package drivertest

import (
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// testRoot looks at what the root of a sandbox can do, and that there is none where nobody asked for it.
func testRoot(t *testing.T, s Suite) {
	b := newBed(t, s)
	b.create(t, b.spec("without"))
	ask := sandbox.ProcessSpec{Argv: []string{"id", "-u"}, User: "root"}
	_, err := b.connect(t, "without").Exec(t.Context(), sandbox.ExecSpec{ProcessSpec: ask})
	wantCode(t, err, sandbox.CodePermissionDenied)

	spec := b.spec("with")
	spec.Root = true
	if reason := s.noRoot(); reason != "" {
		err := b.Create(t.Context(), spec)
		wantCode(t, err, driver.CodeUnsupported)
		if err != nil && !strings.Contains(err.Error(), "subuids") {
			t.Errorf("the error names no cure: %v", err)
		}
		t.Skip(reason)
	}
	b.create(t, spec)
	check := func(t *testing.T) {
		c := b.connect(t, "with")
		if got := output(t, c, "id -u; grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | grep -v 0000000000000000; echo x > mine && chmod 600 mine; nohup sleep 4321 >/dev/null 2>&1 & echo $! > pid"); got != "1000" {
			t.Errorf("the user: %q", got)
		}
		for script, want := range map[string]string{
			"id -u; id -g; echo $HOME": "0\n0\n/root",
			"pwd; cat mine":            "/home/user/project\nx",
			"touch ~/made /etc/made /opt/made && stat -c %U ~/made /etc/made /opt/made":               "root\nroot\nroot",
			"touch given && chown user given && stat -c %U given":                                     "user",
			"kill $(cat pid) && echo killed":                                                          "killed",
			"setpriv --reuid 1000 --regid 1000 --clear-groups id -u":                                  "1000",
			"perl -MSocket -e 'socket(S, 2, 1, 0) && bind(S, sockaddr_in(80, INADDR_ANY)) or die $!'": "",
		} {
			if got := outputAs(t, c, "root", script); got != want {
				t.Errorf("%s\ngot  %q\nwant %q", script, got, want)
			}
		}
	}
	check(t)
	must(t, b.Stop(t.Context(), "with"))
	must(t, b.Start(t.Context(), "with"))
	t.Run("again", check)
}
