package egress

import "slices"

// DefaultAllow lists what a sandbox reaches if nothing is configured: the usual package registries and
// git hosts.
func DefaultAllow() []string { return slices.Clone(defaultAllow) }

var defaultAllow = []string{
	// JavaScript
	"registry.npmjs.org", "registry.yarnpkg.com", "nodejs.org", "jsr.io", "npm.jsr.io",
	// Python
	"pypi.org", "files.pythonhosted.org",
	// Go
	"proxy.golang.org", "sum.golang.org", "storage.googleapis.com", "go.dev", "dl.google.com",
	// Rust
	"crates.io", "index.crates.io", "static.crates.io", "static.rust-lang.org",
	// Ruby, PHP, Java, .NET, Elixir
	"rubygems.org", "index.rubygems.org", "repo.packagist.org", "packagist.org",
	"repo.maven.apache.org", "repo1.maven.org", "plugins.gradle.org", "services.gradle.org",
	"api.nuget.org", "www.nuget.org", "repo.hex.pm", "builds.hex.pm",
	// Distributions
	"deb.debian.org", "security.debian.org", "archive.ubuntu.com", "security.ubuntu.com", "ports.ubuntu.com",
	"dl-cdn.alpinelinux.org",
	// Git, over HTTPS, SSH and git's own protocol
	"github.com", "github.com:22", "api.github.com", "codeload.github.com", "raw.githubusercontent.com",
	"objects.githubusercontent.com", "release-assets.githubusercontent.com", "github-releases.githubusercontent.com",
	"gitlab.com", "gitlab.com:22", "bitbucket.org", "bitbucket.org:22", "codeberg.org", "codeberg.org:22",
	"git.sr.ht", "git.sr.ht:22",
}
