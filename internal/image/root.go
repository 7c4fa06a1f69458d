package image

import "github.com/tongs-dev/tongs/internal/idmap"

// Root is a root file system that a sandbox can start from. It can be written to JSON and read back,
// and stays valid as long as its Lower directories exist.
type Root struct {
	// ID names the content: the same ID is the same tree.
	ID string `json:"id"`

	// Lower are the directories whose union is the tree, the topmost first. Their files are owned by
	// the ids that they have inside the sandbox, and a driver shifts them; or, with Map, by the ids of the
	// host that those are; or, made by an ordinary user without one, all by that user.
	Lower []string `json:"lower"`

	// Map is an ordinary user's, with which the files were written and sandboxes have to run: without
	// rights nobody can shift them. A tree that root has made has none.
	Map idmap.Map `json:"map,omitzero"`

	// Small says that the tree is small enough to be copied for each sandbox where it can't be
	// layered.
	Small bool `json:"small,omitempty"`

	// Binds are parts of the host that belong to the tree. They are bound read-only, nosuid, nodev
	// and never shifted: nothing in them belongs to anybody inside.
	Binds []Bind `json:"binds,omitempty"`

	// Env is what commands start with, as KEY=value.
	Env []string `json:"env,omitempty"`

	// Shell is the path, inside, of the best shell there is: bash, else sh.
	Shell string `json:"shell"`
}

// Bind is a part of the host that is visible in the tree.
type Bind struct {
	Source string `json:"source"` // on the host; a directory or a file
	Target string `json:"target"` // inside; exists in the tree
}
