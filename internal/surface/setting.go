package surface

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

var settingMethods = capnweb.Methods{
	"id":             capnweb.Getter((*box).id),
	"info":           guarded("sandbox.info", "", (*box).info),
	"setEnvVars":     guarded("session.env", "", (*box).setEnvVars),
	"setSandboxName": guarded("sandbox.name", "name", (*box).setSandboxName),
	"setKeepAlive":   guarded("sandbox.keepAlive", "", (*box).setKeepAlive),
	"destroy":        guarded("sandbox.destroy", "", (*box).destroy),
}

func (b *box) id() string { return b.opts.Name }

func (b *box) info(ctx context.Context) (*sandbox.GuestInfo, error) { return b.Info(ctx) }

// setEnvVars sets variables for all commands that are started later, of the session where it is one's; null or undefined unsets one.
func (b *box) setEnvVars(ctx context.Context, env map[string]*string) error {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return invalid("set variables", clipped(name)+" is no name of a variable", "")
		}
		if v := env[name]; v != nil && strings.ContainsRune(*v, 0) {
			return invalid("set variables", "the value of "+clipped(name)+" contains a NUL", "")
		}
	}
	if b.shell == nil {
		return b.state.setEnv(env)
	}
	set, unset := make(map[string]string), []string(nil)
	for name, v := range env {
		if v == nil {
			unset = append(unset, name)
		} else {
			set[name] = *v
		}
	}
	return b.shell.SetEnv(ctx, set, unset...)
}

// setSandboxName agrees with the name that the sandbox has: names are given when it is created.
func (b *box) setSandboxName(name string) error {
	if name == b.opts.Name {
		return nil
	}
	return sandbox.Errf(sandbox.CodeNotSupported, "name sandbox", "a sandbox's name is given when it is created", "create one with this name")
}

// setKeepAlive changes nothing: a sandbox is kept until it is destroyed, asked to or not.
func (b *box) setKeepAlive(_ bool) error { return nil }

func (b *box) destroy(ctx context.Context) error {
	if b.opts.Destroy == nil {
		return sandbox.Errf(sandbox.CodePermissionDenied, "destroy", "a sandbox cannot be destroyed through this connection", "delete its session, or use `tongs sandbox rm`")
	}
	return b.opts.Destroy(ctx)
}
