package opencode

import (
	"debug/elf"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/cpu"
)

// Version is the release of OpenCode that this version of Tongs is built for
// and tested with.
const Version = "1.18.33"

// Package is one of the npm packages that carry an OpenCode binary for one
// platform, pinned to one content.
type Package struct {
	Name      string // npm package name, e.g. "opencode-linux-x64"
	Version   string // exact version, e.g. "1.18.33"
	Integrity string // digest of the tarball in SRI form: "sha512-<base64>" or "sha256-<base64>"
	Size      int64  // bytes of the tarball; 0 if unknown

	// BinarySize is the size in bytes of the unpacked binary; 0 if unknown.
	BinarySize int64
}

// Platform describes a machine as far as the choice of a binary depends on it.
type Platform struct {
	OS   string // runtime.GOOS
	Arch string // runtime.GOARCH
	Musl bool   // the C library is musl and not glibc
	AVX2 bool   // the CPU has AVX2; only looked at for amd64
}

// packages holds the pinned packages of [Version] by platform key. The x64
// digests were computed from the tarballs that registry.npmjs.org serves. The
// arm64 digest is one recorded publicly by another project, whose digest for
// x64 equals ours. There is none for arm64 with musl yet: PackageFor says so.
var packages = map[string]Package{
	"linux/amd64": {
		Name:       "opencode-linux-x64",
		Integrity:  "sha512-q/t/3p2CTxOT9y2kvjesb/LZab2+1eqlhhWA02Be6mjTtmYtNBcBsrI5yDo4Fw7ZSPBW2oyMIGMNRqiKQjiAWw==",
		Size:       60_275_143,
		BinarySize: 185_354_368,
	},
	"linux/amd64/baseline": {
		Name:       "opencode-linux-x64-baseline",
		Integrity:  "sha512-1KQGBiiDDeL/VHHbHkOvvFo8Jr97WT5+C1tear+p7IcDTnXgVHXqIjU4O4jM4mHQzykTP2i884FCnW5LDa+zCA==",
		Size:       60_275_131,
		BinarySize: 185_354_368,
	},
	"linux/amd64/musl": {
		Name:       "opencode-linux-x64-musl",
		Integrity:  "sha512-5HEFrYzg1N9hEYc/II7LlgGvHrsnMyVMk9U4ZW/hCKzZdrVFRAdEZ5pNV2Ud49xvOnwb2Zjp/ayLa1alxp+l4A==",
		Size:       62_630_713,
		BinarySize: 195_770_656,
	},
	"linux/amd64/baseline/musl": {
		Name:       "opencode-linux-x64-baseline-musl",
		Integrity:  "sha512-G/PAs06QCX3e7D/47I13bxzgTuH5mDqGVL7PSR/148DshvrZpLgzn3lBD5XoZoCf00yGA9N7J/RCPIAhaO/QoA==",
		Size:       62_630_704,
		BinarySize: 195_770_656,
	},
	"linux/arm64": {
		Name:      "opencode-linux-arm64",
		Integrity: "sha256-GW0MrxwFU/zRLvFf8UQ56n5rx6TofqUji8tXu+blS5M=",
		Size:      60_060_899,
	},
}

// HostPlatform describes the machine this process runs on.
func HostPlatform() Platform {
	return Platform{
		OS:   runtime.GOOS,
		Arch: runtime.GOARCH,
		Musl: hasMusl("/bin/sh", "/"),
		AVX2: cpu.X86.HasAVX2,
	}
}

// PackageFor returns the pinned package of [Version] for a platform. The error
// (code UNSUPPORTED_PLATFORM) says which platforms there are.
func PackageFor(p Platform) (Package, error) {
	key := p.OS + "/" + p.Arch
	if p.Arch == "amd64" && !p.AVX2 {
		key += "/baseline"
	}
	if p.Musl {
		key += "/musl"
	}
	pkg, ok := packages[key]
	if !ok {
		return Package{}, &ObtainError{
			Code:    CodeUnsupportedPlatform,
			Op:      "choose the OpenCode package",
			Message: "no pinned OpenCode " + Version + " for " + key,
			Hint:    "install OpenCode yourself and name it with --opencode-binary; downloads are known for linux on amd64 (glibc, musl) and arm64 (glibc)",
		}
	}
	pkg.Version = Version
	return pkg, nil
}

// hasMusl tells whether programs of the file system at root use musl: by the
// interpreter of the shell, or, when that says nothing (a static shell), by
// which loader is installed.
func hasMusl(shell, root string) bool {
	if interp := interpreter(shell); interp != "" {
		return strings.Contains(filepath.Base(interp), "musl")
	}
	glibc, _ := filepath.Glob(filepath.Join(root, "lib*", "ld-linux*.so.*"))
	musl, _ := filepath.Glob(filepath.Join(root, "lib", "ld-musl-*.so.1"))
	return len(glibc) == 0 && len(musl) > 0
}

// interpreter returns the dynamic loader that an ELF file names, "" if there
// is none or the file cannot be read.
func interpreter(path string) string {
	f, err := elf.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return ""
		}
		return strings.TrimRight(string(b), "\x00")
	}
	return ""
}
