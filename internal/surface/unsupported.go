package surface

import (
	"context"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// unsupportedMethods are what the SDK has and a sandbox here has not, with the reason.
var unsupportedMethods = func() capnweb.Methods {
	methods := capnweb.Methods{}
	for name, row := range map[string]struct{ reason, hint string }{
		"setSleepAfter":           {"sandboxes do not go to sleep yet: they run until they are stopped or destroyed", "leave it out"},
		"setContainerTimeouts":    {"the times for starting a sandbox are the host's", "leave it out"},
		"setBaseUrl":              {"the base of preview URLs is the host's setting", "exposePort gives the whole URL"},
		"setTransport":            {"there is one transport, Cap'n Web", "leave it out"},
		"setLabels":               {"labels are given when a sandbox is created", "create it with labels"},
		"mountBucket":             {"buckets cannot be mounted yet", "copy the files with a command, or with files.writeStream"},
		"unmountBucket":           {"buckets cannot be mounted yet", ""},
		"createBackup":            {"backups of a sandbox come later", "files.archive gives a directory as a tar stream"},
		"restoreBackup":           {"backups of a sandbox come later", "files.extract takes a tar stream"},
		"getContainerPlacementId": {"sandboxes are on this machine: there is no placement", ""},
		"checkChanges":            {"changes are not kept", "use watch"},
	} {
		methods[name] = guarded("sandbox."+name, "", func(*box, capnweb.Args) error {
			return sandbox.Errf(sandbox.CodeNotSupported, name, row.reason, row.hint)
		})
	}
	methods["desktop"] = capnweb.Getter(func(*box) *capnweb.Target { return desktop })
	return methods
}()

// desktop answers each of its methods in the same way.
var desktop = capnweb.NewDispatcher(noDesktop{}, capnweb.Concurrent())

type noDesktop struct{}

func (noDesktop) Dispatch(_ context.Context, in capnweb.Invocation) (any, error) {
	return nil, asFailure("desktop", nil, sandbox.Errf(sandbox.CodeNotSupported, "desktop", "sandboxes have no desktop", "start an X server and a VNC server as processes, and forward their ports"))
}
