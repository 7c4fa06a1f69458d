package guest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/guest"
)

func TestBoot(t *testing.T) {
	t.Parallel()
	b, err := guest.ReadBoot(strings.NewReader(`{"setup":{"a":[1]},"guest":{"listenerFD":3}}`))
	if err != nil {
		t.Fatal(err)
	}
	g := b.Guest
	if string(b.Setup) != `{"a":[1]}` || g.ListenerFD != 3 || g.Project != "/home/user/project" || g.User.UID != 1000 || g.User.GID != 1000 ||
		g.User.Home != "/home/user" || g.LeaseSeconds != 86_400 || g.Limits.Connections != 4096 || g.Limits.Sessions != 64 {
		t.Errorf("%+v", b)
	}
	for _, bad := range []string{
		"", "null x", "[]", "{", `{"guest":{"listenerFd2":3}}`, `{"guest":{}} {}`, `{"unknown":1}`,
		`{"guest":{"project":"relative"}}`, `{"guest":{"outputDir":"x"}}`, `{"guest":{"user":{"home":"x"}}}`, `{"guest":{"env":["novalue"]}}`, `{"guest":{"env":["=x"]}}`,
		`{"guest":{"cgroup":{"version":3}}}`, `{"guest":{"cgroup":{"version":1}}}`, `{"guest":{"cgroup":{"version":2}}}`,
		`{"guest":{"cgroup":{"version":2,"dirFD":5,"meminfoFD":6}}}`, `{"guest":{"cgroup":{"memory":4096,"meminfoFD":6}}}`, `{"guest":{"cgroup":{"version":1,"tasksFDs":[5],"memory":4096,"meminfoFD":6,"usageFD":7}}}`,
		`{"guest":{"listenerFD":"3"}}`, `{"guest":{"user":{"uid":-1}}}`, `{"setup":"` + strings.Repeat("x", guest.MaxBootBytes) + `"}`,
	} {
		if b, err := guest.ReadBoot(strings.NewReader(bad)); err == nil || !strings.HasPrefix(err.Error(), "guest: ") {
			t.Errorf("%.60q gives %+v, %v", bad, b, err)
		}
	}
}

// What was read and is written again is read as the same.
func FuzzBoot(f *testing.F) {
	f.Add([]byte(`{"setup":{"a":[1]},"guest":{"listenerFD":3}}`))
	f.Add([]byte(`{"guest":{"listenerFD":3,"user":{"root":true},"cgroup":{"version":1,"tasksFDs":[5,6],"oomFD":7,"meminfoFD":8,"memory":4096,"usageFD":9,"statFD":10},"env":["A=b"],"limits":{"runs":1}}}`))
	f.Add([]byte(`{"guest":{"env":["novalue"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := guest.ReadBoot(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		b2, err := guest.ReadBoot(bytes.NewReader(again))
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if diff := cmp.Diff(b.Guest, b2.Guest); diff != "" {
			t.Error(diff)
		}
	})
}

// Run says what is wrong with the socket it was given.
func TestRunWithoutSocket(t *testing.T) {
	t.Parallel()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, fd := range []int{-1, 9999} {
		if err := guest.Run(context.Background(), guest.Config{ListenerFD: fd}, log); err == nil || !strings.Contains(err.Error(), "listenerFD") {
			t.Errorf("%d: %v", fd, err)
		}
	}
}
