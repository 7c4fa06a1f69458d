module github.com/tongs-dev/tongs/internal/driver/linux/boot/profile

go 1.26.0

require (
	github.com/moby/profiles/seccomp v0.2.4
	golang.org/x/sys v0.49.0
)

require github.com/opencontainers/runtime-spec v1.2.1 // indirect
