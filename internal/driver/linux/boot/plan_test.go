package boot_test

import (
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
)

func TestDecodePlan(t *testing.T) {
	t.Parallel()
	good := boot.Plan{Hostname: "h", TmpBytes: 1, ShmBytes: 2, UID: 3, GID: 4, Mounts: []string{"/dev", "/usr"}}
	data, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	got, err := boot.DecodePlan(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(good, got); diff != "" {
		t.Error(diff)
	}
	for name, bad := range map[string]string{
		"nothing":         ``,
		"no JSON":         `{`,
		"no hostname":     `{}`,
		"long hostname":   `{"hostname":"` + strings.Repeat("x", 65) + `"}`,
		"relative mount":  `{"hostname":"h","mounts":["x"]}`,
		"unclean mount":   `{"hostname":"h","mounts":["/a/../b"]}`,
		"root":            `{"hostname":"h","mounts":["/"]}`,
		"too many mounts": `{"hostname":"h","mounts":["/x"` + strings.Repeat(`,"/x"`, boot.MaxMounts) + `]}`,
		"too large":       `{"hostname":"h"` + strings.Repeat(" ", boot.MaxPlanBytes) + `}`,
	} {
		if p, err := boot.DecodePlan([]byte(bad)); err == nil {
			t.Errorf("%s: taken as %+v", name, p)
		}
	}
}

func TestDecodeAnswer(t *testing.T) {
	t.Parallel()
	if err := boot.DecodeAnswer([]byte(`{"op":"","message":""}`)); err != nil {
		t.Errorf("success is %v", err)
	}
	err := boot.DecodeAnswer([]byte(`{"op":"mount proc","message":"no","errno":1}`))
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "mount proc: no") {
		t.Errorf("got %v", err)
	}
	if err := boot.DecodeAnswer([]byte("x")); err == nil {
		t.Error("nonsense is success")
	}
}

// TestRunOutside calls Run where it must refuse to do anything: in a process that no driver has started.
func TestRunOutside(t *testing.T) {
	t.Parallel()
	for _, setup := range []string{``, `{}`, `{"channelFD":3}`, `{"channelFD":-1}`, `[]`} {
		if _, err := boot.Run(json.RawMessage(setup)); err == nil {
			t.Errorf("%q: no error", setup)
		}
	}
}

func FuzzDecodePlan(f *testing.F) {
	f.Add([]byte(`{"hostname":"h","mounts":["/dev","/usr"],"tmpBytes":-1}`))
	f.Add([]byte(`{"hostname":"h","mounts":["/dev/../x"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := boot.DecodePlan(data)
		if err != nil {
			return
		}
		for _, m := range p.Mounts {
			if !strings.HasPrefix(m, "/") || m == "/" || strings.Contains(m+"/", "/../") || strings.Contains(m, "//") {
				t.Errorf("%q passed", m)
			}
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add([]byte(`{"op":"x","message":"y","errno":5}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := boot.DecodeAnswer(data); err != nil {
			_ = err.Error()
		}
	})
}

func TestDecodePlanExtras(t *testing.T) {
	t.Parallel()
	for plan, ok := range map[string]bool{
		`{"hostname":"h","late":[5,6]}`:                                         true,
		`{"hostname":"h","late":[2]}`:                                           false,
		`{"hostname":"h","late":[64]}`:                                          false,
		`{"hostname":"h","late":[5` + strings.Repeat(",5", boot.MaxLate) + `]}`: false,
		`{"hostname":"h","rootless":{"root":"/a"}}`:                             true,
		`{"hostname":"h","rootless":{}}`:                                        false,
		`{"hostname":"h","rootless":{"root":"a"}}`:                              false,
		`{"hostname":"h","mounts":["/x"],"rootless":{"root":"/a"}}`:             false,
		`{"hostname":"h","rootless":{"layers":{"dir":"/d","images":["/i"],"lower":"l","upper":"u","work":"w"}}}`:                                                true,
		`{"hostname":"h","rootless":{"root":"/a","layers":{"dir":"/d","images":["/i"],"lower":"l","upper":"u","work":"w"}}}`:                                    false,
		`{"hostname":"h","rootless":{"layers":{"dir":"/d","images":["/i"],"lower":"l:m","upper":"u","work":"w"}}}`:                                              false,
		`{"hostname":"h","rootless":{"layers":{"dir":"/d","images":["/i"],"lower":"..","upper":"u","work":"w"}}}`:                                               false,
		`{"hostname":"h","rootless":{"layers":{"dir":"/d","images":["/i","/j"],"lower":"l","upper":"u","work":"w"}}}`:                                           true,
		`{"hostname":"h","rootless":{"layers":{"dir":"/d","images":["/i","j"],"lower":"l","upper":"u","work":"w"}}}`:                                            false,
		`{"hostname":"h","rootless":{"layers":{"dir":"/d","images":[],"lower":"l","upper":"u","work":"w"}}}`:                                                    false,
		`{"hostname":"h","rootless":{"layers":{"dir":"/d","images":["/i"` + strings.Repeat(`,"/i"`, boot.MaxLayers) + `],"lower":"l","upper":"u","work":"w"}}}`: false,
		`{"hostname":"h","rootless":{"root":"/a","binds":[{"source":"/usr","target":"/usr"}]}}`:                                                                 true,
		`{"hostname":"h","rootless":{"root":"/a","binds":[{"source":"/usr","target":"/../x"}]}}`:                                                                false,
	} {
		if _, err := boot.DecodePlan([]byte(plan)); (err == nil) != ok {
			t.Errorf("%s: %v", plan, err)
		}
	}
}
