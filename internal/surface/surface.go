package surface

import (
	"context"
	"sync/atomic"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/shell"
)

// Options say what a surface may do beyond the sandbox's own contract.
type Options struct {
	// Name is what the sandbox is called; the object's id.
	Name string
	// State holds what several surfaces of one sandbox share; see States. Default: one
	// of its own, which ends with it.
	State *State
	// Destroy ends the sandbox with its files. Default: destroy() is refused with
	// PERMISSION_DENIED.
	Destroy func(ctx context.Context) error
	// Previews makes ports reachable from outside. Default: exposePort and its
	// like are refused with NOT_SUPPORTED.
	Previews Previews
}

// box is one surface: of the sandbox, or of one of its sessions.
type box struct {
	*sandbox.Client
	opts    Options
	state   *State
	session string         // "" outside of sessions
	shell   *shell.Session // of a session
	noBash  *atomic.Bool   // the sandbox has only sh
	life    *life
}

// New makes the object that programs get for a sandbox. The client stays the
// caller's and has to live as long as the object.
func New(client *sandbox.Client, opts Options) *capnweb.Target {
	b := &box{Client: client, opts: opts, state: opts.State, noBash: new(atomic.Bool), life: newLife()}
	if b.state == nil {
		b.state = new(State)
		context.AfterFunc(b.life.ctx, b.state.drop)
	}
	b.life.hold()
	return surfaceClass.New(b)
}

// Close is called when nobody holds the object any more. The client stays its owner's.
func (b *box) Close() error {
	b.life.leave()
	return nil
}

var surfaceClass *capnweb.Class[*box]

func init() {
	methods := together(commandMethods, processMethods, fileMethods, previewMethods, fetchMethods, terminalMethods, nativeMethods, sessionMethods, codeMethods, settingMethods, unsupportedMethods)
	surfaceClass = capnweb.NewClass[*box](methods, capnweb.Concurrent())
}
