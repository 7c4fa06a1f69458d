package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// etcAllowed are the parts of the host's /etc that programs need and that hold no secrets. What a
// pattern names is taken over with everything below it that everybody may read. Everything else of
// /etc stays outside.
var etcAllowed = []string{
	// certificates
	"ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "pki/tls/certs", "pki/tls/cert.pem", "pki/tls/openssl.cnf",
	"pki/ca-trust/extracted", "ca-certificates/extracted", "crypto-policies/back-ends",
	// programs and their libraries
	"alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld-musl-*.path", "java-*-openjdk", "perl", "python3", "python3.*", "fonts",
	// names and places
	"localtime", "timezone", "os-release", "debian_version", "redhat-release", "alpine-release", "arch-release", "lsb-release",
	"protocols", "services", "rpc", "ethertypes", "networks", "host.conf", "gai.conf",
	"mime.types", "magic", "magic.mime", "inputrc", "locale.alias", "locale.conf", "terminfo", "login.defs",
}

// etcOwn are the files of /etc that are ours.
var etcOwn = map[string]string{
	"passwd": `root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
user:x:1000:1000:user:/home/user:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`,
	"group": `root:x:0:
daemon:x:1:
bin:x:2:
tty:x:5:
user:x:1000:
nogroup:x:65534:
`,
	"hostname": "sandbox\n",
	"hosts": `127.0.0.1	localhost sandbox
::1	localhost ip6-localhost ip6-loopback
`,
	"resolv.conf": `# Names are resolved by whatever listens here; where nothing does, they fail at once.
nameserver 127.0.0.1
options timeout:2 attempts:1
`,
	"nsswitch.conf": `passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
`,
	"profile": `# PATH comes from the sandbox; a login shell keeps it.
umask 022
if [ -n "${BASH_VERSION-}" ] && [ -r /etc/bash.bashrc ]; then . /etc/bash.bashrc; fi
`,
	"bash.bashrc": `case $- in *i*) PS1='\u@\h:\w\$ ' ;; esac
`,
	"shells": "/bin/sh\n/bin/bash\n",
	"fstab":  "",
}

// addEtc adds our own /etc and what is allowed of the host's.
func (t *tree) addEtc(etc string) error {
	allowed := make([]string, 0, len(etcAllowed))
	for _, pattern := range etcAllowed {
		found, err := filepath.Glob(filepath.Join(etc, pattern))
		if err != nil {
			return fmt.Errorf("image: pattern %s: %w", pattern, err)
		}
		allowed = append(allowed, found...)
	}
	for _, top := range allowed {
		err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
					return nil // what we can't read nobody inside could, and what just went away is gone
				}
				return err
			}
			return t.takeOver(etc, p, allowed)
		})
		if err != nil {
			return fmt.Errorf("image: read %s: %w", top, err)
		}
	}
	for name, data := range etcOwn {
		t.text("/etc/"+name, data, 0o644)
	}
	t.link("/etc/mtab", "/proc/self/mounts")
	return nil
}

// takeOver adds one directory, file or link of the host's /etc.
func (t *tree) takeOver(etc, p string, allowed []string) error {
	if len(t.order) >= maxEntries {
		return fmt.Errorf("more than %d entries in the parts of %s that are taken over", maxEntries, etc)
	}
	rel, err := filepath.Rel(etc, p)
	if err != nil {
		return err
	}
	inside := filepath.Join("/etc", rel)
	info, err := os.Lstat(p)
	if err != nil {
		return nil
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		if mode.Perm()&0o005 != 0o005 {
			return filepath.SkipDir
		}
		t.dir(inside, 0o755)
	case mode.IsRegular():
		return t.takeFile(inside, p, info)
	case mode&fs.ModeSymlink != 0:
		to, err := os.Readlink(p)
		if err != nil {
			return nil
		}
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			return nil // it leads nowhere outside, so it would inside
		}
		if underAny(real, t.visible) || underAny(real, allowed) {
			t.link(inside, strings.Replace(to, etc+"/", "/etc/", 1))
			return nil
		}
		if info, err := os.Stat(real); err == nil && info.Mode().IsRegular() && under(real, etc) {
			return t.takeFile(inside, real, info)
		}
	}
	return nil
}

func (t *tree) takeFile(inside, from string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o004 == 0 || info.Size() > maxFileBytes {
		return nil
	}
	if t.bytes += info.Size(); t.bytes > maxAllBytes {
		return fmt.Errorf("more than %d MiB in the parts of /etc that are taken over", maxAllBytes>>20)
	}
	t.copy(inside, from, info)
	return nil
}
