package surface

import (
	"context"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// maxListed is how many entries listFiles gives. files.list gives pages of more.
const maxListed = 50_000

type listOptions struct {
	Recursive     bool `json:"recursive"`
	IncludeHidden bool `json:"includeHidden"`
}

type fileEntry struct {
	Name         string      `json:"name"`
	AbsolutePath string      `json:"absolutePath"`
	RelativePath string      `json:"relativePath"`
	Type         string      `json:"type"`
	Size         int64       `json:"size"`
	ModifiedAt   string      `json:"modifiedAt"`
	Mode         string      `json:"mode"` // "rwxr-xr-x"
	Permissions  permissions `json:"permissions"`
}

type permissions struct {
	Readable   bool `json:"readable"`
	Writable   bool `json:"writable"`
	Executable bool `json:"executable"`
}

type listResult struct {
	Success   bool        `json:"success"`
	Path      string      `json:"path"`
	Files     []fileEntry `json:"files"`
	Count     int         `json:"count"`
	Timestamp string      `json:"timestamp"`
	// Truncated: there are more than Count.
	Truncated bool `json:"truncated,omitempty"`
}

// listFiles lists a directory, sorted by path. Names that begin with a dot are left out unless they
// are asked for.
func (b *box) listFiles(ctx context.Context, name string, o *listOptions) (*listResult, error) {
	if o == nil {
		o = &listOptions{}
	}
	dir, err := b.path(ctx, name)
	if err != nil {
		return nil, err
	}
	in, err := b.Stat(ctx, dir)
	if err != nil {
		return nil, err
	}
	if in.Type != sandbox.TypeDirectory {
		return nil, sandbox.Errf(sandbox.CodeNotDirectory, "list files", clipped(name)+" is not a directory", "name a directory")
	}
	r := &listResult{Success: true, Path: name, Files: []fileEntry{}}
	size := 0
	opts := sandbox.ListOptions{Recursive: o.Recursive, Hidden: o.IncludeHidden, Limit: 10_000}
	for {
		page, err := b.ListFiles(ctx, dir, opts)
		if err != nil {
			return nil, err
		}
		for i := range page.Entries {
			if size += 2*len(page.Entries[i].Path) + 300; len(r.Files) == maxListed || size > maxText {
				r.Truncated = true
				break
			}
			r.Files = append(r.Files, entry(in.Path, &page.Entries[i]))
		}
		if opts.Cursor = page.Next; opts.Cursor == "" || r.Truncated {
			break
		}
	}
	r.Count, r.Timestamp = len(r.Files), timestamp(time.Now())
	return r, nil
}

func entry(dir string, in *sandbox.FileInfo) fileEntry {
	return fileEntry{
		Name: in.Name, AbsolutePath: in.Path, RelativePath: strings.TrimPrefix(strings.TrimPrefix(in.Path, dir), "/"),
		Type: string(in.Type), Size: in.Size, ModifiedAt: timestamp(in.Modified), Mode: modeText(in.Mode),
		Permissions: permissions{in.Mode&0o444 != 0, in.Mode&0o222 != 0, in.Mode&0o111 != 0},
	}
}

func modeText(mode uint32) string {
	text := []byte("rwxrwxrwx")
	for i := range text {
		if mode&(1<<(8-i)) == 0 {
			text[i] = '-'
		}
	}
	return string(text)
}
