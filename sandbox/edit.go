package sandbox

// MaxEditBytes is the largest file that Edit and ApplyPatch change, before and
// after. Larger ones are for a command.
const MaxEditBytes = 32 << 20

// EditOptions say how to replace text.
type EditOptions struct {
	All       bool   `json:"all,omitempty"`       // every place, at least one
	IfVersion string `json:"ifVersion,omitempty"` // CodeVersionMismatch unless the file has this version
}

// EditResult is what an edit did.
type EditResult struct {
	Info     FileInfo `json:"info"`
	Replaced int      `json:"replaced"` // places
}

// PatchOptions say how to read a patch.
type PatchOptions struct {
	// Dir is the directory that relative paths in the patch begin at. Default:
	// the project directory. Absolute paths and those that lead out of Dir by
	// ".." are refused.
	Dir string `json:"dir,omitempty"`
	// Strip is how many leading parts are taken off the paths of a unified diff,
	// as patch -p does. Default (0): one where the paths begin with a/ and b/,
	// as git writes them, else none. -1: none.
	Strip int `json:"strip,omitempty"`
}

// PatchResult lists what a patch did, in the patch's order.
type PatchResult struct {
	Files []PatchedFile `json:"files"`
}

// PatchedFile is what a patch did to one file.
type PatchedFile struct {
	Path string `json:"path"` // absolute; after a move the new one
	// Kind is "add", "update", "delete" or "move".
	Kind string `json:"kind"`
	From string `json:"from,omitempty"` // of a move
}

// CopyOptions say how to copy. Copies of files and directories have the permission
// bits (without setuid and setgid) and times of the originals, and belong to the
// sandbox's user; extended attributes are left behind. Holes stay holes, and where
// the file system can, copies share its blocks.
type CopyOptions struct {
	// Overwrite replaces a file or link that is in the way, in one step. A
	// directory in the way stays an error.
	Overwrite bool `json:"overwrite,omitempty"`
}

// CopyResult counts what was copied. FIFOs, sockets and devices below a directory
// are left out and counted.
type CopyResult struct {
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"`
	Symlinks    int64 `json:"symlinks"`
	Skipped     int64 `json:"skipped,omitempty"`
	Bytes       int64 `json:"bytes"` // that the files hold, holes counted
}
