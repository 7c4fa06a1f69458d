package image

// Root is a root file system that a sandbox can start from. It can be written to JSON and read back,
// and stays valid as long as its Lower directories exist.
type Root struct {
	// ID names the content: the same ID is the same tree.
	ID string `json:"id"`

	// Lower are the directories whose union is the tree, the topmost first. Their files are owned by
	// the ids that they have inside the sandbox; a driver shifts them.
	Lower []string `json:"lower"`

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
