package layer

// IDs is how many user and group ids there are in a sandbox. Owners beyond them become nobody.
const (
	IDs    = 1 << 16
	nobody = 65534
)

// Limits bound what one archive may become. Zero is the default.
type Limits struct {
	// Entries counts what the archive lists and the directories that it implies. Default 2,000,000.
	Entries int64
	// Bytes is what all files may hold together, holes included. Default 64 GiB.
	Bytes int64
	// Ratio is how many times larger than itself a compressed archive may become once that is more than
	// RatioBytes. Default 200, from 1 GiB on.
	Ratio      int64
	RatioBytes int64
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		field *int64
		value int64
	}{{&l.Entries, 2_000_000}, {&l.Bytes, 64 << 30}, {&l.Ratio, 200}, {&l.RatioBytes, 1 << 30}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return l
}

// Options say how to unpack.
type Options struct {
	Limits Limits
	// Owners says that files get the owners that the archive names, which only root can give. Without it
	// they belong to whoever unpacks, who is root inside a rootless sandbox.
	Owners bool
}

// Result says what an archive held.
type Result struct {
	DiffID  string `json:"diffID"`  // "sha256:" and the digest of the archive without compression
	Entries int64  `json:"entries"` // files, directories, links
	Bytes   int64  `json:"bytes"`   // of files
	Left    Left   `json:"left,omitzero"`
}

// Left counts what was left out or changed.
type Left struct {
	Devices    int64 `json:"devices,omitempty"`    // device nodes
	Setuid     int64 `json:"setuid,omitempty"`     // files that lost such a bit
	Attributes int64 `json:"attributes,omitempty"` // extended attributes, file capabilities among them
	Owners     int64 `json:"owners,omitempty"`     // files whose owner is nobody now
}
