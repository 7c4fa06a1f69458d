package snapshot_test

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkTake measures a state of a project of so many files: the first one, one when nothing has changed, and one
// when a single file has.
func BenchmarkTake(b *testing.B) {
	for _, files := range []int{200, 20_000} {
		fill := func(b *testing.B) *project {
			p := newProject(b)
			for i := range files {
				p.write(fmt.Sprintf("dir%d/sub%d/file%d.go", i%50, i%7, i), fmt.Sprintf("package x // %d\n", i))
			}
			return p
		}
		b.Run(fmt.Sprintf("files=%d/first", files), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				p := fill(b)
				b.StartTimer()
				p.take()
			}
		})
		b.Run(fmt.Sprintf("files=%d/same", files), func(b *testing.B) {
			p := fill(b)
			p.take()
			for b.Loop() {
				p.take()
			}
		})
		b.Run(fmt.Sprintf("files=%d/one", files), func(b *testing.B) {
			p := fill(b)
			p.take()
			for b.Loop() {
				b.StopTimer()
				p.write("dir1/sub1/file1.go", time.Now().String())
				b.StartTimer()
				p.take()
			}
		})
	}
}
