//go:build !linux

package idmap

import (
	"context"
	"errors"
	"io"
	"os"
)

// Task is work in a user namespace, which only Linux has.
type Task struct{ Name string }

// Streams are what a task has as its standard input and output.
type Streams struct {
	Stdin  io.Reader
	Stdout io.Writer
}

// Serve does nothing: no process is started for a task here.
func (Task) Serve(func(context.Context, func(any) error) error) {}

// Run fails.
func (Task) Run(context.Context, Map, any, Streams) error {
	return errors.New("idmap: user namespaces need Linux")
}

func programs() (string, string, error) {
	return "", "", missing("user namespaces need Linux", "", nil)
}

// RemoveAll is os.RemoveAll.
func RemoveAll(_ context.Context, _ Map, dir string) error { return os.RemoveAll(dir) }

// Remove is os.RemoveAll.
func Remove(_ context.Context, dir string) error { return os.RemoveAll(dir) }
