//go:build linux

package linux

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestRangesAreExclusive takes ranges from two allocators of one home at once, as two processes would.
func TestRangesAreExclusive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := make(map[uint32]string)
	for p := range 2 {
		r, err := openRanges(dir, []byte{1, 2, 3, 4})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			wg.Go(func() {
				id := fmt.Sprintf("%d-%d", p, i)
				base, err := r.take(id)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if other, ok := taken[base]; ok || base%rangeSize != 0 || base < firstSlot*rangeSize {
					t.Errorf("%s got %d, which is %q's", id, base, other)
				}
				taken[base] = id
			})
		}
	}
	wg.Wait()
	r, err := openRanges(dir, []byte{1, 2, 3, 4})
	if err != nil {
		t.Fatal(err)
	}
	owners, err := r.owners()
	if err != nil || len(owners) != 100 {
		t.Fatalf("%d owners, %v", len(owners), err)
	}
	for base, id := range taken {
		if owners[base] != id {
			t.Errorf("%d belongs to %q, not %q", base, owners[base], id)
		}
		if err := r.release("another", base); err != nil {
			t.Error(err)
		}
	}
	if owners, err = r.owners(); err != nil || len(owners) != 100 {
		t.Errorf("another's name gave ranges back: %d left, %v", len(owners), err)
	}
	for base, id := range taken {
		if err := r.release(id, base); err != nil {
			t.Error(err)
		}
	}
	if owners, err = r.owners(); err != nil || len(owners) != 0 {
		t.Errorf("%d left, %v", len(owners), err)
	}
}

func TestRangesAvoidAccounts(t *testing.T) {
	t.Parallel()
	r := &idRanges{taken: make(map[int]bool)}
	file := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(file, []byte("a:589824:65536\nb:700000:200000\nbroken\nc:x:y\nd:1:18446744073709551615\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.avoid(file, 1, 2); err != nil {
		t.Fatal(err)
	}
	for slot, want := range map[int]bool{8: false, 9: true, 10: true, 11: true, 12: true, 13: true, 14: false} {
		if r.taken[slot] != want {
			t.Errorf("slot %d: %t", slot, r.taken[slot])
		}
	}
	if err := r.avoid(filepath.Join(t.TempDir(), "none"), 1, 2); err != nil {
		t.Error(err)
	}
}

// TestIdentity: a record of a process that isn't that process any more is nobody.
func TestIdentity(t *testing.T) {
	t.Parallel()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	pid := os.Getpid()
	start, ended, err := startTime(pid)
	if err != nil || ended {
		t.Fatalf("own start: %d, %t, %v", start, ended, err)
	}
	me := guestRecord{PID: pid, Start: start, Boot: boot}
	p, err := find(me)
	if err != nil || p == nil {
		t.Fatalf("this process isn't found: %v", err)
	}
	p.close()
	for name, g := range map[string]guestRecord{
		"another start": {PID: pid, Start: start + 1, Boot: boot},
		"another boot":  {PID: pid, Start: start, Boot: "x"},
		"no process":    {PID: 1 << 22, Start: start, Boot: boot},
	} {
		if p, err := find(g); err != nil || p != nil {
			t.Errorf("%s: %v, %v", name, p, err)
		}
		if alive(g, boot) {
			t.Errorf("%s is alive", name)
		}
	}
}
