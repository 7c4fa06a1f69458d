package main

// The modules whose files are read.
import (
	_ "github.com/moby/profiles/seccomp"
	_ "golang.org/x/sys/unix"
)
