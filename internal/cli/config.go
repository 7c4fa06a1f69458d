package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/image"
)

// Config is everything that can be configured. It is read from a TOML file whose keys are the
// lower-case names below; environment variables stand above the file, and flags above both.
type Config struct {
	// Home is the directory that holds OpenCode, images, sandboxes and sockets. Default: see
	// homeDefault.
	Home string `toml:"home"`
	// Listen is the address of the HTTP front, host:port. Default 127.0.0.1:8787. An address that is
	// not loopback needs Password.
	Listen string `toml:"listen"`
	// Hosts are further names under which people reach the front, beside localhost and loopback
	// addresses; a request for any other name is refused.
	Hosts []string `toml:"hosts"`
	// PreviewDomain is a domain whose subdomains lead to the front, for preview URLs; with https:// in
	// front when a proxy speaks TLS for it. Default: localhost alone.
	PreviewDomain string `toml:"preview_domain"`
	// Password is what clients must give (user name "opencode"). Default: none on loopback.
	Password string `toml:"password"`
	// APIListen is the address of the public endpoint, host:port; "" is none. Default 127.0.0.1:8788,
	// or a free port when Listen asks for one.
	APIListen *string `toml:"api_listen"`
	// APIOrigins are origins of pages that may use the endpoint, such as http://localhost:5173.
	APIOrigins []string `toml:"api_origins"`
	// OpenCodeBinary is an own OpenCode to run instead of the pinned one.
	OpenCodeBinary string `toml:"opencode_binary"`
	// OpenCodeConfig is an opencode.json (comments allowed) that is merged under what Tongs enforces.
	OpenCodeConfig string `toml:"opencode_config"`
	// Image is what sandboxes are made from: "host" (the default), the host's own toolchain, or an image such
	// as debian:12, which is pulled when it isn't there.
	Image string `toml:"image"`
	// Scripted offers the model tongs/scripted, which follows a script instead of thinking.
	Scripted bool `toml:"scripted"`
	// Lease is how long a sandbox waits for a host before it ends itself. Default 24h.
	Lease Duration `toml:"lease"`
	// Project is a directory with whose files each new session's sandbox starts; it is only read. Default: none, and
	// sessions start with an empty repository. ProjectIgnored takes what its git ignores, too.
	Project        string `toml:"project"`
	ProjectIgnored bool   `toml:"project_ignored"`
	// Keys are API keys by provider, for example openai = "sk-…". The usual environment variables
	// (OPENAI_API_KEY …) stand above them. The file must not be readable by others then.
	Keys map[string]string `toml:"keys"`
	// Driver is what runs sandboxes: "linux" (the default), "gvisor", "runc" or "crun"; docs/drivers.md. The
	// agent host runs by "linux" in any case.
	Driver string `toml:"driver"`
	// Platform is how gVisor catches system calls: "systrap" (the default) or "ptrace".
	Platform string `toml:"gvisor_platform"`
	// Sandbox bounds each session's sandbox; AgentHost bounds the one in which OpenCode runs.
	Sandbox   Sandbox `toml:"sandbox"`
	AgentHost Limits  `toml:"agent_host"`
	Network   Network `toml:"network"`
	// Storage says what disk all sandboxes share.
	Storage Storage `toml:"storage"`
	Log     struct {
		Level  string `toml:"level"`  // debug, info, warn, error
		Format string `toml:"format"` // text, json
	} `toml:"log"`
}

// Sandbox says how each session's sandbox is made, and each that is made by name.
type Sandbox struct {
	Limits
	// Root lets commands run as the sandbox's root too: tongs sandbox exec --user root. Default: no.
	Root bool `toml:"root"`
}

// Limits bound what the commands of one sandbox may use together.
type Limits struct {
	Memory Bytes   `toml:"memory"` // default 2GiB
	Pids   int64   `toml:"pids"`   // processes and threads, default 512 (agent host: 1024)
	CPUs   float64 `toml:"cpus"`   // default 0: no limit
	Tmp    Bytes   `toml:"tmp"`    // size of /tmp, default 1GiB

	// What the sandbox may keep on disk beside its image. Default 10GiB and 1,000,000 files, directories and
	// links where the machine can hold it to that, else no limit (tongs doctor says which). A limit that is set
	// and can't be kept is an error.
	Disk      Bytes `toml:"disk"`
	DiskFiles int64 `toml:"disk_files"`
}

// Storage says what disk the sandboxes have together.
type Storage struct {
	// Size of a file system of their own, $TONGS_HOME/storage.img, which is made, and grown when this grows. It
	// needs root. Default: none, they are on the disk of the home.
	Size Bytes `toml:"size"`
	// Reserve is what must be free on the disk of the sandboxes for another one to be made. Default: a twentieth
	// of it, at most 2GiB.
	Reserve Bytes `toml:"reserve"`
}

func (l Limits) driver() driver.Limits {
	return driver.Limits{MemoryBytes: int64(l.Memory), Pids: l.Pids, CPUs: l.CPUs, TmpBytes: int64(l.Tmp), DiskBytes: int64(l.Disk), DiskFiles: l.DiskFiles}
}

// Network says what programs in sandboxes reach.
type Network struct {
	// Mode is "egress" (the default): hosts that the policy allows, through Tongs; or "none".
	Mode string `toml:"mode"`
	// Allow and Deny are rules such as "example.org", "*.example.org:443", "192.0.2.7:5432"; Deny wins.
	Allow []string `toml:"allow"`
	Deny  []string `toml:"deny"`
	// NoDefaults leaves out the usual package registries and git hosts, and those of this machine's own
	// settings, which are allowed otherwise.
	NoDefaults bool `toml:"no_defaults"`
}

// Duration is a time.Duration written as "90s", "24h" in a configuration file.
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < 0 {
		return fmt.Errorf("%q is not a duration: write 90s, 15m or 24h", text)
	}
	*d = Duration(parsed)
	return nil
}

func (d Duration) std() time.Duration { return time.Duration(d) }

// Bytes is a size written as "512MiB", "2GiB" or a plain number of bytes.
type Bytes int64

// UnmarshalText reads a number with an optional unit KiB, MiB, GiB or TiB.
func (b *Bytes) UnmarshalText(text []byte) error {
	number, shift := string(text), 0
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if rest, ok := strings.CutSuffix(number, unit); ok {
			number, shift = strings.TrimSpace(rest), 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return fmt.Errorf("%q is not a size: write 512MiB, 2GiB or a number of bytes", text)
	}
	*b = Bytes(n << shift)
	return nil
}

// Smaller limits than these leave no room for a shell with a command.
const (
	minPids         = 16
	minMemory Bytes = 64 << 20

	minDisk      Bytes = 16 << 20
	minDiskFiles       = 1000

	minStorage Bytes = 64 << 20
)

const (
	defaultListen = "127.0.0.1:8787"
	defaultAPI    = "127.0.0.1:8788"
	defaultLease  = Duration(24 * time.Hour)
)

// homeDefault is where things are kept when nobody says otherwise: /var/lib/tongs for root,
// $XDG_DATA_HOME/tongs or ~/.local/share/tongs for everybody else.
func homeDefault() string {
	if os.Geteuid() == 0 {
		return "/var/lib/tongs"
	}
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "tongs")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "share", "tongs")
}

// configDefault is the configuration file that is read, if it exists, when none is named.
func configDefault() string {
	if os.Geteuid() == 0 {
		return "/etc/tongs/config.toml"
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "tongs", "config.toml")
}

// load reads the configuration: the file, then the environment and the flags that are already in g.
func (g *Globals) load() (*Config, error) {
	cfg := &Config{}
	path := g.Config
	if path == "" {
		path = configDefault()
	}
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := cfg.decode(path, text); err != nil {
			return nil, usageError{err}
		}
	case g.Config != "" || !errors.Is(err, fs.ErrNotExist):
		return nil, usageError{fmt.Errorf("the configuration file cannot be read: %w (correct that, or name another file with --config)", err)}
	}
	override(&cfg.Home, g.Home)
	override(&cfg.Log.Level, g.LogLevel)
	override(&cfg.Log.Format, g.LogFormat)
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, usageError{err}
	}
	return cfg, nil
}

func override(field *string, value string) {
	if value != "" {
		*field = value
	}
}

// decode reads TOML; a key that does not exist is an error that names its place.
func (c *Config) decode(path string, text []byte) error {
	dec := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	err := dec.Decode(c)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		var keys []string
		for _, e := range unknown.Errors {
			row, _ := e.Position()
			keys = append(keys, fmt.Sprintf("%s (line %d)", strings.Join(e.Key(), "."), row))
		}
		return fmt.Errorf("%s: unknown configuration key %s: remove it or correct its name", path, strings.Join(keys, ", "))
	case errors.As(err, &wrong):
		row, column := wrong.Position()
		return fmt.Errorf("%s:%d:%d: %s (correct it, or name another file with --config)", path, row, column, strings.TrimPrefix(wrong.Error(), "toml: "))
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(c.Keys) > 0 {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("%s holds keys and others can read it: chmod 600 %s", path, path)
		}
	}
	return nil
}

func (c *Config) setDefaults() {
	override(&c.Home, cmpOr(c.Home, homeDefault()))
	override(&c.Listen, cmpOr(c.Listen, defaultListen))
	if c.Lease == 0 {
		c.Lease = defaultLease
	}
}

func cmpOr(value, other string) string {
	if value != "" {
		return value
	}
	return other
}

// validate says what cannot be, naming the key and what is right.
func (c *Config) validate() error {
	if c.Home == "" {
		return errors.New("no home directory is known: set TONGS_HOME or --home")
	}
	abs, err := filepath.Abs(c.Home)
	if err != nil {
		return fmt.Errorf("home %q: %w", c.Home, err)
	}
	c.Home = abs
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen %q is not host:port, such as %s", c.Listen, defaultListen)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("listen %q: the port must be a number from 0 to 65535", c.Listen)
	} else if n == 0 && host == "" {
		return fmt.Errorf("listen %q: name a host or a port", c.Listen)
	}
	if c.Password == "" && !isLoopback(host) {
		return fmt.Errorf("listen %q is reachable from other machines and no password is set: set TONGS_PASSWORD, or listen on 127.0.0.1", c.Listen)
	}
	if err := c.validateAPI(); err != nil {
		return err
	}
	if c.Project != "" {
		if c.Project, err = filepath.Abs(c.Project); err != nil {
			return fmt.Errorf("project %q: %w", c.Project, err)
		}
	}
	if c.Driver != "" && !slices.Contains(driver.Names, c.Driver) {
		return fmt.Errorf("driver %q: use one of %s", c.Driver, strings.Join(driver.Names, ", "))
	}
	switch c.Platform {
	case "", "systrap", "ptrace":
	default:
		return fmt.Errorf("gvisor_platform %q: use systrap or ptrace", c.Platform)
	}
	if c.Image != "" {
		if err := image.CheckReference(c.Image); err != nil {
			return err
		}
	}
	if c.Log.Level != "" {
		if err := new(slog.Level).UnmarshalText([]byte(c.Log.Level)); err != nil {
			return fmt.Errorf("log level %q: use debug, info, warn or error", c.Log.Level)
		}
	}
	switch c.Log.Format {
	case "", "text", "json":
	default:
		return fmt.Errorf("log format %q: use text or json", c.Log.Format)
	}
	if _, err := c.Network.policy(os.LookupEnv); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if size := c.Storage.Size; size != 0 && size < minStorage {
		return fmt.Errorf("storage.size: a file system for sandboxes has at least 64MiB (--storage 50GiB)")
	}
	for name, limits := range map[string]Limits{"sandbox": c.Sandbox.Limits, "agent_host": c.AgentHost} {
		switch {
		case limits.CPUs < 0:
			return fmt.Errorf("%s.cpus: a limit cannot be negative", name)
		case limits.Pids != 0 && limits.Pids < minPids:
			return fmt.Errorf("%s.pids = %d: no tool can run with fewer than %d", name, limits.Pids, minPids)
		case limits.Memory != 0 && limits.Memory < minMemory:
			return fmt.Errorf("%s.memory: no tool can run with less than 64MiB", name)
		case limits.Disk != 0 && limits.Disk < minDisk:
			return fmt.Errorf("%s.disk: no project fits into less than 16MiB", name)
		case limits.DiskFiles < 0 || limits.DiskFiles > 0 && limits.DiskFiles < minDiskFiles:
			return fmt.Errorf("%s.disk_files = %d: no project fits into fewer than %d", name, limits.DiskFiles, minDiskFiles)
		}
	}
	return nil
}

// validateAPI says what cannot be about the endpoint.
func (c *Config) validateAPI() error {
	if c.APIListen != nil && *c.APIListen != "" {
		host, port, err := net.SplitHostPort(*c.APIListen)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil {
			return fmt.Errorf("api_listen %q is not host:port, such as %s (and \"\" is no endpoint)", *c.APIListen, defaultAPI)
		}
		if n == 0 && host == "" {
			return fmt.Errorf("api_listen %q: name a host or a port", *c.APIListen)
		}
	}
	for _, origin := range c.APIOrigins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != origin {
			return fmt.Errorf("api_origins: %q is not an origin such as http://localhost:5173", origin)
		}
	}
	return nil
}

// apiListen is the address of the endpoint; "" is none.
func (c *Config) apiListen() string {
	if c.APIListen != nil {
		return *c.APIListen
	}
	if _, port, err := net.SplitHostPort(c.Listen); err == nil && port == "0" {
		return "127.0.0.1:0"
	}
	return defaultAPI
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
