package image

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// certificateVars name a file or a directory of certificates that programs trust. A machine whose TLS
// goes through a CA of its own has them set, and programs inside need them as much.
var certificateVars = []string{
	"SSL_CERT_FILE", "SSL_CERT_DIR", "NIX_SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
	"GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "PIP_CERT", "AWS_CA_BUNDLE", "HTTPLIB2_CA_CERTS", "CARGO_HTTP_CAINFO", "DENO_CERT",
	"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
}

// environment is what commands start with. Nothing else of the host's environment gets in.
func environment(cfg HostConfig, t *tree, found tools) []string {
	env := []string{"PATH=" + strings.Join(found.path, ":"), "LANG=C.UTF-8"}
	env = append(env, found.env...)
	copies := 0
	for _, name := range certificateVars {
		value := lookup(cfg.Environ, name)
		if !filepath.IsAbs(value) {
			continue
		}
		inside := filepath.Clean(value)
		if !t.has(inside) {
			info, err := os.Stat(value)
			if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o004 == 0 || info.Size() > maxFileBytes {
				continue
			}
			copies++
			inside = fmt.Sprintf("/etc/ssl/tongs/%d-%s", copies, filepath.Base(value))
			t.copy(inside, value, info)
		}
		env = append(env, name+"="+inside)
	}
	return env
}

// has says whether a path of the host is there at the same path inside.
func (t *tree) has(p string) bool {
	if _, ok := t.entries[p]; ok {
		return true
	}
	if !underAny(p, t.visible) {
		return false
	}
	info, err := os.Stat(p)
	return err == nil && info.Mode().Perm()&fs.FileMode(0o004) != 0
}
