package idmap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// Range is a row of ids of the host.
type Range struct{ First, Size uint32 }

// maxLine bounds a line of /etc/subuid; a longer one is an error.
const maxLine = 4096

// Find gives the map of the calling user's sandboxes. Without one the error, a *sandbox.Error, says what is
// missing and its hint is the cure. Root needs no map and gets none.
func Find() (Map, error) {
	if os.Geteuid() == 0 {
		return Map{}, nil
	}
	_, _, perr := programs()
	m, err := fromFiles()
	var program, ranges *sandbox.Error
	if errors.As(perr, &program) && errors.As(err, &ranges) && program.Hint != "" {
		return Map{}, missing(program.Message+"; and "+ranges.Message, program.Hint+" && "+ranges.Hint, perr)
	}
	if perr != nil {
		return Map{}, perr
	}
	return m, err
}

// fromFiles gives the map that the files of ranges allow.
func fromFiles() (Map, error) {
	uids, gids, err := Given()
	if err != nil {
		return Map{}, err
	}
	m := Map{UIDs: arrange(uids), GIDs: arrange(gids)}
	if m.IDs() < Least {
		return Map{}, missing(fmt.Sprintf("/etc/subuid gives this user %d ids and /etc/subgid %d; %d is the least that is of use, and all that a sandbox can have is %d",
			count(uids), count(gids), Least, Full), Grant(), nil)
	}
	if err := m.Check(); err != nil {
		return Map{}, missing("/etc/subuid and /etc/subgid: "+err.Error(), "give this user one range: "+Grant(), err)
	}
	return m, nil
}

// Given are the ids of the host that the calling user may use besides its own, overlaps left out.
func Given() (uids, gids []Range, err error) {
	names := loginNames()
	for file, to := range map[string]*[]Range{"/etc/subuid": &uids, "/etc/subgid": &gids} {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, missing(err.Error(), "chmod a+r "+file, err)
		}
		*to, err = parse(f, names)
		f.Close()
		if err != nil {
			return nil, nil, missing(file+": "+err.Error(), "correct that line: NAME:FIRST:COUNT, as subuid(5) says", err)
		}
	}
	return uids, gids, nil
}

func count(all []Range) (n uint64) {
	for _, r := range all {
		n += uint64(r.Size)
	}
	return n
}

// parse reads the format of subuid(5): who, first id and how many, divided by colons. Lines about others
// are passed over whatever they say.
func parse(r io.Reader, names []string) ([]Range, error) {
	var all []Range
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		f := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if !slices.Contains(names, f[0]) {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("line %d has %d fields instead of 3", n, len(f))
		}
		first, err := strconv.ParseUint(f[1], 10, 32)
		size, serr := strconv.ParseUint(f[2], 10, 32)
		if err := errors.Join(err, serr); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		size = min(size, math.MaxUint32-first) // the last id of all is none: (uid_t)-1
		if first == 0 || size == 0 {
			continue // root's id is nobody's to give
		}
		given := Range{uint32(first), uint32(size)}
		if slices.ContainsFunc(all, func(o Range) bool { return given.First < o.First+o.Size && o.First < given.First+given.Size }) {
			continue
		}
		all = append(all, given)
	}
	return all, lines.Err()
}

// loginNames are the ways in which the files name the calling user.
func loginNames() []string {
	id := strconv.Itoa(os.Getuid())
	names := []string{id}
	if u, err := user.LookupId(id); err == nil {
		return append(names, u.Username)
	}
	// Not in /etc/passwd, so from a directory: newuidmap asks that itself and refuses what isn't so.
	if name := os.Getenv("USER"); name != "" {
		names = append(names, name)
	}
	return names
}

// firstGiven is where useradd begins to hand out ids (SUB_UID_MIN in login.defs(5)).
const firstGiven = 100_000

// Grant is the command that gives the calling user a full range, of ids that the files give to nobody yet.
func Grant() string {
	names := loginNames()
	who := names[len(names)-1]
	from := uint64(firstGiven)
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // then there is nothing in it
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			if len(f) != 3 {
				continue
			}
			first, err := strconv.ParseUint(f[1], 10, 32)
			size, serr := strconv.ParseUint(f[2], 10, 32)
			if err == nil && serr == nil && first+size+Full < math.MaxUint32 {
				from = max(from, first+size)
			}
		}
	}
	span := fmt.Sprintf("%d-%d", from, from+Full-1)
	command := "sudo usermod --add-subuids " + span + " --add-subgids " + span + " "
	if len(names) == 1 { // newuidmap, too, knows only who has a line there
		return fmt.Sprintf("sudo useradd --uid %s NAME (this user id has no line in /etc/passwd) && %sNAME", who, command)
	}
	return command + who
}

func missing(message, hint string, err error) error {
	return &sandbox.Error{Code: sandbox.CodeMachineNotSupported, Op: "give sandboxes user ids of their own", Message: message, Hint: hint, Err: err}
}
