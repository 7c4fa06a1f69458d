// Package remote reaches sandboxes through the public endpoint of a running Tongs:
// Cap'n Web over a WebSocket, with a bearer token. It is the Go SDK's way in.
//
//	box, err := remote.Dial(ctx, "http://127.0.0.1:8788", remote.DialOptions{Token: token, Sandbox: "web"})
//	if err != nil { … }
//	defer box.Close()
//	res, err := box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"uname", "-a"}}})
//
// The [sandbox.Client] that [Dial] gives is the same as the one over a guest's own
// socket, with the same semantics; bulk bytes (output, file bodies, dialled ports)
// travel as Cap'n Web streams. [Connect] gives the whole endpoint: making, listing and
// destroying sandboxes, and tokens that are good for one sandbox only.
//
// What only the host itself may do is not there: handing over listeners, ending the
// guest, and the object that OpenCode's plugin gets. These calls are PERMISSION_DENIED.
package remote
