package remote

import (
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// Path is the endpoint's path for Cap'n Web.
const Path = "/rpc"

// ProtocolPrefix is what a browser puts before the token in the WebSocket subprotocol
// that it offers, since it cannot send an Authorization header.
const ProtocolPrefix = "tongs.bearer."

// Version is what an endpoint says of itself.
type Version struct {
	Tongs string `json:"tongs"` // the program's version
	API   int    `json:"api"`   // of the endpoint's objects: 1
	// Sandbox is the id of the one sandbox that the token is good for; "" for all.
	Sandbox string `json:"sandbox,omitempty"`
}

// Info describes a sandbox.
type Info struct {
	ID      string            `json:"id"`
	Name    string            `json:"name,omitempty"`    // of one that somebody made
	Session string            `json:"session,omitempty"` // OpenCode's root session that it belongs to
	Title   string            `json:"title,omitempty"`   // of that session, where it is known
	State   string            `json:"state"`             // running, stopped, damaged
	Damage  string            `json:"damage,omitempty"`  // why it cannot be started
	Created time.Time         `json:"created"`
	Image   string            `json:"image"`
	Project string            `json:"project,omitempty"` // the id of the project's files that it was made with
	Labels  map[string]string `json:"labels,omitempty"`
	Driver  string            `json:"driver,omitempty"` // what runs it: linux, gvisor, runc, crun
	// Checkpoint is when the one was made from which it goes on when it is used next; zero is none.
	Checkpoint time.Time `json:"checkpoint,omitzero"`
	// Guest is what its guest says; only Inspect asks for it, and only while it runs.
	Guest *sandbox.GuestInfo `json:"guest,omitempty"`
}

// CreateOptions say how to make a sandbox. The zero value is a sandbox like a
// session's, with a name that is made up.
type CreateOptions struct {
	// Name is 1 to 40 of a-z, 0-9 and '-', with no '-' at either end.
	Name string `json:"name,omitempty"`
	// Reuse gives the sandbox of that name if there is one, whatever else is asked
	// for; without it that is ALREADY_EXISTS.
	Reuse bool `json:"reuse,omitempty"`
	// Image is what it is made from: "host", the host's own toolchain, or an image such as
	// debian:12, which is pulled when the host doesn't have it. "" is the configured one.
	Image string `json:"image,omitempty"`
	// Project is the id of the files of a project that it starts with: those that `tongs sandbox create --project`
	// has put into the home, or that another sandbox has. A directory cannot be named here: whoever has a token
	// would read this machine's files with it.
	Project string `json:"project,omitempty"`
	// Labels are kept with the sandbox: 32 of 63 bytes, with values of 256.
	Labels map[string]string `json:"labels,omitempty"`
	// Env is added to the environment of its commands.
	Env map[string]string `json:"env,omitempty"`
	// Driver is what runs it: "linux" (namespaces of the host's kernel), "gvisor" (a kernel of its own), "runc",
	// "crun"; "" is the configured one. MACHINE_NOT_SUPPORTED where it isn't installed.
	Driver string `json:"driver,omitempty"`
	// Root lets its commands run as its root too (sandbox.ProcessSpec.User "root"),
	// with which software is installed; it is nobody outside. The tools of a
	// model don't use it.
	Root bool `json:"root,omitempty"`
	// What its commands may use together; 0 is the configured default.
	MemoryBytes int64   `json:"memoryBytes,omitempty"`
	Pids        int64   `json:"pids,omitempty"`
	CPUs        float64 `json:"cpus,omitempty"`
	TmpBytes    int64   `json:"tmpBytes,omitempty"`
	DiskBytes   int64   `json:"diskBytes,omitempty"` // MACHINE_NOT_SUPPORTED where it can't be held to that
	DiskFiles   int64   `json:"diskFiles,omitempty"`
}

// ListOptions say which sandboxes to list.
type ListOptions struct {
	// Limit is the most of one page: default 100, at most 1,000. Cursor is Page.Next
	// of the page before.
	Limit  int    `json:"limit,omitempty"`
	Cursor string `json:"cursor,omitempty"`
	// Labels are those that a sandbox must have to be listed.
	Labels map[string]string `json:"labels,omitempty"`
}

// Page is a part of the list of sandboxes, which are in the order in which they
// were made.
type Page struct {
	Sandboxes []Info `json:"sandboxes"`
	Next      string `json:"next,omitempty"` // "" on the last page
}

// TokenOptions say what a token is good for.
type TokenOptions struct {
	// Sandbox is the one that the token gives: a name, an id, a session, or how one begins.
	Sandbox string `json:"sandbox"`
	// Expires is when the token ends. Default in 24 hours, at most in 366 days.
	Expires time.Time `json:"expires,omitzero"`
	// Note says what it is for; at most 200 bytes.
	Note string `json:"note,omitempty"`
}

// TokenInfo describes a token. Its text is given out once, by IssueToken.
type TokenInfo struct {
	ID      string    `json:"id"`
	Token   string    `json:"token,omitempty"`
	Sandbox string    `json:"sandbox"` // id
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Note    string    `json:"note,omitempty"`
}

// Attachment is what the object `native` of a sandbox answers to attach.
type Attachment struct {
	Incarnation string `json:"incarnation"`
	Sandbox     string `json:"sandbox"` // id
}

// RawStreams stand for a raw connection of the guest's protocol: what is written to
// Writable goes to the guest, and closing it ends that direction; Readable is what
// the guest sends. Giving one of them up before its end breaks the connection.
type RawStreams struct {
	Readable *capnweb.ReadableStream `json:"readable"`
	Writable *capnweb.WritableStream `json:"writable"`
}
