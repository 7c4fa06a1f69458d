package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Credential is who asks. The zero value is nobody.
type Credential struct {
	Username, Password string
	IdentityToken      string // for the service that gives tokens
}

func (c Credential) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// dockerConfig is what is needed of Docker's config.json.
type dockerConfig struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredHelpers map[string]string     `json:"credHelpers"`
	CredsStore  string                `json:"credsStore"`
}

type dockerAuth struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

const (
	maxDockerConfig = 1 << 20
	maxHelperAnswer = 1 << 20
	helperTimeout   = 15 * time.Second

	dockerHub    = "index.docker.io"
	dockerHubKey = "https://index.docker.io/v1/" // in Docker's configuration
)

// DockerCredentials gives the credentials for a registry that are in the user's docker configuration:
// $DOCKER_CONFIG/config.json, else ~/.docker/config.json, or with a helper that it names. None is no error.
func DockerCredentials(ctx context.Context, registry string) (Credential, error) {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return Credential{}, nil
		}
		dir = filepath.Join(home, ".docker")
	}
	return credentialsIn(ctx, filepath.Join(dir, "config.json"), registry)
}

func credentialsIn(ctx context.Context, file, registry string) (Credential, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Credential{}, nil
	}
	if err != nil {
		return Credential{}, err
	}
	if info.Size() > maxDockerConfig {
		return Credential{}, fmt.Errorf("%s has more than %d bytes", file, maxDockerConfig)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return Credential{}, err
	}
	var cfg dockerConfig
	if err := json.Unmarshal(data, &cfg); err != nil {
		return Credential{}, fmt.Errorf("%s: %w", file, err)
	}
	keys := []string{registry, "https://" + registry, "https://" + registry + "/"}
	if registry == dockerHub {
		keys = []string{dockerHubKey, "docker.io", registry, "https://" + registry}
	}
	for _, key := range keys {
		if helper := cfg.CredHelpers[key]; helper != "" {
			return askHelper(ctx, helper, key)
		}
	}
	for _, key := range keys {
		if a, ok := cfg.Auths[key]; ok {
			c, err := a.credential()
			if err != nil || c != (Credential{}) {
				return c, err
			}
		}
	}
	if cfg.CredsStore != "" {
		return askHelper(ctx, cfg.CredsStore, keys[0])
	}
	return Credential{}, nil
}

func (a dockerAuth) credential() (Credential, error) {
	c := Credential{a.Username, a.Password, a.IdentityToken}
	if a.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(a.Auth)
		user, password, ok := strings.Cut(strings.TrimRight(string(text), "\x00"), ":")
		if err != nil || !ok {
			return Credential{}, errors.New("an \"auth\" in the docker configuration is not base64 of user:password")
		}
		c.Username, c.Password = user, password
	}
	return c, nil
}

var validHelper = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// askHelper runs docker-credential-NAME get, as Docker does. That it knows nothing is no error.
func askHelper(ctx context.Context, helper, server string) (Credential, error) {
	if !validHelper.MatchString(helper) {
		return Credential{}, fmt.Errorf("%.80q can't be the name of a credential helper", helper)
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(server)
	var out bounded
	cmd.Stdout, cmd.Stderr = &out, nil
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return Credential{}, fmt.Errorf("docker-credential-%s did not answer within %s", helper, helperTimeout)
	}
	if err != nil {
		if bytes.Contains(out.Bytes(), []byte("credentials not found")) {
			return Credential{}, nil
		}
		return Credential{}, fmt.Errorf("docker-credential-%s: %w", helper, err)
	}
	var a struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return Credential{}, fmt.Errorf("docker-credential-%s gave no JSON", helper)
	}
	if a.Username == "<token>" {
		return Credential{IdentityToken: a.Secret}, nil
	}
	return Credential{Username: a.Username, Password: a.Secret}, nil
}

// bounded keeps the beginning of what is written.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxHelperAnswer - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
